"""Leaving a minimum: the lecture's functions with what moves on them, and how often it leaves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from experiments.report import style
from experiments.report.page import Cell, Drawing, Part, Picture, Table

GREY = "#8A8A8A"
COLORS = ("#332288", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#882255")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GD, SGD = "#000000", "#D55E00"

WAVES = (
    "Left: gradient descent stays in the first minimum that it meets, SGD goes on (one run). "
    "Right: how often SGD has left that minimum; dots with 95 % Wilson intervals are measured, "
    "lines are computed without a draw. With the largest noise some runs are still on the plateau "
    "to the right."
)
HOLLOWS = (
    "Left: gradient descent from 2 with a small step and with a large one; dashed, the loss "
    "shifted by 1. Right: how far from its minimum gradient descent is after 2,000 steps that "
    "began 0.001 beside it; the lowest marks are 1e-9 or less. Above 2/f'' (dashed) it does not "
    "converge; it leaves the hollow only above the dotted line."
)
WELLS = (
    "Particles from everywhere: gradient flow, the stochastic differential equation, and where the "
    "latter is after a long time from the right well alone, beside exp(−2f/σ²). Last: how fast the "
    "right well is left; dots with 95 % intervals are measured, the line is Kramers's rate."
)
TAILS = (
    "How often SGD with step 1 leaves the narrow and the wide hollow, with noises of one median "
    "size and with clipping; bars are 95 % Wilson intervals."
)


@dataclass(frozen=True)
class Given:
    """What the figures show beside the result of `experiments.lecture.escape.compute`.

    Triples hold a share and the ends of its interval along the first axis.
    """

    curves: Mapping[str, tuple[np.ndarray, np.ndarray]]
    """Points and values of the three functions."""
    heights: Mapping[str, np.ndarray]
    """f along the ways."""
    shifted: np.ndarray
    """The hollows, shifted."""
    hollow_rates: tuple[float, float]
    """The small step and the large one."""
    rates: Sequence[float]
    batches: Sequence[int]
    steps: int
    waves_left: np.ndarray
    """(3, rates, batches)."""
    multiples: np.ndarray
    density: tuple[np.ndarray, np.ndarray]
    depths: np.ndarray
    kramers: np.ndarray
    kramers_left: np.ndarray
    """(3, noises)."""
    time: float
    flow_step: float
    laws: Sequence[str]
    clips: Sequence[str]
    ways: tuple[float, float]
    tail_left: np.ndarray
    """(3, 2, laws, clips)."""


def parts(given: Given, found: Mapping[str, np.ndarray]) -> tuple[Part, ...]:
    """Return the four figures and the table of leaving with heavy-tailed noise."""
    return (
        Picture("escape_waves", waves(given, found), WAVES),
        Picture("escape_hollows", hollows(given, found), HOLLOWS),
        Picture("escape_wells", wells(given, found), WELLS),
        Picture("escape_tails", tails(given), TAILS),
        table(given),
    )


def waves(given: Given, found: Mapping[str, np.ndarray]) -> Drawing:
    """Return the ways on the waves, and the chance of leaving over batch and step."""
    figure, axes = style.panels(1, 2, height=3.4)
    ways, chances = axes[0]
    ways.plot(*given.curves["waves"], color=GREY)
    _way(ways, found["waves_sgd"], given.heights["waves_sgd"], SGD, "SGD", "o")
    _way(ways, found["waves_gd"], given.heights["waves_gd"], GD, "gradient descent", "s")
    ways.set(title="waves", xlabel="x", ylabel="f", xlim=(-1.5, 4))
    ways.legend(loc="lower right")
    for i, rate in enumerate(given.rates):
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        chances.plot(given.batches, found["waves_expected"][i], color=color, linewidth=1.1)
        share, low, high = given.waves_left[:, i]
        chances.errorbar(
            given.batches,
            share,
            [share - low, high - share],
            color=color,
            linestyle="",
            marker=marker,
            capsize=2.5,
            label=f"step {rate:g}",
        )
    chances.set(
        title=f"share that has left within {given.steps} steps",
        xlabel="batch",
        xscale="log",
        xticks=list(given.batches),
        ylim=(-0.03, 1.03),
    )
    chances.minorticks_off()
    chances.xaxis.set_major_formatter(style.decimal)
    chances.legend(loc="lower left")
    return style.drawing(figure)


def hollows(given: Given, found: Mapping[str, np.ndarray]) -> Drawing:
    """Return the ways in the hollows, and where gradient descent converges."""
    figure, axes = style.panels(1, 2, height=3.4)
    ways, sweep = axes[0]
    ways.plot(*given.curves["hollows"], color=GREY)
    ways.plot(given.curves["hollows"][0], given.shifted, color=GREY, linestyle=style.DASHED, lw=1)
    small, large = (f"step {rate:g}" for rate in given.hollow_rates)
    ways.plot(found["large"], given.heights["hollows_large"], color=SGD, lw=0.4, alpha=0.6)
    _way(ways, found["large"], given.heights["hollows_large"], SGD, large, "o")
    _way(ways, found["small"], given.heights["hollows_small"], GD, small, "s")
    ways.set(title="a narrow and a wide hollow", xlabel="x", ylabel="f")
    ways.legend(loc="lower right")
    for i, (name, color) in enumerate((("narrow", COLORS[4]), ("wide", COLORS[1]))):
        ends = found["sweep_end"][i].max(-1)
        marker = MARKERS[i]
        sweep.plot(
            given.multiples, np.maximum(ends, 1e-9), color=color, marker=marker, lw=0.8, label=name
        )
        sweep.axhline(given.ways[i], color=color, linestyle=style.DOTTED, linewidth=1.2)
    sweep.axvline(1, color=GREY, linestyle=style.DASHED, linewidth=1.2)
    sweep.set(
        title="distance to the minimum in the end",
        xlabel="step, in units of 2/f''",
        xscale="log",
        yscale="log",
        xticks=(0.5, 1, 2, 5),
    )
    sweep.minorticks_off()
    sweep.xaxis.set_major_formatter(style.decimal)
    sweep.legend(loc="lower right")
    return style.drawing(figure)


def wells(given: Given, found: Mapping[str, np.ndarray]) -> Drawing:
    """Return particles over time, the density in the end, and rates over the depth."""
    figure, axes = style.panels(2, 2, height=2.7)
    flow, noisy, end, rates = axes.flat
    time = given.flow_step * np.arange(len(found["flow_paths"]))
    for axis, name, title, width in (
        (flow, "flow_paths", "gradient flow", 0.9),
        (noisy, "sde_paths", "with noise", 0.4),
    ):
        for path in found[name].T:
            color = COLORS[1] if path[0] < 0 else COLORS[4]
            axis.plot(time, path, color=color, linewidth=width, alpha=0.8)
        axis.set(title=title, xlabel="time", ylabel="x", ylim=(-2.1, 2.1))
    end.hist(found["long_last"], bins=60, density=True, color=COLORS[2], alpha=0.5)
    end.plot(*given.density, color="black", linewidth=1.2, label="exp(−2f/σ²)")
    end.set(title=f"after time {given.time:g}, from the right well", xlabel="x", xlim=(-2.1, 2.1))
    end.legend(loc="upper right")
    depth = np.linspace(given.depths.min() * 0.9, given.depths.max() * 1.05, 100)
    scale = given.kramers[0] * np.exp(given.depths[0])
    rates.plot(depth, scale * np.exp(-depth), color="black", linewidth=1.2, label="Kramers")
    with np.errstate(divide="ignore"):
        rate, low, high = -np.log1p(-given.kramers_left) / given.time
    seen = np.isfinite(high) & (rate > 0)
    rates.errorbar(
        given.depths[seen],
        rate[seen],
        [(rate - low)[seen], (high - rate)[seen]],
        color=COLORS[4],
        marker="o",
        linestyle="",
        capsize=2.5,
        label="measured",
    )
    rates.set(
        title="rate of leaving the right well", xlabel="its depth, in units of σ²/2", yscale="log"
    )
    rates.legend(loc="upper right")
    return style.drawing(figure)


def tails(given: Given) -> Drawing:
    """Return the shares that have left, by law and clipping, a panel for each hollow."""
    figure, axes = style.panels(1, 2, height=3.2, sharey=True)
    places = np.arange(len(given.laws))
    for i, (axis, name) in enumerate(zip(axes[0], ("narrow", "wide"), strict=True)):
        for j, (clip, color) in enumerate(
            zip(given.clips, (SGD, COLORS[3], COLORS[1]), strict=True)
        ):
            share, low, high = given.tail_left[:, i, :, j]
            axis.bar(
                places + 0.27 * (j - 1),
                share,
                0.25,
                yerr=[share - low, high - share],
                color=color,
                capsize=2.5,
                error_kw={"linewidth": 1},
                label=f"clipping: {clip}",
            )
            for x, value in zip(places + 0.27 * (j - 1), share, strict=True):
                axis.text(x, value + 0.03, f"{value:.2g}", ha="center", fontsize=8)
        axis.set(title=f"{name} hollow, way out {given.ways[i]:.1f}", xticks=places, ylim=(0, 1.12))
        axis.set_xticklabels(given.laws)
        axis.grid(visible=False, axis="x")
    axes[0, 0].set_ylabel("share that has left")
    axes[0, 1].legend(loc="upper left")
    return style.drawing(figure)


def table(given: Given) -> Table:
    """Return the shares that have left, with their intervals."""
    rows = tuple(
        (
            Cell(f"{hollow}, {law}"),
            *(
                Cell(f"{share:.4f}", note=f"{low:.4f} to {high:.4f}", value=float(share))
                for share, low, high in given.tail_left[:, i, k].T
            ),
        )
        for i, hollow in enumerate(("narrow", "wide"))
        for k, law in enumerate(given.laws)
    )
    header = ("hollow, noise", *(f"clipping: {clip}" for clip in given.clips))
    caption = "Below each share its 95 % Wilson interval."
    return Table("Leaving a minimum: heavy-tailed noise and clipping", header, rows, caption)


def _way(axis: Axes, x: np.ndarray, f: np.ndarray, color: str, label: str, marker: str) -> None:
    axis.plot(
        x, f, color=color, marker=marker, markersize=3.2, linestyle="", alpha=0.75, label=label
    )
