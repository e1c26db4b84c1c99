"""How all figures look, chosen once: each method has one colour, line and marker everywhere."""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.report.page import Drawing
from experiments.setup.labels import in_figure, shortened

WIDTH = 10.0
"""Inches, of a figure."""
LINE = 0.2
"""Inches, of a legend's line."""
LABEL = 48
"""Letters in a line of a legend: two such columns find room."""
LONGEST_LABEL = 120
"""Letters of a name in a legend. Any two lines hold more than `LABEL`, so five are enough."""

STYLE: Any = {
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,  # TrueType, which journals and editors of drawings can read
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
DASHED: Any = (0, (4, 1.2))
DOTTED: Any = (0, (1, 0.8))
DASH_DOT: Any = (0, (6, 1, 1, 1))
DASH_DOT_DOT: Any = (0, (3, 1, 1, 1, 1, 1))
LONG: Any = (0, (8, 2))
LINES: tuple[Any, ...] = ("-", DASHED, DOTTED, DASH_DOT, DASH_DOT_DOT, LONG)

# For methods without a look of their own, the most different colours first. Those of one line are
# far apart for all kinds of colour vision; close colours have different lines and markers.
SPARES: tuple[tuple[str, Any, str], ...] = (
    ("#000000", DASHED, "P"),
    ("#661100", DOTTED, "D"),
    ("#A0522D", DASH_DOT_DOT, "*"),
    ("#88CCEE", LONG, "h"),
    ("#B07AFF", "-", "<"),
    ("#BFA946", LONG, ">"),
    ("#882255", LONG, "p"),
    ("#332288", DOTTED, "d"),
    ("#6699CC", DASH_DOT_DOT, "o"),
    ("#00B8C4", DASH_DOT, "s"),
    ("#9C2A00", DASH_DOT, "D"),
    ("#FF8FA3", DASHED, "^"),
)


def look(method: str, methods: Iterable[str] = ()) -> Look:
    """Return how a method is shown; methods without a look of their own get the spare ones.

    Colour, line and marker differ together. After the last spare look they begin again with other
    lines and markers: no two of 72 methods have both colour and line in common, no two of 24 both
    colour and marker.

    Args:
        method: the method's name.
        methods: all names on the page, so that a method looks the same in all its figures.

    Examples:
        >>> look("clipped_sgd").label
        'clipped-SGD'
        >>> look("sgd.lr=2", ["sgd.lr=1", "sgd.lr=2"]).color
        '#661100'
    """
    known = LOOKS | PLANS
    if method in known:
        return known[method]
    place = sorted(name for name in {*methods, method} if name not in known).index(method)
    again, place = divmod(place, len(SPARES))
    color, line, _ = SPARES[place]
    line = LINES[(LINES.index(line) + again) % len(LINES)]
    marker = SPARES[(place + 5 * again) % len(SPARES)][2]
    return Look(method, color, line, marker)


def style() -> Any:
    """Return the context in which all figures are drawn."""
    return matplotlib.rc_context(STYLE)


def panels(rows: int, columns: int, *, height: float, **options: Any) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes (rows, columns), each row `height` inches high."""
    figure = Figure(figsize=(WIDTH, rows * height + 0.35))
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def legend(
    figure: Figure,
    looks: Iterable[Look],
    *,
    markers: bool,
    diverged: bool = False,
    others: Mapping[str, Line2D] | None = None,
) -> None:
    """Name every method once, above the panels; the figure grows with the legend.

    Args:
        figure: gets the legend.
        looks: of the methods.
        markers: whether they have markers in this figure.
        diverged: whether to explain the cross at the end of runs that diverged.
        others: what else there is to explain: its name, and a line that looks like it.
    """
    looks = list(looks)
    names = shortened((shown.label for shown in looks), LONGEST_LABEL)
    labels = [in_figure(name, LABEL, lines=5) for name in names]
    handles = [
        Line2D(
            [],
            [],
            color=shown.color,
            linestyle=shown.line,
            marker=shown.marker if markers else "",
        )
        for shown in looks
    ]
    labels += others or {}
    handles += (others or {}).values()
    if diverged:
        handles.append(Line2D([], [], color="#333333", marker="x", mew=2.2, ms=8, linestyle=""))
        labels.append("diverged here")
    columns = max(1, legend_columns(labels, most=6, handle=10))
    lines = sum(label.count("\n") for label in labels) + -(-len(labels) // columns)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + LINE * max(0, lines - 2))
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def legend_columns(
    labels: Sequence[str], width: int = 120, *, most: int = 1000, handle: int = 7
) -> int:
    """Return how many columns a legend takes so that no row is wider than the figure.

    Args:
        labels: what it says; a label may have several lines.
        width: of the figure, in letters.
        most: columns there may be.
        handle: how wide the line or patch beside a label is, in letters.

    Examples:
        >>> legend_columns(["background", *"0123456789"]), legend_columns(["pedestrian"] * 12)
        (11, 6)
        >>> legend_columns(["one", "two"] * 6, most=6), legend_columns(["long " * 12] * 12)
        (6, 1)
    """
    wide = [max(map(len, label.split("\n"))) + handle for label in labels]
    fit = len(labels) if sum(wide) <= width else width // max(wide)
    fit = min(fit, most)
    return -(-len(labels) // -(-len(labels) // max(1, fit))) if labels else 1


def drawing(figure: Figure) -> Drawing:
    """Return what is written of a figure, the same bytes every time; a PDF only when asked for."""
    png = _saved(figure, "png", {"Software": None})
    figure.set_layout_engine("none")  # panels stay where they are: to place them takes long

    def pdf() -> bytes:
        with style():
            return _saved(figure, "pdf", {"CreationDate": None})

    return Drawing(png, pdf)


def _saved(figure: Figure, kind: Any, metadata: Mapping[str, None]) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata=metadata)
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
