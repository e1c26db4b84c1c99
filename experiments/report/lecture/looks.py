"""Colours and markers of figures whose lines are no methods, and ways over a curve."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

GREY = "#8A8A8A"
COLORS = ("#332288", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#882255")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GD, SGD = "#000000", "#D55E00"

Way = tuple[np.ndarray, np.ndarray]
"""Points x and f there."""


def draw_ways(axis: Axes, ways: Mapping[str, tuple[Way, str, str]]) -> None:
    """Draw what moves over a curve: name -> its points, colour and marker."""
    for name, ((x, f), color, marker) in ways.items():
        axis.plot(
            x, f, color=color, marker=marker, markersize=3.2, linestyle="", alpha=0.75, label=name
        )
