"""Initialisation: mean squares by layer, losses of training by start and method."""

from collections.abc import Mapping

import numpy as np

from experiments.report import style
from experiments.report.page import Drawing, Part, Picture
from experiments.report.style import DASHED, DOTTED

STARTS = (("He", "#0072B2", "-"), ("Xavier", "#D55E00", DASHED), ("all equal", "#333333", DOTTED))
"""In the order of the arrays."""
METHODS = {"momentum": "SGD with momentum", "adam": "Adam"}

SQUARES = (
    "Mean square by layer: of values before the ReLU on the way forward, of gradients on the way "
    "back. Lines: mean over draws of the weights; bands: 5 to 95 % of them; dots: theory."
)
LOSSES = (
    "Loss of the batches while networks train, mean over the seeds and over {} steps; thin: each "
    "seed. Grey: ln 10, no class told from another."
)


def parts(shallow: int, deep: int, found: Mapping[str, np.ndarray]) -> tuple[Part, ...]:
    """Return the two figures.

    Args:
        shallow: layers of the one network.
        deep: of the other.
        found: the result of `experiments.lecture.initialisation.compute`.
    """
    over = _width(found["loss_adam_deep"].shape[-1])
    return (
        Picture("initialisation_squares", squares(found), SQUARES),
        Picture("initialisation_losses", losses(shallow, deep, found), LOSSES.format(over)),
    )


def squares(found: Mapping[str, np.ndarray]) -> Drawing:
    """Return the figure of the mean squares."""
    figure, axes = style.panels(1, 2, height=3.2, sharey=True)
    for axis, way, title in zip(
        axes[0], ("forward", "backward"), ("values, forward", "gradients, backward"), strict=True
    ):
        for (label, color, line), name, factor in zip(
            STARTS[:2], ("he", "xavier"), (1, 0.5), strict=True
        ):
            values = found[f"{way}_{name}"]
            layers = np.arange(1, values.shape[1] + 1)
            low, high = np.quantile(values, [0.05, 0.95], axis=0)
            axis.fill_between(layers, low, high, color=color, alpha=0.15, linewidth=0)
            axis.plot(layers, values.mean(0), color=color, linestyle=line, label=label)
            powers = layers - 1 if way == "forward" else layers[::-1]
            theory = (2 * factor if way == "forward" else 1) * float(factor) ** powers
            axis.plot(layers[::3], theory[::3], "o", color=color, markersize=3.5)
        axis.set(yscale="log", xlabel="layer", title=title)
    axes[0, 0].set_ylabel("mean square")
    axes[0, 0].legend(loc="lower left")
    return style.drawing(figure)


def losses(shallow: int, deep: int, found: Mapping[str, np.ndarray]) -> Drawing:
    """Return the figure of training: a row for each depth, a column for each method."""
    figure, axes = style.panels(2, 2, height=2.7, sharex=True, sharey=True)
    for row, depth, layers in zip(axes, ("shallow", "deep"), (shallow, deep), strict=True):
        for axis, (method, called) in zip(row, METHODS.items(), strict=True):
            values = (*found[f"loss_{method}_{depth}"], found[f"equal_loss_{method}_{depth}"][None])
            axis.axhline(np.log(10), color="#aaaaaa", linewidth=1)
            for (label, color, line), runs in zip(STARTS, values, strict=True):
                smooth = np.array([_smooth(run) for run in runs])
                steps = np.arange(smooth.shape[1]) + _width(runs.shape[1])
                for one in smooth:
                    axis.plot(steps, one, color=color, linewidth=0.6, alpha=0.5)
                axis.plot(steps, smooth.mean(0), color=color, linestyle=line, label=label)
            axis.set(title=f"{layers} layers, {called}", ylim=(0, 2.8))
        row[0].set_ylabel("loss")
    for axis in axes[-1]:
        axis.set_xlabel("steps")
    axes[0, 0].legend(loc="lower left")
    return style.drawing(figure)


def _width(steps: int) -> int:
    """Return over how many steps a loss is averaged."""
    return max(1, steps // 25)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Return the running mean of a loss."""
    width = _width(len(values))
    return np.convolve(values, np.full(width, 1 / width), mode="valid")
