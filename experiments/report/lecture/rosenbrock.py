"""Rosenbrock's valley: paths over its contours in small multiples, and the table of last values."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from experiments.report import style
from experiments.report.page import Cell, Drawing, Part, Picture, Table
from experiments.report.style import Look

COLUMNS = 6
WINDOW = ((-2.4, 2.4), (-1.2, 3.6))
BACKGROUND = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.6}
COMMON = Look("common", "#D55E00", "-", "o")
OWN = Look("own", "#0072B2", "-", "o")

PATHS = (
    "Paths over contours of log f, from (0.1, 3), the dot, to the minimum (1, 1), the cross: at "
    "the common learning rate and at each method's own. Numbers: f after the last step."
)
LAST = (
    "Sorted by the last f at the method's own rate. “Lost”: f above 1 at the common rate, or "
    "diverged. A range: the last f from starts 1e-9 away, where these differ by more than 1 %, so "
    "that rounding decides it. A rate at the end of the grid is marked: a better one may lie "
    "outside."
)


def parts(
    families: Mapping[str, Sequence[str]],
    labels: Mapping[str, str],
    rate: float,
    common: int,
    found: Mapping[str, np.ndarray],
) -> tuple[Part, ...]:
    """Return a figure for each family of methods, and the table.

    Args:
        families: names of methods by family; empty families are left out.
        labels: of all methods, in the order of the result.
        rate: that all have in common.
        common: its place among the rates.
        found: the result of `experiments.lecture.rosenbrock.compute`.
    """
    pictures = [
        Picture(
            f"rosenbrock_zoo_{i}",
            paths(names, labels, rate, common, found),
            f"{title.capitalize()}. {PATHS}",
        )
        for i, (title, names) in enumerate(families.items(), start=1)
        if names
    ]
    return (*pictures, table(labels, rate, common, found))


def paths(
    names: Sequence[str],
    labels: Mapping[str, str],
    rate: float,
    common: int,
    found: Mapping[str, np.ndarray],
) -> Drawing:
    """Return the paths of some methods, a panel each."""
    columns = min(COLUMNS, len(names))
    figure, axes = style.panels(
        -(-len(names) // columns), columns, height=1.85, sharex=True, sharey=True
    )
    order = list(labels)
    for axis, name in zip(axes.flat, names, strict=False):
        i = order.index(name)
        _contours(axis)
        for kind, look, width in (("common", COMMON, 2.0), ("own", OWN, 0.8)):
            path = found[f"path_{kind}"][i]
            axis.plot(*_inside(path).T, color=look.color, linewidth=width)
        axis.plot(*found["path_common"][i][0], marker="o", color="black", markersize=3.5)
        axis.plot(1, 1, marker="+", color="black", markersize=9, mew=1.6)
        axis.set_title(labels[name], fontsize=8.5)
        for height, look, value in (
            (0.13, COMMON, found["last"][i, common]),
            (0.02, OWN, found["last"][i, found["own"][i]]),
        ):
            axis.text(
                0.03,
                height,
                _number(value),
                transform=axis.transAxes,
                color=look.color,
                fontsize=8,
                fontweight="bold",
                bbox=BACKGROUND,
            )
        axis.set(xlim=WINDOW[0], ylim=WINDOW[1], xticks=(-2, 0, 2), yticks=(0, 2))
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    looks = (
        Look(f"learning rate {rate:g}", COMMON.color, "-", ""),
        Look("the method's own learning rate", OWN.color, "-", ""),
    )
    style.legend(figure, looks, markers=False)
    return style.drawing(figure)


def table(
    labels: Mapping[str, str], rate: float, common: int, found: Mapping[str, np.ndarray]
) -> Table:
    """Return the last values at the common rate and at the own ones, the best first."""
    last, own, rates = found["last"], found["own"], found["rates"]
    best = last[np.arange(len(own)), own]
    names = list(labels.values())
    rows = []
    for i in np.argsort(best, kind="stable"):
        lost = last[i, common] > 1
        notes = ["lost" if lost else "", _spread(last[i, common], found["nearby"][i])]
        end = own[i] in (0, len(rates) - 1)
        rows.append(
            (
                Cell(names[i]),
                Cell(_number(last[i, common]), note="\n".join(filter(None, notes))),
                Cell(_number(found["smallest"][i, common])),
                Cell(f"{rates[own[i]]:.3g}", note="end of the grid" if end else ""),
                Cell(_number(best[i])),
            )
        )
    header = (
        "method",
        f"last f at {rate:g}",
        "smallest f on the way",
        "own rate",
        "last f at its own rate",
    )
    return Table("Rosenbrock's valley: last values", header, tuple(rows), LAST)


def _number(value: Any) -> str:
    """Return a value of f, or that there is none.

    Examples:
        >>> _number(0.0042058), _number(660.39), _number(float("inf"))
        ('0.00421', '660', 'diverged')
    """
    return f"{value:.3g}" if np.isfinite(value) else "diverged"


def _spread(value: Any, nearby: np.ndarray) -> str:
    """Return from where to where f goes from starts close by, where that is more than 1 %.

    Examples:
        >>> _spread(1.0, np.array([0.9, 1.02])), _spread(1.0, np.array([1.001]))
        ('0.9 to 1.02', '')
    """
    ends = np.append(nearby, value)
    if not np.isfinite(ends).all() or np.ptp(ends) <= 0.01 * value:
        return ""
    return f"{_number(ends.min())} to {_number(ends.max())}"


def _inside(path: np.ndarray) -> np.ndarray:
    """Return a path up to where it leaves for good what can be drawn."""
    with np.errstate(invalid="ignore"):
        far = ~(np.abs(path) < 1e3).all(1)
    return path[: int(far.argmax())] if far.any() else path


def _contours(axis: Axes) -> None:
    """Draw level lines of f, evenly spaced in its logarithm."""
    x, y = np.meshgrid(np.linspace(*WINDOW[0], 120), np.linspace(*WINDOW[1], 120))
    f = (1 - x) ** 2 + 100 * (y - x**2) ** 2
    axis.contour(x, y, np.log10(f), levels=np.arange(-1, 4, 0.5), colors="#c4c4c4", linewidths=0.5)
    axis.grid(visible=False)
