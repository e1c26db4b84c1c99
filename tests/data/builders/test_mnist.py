import gzip
import struct

import numpy as np
import pytest

from clipjax.data import load
from clipjax.data.builders.mnist import read_idx
from tests.data.builders.miniature import prepared, shared


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return head + array.tobytes()


def write(folder, data, packed=True):
    folder.mkdir(exist_ok=True)
    for prefix, (images, labels) in data.items():
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            content = gzip.compress(idx(array)) if packed else idx(array)
            (folder / f"{prefix}-{name}-ubyte{'.gz' if packed else ''}").write_bytes(content)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("packed", [True, False])
def test_from_idx_files(tmp_path, data, name, packed):
    write(tmp_path / "raw", data, packed)
    found = prepared(name, tmp_path, tmp_path / "raw")
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = data[prefix]
        assert len(found[split]) == len(labels)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            record = found[split][f"{split} {i}"]
            np.testing.assert_array_equal(record["image"][..., 0], image)
            assert record["label"] == label
    names = load(name, "train", tmp_path / "prepared").class_names
    assert names[9] == ("9" if name == "mnist" else "Ankle boot")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_real_files_have_the_published_checksums(name, tmp_path):
    """The two data sets' files have the same names: each has its own checksums."""
    from clipjax.data.builders.mnist import FashionMnist, Mnist
    from clipjax.data.builders.raw import Raw, WrongChecksum

    folders = {kind: shared(kind) for kind in ("mnist", "fashion_mnist")}
    kinds = {"mnist": Mnist, "fashion_mnist": FashionMnist}
    file = "t10k-labels-idx1-ubyte.gz"
    other = next(kind for kind in kinds if kind != name)
    builder = kinds[name](data_dir=tmp_path, raw=Raw(folders[name]))
    for path in sorted(folders[name].glob("*.gz")):
        builder.verify(path)
    with pytest.raises(WrongChecksum, match=r"not the published file: \d+ bytes"):
        builder.verify(folders[other] / file)
    assert read_idx(folders[name] / file).shape == (10000,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(idx(np.zeros((3, 4), np.uint8)))[:-9], "is cut or damaged"),
        (idx(np.zeros((3, 4), np.uint8))[:-1], r"is cut: 23 bytes for an array of shape \(3, 4\)"),
        (b"\0\0\x0d\x01\0\0\0\0", "is no IDX file of bytes"),  # of floats
        (b"<html>", "is no IDX file of bytes: it begins with b'<htm'"),
        (b"", "is no IDX file of bytes"),
    ],
    ids=["gzip cut", "cut", "floats", "html", "empty"],
)
def test_damaged_files_are_named(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{path} {message}"):
        read_idx(path)


def test_images_and_labels_that_do_not_belong_together(tmp_path, data):
    data["train"] = data["train"][0], data["train"][1][:-1]
    write(tmp_path / "raw", data)
    with pytest.raises(ValueError, match=r"do not belong together: \(12, 28, 28\) images, \(11,\)"):
        prepared("mnist", tmp_path, tmp_path / "raw")
