"""Sets of two classes: points in the plane, pairs of MNIST's digits, LIBSVM files.

No set has an intercept: planes go through the origin. Digits and LIBSVM files get a column of ones.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clipjax import data
from experiments.high_probability.published import libsvm_file

LIBSVM = ("heart", "diabetes", "australian")


class Examples(NamedTuple):
    """Features (m, n), float64, and labels (m,), each -1 or +1."""

    x: np.ndarray
    labels: np.ndarray


def points(seed: int = 0) -> Examples:
    """Return 32 points of a normal law, pushed 0.3 away from a line: the fixture of the tests."""
    x = np.random.default_rng(seed).normal(size=(32, 2))
    across = np.array([1.0, 0.5]) / np.hypot(1.0, 0.5)
    labels = np.where(x @ across > 0, 1, -1)
    return Examples(x + 0.3 * labels[:, None] * across, labels)


def blobs(seed: int = 0) -> Examples:
    """Return two round clouds of 20 points each, one three times as far from 0 as the other."""
    rng = np.random.default_rng(seed)
    near, far = rng.normal((1.0, 0.6), 0.3, (20, 2)), rng.normal((-3.0, -0.6), 0.3, (20, 2))
    return Examples(np.concatenate([near, far]), np.repeat([1, -1], 20))


def stretched(seed: int = 5) -> Examples:
    """Return two long clouds beside a line: their means lie along it, the separator across."""
    rng = np.random.default_rng(seed)
    along, across = np.array([0.8, 0.6]), np.array([-0.6, 0.8])
    labels = np.repeat([1, -1], 20)
    place = labels * rng.uniform(0.0, 4.0, 40)
    height = labels * rng.uniform(0.25, 0.6, 40)
    return Examples(place[:, None] * along + height[:, None] * across, labels)


PLANE: dict[str, tuple[str, Callable[[], Examples]]] = {
    "points": ("32 points", points),
    "blobs": ("two clouds", blobs),
    "stretched": ("oblique clouds", stretched),
}
"""Labels and makers of the sets in the plane."""


def flipped(examples: Examples, share: float, seed: int = 0) -> Examples:
    """Return the set with the nearest whole number to `share` of its labels turned."""
    count = round(share * len(examples.labels))
    chosen = np.random.default_rng(seed).choice(len(examples.labels), count, replace=False)
    labels = examples.labels.copy()
    labels[chosen] *= -1
    return Examples(examples.x, labels)


def digit_pair(one: int, other: int, most: int, data_dir: Path | None) -> Examples:
    """Return the first `most` training examples of two digits of MNIST, pixels in [0, 1].

    Raises:
        DatasetNotPrepared: where MNIST is not prepared, with the command that does it.
    """
    source = data.load("mnist", "train", data_dir)
    pictures, labels = [], []
    for index in range(len(source)):
        record = source[index]
        if record["label"] in (one, other):
            pictures.append(np.ravel(record["image"]) / 255)
            labels.append(1 if record["label"] == other else -1)
        if len(labels) == most:
            break
    return with_ones(Examples(np.array(pictures), np.array(labels)))


def libsvm(name: str) -> Examples:
    """Return a LIBSVM file of $CLIPJAX_LIBSVM_DIR.

    Raises:
        FileNotFoundError: where it is not there, with where to get it.
    """
    return Examples(*data.read_libsvm(Path(libsvm_file(name))))


def with_ones(examples: Examples) -> Examples:
    """Return the set with a column of ones, whose weight is the intercept."""
    return Examples(np.hstack([examples.x, np.ones((len(examples.x), 1))]), examples.labels)
