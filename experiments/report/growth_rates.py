"""The page about the rates of the generalised logistic loss: its tables and its figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.report import style
from experiments.report.page import Bullets, Cell, Drawing, Page, Picture, Section, Table, Text

FIRST, LAST = 0.05, 200.0
"""The times that the figure shows."""

COLORS = ("#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9")
PRINTED_DIGITS = 5e-4
"""Half a unit of the third decimal."""

Row = Mapping[str, Any]
Curve = tuple[float, float, np.ndarray, np.ndarray]

LEAD = (
    "For linearly separable data the direction of gradient descent errs by O(1/g_t), where "
    "g_t(c, r) = (ln t + W_0(c/t))/r. Kulikovskikh (2020) compares 1/g_t with 1/√t and 1/t and "
    "prints in Table 1 where they meet. Here are all times at which they do."
)
MEANING = (
    "r·g_t − ln t = W_0(c/t) goes to 0: in the end every curve is r/ln t. None is O(1/√t) or "
    "O(1/t); near a root it has that value for a moment.",
    "Where a curve meets a reference twice, the paper prints one of the two: which one a solver "
    "finds depends on where it starts.",
    "r is a step size: L_r(θ) = L_1(rθ), so that gradient descent with step size η on the one is "
    "gradient descent with step size ηr² on the other.",
    "The paper's c is positive. The curve's own, c(a, b) = ln((P_0 + a)/(b − a)), is at most 0. "
    "For c < 0 the rates begin at t = e|c| and are not those of the paper's table.",
)
CAPTION = (
    "“paper” is Table 1 of Kulikovskikh (2020), a dash for no crossing; of 1/ln t its text says "
    "that there is none. A number of it is taken for a root within 0.001."
)
FIGURE = (
    "1/g_t (coloured) with the references 1/ln t, 1/√t and 1/t (grey). Dots: where they meet. "
    "Crosses: numbers of the paper that are no root."
)


def make_page(rows: Sequence[Row], curves: Sequence[Curve]) -> Page:
    """Return the page.

    Args:
        rows: of `experiments.growth_rates.compare`, in order.
        curves: of `experiments.growth_rates.curves`.
    """
    parts: list[Text | Table] = []
    positive = [row for row in rows if row["c"] > 0]
    negative = [row for row in rows if row["c"] < 0]
    if positive:
        parts += [Text(judgement(rows)), table("Rates with positive c", positive, CAPTION)]
    if negative:
        parts.append(table("Rates with negative c, as of the curve", negative, ""))
    picture = Picture("growth_rates", figure(rows, curves), FIGURE)
    sections = (
        Section("Where they meet", tuple(parts)),
        Section("Figure 1", (picture,)),
        Section("What it means", (Bullets(MEANING),)),
    )
    return Page("Rates of the generalised logistic loss", LEAD, sections)


def judgement(rows: Sequence[Row]) -> str:
    """Return in words how many of the paper's numbers are roots, and which are not.

    Examples:
        >>> row = {"c": 3, "r": 1, "target": "t", "printed": 1.094, "matched": 1.0944, "gap": 0.0}
        >>> judgement([row, row | {"printed": 4.714, "matched": None, "gap": 0.1}])
        'Of the 2 numbers of the paper 1 is a root, 1 of these to three decimals. No root: 4.714.'
    """
    numbers = [row for row in rows if row["printed"] is not None]
    if not numbers:
        return "The paper prints no number for these constants and rates."
    good = [row for row in numbers if row["matched"] is not None]
    exact = sum(abs(row["matched"] - row["printed"]) <= PRINTED_DIGITS for row in good)
    none = [f"{row['printed']:g}" for row in numbers if row["matched"] is None]
    verb = "is a root" if len(good) == 1 else "are roots"
    said = (
        f"Of the {len(numbers)} numbers of the paper {len(good)} {verb}, {exact} of these to three"
    )
    return f"{said} decimals." + (f" No root: {', '.join(none)}." if none else "")


def table(title: str, rows: Sequence[Row], caption: str) -> Table:
    """Return the table of some curves: what the paper prints, the roots, what is to be said."""
    header = ("curve", "reference", "paper", "meets at t =", "remark")
    cells = tuple(
        (
            Cell(f"c = {row['c']:g}, r = {row['r']:g}"),
            Cell(f"1/{row['target']}"),
            Cell(_printed(row)),
            Cell(", ".join(map(_number, row["roots"])) or "nowhere"),
            Cell(remark(row)),
        )
        for row in rows
    )
    return Table(title, header, cells, caption, wraps=True)


def remark(row: Row) -> str:
    """Return how the paper's entry and the roots agree.

    Examples:
        >>> row = {"published": True, "printed": 4.714, "matched": None, "gap": 2.69}
        >>> remark(row | {"target": "√t", "roots": [81.3]})
        'no root: g_t − √t = 2.690 there'
        >>> remark(row | {"target": "√t", "roots": [4.7138e-05, 81.3]})
        'no root: g_t − √t = 2.690 there. 4.714e-05 is one: an exponent lost in print?'
        >>> remark(row | {"printed": None, "roots": []})
        'as printed'
    """
    roots, printed, matched = row["roots"], row["printed"], row["matched"]
    if not row["published"]:
        return ""
    if printed is None:
        return "the paper says nowhere" if roots else "as printed"
    if matched is None:
        said = f"no root: g_t − {row['target']} = {row['gap']:.3f} there".replace("-", "−")
        digits = f"{printed:.3e}"[:5]
        alike = [f"{root:.3e}" for root in roots if f"{root:.3e}".startswith(digits)]
        return f"{said}. {alike[0]} is one: an exponent lost in print?" if alike else said
    others = len(roots) - 1
    further = f"; {others} more that it leaves out" if others else ""
    if abs(matched - printed) <= PRINTED_DIGITS:
        return f"as printed{further}"
    return f"printed {abs(matched - printed):.4f} off{further}"


def figure(rows: Sequence[Row], curves: Sequence[Curve]) -> Drawing:
    """Draw 1/g_t: a row of panels for each sign of c, a column for each r."""
    signs = [sign for sign in (1, -1) if any(c * sign > 0 for c, *_ in curves)]
    rates = list(dict.fromkeys(r for _, r, *_ in curves))
    sizes = sorted({abs(c) for c, *_ in curves})
    looks = {
        size: (COLORS[i % len(COLORS)], style.LINES[i // len(COLORS)])
        for i, size in enumerate(sizes)
    }
    columns = min(len(rates), 4)
    lines = -(-len(rates) // columns)
    drawn, axes = style.panels(len(signs) * lines, columns, height=3.5)
    for panel in axes.flat:
        panel.set_visible(False)
    for i, sign in enumerate(signs):
        for j, rate in enumerate(rates):
            panel = axes[i * lines + j // columns][j % columns]
            panel.set_visible(True)
            chosen = [curve for curve in curves if curve[0] * sign > 0 and curve[1] == rate]
            _panel(panel, chosen, [r for r in rows if r["c"] * sign > 0 and r["r"] == rate], looks)
            panel.set(title=f"{'c > 0' if sign > 0 else 'c < 0'}, r = {rate:g}", xlabel="t")
        axes[i * lines][0].set_ylabel("1/g_t")
    handles = [Line2D([], [], color=color, linestyle=line) for color, line in looks.values()]
    names = [f"|c| = {size:g}" for size in sizes]
    references = [
        Line2D([], [], color=GREY, linestyle=line, lw=1.1) for line in REFERENCES.values()
    ]
    drawn.legend(handles + references, [*names, *REFERENCES], loc="outside upper center", ncols=9)
    return style.drawing(drawn)


GREY = "#777777"
REFERENCES: dict[str, Any] = {"1/ln t": style.DOTTED, "1/√t": style.DASHED, "1/t": style.DASH_DOT}


def _panel(
    panel: Axes, curves: Sequence[Curve], rows: Sequence[Row], looks: Mapping[float, Any]
) -> None:
    t = np.geomspace(FIRST, LAST, 401)
    late = t[t > 1]
    for at, value, line in zip(
        (late, t, t), (np.log(late), np.sqrt(t), t), REFERENCES.values(), strict=True
    ):
        panel.plot(at, 1 / value, color=GREY, linestyle=line, linewidth=1.1)
    for c, _, times, values in curves:
        color, line = looks[abs(c)]
        panel.plot(times, values, color=color, linestyle=line)
    for row in rows:
        color, _ = looks[abs(row["c"])]
        at = np.array([root for root in row["roots"] if FIRST <= root <= LAST])
        if len(at):
            panel.plot(at, 1 / _target(row, at), "o", color=color, markersize=5)
        if row["printed"] is not None and row["matched"] is None:
            wrong = np.array([row["printed"]])
            panel.plot(wrong, 1 / _target(row, wrong), "x", color=color, markersize=8, mew=1.8)
    panel.set(xscale="log", yscale="log", xlim=(FIRST, LAST), ylim=(0.03, 30))
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(style.decimal)


def _target(row: Row, t: np.ndarray) -> np.ndarray:
    return {"√t": np.sqrt(t), "t": t, "ln t": np.log(np.maximum(t, 1))}[row["target"]]


def _printed(row: Row) -> str:
    if not row["published"]:
        return ""
    return "–" if row["printed"] is None else f"{row['printed']:.3f}"


def _number(root: float) -> str:
    """Return a root to four decimals, a small one to four digits.

    Examples:
        >>> _number(81.299421), _number(4.54e-05)
        ('81.2994', '4.54e-05')
    """
    return f"{root:.4f}" if root >= 0.01 else f"{root:.4g}"
