import itertools
import re

import numpy as np
import pytest

from clipjax.data.builders.photographs import load_photographs
from clipjax.data.builders.photos_x4 import MIN_CONTRAST, contrast, reduce_bicubic
from clipjax.data.sources import load


def places(source):
    """Where each record was cut: photograph, row, column."""
    pattern = re.compile(r"(\w+) at row (\d+), column (\d+)")
    found = [pattern.fullmatch(record["id"].decode()) for record in source.records]
    return [(m[1], int(m[2]), int(m[3])) for m in found]


def cubic(x):
    """Keys' cubic convolution kernel with a = -1/2."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def written_out_reduction(picture, scale):
    """Antialiased bicubic reduction, float64: the kernel stretched by `scale`, weights of sum 1."""

    def weights(size):
        centres = (np.arange(size // scale) + 0.5) * scale - 0.5
        w = cubic((np.arange(size)[None, :] - centres[:, None]) / scale)
        return w / w.sum(axis=1, keepdims=True)

    rows, columns = weights(picture.shape[0]), weights(picture.shape[1])
    return np.einsum("ij,jkc,lk->ilc", rows, picture.astype(float), columns)


@pytest.mark.parametrize("shape", [(96, 96, 3), (16, 40, 3)])
def test_reduction_is_antialiased_bicubic(shape):
    # Pillow rounds after each of its two passes (0.5 each, the second kernel's sum of |weights|
    # is about 1.3): 0.5 * 1.3 + 0.5 = 1.15 levels at most.
    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    expected = np.clip(written_out_reduction(picture, 4), 0, 255)
    assert np.abs(reduce_bicubic(picture) - expected).max() <= 1.15


@pytest.mark.parametrize(("split", "count"), [("train", 602), ("test", 51)])
def test_images_are_reduced_targets(data_dir, split, count):
    arrays = load("photos_x4", split, data_dir).in_memory()
    assert arrays["image"].shape == (count, 24, 24, 3)
    assert arrays["target"].shape == (count, 96, 96, 3)
    for image, target in zip(arrays["image"], arrays["target"], strict=True):
        np.testing.assert_array_equal(image, reduce_bicubic(target))
        assert contrast(target) >= MIN_CONTRAST


@pytest.mark.parametrize("test", [False, True])
def test_targets_are_where_they_say(data_dir, test):
    source = load("photos_x4", "test" if test else "train", data_dir)
    pictures = load_photographs(test=test)
    targets = source.in_memory()["target"]
    found = places(source)
    assert {name for name, _, _ in found} == set(pictures)
    for (name, row, column), target in zip(found, targets, strict=True):
        np.testing.assert_array_equal(target, pictures[name][row : row + 96, column : column + 96])


def test_test_crops_do_not_overlap(data_dir):
    for a, b in itertools.combinations(places(load("photos_x4", "test", data_dir)), 2):
        assert a[0] != b[0] or abs(a[1] - b[1]) >= 96 or abs(a[2] - b[2]) >= 96
