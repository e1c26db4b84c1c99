"""The page of the lecture's experiments: for each its claims, what was measured, its pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.report.page import Cell, Page, Part, Section, Table, Text

LEAD = (
    "A lecture by D. Merkulov and P. Ostroukhov shows in pictures how stochastic and adaptive "
    "methods behave. Here each picture is computed, and each claim is set beside what was measured."
)


@dataclass(frozen=True)
class Shown:
    """An experiment as the page shows it."""

    name: str
    title: str
    line: str
    seconds: float
    changed: str
    """How it differs from the experiment at its full size; "" where it does not."""
    claims: Sequence[tuple[str, str, bool]]
    """What is said, what was measured, whether it holds."""
    parts: tuple[Part, ...]


def make_page(experiments: Sequence[Shown]) -> Page:
    """Return the page of experiments."""
    held = [confirmed for shown in experiments for *_, confirmed in shown.claims]
    lead = (
        f"{LEAD} {sum(held)} of {len(held)} claims hold in {len(experiments)} "
        f"{'experiment' if len(experiments) == 1 else 'experiments'}."
    )
    return Page("The lecture's laboratory", lead, tuple(map(section, experiments)))


def section(shown: Shown) -> Section:
    """Return an experiment's section."""
    size = f" Not the full size: {shown.changed}." if shown.changed else ""
    about = Text(
        f"{shown.line} python -m experiments.lecture {shown.name}, {shown.seconds:.1f} s.{size}"
    )
    rows = tuple(
        (Cell(says), Cell(measured), Cell("yes" if holds else "no"))
        for says, measured, holds in shown.claims
    )
    table = Table(f"{shown.title}: claims", ("what is said", "measured", "holds"), rows, wraps=True)
    return Section(shown.title, (about, table, *shown.parts))
