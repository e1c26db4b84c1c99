import io

import numpy as np
import pytest
from scipy.io import savemat

from clipjax.data import load
from clipjax.data.builders.archives import Members
from clipjax.data.builders.imagenet100 import class_ids, devkit_labels
from tests.data.builders.miniature import (
    SHARED,
    encode,
    pixels,
    prepared,
    shared,
    write_folder,
    write_tar,
)

OTHERS = ("n01860187", "n13133613")
"""Two of the other 900 classes; the first comes right behind the hundred."""


def devkit(labels):
    """Return the files of a development kit; its own numbers run against the alphabet."""
    order = [*sorted({*class_ids(), *OTHERS}, reverse=True)]
    synsets = np.array(
        [(i + 1, wnid) for i, wnid in enumerate(order)],
        dtype=[("ILSVRC2012_ID", object), ("WNID", object)],
    )
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    numbers = "".join(f"{order.index(wnid) + 1}\n" for wnid in labels)
    root = "ILSVRC2012_devkit_t12/data/"
    return {
        f"{root}meta.mat": meta.getvalue(),
        f"{root}ILSVRC2012_validation_ground_truth.txt": numbers.encode(),
    }


def pictures():
    """Two JPEGs of a class, a real one where there is one, of different sizes; some grey."""
    real = {}
    for path in sorted((SHARED / "imagenet_samples").glob("*.JPEG")):
        real[path.name.partition("_")[0]] = path.read_bytes()
    train = {}
    for i, wnid in enumerate(class_ids()):
        made = pixels(i, 20 + i % 7, 30, channels=1 if i % 10 == 0 else 3)
        train[wnid] = {f"{wnid}_0.JPEG": encode(made, "JPEG", quality=95)}
        if wnid in real:
            train[wnid][f"{wnid}_1.JPEG"] = real[wnid]
    return train


LABELS = [class_ids()[7], OTHERS[0], class_ids()[99], class_ids()[0], OTHERS[1]]
VAL = {
    # The files of other classes are no pictures: they must not be looked at.
    f"ILSVRC2012_val_{i + 1:08d}.JPEG": (
        b"never to be read" if wnid in OTHERS else encode(pixels(1000 + i), "JPEG")
    )
    for i, wnid in enumerate(LABELS)
}


@pytest.fixture
def archives(tmp_path):
    train = pictures()
    inner = {f"{wnid}.tar": write_tar(None, files) for wnid, files in train.items()}
    inner |= {f"{wnid}.tar": b"no tar, and never to be opened" for wnid in OTHERS}
    raw = tmp_path / "raw"
    raw.mkdir()
    write_tar(raw / "ILSVRC2012_img_train.tar", inner)
    write_tar(raw / "ILSVRC2012_img_val.tar", VAL)
    write_tar(raw / "ILSVRC2012_devkit_t12.tar.gz", devkit(LABELS), "w:gz")
    return raw, train


def assert_is_the_data(found, train):
    expected = {name: wnid for wnid, files in train.items() for name in files}
    assert set(found) == {"train", "validation"}
    assert set(found["train"]) == set(expected)
    for name, record in found["train"].items():
        wnid = expected[name]
        assert record["label"] == class_ids().index(wnid)
        assert record["image"].ndim == 3
        assert record["image"].shape[2] == 3
    validation = {name: record["label"] for name, record in found["validation"].items()}
    assert validation == {
        name: class_ids().index(wnid)
        for name, wnid in zip(VAL, LABELS, strict=True)
        if wnid not in OTHERS
    }


def test_from_the_original_archives(tmp_path, archives):
    raw, train = archives
    found = prepared("imagenet100", tmp_path, raw)
    assert_is_the_data(found, train)
    source = load("imagenet100", "train", tmp_path / "prepared")
    assert source.num_classes == 100
    assert source.class_names == tuple(class_ids())
    # JPEGs are stored as they came, grey ones too.
    stored = {record["id"].decode(): record["image"] for record in source.records}
    assert stored == {name: content for files in train.values() for name, content in files.items()}


def test_from_folders_the_same(tmp_path, archives):
    raw, train = archives
    found = prepared("imagenet100", tmp_path, raw)
    folder = tmp_path / "unpacked"
    write_folder(folder / "train", {f"{w}/{n}": c for w, f in train.items() for n, c in f.items()})
    write_folder(folder / "train", {f"{wnid}/picture.JPEG": b"no picture" for wnid in OTHERS})
    write_folder(folder / "val", VAL)
    write_folder(folder, devkit(LABELS))
    again = prepared("imagenet100", tmp_path / "again", folder)
    np.testing.assert_equal(again, found)


def test_from_a_folder_of_tars(tmp_path, archives):
    """As the outer tar is unpacked by most."""
    raw, train = archives
    (raw / "ILSVRC2012_img_train.tar").unlink()
    inner = {f"{wnid}.tar": write_tar(None, files) for wnid, files in train.items()}
    write_folder(raw / "train", inner | {f"{OTHERS[0]}.tar": b"never to be opened"})
    assert_is_the_data(prepared("imagenet100", tmp_path, raw), train)


def test_val_sorted_by_class_needs_no_labels(tmp_path, archives):
    raw, train = archives
    (raw / "ILSVRC2012_img_val.tar").unlink()
    (raw / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    by_class = {f"{w}/{n}": c for w, (n, c) in zip(LABELS, VAL.items(), strict=True)}
    write_folder(raw / "val", by_class)
    assert_is_the_data(prepared("imagenet100", tmp_path, raw), train)


def test_without_the_devkit_the_labels_are_those_that_tfds_carries(tmp_path, archives):
    raw, _ = archives
    (raw / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    # Number 1 of the real validation set is of class n01751748, number 3 of n02105855 (a dog).
    (raw / "ILSVRC2012_img_val.tar").unlink()
    write_tar(
        raw / "ILSVRC2012_img_val.tar",
        {
            "ILSVRC2012_val_00000001.JPEG": encode(pixels(1), "JPEG"),
            "ILSVRC2012_val_00000003.JPEG": b"not one of the hundred",
        },
    )
    found = prepared("imagenet100", tmp_path, raw)["validation"]
    assert {name: class_ids()[r["label"]] for name, r in found.items()} == {
        "ILSVRC2012_val_00000001.JPEG": "n01751748"
    }


def test_the_devkit_resolves_its_own_numbers(tmp_path):
    write_tar(tmp_path / "devkit.tar.gz", devkit(LABELS), "w:gz")
    with Members(tmp_path / "devkit.tar.gz") as members:
        assert devkit_labels(members) == LABELS


def test_the_classes_are_the_first_hundred():
    import importlib.resources

    listed = importlib.resources.files("tensorflow_datasets") / "datasets/imagenet2012/labels.txt"
    every = listed.read_text().split()
    assert len(every) == 1000
    assert class_ids() == sorted(every)[:100]


def test_missing_classes_are_named(tmp_path):
    shared_wnid = class_ids()[0]
    write_folder(tmp_path / "raw/train", {f"{shared_wnid}/a.JPEG": encode(pixels(0), "JPEG")})
    with pytest.raises(FileNotFoundError, match=r"99 classes \(n01443537, "):
        prepared("imagenet100", tmp_path, tmp_path / "raw")


def test_real_photographs_are_decoded_at_their_size(tmp_path, archives):
    shared("imagenet_samples")
    raw, _ = archives
    found = prepared("imagenet100", tmp_path, raw)["train"]
    snake = found["n01729322_1.JPEG"]["image"]  # a hognose snake
    assert snake.shape == (387, 500, 3)
