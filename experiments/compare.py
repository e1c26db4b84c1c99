"""Run a grid of methods, tasks and seeds.

    python -m experiments.compare --config configs/demo.py --workdir runs/demo

All runs share one process: the data are decoded once, and each (task, method) compiles once, since
seeds and rates are values at run time. Each run has its own workdir, `GRID/task/method/seed0`.
Called again, it does what is missing.
"""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from experiments.setup import build, config_files
from experiments.setup import config as configs
from experiments.setup.cli import (
    Command,
    explain,
    parse,
    start_jax,
    stop_on_signal,
    stopped,
    working_in,
)
from experiments.setup.labels import in_terminal, plain
from experiments.setup.reading import diverged
from experiments.setup.runs import finished, run_one, what_now
from experiments.setup.workbench import Workbench

PRIMARY = {"classification": "top1", "segmentation": "mean_iou", "super_resolution": "psnr"}
"""The metric each task is judged by; larger is better for all."""


def expand(grid: configs.Grid) -> dict[str, configs.Run]:
    """Return folder -> run, one for each run and seed."""
    return {
        f"{key}/seed{seed}": dataclasses.replace(run, seed=seed)
        for key, run in grid.runs.items()
        for seed in grid.seeds
    }


def select(grid: configs.Grid, only: Sequence[str]) -> configs.Grid:
    """Return the grid with the runs whose key contains one of the words.

    Raises:
        ValueError: a word fits no run, with the nearest.
    """
    if not only:
        return grid
    parts = {part for key in grid.runs for part in key.split("/")}
    for word in only:
        if not any(word in key for key in grid.runs):
            raise ValueError(f"--only {word!r} fits no run; {configs.nearest(word, parts)}")
    kept = {k: run for k, run in grid.runs.items() if any(word in k for word in only)}
    return dataclasses.replace(grid, runs=kept)


def run_grid(
    grid: configs.Grid,
    workdir: Path,
    bench: Workbench,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]] | None:
    """Do every run of the grid that is not done yet.

    Returns:
        The summaries, in the grid's order; None if stopped. A run that diverged is one of them.
    """
    runs = expand(grid)
    summaries = []
    for run in grid.runs.values():  # a mistyped name in the last is told now, not in an hour
        build.check_text(run, bench.allow)
    began = time.monotonic()
    for number, (folder, run) in enumerate(runs.items(), 1):
        summary = finished(workdir / folder, run)
        if summary is None:
            summary = run_one(run, workdir / folder, bench, name=folder, should_stop=should_stop)
            if summary is None:
                return None
            left = (time.monotonic() - began) / number * (len(runs) - number)
            say(f"[{number}/{len(runs)}] {_line(folder, summary)}   about {left:.0f} s left")
        summaries.append(summary)
    return summaries


def _line(folder: str, summary: dict[str, Any]) -> str:
    name = PRIMARY[summary["task"]]
    score = "diverged" if diverged(summary) else f"{name} {_written(summary, name)}"
    return f"{plain(folder):45s} {score:16s} {summary['wall_time']:5.1f} s"


def _written(summary: dict[str, Any], name: str) -> str:
    """Return a metric of a run that finished; a dash where it is not finite or was not measured."""
    value = summary["metrics"].get(name)
    return "–" if value is None else f"{value:.4f}"


def table(summaries: Sequence[dict[str, Any]]) -> Table:
    """Return a terminal table, best first within each task, runs that diverged last."""
    shown = Table(box=None)
    shown.add_column("run", no_wrap=True)
    for name in ("metric", "value", "loss", "seconds"):
        shown.add_column(name, justify="right")

    def order(summary):
        value = None if diverged(summary) else summary["metrics"].get(PRIMARY[summary["task"]])
        return summary["task"], float("inf") if value is None else -value

    for summary in sorted(summaries, key=order):
        name = PRIMARY[summary["task"]]
        lost = diverged(summary)
        values = ["diverged" if lost else _written(summary, k) for k in (name, "loss")]
        shown.add_row(in_terminal(summary["name"]), name, *values, f"{summary['wall_time']:.1f}")
    return shown


@dataclasses.dataclass(frozen=True)
class CompareCommand(Command):
    """Run a grid; called again, do what is missing."""

    config: Path = Path("configs/demo.py")
    """A file that yields a Grid."""
    small: bool = False
    """The file's small form: embedded data and narrow networks, minutes on a CPU."""
    only: tuple[str, ...] = ()
    """Words; runs whose key (task/method) contains one of them."""
    seeds: tuple[int, ...] = ()
    """Instead of the grid's."""
    allow_import: tuple[str, ...] = ()
    """Packages whose names the run's optimizer may say, where it is a text."""


def load_grid(path: Path, *, small: bool = False) -> configs.Grid:
    """Return the grid of a config file; ValueError where it yields one run."""
    grid = config_files.load(path, small=small)
    if not isinstance(grid, configs.Grid):
        raise ValueError(f"{path} is one run; run it with python -m experiments.train")
    return grid


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a grid from the command line."""
    command = parse(CompareCommand, arguments)
    grid = select(load_grid(command.config, small=command.small), command.only)
    if command.seeds:
        grid = dataclasses.replace(grid, seeds=command.seeds)
    start_jax(command)
    bench = Workbench(command.data_dir, command.allow_import)
    with working_in(command.workdir):
        summaries = run_grid(grid, command.workdir, bench, should_stop=stop_on_signal())
    if summaries is None:
        return stopped(command.workdir)
    if jax.process_index() == 0:
        Console().print(table(summaries))
        for folder, summary in zip(expand(grid), summaries, strict=True):
            if diverged(summary):
                print(what_now(summary, command.workdir / folder), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
