"""The figures about implicit bias: errors over steps, and the planes' ways."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from experiments.report import style
from experiments.report.page import Picture
from experiments.setup.labels import in_figure

Row = Mapping[str, Any]
PATHS = ("GD, logistic", "normalised GD, exponential", "clipped-SSTM, logistic", "Adam, logistic")
"""Methods whose planes are drawn."""
OVERVIEW = (
    "GD, logistic",
    "GD, generalised, c = −1",
    "GD, generalised, c = −1, r_t follows √t",
    "clipped-SSTM, logistic",
    "normalised GD, exponential",
)
"""Methods that the first picture compares."""
FIRST = (
    "Direction error of some methods. Thin dotted lines: the predicted 1/g over the last three "
    "powers of ten, scaled to meet the error at the last step; for “r_t follows √t” it is what the "
    "paper aims at."
)
DIRECTIONS = (
    "Direction error and margin gap of all methods. Dotted lines as above, one for each shape of g."
)
PLANES = "Where the plane θᵀx = 0 lies after some steps, and in the limit."


def overview(found: Mapping[str, Row]) -> Picture:
    """Draw the direction errors of a few methods, a panel for each set."""
    first = next(iter(found.values()))["rows"]
    looks = _looks(first)
    shown = [label for label in OVERVIEW if label in looks] or list(looks)[:5]
    if OVERVIEW[1] in looks:  # it lies on the first one, which is to be seen between the dashes
        looks[OVERVIEW[1]] = (looks[OVERVIEW[1]][0], style.DASHED)
    figure, axes = style.panels(1, len(found), height=2.6)
    for panel, one in zip(axes[0], found.values(), strict=True):
        rows = [row for row in one["rows"] if row["label"] in shown]
        _errors(panel, rows, one["steps"], looks, "error")
        panel.set(title=one["label"], xlabel="step t")
    axes[0][0].set_ylabel("direction error")
    _name(figure, {label: looks[label] for label in shown}, columns=3)
    return Picture("implicit_bias", style.drawing(figure), FIRST)


def directions(found: Mapping[str, Row]) -> Picture:
    """Draw the direction error, losses under GD and rules apart, and the margin gap."""
    figure, axes = style.panels(len(found), 3, height=3.1)
    looks = _looks(next(iter(found.values()))["rows"])
    for panels, one in zip(axes, found.values(), strict=True):
        losses = [row for row in one["rows"] if row["rule"] == "gd"]
        rules = [row for row in one["rows"] if row["rule"] != "gd" or row["label"] == PATHS[0]]
        _errors(panels[0], losses, one["steps"], looks, "error")
        _errors(panels[1], rules, one["steps"], looks, "error")
        _errors(panels[2], rules, one["steps"], looks, "gap")
        panels[0].set_ylabel(in_figure(one["label"]))
        for panel in panels:
            panel.set_xlabel("step t")
    for panel, title in zip(
        axes[0],
        ("Direction error: GD, losses", "Direction error: rules", "Margin gap: rules"),
        strict=True,
    ):
        panel.set_title(title)
    _name(figure, looks, columns=3)
    return Picture("directions", style.drawing(figure), DIRECTIONS)


def planes(found: Mapping[str, Row]) -> Picture:
    """Draw the points of each set and where the methods' planes lie at powers of ten."""
    first = next(iter(found.values()))
    labels = [row["label"] for row in first["rows"]]
    paths = [label for label in PATHS if label in labels] or labels[:4]
    figure, axes = style.panels(len(found), len(paths), height=2.6)
    for panels, one in zip(axes, found.values(), strict=True):
        x, classes = one["examples"]
        place = {row["label"]: i for i, row in enumerate(one["rows"])}
        for panel, label in zip(panels, paths, strict=True):
            _plane(panel, one, x, classes, one["theta"][place[label]])
        panels[0].set_ylabel(in_figure(one["label"]))
    for panel, label in zip(axes[0], paths, strict=True):
        panel.set_title(label, fontsize=9)
    times = [first["steps"][i] for i in shown_steps(first["steps"], first=0)]
    handles = [Line2D([], [], color=color) for color in _shades(len(times))]
    handles.append(Line2D([], [], **SEPARATOR))
    handles.append(Line2D([], [], **SUPPORT))
    names = [*(f"t = {t:,}" for t in times), "largest margin", "support vectors"]
    columns = -(-len(names) // 2)
    figure.legend(handles, names, loc="outside upper center", ncols=columns)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + style.LINE * 2)
    return Picture("planes", style.drawing(figure), PLANES)


def _name(figure: Figure, looks: Mapping[str, tuple[str, Any]], columns: int) -> None:
    """Name every method once, and the dotted lines, above the panels; the figure grows."""
    handles = [Line2D([], [], color=color, linestyle=line) for color, line in looks.values()]
    handles.append(Line2D([], [], color="#777777", linestyle=style.DOTTED, linewidth=0.9))
    labels = [*looks, "predicted 1/g"]
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + style.LINE * -(-len(labels) // columns))


def _errors(
    panel: Axes, rows: Sequence[Row], steps: Sequence[int], looks: Mapping[str, Any], name: str
) -> None:
    t = np.array(steps)
    late = t >= t[-1] / 1000
    shapes: list[np.ndarray] = []
    for row in rows:
        color, line = looks[row["label"]]
        values = np.array(row[name], float)
        panel.plot(t, np.where(values > 0, values, np.nan), color=color, linestyle=line, lw=1.3)
        growth = np.array(row["growth"], float)
        if name == "error" and np.isfinite(growth[-1]):
            shape = (growth[-1] / growth)[late]
            # One line for each shape: those of ln t, of ln t / r and of g_t are parallel.
            if not any(np.allclose(shape, other, rtol=0.1, equal_nan=True) for other in shapes):
                scaled = values[-1] * shape
                panel.plot(t[late], scaled, color=color, linestyle=style.DOTTED, linewidth=0.9)
                shapes.append(shape)
    panel.set(xscale="log", yscale="log")
    shown = np.array([row[name] for row in rows], float)
    shown = shown[np.isfinite(shown) & (shown > 0)]
    panel.yaxis.set_major_formatter(style.decimal)
    if len(shown):
        low, high = shown.min() / 1.2, shown.max() * 1.2
        panel.set_ylim(low, high)
        # Within a power of ten or two the labels of the powers are too few.
        some = style.decimal_2_5 if high / low < 100 else NullFormatter()
        panel.yaxis.set_minor_formatter(style.decimal if high / low < 5 else some)


def _plane(panel: Axes, one: Row, x: np.ndarray, labels: np.ndarray, theta: np.ndarray) -> None:
    reach = 1.1 * np.abs(x).max()
    shown = shown_steps(one["steps"], first=0)
    for color, i in zip(_shades(len(shown)), shown, strict=True):
        panel.plot(*_line(theta[i], reach), color=color, linewidth=1.1)
    panel.plot(*_line(np.array(one["weights"]), reach), **SEPARATOR)
    for sign, marker, color in ((1, "o", "#0072B2"), (-1, "s", "#E69F00")):
        chosen = x[labels == sign]
        panel.plot(chosen[:, 0], chosen[:, 1], marker, color=color, markersize=3, linestyle="")
    panel.plot(*x[one["support"]].T, **SUPPORT)
    panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")


def _shades(count: int) -> np.ndarray:
    """Return so many colours from light to dark."""
    return matplotlib.colormaps["viridis_r"](np.linspace(0.1, 0.95, count))


SEPARATOR: dict[str, Any] = {"color": "#D55E00", "linestyle": style.DASHED, "linewidth": 1.4}
SUPPORT: dict[str, Any] = {
    "color": "#222222",
    "linestyle": "",
    "marker": "o",
    "markersize": 8,
    "markerfacecolor": "none",
    "markeredgewidth": 1.1,
}


def _line(theta: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Return two points of the line θᵀx = 0, beyond the panel."""
    along = np.array([-theta[1], theta[0]]) / np.linalg.norm(theta)
    ends = 2 * reach * np.array([-1, 1])
    return ends * along[0], ends * along[1]


def shown_steps(steps: Sequence[int], first: int = 1) -> list[int]:
    """Return where powers of ten from 10^`first` are among the steps, and the last one.

    Examples:
        >>> shown_steps([1, 3, 10, 30, 100, 200])
        [2, 4, 5]
    """
    powers = {10**i for i in range(first, 12)}
    last = len(steps) - 1
    return [i for i, t in enumerate(steps) if t in powers or i == last]


def _looks(rows: Sequence[Row]) -> dict[str, tuple[str, Any]]:
    """Return colour and line by label: rules as everywhere; losses under GD a colour each.

    The lines of a loss tell its rates r apart. No loss has the colour of a rule.
    """
    colors = ("#000000", "#A0522D", "#B07AFF", "#332288", "#88CCEE", "#BFA946", "#882255")
    known = {rule: style.LOOKS[rule] for rule in ("sgd", "clipped_sgd", "clipped_sstm", "adam")}
    known["normalized"] = style.LOOKS["normalized_sgd"]
    looks: dict[str, tuple[str, Any]] = {}
    places: dict[str, int] = {}
    for row in rows:
        if row["rule"] in known:
            look = known[row["rule"]]
            line = look.line if row["loss"] == "logistic" else style.LONG
            looks[row["label"]] = (look.color, line)
        else:
            loss, _, rate = row["label"].partition(", r = ")
            place = places.setdefault(loss, len(places))
            line = {"": "-", "0.5": style.DASHED, "2": style.DASH_DOT}.get(rate, style.LONG)
            looks[row["label"]] = (colors[place % len(colors)], line)
    return looks
