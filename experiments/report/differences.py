"""Whether methods differ by more than their seeds do: differences paired by seed.

    d_s = score of the method with seed s - score of the other one with seed s

The other one is the best of the task, or one that was named (`--pairs momentum=clipped_sgd`), such
as the same method without its clipping.

With the same seed two methods meet the same initial parameters and the same order of examples. What
a lucky seed gives to both of them is gone from the difference.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from experiments.report import results
from experiments.report.page import Cell, Section, Table, Text
from experiments.report.results import METRICS, Grid, Group, Metric
from experiments.report.style import look
from experiments.setup.checks import read_pair

Pairs: TypeAlias = Sequence[tuple[str, str]]
"""(base, method), by the names of their folders."""


def read_pairs(texts: Sequence[str], grid: Grid) -> list[tuple[str, str]]:
    """Return (base, method) of BASE=METHOD texts; both are folders of the grid.

    Raises:
        ValueError: a text is no pair, or names a method that no task has.
    """
    known = results.methods(grid)
    return [read_pair("--pairs", text, "BASE=METHOD", known, "method") for text in texts]


def section(grid: Grid, pairs: Pairs = ()) -> list[Section]:
    """Return the section of differences; none where no two methods share two seeds."""
    made = tables(grid, pairs)
    if not made:
        return []
    text = (
        "How far each method is behind the best one of its task, seed by seed: the mean and the "
        "sample standard deviation, over the seeds with which both finished, of the difference of "
        "their scores. The difference goes beyond the seeds' spread where its mean is larger than "
        "that standard deviation. With few seeds this is a hint and no proof: the best method was "
        "chosen by these very scores."
        + (" A pair that was named beforehand is not open to this." if pairs else "")
    )
    return [Section("Beyond the seeds' spread?", (Text(text), *made))]


def tables(grid: Grid, pairs: Pairs = ()) -> list[Table]:
    """Return a table for each task in which two methods share at least two seeds.

    Pairs that were named come in a table of their own for each task, after that one.
    """
    made = [
        table
        for groups in grid.values()
        for table in (difference_table(groups), pair_table(groups, pairs))
    ]
    return [table for table in made if table is not None]


HEADER = ("method", "difference", "seeds", "behind with", "beyond the seeds' spread")


def difference_table(groups: Mapping[str, Group]) -> Table | None:
    """Return the differences to the best method of a task, or None where there are none to tell.

    The best one has the best mean of those none of whose runs diverged.
    """
    groups = results.ranked(groups)
    best, *others = groups
    first = groups[best]
    name = next(iter(METRICS[first.kind]))
    if first.diverged or first.score(name) is None:
        return None
    found = {method: paired(groups[method], first, name) for method in others}
    if max(map(len, found.values()), default=0) < 2:
        return None
    metric = METRICS[first.kind][name]
    return Table(
        title=f"{first.title}: {metric.title}, difference to the best",
        header=HEADER,
        rows=tuple(_row(look(m, groups).label, d, metric) for m, d in found.items()),
        caption="Score of the method minus that of the best one with the same seed; the best is "
        f"{look(best, groups).label}.",
    )


def pair_table(groups: Mapping[str, Group], pairs: Pairs) -> Table | None:
    """Return the differences of the pairs of which a task has both methods; None without any."""
    here = [pair for pair in pairs if set(pair) <= groups.keys()]
    if not here:
        return None
    first = next(iter(groups.values()))
    name, metric = next(iter(METRICS[first.kind].items()))
    rows = [
        _row(
            f"{look(method, groups).label} less {look(base, groups).label}",
            paired(groups[method], groups[base], name),
            metric,
        )
        for base, method in here
    ]
    return Table(
        title=f"{first.title}: {metric.title}, differences of pairs",
        header=HEADER,
        rows=tuple(rows),
        caption="Score of the first method of a row minus that of the second with the same seed.",
    )


def _row(label: str, differences: Sequence[float], metric: Metric) -> tuple[Cell, ...]:
    """Return a row: mean and spread of the differences, in the metric's unit."""
    if not differences:
        return (Cell(label), Cell("–"), Cell("0", value=0), Cell("–"), Cell("no shared seeds"))
    mean = metric.factor * statistics.fmean(differences)
    spread = metric.factor * statistics.stdev(differences) if len(differences) > 1 else None
    said = f"{mean:+.{metric.digits}f}"
    said += "" if spread is None else f" ± {spread:.{metric.digits}f}"
    behind = sum(difference < 0 for difference in differences)
    count = len(differences)
    return (
        Cell(label),
        Cell(said, value=mean, spread=spread),
        Cell(str(count), value=count),
        Cell(f"{behind} of {count}"),
        Cell(verdict(mean, spread)),
    )


def paired(group: Group, best: Group, name: str) -> list[float]:
    """Return the differences of a final metric, one for each seed with which both finished."""
    ours, theirs = _by_seed(group, name), _by_seed(best, name)
    return [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]


def _by_seed(group: Group, name: str) -> dict[int, float]:
    values = {run.seed: results.number(run.summary["metrics"].get(name)) for run in group.finished}
    return {seed: value for seed, value in values.items() if math.isfinite(value)}


def verdict(mean: float, spread: float | None) -> str:
    """Say whether a difference is larger than its spread over seeds.

    Examples:
        >>> verdict(-1.2, 0.3), verdict(-0.2, 0.3), verdict(0.0, 0.0), verdict(-1.2, None)
        ('yes', 'no', 'no', 'one seed: cannot be told')
    """
    if spread is None:
        return "one seed: cannot be told"
    return "yes" if abs(mean) > spread else "no"
