"""Figures of what the trained networks make of held-out examples, side by side."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.report import style
from experiments.report.style import look

Samples: TypeAlias = Mapping[str, Mapping[str, np.ndarray]]
"""Method -> what its `Task.samples` returned; the same examples for all methods."""

# Paul Tol's "muted" colours and black for classes, on a light background; void pixels are grey.
BACKGROUND_COLOR = "#F3F1EC"
CLASS_COLORS = (
    *("#CC6677", "#332288", "#DDCC77", "#117733", "#88CCEE"),
    *("#882255", "#44AA99", "#999933", "#AA4499", "#111111"),
)
VOID_COLOR = "#9A9A9A"
VOID_LABEL = 255


def segmentation_samples(
    samples: Samples, class_names: Sequence[str] = (), max_rows: int = 5
) -> bytes:
    """Draw image, truth and each method's segmentation, a row per example.

    Args:
        samples: `image` uint8 (examples, h, w, channels), `label` and `prediction` integers
            (examples, h, w).
        class_names: names of the classes by label, background first; numbers where none are given.
        max_rows: how many examples to draw, evenly spread over those there are.
    """
    samples = pick(samples, max_rows)
    first = next(iter(samples.values()))
    rows = len(first["label"])
    drawn = [first["label"], *(arrays["prediction"] for arrays in samples.values())]
    seen = [int(k) for k in np.unique(drawn) if k != VOID_LABEL]
    classes = seen[-1] + 1
    palette = [
        BACKGROUND_COLOR,
        *(CLASS_COLORS[k % len(CLASS_COLORS)] for k in range(classes - 1)),
    ]
    colors = ListedColormap([*palette, VOID_COLOR])
    figure, axes = _frames(rows, 2 + len(samples))
    for i in range(rows):
        _show(axes[i][0], first["image"][i])
        for panel, labels in zip(axes[i][1:], drawn, strict=True):
            inside = np.where(labels[i] < classes, labels[i], classes)
            panel.imshow(inside, cmap=colors, vmin=0, vmax=classes, interpolation="nearest")
        for panel, labels in zip(axes[i][2:], drawn[1:], strict=True):
            panel.set_xlabel(f"IoU {image_iou(first['label'][i], labels[i]):.2f}")
    _column_titles(axes, ["image", "truth"], samples)
    names = class_names or [f"class {k}" for k in range(classes)]
    handles = [Patch(facecolor=palette[k], edgecolor="#777777", label=names[k]) for k in seen]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(11, len(handles)))
    return style.png(figure)


def super_resolution_samples(samples: Samples, max_rows: int = 5) -> bytes:
    """Draw low resolution, bicubic, each method and truth, a row per example, PSNR below.

    Args:
        samples: `lr`, `bicubic`, `prediction`, `target`, uint8 (examples, h, w, channels).
        max_rows: how many examples to draw, evenly spread over those there are.
    """
    samples = pick(samples, max_rows)
    first = next(iter(samples.values()))
    rows = len(first["target"])
    figure, axes = _frames(rows, 3 + len(samples))
    made = [first["bicubic"], *(arrays["prediction"] for arrays in samples.values())]
    for i in range(rows):
        truth = first["target"][i]
        _show(axes[i][0], first["lr"][i])
        _show(axes[i][-1], truth)
        for panel, images in zip(axes[i][1:-1], made, strict=True):
            _show(panel, images[i])
            panel.set_xlabel(f"{image_psnr(images[i], truth):.2f} dB")
    _column_titles(axes, ["low resolution", "bicubic"], samples, ["truth"])
    return style.png(figure)


def classification_samples(samples: Samples, max_columns: int = 8) -> bytes:
    """Draw examples with what each method took them for; mistakes are marked.

    Args:
        samples: `image` uint8 (examples, h, w, channels), `label` and `prediction` (examples,).
        max_columns: how many examples to draw, evenly spread over those there are.
    """
    samples = pick(samples, max_columns)
    first = next(iter(samples.values()))
    figure, axes = _frames(1, len(first["label"]), below=0.17 * len(samples))
    for i, panel in enumerate(axes[0]):
        _show(panel, first["image"][i])
        label = first["label"][i]
        panel.set_title(f"truth: {label}", loc="center")
        for line, (method, arrays) in enumerate(samples.items()):
            taken = arrays["prediction"][i]
            right = taken == label
            panel.annotate(
                f"{look(method, samples).label}: {taken}" + ("" if right else " ✗"),
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
    return style.png(figure)


def image_psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Return the peak signal-to-noise ratio of a uint8 image, in decibels.

    Examples:
        >>> round(image_psnr(np.full((2, 2), 110, np.uint8), np.full((2, 2), 100, np.uint8)), 2)
        28.13
    """
    error = np.mean((image.astype(float) - truth.astype(float)) ** 2)
    return 10 * math.log10(255**2 / error) if error else math.inf


def image_iou(truth: np.ndarray, prediction: np.ndarray) -> float:
    """Return the mean intersection over union of one image, over the classes in either.

    Pixels whose truth is void are left out.

    Examples:
        >>> image_iou(np.array([[0, 1, 1, 255]]), np.array([[0, 0, 1, 1]]))
        0.5
    """
    known = truth != VOID_LABEL
    truth, prediction = truth[known], prediction[known]
    ratios = [
        np.sum((truth == k) & (prediction == k)) / np.sum((truth == k) | (prediction == k))
        for k in np.union1d(truth, prediction)
    ]
    return float(np.mean(ratios)) if ratios else math.nan


def pick(samples: Samples, count: int) -> Samples:
    """Return at most `count` of the examples, evenly spread."""
    total = len(next(iter(next(iter(samples.values())).values())))
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    return {
        method: {name: array[chosen] for name, array in arrays.items()}
        for method, arrays in samples.items()
    }


def _show(panel: Axes, image: np.ndarray) -> None:
    grey = image.shape[-1] == 1
    panel.imshow(
        image[..., 0] if grey else image,
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


def _frames(rows: int, columns: int, *, below: float = 0.0) -> tuple[Figure, np.ndarray]:
    """Return square panels without ticks, `below` inches free under each row."""
    side = style.WIDTH / max(columns, 6)
    figure = Figure(figsize=(side * columns, rows * (side + 0.12 + below) + 0.35))
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.grid(visible=False)
        for spine in panel.spines.values():
            spine.set(visible=True, color="#bbbbbb", linewidth=0.6)
    return figure, axes
