import sys

import numpy as np
import pytest
import sklearn.datasets

from clipjax.data.builders.digits import load_digits, stratified_split, to_uint8
from clipjax.data.sources import load, prepare


def pairs(images, labels):
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


def test_the_digits_of_scikit_learn_each_once(data_dir):
    train = load("digits", "train", data_dir).in_memory()
    test = load("digits", "test", data_dir).in_memory()
    assert (len(train["label"]), len(test["label"])) == (1437, 360)
    raw = sklearn.datasets.load_digits()
    # ink of 0..16 to 0..255, written out: the nearest integer to 255 ink / 16; the only tie is
    # ink = 8, 127.5, which goes to the even 128.
    table = [0, 16, 32, 48, 64, 80, 96, 112, 128, 143, 159, 175, 191, 207, 223, 239, 255]
    images = np.array(table, np.uint8)[raw.images.astype(int)]
    ours = pairs(train["image"], train["label"]) + pairs(test["image"], test["label"])
    assert sorted(ours) == pairs(images, raw.target)


def test_each_class_has_its_share(data_dir):
    train = np.bincount(load("digits", "train", data_dir).in_memory()["label"])
    test = np.bincount(load("digits", "test", data_dir).in_memory()["label"])
    assert np.abs(test - (train + test) * 360 / 1797).max() < 1


def test_training_is_not_sorted_by_class(data_dir):
    labels = load("digits", "train", data_dir).in_memory()["label"]
    assert len(set(labels[:50])) == 10


def test_stratified_split_has_the_size_asked_for():
    labels = np.repeat([0, 1, 2], [5, 5, 5])
    for size in range(16):
        chosen = stratified_split(labels, size)
        assert chosen.sum() == size
        assert np.ptp(np.bincount(labels[chosen], minlength=3)) <= 1


def test_what_is_left_over_goes_to_the_largest_remainder():
    # 6 of 10 + 5 + 4: shares 3.16, 1.58, 1.26; rounded down 3, 1, 1; the sixth to the second.
    labels = np.repeat([0, 1, 2], [10, 5, 4])
    assert np.bincount(labels[stratified_split(labels, 6)]).tolist() == [3, 2, 1]


def test_to_uint8_uses_the_whole_range():
    assert to_uint8(np.arange(17.0)).tolist()[::4] == [0, 64, 128, 191, 255]


def test_without_scikit_learn_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # makes the import fail
    with pytest.raises(
        ImportError, match=r"needs scikit-learn.*pip install 'clipjax\[experiments\]'"
    ):
        prepare("digits", tmp_path)
    with pytest.raises(ImportError, match="scikit-learn"):
        load_digits()
