"""Double descent: polynomials and their errors by degree, random features by width."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.report import style
from experiments.report.page import Drawing, Part, Picture

POINTS, ERROR, NORM, CONDITION = "#333333", "#D55E00", "#0072B2", "#009E73"
FITS = (3, 5, 20, 100)
"""Degrees whose polynomials are drawn, and the one that first passes through all points."""

POLYNOMIALS = (
    "Left: polynomials of the lecture's noise (dots: the points; grey: the curve without noise). "
    "Right: test error, norm of the coefficients and condition number over the degree; lines are "
    "medians over draws of the noise, bands go from 5 to 95 %. Dashed: as many coefficients as "
    "points."
)
FEATURES = (
    "Least squares on random features: means over the draws, bands are their range. Dashed: as "
    "many features as examples. “Stopped” is gradient descent, stopped by validation loss."
)


def parts(
    points: int, widths: Sequence[int], examples: int, found: Mapping[str, np.ndarray]
) -> tuple[Part, ...]:
    """Return the two figures.

    Args:
        points: training points of the polynomials.
        widths: numbers of random features.
        examples: training examples of the random features.
        found: the result of `experiments.lecture.double_descent.compute`.
    """
    return (
        Picture("double_descent_polynomials", polynomials(points, found), POLYNOMIALS),
        Picture("double_descent_features", features(widths, examples, found), FEATURES),
    )


def polynomials(points: int, found: Mapping[str, np.ndarray]) -> Drawing:
    """Return the figure of the polynomials."""
    figure, axes = style.panels(1, 2, height=3.6)
    left, right = axes[0]
    x, largest = found["test_x"], len(found["fits"]) - 1
    left.plot(x, np.sin(4.5 * x), color="#aaaaaa", linewidth=3)
    left.plot(found["x"], found["y"], "o", color=POINTS, markersize=3)
    degrees = sorted({*(d for d in FITS if d <= largest), points - 1, largest})
    for degree, color in zip(
        degrees, ("#56B4E9", "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#000000"), strict=False
    ):
        left.plot(x, found["fits"][degree], color=color, linewidth=1.2, label=f"degree {degree}")
    left.set(ylim=(-2.2, 2.2), xlabel="x", ylabel="y", title="fits")
    left.legend(loc="lower right", fontsize=8, ncols=2)
    over = np.arange(largest + 1)
    for name, label, color in (
        ("errors", "test error", ERROR),
        ("norms", "norm", NORM),
    ):
        low, middle, high = np.quantile(found[name], [0.05, 0.5, 0.95], axis=0)
        right.fill_between(over, low, high, color=color, alpha=0.2, linewidth=0)
        right.plot(over, middle, color=color, label=label)
    right.plot(over, found["condition"], color=CONDITION, linestyle=":", label="condition number")
    right.axvline(points - 1, color="#555555", linestyle=(0, (4, 2)), linewidth=1)
    right.set(yscale="log", xlabel="degree", title="over the degree")
    right.legend(loc="upper right", fontsize=8)
    return style.drawing(figure)


def features(widths: Sequence[int], examples: int, found: Mapping[str, np.ndarray]) -> Drawing:
    """Return the figure of the random features: loss, wrong pictures, norm over the width."""
    figure, axes = style.panels(1, 3, height=3.2)
    curves = (
        ("test loss", "feature_loss", "stopped_loss"),
        ("wrong (share)", "feature_error", "stopped_error"),
        ("norm of the solution", "feature_norm", None),
    )
    for axis, (title, name, stopped) in zip(axes[0], curves, strict=True):
        for level, (label, color) in enumerate(
            (("true labels", "#0072B2"), ("noisy labels", "#D55E00"))
        ):
            _band(axis, widths, found[name][level], color, "-", label)
            if stopped:
                _band(axis, widths, found[stopped][level], color, ":", f"{label}, stopped")
        axis.axvline(examples, color="#555555", linestyle=(0, (4, 2)), linewidth=1)
        axis.set(xscale="log", xlabel="random features", title=title)
        if name != "feature_error":
            axis.set_yscale("log")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, fontsize=8)
    return style.drawing(figure)


def _band(
    axis: Axes, widths: Sequence[int], values: np.ndarray, color: str, line: str, label: str
) -> None:
    axis.fill_between(widths, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)
    axis.plot(widths, values.mean(0), color=color, linestyle=line, label=label, linewidth=1.4)
