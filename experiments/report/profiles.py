"""Performance profiles drawn: for any table of times, and for the runs of a grid."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.report import style
from experiments.report.style import Look


def figure(
    panels: Mapping[str, np.ndarray], looks: Sequence[Look], *, max_ratio: float, best: str
) -> Figure:
    """Draw a performance profile in each panel, a staircase for each method.

    Args:
        panels: title -> ratios (methods, workloads), inf for a target that was not reached.
        looks: of the methods.
        max_ratio: where the axis of ratios ends.
        best: what a ratio is a multiple of, for the axis.
    """
    drawn, axes = style.panels(1, len(panels), height=3.9, sharey=True)
    for panel, (title, ratios) in zip(axes[0], panels.items(), strict=True):
        _draw(panel, ratios, looks, max_ratio)
        panel.set(title=title, xlabel=f"τ, in multiples of {best}")
    axes[0][0].set_ylabel("workloads solved within τ")
    style.legend(drawn, looks, markers=True)
    return drawn


def _draw(panel: Axes, ratios: np.ndarray, looks: Sequence[Look], max_ratio: float) -> None:
    """Draw the staircases of one panel; where several coincide the first is the widest."""
    workloads = ratios.shape[1]
    for i, (shown, row) in enumerate(zip(looks, ratios, strict=True)):
        steps = np.sort(row[row <= max_ratio])
        at = np.concatenate([[1.0], steps, [max_ratio]])
        share = np.concatenate([[0], np.arange(1, len(steps) + 1), [len(steps)]]) / workloads
        share[0] = np.count_nonzero(steps <= 1) / workloads
        width = 1.4 + 2.2 * (1 - i / len(looks))
        panel.step(
            at,
            share,
            where="post",
            color=shown.color,
            linestyle=shown.line,
            marker=shown.marker,
            markevery=slice(1, -1),
            linewidth=width,
            alpha=0.9,
            clip_on=False,
        )
    panel.set(xlim=(1, max_ratio), ylim=(0, 1.02))
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))


def pdf(drawn: Figure) -> bytes:
    """Return the figure as the bytes of a PDF file, the same ones every time."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Producer": None})
    return buffer.getvalue()
