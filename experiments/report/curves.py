"""Figures of what happened along the way: losses, metrics, gradient norms, clipping."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter, NullFormatter, PercentFormatter

from experiments.report import results, style
from experiments.report.page import Drawing
from experiments.report.results import (
    METRICS,
    Grid,
    Group,
    Metric,
    band,
    baselines,
)
from experiments.report.style import Look, look
from experiments.setup.labels import in_figure, shortened

MAX_POINTS = 60
"""Log rows are averaged in bins so that a training curve has at most this many points."""

FEW = 6
"""Methods whose bands can be told apart, and lines that a note in a panel may have."""

TITLE = 30
"""Letters of a task's name in the title of a panel."""


def learning_curves(groups: Mapping[str, Group], methods: Iterable[str] = ()) -> Drawing:
    """Draw loss and metrics of one task against examples seen, training beside held-out examples.

    A row per metric that runs have along the way. Axes differ: minibatches scatter more widely than
    methods differ on held-out examples.

    Args:
        groups: the task's methods.
        methods: all methods of the page, which decide how each looks.
    """
    looks = {method: look(method, [*groups, *methods]) for method in groups}
    first = next(iter(groups.values()))
    rows = [row for group in groups.values() for run in group.runs for row in run.rows]
    along = {name for row in rows if row["split"] in ("train", "evaluation") for name in row}
    metrics = {name: m for name, m in METRICS[first.kind].items() if name in along}
    names = sorted(metrics, key=lambda name: name != "loss")  # else in the tables' order
    figure, axes = style.panels(len(names), 2, height=2.4, sharex=True)
    for (left, right), name in zip(axes, names, strict=True):
        _draw(left, groups, looks, "train", name, metrics[name])
        _draw(right, groups, looks, "evaluation", name, metrics[name])
        if name == "loss":
            _log_scale(left)
            _log_scale(right)
        _draw_baselines(right, baselines(groups, name), metrics[name])
        right.set_ylabel("")
    for panel in axes[:-1].flat:
        panel.set_xlabel("")
    axes[0][0].set_title(f"{in_figure(first.title, TITLE)}: training batches")
    axes[0][1].set_title("held-out examples")
    _note_diverged(axes[0][0], groups)
    _legend(figure, looks, any(group.diverged for group in groups.values()))
    return style.drawing(figure)


def gradient_curves(grid: Grid, methods: Iterable[str] = ()) -> Drawing:
    """Draw gradient norm and share of clipped steps against examples seen, a row per task.

    `methods` as in `learning_curves`.
    """
    found = results.methods(grid)
    looks = {method: look(method, [*found, *methods]) for method in found}
    figure, axes = style.panels(len(grid), 2, height=2.5)
    for (left, right), groups in zip(axes, grid.values(), strict=True):
        task = in_figure(next(iter(groups.values())).title, TITLE)
        _draw(left, groups, looks, "train", "gradient_norm", Metric("gradient norm"))
        left.set_title(f"{task}: gradient norm")
        _log_scale(left)
        share = Metric("share of steps so far", factor=100)
        _draw(right, groups, looks, "train", "clipped_fraction", share)
        right.set(title=f"{task}: clipped steps", ylim=(-3, 103))
        right.yaxis.set_major_formatter(PercentFormatter())
    _legend(figure, looks, any(run.diverged for run in results.runs(grid)))
    return style.drawing(figure)


def _draw(
    axes: Axes,
    groups: Mapping[str, Group],
    looks: Mapping[str, Look],
    split: str,
    name: str,
    metric: Metric,
) -> None:
    """Draw each method's mean and range over seeds, and diverged runs one by one."""
    alpha = 0.17 if len(groups) <= FEW else 0.06  # many bands hide one another
    for place, (method, group) in enumerate(groups.items()):
        shown = looks[method]
        line = {"color": shown.color, "linestyle": shown.line}
        found = band(group.finished, split, name, max_points=MAX_POINTS)
        if found is not None:
            every = max(1, len(found.examples) // 12)
            marks: Any = {"marker": shown.marker, "markevery": every}
            if split == "train":  # few, at places that differ between methods
                marks["markevery"] = (0.03 + 0.14 * place / len(groups), 0.16)
            mean, low, high = (metric.factor * v for v in (found.mean, found.low, found.high))
            axes.plot(found.examples, mean, **line, **marks)
            axes.fill_between(
                found.examples, low, high, color=shown.color, alpha=alpha, linewidth=0
            )
        for run in group.runs:
            if run.diverged:
                examples, values = run.curve(split, name)
                kept = np.isfinite(values)
                examples, values = examples[kept], metric.factor * values[kept]
                axes.plot(examples, values, linewidth=0.9, **line)
                axes.plot(examples[-1:], values[-1:], "x", color=shown.color, ms=8, mew=2.2)
    title = "\n".join(textwrap.wrap(metric.title, 26))  # a panel is no higher than that
    axes.set(xlabel="training examples seen", ylabel=title)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _draw_baselines(axes: Axes, values: Mapping[str, float], metric: Metric) -> None:
    """Draw what can be had without learning as a dotted line; far below the curves, as a note."""
    low, high = axes.get_ylim()
    for name, value in values.items():
        label = in_figure(name)
        height = metric.factor * value
        near = height > low - 0.3 * (high - low)
        if near:
            axes.axhline(height, color="#555555", linewidth=1.1, linestyle=":")
        axes.annotate(
            label if near else f"{label}: {metric.write(value)}",
            (0.99, height if near else 0.03),
            xycoords=("axes fraction", "data" if near else "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="right",
            color="#444444",
            fontsize=8.5,
            zorder=5,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )


def _note_diverged(axes: Axes, groups: Mapping[str, Group]) -> None:
    """Say whose runs diverged: one that did so before its first log row has no curve."""
    names = shortened((look(method).label for method in groups), 36)
    said = [
        f"{in_figure(name)}: {group.diverged} of {len(group.runs)} diverged"
        for name, group in zip(names, groups.values(), strict=True)
        if group.diverged
    ]
    if len(said) > FEW:
        said = [*said[: FEW - 1], f"and {len(said) - FEW + 1} other methods"]
    axes.annotate(
        "\n".join(said),
        (0.98, 0.96),
        xycoords="axes fraction",
        ha="right",
        va="top",
        color="#444444",
        fontsize=8.5,
        path_effects=[withStroke(linewidth=3, foreground="white")],
    )


def _log_scale(axes: Axes) -> None:
    """Take a log scale, unless so little is shown that it would have hardly a labelled tick."""
    low, high = axes.get_ylim()
    if low > 0 and high < 3 * low:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(style.decimal)
    low, high = axes.get_ylim()
    few = high < 50 * low
    axes.yaxis.set_minor_formatter(style.decimal_2_5 if few else NullFormatter())


def _legend(figure: Figure, looks: Mapping[str, Look], diverged: bool) -> None:
    style.legend(figure, looks.values(), markers=True, diverged=diverged)
