"""Theorems on SGD: bounds over quantiles of the runs, and rates of several methods."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.report import style
from experiments.report.page import Drawing, Part, Picture
from experiments.report.style import DASHED, DOTTED, LONG

BOUND, MEAN = "#D55E00", "#0072B2"
METHODS = {
    "pl_decreasing": ("#D55E00", "-"),
    "polyak": ("#CC79A7", DASHED),
    "nesterov": ("#000000", DOTTED),
    "clipped_sgd": ("#0072B2", LONG),
}
THEOREMS = (
    "Gap f − f* of the runs: mean (line), 5 to 95 % (dark band), 1 to 99 % (light band), and the "
    "theorem's bound of the mean (dashed)."
)
RATES = (
    "Left: mean gaps with steps that fall like 1/k; momentum's are 1 − β times as large. Right, "
    "without strong convexity: averaged SGD, and two phases of it, the second on the quadratic "
    "model; a run of its own for each number of steps. Grey: the slopes of 1/k and 1/√k."
)


def parts(
    theorems: Mapping[str, str],
    rates: Mapping[str, str],
    newton_steps: Sequence[int],
    found: Mapping[str, np.ndarray],
) -> tuple[Part, ...]:
    """Return the two figures.

    Args:
        theorems: what they are called.
        rates: methods whose rates are compared, and what they are called.
        newton_steps: of the two-phase method.
        found: the result of `experiments.lecture.sgd_theorems.compute`.
    """
    return (
        Picture("sgd_theorems_bounds", bounds(theorems, found), THEOREMS),
        Picture("sgd_theorems_rates", slopes(rates, newton_steps, found), RATES),
    )


def bounds(theorems: Mapping[str, str], found: Mapping[str, np.ndarray]) -> Drawing:
    """Return a panel for each theorem."""
    made, axes = style.panels(2, 2, height=2.6, sharex=True)
    steps = found["steps"]
    for axis, (name, title) in zip(axes.flat, theorems.items(), strict=True):
        gaps = found[f"gap_{name}"]
        for low, high, alpha in ((0.01, 0.99, 0.15), (0.05, 0.95, 0.3)):
            edges = np.quantile(gaps, [low, high], axis=0)
            axis.fill_between(steps, *edges, color=MEAN, alpha=alpha, linewidth=0)
        axis.plot(steps, gaps.mean(0), color=MEAN, label="mean of the runs")
        axis.plot(steps, found[f"bound_{name}"], color=BOUND, linestyle=DASHED, label="bound")
        axis.set(xscale="log", yscale="log", title=title)
    for axis in axes[:, 0]:
        axis.set_ylabel("f − f*")
    for axis in axes[1]:
        axis.set_xlabel("steps")
    axes[0, 0].legend(fontsize=8, loc="lower left")
    return style.drawing(made)


def slopes(
    rates: Mapping[str, str], newton_steps: Sequence[int], found: Mapping[str, np.ndarray]
) -> Drawing:
    """Return the mean gaps: methods with steps of 1/k, and the two phases."""
    made, axes = style.panels(1, 2, height=3.2)
    left, right = axes[0]
    steps, at = found["steps"], np.array(newton_steps)
    for name, title in rates.items():
        color, line = METHODS[name]
        left.plot(steps, found[f"gap_{name}"].mean(0), color=color, linestyle=line, label=title)
    left.set(title="strongly convex", ylabel="f − f*")
    plain, newton = found["newton_plain"].mean(0), found["newton"].mean(0)
    right.plot(at, plain, "s--", color="#D55E00", label="averaged SGD", markersize=4)
    right.plot(at, newton, "o-", color="#009E73", label="two phases", markersize=4)
    right.set_title("convex")
    _guide(left, steps[steps >= 10], found["gap_pl_decreasing"].mean(0)[-1], 1.0, "1/k")
    _guide(right, at, plain[-1], 0.5, "1/√k")
    _guide(right, at, newton[-1], 1.0, "1/k")
    for axis in (left, right):
        axis.set(xscale="log", yscale="log", xlabel="steps")
        axis.legend(fontsize=8, loc="lower left")
    return style.drawing(made)


def _guide(axis: Axes, steps: np.ndarray, last: float, power: float, name: str) -> None:
    """Draw a power of the step, a third of the last value, and name it at its end."""
    values = last / 3 * (steps[-1] / steps) ** power
    axis.plot(steps, values, color="#aaaaaa", linewidth=1)
    axis.annotate(name, (steps[-1], values[-1]), color="#777777", fontsize=8, va="top", ha="right")
