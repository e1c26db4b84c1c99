"""Your own pictures for super-resolution by four.

    SPLIT/HR/NAME.png                       or SPLIT/NAME.png: pictures in full size
    SPLIT/LR/NAME.png (or NAMEx4.png)       quarter sizes; made by antialiased bicubic where there
                                            is no folder LR

SPLIT is train, validation (val, valid) or test; in a folder, a tar or a zip. A picture whose sides
four does not divide loses up to three rows and columns at the bottom and right, if its quarter size
is made; with a folder LR it must be four times as large exactly.

Large pictures (over 960 pixels) of the training split are stored as tiles of 480, so that a random
crop need not decode two megapixels. Tiles at the lower and right border overlap their neighbours;
a crop never straddles two tiles.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from clipjax.data.builders.archives import BadExample, Members
from clipjax.data.builders.image_folder import SPLIT_NAMES, check_split_folders
from clipjax.data.builders.photos_x4 import SCALE, reduce_bicubic
from clipjax.data.builders.pictures import SUFFIXES, png_of, size
from clipjax.data.builders.raw import UPRIGHT, RawBuilder

TILE = 480
"""Side of the tiles of large training pictures, in pixels of the target."""
LARGEST_WHOLE = 2 * TILE

FEATURES = {
    "id": tfds.features.Text(),
    "image": tfds.features.Image(shape=(None, None, 3)),
    "target": tfds.features.Image(shape=(None, None, 3)),
}

Item = tuple[str, str, str | None, tuple[int, int, int, int] | None]
"""Id, file of the target, file of the image (None: it is made), and window of the target."""


def tile_corners(length: int) -> list[int]:
    """Return where tiles begin along a side: every 480 pixels, the last one at the border.

    Examples:
        >>> tile_corners(1356), tile_corners(500), tile_corners(300)
        ([0, 480, 876], [0, 20], [0])
    """
    if length <= TILE:
        return [0]
    return [*range(0, length - TILE, TILE), length - TILE]


def windows(height: int, width: int) -> list[tuple[int, int, int, int] | None]:
    """Return (top, left, height, width) of the tiles of a large picture; [None] for a small one.

    Corners are multiples of four where the sides are.
    """
    if max(height, width) <= LARGEST_WHOLE:
        return [None]
    return [
        (top, left, min(height, TILE), min(width, TILE))
        for top in tile_corners(height)
        for left in tile_corners(width)
    ]


class _Pictures:
    """Decodes the pictures of a split, the last pair kept: tiles of one follow one another."""

    def __init__(self, builder: RawBuilder, targets: Members, images: Members) -> None:
        self._builder, self._targets, self._images = builder, targets, images
        self._last: tuple[Any, Any] = (None, None)

    def pair(self, target: str, image: str | None) -> tuple[np.ndarray, np.ndarray]:
        """Return target and image, uint8 (height, width, 3), checked to belong together."""
        if self._last[0] != (target, image):
            self._last = (target, image), self._decode(target, image)
        return self._last[1]

    def _decode(self, target: str, image: str | None) -> tuple[np.ndarray, np.ndarray]:
        where = self._targets.where(target)
        high = _pixels(self._builder.picture(self._targets, target))
        if min(high.shape[:2]) < SCALE:
            raise BadExample(f"{where} is {high.shape[0]} x {high.shape[1]} pixels, too small")
        if image is None:
            high = high[: high.shape[0] // SCALE * SCALE, : high.shape[1] // SCALE * SCALE]
            return high, reduce_bicubic(high)
        beside = self._images.where(image)
        low = _pixels(self._builder.picture(self._images, image))
        if (SCALE * low.shape[0], SCALE * low.shape[1]) != high.shape[:2]:
            raise BadExample(
                f"{where} is {high.shape[0]} x {high.shape[1]} pixels, which is not {SCALE} times "
                f"the {low.shape[0]} x {low.shape[1]} of {beside}"
            )
        return high, low


def super_resolution_examples(
    builder: RawBuilder,
    split: str,
    targets: Members,
    images: Members,
    named: Sequence[tuple[str, str, str | None]],
    tiled: bool,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the examples of (id, file of the target, file of the image or None)."""
    pictures = _Pictures(builder, targets, images)

    def items() -> Iterator[Item]:
        for name, target, image in named:
            shape = _size(targets, target) if tiled else (0, 0)
            if image is None:
                shape = shape[0] // SCALE * SCALE, shape[1] // SCALE * SCALE
            for window in windows(*shape):
                place = "" if window is None else f" at row {window[0]}, column {window[1]}"
                yield name + place, target, image, window

    def make(item: Item) -> dict[str, Any]:
        name, target, image, window = item
        high, low = pictures.pair(target, image)
        if window is not None:
            top, left, height, width = window
            high = high[top : top + height, left : left + width]
            top, left, height, width = (n // SCALE for n in window)
            low = low[top : top + height, left : left + width]
        return {"id": name, "image": png_of(low), "target": png_of(high)}

    return builder.examples(split, list(items()), make)


def _size(members: Members, name: str) -> tuple[int, int]:
    """Return height and width of an upright picture; 0, 0 for a file that is none."""
    try:
        return size(members.read(name))
    except BadExample:
        return 0, 0


def _pixels(encoded: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


class SuperResolutionFolder(RawBuilder):
    """Your own pictures, and their quarter sizes."""

    name = "super_resolution_folder"
    VERSION = UPRIGHT
    NEEDS = "SPLIT/HR/*.png, and SPLIT/LR/*.png if you have quarter sizes, for SPLIT train and test"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures and their quarter sizes.",
            features=tfds.features.FeaturesDict(FEATURES),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing to download
        members = self.open(self.folder())
        check_split_folders(members, members.under("", SUFFIXES))
        found: dict[str, list[tuple[str, str, str | None]]] = {}
        for folder, split in SPLIT_NAMES.items():
            if names := members.under(f"{folder}/", SUFFIXES):
                found[split] = self._pairs(members, names)
        if not found:
            raise self.missing("train/HR/*.png")
        return {
            split: super_resolution_examples(
                self, split, members, members, named, tiled=split == "train"
            )
            for split, named in found.items()
        }

    def _pairs(self, members: Members, names: list[str]) -> list[tuple[str, str, str | None]]:
        low = {PurePosixPath(n).stem: n for n in names if PurePosixPath(n).parent.name == "LR"}
        high = [n for n in names if PurePosixPath(n).parent.name != "LR"]
        pairs = []
        for name in high:
            stem = PurePosixPath(name).stem
            image = low.pop(stem, None) or low.pop(f"{stem}x{SCALE}", None)
            if image is None and (low or (pairs and pairs[-1][2])):
                raise BadExample(f"{members.where(name)} has no picture in LR, though others have")
            pairs.append((name, name, image))
        if low:
            raise BadExample(f"{members.where(min(low.values()))} has no picture in HR")
        return pairs
