"""Plateaus of SGD on logistic regression: gaps over steps, by batch and by method."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.report import style
from experiments.report.page import Drawing, Part, Picture
from experiments.report.style import DASH_DOT, DASHED, DOTTED, LONG

BATCHES = ("#332288", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#882255")
METHODS = {
    "decreasing": ("#E69F00", DASH_DOT),
    "averaged": ("#CC79A7", DOTTED),
    "clipped_sgd": ("#0072B2", DASHED),
    "clipped_sstm": ("#009E73", "-"),
    "svrg": ("#000000", LONG),
}
LEAST = 1e-16
"""A gap below this is rounding."""
CAPTION = (
    "Mean gap f − f* over the seeds. Left: SGD with a constant step by batch size. Right: other "
    "methods with the same batches, SGD with the constant step in grey."
)


def parts(
    ridges: Sequence[float],
    batches: Sequence[int],
    names: Mapping[str, str],
    found: Mapping[str, np.ndarray],
) -> tuple[Part, ...]:
    """Return the figure.

    Args:
        ridges: values of μ.
        batches: batch sizes.
        names: what the other methods are called.
        found: the result of `experiments.lecture.plateaus.compute`.
    """
    return (Picture("plateaus", figure(ridges, batches, names, found), CAPTION),)


def figure(
    ridges: Sequence[float],
    batches: Sequence[int],
    names: Mapping[str, str],
    found: Mapping[str, np.ndarray],
) -> Drawing:
    """Return the figure: a row for each μ, batches on the left, methods on the right."""
    made, axes = style.panels(len(ridges), 2, height=3.1, sharey="row")
    middle = batches[len(batches) // 2]
    for (left, right), ridge, gaps, i in zip(
        axes, ridges, found["gap"], range(len(ridges)), strict=True
    ):
        for batch, gap, color in zip(batches, gaps, BATCHES, strict=False):
            _line(left, gap, color=color, label=f"batch {batch}")
            if batch == middle:
                _line(right, gap, color="#aaaaaa", label=f"SGD, batch {batch}")
        for name, (color, line) in METHODS.items():
            _line(right, found[f"gap_{name}"][i], color=color, linestyle=line, label=names[name])
        left.set(title=f"μ = {ridge:g}: SGD, constant step", ylabel="f − f*", ylim=(LEAST, None))
        right.set(title=f"μ = {ridge:g}: other methods")
        for axis in (left, right):
            axis.set(yscale="log", xlabel="steps")
            axis.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 0.05))
    return style.drawing(made)


def _line(axis: Axes, gaps: np.ndarray, **look: Any) -> None:
    axis.plot(np.maximum(gaps.mean(0), LEAST), linewidth=1.3, **look)
