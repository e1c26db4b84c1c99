"""The loop: what happens in which order between the first step and the summary.

    restore the newest checkpoint, or initialise
    for each step:   wait for its batch -> step -> fetch the metrics of the step before
                     every log_every steps: a row in metrics.jsonl
                     before any of the following: check that parameters and moments are finite
                     every evaluate_every steps: a row, at the method's evaluation point
                     every probe.every steps: a row of what the probe measures, if there is one
                     every checkpoint_every steps: save (after the rows of that step)
    evaluate, save, return

Metrics are fetched one step late, so the host prepares a step while devices do the one before.
A stop signal is honoured between two steps: save, then return with `stopped` set.

A run diverges where the training loss, the parameters, the optimizer's memory of them (momentum,
moments), the evaluation point or the evaluation loss is not finite. Such a state is never saved,
measured or returned, so the newest checkpoint is good.

A step takes one micro-batch of `data.batch_size` examples or several, and their number may grow
from stage to stage: `clipjax.train.plan`.
"""

import itertools
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
from clipjax.train.plan import Plan
from clipjax.train.plan import Stage as Stage
from clipjax.train.probe import Probe
from clipjax.train.state import TrainState
from clipjax.train.step import Controls, Program, step
from clipjax.typing import Batch, Data, HostBatch, Params


class NonFiniteLoss(FloatingPointError):
    """Training met a loss, or parameters, that are NaN or infinite."""


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
    probe_times: tuple[float, ...] = ()
    """Seconds that each measurement of the probe took since `start`; the first compiles."""
    probe_share: float = 0.0
    """Their sum as a share of all the time since then, 0..1."""


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
    probe: Probe | None = None,
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
        probe: what else is measured along the way.

    Returns:
        The final state and its evaluation.

    Raises:
        NonFiniteLoss: naming the step, what is not finite and the last checkpoint.
    """
    began = time.monotonic()
    meshes.check_divisible(data.batch_size, program.mesh)
    state = restore_or_init(program, controls, data, checkpoints)
    start = saved = int(state.step)
    batches = data.train(plan.consumed(start), **meshes.process())
    stream = _placed(batches, plan, start, program)
    recorder = _Recorder(program, plan, data.batch_size, start)
    evaluated: tuple[int, dict[str, float]] = (-1, {})
    point, stopped, probe_times = None, False, []

    def measure(now: int, evaluates: bool, probes: bool) -> None:
        """Write the rows of a state beside those of its training."""
        nonlocal point, evaluated
        examples = plan.consumed(now) * data.batch_size
        if evaluates:
            point = evaluation_point(program, state, data, plan.calibration_batches)
            evaluated = now, _evaluate_finite(program, *point, data, now, saved)
            rows.append(_evaluation_row(evaluated, examples))
        if probe is not None and probes:
            row = probe.row(state, now, examples)
            probe_times.append(row["seconds"])
            rows.append(row)

    def due(now: int) -> tuple[bool, bool]:
        """Return whether an evaluation and a measurement by the probe are due."""
        probes = probe is not None and plan.due(probe.every, now)
        return plan.due(plan.evaluate_every, now) or now == plan.steps, probes

    with (
        MetricsFile(workdir / "metrics.jsonl", start, write=jax.process_index() == 0) as rows,
        ProgressLine(name, plan.steps, start) as progress,
    ):
        if 0 < start < plan.steps:
            # Stopped here, the run left out what was due, to end at once.
            found = ["evaluation" in rows.splits, probe is not None and probe.split in rows.splits]
            left_out = [
                is_due and not is_there for is_due, is_there in zip(due(start), found, strict=True)
            ]
            measure(start, *meshes.told_by_first(left_out))
        compile_time, now = 0.0, start
        for now in range(start + 1, plan.steps + 1):
            asked = time.monotonic()
            batches = next(stream)
            waited = time.monotonic() - asked
            state, metrics = step(program, state, batches, controls)
            recorder.add(now, metrics, waited, rows, progress, saved)
            last = now == plan.steps
            stopped = meshes.stop_agreed(should_stop(), now) and not last
            measures = any(due(now)) and not stopped
            saves = plan.due(plan.checkpoint_every, now) or last or stopped
            if measures or saves:
                recorder.flush(rows, progress, saved)
                _check_finite(program, state, now, saved)
            if measures:
                measure(now, *due(now))
            if saves:
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
            evaluated = now, _evaluate_finite(program, *point, data, now, saved)
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
        tuple(probe_times),
        sum(probe_times) / max(time.monotonic() - began, 1e-9),
    )


def _check_finite(program: Program, state: TrainState, now: int, saved: int) -> None:
    """Raise NonFiniteLoss where a state holds what is not finite; the same on all hosts.

    The loss of a step does not show it: it is of the parameters before the step. Where only a
    momentum is infinite, the next step ruins the parameters; where only a second moment is, its
    parameter stands still from then on, and nothing else would tell.
    """
    params, memory = jax.device_get(program.is_finite(state))
    if not params:
        raise _diverged(
            f"parameters are NaN or infinite after step {now}, though its loss was finite", saved
        )
    if not memory:
        raise _diverged(
            f"the optimizer's state (momentum, moments) is NaN or infinite after step {now}, "
            "though loss and parameters were finite",
            saved,
        )


def _evaluate_finite(
    program: Program, params: Params, model_state: dict[str, Any], data: Data, now: int, saved: int
) -> dict[str, float]:
    """Return `evaluate`, or raise NonFiniteLoss: finite parameters may be too large for it."""
    metrics = evaluate(program, params, model_state, data)
    if not np.isfinite(metrics["loss"]):
        raise _diverged(f"the evaluation loss is {metrics['loss']} after step {now}", saved)
    return metrics


def _diverged(what: str, saved: int) -> NonFiniteLoss:
    last = f"The last checkpoint, of step {saved}, is good" if saved else "No checkpoint was saved"
    return NonFiniteLoss(f"{what}. {last}")


def _placed(
    batches: Iterator[HostBatch], plan: Plan, start: int, program: Program
) -> Iterator[list[Batch]]:
    """Yield the micro-batches of each step on the devices; or the one batch that they make up."""
    for step_number in itertools.count(start):
        group = list(itertools.islice(batches, plan.stage(step_number).micro_batches))
        if plan.whole_batches:
            group = [{key: np.concatenate([part[key] for part in group]) for key in group[0]}]
        yield [meshes.place(batch, program.mesh) for batch in group]


def _evaluation_row(evaluated: tuple[int, Mapping[str, float]], examples: int) -> dict[str, Any]:
    now, metrics = evaluated
    return {"split": "evaluation", "step": now, "examples": examples, **scalars(metrics)}


class _Recorder:
    """Fetches each step's metrics one step late, checks the loss, and writes the rows."""

    def __init__(self, program: Program, plan: Plan, batch_size: int, start: int):
        self._program, self._plan, self._batch_size = program, plan, batch_size
        self._pending: tuple[int, Any] | None = None
        self._fetched = start
        self.restart_clock()

    def restart_clock(self) -> None:
        """Forget the time so far, which was compilation."""
        self._clock, self._examples, self._waited = time.monotonic(), 0, 0.0

    @property
    def images_per_second(self) -> float:
        elapsed = max(time.monotonic() - self._clock, 1e-9)
        return self._examples / elapsed

    @property
    def input_wait(self) -> float:
        return self._waited / max(time.monotonic() - self._clock, 1e-9)

    def add(self, now, metrics, waited, rows, progress, saved) -> None:
        self.flush(rows, progress, saved)
        self._pending = now, metrics
        self._examples += self._plan.stage(now - 1).micro_batches * self._batch_size
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
            raise _diverged(
                f"the loss is {values['loss']} at step {now} (gradient norm "
                f"{values['gradient_norm']:.4g}; {rates})",
                saved,
            )
        if not self._plan.due(self._plan.log_every, now) and now != self._plan.steps:
            return
        measured = scalars(self._program.task.metrics(metrics["statistics"]) | values)
        speed = {"input_wait": self.input_wait, "images_per_second": self.images_per_second}
        head = {
            "split": "train",
            "step": now,
            "examples": self._plan.consumed(now) * self._batch_size,
            "batch_size": self._plan.stage(now - 1).micro_batches * self._batch_size,
        }
        rows.append(head | measured | scalars(speed))
        progress.update(now, f"loss {values['loss']:.4g}  {self.images_per_second:.0f} images/s")
