"""How all figures look, chosen once: each method has one colour, line and marker everywhere."""

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.setup.labels import in_figure

WIDTH = 10.0
"""Inches, of a figure."""

STYLE: Any = {
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "lines.linewidth": 1.7,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
}


@dataclass(frozen=True)
class Look:
    """How a method is shown: its name, colour, line and marker."""

    label: str
    color: str
    line: Any
    marker: str

    @property
    def drawn(self) -> str:
        """Return the name as a figure shows it."""
        return in_figure(self.label)


# The colours of Okabe and Ito can be told apart by colour-blind readers; lines and markers differ
# as well.
LOOKS = {
    "sgd": Look("SGD", "#D55E00", "-", "o"),
    "adam": Look("Adam", "#CC79A7", (0, (1, 0.8)), "s"),
    "normalized_sgd": Look("normalised SGD", "#E69F00", (0, (6, 1, 1, 1)), "v"),
    "clipped_sgd": Look("clipped-SGD", "#0072B2", (0, (4, 1.2)), "D"),
    "clipped_sstm": Look("clipped-SSTM", "#009E73", "-", "^"),
}
# How the noise of graduated runs falls; these are compared with one another only.
PLANS = {
    "constant": Look("constant noise", "#8A8A8A", "-", "o"),
    "lr": Look("by learning rate", "#D55E00", (0, (4, 1.2)), "v"),
    "batch": Look("by batch", "#0072B2", (0, (6, 1, 1, 1)), "^"),
    "hybrid": Look("by both", "#009E73", "-", "D"),
    "poly_0.5": Look("polynomial 0.5", "#E69F00", "-", "P"),
    "poly_0.9": Look("polynomial 0.9", "#CC79A7", (0, (3, 1, 1, 1, 1, 1)), "s"),
    "poly_1": Look("polynomial 1", "#6A3D9A", (0, (2, 1)), "X"),
}
SPARE_COLORS = ("#56B4E9", "#000000", "#8C6D31", "#7B4FA3", "#7F7F7F")


def look(method: str, methods: Iterable[str] = ()) -> Look:
    """Return how a method is shown; methods without a look of their own get spare colours.

    Args:
        method: the method's name.
        methods: all names in the figure, so that spare colours differ.

    Examples:
        >>> look("clipped_sgd").label
        'clipped-SGD'
        >>> look("sgd.lr=2", ["sgd.lr=1", "sgd.lr=2"]).color
        '#000000'
    """
    known = LOOKS | PLANS
    if method in known:
        return known[method]
    unknown = sorted(name for name in {*methods, method} if name not in known)
    color = SPARE_COLORS[unknown.index(method) % len(SPARE_COLORS)]
    return Look(method, color, "-", "P")


def style() -> Any:
    """Return the context in which all figures are drawn."""
    return matplotlib.rc_context(STYLE)


def panels(rows: int, columns: int, *, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes (rows, columns), each row `height` inches high."""
    figure = Figure(figsize=(WIDTH, rows * height + 0.35))
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def legend(figure: Figure, looks: Iterable[Look], *, markers: bool, diverged: bool = False) -> None:
    """Name every method once, above the panels."""
    looks = list(looks)
    labels = [shown.drawn for shown in looks]
    handles: list[Any] = [
        Line2D(
            [],
            [],
            color=shown.color,
            linestyle=shown.line,
            marker=shown.marker if markers else "",
        )
        for shown in looks
    ]
    if diverged:
        handles.append(Line2D([], [], color="#333333", marker="x", mew=2.2, ms=8, linestyle=""))
        labels.append("diverged here")
    figure.legend(handles, labels, loc="outside upper center", ncols=min(len(labels), 6))


def png(figure: Figure) -> bytes:
    """Return the figure as the bytes of a PNG file, the same ones every time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def decimal(value: float, _: Any = None) -> str:
    """Return a tick's label without powers of ten."""
    return f"{value:g}"


def decimal_2_5(value: float, _: Any = None) -> str:
    """Return the label of a minor tick of a log axis: only 2 and 5 get one.

    Examples:
        >>> [decimal_2_5(value) for value in (0.2, 0.3, 50.0)]
        ['0.2', '', '50']
    """
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""
