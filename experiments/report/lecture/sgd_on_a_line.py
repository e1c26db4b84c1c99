"""SGD on a line: the iterates over the contours of f, and the balls over the steps."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from experiments.report import style
from experiments.report.page import Drawing, Part, Picture
from experiments.report.style import DASH_DOT, LOOKS, Look

METHODS = {
    "gd": Look("gradient descent", "#000000", "-", "s"),
    "sgd": LOOKS["sgd"],
    "averaged_sgd": Look("SGD, averaged", "#E69F00", DASH_DOT, "v"),
    "clipped_sgd": LOOKS["clipped_sgd"],
    "clipped_sstm": LOOKS["clipped_sstm"],
}
COLORS = ("#332288", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#882255")

PATHS = (
    "Iterates over the contours of f, the first 20 steps and all of them; the cross is the "
    "least-squares point. Averages are shown where the method is evaluated."
)
BALLS = (
    "Mean squared distance of SGD to the least-squares point over the seeds. Dashed: the size of "
    "the ball by the equation for the covariance, computed without SGD."
)


def parts(
    rates: Sequence[float], batches: Sequence[int], found: Mapping[str, np.ndarray]
) -> tuple[Part, ...]:
    """Return the two figures.

    Args:
        rates: steps of the balls.
        batches: of the balls.
        found: the result of `experiments.lecture.sgd_on_a_line.compute`.
    """
    return (
        Picture("sgd_on_a_line_paths", paths(found), PATHS),
        Picture("sgd_on_a_line_balls", balls(rates, batches, found), BALLS),
    )


def paths(found: Mapping[str, np.ndarray]) -> Drawing:
    """Return the iterates over the contours of f: the first 20 steps, all steps, the end."""
    figure, axes = style.panels(1, 3, height=3.6)
    solution = found["solution"]
    ends = np.concatenate([found[f"path_{name}"] for name in METHODS])
    last = np.concatenate([found[f"path_{name}"][-100:] for name in METHODS if name != "gd"])
    reach = np.abs(last - solution).max(0) * 1.1
    windows = (_window(ends), _window(ends), np.stack([solution - reach, solution + reach]))
    titles = ("the first 20 steps", "all steps", "the end, enlarged")
    for axis, title, window, count in zip(axes[0], titles, windows, (21, None, None), strict=True):
        _contours(axis, found, window)
        for name, shown in METHODS.items():
            path = found[f"path_{name}"][:count]
            axis.plot(
                *path.T,
                color=shown.color,
                linestyle=shown.line,
                linewidth=0.9,
                marker=shown.marker if count else "",
                markersize=3,
            )
        axis.plot(*solution, marker="+", color="black", markersize=12, mew=2)
        axis.set(title=title, xlabel="slope", xlim=window[:, 0], ylim=window[:, 1])
    axes[0, 0].set_ylabel("height")
    style.legend(figure, METHODS.values(), markers=True)
    return style.drawing(figure)


def balls(
    rates: Sequence[float], batches: Sequence[int], found: Mapping[str, np.ndarray]
) -> Drawing:
    """Return the mean squared distance over steps, a panel for each step size."""
    figure, axes = style.panels(1, len(rates), height=3.0, sharey=True)
    for axis, rate, curves, predicted in zip(
        axes[0], rates, found["ball"], found["ball_predicted"], strict=True
    ):
        for i, (batch, curve, level) in enumerate(zip(batches, curves, predicted, strict=True)):
            color = COLORS[i % len(COLORS)]
            axis.plot(curve, color=color, linewidth=1.2, label=f"batch {batch}")
            axis.axhline(level, color=color, linestyle=(0, (4, 2)), linewidth=1.0)
        axis.set(title=f"step {rate:g}", xlabel="steps", yscale="log")
    axes[0, 0].set_ylabel("mean |w − w*|²")
    axes[0, -1].legend(loc="upper right")
    return style.drawing(figure)


def _window(points: np.ndarray) -> np.ndarray:
    """Return the corners (2, 2) of a box around points, with a margin."""
    low, high = points.min(0), points.max(0)
    margin = 0.08 * (high - low)
    return np.stack([low - margin, high + margin])


def _contours(axis: Axes, found: Mapping[str, np.ndarray], window: np.ndarray) -> None:
    """Draw level lines of f − f*, evenly spaced in its square root."""
    x, y = (np.linspace(window[0, i], window[1, i], 80) for i in range(2))
    offsets = np.stack(np.meshgrid(x, y), axis=-1) - found["solution"]
    gap = 0.5 * np.einsum("...i,ij,...j->...", offsets, found["hessian"], offsets)
    axis.contour(x, y, np.sqrt(gap), levels=12, colors="#bbbbbb", linewidths=0.6)
    axis.grid(visible=False)
