"""The loop: what happens in which order between the first step and the summary.

    restore the newest checkpoint, or initialise
    for each step:   wait for its batch -> step -> fetch the metrics of the step before
                     every log_every steps: a row in metrics.jsonl
                     every evaluate_every steps: a row, at the method's evaluation point
                     every checkpoint_every steps: save (after the rows of that step)
    evaluate, save, return

Metrics are fetched one step late, so the host prepares a step while devices do the one before.
A stop signal is honoured between two steps: save, then return with `stopped` set.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clipjax.train import mesh as meshes
from clipjax.train.batch_stats import recompute_batch_stats
from clipjax.train.checkpoint import Checkpoints
from clipjax.train.log import MetricsFile, ProgressLine, scalars
from clipjax.train.state import TrainState
from clipjax.train.step import Controls, Program, step
from clipjax.typing import Batch, Data, HostBatch, Params


class NonFiniteLoss(FloatingPointError):
    """Training met a loss that is NaN or infinite."""


@dataclass(frozen=True)
class Plan:
    """When what happens, in optimizer steps."""

    steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    accumulation: int = 1
    """Micro-batches in a global batch."""
    calibration_batches: int = 20
    """Training batches that BatchNorm statistics are recomputed from at each evaluation."""


@dataclass(frozen=True)
class Outcome:
    """How a run went."""

    state: TrainState
    point: tuple[Params, dict[str, Any]] | None
    """Parameters and model state that were evaluated last; None if stopped early."""
    metrics: dict[str, float]
    """Final evaluation; empty if stopped early."""
    stopped: bool
    start: int
    """The step it went on from, 0 for a fresh start."""
    images_per_second: float
    input_wait: float
    """Share of the time spent waiting for input, 0..1."""
    compile_time: float
    """Seconds until the first step was done."""


def evaluation_point(
    program: Program, state: TrainState, data: Data, calibration_batches: int
) -> tuple[Params, dict[str, Any]]:
    """Return the parameters to evaluate and the model state that belongs to them.

    BatchNorm statistics gathered along the way belong to the query points; at the evaluation
    point they are recomputed from training data, on a copy.
    """
    params = program.average(state.opt_state, state.params)
    if "batch_stats" not in state.model_state:
        return params, state.model_state
    batches = (
        meshes.place(batch, program.mesh)
        for batch in data.calibration(calibration_batches, **meshes.process())
    )
    return params, recompute_batch_stats(
        program.model, params, state.model_state, batches, program.task
    )


def evaluate(
    program: Program, params: Params, model_state: dict[str, Any], data: Data
) -> dict[str, float]:
    """Return the task's metrics over all evaluation examples, each counted once."""
    parts = [
        program.evaluate(params, model_state, meshes.place(batch, program.mesh))
        for batch in data.evaluation(**meshes.process())
    ]
    sums = jax.tree.map(
        lambda *leaves: np.sum(np.stack(leaves), axis=0, dtype=np.float64), *jax.device_get(parts)
    )
    return program.task.metrics(sums)


def restore_or_init(
    program: Program, controls: Controls, data: Data, checkpoints: Checkpoints | None
) -> TrainState:
    """Return the newest saved state, or a fresh one made on the devices where it will live."""
    example = meshes.place(next(data.calibration(1, **meshes.process())), program.mesh)
    abstract = jax.eval_shape(program.init, controls, example)
    restored = checkpoints and checkpoints.restore(abstract, meshes.replicated(program.mesh))
    return restored or program.init(controls, example)


def train(
    program: Program,
    data: Data,
    controls: Controls,
    plan: Plan,
    *,
    workdir: Path,
    checkpoints: Checkpoints,
    name: str = "run",
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train from the newest checkpoint (or from scratch) to the plan's last step.

    Args:
        program: the compiled functions.
        data: the batches.
        controls: seed and rates.
        plan: when what happens.
        workdir: holds metrics.jsonl.
        checkpoints: where states are saved.
        name: shown in the progress line.
        should_stop: asked between two steps; True saves and returns.

    Returns:
        The final state and its evaluation.

    Raises:
        NonFiniteLoss: naming the step, the loss, the gradient norm and the last checkpoint.
    """
    began = time.monotonic()
    meshes.check_divisible(data.batch_size, plan.accumulation, program.mesh)
    state = restore_or_init(program, controls, data, checkpoints)
    start = saved = int(state.step)
    stream = _placed(data.train(start, **meshes.process()), plan.accumulation, program)
    recorder = _Recorder(program, plan, data.batch_size, start)
    evaluated: tuple[int, dict[str, float]] = (-1, {})
    point, stopped = None, False
    with (
        MetricsFile(workdir / "metrics.jsonl", start, write=jax.process_index() == 0) as rows,
        ProgressLine(name, plan.steps, start) as progress,
    ):
        compile_time, now = 0.0, start
        for now in range(start + 1, plan.steps + 1):
            asked = time.monotonic()
            batches = next(stream)
            waited = time.monotonic() - asked
            state, metrics = step(program, state, batches, controls)
            recorder.add(now, metrics, waited, rows, progress, saved)
            last = now == plan.steps
            stopped = meshes.stop_agreed(should_stop(), now) and not last
            evaluates = now % plan.evaluate_every == 0 or last
            if evaluates and not stopped:
                recorder.flush(rows, progress, saved)
                point = evaluation_point(program, state, data, plan.calibration_batches)
                evaluated = now, evaluate(program, *point, data)
                rows.append(_evaluation_row(evaluated, data.batch_size))
            if now % plan.checkpoint_every == 0 or last or stopped:
                recorder.flush(rows, progress, saved)
                checkpoints.save(state)
                saved = now
            if now == start + 1:
                jax.block_until_ready(state.step)
                compile_time = time.monotonic() - began
                recorder.restart_clock()
            if stopped:
                break
        recorder.flush(rows, progress, saved)
        if not stopped and evaluated[0] != now:  # restored at the last step: nothing left to train
            point = evaluation_point(program, state, data, plan.calibration_batches)
            evaluated = now, evaluate(program, *point, data)
    checkpoints.wait()
    return Outcome(
        state,
        None if stopped else point,
        {} if stopped else evaluated[1],
        stopped,
        start,
        recorder.images_per_second,
        recorder.input_wait,
        compile_time,
    )


def _placed(
    batches: Iterator[HostBatch], accumulation: int, program: Program
) -> Iterator[list[Batch]]:
    """Yield global batches on the devices, each as `accumulation` micro-batches."""
    for batch in batches:
        parts = {key: np.split(value, accumulation) for key, value in batch.items()}
        yield [
            meshes.place({key: part[i] for key, part in parts.items()}, program.mesh)
            for i in range(accumulation)
        ]


def _evaluation_row(evaluated: tuple[int, Mapping[str, float]], batch_size: int) -> dict[str, Any]:
    now, metrics = evaluated
    return {"split": "evaluation", "step": now, "examples": now * batch_size, **scalars(metrics)}


class _Recorder:
    """Fetches each step's metrics one step late, checks the loss, and writes the rows."""

    def __init__(self, program: Program, plan: Plan, batch_size: int, start: int):
        self._program, self._plan, self._batch_size = program, plan, batch_size
        self._pending: tuple[int, Any] | None = None
        self._fetched = start
        self.restart_clock()

    def restart_clock(self) -> None:
        """Forget the time so far, which was compilation."""
        self._clock, self._steps, self._waited = time.monotonic(), 0, 0.0

    @property
    def images_per_second(self) -> float:
        elapsed = time.monotonic() - self._clock
        return self._steps * self._batch_size / elapsed if self._steps else 0.0

    @property
    def input_wait(self) -> float:
        return self._waited / max(time.monotonic() - self._clock, 1e-9)

    def add(self, now, metrics, waited, rows, progress, saved) -> None:
        self.flush(rows, progress, saved)
        self._pending = now, metrics
        self._steps += 1
        self._waited += waited

    def flush(self, rows: MetricsFile, progress: ProgressLine, saved: int) -> None:
        """Fetch what is pending; raises NonFiniteLoss."""
        if self._pending is None:
            return
        (now, metrics), self._pending = self._pending, None
        metrics = jax.device_get(metrics)
        values = metrics["scalars"]
        if not np.isfinite(values["loss"]):
            rates = ", ".join(
                f"{k} {v:.4g}" for k, v in values.items() if k not in ("loss", "gradient_norm")
            )
            raise NonFiniteLoss(
                f"the loss is {values['loss']} at step {now} (gradient norm "
                f"{values['gradient_norm']:.4g}; {rates}). Lower the learning rate or the clip "
                f"level; the last checkpoint is of step {saved}"
            )
        if now % self._plan.log_every and now != self._plan.steps:
            return
        measured = scalars(self._program.task.metrics(metrics["statistics"]) | values)
        speed = {"input_wait": self.input_wait, "images_per_second": self.images_per_second}
        head = {"split": "train", "step": now, "examples": now * self._batch_size}
        rows.append(head | measured | scalars(speed))
        progress.update(now, f"loss {values['loss']:.4g}  {self.images_per_second:.0f} images/s")
