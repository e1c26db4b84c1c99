"""Losses of frequent and rare classes under several methods; tails of noise and of labels."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np

from clipjax.analysis import survival
from experiments.report import style
from experiments.report.page import Drawing, Part, Picture
from experiments.report.style import DASH_DOT, DASHED, DOTTED, LONG

LOOKS = {
    "sgd": ("#D55E00", "-"),
    "momentum": ("#E69F00", DASH_DOT),
    "clipped_sgd": ("#0072B2", DASHED),
    "clipped_sstm": ("#009E73", LONG),
    "sign": ("#000000", "-"),
    "adam_0": ("#882255", DASHED),
    "adam": ("#CC79A7", DOTTED),
}
"""Of each method; the order is that of the panels."""

LOSSES = (
    "Mean loss of each group of classes over the steps at the published rates, from the most "
    "frequent class (darkest) to the rarest classes (lightest); grey: the loss at the start. Last "
    "panel: loss of the rarest classes over that of the most frequent one as the methods go from "
    "right to left, at the smallest rate of the grid that gets the latter to a third; mean of the "
    "seeds, both in units of the start."
)
TAILS = (
    "Left: loss of the rarest classes after the last step at each rate of the grid, mean over the "
    "seeds. Right: share of values above a multiple of their mean: sizes of classes, and norms of "
    "the noise of batches, at the start and where SGD ends."
)


def parts(
    labels: Mapping[str, str],
    rates: Sequence[float],
    paths: Mapping[str, np.ndarray],
    found: Mapping[str, np.ndarray],
) -> tuple[Part, ...]:
    """Return the two figures.

    Args:
        labels: what the methods are called.
        rates: the grid.
        paths: of each method (points, 2), the loss of the first and of the last group.
        found: the result of `experiments.lecture.rare_classes.compute`.
    """
    return (
        Picture("rare_classes_losses", losses(labels, paths, found), LOSSES),
        Picture("rare_classes_tails", tails(labels, rates, found), TAILS),
    )


def losses(
    labels: Mapping[str, str], paths: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> Drawing:
    """Return the figure of the losses: a panel for each method, and the paths."""
    figure, axes = style.panels(2, 4, height=2.5)
    *panels, last = axes.flat
    top = max(float(found[f"published_{name}"].max()) for name in LOOKS)
    for axis, name in zip(panels, LOOKS, strict=True):
        by_group = found[f"published_{name}"]
        colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, by_group.shape[1]))
        axis.axhline(by_group[0, 0], color="#aaaaaa", linewidth=1)
        for values, color in zip(by_group.T, colors, strict=True):
            axis.plot(np.arange(1, len(values) + 1), values, color=color, linewidth=1.3)
        axis.set(xscale="log", ylim=(0, 1.05 * top), title=labels[name])
    for axis in axes[:, 0]:
        axis.set_ylabel("loss")
    for axis in (*axes[1, :-1], axes[0, -1]):
        axis.set_xlabel("steps + 1")
    for name, (color, line) in LOOKS.items():
        frequent, rare = paths[name].T
        last.plot(frequent, rare, color=color, linestyle=line, linewidth=1.3, label=labels[name])
    last.set(title="rare over frequent", xlabel="loss, frequent", ylabel="loss, rare")
    last.set(xlim=(1.02, 0.2), ylim=(0, 1.5))
    last.legend(fontsize=6.5, loc="lower left", handlelength=2, labelspacing=0.2)
    return style.drawing(figure)


def tails(
    labels: Mapping[str, str], rates: Sequence[float], found: Mapping[str, np.ndarray]
) -> Drawing:
    """Return the figure of the grid of rates and of the tails."""
    figure, axes = style.panels(1, 2, height=3.4)
    left, right = axes[0]
    for name, (color, line) in LOOKS.items():
        rare = found[f"tuned_{name}"][:, :, -1, -1].mean(0)
        left.plot(rates, rare, color=color, linestyle=line, label=labels[name], linewidth=1.4)
    start = found["tuned_sgd"][0, 0, 0, 0]
    left.axhline(start, color="#aaaaaa", linewidth=1)
    left.set(xscale="log", yscale="log", ylim=(1e-3, 20), xlabel="learning rate")
    left.set(title="best rates", ylabel="loss, rarest classes")
    left.legend(fontsize=8, loc="lower left")
    for label, values, color, line in (
        ("sizes of classes", found["class_sizes"].astype(float), "#000000", "-"),
        ("noise, at the start", found["noise_norms"][0, 0], "#0072B2", DASHED),
        ("noise, where SGD ends", found["noise_norms"][1, 0], "#D55E00", DOTTED),
    ):
        curve = survival(values / values.mean())
        right.step(curve.x, curve.y, color=color, linestyle=line, label=label, where="pre")
    right.set(xscale="log", yscale="log", title="tails", xlabel="value / mean", ylabel="share")
    right.xaxis.set_major_formatter(style.decimal)
    right.xaxis.set_minor_formatter(style.decimal_2_5)
    right.legend(fontsize=8, loc="lower left")
    return style.drawing(figure)
