"""What is cut out of one picture, so that pictures of all sizes make batches of one.

A `View` maps one decoded record and a few uniform numbers to a record of fixed size; where it
needs no numbers it is the same every time. As with `Augment`, the numbers come from outside
(`clipjax.data.pipeline`). Whatever moves `image` moves its mask or its target with it.

>>> view = random_resized_crop(8)
>>> record = {"image": np.zeros((20, 30, 3), np.uint8), "label": np.int32(3)}
>>> view(record, np.full(view.num_draws, 0.5))["image"].shape
(8, 8, 3)
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

from clipjax.data.augment import check_pixels, check_random_function, offsets

Record = dict[str, np.ndarray]

VOID = 255
"""What masks are padded with: pixels that count nowhere."""

ATTEMPTS = 10
"""How often `random_resized_crop` draws before it takes the middle of the picture."""


@dataclasses.dataclass(frozen=True)
class View:
    """A function of a record and of `num_draws` uniform numbers in [0, 1)."""

    num_draws: int
    function: Callable[[Record, np.ndarray], Record]

    def __post_init__(self) -> None:
        check_random_function(self.num_draws, self.function)

    def __call__(self, record: Record, uniforms: np.ndarray) -> Record:
        """Return what is cut out; `record` is left as it is.

        Args:
            record: `image` uint8 (height, width, channels), and what belongs to it.
            uniforms: float (num_draws,) in [0, 1).

        Raises:
            ValueError: If the picture is too small for the view.
        """
        if uniforms.shape != (self.num_draws,):
            raise ValueError(f"uniforms of shape {uniforms.shape}, expected ({self.num_draws},)")
        return self.function(record, uniforms)


def random_resized_crop(
    size: int,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> View:
    """Cut out a part of random area, shape and place, and resize it to `size` x `size`.

    The area's share of the picture is uniform in `area`, the logarithm of width / height in
    log `ratio`; of ten draws the first that fits is taken, else the largest part in the middle
    whose shape `ratio` allows (Szegedy et al. 2015, "Going deeper with convolutions", section 6,
    with torchvision's details). Shrinking averages areas, enlarging is bilinear.

    Args:
        size: side of the result.
        area: smallest and largest share of the picture.
        ratio: smallest and largest width / height.

    Raises:
        ValueError: If an argument is not positive or a range is empty.

    Examples:
        >>> record = {"image": np.full((50, 40, 3), 7, np.uint8), "label": np.int32(1)}
        >>> view = random_resized_crop(4)
        >>> int(view(record, np.full(view.num_draws, 0.3))["image"].mean())
        7
    """
    _check_size(size)
    check_range("area", area)
    check_range("ratio", ratio)
    for name, (low, high) in {"area": area, "ratio": ratio}.items():
        if not 0 < low <= high or (name == "area" and high > 1):
            raise ValueError(f"{name} is ({low}, {high}); expected 0 < low <= high (area: <= 1)")
    draws = 2 * ATTEMPTS + 2
    return View(draws, functools.partial(_random_resized_crop, size, area, ratio))


def resize_center_crop(resize: int, size: int) -> View:
    """Resize so that the shorter side is `resize`, and cut `size` x `size` out of the middle.

    Examples:
        >>> record = {"image": np.zeros((30, 20, 3), np.uint8)}
        >>> resize_center_crop(10, 8)(record, np.empty(0))["image"].shape
        (8, 8, 3)
    """
    _check_size(size)
    _check_size(resize, "resize")
    if resize < size:
        raise ValueError(f"resize is {resize}, smaller than the crop of {size}")
    return View(0, functools.partial(_resize_center_crop, resize, size))


def random_scale_crop(size: int, scales: tuple[float, float] = (0.5, 2.0)) -> View:
    """Scale picture and mask by a random factor and crop `size` x `size` at a random place.

    The factor is uniform in `scales`. The picture is resized as in `random_resized_crop`, the mask
    to the nearest pixel. Where the result is smaller than the crop, it lies at a random place in
    it, the picture continued by its mirror image and the mask by void pixels.

    Args:
        size: side of the crop.
        scales: smallest and largest factor.

    Examples:
        >>> record = {"image": np.zeros((9, 9, 3), np.uint8), "label": np.zeros((9, 9), np.uint8)}
        >>> found = random_scale_crop(6, (1.0, 1.0))(record, np.zeros(3))
        >>> found["image"].shape, found["label"].shape
        ((6, 6, 3), (6, 6))
    """
    _check_size(size)
    check_range("scales", scales)
    if not 0 < scales[0] <= scales[1]:
        raise ValueError(f"scales are {scales}; expected 0 < smallest <= largest")
    return View(3, functools.partial(_random_scale_crop, size, scales))


def random_crop(size: int) -> View:
    """Crop `size` x `size` pixels of `image` at a random place, and the same part of the others.

    A picture that is s times as large as `image` (a super-resolution target) is cropped to
    s size x s size at s times the offset.

    Examples:
        >>> record = {"image": np.zeros((9, 7, 3), np.uint8), "target": np.zeros((36, 28, 3))}
        >>> random_crop(2)(record, np.array([0.5, 0.9]))["target"].shape
        (8, 8, 3)
    """
    _check_size(size)
    return View(2, functools.partial(_crop_at, size))


def center_crop(size: int, *, pad: bool = False) -> View:
    """Crop `size` x `size` pixels in the middle of `image`, and the same part of the others.

    Args:
        size: side of the crop of `image`.
        pad: where a picture is smaller, continue it as `random_scale_crop` does.

    Examples:
        >>> center_crop(1)({"image": np.arange(9).reshape(3, 3, 1)}, np.empty(0))["image"].item()
        4
    """
    _check_size(size)
    return View(0, functools.partial(_center_crop, size, pad))


def pad_to(record: Record, height: int, width: int) -> Record:
    """Continue a record's pictures at the bottom and at the right, to a given size of `image`.

    Pictures are continued by their mirror image, masks by void pixels; a target becomes as many
    times as large as `image` as it was. `size` says how much of `image` is real.

    Returns:
        The record with `size`, int32 (2,), height and width before.

    Examples:
        >>> record = {"image": np.array([[1, 2]]).reshape(1, 2, 1), "label": np.array([[1, 0]])}
        >>> padded = pad_to(record, 2, 4)
        >>> padded["image"][..., 0].tolist(), padded["label"].tolist(), padded["size"].tolist()
        ([[1, 2, 2, 1], [1, 2, 2, 1]], [[1, 0, 255, 255], [255, 255, 255, 255]], [1, 2])
    """
    rows, columns = record["image"].shape[:2]
    result = dict(record, size=np.array([rows, columns], np.int32))
    for key in _pictures(record):
        scale = record[key].shape[0] // rows
        result[key] = _pad(key, record[key], scale * (height - rows), scale * (width - columns))
    return result


def _check_size(size: int, name: str = "size") -> None:
    check_pixels(name, size)
    if size < 1:
        what = "the size of a crop" if name == "size" else name
        raise ValueError(f"{what} must be at least 1 pixel, got {size}")


def check_range(name: str, limits: tuple[float, float]) -> None:
    """Raise ValueError unless `limits` are two real numbers."""
    pair = isinstance(limits, tuple | list) and len(limits) == 2
    if not (pair and all(isinstance(number, int | float | np.number) for number in limits)):
        raise ValueError(f"{name} is {limits!r}; expected two numbers, smallest and largest")


def _pictures(record: Record) -> list[str]:
    return [k for k in ("image", "label", "target") if k in record and np.ndim(record[k]) >= 2]


def _pad(key: str, picture: np.ndarray, below: int, right: int) -> np.ndarray:
    sides = ((0, below), (0, right), *[(0, 0)] * (picture.ndim - 2))
    if key == "label":
        return np.pad(picture, sides, constant_values=VOID)
    return np.pad(picture, sides, mode="symmetric")


def resize(picture: np.ndarray, height: int, width: int, *, nearest: bool = False) -> np.ndarray:
    """Resize a picture: averaging areas where both sides shrink, else bilinear; or a mask.

    Args:
        picture: uint8 (height, width, channels), or (height, width) with `nearest`.
        height: of the result.
        width: of the result.
        nearest: take the nearest pixel.

    Examples:
        >>> resize(np.array([[[0], [2]], [[4], [6]]], np.uint8), 1, 1).item()
        3
    """
    import cv2

    if picture.shape[:2] == (height, width):
        return picture
    shrinks = height <= picture.shape[0] and width <= picture.shape[1]
    smooth = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    method = cv2.INTER_NEAREST_EXACT if nearest else smooth
    resized = cv2.resize(np.ascontiguousarray(picture), (width, height), interpolation=method)
    return resized.reshape(height, width, *picture.shape[2:])  # one channel is dropped by OpenCV


def _window(
    height: int,
    width: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    uniforms: np.ndarray,
) -> tuple[int, int, int, int]:
    """Return top, left, height and width of a random part (see `random_resized_crop`)."""
    shares, shapes = uniforms[: 2 * ATTEMPTS].reshape(2, ATTEMPTS)
    areas = height * width * (area[0] + (area[1] - area[0]) * shares)
    low, high = map(math.log, ratio)
    ratios = np.exp(low + (high - low) * shapes)
    rows = np.rint(np.sqrt(areas / ratios)).astype(int)
    columns = np.rint(np.sqrt(areas * ratios)).astype(int)
    fits = (rows >= 1) & (rows <= height) & (columns >= 1) & (columns <= width)
    if not fits.any():
        rows_, columns_ = height, width
        if width / height < ratio[0]:
            rows_ = min(height, max(1, round(width / ratio[0])))
        elif width / height > ratio[1]:
            columns_ = min(width, max(1, round(height * ratio[1])))
        return (height - rows_) // 2, (width - columns_) // 2, rows_, columns_
    first = int(np.argmax(fits))
    rows_, columns_ = int(rows[first]), int(columns[first])
    room = np.array([height - rows_ + 1, width - columns_ + 1])
    top, left = offsets(uniforms[2 * ATTEMPTS :], room).tolist()
    return top, left, rows_, columns_


def _random_resized_crop(
    size: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    record: Record,
    uniforms: np.ndarray,
) -> Record:
    _image_alone("random_resized_crop", record)
    image = record["image"]
    height, width = image.shape[:2]
    top, left, rows, columns = _window(height, width, area, ratio, uniforms)
    part = image[top : top + rows, left : left + columns]
    return {**record, "image": resize(part, size, size)}


def _resize_center_crop(to: int, size: int, record: Record, uniforms: np.ndarray) -> Record:
    del uniforms
    _image_alone("resize_center_crop", record)
    height, width = record["image"].shape[:2]
    short = min(height, width)
    rows, columns = max(to, round(to * height / short)), max(to, round(to * width / short))
    image = resize(record["image"], rows, columns)
    top, left = (rows - size) // 2, (columns - size) // 2
    return {**record, "image": image[top : top + size, left : left + size]}


def _random_scale_crop(
    size: int, scales: tuple[float, float], record: Record, uniforms: np.ndarray
) -> Record:
    factor = scales[0] + (scales[1] - scales[0]) * uniforms[0]
    height, width = record["image"].shape[:2]
    rows, columns = max(1, round(factor * height)), max(1, round(factor * width))
    result = dict(record)
    for key in _pictures(record):
        if record[key].shape[:2] != (height, width):
            raise ValueError(f"{key!r} is {record[key].shape[:2]}, image {(height, width)} pixels")
        scaled = resize(record[key], rows, columns, nearest=key == "label")
        result[key] = _place(key, scaled, size, uniforms[1:])
    return result


def _place(key: str, picture: np.ndarray, size: int, uniforms: np.ndarray) -> np.ndarray:
    """Crop along the axes where a picture is larger than `size`, continue it where smaller."""
    for axis in (0, 1):
        room = size - picture.shape[axis]
        offset = int(offsets(uniforms[axis], abs(room) + 1))
        if room <= 0:
            part = slice(offset, offset + size)
            picture = picture[part] if axis == 0 else picture[:, part]
            continue
        sides = [(0, 0)] * picture.ndim
        sides[axis] = (offset, room - offset)
        if key == "label":
            picture = np.pad(picture, sides, constant_values=VOID)
        else:
            picture = np.pad(picture, sides, mode="symmetric")
    return picture


def _crop_at(size: int, record: Record, uniforms: np.ndarray) -> Record:
    height, width = record["image"].shape[:2]
    if size > min(height, width):
        raise ValueError(f"a crop of {size} pixels does not fit into {height} x {width}")
    top, left = offsets(uniforms, np.array([height, width]) - size + 1).tolist()
    result = dict(record)
    for key in _pictures(record):
        scale, remainder = divmod(record[key].shape[0], height)
        if remainder or record[key].shape[1] != scale * width:
            raise ValueError(
                f"{key!r} is {record[key].shape[:2]} pixels, no multiple of image's "
                f"{(height, width)}"
            )
        rows = slice(scale * top, scale * (top + size))
        result[key] = record[key][rows, scale * left : scale * (left + size)]
    return result


def _center_crop(size: int, pad: bool, record: Record, uniforms: np.ndarray) -> Record:
    del uniforms
    if pad:
        height, width = (max(size, n) for n in record["image"].shape[:2])
        record = {k: v for k, v in pad_to(record, height, width).items() if k != "size"}
    return _crop_at(size, record, np.array([0.5, 0.5]))


def _image_alone(view: str, record: Record) -> None:
    if _pictures(record) != ["image"]:
        raise ValueError(
            f"{view} changes `image` only, and the record has {_pictures(record)}: use "
            "random_scale_crop for masks, random_crop for targets"
        )
