"""Figures of the heavy-tail experiment: quantiles over time, and the tail at the end."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

from experiments.report import style
from experiments.report.page import Drawing
from experiments.report.style import Look, look
from experiments.setup.labels import in_figure


def quantile_curves(
    curves: Mapping[str, np.ndarray], summary: Mapping[str, Any], methods: Iterable[str] = ()
) -> Drawing:
    """Draw the quantiles of f(x) - f* over time: a row per noise, a column per quantile.

    Infinite values are left out of the lines; the table beside counts them.

    Args:
        curves: what curves.npz of `experiments.high_probability` holds.
        summary: what its summary.json holds.
        methods: all methods of the page, which decide how each looks.
    """
    looks = _looks(summary, methods)
    levels, calls = curves["levels"], curves["oracle_calls"][1:]
    noises = list(summary["results"])
    figure, axes = style.panels(len(noises), len(levels), height=2.9, sharex=True, sharey=True)
    for row, noise in zip(axes, noises, strict=True):
        for column, panel in enumerate(row):
            for method in summary["results"][noise]:
                shown = looks[method]
                parts = (curves[f"{noise}/{method}/{part}"] for part in ("value", "low", "high"))
                value, low, high = (_finite(part[column, 1:]) for part in parts)
                panel.plot(calls, value, color=shown.color, linestyle=shown.line)
                panel.fill_between(calls, low, high, color=shown.color, alpha=0.25, linewidth=0)
        row[0].set_ylabel(f"{in_figure(noise_label(noise, summary))}\nf(x) − f*")
    for top, bottom, level in zip(axes[0], axes[-1], levels, strict=True):
        top.set_title(f"{100 * level:g} % quantile")
        bottom.set_xlabel("stochastic gradients")
    _make_log(axes)
    for panel in axes.flat:
        panel.yaxis.set_major_locator(LogLocator(numticks=20))
        panel.yaxis.set_minor_formatter(NullFormatter())
    style.legend(figure, looks.values(), markers=False)
    return style.drawing(figure)


def survival_curves(
    curves: Mapping[str, np.ndarray], summary: Mapping[str, Any], methods: Iterable[str] = ()
) -> Drawing:
    """Draw which share of the replicas ended above a gap, a panel per noise, log axes.

    Args:
        curves: what curves.npz of `experiments.high_probability` holds.
        summary: what its summary.json holds.
        methods: all methods of the page, which decide how each looks.
    """
    looks = _looks(summary, methods)
    noises = list(summary["results"])
    figure, axes = style.panels(1, len(noises), height=3.3, sharex=True, sharey=True)
    for panel, noise in zip(axes[0], noises, strict=True):
        for method in summary["results"][noise]:
            shown = looks[method]
            final = np.sort(curves[f"{noise}/{method}/final"])
            # Of n replicas a share of i/n reaches or exceeds the i-th largest value.
            share = np.arange(len(final), 0, -1) / len(final)
            kept = np.isfinite(final)
            panel.step(final[kept], 100 * share[kept], color=shown.color, linestyle=shown.line)
        panel.set(xlabel="s", title=in_figure(noise_label(noise, summary)))
    axes[0][0].set_ylabel("replicas with final f(x) − f* ≥ s")
    _make_log(axes)
    for panel in axes.flat:
        panel.xaxis.set_major_locator(LogLocator(numticks=20))
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    style.legend(figure, looks.values(), markers=False)
    return style.drawing(figure)


def noise_label(noise: str, summary: Mapping[str, Any]) -> str:
    """Return the noise's name and its degrees of freedom, if it has any.

    Examples:
        >>> noise_label("student_t", {"config": {"df": 1.5}})
        "Student's t(1.5) noise"
    """
    if noise == "student_t":
        return f"Student's t({summary['config']['df']:g}) noise"
    return noise if noise.startswith("minibatch") else f"{noise} noise"


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _make_log(axes: np.ndarray) -> None:
    """Make the shared axes of panels that are drawn logarithmic.

    Where no panel has a positive value (all replicas diverged, or all are at the minimum),
    Matplotlib finds no limits and fails; these are given here.
    """
    for name in ("x", "y"):
        least = (getattr(panel, f"{name}axis").get_minpos() for panel in axes.flat)
        if not np.isfinite(min(least)):
            axes.flat[0].set(**{f"{name}lim": (0.1, 1.0)})
    for panel in axes.flat:
        panel.set(xscale="log", yscale="log")


def _looks(summary: Mapping[str, Any], methods: Iterable[str]) -> dict[str, Look]:
    names = [*summary["labels"], *methods]
    return {method: look(method, names) for method in summary["labels"]}
