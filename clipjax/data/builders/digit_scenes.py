"""Scenes for segmentation: two to four handwritten digits in a photograph, every pixel labelled.

A scene is a crop of a photograph with scikit-learn's digits composed over it: enlarged to a
height of 40 to 80 pixels, luminous, a little transparent and casting a soft shadow over the
dimmed photograph. The label of a pixel is 0 for background, or 1 + the digit. Digits and
photographs are split into training and test before anything is composed.
"""

import colorsys
import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from clipjax.data.builders.base import DatasetBuilder
from clipjax.data.builders.digits import load_digits
from clipjax.data.builders.photographs import credits, load_photographs

SIZE = 128
NUM_CLASSES = 11
SCENES = {"train": 600, "test": 100}
HEIGHTS = (40, 80)
"""Pixels from the top of a digit to its bottom, both included."""

MAX_OVERLAP = 0.08
"""The largest share of a digit that another may hide."""

OPACITY = 0.92

BACKGROUND_LIGHT = 0.45
"""Photographs are dimmed and digits are luminous, so that a small network trained from scratch
finds digits within seconds and is left with telling them apart."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A digit at its place in the scene."""

    number: int
    ink: np.ndarray
    """float32 (SIZE, SIZE), how much of a pixel it covers, from 0 to 1."""

    @property
    def mask(self) -> np.ndarray:
        """The pixels that are labelled as this digit: those covered at least by half."""
        return self.ink >= 0.5


def enlarge(digit: np.ndarray, height: int) -> np.ndarray:
    """Enlarge the drawn part of a digit to crisp strokes.

    Bicubic interpolation, then a steep linear ramp around 42 % of full ink, which keeps
    strokes apart and connected.

    Args:
        digit: uint8 (8, 8).
        height: in pixels, of the result.

    Returns:
        float32 (height, width), from 0 to 1, aspect kept.

    Examples:
        >>> enlarge(np.pad(np.full((4, 2), 255, np.uint8), 2), height=40).shape
        (40, 20)
    """
    from PIL import Image

    rows, columns = np.flatnonzero(digit.max(axis=1)), np.flatnonzero(digit.max(axis=0))
    drawn = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    width = max(1, round(height * drawn.shape[1] / drawn.shape[0]))
    large = Image.fromarray(drawn).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip((np.asarray(large, np.float32) / 255 - 0.42) / 0.14 + 0.5, 0, 1)


def place(digits: np.ndarray, numbers: np.ndarray, rng: np.random.Generator) -> list[Layer]:
    """Place digits at random so that each stays visible, the first at the back.

    Heights are shortest + (tallest - shortest) u^3, u uniform: more small digits than large. Where
    there is no room after 50 attempts, all are drawn anew.

    Args:
        digits: uint8 (count, 8, 8).
        numbers: int (count,), what they show.
        rng: where the randomness comes from.
    """
    while True:
        layers: list[Layer] = []
        for digit, number in zip(digits, numbers, strict=True):
            layer = _place_one(digit, int(number), layers, rng)
            if layer is None:
                break
            layers.append(layer)
        else:
            return layers


def _place_one(
    digit: np.ndarray, number: int, behind: list[Layer], rng: np.random.Generator
) -> Layer | None:
    for _ in range(50):
        shortest, tallest = HEIGHTS
        large = enlarge(digit, round(shortest + (tallest - shortest) * rng.uniform() ** 3))
        height, width = large.shape
        if width > SIZE:
            continue
        top, left = rng.integers(SIZE - height + 1), rng.integers(SIZE - width + 1)
        ink = np.zeros((SIZE, SIZE), np.float32)
        ink[top : top + height, left : left + width] = large
        layer = Layer(number, ink)
        if all(
            (layer.mask & other.mask).sum() <= MAX_OVERLAP * other.mask.sum() for other in behind
        ):
            return layer
    return None


def draw_colour(rng: np.random.Generator) -> np.ndarray:
    """Draw a luminous colour: any hue, pale and bright.

    Returns:
        float64 (3,), red, green and blue, 0 to 255.
    """
    low, high = np.array([0.0, 0.1, 0.92]), np.array([1.0, 0.4, 1.0])  # hue, saturation, value
    return 255 * np.array(colorsys.hsv_to_rgb(*rng.uniform(low, high)))


def compose(
    background: np.ndarray, layers: list[Layer], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the digits over the background, each with its shadow.

    Args:
        background: uint8 (SIZE, SIZE, 3).
        layers: the digits, from back to front.
        rng: where the colours come from.

    Returns:
        The scene, uint8 (SIZE, SIZE, 3), and its labels, uint8 (SIZE, SIZE).
    """
    scene = BACKGROUND_LIGHT * background.astype(np.float64)
    labels = np.zeros((SIZE, SIZE), np.uint8)
    for layer in layers:
        colour = draw_colour(rng)
        scene *= 1 - 0.5 * _shadow(layer.ink)[..., None]
        cover = OPACITY * layer.ink[..., None]
        scene = (1 - cover) * scene + cover * colour
        labels[layer.mask] = 1 + layer.number
    return np.rint(scene).astype(np.uint8), labels


def _shadow(ink: np.ndarray) -> np.ndarray:
    """Return the ink moved down and to the right by 2 pixels and blurred."""
    from PIL import Image, ImageFilter

    moved = np.zeros_like(ink)
    moved[2:, 2:] = ink[:-2, :-2]
    picture = Image.fromarray(np.rint(255 * moved).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(2))) / 255


def crop_background(photograph: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cut a random square of at least 160 pixels and reduce it to uint8 (SIZE, SIZE, 3)."""
    from PIL import Image

    height, width = photograph.shape[:2]
    side = int(rng.integers(160, min(height, width) + 1))
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    square = Image.fromarray(photograph[top : top + side, left : left + side])
    return np.asarray(square.resize((SIZE, SIZE), Image.Resampling.BICUBIC))


class DigitScenes(DatasetBuilder):
    """Handwritten digits in photographs, 128 x 128, 11 classes."""

    VERSION = tfds.core.Version("1.1.0")
    EMBEDDED = True

    def _info(self) -> tfds.core.DatasetInfo:
        classes = ["background", *map(str, range(NUM_CLASSES - 1))]
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits composed over photographs, every pixel labelled.",
            license=credits(),
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
                    "label": tfds.features.LabeledImage(
                        labels=classes, shape=(SIZE, SIZE, 1), encoding_format="png"
                    ),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing to download
        return {
            "train": self._generate_examples(test=False),
            "test": self._generate_examples(test=True),
        }

    def _generate_examples(self, *, test: bool) -> Iterator[tuple[int, dict[str, Any]]]:
        from PIL import Image

        images, numbers, is_test = load_digits()
        images, numbers = images[is_test == test], numbers[is_test == test]
        photographs = list(load_photographs(test=test).items())
        for index in range(SCENES["test" if test else "train"]):
            rng = np.random.default_rng([int(test), index])
            name, photograph = photographs[index % len(photographs)]
            background = crop_background(photograph, rng)
            chosen = rng.choice(len(images), size=rng.integers(2, 5), replace=False)
            layers = place(images[chosen], numbers[chosen], rng)
            scene, labels = compose(background, layers, rng)
            shown = " ".join(str(layer.number) for layer in layers)
            yield (
                index,
                {
                    "id": f"scene {index}: {shown} over {name}",
                    "image": Image.fromarray(scene),
                    "label": Image.fromarray(labels),
                },
            )
