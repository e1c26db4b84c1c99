"""Tiny ImageNet and the folders of one's own."""

import cv2
import numpy as np
import pytest

from clipjax.data import load
from clipjax.data.builders.archives import Members
from tests.data.builders.miniature import (
    decode,
    encode,
    palette,
    pixels,
    prepared,
    shared,
    write_folder,
    write_tar,
    write_zip,
)

WNIDS = ("n01443537", "n01629819", "n01641577")


def tiny_files(layout):
    train = {w: [encode(pixels(i, 64, 64), "JPEG") for i in range(2)] for w in WNIDS}
    val = {f"val_{i}.JPEG": encode(pixels(9 + i, 64, 64), "JPEG") for i in range(3)}
    if layout == "plain":
        return {
            **{f"train/{w}/{w}_{i}.JPEG": c for w, f in train.items() for i, c in enumerate(f)},
            **{f"val/{w}/{n}": c for w, (n, c) in zip(WNIDS[::-1], val.items(), strict=True)},
        }
    listed = [f"{n}\t{w}\t0\t0\t62\t62" for n, w in zip(val, WNIDS[::-1], strict=True)]
    root = "tiny-imagenet-200/"
    return {
        **{
            f"{root}train/{w}/images/{w}_{i}.JPEG": content
            for w, files in train.items()
            for i, content in enumerate(files)
        },
        **{f"{root}train/{w}/{w}_boxes.txt": b"" for w in WNIDS},
        **{f"{root}val/images/{n}": c for n, c in val.items()},
        f"{root}val/val_annotations.txt": "\n".join(listed).encode(),
        f"{root}test/images/test_0.JPEG": b"not to be read",
    }  # fmt: skip


@pytest.mark.parametrize("form", ["zip", "folder", "inside", "plain folder", "plain tar"])
def test_tiny_imagenet(tmp_path, form):
    raw = tmp_path / "raw"
    raw.mkdir()
    files = tiny_files("plain" if "plain" in form else "original")
    if form == "zip":
        write_zip(raw / "tiny-imagenet-200.zip", files)
    elif form == "plain tar":
        write_tar(raw / "tiny.tar", files)
    else:
        write_folder(raw, files)
    found = prepared(
        "tiny_imagenet", tmp_path, raw / "tiny-imagenet-200" if form == "inside" else raw
    )
    assert load("tiny_imagenet", "train", tmp_path / "prepared").class_names == WNIDS
    assert [len(found[split]) for split in ("train", "validation")] == [6, 3]
    for name, record in found["train"].items():
        assert WNIDS[record["label"]] in name
        assert record["image"].shape == (64, 64, 3)
    labels = {name.rpartition("/")[2]: int(r["label"]) for name, r in found["validation"].items()}
    assert labels == {"val_0.JPEG": 2, "val_1.JPEG": 1, "val_2.JPEG": 0}


def test_real_tiny_imagenet(tmp_path):
    found = prepared("tiny_imagenet", tmp_path, shared("tiny_imagenet"))
    assert [len(found[split]) for split in ("train", "validation")] == [4000, 1000]
    assert np.bincount([r["label"] for r in found["validation"].values()]).tolist() == [10] * 100


def test_links_to_folders_are_followed_and_not_round_and_round(tmp_path):
    write_folder(tmp_path / "elsewhere", {"a.png": encode(pixels(0, 4, 4))})
    (tmp_path / "raw/train").mkdir(parents=True)
    (tmp_path / "raw/train/cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "raw/train/again").symlink_to(tmp_path / "raw")
    with Members(tmp_path / "raw") as members:
        assert members.names == ["train/cat/a.png"]
        assert members.read("train/cat/a.png") == encode(pixels(0, 4, 4))


@pytest.mark.parametrize("form", ["folder", "zip", "tar"])
def test_image_folder(tmp_path, form):
    files = {
        "train/cat/a.jpg": encode(pixels(0, 9, 7), "JPEG"),
        "train/cat/deep/b.png": encode(pixels(1, 5, 5)),
        "train/dog/c.png": encode(pixels(2, 6, 8)),
        "train/dog/notes.txt": b"not a picture",
        "train/dog/.hidden.png": b"not to be read",
        "val/dog/d.png": encode(pixels(3, 4, 4)),
    }
    raw = tmp_path / "raw"
    if form == "folder":
        write_folder(raw, files)
    else:
        {"zip": write_zip, "tar": lambda p, f: write_tar(p, f, "w:gz")}[form](raw, files)
    found = prepared("image_folder/pets", tmp_path, raw)
    assert {s: {n: int(r["label"]) for n, r in f.items()} for s, f in found.items()} == {
        "train": {"train/cat/a.jpg": 0, "train/cat/deep/b.png": 0, "train/dog/c.png": 1},
        "validation": {"val/dog/d.png": 1},
    }
    np.testing.assert_array_equal(found["train"]["train/dog/c.png"]["image"], pixels(2, 6, 8))
    source = load("image_folder/pets", "train", tmp_path / "prepared")
    assert (source.class_names, source.image_shape) == (("cat", "dog"), (None, None, 3))
    assert (tmp_path / "prepared/image_folder/pets/1.1.0").is_dir()


def test_image_folder_with_a_class_of_its_own_in_validation(tmp_path):
    files = {"train/cat/a.png": encode(pixels(0)), "test/dgo/b.png": encode(pixels(1))}
    write_folder(tmp_path / "raw", files)
    with pytest.raises(
        ValueError, match=r"b\.png: split 'test' has a class 'dgo' that train has not"
    ):
        prepared("image_folder", tmp_path, tmp_path / "raw")


def test_unusual_pictures_are_converted_as_documented(tmp_path):
    rng = np.random.default_rng(0)
    grey, colour = pixels(0, channels=1), pixels(1)
    deep = rng.integers(0, 2**16, (12, 16), dtype=np.uint16)
    deep_colour = rng.integers(0, 2**16, (12, 16, 3), dtype=np.uint16)  # blue, green, red
    upper = (deep_colour >> 8).astype(np.uint8)
    alpha = np.dstack([colour, pixels(2, channels=1)])
    cmyk = encode(colour, "JPEG", mode="CMYK")
    files = {
        "grey.png": (encode(grey), np.dstack([grey] * 3)),
        "deep.png": (encode(deep), np.dstack([(deep >> 8).astype(np.uint8)] * 3)),
        "deep_colour.png": (cv2.imencode(".png", deep_colour)[1].tobytes(), upper[..., ::-1]),
        "alpha.png": (encode(alpha), colour),
        "palette.png": (encode(colour, mode="P"), decode(encode(colour, mode="P"))),
        "cmyk.jpg": (cmyk, decode(cmyk)),
        "bmp.bmp": (encode(colour, "BMP"), colour),
        "webp.webp": (encode(colour, "WEBP", lossless=True), colour),
    }
    write_folder(
        tmp_path / "raw", {f"train/a/{name}": content for name, (content, _) in files.items()}
    )
    found = prepared("image_folder", tmp_path, tmp_path / "raw")["train"]
    for name, (_, expected) in files.items():
        np.testing.assert_array_equal(found[f"train/a/{name}"]["image"], expected, err_msg=name)


def test_segmentation_folder_is_camvid(tmp_path):
    folder = shared("segmentation/camvid_voc")
    found = prepared("segmentation_folder/camvid", tmp_path, folder)
    assert {split: len(records) for split, records in found.items()} == {"train": 92, "val": 34}
    source = load("segmentation_folder/camvid", "train", tmp_path / "prepared")
    assert (source.num_classes, source.class_names[:2]) == (11, ("sky", "building"))
    labels = np.unique([record["label"] for record in found["val"].values()])
    assert set(labels) <= {*range(11), 255}


@pytest.mark.parametrize("prefix", ["", "mine/"])
def test_segmentation_folder(tmp_path, prefix):
    classes = np.array([[0, 1, 2], [255, 2, 1]])
    files = {
        f"{prefix}JPEGImages/a.png": encode(pixels(0, 2, 3)),
        f"{prefix}SegmentationClass/a.png": palette(classes),
        f"{prefix}ImageSets/Segmentation/train.txt": b"a\n",
        f"{prefix}classes.txt": b"sky\nroad\ncar\n",
    }
    write_zip(tmp_path / "raw.zip", files)
    found = prepared("segmentation_folder", tmp_path, tmp_path / "raw.zip")
    np.testing.assert_array_equal(found["train"]["a"]["label"], classes)
    np.testing.assert_array_equal(found["train"]["a"]["image"], pixels(0, 2, 3))


@pytest.mark.parametrize("missing", ["classes.txt", "ImageSets/Segmentation/train.txt"])
def test_what_a_segmentation_folder_lacks_is_named(tmp_path, missing):
    files = {"classes.txt": b"sky\n", "ImageSets/Segmentation/train.txt": b"a\n"}
    del files[missing]
    write_folder(tmp_path / "raw", files | {"JPEGImages/a.jpg": b""})
    with pytest.raises(
        FileNotFoundError, match=f"no {missing} in .*raw. Put into a folder JPEGImages"
    ):
        prepared("segmentation_folder", tmp_path, tmp_path / "raw")
