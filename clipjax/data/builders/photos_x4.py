"""Crops of photographs with their quarter-size versions, for super-resolution by four.

The target is a crop of 96 x 96 pixels, the image its 24 x 24 version by Pillow's bicubic filter
(Keys' cubic with a = -1/2, stretched by the factor so that it does not alias, as MATLAB's
`imresize` and so DIV2K's bicubic track). Training and test crops are from different photographs.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from clipjax.data.builders.base import DatasetBuilder
from clipjax.data.builders.photographs import credits, load_photographs

SIZE = 96
SCALE = 4
TRAIN_CROPS = 86
"""Of each photograph, at random places."""

MIN_CONTRAST = 12.0
"""Crops with a smaller standard deviation of grey (sky, blur) teach and test nothing."""


def reduce_bicubic(picture: np.ndarray, scale: int = SCALE) -> np.ndarray:
    """Make a picture smaller by Pillow's antialiased bicubic filter.

    Args:
        picture: uint8 (height, width, 3), sides divisible by `scale`.
        scale: the factor.

    Returns:
        uint8 (height / scale, width / scale, 3).

    Examples:
        >>> reduce_bicubic(np.full((8, 8, 3), 9, np.uint8))[..., 0]
        array([[9, 9],
               [9, 9]], dtype=uint8)
    """
    from PIL import Image

    height, width = picture.shape[:2]
    size = (width // scale, height // scale)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def contrast(picture: np.ndarray) -> float:
    """Return the standard deviation of the mean of the channels, in grey levels of 0 to 255."""
    return float(picture.mean(axis=-1).std())


def random_crops(
    photograph: np.ndarray, count: int, rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Yield the top left corners of `count` crops with enough contrast, at random places."""
    while count:
        top = int(rng.integers(photograph.shape[0] - SIZE + 1))
        left = int(rng.integers(photograph.shape[1] - SIZE + 1))
        if contrast(photograph[top : top + SIZE, left : left + SIZE]) >= MIN_CONTRAST:
            count -= 1
            yield top, left


def grid_crops(photograph: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the top left corners of all crops with enough contrast on a grid without overlap."""
    for top in range(0, photograph.shape[0] - SIZE + 1, SIZE):
        for left in range(0, photograph.shape[1] - SIZE + 1, SIZE):
            if contrast(photograph[top : top + SIZE, left : left + SIZE]) >= MIN_CONTRAST:
                yield top, left


class PhotosX4(DatasetBuilder):
    """Crops of photographs, 96 x 96, and their 24 x 24 versions."""

    VERSION = tfds.core.Version("1.0.0")
    EMBEDDED = True

    def _info(self) -> tfds.core.DatasetInfo:
        small = SIZE // SCALE
        return tfds.core.DatasetInfo(
            builder=self,
            description="Crops of photographs and their bicubic quarter-size versions.",
            license=credits(),
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(small, small, 3), encoding_format="png"),
                    "target": tfds.features.Image(shape=(SIZE, SIZE, 3), encoding_format="png"),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing to download
        return {
            "train": self._generate_examples(test=False),
            "test": self._generate_examples(test=True),
        }

    def _generate_examples(self, *, test: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        from PIL import Image

        for number, (name, photograph) in enumerate(load_photographs(test=test).items()):
            rng = np.random.default_rng(number)
            corners = grid_crops(photograph) if test else random_crops(photograph, TRAIN_CROPS, rng)
            for index, (top, left) in enumerate(corners):
                target = photograph[top : top + SIZE, left : left + SIZE]
                yield (
                    f"{name}-{index}",
                    {
                        "id": f"{name} at row {top}, column {left}",
                        "image": Image.fromarray(reduce_bicubic(target)),
                        "target": Image.fromarray(target),
                    },
                )
