"""The two wells: particles over time, the density in the end, and rates of leaving over depth."""

from collections.abc import Mapping

import numpy as np

from experiments.report import style
from experiments.report.lecture.looks import COLORS
from experiments.report.page import Part, Picture

CAPTION = (
    "Particles from everywhere: gradient flow, the stochastic differential equation, and where the "
    "latter is after a long time from the right well alone, beside exp(−2f/σ²). Last: how fast the "
    "right well is left; dots with 95 % intervals are measured, the line is Kramers's rate."
)


def parts(
    found: Mapping[str, np.ndarray],
    *,
    flow_step: float,
    time: float,
    density: tuple[np.ndarray, np.ndarray],
    depths: np.ndarray,
    kramers: np.ndarray,
    shares: np.ndarray,
) -> tuple[Part, ...]:
    """Return the figure.

    Args:
        found: the result of `experiments.lecture.escape_wells.compute`.
        flow_step: time of a step.
        time: of the long run.
        density: points and the density in the end.
        depths: of the right well, by noise, in units of σ²/2.
        kramers: rates of leaving, likewise.
        shares: (3, noises), shares that have left and the ends of their intervals.
    """
    figure, axes = style.panels(2, 2, height=2.7)
    flow, noisy, end, rates = axes.flat
    times = flow_step * np.arange(len(found["flow_paths"]))
    for axis, name, title, width in (
        (flow, "flow_paths", "gradient flow", 0.9),
        (noisy, "sde_paths", "with noise", 0.4),
    ):
        for path in found[name].T:
            color = COLORS[1] if path[0] < 0 else COLORS[4]
            axis.plot(times, path, color=color, linewidth=width, alpha=0.8)
        axis.set(title=title, xlabel="time", ylabel="x", ylim=(-2.1, 2.1))
    end.hist(found["long_last"], bins=60, density=True, color=COLORS[2], alpha=0.5)
    end.plot(*density, color="black", linewidth=1.2, label="exp(−2f/σ²)")
    end.set(title=f"after time {time:g}, from the right well", xlabel="x", xlim=(-2.1, 2.1))
    end.legend(loc="upper right")
    depth = np.linspace(depths.min() * 0.9, depths.max() * 1.05, 100)
    scale = kramers[0] * np.exp(depths[0])
    rates.plot(depth, scale * np.exp(-depth), color="black", linewidth=1.2, label="Kramers")
    with np.errstate(divide="ignore"):
        rate, low, high = -np.log1p(-shares) / time
    seen = np.isfinite(high) & (rate > 0)
    rates.errorbar(
        depths[seen],
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
    return (Picture("escape_wells", style.drawing(figure), CAPTION),)
