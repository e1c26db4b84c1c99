"""Figures of what the trained networks make of held-out examples, side by side."""

import colorsys
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from experiments.report import style
from experiments.report.page import Drawing
from experiments.report.style import look
from experiments.setup.labels import in_figure, shortened

Samples: TypeAlias = Mapping[str, Mapping[str, Sequence[np.ndarray]]]
"""Method -> what its `Task.samples` returned, by example; the same examples for all methods.
Pictures of different examples may differ in size."""

BACKGROUND_COLOR = "#F3F1EC"
"""Of class 0; void pixels are grey."""
# Paul Tol's "muted" colours and black.
FEW_COLORS = (
    *("#CC6677", "#332288", "#DDCC77", "#117733", "#88CCEE"),
    *("#882255", "#44AA99", "#999933", "#AA4499", "#111111"),
)
# Kelly 1965, "Twenty-two colors of maximum contrast", without white and grey, cyan for black.
MANY_COLORS = (
    *("#F3C300", "#875692", "#F38400", "#A1CAF1", "#BE0032", "#C2B280", "#008856"),
    *("#E68FAC", "#0067A5", "#F99379", "#604E97", "#F6A600", "#B3446C", "#DCD300"),
    *("#882D17", "#8DB600", "#654522", "#E25822", "#2B3D26", "#00A5B5"),
)
VOID_COLOR = "#9A9A9A"
VOID_LABEL = 255

DETAIL = 96
"""Side in pixels of what is shown of super-resolved pictures that are larger."""
NARROW = 20
"""Letters of a method's name that find room above or below a picture."""
MOST = 8
"""Pictures side by side; the others of an example go on in the next row."""
HALF = 13
"""Letters in each line above a picture where there are many. Any two lines hold more than this, so
three are enough for names cut to two lines' letters."""
FINE = 200
"""Pictures with more pixels than this are shrunk when they are drawn."""


def palette(classes: int) -> list[str]:
    """Return a colour for each class, class 0 first: no two are the same.

    Examples:
        >>> [len(set(palette(count))) for count in (2, 11, 21, 150)]
        [2, 11, 21, 150]
    """
    colors = FEW_COLORS if classes - 1 <= len(FEW_COLORS) else MANY_COLORS
    found = [BACKGROUND_COLOR, *colors[: classes - 1]]
    for k in range(len(found), classes):  # hues a golden ratio apart
        red, green, blue = colorsys.hsv_to_rgb(k * 0.618034 % 1, 0.35 + 0.2 * (k % 4), 0.85)
        found.append(f"#{round(255 * red):02X}{round(255 * green):02X}{round(255 * blue):02X}")
    return found


def segmentation_samples(
    samples: Samples, class_names: Sequence[str] = (), max_rows: int = 5
) -> Drawing:
    """Draw image, truth and each method's segmentation, a row per example.

    Args:
        samples: of each example `image` uint8 (h, w, channels), `label` and `prediction` integers
            (h, w).
        class_names: names of the classes by label, background first; numbers where none are given.
        max_rows: how many examples to draw, evenly spread over those there are.
    """
    samples = pick(samples, max_rows)
    first = next(iter(samples.values()))
    rows = len(first["label"])
    drawn = [first["label"], *(arrays["prediction"] for arrays in samples.values())]
    seen = sorted({int(k) for maps in drawn for labels in maps for k in np.unique(labels)})
    seen = [k for k in seen if k != VOID_LABEL]
    classes = max(len(class_names), seen[-1] + 1 if seen else 1)
    colors = [*palette(classes), VOID_COLOR]
    table = np.array([np.round(255 * np.array(to_rgb(color))) for color in colors], np.uint8)
    heights = [image.shape[0] / image.shape[1] for image in first["image"]]
    figure, axes = _frames(heights, 2 + len(samples))
    for i in range(rows):
        _show(axes[i][0], first["image"][i])
        for panel, labels in zip(axes[i][1:], drawn, strict=True):
            _show(panel, table[np.where(labels[i] < classes, labels[i], classes)])
        for panel, labels in zip(axes[i][2:], drawn[1:], strict=True):
            panel.set_xlabel(f"IoU {image_iou(first['label'][i], labels[i]):.2f}")
    _column_titles(axes, ["image", "truth"], samples)
    handles = [
        Patch(facecolor=colors[k], edgecolor="#777777", label=names(class_names, k)) for k in seen
    ]
    if any((labels == VOID_LABEL).any() for labels in first["label"]):
        handles.append(Patch(facecolor=VOID_COLOR, edgecolor="#777777", label="(void)"))
    labels = [str(handle.get_label()) for handle in handles]
    figure.legend(handles=handles, loc="outside lower center", ncols=style.legend_columns(labels))
    return style.drawing(figure)


def names(class_names: Sequence[str], k: int) -> str:
    """Return the name of class k as a figure shows it, or its number where there is none."""
    return in_figure(class_names[k]) if k < len(class_names) else f"class {k}"


def super_resolution_samples(samples: Samples, max_rows: int = 5) -> Drawing:
    """Draw low resolution, bicubic, each method and truth, a row per example, PSNR below.

    Of pictures larger than `DETAIL` pixels the whole truth is drawn first, and of the others the
    detail where bicubic interpolation errs most.

    Args:
        samples: of each example `lr`, `bicubic`, `prediction`, `target`, uint8 (h, w, channels).
        max_rows: how many examples to draw, evenly spread over those there are.
    """
    samples = pick(samples, max_rows)
    first = next(iter(samples.values()))
    whole = ["picture"] if has_details(samples) else []
    figure, axes = _frames([1.0] * len(first["target"]), len(whole) + 3 + len(samples))
    made = [first["bicubic"], *(arrays["prediction"] for arrays in samples.values())]
    for i, truth in enumerate(first["target"]):
        scale = truth.shape[0] // first["lr"][i].shape[0]
        top, left, rows, columns = detail(truth, first["bicubic"][i], scale)
        small = (
            slice(top // scale, (top + rows) // scale),
            slice(left // scale, (left + columns) // scale),
        )
        part = slice(top, top + rows), slice(left, left + columns)
        panels = list(axes[i])
        if whole:
            panel = panels.pop(0)
            _show(panel, truth)
            corner = (left - 0.5, top - 0.5)
            panel.add_patch(Rectangle(corner, columns, rows, fill=False, color="#FFD400", lw=1.3))
        _show(panels[0], first["lr"][i][small])
        _show(panels[-1], truth[part])
        for panel, images in zip(panels[1:-1], made, strict=True):
            _show(panel, images[i][part])
            panel.set_xlabel(f"{image_psnr(images[i], truth):.2f} dB")
    _column_titles(
        axes, [*whole, "low res." if whole else "low resolution", "bicubic"], samples, ["truth"]
    )
    return style.drawing(figure)


def has_details(samples: Samples) -> bool:
    """Return whether a picture is too large for its pixels to be seen."""
    targets = next(iter(samples.values()))["target"]
    return any(max(target.shape[:2]) > DETAIL for target in targets)


def largest(samples: Samples) -> int:
    """Return the longest side of the pictures in pixels."""
    arrays = next(iter(samples.values()))
    pictures = arrays["target"] if "target" in arrays else arrays["image"]
    return max(max(picture.shape[:2]) for picture in pictures)


def detail(truth: np.ndarray, bicubic: np.ndarray, scale: int) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the window in which bicubic interpolation errs most.

    Args:
        truth: uint8 (h, w, channels).
        bicubic: the same shape.
        scale: the window begins and ends at multiples of it.

    Examples:
        >>> truth, bicubic = np.zeros((2, 200, 300, 3), np.uint8)
        >>> bicubic[150:160, 250:260] = 9
        >>> top, left, height, width = detail(truth, bicubic, 4)
        >>> top <= 150 and left <= 250 and top + height >= 160 and left + width >= 260
        True
        >>> height, width
        (96, 96)
    """
    rows, columns = (n // scale for n in truth.shape[:2])
    squares = np.square(truth.astype(float) - bicubic).mean(axis=-1)
    blocks = squares[: rows * scale, : columns * scale].reshape(rows, scale, columns, scale)
    errors = np.zeros((rows + 1, columns + 1))
    errors[1:, 1:] = blocks.sum(axis=(1, 3)).cumsum(axis=0).cumsum(axis=1)
    height, width = min(DETAIL // scale, rows), min(DETAIL // scale, columns)
    windows = errors[height:] - errors[:-height]
    windows = windows[:, width:] - windows[:, :-width]
    top, left = np.unravel_index(np.argmax(windows), windows.shape)
    return int(top) * scale, int(left) * scale, height * scale, width * scale


def classification_samples(
    samples: Samples, class_names: Sequence[str] = (), max_columns: int = 8
) -> Drawing:
    """Draw examples with what each method took them for; mistakes are marked.

    Args:
        samples: of each example `image` uint8 (h, w, channels), `label` and `prediction`.
        class_names: names of the classes by label; numbers where none are given.
        max_columns: how many examples to draw, evenly spread over those there are.
    """
    called = [in_figure(name, 13) for name in class_names]
    named = max((len(look(method).label) for method in samples), default=0)
    if max(map(len, called), default=0) > 4 or named > HALF:
        max_columns = min(max_columns, 5)  # room for the names

    def name(k: int) -> str:
        return called[k] if k < len(called) else str(k)

    samples = pick(samples, max_columns)
    first = next(iter(samples.values()))
    count = len(first["label"])
    figure, axes = _frames([1.0], count, below=0.17 * len(samples), least=min(max_columns, 6))
    labels = [in_figure(s) for s in shortened((look(m).label for m in samples), NARROW)]
    for i, panel in enumerate(axes[0]):
        _show(panel, first["image"][i])
        label = int(first["label"][i])
        panel.set_title(f"truth: {name(label)}", loc="center")
        for line, (method, arrays) in enumerate(zip(labels, samples.values(), strict=True)):
            taken = int(arrays["prediction"][i])
            right = taken == label
            panel.annotate(
                f"{method}: {name(taken)}" + ("" if right else " ✗"),
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
    return style.drawing(figure)


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
        method: {name: [values[i] for i in chosen] for name, values in arrays.items()}
        for method, arrays in samples.items()
    }


def _show(panel: Axes, image: np.ndarray) -> None:
    grey = image.shape[-1] == 1
    panel.imshow(
        image[..., 0] if grey else image,
        cmap="gray" if grey else None,
        vmin=0,
        vmax=255,
        interpolation="antialiased" if max(image.shape[:2]) > FINE else "nearest",
    )


def _column_titles(
    axes: Sequence[Sequence[Axes]],
    before: Sequence[str],
    methods: Iterable[str],
    after: Sequence[str] = (),
) -> None:
    labels = [look(method).label for method in methods]
    many = len(before) + len(labels) + len(after) > 7
    names = (
        (in_figure(name, HALF, lines=3) for name in shortened(labels, 2 * HALF - 2))
        if many
        else map(in_figure, shortened(labels, NARROW))
    )
    titles = [*before, *names, *after]
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, loc="center", fontsize=9 if many else 10.5)


def _frames(
    heights: Sequence[float], columns: int, *, below: float = 0.0, least: int = 6
) -> tuple[Figure, list[list[Axes]]]:
    """Return panels without ticks, those of example i `heights[i]` times as high as wide.

    Args:
        heights: of each example's panels; very tall ones are cut.
        columns: how many panels an example has; more than `MOST` take several rows.
        below: inches free under each row.
        least: panels are as narrow as if there were at least so many columns.
    """
    folds = -(-columns // MOST)
    wide = -(-columns // folds)
    side = style.WIDTH / max(wide, least)
    high = [side * min(height, 2.0) + 0.12 + below for height in heights for _ in range(folds)]
    figure = Figure(figsize=(side * wide, sum(high) + 0.35))
    axes = figure.subplots(len(high), wide, squeeze=False, height_ratios=high)
    for panel in axes.flat:
        panel.set(xticks=[], yticks=[])
        panel.grid(visible=False)
        for spine in panel.spines.values():
            spine.set(visible=True, color="#bbbbbb", linewidth=0.6)
    examples = [list(row) for row in axes.reshape(len(heights), folds * wide)]
    for row in examples:
        for panel in row[columns:]:
            panel.remove()
    return figure, [row[:columns] for row in examples]
