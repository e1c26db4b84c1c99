"""Performance profiles drawn: for any table of times, and for the runs of a grid."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.report import results, style, time_to_target
from experiments.report.page import Cell, Part, Picture, Section, Table, Text
from experiments.report.results import Grid, Group
from experiments.report.style import Look
from experiments.report.time_to_target import UNITS, Target

NOT_REACHED = "not reached"


def figure(
    panels: Mapping[str, np.ndarray], looks: Sequence[Look], *, max_ratio: float, of: str
) -> Figure:
    """Draw a performance profile in each panel, a staircase for each method.

    Args:
        panels: title -> ratios (methods, workloads), inf for a target that was not reached.
        looks: of the methods.
        max_ratio: where the axis of ratios ends.
        of: what shares are of: workloads, tasks.
    """
    drawn, axes = style.panels(1, len(panels), height=3.9, sharey=True)
    for panel, (title, ratios) in zip(axes[0], panels.items(), strict=True):
        for i, (shown, row) in enumerate(zip(looks, ratios, strict=True)):
            # Where staircases coincide the first is the widest, so that all of them are seen.
            _staircase(panel, row, shown, max_ratio, width=1.4 + 2.2 * (1 - i / len(looks)))
        panel.set(title=title, xlabel="τ, times the fastest", xlim=(1, max_ratio), ylim=(0, 1.02))
        panel.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes[0][0].set_ylabel(f"{of} solved within τ")
    style.legend(drawn, looks, markers=True)
    return drawn


def _staircase(
    panel: Axes, ratios: np.ndarray, shown: Look, max_ratio: float, width: float
) -> None:
    """Draw the share of ratios up to τ, a marker at each step."""
    at = np.unique([1.0, *ratios[ratios <= max_ratio], max_ratio])
    share = [np.mean(ratios <= tau) for tau in at]
    panel.step(
        at,
        share,
        where="post",
        color=shown.color,
        linestyle=shown.line,
        marker=shown.marker,
        markevery=slice(0, -1),
        linewidth=width,
        alpha=0.9,
        clip_on=False,
    )


# -- The report's section --------------------------------------------------------------------------


def section(grid: Grid, targets: Mapping[str, float]) -> Section:
    """Return the section "Time to target" of a grid.

    Args:
        grid: the runs; at least one.
        targets: task's folder -> score to reach; for other tasks the one that half of the runs
            reach.
    """
    found = time_to_target.targets(grid, targets)
    parts: list[Part] = [Text(_SAID)]
    parts += [target_table(groups, found[task]) for task, groups in grid.items()]
    names = results.methods(grid)
    if len(names) > 1:
        parts += [Text(_PROFILES), *_profile(grid, found), score_table(grid, found)]
    return Section("Time to target", tuple(parts))


_SAID = (
    "When each method first reaches a score on held-out examples: at its first evaluation with "
    "that score or a better one, at the method's own evaluation point. Numbers are medians over "
    "seeds; below them the smallest and the largest of the seeds that reach the target, where "
    "these differ. Where half of the seeds or more do not reach it, the median is infinite: not "
    "reached. A difference smaller than the distance of two evaluations says nothing. Seconds are "
    "examples divided by the images per second that the run had measured by then: compilation is "
    "not in them, evaluations are; where other work shared the machine they say little. Bold is "
    "the least of a column."
)
_PROFILES = (
    "Profiles and scores put the tasks together, by AlgoPerf's rules: a method's time on a task is "
    f"the median of its seeds; a time above {time_to_target.MAX_RATIO:g} times that of the fastest "
    "method counts as not reached, and so does a task that a method has no runs on. The profile is "
    "the share of tasks that a method solves within τ times the fastest time. The score is the "
    f"profile's mean for τ from 1 to {time_to_target.MAX_RATIO:g}: 1 for a method that is the "
    "fastest on every task, 0 for one that reaches no target. It depends on which methods take "
    "part; with few tasks it takes few values."
)


def target_table(groups: Mapping[str, Group], target: Target) -> Table:
    """Return the table of one task: when each method reaches the target, and how many seeds do.

    The fastest method is first.
    """
    medians = {m: time_to_target.medians(group, target) for m, group in groups.items()}
    order = sorted(
        groups, key=lambda method: np.nan_to_num(medians[method][UNITS[0]], nan=math.inf)
    )
    groups = {method: groups[method] for method in order}
    best = {unit: _least([row[unit] for row in medians.values()]) for unit in UNITS}
    rows = []
    for method, group in groups.items():
        seeds = [time_to_target.reached(run, target) for run in group.runs]
        count = sum(math.isfinite(seed["steps"]) for seed in seeds)
        cells = [
            _cell(medians[method][unit], [seed[unit] for seed in seeds], unit, best[unit])
            for unit in UNITS
        ]
        label = Cell(style.look(method, groups).label)
        rows.append((label, *cells, Cell(f"{count} of {len(seeds)}")))
    how = (
        "The target was given."
        if target.given
        else (
            "The target is the best score that at least half of this task's runs reach at some "
            "evaluation, diverged runs among them. It was found from these runs; --targets sets "
            "one that was chosen before."
        )
    )
    return Table(
        title=f"{next(iter(groups.values())).title}: {target.title}",
        header=("method", *UNITS, "seeds that reach it"),
        rows=tuple(rows),
        caption=how,
    )


def _cell(median: float, seeds: Sequence[float], unit: str, best: float) -> Cell:
    """Return a median with the range of the seeds that reach the target."""
    finite = [seed for seed in seeds if math.isfinite(seed)]
    note = ""
    if len(set(finite)) > 1:
        note = f"{_written(min(finite), unit)} to {_written(max(finite), unit)}"
    spread = float(np.std(finite, ddof=1)) if len(finite) == len(seeds) > 1 else None
    value = median if math.isfinite(median) else None
    return Cell(_written(median, unit), note, median == best, value, spread)


def _written(value: float, unit: str) -> str:
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return NOT_REACHED
    return f"{value:,.1f}" if unit == "seconds" else f"{value:,.0f}"


def _least(values: Sequence[float]) -> float:
    """Return the least value; NaN, which is nobody's, where all are equal or one is unknown."""
    return min(values) if len(set(values)) > 1 and not any(map(math.isnan, values)) else math.nan


def _profile(grid: Grid, found: Mapping[str, Target]) -> list[Picture]:
    """Return the figure of the profiles over examples and over seconds."""
    known = {
        unit: ratios
        for unit in ("examples", "seconds")
        if (ratios := time_to_target.ratios(grid, found, unit)) is not None
    }
    panels = {f"by {unit}": ratios for unit, ratios in known.items()}
    if not panels:
        return []
    names = results.methods(grid)
    looks = [style.look(name, names) for name in names]
    drawn = figure(panels, looks, max_ratio=time_to_target.MAX_RATIO, of="tasks")
    caption = (
        "Performance profiles: the share of tasks that a method solves within τ times the "
        f"{' (left) or '.join(known)} of the fastest method"
        + (" (right)" if len(panels) > 1 else "")
        + ". Where lines lie on one another, the first in the legend is the widest."
    )
    return [Picture("performance_profile", style.drawing(drawn), caption)]


def score_table(grid: Grid, found: Mapping[str, Target]) -> Table:
    """Return the table of scores: a row per method, the best first, a column per unit."""
    names = results.methods(grid)
    columns = []
    for unit in UNITS:
        values = time_to_target.scores(grid, found, unit)
        if values is None:
            columns.append([Cell("–")] * len(names))
            continue
        best = -_least([-value for value in values])
        columns.append(
            [Cell(f"{value:.3f}", best=value == best, value=float(value)) for value in values]
        )
    labels = [Cell(style.look(name, names).label) for name in names]
    rows = sorted(zip(labels, *columns, strict=True), key=lambda row: -(row[1].value or 0.0))
    return Table(
        title="Scores: " + ("1 task" if len(grid) == 1 else f"{len(grid)} tasks"),
        header=("method", *(f"by {unit}" for unit in UNITS)),
        rows=tuple(rows),
    )
