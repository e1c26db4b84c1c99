"""The page about implicit bias: its tables, the errors over steps, and the planes' ways."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from experiments.report import style
from experiments.report.page import Bullets, Cell, Drawing, Page, Picture, Section, Table, Text
from experiments.setup.labels import in_figure

Row = Mapping[str, Any]

LEAD = (
    "On a separable set the weights of gradient descent grow without end, and their direction "
    "turns to that of the hard-margin separator ŵ. Here is how fast: the direction error is "
    "|θ/|θ| − ŵ/|ŵ||, the margin gap 1 − (least margin of θ)/(that of ŵ), and “error × g” should "
    "be constant where the error is O(1/g)."
)
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

MEANING = (
    "GD with a fixed step size: in the end the error is a constant over ln t, for every loss with "
    "an exponential tail. c and q change the constant, r no more than a step size would.",
    "GD on the logarithm of the loss, with steps η/√t (normalised GD): O(1/√t) in the end, which "
    "no parameter of the generalised loss brings about. On the digits, whose margin is 1 to 7 % of "
    "R, the length of the longest, it is among the slowest, with the steps that its theory allows, "
    "1/R²: the end is far off.",
    "r_t that follows √t: learning rates that fall like (ln t)²/t, weights that decay by about "
    "1/(2t) a step. φ is where the two balance, next to the minimiser of the loss plus "
    "|φ|²/(4η(ln t)²): |φ| grows like ln ln t and the error is O(1/ln ln t), slower than with a "
    "constant r. |θ| = |φ|/r_t does grow nearly like √t, without its direction.",
    "clipped-SSTM's steps grow like t, so that its weights grow like 2 ln t, twice as fast.",
    "Adam's first steps have one length in all coordinates, so that it starts along a diagonal, "
    "near to ŵ or far from it as it happens.",
)


def make_page(found: Mapping[str, Row], summary: Row) -> Page:
    """Return the page.

    Args:
        found: of `experiments.implicit_bias.run.on_set`, by the name of the set.
        summary: the other parts of summary.json.
    """
    sections = [
        Section(
            "Sets in the plane",
            (
                Picture("implicit_bias", overview(found), FIRST),
                *(table(one) for one in found.values()),
                Picture("directions", directions(found), DIRECTIONS),
                Picture("planes", planes(found), PLANES),
            ),
        ),
        Section(
            "r is a step size",
            (
                *units(summary["units"], summary["config"]["steps"]),
                *schedule(summary["schedule"], summary["config"]["steps"]),
            ),
        ),
        Section("Almost separable", almost(summary["almost"], summary["config"]["steps"])),
        Section("Digits", digits(summary["digits"])),
        Section("Wrong labels", wrong_labels(summary["robust"], summary["config"])),
        Section("What it means", (Bullets(MEANING),)),
    ]
    return Page("Implicit bias", LEAD, tuple(sections))


FIRST = (
    "Direction error of some methods. Thin dotted lines: the predicted 1/g over the last three "
    "powers of ten, scaled to meet the error at the last step; for “r_t follows √t” it is what the "
    "paper aims at."
)
DIRECTIONS = (
    "Direction error and margin gap of all methods. Dotted lines as above, one for each shape of g."
)
PLANES = "Where the plane θᵀx = 0 lies after some steps, and in the limit."


def table(one: Row) -> Table:
    """Return the table of a set: errors at powers of ten, the margin gap, error × g."""
    steps = one["steps"]
    shown = _shown_steps(steps)
    header = (
        "method",
        *(f"error, t = {steps[i]:,}" for i in shown),
        "gap",
        "|θ|",
        "g",
        "error × g",
    )
    rows = tuple(
        (
            Cell(row["label"]),
            *(_number(row["error"][i]) for i in shown),
            _number(row["gap"][-1]),
            _number(row["norm"][-1]),
            Cell(row["predicted"] or "–"),
            Cell(_products(row, steps)),
        )
        for row in one["rows"]
    )
    caption = (
        f"Largest margin {one['margin']:.4g}, {one['margin'] / one['reach']:.1%} of the longest "
        f"example; {len(one['support'])} support vectors. error × g at "
        f"t = {steps[_tenth(steps)]:,} and at the last step; gap and |θ| at the last."
    )
    return Table(one["label"], header, rows, caption)


def units(rows: Sequence[Row], steps: int) -> tuple[Text | Table, ...]:
    """Return the table of direction errors with one step size for all r, and with η/r²."""
    if not rows:
        return (Text("Shown with the methods gd and gompertz, neither of which was asked for."),)
    cells = tuple(
        (Cell(row["label"]), _number(row["fixed"]), _number(row["scaled"])) for row in rows
    )
    header = ("method, 32 points", "error, η = 1", "error, η = 1/r²")
    caption = f"After {steps:,} steps. L_r(θ) = L_1(rθ): the last column has one number per loss."
    return (Table("Step sizes and r", header, cells, caption),)


def schedule(found: Row | None, steps: int) -> tuple[Text, ...]:
    """Return what a rate r that is chosen anew at each step is; nothing if it was not asked for."""
    if found is None:
        return ()
    said = (
        "The paper chooses c and r anew at each iteration, so that g_t(c, r_t) = √t. For every c "
        f"there is one such r_t, (ln t + W_0(c/t))/√t; here c = {found['follow']:g}. This is a "
        "schedule of the learning rate: by L_r(θ) = L_1(rθ) the weights φ_t = r_{t+1}θ_t take "
        "steps ηr_t² on the loss with r = 1, and a factor r_{t+1}/r_t. Run in this form, after "
        f"{steps:,} steps θ differs by {found['apart']:.0e} of its length and its error is "
        f"{_text(found['rescaled'])}, as it is with r_t ({_text(found['error'])}). With r = 1 "
        f"throughout it is {_text(found['constant'])}."
    )
    return (Text(said),)


def almost(found: Row, steps: int) -> tuple[Text | Table, ...]:
    """Return what happens where some labels are wrong: no separator, weights that stay finite."""
    header = ("method", "loss", "|θ|, a tenth of the way", "|θ|", "turn since", "wrong side")
    cells = tuple(
        (
            Cell(row["label"]),
            _number(row["loss"]),
            _number(row["early_norm"]),
            _number(row["norm"]),
            _number(row["turn"]),
            Cell(str(row["wrong"])),
        )
        for row in found["rows"]
    )
    if not cells:
        return (Text("Shown with GD, normalised GD and clipped-SGD: none was asked for."),)
    said = (
        f"{found['turned']} of the {found['examples']} labels of “32 points” are turned. A convex "
        "loss has a minimiser then, and weights stay there. The generalised loss is bounded: "
        "wrong examples may be given up."
    )
    return (Text(said), Table("Some labels turned", header, cells, f"After {steps:,} steps."))


def digits(found: Row) -> tuple[Text | Table, ...]:
    """Return a table per pair of digits, or why there is none."""
    if found["missing"]:
        return (Text(f"Left out. {found['missing']}"),)
    parts: list[Text | Table] = []
    for pair in found["pairs"]:
        if pair["rows"]:
            parts.append(table(pair))
        else:
            parts.append(Text(f"{pair['label']}: {pair['inseparable']}"))
    return tuple(parts) or (Text("No pairs were asked for."),)


def wrong_labels(found: Row, config: Row) -> tuple[Text | Table, ...]:
    """Return a table of accuracies per file, and why files are left out."""
    parts: list[Text | Table] = [
        Text(f"{name} is left out: {why}.") for name, why in found["missing"].items()
    ]
    if found["files"]:
        parts.append(Text(_changes(found["files"], config)))
    names = ("BioGD's direction", "exact gradient")
    for name, one in found["files"].items():
        columns = [
            (label, i, j)
            for i, label in enumerate(names)
            for j, c in enumerate(config["asymptotes"])
            if c or not i  # without asymptotes both are logistic regression
        ]
        header = (
            "labels turned",
            *(_column(label, config["asymptotes"][j]) for label, _, j in columns),
        )
        mean, spread = 100 * np.array(one["mean"]), 100 * np.array(one["std"])
        rows = []
        for k, share in enumerate(config["flips"]):
            best = max(mean[i, j, k] for _, i, j in columns)
            cells = [
                Cell(
                    f"{mean[i, j, k]:.1f} ± {spread[i, j, k]:.1f}",
                    best=bool(mean[i, j, k] == best),
                    value=float(mean[i, j, k]),
                    spread=float(spread[i, j, k]),
                )
                for _, i, j in columns
            ]
            rows.append((Cell(f"{share:.0%}"), *cells))
        caption = (
            f"Accuracy (%) on the held-out fifth with right labels, mean ± standard deviation of "
            f"{config['repeats']} splits of {one['examples']} examples; c = c_g = c_f."
        )
        parts.append(Table(name, header, tuple(rows), caption))
    return tuple(parts) or (Text("No files were asked for."),)


def _changes(files: Mapping[str, Row], config: Row) -> str:
    """Return in words what asymptotes change, where labels are turned and there are asymptotes."""
    turned = [k for k, share in enumerate(config["flips"]) if share]
    with_c = [j for j, c in enumerate(config["asymptotes"]) if c]
    if 0 not in config["asymptotes"] or not turned or not with_c:
        return "Without asymptotes of 0 and others, and turned labels, there is no comparison."
    plain = list(config["asymptotes"]).index(0)
    changes = []
    for one in files.values():
        mean = 100 * np.array(one["mean"])[:, :, turned]
        changes.append(mean[:, with_c] - mean[:, [plain]])
    low, high = min(map(np.min, changes)), max(map(np.max, changes))
    said = f"Where labels are turned, asymptotes change the accuracy by {low:+.1f} to {high:+.1f} "
    return said.replace("-", "−") + "points: means, over files, directions and values of c."


def overview(found: Mapping[str, Row]) -> Drawing:
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
    return style.drawing(figure)


def directions(found: Mapping[str, Row]) -> Drawing:
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
    return style.drawing(figure)


def planes(found: Mapping[str, Row]) -> Drawing:
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
    times = [first["steps"][i] for i in _shown_steps(first["steps"], first=0)]
    handles = [Line2D([], [], color=color) for color in _shades(len(times))]
    handles.append(Line2D([], [], **SEPARATOR))
    handles.append(Line2D([], [], **SUPPORT))
    names = [*(f"t = {t:,}" for t in times), "largest margin", "support vectors"]
    columns = -(-len(names) // 2)
    figure.legend(handles, names, loc="outside upper center", ncols=columns)
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + style.LINE * 2)
    return style.drawing(figure)


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
    shown = _shown_steps(one["steps"], first=0)
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


def _shown_steps(steps: Sequence[int], first: int = 1) -> list[int]:
    """Return where powers of ten from 10^`first` are among the steps, and the last one.

    Examples:
        >>> _shown_steps([1, 3, 10, 30, 100, 200])
        [2, 4, 5]
    """
    powers = {10**i for i in range(first, 12)}
    last = len(steps) - 1
    return [i for i, t in enumerate(steps) if t in powers or i == last]


def _tenth(steps: Sequence[int]) -> int:
    """Return where the steps are nearest to a tenth of the last."""
    return int(np.argmin(np.abs(np.array(steps) - steps[-1] / 10)))


def _products(row: Row, steps: Sequence[int]) -> str:
    products = np.array(row["error"], float) * np.array(row["growth"], float)
    if not np.isfinite(products[-1]):
        return "–"
    early = products[_tenth(steps)]
    return f"{_text(early)} → {_text(products[-1])}" if np.isfinite(early) else _text(products[-1])


def _text(value: float) -> str:
    """Return a number to three digits.

    Examples:
        >>> _text(0.069728), _text(1.234e-5), _text(234.58), _text(float("nan"))
        ('0.0697', '1.23e-05', '235', '–')
    """
    return f"{value:#.3g}".rstrip(".") if np.isfinite(value) else "–"


def _number(value: float) -> Cell:
    return Cell(_text(value), value=float(value))


def _column(label: str, c: float) -> str:
    return f"{label}, c = {c:g}" if c else "logistic regression"


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
