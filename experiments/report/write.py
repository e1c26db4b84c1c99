"""From a grid's folder to report.md, report.html and figures/*.png."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import rich.table
from rich.console import Console

from clipjax.train.files import replacing
from experiments.report import (
    classes,
    export,
    graduated,
    page,
    profiles,
    published,
    results,
    scores,
    sections,
    tail_results,
    time_to_target,
)
from experiments.report.results import Grid
from experiments.report.sections import Tails
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
    return write_page(make_page(*read(workdir), thesis=thesis), workdir, "report")


def write_page(made: page.Page, workdir: Path, name: str) -> Path:
    """Write a page as NAME.md and NAME.html, figures beside; return the path of the HTML file."""
    for picture in made.pictures:
        _write(workdir / "figures" / f"{picture.name}.png", picture.png)
    _write(workdir / f"{name}.md", page.to_markdown(made).encode())
    _write(workdir / f"{name}.html", page.to_html(made).encode())
    return workdir / f"{name}.html"


def show(workdir: Path, console: Console) -> None:
    """Print the report's tables in the terminal. Raises as `write_report`."""
    grid, heavy = read(workdir)
    tables = scores.tables(grid)
    tables += [table for groups in grid.values() if (table := classes.iou_table(groups))]
    tables += graduated.tables(graduated.select(grid))
    if heavy is not None:
        tables += [sections.quantile_table(heavy[0], noise) for noise in heavy[0]["results"]]
    for table in tables:
        console.print(_terminal(table))


def read(workdir: Path) -> tuple[Grid, Tails | None]:
    """Return the runs of a grid and its heavy-tail experiment, if it has one or is one."""
    grid = results.read_grid(workdir, ORDER)
    alone = (workdir / "curves.npz").exists()
    folder = workdir if alone else workdir / results.HIGH_PROBABILITY
    heavy = None
    if folder.is_dir():
        heavy = tail_results.read(folder)
    if not grid and heavy is None:
        raise ValueError(
            f"{workdir} holds no runs (expected {workdir}/TASK/METHOD/seed0/summary.json); "
            "run python -m experiments.compare first"
        )
    return grid, heavy


def make_page(
    grid: Grid,
    heavy: Tails | None,
    *,
    thesis: bool = False,
    targets: Mapping[str, float] = MappingProxyType({}),
) -> page.Page:
    """Return the page, its figures drawn; `thesis` as `write_report`, `targets` of tasks."""
    made = []
    with style():
        if grid:
            made += [scores.section(grid), *classes.section(grid)]
            if noisy := graduated.select(grid):
                made.append(sections.noise_levels(noisy))
            if thesis or published.own_data(grid):
                made.append(published.section(grid))
            made.append(sections.learning(grid))
            made.append(profiles.section(grid, targets))
            made += sections.sample_pictures(grid)
        if heavy is not None:
            made.append(sections.heavy_tails(heavy))
    made.append(sections.provenance(grid, heavy))
    made += sections.credits(grid)
    title = "Methods compared" if grid else "Methods in the tail"
    return page.Page(title, sections.lead(grid, heavy), tuple(made))


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


def _write(path: Path, content: bytes) -> Path:
    with replacing(path) as file:
        file.write(content)
    return path


@dataclass(frozen=True)
class ReportCommand(Command):
    """Write the page about a grid, and what of it is small enough to be kept with the code."""

    thesis: bool = False
    """Set the published scores of these methods beside ours, whatever the data are."""
    targets: tuple[str, ...] = ()
    """Scores to reach, as TASK=VALUE (digits=0.95); for other tasks what half of the runs reach."""
    tables: Path | None = None
    """Also write the page without its figures to this file, as Markdown."""
    curves: Path | None = None
    """Also write the curves to this file, as tab-separated values."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report from the command line."""
    command = parse(ReportCommand, arguments)
    grid, heavy = read(command.workdir)
    targets = time_to_target.read_targets(command.targets, grid)
    made = make_page(grid, heavy, thesis=command.thesis, targets=targets)
    written = [write_page(made, command.workdir, "report")]
    line = f"python -m experiments.report --workdir {shlex.quote(str(command.workdir))}"
    line += " --thesis" if command.thesis else ""
    line += f" --targets {shlex.join(command.targets)}" if command.targets else ""
    if command.tables is not None:
        text = export.tables(made, f"{line} --tables {shlex.quote(str(command.tables))}")
        written.append(_write(command.tables, text.encode()))
    if command.curves is not None:
        text = export.curves(grid, f"{line} --curves {shlex.quote(str(command.curves))}")
        written.append(_write(command.curves, text.encode()))
    show(command.workdir, Console())
    for path in written:
        print(plain(path))
    return 0
