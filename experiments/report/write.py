"""From a grid's folder to its report: see `experiments.report`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import rich.table
from rich.console import Console

from experiments.report import (
    contents,
    differences,
    export,
    files,
    page,
    response,
    results,
    tail_results,
    time_to_target,
)
from experiments.report.contents import Found
from experiments.report.style import style
from experiments.setup.cli import Command, parse
from experiments.setup.labels import in_terminal, plain

ORDER = (
    *("classification", "segmentation", "super_resolution"),
    *("sgd", "adam", "normalized_sgd", "clipped_sgd", "clipped_sstm"),
    *("digits", "fashion_mnist", "cifar100"),
    *("constant", "lr", "batch", "hybrid"),
)
"""Tasks and methods that come first; others follow by name."""


def write_report(workdir: Path, *, thesis: bool = False) -> Path:
    """Write the report of a grid, or of a heavy-tail experiment alone, into its folder.

    Args:
        workdir: the grid's or the experiment's folder.
        thesis: set the published scores of the same methods beside ours, also where no run is on
            the data that they are about.

    Returns:
        The path of report.html.

    Raises:
        FileNotFoundError: if the folder or a run's summary is missing.
        ValueError: if there is nothing to report or a file is damaged; both name the file.
    """
    return files.write_page(make_page(read(workdir, thesis=thesis)), workdir, "report")


def show(workdir: Path, console: Console) -> None:
    """Print the report's tables in the terminal. Raises as `write_report`."""
    _show(read(workdir), console)


def _show(found: Found, console: Console) -> None:
    for table in contents.terminal_tables(found):
        console.print(_terminal(table))


def read(workdir: Path, *, thesis: bool = False) -> Found:
    """Return the runs of a grid and its heavy-tail experiment, if it has one or is one."""
    grid = results.read_grid(workdir, ORDER)
    alone = (workdir / "curves.npz").exists()
    folder = workdir if alone else workdir / results.HIGH_PROBABILITY
    heavy = None
    if folder.is_dir():
        heavy = tail_results.read(folder)
    if not grid and heavy is None and not response.there(workdir):
        raise ValueError(
            f"{workdir} holds no runs (expected {workdir}/TASK/METHOD/seed0/summary.json); "
            "run python -m experiments.compare first"
        )
    return Found(grid, heavy, thesis, workdir)


def make_page(found: Found) -> page.Page:
    """Return the page, its figures drawn."""
    with style():
        return contents.make_page(found)


def _terminal(table: page.Table) -> rich.table.Table:
    """Return a table for the terminal: the best starred, no notes, no columns that are extra."""
    kept = len(table.header) - table.extra
    title = in_terminal(table.title, "table.title")
    shown = rich.table.Table(title=title, title_justify="left")
    for i, name in enumerate(table.header[:kept]):
        shown.add_column(in_terminal(name), justify="right" if i else "left", no_wrap=i == 0)
    for row in table.rows:
        cells = (
            in_terminal(f"* {cell.text}", "bold green") if cell.best else in_terminal(cell.text)
            for cell in row[:kept]
        )
        shown.add_row(*cells)
    return shown


@dataclass(frozen=True)
class ReportCommand(Command):
    """Write the page about a grid, and what of it is small enough to be kept with the code."""

    thesis: bool = False
    """Set the published scores of these methods beside ours, whatever the data are."""
    targets: tuple[str, ...] = ()
    """Scores to reach, as TASK=VALUE (digits=0.95); for other tasks what half of the runs reach."""
    pairs: tuple[str, ...] = ()
    """Methods to compare seed by seed, as BASE=METHOD (momentum=clipped_sgd), by their folders."""
    tables: Path | None = None
    """Also write the page without its figures to this file, as Markdown."""
    curves: Path | None = None
    """Also write the curves to this file, as tab-separated values."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report from the command line."""
    command = parse(ReportCommand, arguments)
    found = read(command.workdir, thesis=command.thesis)
    found = replace(
        found,
        targets=time_to_target.read_targets(command.targets, found.grid),
        pairs=differences.read_pairs(command.pairs, found.grid),
    )
    made = make_page(found)
    written = [files.write_page(made, command.workdir, "report")]
    line = f"python -m experiments.report --workdir {shlex.quote(str(command.workdir))}"
    line += " --thesis" if command.thesis else ""
    line += f" --targets {shlex.join(command.targets)}" if command.targets else ""
    line += f" --pairs {shlex.join(command.pairs)}" if command.pairs else ""
    if command.tables is not None:
        text = export.tables(made, f"{line} --tables {shlex.quote(str(command.tables))}")
        written.append(files.write(command.tables, text.encode()))
    if command.curves is not None:
        text = export.curves(found.grid, f"{line} --curves {shlex.quote(str(command.curves))}")
        written.append(files.write(command.curves, text.encode()))
    _show(found, Console())
    for path in written:
        print(plain(path))
    return 0
