"""Exponential learning rates: how far apart the directions are, and how long the weights."""

from collections.abc import Mapping

import numpy as np

from experiments.report import style
from experiments.report.page import Drawing, Part, Picture
from experiments.report.style import DASHED, DOTTED, LONG

LOOKS = {
    "plain": ("#0072B2", "-"),
    "momentum": ("#D55E00", DASHED),
    "clipped": ("#009E73", DOTTED),
    "open": ("#CC79A7", "-"),
    "epsilon": ("#000000", LONG),
}
CAPTION = (
    "SGD with weight decay beside SGD with exponentially growing steps and none. Left: distance of "
    "the two directions, the largest over the seeds; rounding where the network is "
    "scale-invariant. Right: length of the weights (momentum, first seed)."
)


def parts(names: Mapping[str, str], found: Mapping[str, np.ndarray]) -> tuple[Part, ...]:
    """Return the figure.

    Args:
        names: what the comparisons are called, by kind.
        found: the result of `experiments.lecture.exponential_rates.compute`.
    """
    return (Picture("exponential_rates", figure(names, found), CAPTION),)


def figure(names: Mapping[str, str], found: Mapping[str, np.ndarray]) -> Drawing:
    """Return the figure: deviations of the directions, norms of the weights."""
    made, axes = style.panels(1, 2, height=3.4)
    left, right = axes[0]
    for kind, name in names.items():
        color, line = LOOKS[kind]
        deviation = found[f"deviation_{kind}"].max(0)[1:]
        steps = np.arange(1, len(deviation) + 1)
        # A deviation of exactly 0 has no place on a log axis.
        left.plot(
            steps, np.maximum(deviation, 1e-17), color=color, linestyle=line, label=name, lw=1.4
        )
    left.set(yscale="log", xlabel="steps", ylabel="|w/|w| − w̃/|w̃||", title="directions")
    left.legend(fontsize=8, loc="center right")
    for name, label, color, line in (
        ("decayed_norm", "with weight decay", "#555555", "-"),
        ("grown_norm", "with growing steps", "#D55E00", DASHED),
    ):
        right.plot(found[f"{name}_momentum"][0], color=color, linestyle=line, label=label)
    right.set(yscale="log", xlabel="steps", ylabel="|w|", title="lengths")
    right.legend(fontsize=8, loc="upper left")
    return style.drawing(made)
