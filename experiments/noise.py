"""How heavy is the gradient noise of a run? `python -m experiments.noise --workdir runs/smoke`.

At the run's newest checkpoint, at its query point, where training takes its gradients: the norms of
the noise of single examples, |∇f_i - ∇f|, and of minibatches of the run's size, each beside a
Gaussian sample of the same mean and spread. Examples are training images, not augmented, the
network is in evaluation mode (no dropout, BatchNorm with frozen statistics): the noise is that of
the choice of examples and of nothing else. BatchNorm's statistics are those of the query point,
measured there from the training batches that hold the examples; the running averages of training
belong to the points of the last steps.

Cost: two gradients per example, formed `chunk` at a time, `batches` minibatch gradients, and with
BatchNorm a forward pass per example. Writes noise.json, noise.npz, noise.html, noise.md and
figures/noise_*.png into the workdir, whose lock it holds, so not while the run is training:
`--noise.every` has training itself measure the noise as it goes.
"""

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import numpy as np
from jax.tree_util import Partial

from clipjax import analysis
from clipjax.train import mesh as meshes
from clipjax.train.log import write_json
from experiments.evaluate import restore
from experiments.setup import build, pace
from experiments.setup.checked_files import write_npz
from experiments.setup.checks import COUNT, INT32, SEED, Range, check_fields
from experiments.setup.cli import Command, explain, parse, start_jax, working_in
from experiments.setup.labels import plain
from experiments.setup.noise_probe import (
    calibration_batches,
    example_loss,
    numbers,
    own_statistics,
    training_examples,
)
from experiments.setup.provenance import git_commit, versions
from experiments.setup.workbench import Workbench


@dataclass(frozen=True)
class NoiseCommand(Command):
    """Measure how heavy the gradient noise of a run's newest checkpoint is."""

    examples: Annotated[int, Range(4, INT32)] = 1024
    """Training examples whose gradients are formed, all where there are fewer; f is their mean."""
    batches: Annotated[int, Range(4, INT32)] = 256
    """Minibatches of the run's batch size."""
    chunk: Annotated[int, COUNT] = 16
    """Gradients in memory at once."""
    seed: Annotated[int, SEED] = 0
    """Which examples, which minibatches, which Gaussian sample."""
    allow_import: tuple[str, ...] = ()
    """Packages whose names the run's optimizer may say, where it is a text."""

    def __post_init__(self) -> None:
        check_fields(self)


def describe(sample: np.ndarray, seed: int) -> dict[str, Any]:
    """Return the numbers that tell how heavy a sample's tail is, and those of its control."""
    control = analysis.gaussian_control(sample, seed)
    found = {"values": len(sample), "sample": numbers(sample), "control": numbers(control)}
    return _finite(found)


def _finite(value: Any) -> Any:
    """Return JSON values: infinity is written as text."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    return value if math.isfinite(value) else "inf"


def measure(command: NoiseCommand, bench: Workbench) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what noise.json and noise.npz hold."""
    began = time.monotonic()
    run, state = restore(command.workdir, bench)
    data = build.make_data(run, bench.sources(run), bench.mesh)
    examples = training_examples(data, command.examples)
    program = bench.program(run)
    calibration = calibration_batches(state.model_state, data, command.examples)
    frozen = own_statistics(program, state.params, state.model_state, calibration)
    loss = Partial(example_loss(program), frozen)
    found = analysis.gradient_noise(loss, state.params, examples, chunk=command.chunk)
    batches = analysis.minibatch_noise(
        loss,
        state.params,
        examples,
        found.mean,
        batch_size=run.batch_size,
        num_batches=command.batches,
        seed=command.seed,
    )
    arrays = {
        "example_noise": found.norms,
        "example_gradient": found.gradient_norms,
        "minibatch_noise": batches,
    }
    summary = {
        "name": command.workdir.name,
        "step": int(state.step),
        "examples": len(found.norms),
        "examples_asked": command.examples,
        "calibration": {"batches": len(calibration), "batch_size": data.batch_size},
        "batch_size": run.batch_size,
        "mean_gradient_norm": found.mean_norm,
        "noise": {
            "single examples": describe(found.norms, command.seed),
            f"minibatches of {run.batch_size}": describe(batches, command.seed),
        },
        "seed": command.seed,
        "wall_time": round(time.monotonic() - began, 3),
        "device": meshes.describe(),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    return summary, arrays


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write from the command line."""
    from experiments.report.noise import write_noise

    command = parse(NoiseCommand, arguments)
    start_jax(command)
    with working_in(command.workdir), pace.aloud("gradient noise"):
        summary, arrays = measure(command, Workbench(command.data_dir, command.allow_import))
        if jax.process_index() == 0:
            write_npz(command.workdir / "noise.npz", arrays)
            write_json(command.workdir / "noise.json", summary)
            print(plain(write_noise(command.workdir)))
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
