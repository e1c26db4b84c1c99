"""The page about the networks with the generalised logistic activation: tables, Figures 2 and 3."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.report import style
from experiments.report.page import (
    Bullets,
    Cell,
    Drawing,
    Page,
    Picture,
    Section,
    Table,
    Text,
)
from experiments.report.style import Look

LOOKS = {
    "default": Look("default (0, 1, 1)", "#000000", "-", "o"),
    "best": Look("best combination", "#D55E00", "-", "D"),
    "tuned": Look("default, learning rate tuned", "#0072B2", style.DASHED, "s"),
    "step": Look("default, learning rate ηr²", "#009E73", style.DASH_DOT, "^"),
    "rate": Look("(0, 1, r)", "#CC79A7", style.DOTTED, "v"),
    "schedule": Look("(0, 1, r_j) that follows √j", "#E69F00", style.LONG, "P"),
}
FIGURES = {"mnist": "Figure 2", "fashion_mnist": "Figure 3"}
READINGS = {"epochs": "An iteration is an epoch", "steps": "An iteration is a step of SGD"}
PANELS = {
    "train_loss": "training loss",
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy (%)",
}
SHOWN = 5
"""Candidates of each kind that the page lists."""

MEANING = (
    "The network with rate r and weights θ is the network with rate 1 and weights rθ. SGD with "
    "learning rate η on the one is SGD with ηr² on the other, from initial weights r times as "
    "large. So “(0, 1, r)” and “default, learning rate ηr²” differ in their start and in nothing "
    "else.",
    "A rate r_j that is chosen anew at each iteration so that g_j(c, r_j) = √j is r_j = (ln j + "
    "W_0(c/j))/√j. In weights φ = r_j θ it is a learning rate ηr_j², which falls like (ln j)²/j, "
    "and a factor r_{j+1}/r_j on the weights: a schedule of learning rate and weight decay.",
    "For a > 0 the loss of an example cannot leave [ln(S/b), ln(S/a)], S = 10a + b − a. Its growth "
    "and its smallest value are bounded by that, whatever the network has learned.",
    "The combination is chosen on the validation folds (of another seed) on which it is shown, as "
    "in the source; no choice has seen the test set.",
    "Not stated in the source, and chosen here: the learning rate, the initial weights (Glorot's, "
    "Keras's default), what an iteration is, and from where the growth of the loss is counted. "
    "Losses are of the whole sets after the iteration, outputs divided by their sum (which Keras "
    "does, too).",
)

Summary = Mapping[str, Any]


def make_page(summary: Summary) -> Page:
    """Return the page.

    Args:
        summary: of `experiments.growth_networks.run`.
    """
    config = summary["config"]
    lead = (
        f"{summary['dataset']}: {summary['train']:,} training, {summary['validation']:,} "
        f"validation, {summary['test']:,} test examples; batches of {summary['batch_size']}, "
        f"learning rate {config['learning_rate']:g}. Mean ± standard deviation over "
        f"{config['folds']} folds of {_plural(len(config['seeds']), 'seed')}. The source is "
        "Kulikovskikh (2020), https://doi.org/10.18287/2412-6179-CO-645."
    )
    if differs := _differences(config):
        lead += f" Not the source's experiment: {'; '.join(differs)}."
    sections = [_section(reading, found, summary) for reading, found in summary["results"].items()]
    sections.append(Section("What it means", (Bullets(MEANING),)))
    return Page("Networks with the generalised logistic activation", lead, tuple(sections))


PUBLISHED_FORM = {
    "dataset": ("mnist", "fashion_mnist"),
    "examples": (0,),
    "folds": (5,),
    "hidden": ([10, 10],),
    "batch": (25,),
    "iterations": (1000,),
    "share": (0.15,),
    "search_iterations": (1,),
}
"""What the source states, by the field of the config."""


def _differences(config: Summary) -> list[str]:
    """Return in words where a config is not what the source states.

    Examples:
        >>> _differences({"examples": 2000, "iterations": 1000, "hidden": [10, 10]})
        ['examples is 2000 (0, all)']
    """
    known = {"examples": "0, all"}
    return [
        f"{field} is {config[field]} ({known.get(field) or ' or '.join(map(str, stated))})"
        for field, stated in PUBLISHED_FORM.items()
        if field in config and config[field] not in stated
    ]


def _section(reading: str, found: Summary, summary: Summary) -> Section:
    steps = "" if reading == "epochs" else ", of one batch each"
    number = FIGURES.get(summary["dataset"], "Figure")
    caption = (
        f"{number}, {READINGS[reading].lower()}{steps}: mean over folds and seeds; bands: standard "
        "deviation."
    )
    picture = Picture(f"growth_networks_{reading}", figure(found), caption)
    parts = (
        Text(judgement(found)),
        gains(reading, found, summary["published"]),
        scores(reading, found),
        growth(reading, found, summary["published"]),
        picture,
        search(reading, found),
    )
    return Section(READINGS[reading], parts)


def judgement(found: Summary) -> str:
    """Return in words how much of the gain the step size explains.

    Examples:
        >>> best, tuned = {"mean": 2.0, "std": 0.1}, {"mean": 3.0, "std": 0.1}
        >>> judgement({"gains": {"best": {"1": best}, "tuned": {"1": tuned}}})
        'After 1 iteration ... gains 2.00 ± 0.10 points ...; ... tuned ... (150 % of that).'
    """
    said = []
    for mark, best in found["gains"]["best"].items():
        words = f"After {_plural(int(mark), 'iteration')} the best combination gains "
        words += f"{_pm(best)} points on the default"
        for name, what in (
            ("tuned", "the default with its learning rate tuned by as many draws"),
            ("step", "the default with the step size ηr² of that combination"),
            ("rate", "its r alone, (0, 1, r),"),
        ):
            if name in found["gains"]:
                other = found["gains"][name][mark]
                words += f"; {what} {_pm(other)}{_share(other, best)}"
        said.append(words + ".")
    return " ".join(said)


def _share(other: Summary, best: Summary) -> str:
    """Return a gain in per cent of another; nothing where that is within its spread."""
    if not _finite(best["mean"], best["std"], other["mean"]) or best["mean"] <= best["std"]:
        return ""
    return f" ({100 * other['mean'] / best['mean']:.0f} % of that)"


def gains(reading: str, found: Summary, published: Summary) -> Table:
    """Return the table of gains in accuracy over the default."""
    marks = list(found["gains"]["best"])
    header = (
        "networks",
        "a, b, r, η",
        *(f"validation, {mark}" for mark in marks),
        *(f"test, {mark}" for mark in marks),
    )
    rows = []
    for name in (name for name in found["arms"] if name != "default"):
        cells = [
            _number(found[kind][name][mark], 2)
            for kind in ("gains", "test_gains")
            for mark in marks
        ]
        rows.append((Cell(LOOKS[name].label), Cell(setting(found["arms"][name])), *cells))
    if published:
        said = {str(mark): gain for mark, gain in published["gains"].items()}
        cells = [
            Cell(f"{said[m]:.2f}", value=said[m]) if m in said else Cell("–") for m in marks
        ] + [Cell("–") for _ in marks]
        rows.append((Cell("published, best combination"), Cell("–"), *cells))
    caption = "Differences are paired: networks of a fold and seed share weights and batches."
    title = f"Gain in accuracy on the default, in points, after so many {reading}"
    return Table(title, header, tuple(rows), caption)


def scores(reading: str, found: Summary) -> Table:
    """Return the table of accuracies."""
    times = found["times"]
    marks = {mark: times.index(int(mark)) for mark in found["gains"]["best"]}
    header = ("networks", *(f"validation, {mark}" for mark in marks), f"test, {times[-1]}")
    rows = []
    for name, curves in found["curves"].items():
        cells = [_number(_at(curves["validation_accuracy"], place), 2) for place in marks.values()]
        cells.append(_number(_at(curves["test_accuracy"], -1), 2))
        lost = found["diverged"][name]
        note = f"{lost} diverged" if lost else ""
        rows.append((Cell(LOOKS[name].label, note), *cells))
    return Table(f"Accuracy (%) after so many {reading}", header, tuple(rows))


def growth(reading: str, found: Summary, published: Summary) -> Table:
    """Return the table of the validation loss's growth."""
    last = found["times"][-1]
    header = (
        "networks",
        "possible loss",
        "first",
        f"after {last}",
        "change",
        "rise from its least",
        "default's rise / this",
    )
    base = found["growth"]["default"]["rise"]["mean"]
    rows = []
    for name, arm in found["arms"].items():
        loss, grown = found["curves"][name]["validation_loss"], found["growth"][name]
        ratio = _ratio(base, grown["rise"]["mean"])
        cells = (
            Cell(_range(arm["loss_range"])),
            _number(_at(loss, 0), 4),
            _number(_at(loss, -1), 4),
            _number(grown["change"], 4),
            _number(grown["rise"], 4),
            Cell("–" if ratio is None else f"{ratio:.3g}", value=ratio),
        )
        rows.append((Cell(LOOKS[name].label), *cells))
    caption = (
        "The least of the recorded iterations. The ratio is one of means; “–” where a loss does "
        "not rise."
    )
    if published:
        caption += f" Published for the best combination: {published['growth']}."
    return Table(f"Validation loss over the {reading}", header, tuple(rows), caption)


def search(reading: str, found: Summary) -> Table:
    """Return the table of the best candidates of each kind."""
    rows = []
    for kind in ("combination", "learning rate"):
        entries = [entry for entry in found["search"] if entry["name"] == kind]
        for place, entry in enumerate(entries[:SHOWN], 1):
            score, loss = 100 * entry["accuracy"], entry["loss"]
            rows.append(
                (
                    Cell(f"{kind} {place} of {len(entries)}"),
                    Cell(setting(entry)),
                    Cell(f"{score:.2f}", value=score),
                    Cell(f"{loss:.4f}" if _finite(loss) else "not finite", value=loss),
                )
            )
    header = ("candidate", "a, b, r, η", "validation accuracy (%)", "validation loss")
    return Table(f"What the search found, by {reading}", header, tuple(rows))


def setting(arm: Summary) -> str:
    """Return a, b, r and η of a network.

    Examples:
        >>> arm = {"lower": 0.0, "upper": 1.0, "rate": 2.8, "learning_rate": 0.01}
        >>> setting(arm | {"follow": None})
        '0, 1, 2.8, 0.01'
    """
    rate = f"{arm['rate']:.4g}" if arm["follow"] is None else f"r_j of c = {arm['follow']:g}"
    return f"{arm['lower']:.4g}, {arm['upper']:.4g}, {rate}, {arm['learning_rate']:.4g}"


def figure(found: Summary) -> Drawing:
    """Draw training loss, validation loss and validation accuracy over the iterations."""
    drawn, axes = style.panels(1, len(PANELS), height=3.4)
    times = np.array(found["times"], float)
    for panel, (key, title) in zip(axes[0], PANELS.items(), strict=True):
        for name, curves in found["curves"].items():
            mean, spread = (_floats(curves[key][part]) for part in ("mean", "std"))
            look = LOOKS[name]
            alone = look.marker if len(times) == 1 else ""
            panel.plot(times, mean, color=look.color, linestyle=look.line, marker=alone)
            panel.fill_between(
                times, mean - spread, mean + spread, color=look.color, alpha=0.15, linewidth=0
            )
        if len(times) > 1:
            panel.set(xscale="log", xlim=(times[0], times[-1]))
            panel.xaxis.set_major_formatter(style.decimal)
            if times[-1] < 100 * times[0]:  # the powers of ten alone are too few labels
                panel.xaxis.set_minor_formatter(style.decimal_2_5)
            else:
                panel.xaxis.minorticks_off()
        panel.set(title=title, xlabel="iteration")
    style.legend(drawn, [LOOKS[name] for name in found["curves"]], markers=False)
    return style.drawing(drawn)


def _floats(values: Any) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], float)


def _at(curve: Summary, place: int) -> dict[str, Any]:
    return {part: curve[part][place] for part in ("mean", "std")}


def _number(spread: Summary, digits: int) -> Cell:
    if not _finite(spread["mean"], spread["std"]):
        return Cell("not finite")
    return Cell(_pm(spread, digits), value=spread["mean"], spread=spread["std"])


def _pm(spread: Summary, digits: int = 2) -> str:
    if not _finite(spread["mean"], spread["std"]):
        return "a number that is not finite"
    return f"{spread['mean']:.{digits}f} ± {spread['std']:.{digits}f}".replace("-", "−")


def _ratio(base: float | None, own: float | None) -> float | None:
    return base / own if base and own and _finite(base, own) else None


def _range(ends: Any) -> str:
    low, high = ends
    return f"{low:.3f} to {'∞' if not _finite(high) else f'{high:.3f}'}"


def _finite(*values: float | None) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


def _plural(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
