"""The figure of graduated runs: noise level planned and measured, beside held-out scores."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, MaxNLocator, NullFormatter

from experiments.report import results, style
from experiments.report.graduated import Noise, noise
from experiments.report.page import Drawing
from experiments.report.results import METRICS, Grid, Group, Metric, band, number
from experiments.report.style import look
from experiments.setup.labels import in_figure, shortened

PARTS = 5
"""Stretches of a stage, each a point of the measured curve."""

EARLY = 0.3
"""Share of the training whose scores may lie below the panel: all methods climb alike there."""

SHARED = "#222222"
"""The colour of a plan that several methods follow."""

DOTS: Any = (0, (1, 1.1))


def noise_levels(grid: Grid, methods: Sequence[str] = ()) -> Drawing:
    """Draw delta and the held-out score against examples seen, and final scores, a row per task.

    Args:
        grid: graduated runs whose noise was measured (`graduated.select`).
        methods: all methods of the page, which decide how each looks.
    """
    methods = [*results.methods(grid), *methods]
    figure, axes = style.panels(len(grid), 3, height=2.75, width_ratios=(4, 4, 3))
    for (left, middle, right), groups in zip(axes, grid.values(), strict=True):
        first = next(iter(groups.values()))
        name, metric = next(iter(METRICS[first.kind].items()))
        found = {
            method: [noise(run, PARTS) for run in group.finished]
            for method, group in groups.items()
        }
        _measured(left, found, methods)
        _planned(left, found, methods)
        _levels_axis(left)
        left.set_title(f"{in_figure(first.title)}: noise level δ")
        _scores(middle, groups, methods, name, metric)
        middle.set_title(f"held-out {metric.title}")
        _final(right, groups, methods, name, metric)
        right.set_title("final, by seed")
    looks = [look(method, methods) for method in results.methods(grid)]
    planned = Line2D([], [], color=SHARED, linewidth=1.1, linestyle=DOTS)
    style.legend(figure, looks, markers=True, others={"planned": planned})
    return style.drawing(figure)


def _line(method: str, methods: Sequence[str], **options: Any) -> dict[str, Any]:
    shown = look(method, methods)
    return {"color": shown.color, "linestyle": shown.line, "marker": shown.marker} | options


def _measured(axes: Axes, found: Mapping[str, list[Noise]], methods: Sequence[str]) -> None:
    """Draw each method's measured delta: mean and range over seeds."""
    for method, runs in found.items():
        values = np.array([run.delta.ravel() for run in runs])
        kept = np.isfinite(values).all(axis=0)
        examples, values = runs[0].middles.ravel()[kept], values[:, kept]
        line = _line(method, methods, markevery=(PARTS // 2, PARTS), linewidth=1.4, zorder=3)
        axes.plot(examples, values.mean(axis=0), **line)
        low, high = values.min(axis=0), values.max(axis=0)
        axes.fill_between(examples, low, high, color=line["color"], alpha=0.13, linewidth=0)


def _planned(axes: Axes, found: Mapping[str, list[Noise]], methods: Sequence[str]) -> None:
    """Draw each plan as a staircase, once for the methods that share it."""
    plans = {method: tuple(np.round(runs[0].levels, 6)) for method, runs in found.items()}
    uses = Counter(plans.values())
    drawn = set()
    for method, levels in plans.items():
        if levels in drawn:
            continue
        drawn.add(levels)
        color = look(method, methods).color if uses[levels] == 1 else SHARED
        planned = np.mean([run.planned for run in found[method]], axis=0)
        edges = [0, *found[method][0].ends]
        axes.stairs(planned, edges, baseline=None, color=color, linewidth=1.1, linestyle=DOTS)


def _levels_axis(axes: Axes) -> None:
    _examples_axis(axes)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(style.decimal)
    low, high = axes.get_ylim()
    axes.yaxis.set_minor_formatter(style.decimal_2_5 if high < 50 * low else NullFormatter())
    axes.set_ylabel("δ = ηC/√b")


def _scores(
    axes: Axes, groups: Mapping[str, Group], methods: Sequence[str], name: str, metric: Metric
) -> None:
    """Draw each method's mean score over training; the first climb may leave the panel below.

    No bands, which would hide one another: the panel beside shows every seed.
    """
    floor, top = np.inf, -np.inf
    for method, group in groups.items():
        found = band(group.finished, "evaluation", name, max_points=10**6)
        if found is None:
            continue
        mean = metric.factor * found.mean
        axes.plot(found.examples, mean, **_line(method, methods, linewidth=1.4))
        late = found.examples >= EARLY * found.examples[-1]
        floor, top = min(floor, mean[late].min()), max(top, mean[late].max())
    if top > floor:
        axes.set_ylim(floor - 0.05 * (top - floor), top + 0.05 * (top - floor))
    _examples_axis(axes)


def _final(
    axes: Axes, groups: Mapping[str, Group], methods: Sequence[str], name: str, metric: Metric
) -> None:
    """Draw each run's last score as a point, a line of the panel per method, and their means."""
    for place, (method, group) in enumerate(groups.items()):
        shown = look(method, methods)
        metrics = [run.summary["metrics"] for run in group.finished]
        values = [metric.factor * number(m[name]) for m in metrics if name in m]
        axes.plot(values, [place] * len(values), shown.marker, color=shown.color, alpha=0.5, ms=5)
        axes.plot([np.mean(values)] * 2, [place - 0.32, place + 0.32], color=shown.color, lw=2.4)
    labels = shortened((look(method).label for method in groups), 24)
    axes.set_yticks(range(len(labels)), list(map(in_figure, labels)))
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(metric.title)


def _examples_axis(axes: Axes) -> None:
    axes.set_xlabel("training examples seen")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
