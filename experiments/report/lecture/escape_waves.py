"""The waves: the ways of gradient descent and SGD, and how often SGD leaves."""

from collections.abc import Mapping, Sequence

import numpy as np

from experiments.report import style
from experiments.report.lecture.looks import COLORS, GD, GREY, MARKERS, SGD, Way, draw_ways
from experiments.report.page import Part, Picture

CAPTION = (
    "Left: gradient descent stays in the first minimum that it meets, SGD goes on (one run). "
    "Right: how often SGD has left that minimum; dots with 95 % Wilson intervals are measured, "
    "lines are computed without a draw. With the largest noise some runs are still on the plateau "
    "to the right."
)


def parts(
    values: Way,
    ways: Mapping[str, Way],
    *,
    rates: Sequence[float],
    batches: Sequence[int],
    steps: int,
    shares: np.ndarray,
    expected: np.ndarray,
) -> tuple[Part, ...]:
    """Return the figure.

    Args:
        values: of f.
        ways: of `gd` and `sgd`.
        rates: steps of SGD.
        batches: of SGD.
        steps: after which the shares are taken.
        shares: (3, rates, batches), shares that have left and the ends of their intervals.
        expected: (rates, batches), their probabilities.
    """
    figure, axes = style.panels(1, 2, height=3.4)
    left, right = axes[0]
    left.plot(*values, color=GREY)
    draw_ways(left, {"SGD": (ways["sgd"], SGD, "o"), "gradient descent": (ways["gd"], GD, "s")})
    left.set(title="waves", xlabel="x", ylabel="f", xlim=(-1.5, 4))
    left.legend(loc="lower right")
    for i, rate in enumerate(rates):
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        right.plot(batches, expected[i], color=color, linewidth=1.1)
        share, low, high = shares[:, i]
        right.errorbar(
            batches,
            share,
            [share - low, high - share],
            color=color,
            linestyle="",
            marker=marker,
            capsize=2.5,
            label=f"step {rate:g}",
        )
    right.set(
        title=f"share that has left within {steps} steps",
        xlabel="batch",
        xscale="log",
        xticks=list(batches),
        ylim=(-0.03, 1.03),
    )
    right.minorticks_off()
    right.xaxis.set_major_formatter(style.decimal)
    right.legend(loc="lower left")
    return (Picture("escape_waves", style.drawing(figure), CAPTION),)
