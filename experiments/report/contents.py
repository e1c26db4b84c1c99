"""What is on the report's page, section by section, and which tables the terminal shows.

To add a section, write a function that takes a `Found` and returns a list of sections (an empty
one where there is nothing to say), and name it in `SECTIONS`, at its place on the page. If its
tables belong in the terminal as well, do the same with `TABLES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from experiments.report import (
    classes,
    differences,
    graduated,
    page,
    profiles,
    published,
    response,
    results,
    scores,
    sections,
)
from experiments.report.results import Grid
from experiments.report.sections import Tails


@dataclass(frozen=True)
class Found:
    """What a report is made of.

    Attributes:
        grid: the runs; empty where there is only a heavy-tail experiment.
        heavy: the heavy-tail experiment, if there is one.
        thesis: whether to set the published scores beside ours whatever the data are.
        workdir: the folder that all of this was read from.
        targets: task's folder -> the score to reach; other tasks get one from their runs.
        pairs: (base, method), whose differences are shown besides those to the best.
    """

    grid: Grid
    heavy: Tails | None = None
    thesis: bool = False
    workdir: Path = Path()
    targets: Mapping[str, float] = field(default_factory=dict)
    pairs: differences.Pairs = ()

    @property
    def methods(self) -> list[str]:
        """Return the methods of all tasks and of the heavy-tail experiment.

        Given to `style.look`, they let a method look the same in all figures of the page.
        """
        labels = self.heavy[0]["labels"] if self.heavy else {}
        return list(dict.fromkeys([*results.methods(self.grid), *labels]))


SECTIONS: tuple[Callable[[Found], list[page.Section]], ...] = (
    lambda found: response.sections(found.workdir),
    lambda found: [scores.section(found.grid)] if found.grid else [],
    lambda found: differences.section(found.grid, found.pairs),
    lambda found: classes.section(found.grid),
    lambda found: _noise_levels(found),
    lambda found: _published(found),
    lambda found: [sections.learning(found.grid, found.methods)] if found.grid else [],
    lambda found: [profiles.section(found.grid, found.targets)] if found.grid else [],
    lambda found: sections.sample_pictures(found.grid),
    lambda found: [sections.heavy_tails(found.heavy, found.methods)] if found.heavy else [],
    lambda found: _provenance(found),
    lambda found: sections.credits(found.grid),
)
"""The page from top to bottom; called while the figures' style is set."""

TABLES: tuple[Callable[[Found], list[page.Table]], ...] = (
    lambda found: response.tables(found.workdir),
    lambda found: scores.tables(found.grid),
    lambda found: differences.tables(found.grid, found.pairs),
    lambda found: classes.tables(found.grid),
    lambda found: graduated.tables(graduated.select(found.grid)),
    lambda found: sections.quantile_tables(found.heavy) if found.heavy else [],
)
"""What the terminal shows, in order."""


def make_page(found: Found) -> page.Page:
    """Return the page with all its sections; call it while the figures' style is set."""
    made = tuple(section for sections_of in SECTIONS for section in sections_of(found))
    if found.grid:
        return page.Page("Methods compared", sections.lead(found.grid, found.heavy), made)
    if found.heavy is not None:
        return page.Page("Methods in the tail", sections.lead(found.grid, found.heavy), made)
    return page.Page("Values searched", response.lead(found.workdir), made)


def terminal_tables(found: Found) -> list[page.Table]:
    """Return the tables that the terminal shows."""
    return [table for tables_of in TABLES for table in tables_of(found)]


def _noise_levels(found: Found) -> list[page.Section]:
    noisy = graduated.select(found.grid)
    return [sections.noise_levels(noisy, found.methods)] if noisy else []


def _provenance(found: Found) -> list[page.Section]:
    return [sections.provenance(found.grid, found.heavy)] if found.grid or found.heavy else []


def _published(found: Found) -> list[page.Section]:
    wanted = found.grid and (found.thesis or published.own_data(found.grid))
    return [published.section(found.grid)] if wanted else []
