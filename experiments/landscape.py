"""The loss around a run's checkpoint: `python -m experiments.landscape --workdir runs/smoke`.

Over a plane of two random, filter-normalised directions through the newest checkpoint's evaluation
point (what smoothing does to it is the loss's mean over a disc there); along the line from the
query point to the evaluation point, for methods that average; and, with `--through`, over the plane
through the checkpoints of other runs, such as those of other methods from the same start.

The loss is that of `examples` training images, not augmented, with the network in evaluation mode.
BatchNorm's statistics at one point are wrong at every other, so they are measured anew at each
point, as `experiments.evaluate` does at a checkpoint: the value drawn at a checkpoint is the one
that its evaluation gives. They come from the first of the training batches that evaluation takes,
by default as many as hold the examples: one forward pass more for each example at each point.
`--calibration-batches 20` takes as many as evaluation usually does. Networks without BatchNorm cost
nothing more. For 100 steps of configs/smoke.py, with `--points 21 --chunk 8` on two shared CPU
cores, compilation included: 33 to 40 s, 30 s with one point's statistics for all (which drew the
checkpoint at 0.332 in place of 0.257), 68 s with 20 batches (0.266).

Writes landscape.json, landscape.npz, landscape.html, landscape.md and figures/landscape_*.png into
the workdir, whose lock it holds, so not while the run is training. Those of `--through` are read.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from clipjax.analysis import landscape
from clipjax.train import mesh as meshes
from clipjax.train.batch_stats import recompute_batch_stats
from clipjax.train.log import write_json
from clipjax.train.step import Program
from experiments.evaluate import restore
from experiments.setup import build, pace
from experiments.setup.checked_files import write_npz
from experiments.setup.checks import COUNT, POSITIVE, SEED, Range, check_fields
from experiments.setup.cli import Command, explain, parse, start_jax, working_in
from experiments.setup.labels import plain
from experiments.setup.noise_probe import calibration_batches, training_examples
from experiments.setup.provenance import git_commit, versions
from experiments.setup.workbench import Workbench


@dataclass(frozen=True)
class LandscapeCommand(Command):
    """Draw the loss around a run's newest checkpoint."""

    through: tuple[Path, ...] = ()
    """Workdirs of two or more other runs of the same network: the plane through all of them."""
    examples: Annotated[int, COUNT] = 256
    """Training examples whose mean loss is drawn; all where there are fewer."""
    calibration_batches: Annotated[int, COUNT] | None = None
    """Training batches that BatchNorm's statistics are measured from at each point; None takes as
    many as hold the examples."""
    points: Annotated[int, Range(3, 10_000)] = 21
    """Coordinates along each direction."""
    reach: Annotated[float, POSITIVE] = 1.0
    """How far the random plane reaches, in lengths of the filters."""
    chunk: Annotated[int, COUNT] = 8
    """Points of the plane evaluated at once."""
    seed: Annotated[int, SEED] = 0
    """Of the random directions."""
    allow_import: tuple[str, ...] = ()
    """Packages whose names the run's optimizer may say, where it is a text."""

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.through) == 1:
            raise ValueError("through names one run; a plane needs two besides this one")


@dataclass(frozen=True)
class SetLoss:
    """The mean loss of some examples over parameters, the network in evaluation mode.

    Attributes:
        of: parameters -> loss; with `stacked`, many points at once, each leaf (points, ...), to
            the loss at each.
        stacked: whether BatchNorm's statistics are measured at each point.
        chunk: points evaluated at once.
    """

    of: Callable[[Any], jax.Array]
    stacked: bool
    chunk: int

    def at(self, params: Any) -> float:
        """Return the loss at one point."""
        if not self.stacked:
            return float(self.of(params))
        # As many copies as the planes evaluate at once: the same compiled program.
        copies = jax.tree.map(lambda leaf: jnp.stack([leaf] * self.chunk), params)
        return float(self.of(copies)[0])

    def line(self, *where: Any) -> np.ndarray:
        """Return the losses along a line, as `clipjax.analysis.landscape.line`."""
        return landscape.line(self.of, *where, chunk=self.chunk, stacked=self.stacked)

    def plane(self, *where: Any) -> landscape.Plane:
        """Return the losses over a plane, as `clipjax.analysis.landscape.plane`."""
        return landscape.plane(self.of, *where, chunk=self.chunk, stacked=self.stacked)


def set_loss(
    program: Program, model_state: Any, examples: Any, batches: Sequence[Any], chunk: int
) -> SetLoss:
    """Return the loss of the examples, at each point with BatchNorm's statistics of its own.

    Args:
        program: the run's functions.
        model_state: of any point; what is not BatchNorm's statistics is taken from it.
        examples: whose loss it is, leading axis the example.
        batches: training batches that the statistics are measured from; none where the network
            has no BatchNorm.
        chunk: points evaluated at once.
    """
    batch = {name: jnp.asarray(value) for name, value in examples.items()}

    def loss(params: Any, model_state: Any) -> jax.Array:
        variables = {"params": params, **model_state}
        outputs = program.model.apply(variables, program.task.inputs(batch), train=False)
        return program.task.loss(outputs, batch)

    if not batches:
        return SetLoss(lambda params: loss(params, model_state), stacked=False, chunk=chunk)
    others = {name: value for name, value in model_state.items() if name != "batch_stats"}
    each = jax.jit(jax.vmap(lambda params, stats: loss(params, {**others, "batch_stats": stats})))

    def losses(points: Any) -> jax.Array:
        own = recompute_batch_stats(
            program.model, points, model_state, batches, program.task, stacked=True
        )
        return each(points, own["batch_stats"])

    return SetLoss(losses, stacked=True, chunk=chunk)


def measure(command: LandscapeCommand, bench: Workbench) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what landscape.json and landscape.npz hold.

    Raises:
        FileNotFoundError: a workdir holds no run or no checkpoint.
        ValueError: the other runs train another network.
    """
    began = time.monotonic()
    run, state = restore(command.workdir, bench)
    data = build.make_data(run, bench.sources(run), bench.mesh)
    examples = training_examples(data, command.examples)
    program = bench.program(run)
    batches = calibration_batches(
        state.model_state, data, command.examples, command.calibration_batches
    )
    loss = set_loss(program, state.model_state, examples, batches, command.chunk)
    average = program.average(state.opt_state, state.params)
    summary: dict[str, Any] = {
        "name": command.workdir.name,
        "step": int(state.step),
        "examples": len(next(iter(examples.values()))),
        "examples_asked": command.examples,
        "calibration": {"batches": len(batches), "batch_size": data.batch_size},
        "loss": loss.at(average),
        "reach": command.reach,
    }
    arrays: dict[str, Any] = {}
    axis = np.linspace(-command.reach, command.reach, command.points)
    keys = jax.random.split(jax.random.key(command.seed))
    first, second = (landscape.random_direction(average, key) for key in keys)
    found = loss.plane(average, first, second, axis, axis)
    arrays |= {f"random/{name}": value for name, value in found._asdict().items()}
    apart = landscape.path_length([state.params, average])
    if apart > 0:
        # From the query point (0) to the evaluation point (1), and as far again on both sides.
        step = jax.tree.map(jnp.subtract, average, state.params)
        where = np.linspace(-1, 2, command.points)
        arrays["line/alphas"] = where
        arrays["line/values"] = loss.line(state.params, step, where)
        summary["distance"] = apart
    if command.through:
        others = [_other(path, run, bench) for path in command.through]
        names = [*(path.name for path in command.through), command.workdir.name]
        summary["points"] = names
        summary["losses"] = [*map(loss.at, others), summary["loss"]]
        arrays |= _through([*others, average], loss, command.points)
    summary |= {
        "wall_time": round(time.monotonic() - began, 3),
        "device": meshes.describe(),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    return summary, arrays


def _other(workdir: Path, run: Any, bench: Workbench) -> Any:
    other, state = restore(workdir, bench)
    if (other.model, other.dataset) != (run.model, run.dataset):
        raise ValueError(
            f"{workdir} is a run of {other.model} on {other.dataset!r}, not of {run.model}"
        )
    return bench.program(other).average(state.opt_state, state.params)


def _through(points: Sequence[Any], loss: SetLoss, count: int) -> dict[str, np.ndarray]:
    plane = landscape.plane_through(points)
    low, high = plane.coordinates.min(axis=0), plane.coordinates.max(axis=0)
    margin = 0.25 * (high - low).max()
    alphas, betas = np.linspace(low - margin, high + margin, count).T
    found = loss.plane(plane.point, plane.first, plane.second, alphas, betas)
    arrays = {f"through/{name}": value for name, value in found._asdict().items()}
    return arrays | {
        "through/coordinates": plane.coordinates,
        "through/residuals": plane.residuals,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and draw from the command line."""
    from experiments.report.landscape import write_landscape

    command = parse(LandscapeCommand, arguments)
    start_jax(command)
    with working_in(command.workdir), pace.aloud("the loss around the checkpoint"):
        summary, arrays = measure(command, Workbench(command.data_dir, command.allow_import))
        if jax.process_index() == 0:
            write_npz(command.workdir / "landscape.npz", arrays)
            write_json(command.workdir / "landscape.json", summary)
            print(plain(write_landscape(command.workdir)))
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
