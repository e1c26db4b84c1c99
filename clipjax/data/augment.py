"""Augmentation of whole batches in NumPy: integer exact, one pass, no state.

An `Augment` says how many uniform numbers it draws for an example and maps a batch and those
numbers to a batch. The numbers come from outside (`clipjax.data.pipeline`), so the result depends
on the seed, the step and the place in the global batch, and on nothing else.

Pictures of a batch are `image`, `target` and, where it gives the class of every pixel, `label`;
whatever moves one moves all of them, so they stay aligned. A flip before a random crop, both on
an 8 x 8 picture:

>>> augment = compose(flip(), pad_crop(1))
>>> augment.num_draws
3
>>> batch = {"image": np.zeros((2, 8, 8, 1), np.uint8), "label": np.zeros(2, np.int32)}
>>> augment(batch, np.full((2, 3), 0.5))["image"].shape
(2, 8, 8, 1)
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

HostBatch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Augment:
    """A function of a batch and of `num_draws` uniform numbers in [0, 1) for each example."""

    num_draws: int
    function: Callable[[HostBatch, np.ndarray], HostBatch]

    def __post_init__(self) -> None:
        check_random_function(self.num_draws, self.function)

    def __call__(self, batch: HostBatch, uniforms: np.ndarray) -> HostBatch:
        """Return the augmented batch; `batch` is left as it is.

        Args:
            batch: arrays whose leading axis is the example.
            uniforms: float (batch, num_draws) in [0, 1).
        """
        expected = (len(batch["image"]), self.num_draws)
        if uniforms.shape != expected:
            raise ValueError(f"uniforms of shape {uniforms.shape}, expected {expected}")
        return self.function(batch, uniforms)


def compose(*augments: Augment) -> Augment:
    """Apply one after the other, each with its own numbers.

    Examples:
        >>> compose(flip(), dihedral()).num_draws
        3
    """
    return Augment(sum(a.num_draws for a in augments), functools.partial(_compose, augments))


def flip() -> Augment:
    """Mirror left and right with probability 1/2 (where the number is below 1/2).

    Examples:
        >>> batch = {"image": np.arange(6, dtype=np.uint8).reshape(2, 1, 3, 1)}
        >>> flip()(batch, np.array([[0.2], [0.7]]))["image"][..., 0].tolist()
        [[[2, 1, 0]], [[3, 4, 5]]]
    """
    return Augment(1, _flip)


def dihedral() -> Augment:
    """Apply one of the 8 symmetries of the square: a flip, then 0 to 3 quarter turns.

    Pictures must be square. The quarter turns are counter-clockwise, as `numpy.rot90`.

    Examples:
        >>> batch = {"image": np.array([[1, 2], [3, 4]], np.uint8).reshape(1, 2, 2, 1)}
        >>> dihedral()(batch, np.array([[0.9, 0.3]]))["image"][0, ..., 0].tolist()
        [[2, 4], [1, 3]]
    """
    return Augment(2, _dihedral)


def pad_crop(padding: int) -> Augment:
    """Pad with zeros on all sides and crop the original size at a random place.

    The offset of rows and of columns is uniform on 0, ..., 2 padding. For classification: a mask
    or a target would be padded with what is not there.

    Args:
        padding: pixels on each side, at least 1.

    Raises:
        ValueError: If `padding` is not positive.

    Examples:
        >>> batch = {"image": np.array([[1, 2], [3, 4]], np.uint8).reshape(1, 2, 2, 1)}
        >>> pad_crop(1)(batch, np.array([[0.0, 0.5]]))["image"][0, ..., 0].tolist()
        [[0, 0], [1, 2]]
    """
    check_pixels("padding", padding)
    if padding < 1:
        raise ValueError(f"padding must be at least 1 pixel, got {padding}; leave pad_crop out")
    return Augment(2, functools.partial(_pad_crop, padding))


def aligned_crop(size: int) -> Augment:
    """Crop `size` x `size` pixels of `image` at a random place, and the same part of the others.

    A picture that is s times as large as `image` (a super-resolution target) is cropped to
    s size x s size at s times the offset.

    Args:
        size: pixels of the cropped `image`.

    Raises:
        ValueError: If `size` is not positive, or larger than a picture.

    Examples:
        >>> image = np.arange(9, dtype=np.uint8).reshape(1, 3, 3, 1)
        >>> batch = {"image": image, "target": image.repeat(2, axis=1).repeat(2, axis=2)}
        >>> cropped = aligned_crop(1)(batch, np.array([[0.5, 0.99]]))
        >>> cropped["image"].ravel().tolist(), cropped["target"].ravel().tolist()
        ([5], [5, 5, 5, 5])
    """
    check_pixels("size", size)
    if size < 1:
        raise ValueError(f"the size of a crop must be at least 1 pixel, got {size}")
    return Augment(2, functools.partial(_aligned_crop, size))


def crop(pictures: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: tuple[int, int]):
    """Cut one window out of each picture.

    Args:
        pictures: (batch, height, width, ...).
        rows: int (batch,), the first row of each window.
        columns: int (batch,), the first column.
        size: height and width of the windows.

    Returns:
        (batch, *size, ...), a new array.

    Examples:
        >>> crop(np.arange(12).reshape(1, 3, 4), np.array([1]), np.array([2]), (2, 2)).tolist()
        [[[6, 7], [10, 11]]]
    """
    height, width = size
    channels = math.prod(pictures.shape[3:])
    # By whole rows of a window: twenty times as fast as pixel by pixel.
    lines = pictures.reshape(*pictures.shape[:2], -1)
    parts = np.lib.stride_tricks.sliding_window_view(lines, width * channels, axis=2)
    example, row = np.arange(len(pictures))[:, None], rows[:, None] + np.arange(height)
    windows = parts[example, row, channels * columns[:, None]]
    return windows.reshape(len(pictures), height, width, *pictures.shape[3:])


LARGEST_SIDE = 2**20
"""Pixels of the side of a picture; more is a mistake."""


LARGEST_DRAWS = 2**20
"""Random numbers for one picture; more is a mistake."""


def check_random_function(num_draws: int, function: Any) -> None:
    """Raise ValueError or TypeError unless these are a number of draws and what uses them."""
    whole = isinstance(num_draws, int | np.integer) and not isinstance(num_draws, bool)
    if not (whole and 0 <= num_draws <= LARGEST_DRAWS):
        raise ValueError(f"num_draws must be a whole number from 0 to {LARGEST_DRAWS}")
    if not callable(function):
        raise TypeError(f"function is {function!r}; expected a function of pictures and numbers")


def check_pixels(name: str, value: int) -> None:
    """Raise ValueError unless `value` is a whole number that a picture's side can have."""
    if not isinstance(value, int | np.integer):
        raise ValueError(f"{name} is {value!r}; expected a whole number of pixels")
    if value > LARGEST_SIDE:
        raise ValueError(f"{name} is more than the {LARGEST_SIDE} pixels of the largest picture")


def _picture_keys(batch: HostBatch) -> list[str]:
    return [key for key in ("image", "label", "target") if key in batch and batch[key].ndim >= 3]


def offsets(uniforms: np.ndarray | float, choices: int | np.ndarray) -> np.ndarray:
    """Return integers uniform on 0, ..., choices - 1; u < 1 in float64 never rounds to choices."""
    return np.floor(uniforms * choices).astype(np.intp)


def _compose(augments: tuple[Augment, ...], batch: HostBatch, uniforms: np.ndarray) -> HostBatch:
    first = 0
    for augment in augments:
        batch = augment(batch, uniforms[:, first : first + augment.num_draws])
        first += augment.num_draws
    return batch


def _flip(batch: HostBatch, uniforms: np.ndarray) -> HostBatch:
    mirrored = np.flatnonzero(uniforms[:, 0] < 0.5)
    result = dict(batch)
    for key in _picture_keys(batch):
        result[key] = _mirror(batch[key], mirrored)
    return result


def _mirror(pictures: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Return a copy in which the pictures of these numbers are mirrored.

    By OpenCV, which turns rows twenty times as fast as NumPy; pixels are bytes to it.
    """
    import cv2

    pictures = np.ascontiguousarray(pictures)
    result = pictures.copy()
    before, after = (p.reshape(*p.shape[:3], -1).view(np.uint8) for p in (pictures, result))
    for number in mirrored:
        cv2.flip(before[number], 1, dst=after[number])
    return result


def _dihedral(batch: HostBatch, uniforms: np.ndarray) -> HostBatch:
    result = _flip(batch, uniforms[:, :1])
    quarter_turns = offsets(uniforms[:, 1], 4)
    for key in _picture_keys(batch):
        pictures = result[key]
        if pictures.shape[1] != pictures.shape[2]:
            raise ValueError(
                f"{key!r} has shape {pictures.shape}: quarter turns need square pictures"
            )
        for turns in (1, 2, 3):
            chosen = quarter_turns == turns
            pictures[chosen] = np.rot90(pictures[chosen], turns, axes=(1, 2))
    return result


def _pad_crop(padding: int, batch: HostBatch, uniforms: np.ndarray) -> HostBatch:
    if _picture_keys(batch) != ["image"]:
        raise ValueError(
            f"pad_crop moves `image` only, and the batch has {_picture_keys(batch)}: "
            "use aligned_crop"
        )
    image = batch["image"]
    sides = (padding, padding)
    padded = np.pad(image, ((0, 0), sides, sides, *[(0, 0)] * (image.ndim - 3)))
    rows, columns = offsets(uniforms, 2 * padding + 1).T
    return {**batch, "image": crop(padded, rows, columns, image.shape[1:3])}


def _aligned_crop(size: int, batch: HostBatch, uniforms: np.ndarray) -> HostBatch:
    height, width = batch["image"].shape[1:3]
    if size > min(height, width):
        raise ValueError(f"a crop of {size} pixels does not fit into pictures {height} x {width}")
    rows, columns = offsets(uniforms, np.array([height, width]) - size + 1).T
    result = dict(batch)
    for key in _picture_keys(batch):
        scale, remainder = divmod(batch[key].shape[1], height)
        if remainder or batch[key].shape[2] != scale * width:
            raise ValueError(
                f"{key!r} has shape {batch[key].shape}, which is no multiple of image's "
                f"{height} x {width}"
            )
        result[key] = crop(batch[key], scale * rows, scale * columns, (scale * size, scale * size))
    return result
