"""Evaluate a run's newest checkpoint: `python -m experiments.evaluate --workdir runs/smoke`.

Prints the metrics as JSON. They are taken where training takes them: at the method's evaluation
point, with BatchNorm statistics recomputed there (from the data it was trained on). With --dataset
they are those of other examples, such as Set5's for a network trained on DIV2K.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from clipjax.train import mesh as meshes
from clipjax.train.checkpoint import Checkpoints, Position
from clipjax.train.log import scalars
from clipjax.train.loop import evaluate, evaluation_point
from clipjax.train.state import TrainState
from experiments import build
from experiments import config as configs
from experiments.train import Command, Workbench, explain, parse, start_jax


@dataclass(frozen=True)
class EvaluateCommand(Command):
    """Evaluate a run's newest checkpoint."""

    dataset: str | None = None
    """Evaluate on this prepared data set instead of the run's."""
    split: str | None = None
    """Its split; None takes the first there is of test, validation, val."""


def restore(workdir: Path, bench: Workbench) -> tuple[configs.Run, TrainState]:
    """Return a run's config and its newest checkpoint.

    Raises:
        FileNotFoundError: the workdir holds no run, or the run has no checkpoint yet.
    """
    run = configs.read(workdir / "config.json")
    program = bench.program(run)
    data = build.make_data(run, bench.sources(run), bench.mesh)
    example = meshes.place(next(data.calibration(1, **meshes.process())), bench.mesh)
    abstract = jax.eval_shape(program.init, build.make_controls(run), example)
    position = Position(data_seed=run.seed, batch_size=run.batch_size)
    with Checkpoints(workdir / "checkpoints", position) as checkpoints:
        state = checkpoints.restore(abstract, meshes.replicated(bench.mesh))
    if state is None:
        raise FileNotFoundError(
            f"{workdir}/checkpoints has no checkpoint; train with experiments.train first"
        )
    return run, state


def evaluate_run(
    workdir: Path, bench: Workbench, dataset: str | None = None, split: str | None = None
) -> dict[str, float]:
    """Return the evaluation metrics of a workdir's newest checkpoint.

    Args:
        workdir: the run's.
        bench: what runs share.
        dataset: to evaluate on; None takes the run's own.
        split: of that data set; None takes the run's own, or another data set's usual one.

    Raises:
        FileNotFoundError: the workdir holds no run, or the run has no checkpoint yet.
        ValueError: the examples of the other data set do not suit the network.
    """
    run, state = restore(workdir, bench)
    if dataset is not None:
        run = dataclasses.replace(run, evaluation_dataset=dataset, evaluation_split=split)
    elif split is not None:
        run = dataclasses.replace(run, evaluation_split=split)
    program = bench.program(run)
    data = build.make_data(run, bench.sources(run), bench.mesh)
    point = evaluation_point(program, state, data, run.calibration_batches)
    return scalars({"step": int(state.step)} | evaluate(program, *point, data))


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate from the command line."""
    command = parse(EvaluateCommand, arguments)
    start_jax(command)
    bench = Workbench(command.data_dir)
    metrics = evaluate_run(command.workdir, bench, command.dataset, command.split)
    if jax.process_index() == 0:
        print(json.dumps(metrics, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
