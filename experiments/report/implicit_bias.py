"""The page about implicit bias and its tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.report import implicit_bias_figures as figures
from experiments.report.page import Bullets, Cell, Page, Section, Table, Text

Row = Mapping[str, Any]
LEAD = (
    "On a separable set the weights of gradient descent grow without end, and their direction "
    "turns to that of the hard-margin separator ŵ. Here is how fast: the direction error is "
    "|θ/|θ| − ŵ/|ŵ||, the margin gap 1 − (least margin of θ)/(that of ŵ), and “error × g” should "
    "be constant where the error is O(1/g)."
)
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
                figures.overview(found),
                *(table(one) for one in found.values()),
                figures.directions(found),
                figures.planes(found),
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


def table(one: Row) -> Table:
    """Return the table of a set: errors at powers of ten, the margin gap, error × g."""
    steps = one["steps"]
    shown = figures.shown_steps(steps)
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
        values = [*config["asymptotes"], None]  # the last: chosen
        columns = [
            (label, i, j)
            for i, label in enumerate(names)
            for j, c in enumerate(values)
            if c != 0 or not i  # without asymptotes both are logistic regression
        ]
        header = (
            "labels turned",
            *(_column(label, values[j]) for label, _, j in columns),
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
            f"{config['repeats']} splits of {one['examples']} examples; c = c_g = c_f. Chosen: "
            "c_g and c_f of those values that predict best a fifth of the training examples, whose "
            "labels are turned like the others."
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
        changes.append(mean[:, [*with_c, -1]] - mean[:, [plain]])
    given, chosen = (
        f"{min(part.min() for part in parts):+.1f} to {max(part.max() for part in parts):+.1f}"
        for parts in ([one[:, :-1] for one in changes], [one[:, -1:] for one in changes])
    )
    said = (
        f"Where labels are turned, given asymptotes change the accuracy by {given} points, chosen "
        f"ones by {chosen}"
    )
    return said.replace("-", "−") + ": means, over files, directions, shares and values of c."


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


def _column(label: str, c: float | None) -> str:
    if c is None:
        return f"{label}, chosen"
    return f"{label}, c = {c:g}" if c else "logistic regression"
