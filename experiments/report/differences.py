"""Whether methods differ by more than their seeds do: differences to the best, paired by seed.

    d_s = score of the method with seed s - score of the best method with seed s

With the same seed two methods meet the same initial parameters and the same order of examples. What
a lucky seed gives to both of them is gone from the difference.
"""

import math
import statistics
from collections.abc import Mapping

from experiments.report import results
from experiments.report.page import Cell, Section, Table, Text
from experiments.report.results import METRICS, Grid, Group
from experiments.report.style import look


def section(grid: Grid) -> list[Section]:
    """Return the section of differences; none where no two methods share two seeds."""
    made = tables(grid)
    if not made:
        return []
    text = (
        "How far each method is behind the best one of its task, seed by seed: the mean and the "
        "sample standard deviation, over the seeds with which both finished, of the difference of "
        "their scores. The difference goes beyond the seeds' spread where its mean is larger than "
        "that standard deviation. With few seeds this is a hint and no proof: the best method was "
        "chosen by these very scores."
    )
    return [Section("Beyond the seeds' spread?", (Text(text), *made))]


def tables(grid: Grid) -> list[Table]:
    """Return a table for each task in which two methods share at least two seeds."""
    return [table for groups in grid.values() if (table := difference_table(groups)) is not None]


def difference_table(groups: Mapping[str, Group]) -> Table | None:
    """Return the differences to the best method of a task, or None where there are none to tell.

    The best one has the best mean of those none of whose runs diverged.
    """
    groups = results.ranked(groups)
    best, *others = groups
    first = groups[best]
    name, metric = next(iter(METRICS[first.kind].items()))
    if first.diverged or first.score(name) is None:
        return None
    found = {method: paired(groups[method], first, name) for method in others}
    if max(map(len, found.values()), default=0) < 2:
        return None
    rows = []
    for method, differences in found.items():
        label = Cell(look(method, groups).label)
        if not differences:
            rows.append((label, Cell("–"), Cell("0", value=0), Cell("–"), Cell("no shared seeds")))
            continue
        mean = metric.factor * statistics.fmean(differences)
        spread = metric.factor * statistics.stdev(differences) if len(differences) > 1 else None
        said = f"{mean:+.{metric.digits}f}"
        said += "" if spread is None else f" ± {spread:.{metric.digits}f}"
        behind = sum(difference < 0 for difference in differences)
        count = len(differences)
        rows.append(
            (
                label,
                Cell(said, value=mean, spread=spread),
                Cell(str(count), value=count),
                Cell(f"{behind} of {count}"),
                Cell(verdict(mean, spread)),
            )
        )
    best_label = look(best, groups).label
    return Table(
        title=f"{first.title}: {metric.title}, difference to the best",
        header=("method", "difference", "seeds", "behind with", "beyond the seeds' spread"),
        rows=tuple(rows),
        caption="Score of the method minus that of the best one with the same seed; the best is "
        f"{best_label}.",
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
