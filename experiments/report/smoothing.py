"""Figures of the smoothing experiment: smoothed functions, minimiser paths, strong convexity."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.report import style
from experiments.report.page import Drawing
from experiments.setup.labels import in_figure

# From much noise to none: dark to light would hide the smoothest curve, so colours differ in hue.
LEVEL_COLORS = ("#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9")
LINES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (1, 0.8)), (0, (6, 1, 1, 1)))
LAWS = {
    "ball": "uniform ball",
    "gaussian": "normal",
    "student_t": "Student's t(3)",
    "cauchy": "Cauchy",
    "sphere": "sphere",
}


def smoothing(curves: Mapping[str, np.ndarray], summary: Mapping[str, Any]) -> Drawing:
    """Draw a row per function: smoothed forms, paths of minimisers, radius of strong convexity.

    Args:
        curves: what curves.npz of `experiments.smoothing` holds.
        summary: what its summary.json holds.
    """
    labels = summary["labels"]
    figure, axes = style.panels(len(labels), 3, height=3.4)
    for row, (name, label) in zip(axes, labels.items(), strict=True):
        arrays = _of(curves, name)
        _smoothed_forms(row[0], arrays)
        _paths(row[1], arrays)
        _radii(row[2], arrays, summary["config"]["strong_convexity"])
        row[0].set_ylabel(in_figure(label))
    handles = [
        Line2D([], [], color="#333333", marker="v", linestyle=":"),
        Line2D([], [], color="#333333", marker=".", linewidth=1),
        Line2D([], [], color="#333333", marker="x", mew=1.8, linestyle=""),
        Line2D([], [], color="#999999", marker="o", markerfacecolor="none", linestyle=""),
    ]
    names = ["start", "local minimiser of each level", "end without smoothing", "global minimiser"]
    figure.legend(handles, names, loc="outside lower center", ncols=4)
    axes[0][0].set_title("f and its smoothed forms")
    axes[0][1].set_title("Descent through the levels")
    axes[0][2].set_title("How far f̂ is strongly convex")
    return style.drawing(figure)


def laws(curves: Mapping[str, np.ndarray], summary: Mapping[str, Any]) -> Drawing:
    """Draw a panel per function: the function smoothed at one level by noise of several laws.

    Args:
        curves: what curves.npz of `experiments.smoothing` holds.
        summary: what its summary.json holds.
    """
    labels = summary["labels"]
    figure, axes = style.panels(1, len(labels), height=3.3)
    for panel, (name, label) in zip(axes[0], labels.items(), strict=True):
        arrays = _of(curves, name)
        panel.plot(arrays["x"], arrays["f"], color="#bbbbbb", linewidth=0.9, label="f")
        for i, law in enumerate(summary["laws"][name]):
            color, line = LEVEL_COLORS[i], LINES[i]
            panel.plot(arrays["x"], arrays["laws"][i], color=color, linestyle=line, label=LAWS[law])
        panel.set(title=f"{in_figure(label)}, δ = {summary['config']['law_level']:g}", xlabel="x")
        panel.legend()
    return style.drawing(figure)


def _of(curves: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    prefix = f"{name}/"
    return {key.removeprefix(prefix): a for key, a in curves.items() if key.startswith(prefix)}


def _smoothed_forms(panel: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    panel.plot(arrays["x"], arrays["f"], color="#bbbbbb", linewidth=0.9, label="f")
    shown = zip(arrays["shown_levels"], arrays["smoothed"], strict=True)
    for i, (delta, values) in enumerate(shown):
        label = f"δ = {delta:g}"
        panel.plot(arrays["x"], values, color=LEVEL_COLORS[i], linestyle=LINES[i], label=label)
    panel.set_xlabel("x")
    low, high = np.min(arrays["f"]), np.max(arrays["f"])
    panel.set_ylim(low - 0.05 * (high - low), high + 0.35 * (high - low))  # room for the legend
    panel.legend(ncols=2, loc="upper center", fontsize=8)


def _paths(panel: Axes, arrays: Mapping[str, np.ndarray]) -> None:
    levels = arrays["levels"]
    best = arrays["new_nice/minimisers"][:, 0]
    panel.plot(best, levels, "o", color="#999999", markersize=6, markerfacecolor="none", mew=0.8)
    for i, (path, plain) in enumerate(zip(arrays["paths"], arrays["plain"], strict=True)):
        color = LEVEL_COLORS[i]
        panel.plot(path[1:], levels, color=color, marker=".", markersize=4, linewidth=1)
        panel.plot(path[:2], [levels[0] * 1.12, levels[0]], color=color, linestyle=":", linewidth=1)
        panel.plot(path[0], levels[0] * 1.12, color=color, marker="v", markersize=6)
        panel.plot(plain, 0, color=color, marker="x", markersize=7, mew=1.8, linestyle="")
    panel.set(xlabel="x", ylabel="δ", ylim=(-0.04 * levels[0], 1.2 * levels[0]))


def _radii(panel: Axes, arrays: Mapping[str, np.ndarray], sigma: float) -> None:
    levels, radius = arrays["levels"], arrays["new_nice/radius"]
    shown = np.where(radius > 0, radius, np.nan)  # no dot: f̂ is not σ-strongly convex at x*
    panel.plot(levels, shown, ".", color="#0072B2", label=f"radius for σ = {sigma:g}")
    panel.plot(levels, levels, color="#009E73", linestyle=LINES[1], label="δ: needed by new σ-nice")
    panel.plot(levels, 3 * levels, color="#D55E00", linestyle=LINES[2], label="3δ: by σ-nice")
    panel.set(xlabel="δ", ylabel="distance from x*", xscale="log", yscale="log")
    panel.legend(fontsize=8)
