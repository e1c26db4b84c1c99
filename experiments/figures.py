"""The report's pictures. The only module that imports Matplotlib; the style is chosen here, once.

Each function returns the bytes of a PNG. A method has one colour, line and marker in all of them.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, PercentFormatter

from experiments.results import METRICS, Grid, Group, Metric, band, baselines

WIDTH = 10.0
"""Inches, of every figure."""

STYLE: dict[str, Any] = {
    "savefig.dpi": 150,
    "savefig.bbox": "tight",
    "figure.constrained_layout.use": True,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "lines.linewidth": 1.7,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
}


@dataclass(frozen=True)
class Look:
    """How a method is shown: its name, colour, line and marker."""

    label: str
    color: str
    line: Any
    marker: str


# The colours of Okabe and Ito can be told apart by colour-blind readers; lines and markers differ
# as well.
LOOKS = {
    "sgd": Look("SGD", "#D55E00", "-", "o"),
    "adam": Look("Adam", "#CC79A7", (0, (1, 0.8)), "s"),
    "normalized_sgd": Look("normalised SGD", "#E69F00", (0, (6, 1, 1, 1)), "v"),
    "clipped_sgd": Look("clipped-SGD", "#0072B2", (0, (4, 1.2)), "D"),
    "clipped_sstm": Look("clipped-SSTM", "#009E73", "-", "^"),
}
SPARE_COLORS = ("#56B4E9", "#000000", "#8C6D31", "#7B4FA3", "#7F7F7F")


def look(method: str, methods: Iterable[str] = ()) -> Look:
    """Return how a method is shown; methods without a look of their own get spare colours.

    Examples:
        >>> look("clipped_sgd").label
        'clipped-SGD'
        >>> look("sgd.lr=1", ["sgd.lr=1", "sgd.lr=2"]).color
        '#56B4E9'
    """
    if method in LOOKS:
        return LOOKS[method]
    unknown = sorted(name for name in {*methods, method} if name not in LOOKS)
    color = SPARE_COLORS[unknown.index(method) % len(SPARE_COLORS)]
    return Look(method, color, "-", "P")


def learning_curves(grid: Grid) -> bytes:
    """Draw training loss and evaluation metric against examples seen, a row per task."""
    figure, axes = _figure(len(grid), 2, height=2.7)
    for row, (task, groups) in zip(axes, grid.items(), strict=True):
        kind = METRICS[_kind(groups)]
        name, metric = next(iter(kind.items()))
        _curves(row[0], groups, "train", "loss", kind["loss"])
        row[0].set(title=f"{task}: training", yscale="log")
        row[0].yaxis.set_major_formatter(_plain)
        row[0].yaxis.set_minor_formatter(_plain_few)
        _curves(row[1], groups, "evaluation", name, metric)
        row[1].set(title=f"{task}: held-out examples")
        for label, value in baselines(groups, name).items():
            row[1].axhline(metric.factor * value, color="#666666", linewidth=1, linestyle=":")
            row[1].annotate(
                label,
                (0.99, metric.factor * value),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2),
                textcoords="offset points",
                ha="right",
                color="#555555",
                fontsize=8.5,
            )
    _legend(figure, grid)
    return _png(figure)


def gradient_curves(grid: Grid) -> bytes:
    """Draw gradient norm and share of clipped steps against examples seen, a row per task."""
    figure, axes = _figure(len(grid), 2, height=2.5)
    norm = Metric("gradient norm")
    share = Metric("steps clipped so far", "%", 100)
    for row, (task, groups) in zip(axes, grid.items(), strict=True):
        _curves(row[0], groups, "train", "gradient_norm", norm)
        row[0].set(title=f"{task}: gradient norm", yscale="log")
        row[0].yaxis.set_major_formatter(_plain)
        row[0].yaxis.set_minor_formatter(_plain_few)
        _curves(row[1], groups, "train", "clipped_fraction", share)
        row[1].set(title=f"{task}: share of clipped steps", ylim=(-3, 103))
        row[1].yaxis.set_major_formatter(PercentFormatter())
        row[1].set_ylabel("steps clipped so far")
    _legend(figure, grid)
    return _png(figure)


def _curves(axes: Axes, groups: Mapping[str, Group], split: str, name: str, metric: Metric) -> None:
    """Draw each method's mean and range over seeds, and diverged runs one by one."""
    markers = split == "evaluation"
    for method, group in groups.items():
        style = look(method, groups)
        found = band(group.finished, split, name, max_points=60)
        if found is not None:
            examples, *values = found.examples, found.mean, found.low, found.high
            mean, low, high = (metric.factor * value for value in values)
            axes.plot(
                examples,
                mean,
                color=style.color,
                linestyle=style.line,
                marker=style.marker if markers else "",
                markevery=max(1, len(examples) // 12),
            )
            axes.fill_between(examples, low, high, color=style.color, alpha=0.18, linewidth=0)
        for run in group.runs:
            if run.diverged:
                examples, values = run.curve(split, name)
                kept = np.isfinite(values)
                if kept.any():
                    at, value = examples[kept], metric.factor * values[kept]
                    axes.plot(at, value, color=style.color, linestyle=style.line, linewidth=0.9)
                    axes.plot(at[-1], value[-1], "x", color=style.color, markersize=8, mew=2.2)
    axes.set(xlabel="training examples seen", ylabel=metric.title)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _legend(figure: Figure, grid: Grid) -> None:
    """Name every method once, above the panels."""
    methods = list(dict.fromkeys(method for groups in grid.values() for method in groups))
    handles: list[Any] = []
    for method in methods:
        style = look(method, methods)
        handles.append(Line2D([], [], color=style.color, linestyle=style.line, marker=style.marker))
    labels = [look(method, methods).label for method in methods]
    if any(group.diverged for groups in grid.values() for group in groups.values()):
        handles.append(Line2D([], [], color="#333333", marker="x", mew=2.2, linestyle=""))
        labels.append("diverged here")
    columns = min(len(labels), 6)
    figure.legend(handles, labels, loc="outside upper center", ncols=columns)


# -- Samples --------------------------------------------------------------------------------------

# Paul Tol's "muted" colours and black for classes, on a light background; void pixels are grey.
CLASS_COLORS = (
    "#F3F1EC",
    "#CC6677",
    "#332288",
    "#DDCC77",
    "#117733",
    "#88CCEE",
    "#882255",
    "#44AA99",
    "#999933",
    "#AA4499",
    "#111111",
)
VOID_COLOR = "#9A9A9A"
VOID_LABEL = 255


def segmentation_samples(samples: Mapping[str, Mapping[str, np.ndarray]], rows: int = 5) -> bytes:
    """Draw image, truth and each method's segmentation side by side, a row per example.

    Args:
        samples: method -> `image` uint8 (examples, h, w, channels), `label` and `prediction`
            integers (examples, h, w); the same examples for all methods.
        rows: how many examples to draw at most.
    """
    first = next(iter(samples.values()))
    rows = min(rows, len(first["label"]))
    drawn = [first["label"], *(arrays["prediction"] for arrays in samples.values())]
    seen = [int(k) for k in np.unique(drawn) if k != VOID_LABEL]
    classes = seen[-1] + 1
    figure, axes = _pictures(rows, 2 + len(samples))
    palette = [CLASS_COLORS[0], *(_cycle(CLASS_COLORS[1:], i) for i in range(classes - 1))]
    colors = ListedColormap([*palette, VOID_COLOR])

    def show(panel: Axes, labels: np.ndarray) -> None:
        inside = np.where((labels >= 0) & (labels < classes), labels, classes)
        panel.imshow(inside, cmap=colors, vmin=0, vmax=classes, interpolation="nearest")

    for i in range(rows):
        truth = first["label"][i]
        _show_image(axes[i][0], first["image"][i])
        show(axes[i][1], truth)
        for panel, arrays in zip(axes[i][2:], samples.values(), strict=True):
            prediction = arrays["prediction"][i]
            show(panel, prediction)
            panel.set_xlabel(f"IoU {image_iou(truth, prediction, classes):.2f}")
    _column_titles(axes, ["image", "truth"], samples)
    handles = [
        Patch(facecolor=palette[k], edgecolor="#888888", linewidth=0.5, label=f"class {k}")
        for k in seen
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(11, len(handles)))
    return _png(figure)


def super_resolution_samples(
    samples: Mapping[str, Mapping[str, np.ndarray]], rows: int = 5
) -> bytes:
    """Draw low resolution, bicubic, each method and truth side by side, PSNR below.

    Args:
        samples: method -> `lr`, `bicubic`, `prediction`, `target`, uint8 (examples, h, w, 3); the
            same examples for all methods.
        rows: how many examples to draw at most.
    """
    first = next(iter(samples.values()))
    rows = min(rows, len(first["target"]))
    figure, axes = _pictures(rows, 3 + len(samples))
    for i in range(rows):
        truth = first["target"][i]
        _show_image(axes[i][0], first["lr"][i])
        shown = [first["bicubic"], *(arrays["prediction"] for arrays in samples.values())]
        for panel, images in zip(axes[i][1:-1], shown, strict=True):
            _show_image(panel, images[i])
            panel.set_xlabel(f"{image_psnr(images[i], truth):.2f} dB")
        _show_image(axes[i][-1], truth)
    _column_titles(axes, ["low resolution", "bicubic"], samples, ["truth"])
    return _png(figure)


def classification_samples(
    samples: Mapping[str, Mapping[str, np.ndarray]], columns: int = 8
) -> bytes:
    """Draw examples with what each method took them for; mistakes are marked.

    Args:
        samples: method -> `image` uint8 (examples, h, w, channels), `label` and `prediction`
            (examples,); the same examples for all methods.
        columns: how many examples to draw at most.
    """
    first = next(iter(samples.values()))
    columns = min(columns, len(first["label"]))
    figure, axes = _pictures(1, columns, below=0.19 * len(samples))
    for i, panel in enumerate(axes[0]):
        _show_image(panel, first["image"][i])
        panel.set_title(f"{first['label'][i]}", loc="center")
        for line, (method, arrays) in enumerate(samples.items()):
            right = arrays["prediction"][i] == first["label"][i]
            panel.annotate(
                f"{look(method, samples).label}: {arrays['prediction'][i]}{'' if right else '  ✗'}",
                (0.5, 0),
                xycoords="axes fraction",
                xytext=(0, -6 - 12 * line),
                textcoords="offset points",
                ha="center",
                va="top",
                fontsize=8,
                color="#333333" if right else "#B00020",
                fontweight="normal" if right else "bold",
            )
    return _png(figure)


def image_psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of two uint8 images, in decibels.

    Examples:
        >>> round(image_psnr(np.full((2, 2), 110, np.uint8), np.full((2, 2), 100, np.uint8)), 2)
        28.13
    """
    error = np.mean((image.astype(float) - truth.astype(float)) ** 2)
    return 10 * math.log10(255**2 / error) if error else math.inf


def image_iou(truth: np.ndarray, prediction: np.ndarray, classes: int) -> float:
    """Return the mean intersection over union of one image, over classes in either; void left out.

    Examples:
        >>> image_iou(np.array([[0, 1, 1, 255]]), np.array([[0, 0, 1, 1]]), classes=3)
        0.5
    """
    known = (truth >= 0) & (truth < classes)
    truth, prediction = truth[known], prediction[known]
    ratios = [
        np.sum((truth == k) & (prediction == k)) / union
        for k in range(classes)
        if (union := np.sum((truth == k) | (prediction == k)))
    ]
    return float(np.mean(ratios)) if ratios else math.nan


def _show_image(panel: Axes, image: np.ndarray) -> None:
    grey = image.ndim == 2 or image.shape[-1] == 1
    panel.imshow(
        image.reshape(image.shape[:2]) if grey else image,
        cmap="gray" if grey else None,
        vmin=0,
        vmax=255,
        interpolation="nearest",
    )


def _column_titles(
    axes: np.ndarray, before: Sequence[str], methods: Iterable[str], after: Sequence[str] = ()
) -> None:
    methods = list(methods)
    titles = [*before, *(look(method, methods).label for method in methods), *after]
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, loc="center")


def _pictures(rows: int, columns: int, below: float = 0.0) -> tuple[Figure, np.ndarray]:
    """Return square panels without ticks; `below` inches are kept free under each row."""
    side = WIDTH / max(columns, 5)
    figure = Figure(figsize=(side * columns, rows * (side + 0.12 + below) + 0.35))
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.grid(visible=False)
        for spine in panel.spines.values():
            spine.set(visible=True, color="#bbbbbb", linewidth=0.6)
    return figure, axes


# -- Tails ----------------------------------------------------------------------------------------

NOISE_LABELS = {"normal": "normal noise", "student_t": "Student's t noise"}


def quantile_curves(curves: Mapping[str, np.ndarray], summary: Mapping[str, Any]) -> bytes:
    """Draw the quantiles of f(x) - f* over time: a row per noise, a column per quantile.

    Args:
        curves: what curves.npz of `experiments.high_probability` holds.
        summary: what its summary.json holds.
    """
    levels, calls = curves["levels"], curves["oracle_calls"]
    noises = list(summary["results"])
    figure, axes = _figure(len(noises), len(levels), height=2.6, sharey=True)
    for row, noise in zip(axes, noises, strict=True):
        for column, (panel, level) in enumerate(zip(row, levels, strict=True)):
            for method in summary["results"][noise]:
                style = look(method, summary["labels"])
                value, low, high = (
                    np.where(np.isfinite(array), array, np.nan)[column, 1:]
                    for array in (curves[f"{noise}/{method}/{p}"] for p in ("value", "low", "high"))
                )
                panel.plot(calls[1:], value, color=style.color, linestyle=style.line)
                panel.fill_between(calls[1:], low, high, color=style.color, alpha=0.22, linewidth=0)
            panel.set(xscale="log", yscale="log")
            panel.set_title(f"{100 * level:g} % quantile", loc="left")
        row[0].set_ylabel(f"{noise_label(noise, summary)}\nf(x) − f*")
    for panel in axes[-1]:
        panel.set_xlabel("stochastic gradients")
    _tail_legend(figure, summary)
    return _png(figure)


def survival_curves(curves: Mapping[str, np.ndarray], summary: Mapping[str, Any]) -> bytes:
    """Draw which share of the replicas ended above a gap, a panel per noise, log axes."""
    noises = list(summary["results"])
    figure, axes = _figure(1, len(noises), height=3.4, sharey=True)
    for panel, noise in zip(axes[0], noises, strict=True):
        for method in summary["results"][noise]:
            style = look(method, summary["labels"])
            final = np.sort(curves[f"{noise}/{method}/final"])
            # Of n replicas the i-th largest is reached or exceeded by a share of i/n.
            share = np.arange(len(final), 0, -1) / len(final)
            finite = np.isfinite(final)
            panel.step(final[finite], share[finite], color=style.color, linestyle=style.line)
        panel.set(xscale="log", yscale="log", xlabel="s")
        panel.set_title(noise_label(noise, summary))
    axes[0][0].set_ylabel("share of replicas with final f(x) − f* ≥ s")
    _tail_legend(figure, summary)
    return _png(figure)


def noise_label(noise: str, summary: Mapping[str, Any]) -> str:
    """Return the noise's name and what it is made of."""
    label = NOISE_LABELS.get(noise, noise)
    return f"{label}, {summary['config']['df']:g} d.o.f." if noise == "student_t" else label


def _tail_legend(figure: Figure, summary: Mapping[str, Any]) -> None:
    labels = summary["labels"]
    handles = [
        Line2D([], [], color=look(m, labels).color, linestyle=look(m, labels).line) for m in labels
    ]
    figure.legend(handles, list(labels.values()), loc="outside upper center", ncols=len(labels))


# -- All ------------------------------------------------------------------------------------------


def _figure(rows: int, columns: int, *, height: float, **options: Any) -> tuple[Figure, Any]:
    figure = Figure(figsize=(WIDTH, rows * height + 0.35))
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _kind(groups: Mapping[str, Group]) -> str:
    return next(iter(groups.values())).kind


def _cycle(colors: Sequence[str], index: int) -> str:
    return colors[index % len(colors)]


def _plain(value: float, _: Any = None) -> str:
    return f"{value:g}"


def _plain_few(value: float, _: Any = None) -> str:
    """Label minor ticks of a log axis at 2 and 5 only."""
    return f"{value:g}" if f"{value:e}"[0] in "25" else ""


def style() -> Any:
    """Return the context in which all figures are drawn."""
    return matplotlib.rc_context(STYLE)  # type: ignore[arg-type]
