"""The narrow hollow and the wide one: ways, stability, and who leaves with heavy-tailed noise."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.report import style
from experiments.report.lecture.looks import COLORS, GD, GREY, MARKERS, SGD, Way, draw_ways
from experiments.report.page import Cell, Drawing, Part, Picture, Table

HOLLOWS = (
    "Left: gradient descent from 2 with a small step and with a large one; dashed, the loss "
    "shifted by 1. Right: how far from its minimum gradient descent is after 2,000 steps that "
    "began 0.001 beside it; the lowest marks are 1e-9 or less. Above 2/f'' (dashed) it does not "
    "converge; it leaves the hollow only above the dotted line."
)
TAILS = (
    "How often SGD with step 1 leaves the narrow and the wide hollow, with noises of one median "
    "size and with clipping; bars are 95 % Wilson intervals."
)


def parts(
    *,
    x: np.ndarray,
    values: np.ndarray,
    shifted: np.ndarray,
    ways: Mapping[str, Way],
    multiples: Sequence[float],
    ends: np.ndarray,
    ways_out: Sequence[float],
    laws: Sequence[str],
    clips: Sequence[str],
    shares: np.ndarray,
) -> tuple[Part, ...]:
    """Return the two figures and the table of leaving with heavy-tailed noise.

    Args:
        x: points.
        values: f there.
        shifted: f(x - 1) there.
        ways: of gradient descent with the large and with the small step, by what they are called.
        multiples: steps in units of 2/f''.
        ends: (2, multiples), distances to the narrow and the wide minimum in the end.
        ways_out: how far the top is from the two minima.
        laws: names of the noises.
        clips: what the clippings are called.
        shares: (3, 2, laws, clips), shares that have left and the ends of their intervals.
    """
    return (
        Picture(
            "escape_hollows",
            hollows(x, values, shifted, ways, multiples, ends, ways_out),
            HOLLOWS,
        ),
        Picture("escape_tails", tails(laws, clips, shares, ways_out), TAILS),
        table(laws, clips, shares),
    )


def hollows(
    x: np.ndarray,
    values: np.ndarray,
    shifted: np.ndarray,
    ways: Mapping[str, Way],
    multiples: Sequence[float],
    ends: np.ndarray,
    ways_out: Sequence[float],
) -> Drawing:
    """Return the ways in the hollows, and where gradient descent converges."""
    figure, axes = style.panels(1, 2, height=3.4)
    left, sweep = axes[0]
    left.plot(x, values, color=GREY)
    left.plot(x, shifted, color=GREY, linestyle=style.DASHED, lw=1)
    (large, long_way), (small, short_way) = ways.items()
    left.plot(*long_way, color=SGD, lw=0.4, alpha=0.6)
    draw_ways(left, {large: (long_way, SGD, "o"), small: (short_way, GD, "s")})
    left.set(title="a narrow and a wide hollow", xlabel="x", ylabel="f")
    left.legend(loc="lower right")
    for i, (name, color) in enumerate((("narrow", COLORS[4]), ("wide", COLORS[1]))):
        marker = MARKERS[i]
        sweep.plot(
            multiples, np.maximum(ends[i], 1e-9), color=color, marker=marker, lw=0.8, label=name
        )
        sweep.axhline(ways_out[i], color=color, linestyle=style.DOTTED, linewidth=1.2)
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


def tails(
    laws: Sequence[str], clips: Sequence[str], shares: np.ndarray, ways_out: Sequence[float]
) -> Drawing:
    """Return the shares that have left, by law and clipping, a panel for each hollow."""
    figure, axes = style.panels(1, 2, height=3.2, sharey=True)
    places = np.arange(len(laws))
    for i, (axis, name) in enumerate(zip(axes[0], ("narrow", "wide"), strict=True)):
        for j, (clip, color) in enumerate(zip(clips, (SGD, COLORS[3], COLORS[1]), strict=True)):
            share, low, high = shares[:, i, :, j]
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
                axis.text(x, value + 0.03, f"{value:.2g}", ha="center", fontsize=7)
        axis.set(title=f"{name} hollow, way out {ways_out[i]:.1f}", xticks=places, ylim=(0, 1.12))
        axis.set_xticklabels(laws)
        axis.grid(visible=False, axis="x")
    axes[0, 0].set_ylabel("share that has left")
    axes[0, 1].legend(loc="upper left")
    return style.drawing(figure)


def table(laws: Sequence[str], clips: Sequence[str], shares: np.ndarray) -> Table:
    """Return the shares that have left, with their intervals."""
    rows = tuple(
        (
            Cell(f"{hollow}, {law}"),
            *(
                Cell(f"{share:.4f}", note=f"{low:.4f} to {high:.4f}", value=float(share))
                for share, low, high in shares[:, i, k].T
            ),
        )
        for i, hollow in enumerate(("narrow", "wide"))
        for k, law in enumerate(laws)
    )
    header = ("hollow, noise", *(f"clipping: {clip}" for clip in clips))
    caption = "Below each share its 95 % Wilson interval."
    return Table("Leaving a minimum: heavy-tailed noise and clipping", header, rows, caption)
