"""The loss around a run's checkpoint: `python -m experiments.landscape --workdir runs/smoke`.

Over a plane of two random, filter-normalised directions through the newest checkpoint's evaluation
point (what smoothing does to it is the loss's mean over a disc there); along the line from the
query point to the evaluation point, for methods that average; and, with `--through`, over the plane
through the checkpoints of other runs, such as those of other methods from the same start.

The loss is that of `examples` training images, not augmented, with the network in evaluation mode.
Writes landscape.json, landscape.npz, landscape.html, landscape.md and figures/landscape_*.png.
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
from clipjax.train.log import write_json
from experiments.evaluate import restore
from experiments.high_probability.chunks import write_npz
from experiments.setup import build
from experiments.setup.checks import COUNT, POSITIVE, SEED, Range, check_fields
from experiments.setup.cli import Command, explain, parse, start_jax
from experiments.setup.noise_probe import training_examples
from experiments.setup.provenance import git_commit, versions
from experiments.setup.workbench import Workbench


@dataclass(frozen=True)
class LandscapeCommand(Command):
    """Draw the loss around a run's newest checkpoint."""

    through: tuple[Path, ...] = ()
    """Workdirs of two or more other runs of the same network: the plane through all of them."""
    examples: Annotated[int, COUNT] = 256
    """Training examples whose mean loss is drawn."""
    points: Annotated[int, Range(3, 10_000)] = 21
    """Coordinates along each direction."""
    reach: Annotated[float, POSITIVE] = 1.0
    """How far the random plane reaches, in lengths of the filters."""
    chunk: Annotated[int, COUNT] = 8
    """Points of the plane evaluated at once."""
    seed: Annotated[int, SEED] = 0
    """Of the random directions."""

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.through) == 1:
            raise ValueError("through names one run; a plane needs two besides this one")


def set_loss(run: Any, bench: Workbench, model_state: Any, examples: Any) -> Callable:
    """Return parameters -> mean loss of the examples, with the network in evaluation mode."""
    program = bench.program(run)
    batch = {name: jnp.asarray(value) for name, value in examples.items()}

    def loss(params: Any) -> jax.Array:
        variables = {"params": params, **model_state}
        outputs = program.model.apply(variables, program.task.inputs(batch), train=False)
        return program.task.loss(outputs, batch)

    return loss


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
    loss = set_loss(run, bench, state.model_state, examples)
    average = bench.program(run).average(state.opt_state, state.params)
    summary: dict[str, Any] = {
        "name": command.workdir.name,
        "step": int(state.step),
        "examples": len(next(iter(examples.values()))),
        "loss": float(loss(average)),
        "reach": command.reach,
    }
    arrays: dict[str, Any] = {}
    axis = np.linspace(-command.reach, command.reach, command.points)
    keys = jax.random.split(jax.random.key(command.seed))
    first, second = (landscape.random_direction(average, key) for key in keys)
    found = landscape.plane(loss, average, first, second, axis, axis, chunk=command.chunk)
    arrays |= {f"random/{name}": value for name, value in found._asdict().items()}
    apart = landscape.path_length([state.params, average])
    if apart > 0:
        # From the query point (0) to the evaluation point (1), and as far again on both sides.
        step = jax.tree.map(jnp.subtract, average, state.params)
        where = np.linspace(-1, 2, command.points)
        arrays["line/alphas"] = where
        arrays["line/values"] = landscape.line(loss, state.params, step, where, chunk=command.chunk)
        summary["distance"] = apart
    if command.through:
        others = [_other(path, run, bench) for path in command.through]
        names = [*(path.name for path in command.through), command.workdir.name]
        summary["points"] = names
        arrays |= _through([*others, average], loss, command)
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


def _through(
    points: Sequence[Any], loss: Callable, command: LandscapeCommand
) -> dict[str, np.ndarray]:
    plane = landscape.plane_through(points)
    low, high = plane.coordinates.min(axis=0), plane.coordinates.max(axis=0)
    margin = 0.25 * (high - low).max()
    alphas, betas = np.linspace(low - margin, high + margin, command.points).T
    found = landscape.plane(
        loss, plane.point, plane.first, plane.second, alphas, betas, chunk=command.chunk
    )
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
    summary, arrays = measure(command, Workbench(command.data_dir))
    if jax.process_index() == 0:
        write_npz(command.workdir / "landscape.npz", arrays)
        write_json(command.workdir / "landscape.json", summary)
        print(write_landscape(command.workdir))
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
