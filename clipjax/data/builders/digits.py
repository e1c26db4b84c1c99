"""scikit-learn's handwritten digits: 1797 grey pictures of 8 x 8 pixels, ten classes.

They are the test set of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits
(UCI Machine Learning Repository, 1998), and ship inside scikit-learn.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from clipjax.data.builders.base import DatasetBuilder
from clipjax.data.builders.packages import require

TEST_EXAMPLES = 360
LEVELS = 16
"""Pixels of the original count ink from 0 to 16."""


def to_uint8(ink: np.ndarray) -> np.ndarray:
    """Scale ink counts to the full range of a byte: round(ink * 255 / 16), halves to even.

    Args:
        ink: (...), from 0 to 16.

    Returns:
        uint8 (...).

    Examples:
        >>> to_uint8(np.array([0.0, 1.0, 8.0, 16.0]))
        array([  0,  16, 128, 255], dtype=uint8)
    """
    return np.rint(ink * (255 / LEVELS)).astype(np.uint8)


def stratified_split(labels: np.ndarray, num_test: int, seed: int = 0) -> np.ndarray:
    """Choose test examples so that each class has its share, by largest remainders.

    Args:
        labels: int (n,).
        num_test: how many examples to choose.
        seed: of the choice within each class.

    Returns:
        bool (n,), true for the test examples.

    Examples:
        >>> int(stratified_split(np.array([0, 0, 0, 0, 1, 1]), num_test=3).sum())
        3
    """
    classes, counts = np.unique(labels, return_counts=True)
    shares = counts * num_test / len(labels)
    quota = np.floor(shares).astype(int)
    by_remainder = np.argsort(quota - shares, kind="stable")
    quota[by_remainder[: num_test - quota.sum()]] += 1
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(labels), bool)
    for number, size in zip(classes, quota, strict=True):
        chosen[rng.permutation(np.flatnonzero(labels == number))[:size]] = True
    return chosen


def load_digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the digits with their split.

    Returns:
        uint8 (1797, 8, 8) pictures, int (1797,) labels, bool (1797,) true for test examples.

    Raises:
        ImportError: If scikit-learn is not installed.
    """
    datasets = require("sklearn.datasets", "scikit-learn")
    digits = datasets.load_digits()
    return to_uint8(digits.images), digits.target, stratified_split(digits.target, TEST_EXAMPLES)


class Digits(DatasetBuilder):
    """scikit-learn's digits: 1437 to train on, 360 to test on."""

    VERSION = tfds.core.Version("1.0.0")
    EMBEDDED = True

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits of 8 x 8 pixels, from scikit-learn.",
            homepage="https://archive.ics.uci.edu/dataset/80",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing to download
        images, labels, is_test = load_digits()
        return {
            "train": self._generate_examples(images, labels, np.flatnonzero(~is_test)),
            "test": self._generate_examples(images, labels, np.flatnonzero(is_test)),
        }

    def _generate_examples(
        self, images: np.ndarray, labels: np.ndarray, chosen: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        from PIL import Image

        for index in chosen.tolist():
            yield (
                index,
                {
                    "id": f"digit {index}",
                    "image": Image.fromarray(images[index]),
                    "label": int(labels[index]),
                },
            )
