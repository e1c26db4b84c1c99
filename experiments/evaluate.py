"""Evaluate a run's newest checkpoint: `python -m experiments.evaluate --workdir runs/smoke`.

Prints the metrics as JSON. They are taken where training takes them: at the method's evaluation
point, with BatchNorm statistics recomputed there (from the data it was trained on). With --dataset
they are those of other examples, such as Set5's for a network trained on DIV2K. With --write they
go into the run's folder, where it ended before the program measured all that it does now.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from clipjax.train import mesh as meshes
from clipjax.train.checkpoint import Checkpoints, Position
from clipjax.train.log import finite_or_null, scalars, write_json
from clipjax.train.loop import evaluate, evaluation_point
from clipjax.train.state import TrainState
from experiments.setup import build, config_files, pace, samples
from experiments.setup import config as configs
from experiments.setup.cli import Command, explain, parse, start_jax, working_in
from experiments.setup.runs import finished
from experiments.setup.workbench import Workbench


@dataclass(frozen=True)
class EvaluateCommand(Command):
    """Evaluate a run's newest checkpoint."""

    dataset: str | None = None
    """Evaluate on this prepared data set instead of the run's."""
    split: str | None = None
    """Its split; None takes the first there is of test, validation, val."""
    write: bool = False
    """Replace metrics, class names and sample pictures in the run's folder by what is measured."""
    allow_import: tuple[str, ...] = ()
    """Packages whose names the run's optimizer may say, where it is a text."""


def restore(workdir: Path, bench: Workbench) -> tuple[configs.Run, TrainState]:
    """Return a run's config and its newest checkpoint.

    Raises:
        FileNotFoundError: the workdir holds no run, or the run has no checkpoint yet.
    """
    run = config_files.read(workdir / "config.json")
    program = bench.program(run)
    data = build.make_data(run, bench.sources(run), bench.mesh)
    example = meshes.place(next(data.calibration(1, **meshes.process())), bench.mesh)
    abstract = jax.eval_shape(program.init, build.make_controls(run), example)
    position = Position(data_seed=run.seed, batch_size=run.batch_size)
    with Checkpoints(workdir / "checkpoints", position, reads_only=True) as checkpoints:
        state = checkpoints.restore(abstract, meshes.replicated(bench.mesh))
    if state is None:
        raise FileNotFoundError(
            f"{workdir}/checkpoints has no checkpoint; train with experiments.train first"
        )
    return run, state


def evaluate_run(
    workdir: Path,
    bench: Workbench,
    dataset: str | None = None,
    split: str | None = None,
    *,
    write: bool = False,
) -> dict[str, float | None]:
    """Return the evaluation metrics of a workdir's newest checkpoint.

    Those that are not finite are None.

    Args:
        workdir: the run's.
        bench: what runs share.
        dataset: to evaluate on; None takes the run's own.
        split: of that data set; None takes the run's own, or another data set's usual one.
        write: put metrics and class names into summary.json, and sample pictures beside it, as at
            the end of training. All else, as the times, stays what it was.

    Raises:
        FileNotFoundError: the workdir holds no run, or the run has no checkpoint yet.
        ValueError: the examples of the other data set do not suit the network; or `write`, and
            they are not the run's own, or the run has not finished.
    """
    if write and (dataset is not None or split is not None):
        raise ValueError(
            f"a run's folder keeps what is measured on its own held-out examples, got dataset "
            f"{dataset!r}, split {split!r}: leave them out, or do not write"
        )
    run, state = restore(workdir, bench)
    summary = _last(workdir, run, int(state.step)) if write else None
    if dataset is not None:
        run = dataclasses.replace(run, evaluation_dataset=dataset, evaluation_split=split)
    elif split is not None:
        run = dataclasses.replace(run, evaluation_split=split)
    program = bench.program(run)
    data = build.make_data(run, bench.sources(run), bench.mesh)
    point = evaluation_point(program, state, data, run.calibration_batches)
    metrics = finite_or_null(scalars(evaluate(program, *point, data)))
    if summary is not None:
        samples.write(program, point, data, run.samples, workdir / "figures" / "samples.npz")
        names = list(bench.sources(run)[0].class_names)
        if jax.process_index() == 0:
            written = summary | {"metrics": metrics, "class_names": names}
            write_json(workdir / "summary.json", written)
    return {"step": int(state.step)} | metrics


def _last(workdir: Path, run: configs.Run, step: int) -> dict[str, Any]:
    """Return the summary of a run that finished with this step; else raise ValueError."""
    summary = finished(workdir, run)
    if summary is None or summary["status"] != "finished":
        raise ValueError(
            f"{workdir} has no summary.json of a run of this config that has finished: leave out "
            "--write, or train with the same config and workdir, which writes it at its end"
        )
    if summary["steps"] != step:
        raise ValueError(
            f"the newest checkpoint of {workdir} is of step {step}, its summary of step "
            f"{summary['steps']}: train it to its end first"
        )
    return summary


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate from the command line."""
    command = parse(EvaluateCommand, arguments)
    start_jax(command)
    bench = Workbench(command.data_dir, command.allow_import)
    held = working_in(command.workdir) if command.write else contextlib.nullcontext()
    with held, pace.aloud("evaluation"):
        metrics = evaluate_run(
            command.workdir, bench, command.dataset, command.split, write=command.write
        )
    if jax.process_index() == 0:
        print(json.dumps(metrics, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
