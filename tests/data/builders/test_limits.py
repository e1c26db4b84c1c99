"""Raw data that cannot be used: bombs, names, lists and classes; each with a clear error."""

import gzip
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from clipjax.data import prepare, splits
from clipjax.data.builders import archives, mnist
from clipjax.data.builders.archives import BadExample, Members
from clipjax.data.builders.cifar import Cifar10
from clipjax.data.builders.pictures import size, stored_mask, stored_picture
from tests.data.builders.miniature import (
    encode,
    palette,
    pixels,
    prepared,
    write_folder,
    write_tar,
    write_zip,
)


def bomb(height, width):
    """Return a PNG of some bytes that says it has this many pixels."""
    encoded = encode(pixels(0, 4, 4))
    head = b"IHDR" + struct.pack(">II", width, height) + encoded[24:29]
    return encoded[:12] + head + struct.pack(">I", zlib.crc32(head)) + encoded[33:]


def images(**changes):
    files = {f"train/{c}/{i}.png": encode(pixels(i)) for c in "ab" for i in range(2)}
    return {name: content for name, content in (files | changes).items() if content is not None}


def segmentation(**changes):
    """A segmentation folder of four pictures; keys of the changes have _ for their dots."""
    files = {f"JPEGImages/{i}.png": encode(pixels(i)) for i in range(4)}
    files |= {f"SegmentationClass/{i}.png": palette(np.zeros((12, 16))) for i in range(4)}
    files |= {"ImageSets/Segmentation/train.txt": b"0\n1\n", "classes.txt": b"one\ntwo\n"}
    files |= {"ImageSets/Segmentation/val.txt": b"2\n3\n"}
    places = {
        "train": "ImageSets/Segmentation/train.txt",
        "trian": "ImageSets/Segmentation/trian.txt",
        "val": "ImageSets/Segmentation/val.txt",
        "classes": "classes.txt",
    }
    files |= {places[name]: content for name, content in changes.items()}
    return {name: content for name, content in files.items() if content is not None}


# -- Sizes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [10_000, 20_000, 60_000])
def test_a_decompression_bomb_is_named_and_can_be_skipped(tmp_path, side):
    """Beyond 179 million pixels nothing is decoded; below, the file is seen to be cut."""
    write_folder(tmp_path / "raw", images(**{"train/a/bomb.png": bomb(side, side)}))
    message = "pixels.*bomb" if side > 13_377 else "cut or damaged"
    with pytest.raises(BadExample, match=rf"bomb\.png is not a readable picture: .*{message}"):
        prepare("image_folder", tmp_path / "data", raw_dir=tmp_path / "raw")
    found = prepared("image_folder", tmp_path, tmp_path / "raw", skip_damaged=True)
    assert len(found["train"]) == 4


def test_bombs_among_masks_and_among_pictures_to_be_cut_into_tiles():
    for use in (lambda b: stored_mask(b, 2, "x"), lambda b: stored_picture(b, "x"), size):
        with pytest.raises(BadExample, match="decompression bomb"):
            use(bomb(20_000, 20_000))


@pytest.mark.parametrize("pack", [write_folder, write_zip, write_tar])
def test_a_file_beyond_the_limit_is_not_read(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(archives, "LARGEST_FILE", 5000)
    files = images(**{"train/a/large.png": encode(pixels(0, 60, 60))})
    assert len(files["train/a/large.png"]) > 5000
    pack(tmp_path / "raw", files)

    def must_not_open(self, name):
        raise AssertionError("opened")

    with monkeypatch.context() as patch, Members(tmp_path / "raw") as members:
        patch.setattr(Members, "open", must_not_open)
        with pytest.raises(
            BadExample, match=r"large\.png is 1\d,\d\d\d bytes large; at most 5,000"
        ):
            members.read("train/a/large.png")
    found = prepared("image_folder", tmp_path, tmp_path / "raw", skip_damaged=True)
    assert len(found["train"]) == 4


def test_a_zip_that_lies_about_a_size_unpacks_no_more_than_it_says(tmp_path):
    """A million zeros, said to be ten bytes: ten are unpacked, and the checksum is wrong."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**6))
    content = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(content.replace(struct.pack("<I", 10**6), b"\x0a\0\0\0"))
    with Members(tmp_path / "a.zip") as members, pytest.raises(BadExample, match="cannot be read"):
        members.read("a.png")


def test_packed_arrays_beyond_the_limit_are_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "LARGEST_FILE", 1000)
    (tmp_path / "a.gz").write_bytes(gzip.compress(bytes(10**6)))
    with pytest.raises(ValueError, match=r"a\.gz has more than 1,000 bytes, unpacked"):
        mnist.read_idx(tmp_path / "a.gz")
    monkeypatch.setattr("clipjax.data.builders.cifar.LARGEST_FILE", 1000)
    np.savez_compressed(tmp_path / "a.npz", train_images=np.zeros(10**6, np.uint8))
    with pytest.raises(ValueError, match=r"a\.npz cannot be used: 1,000,\d\d\d bytes unpacked"):
        Cifar10._from_npz(object.__new__(Cifar10), tmp_path / "a.npz")


# -- Lists and classes ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": None, "trian": b"0\n"}, r"no .*/train\.txt \(there is trian\.txt, val\.txt\)"),
        ({"train": None}, r"no .*/train\.txt \(there is val\.txt\)"),
        ({"train": b"0\n\n1\n0\n"}, r"train\.txt: '0' is listed twice, in line 1 and in line 4"),
        ({"train": b"0\n\xff\n"}, r"train\.txt, line 2: not UTF-8 text"),
        ({"train": b""}, "split 'train' has no usable example"),
        ({"classes": b"one\ntwo\none\n"}, r"classes\.txt: the class 'one' comes twice, .* 0 .* 2"),
        ({"classes": b"\n"}, r"classes\.txt: it names no class"),
        ({"classes": b"one\ntw\xf6\n"}, r"classes\.txt, line 2: not UTF-8 text"),
        (
            {"classes": "".join(f"{i}\n" for i in range(300)).encode()},
            r"classes\.txt: it names 300 classes; a mask has at most 255 .*as 255 is void",
        ),
    ],
)
def test_what_is_wrong_with_a_list_is_named(tmp_path, changes, message):
    write_folder(tmp_path / "raw", segmentation(**changes))
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        prepare("segmentation_folder", tmp_path / "data", raw_dir=tmp_path / "raw")
    assert not (tmp_path / "data").exists()  # nothing is left, not even the folder


def test_255_classes_and_a_mark_of_utf8_are_fine(tmp_path):
    mark = b"\xef\xbb\xbf"  # as editors on Windows write it
    classes = mark + "".join(f"class {i}\n" for i in range(255)).encode()
    changes = segmentation(classes=classes, train=mark + b"0\r\n1\r\n")
    changes["SegmentationClass/0.png"] = palette(np.full((12, 16), 254))
    write_folder(tmp_path / "raw", changes)
    found = prepared("segmentation_folder", tmp_path, tmp_path / "raw")
    assert set(found["train"]) == {"0", "1"}
    assert (found["train"]["0"]["label"] == 254).all()


@pytest.mark.parametrize(
    ("name", "folder", "near"),
    [
        ("image_folder", "tset", "test"),
        ("image_folder", "Val", "val"),
        ("image_folder", "vaildation", "validation"),
        ("super_resolution_folder", "tets", "test"),
    ],
)
def test_a_slip_in_the_name_of_a_split_is_named(tmp_path, name, folder, near):
    files = {f"train/a/{i}.png": encode(pixels(i, 16, 16)) for i in range(2)}
    write_folder(tmp_path / "raw", {**files, f"{folder}/a/9.png": encode(pixels(9, 16, 16))})
    message = rf"folder '{folder}', which is no split \(did you mean '{near}'\?\)"
    with pytest.raises(ValueError, match=message):
        prepare(name, tmp_path / "data", raw_dir=tmp_path / "raw")


def test_other_folders_beside_the_splits_are_left_alone(tmp_path):
    extra = {f"{name}/0.png": encode(pixels(0)) for name in ("originals", "__MACOSX/train", "doc")}
    write_folder(tmp_path / "raw", images(**extra))
    prepare("image_folder", tmp_path / "data", raw_dir=tmp_path / "raw")
    assert splits("image_folder", tmp_path / "data") == {"train": 4}


def test_two_examples_with_one_name(tmp_path):
    # Two pictures of one name in different archives of a class could not be told apart.
    raw = {"VOC2012/JPEGImages/a.jpg": encode(pixels(0), "JPEG")}
    raw |= {"VOC2012/SegmentationClass/a.png": palette(np.zeros((12, 16)))}
    raw |= {f"VOC2012/ImageSets/Segmentation/{s}.txt": b"a\n" for s in ("train", "trainval")}
    raw |= {"VOC2012/ImageSets/Segmentation/val.txt": b""}
    raw |= {"VOC2012/ImageSets/Segmentation/trainaug.txt": b"a\na\n"}
    raw |= {"VOC2012/SegmentationClassAug/a.png": palette(np.zeros((12, 16)))}
    raw["VOC2012/ImageSets/Segmentation/val.txt"] = b"b\n"
    raw |= {"VOC2012/JPEGImages/b.jpg": encode(pixels(1), "JPEG")}
    raw |= {"VOC2012/SegmentationClass/b.png": palette(np.zeros((12, 16)))}
    write_folder(tmp_path / "raw", raw)
    with pytest.raises(
        ValueError, match="split 'trainaug': there are two examples with the id 'a'"
    ):
        prepare("voc2012_segmentation", tmp_path / "data", raw_dir=tmp_path / "raw")


# -- Names and kinds ------------------------------------------------------------------------------


def test_a_picture_whose_name_is_not_utf8_is_named_and_can_be_skipped(tmp_path):
    write_folder(tmp_path / "raw", images())
    (tmp_path / "raw/train/a" / os.fsdecode(b"caf\xe9.png")).write_bytes(encode(pixels(7)))
    with pytest.raises(BadExample, match=r"the name train/a/caf\\udce9\.png is not UTF-8; rename"):
        prepare("image_folder", tmp_path / "data", raw_dir=tmp_path / "raw")
    found = prepared("image_folder", tmp_path, tmp_path / "raw", skip_damaged=True)
    assert len(found["train"]) == 4


@pytest.mark.parametrize("name", [os.fsdecode(b"caf\xe9"), "two\nlines", " blank"])
def test_classes_whose_names_are_no_line_of_text(tmp_path, name):
    write_folder(tmp_path / "raw", images(**{f"train/{name}/0.png": encode(pixels(7))}))
    with pytest.raises(ValueError, match="is not a line of UTF-8 text without blanks around it"):
        prepare("image_folder", tmp_path / "data", raw_dir=tmp_path / "raw")


def test_names_of_other_alphabets_are_fine(tmp_path):
    write_folder(tmp_path / "raw", images(**{"train/Кошка/猫.png": encode(pixels(7))}))
    assert "train/Кошка/猫.png" in prepared("image_folder", tmp_path, tmp_path / "raw")["train"]


@pytest.mark.parametrize("content", [b"no archive", b"", b"PK\x03\x04", b"\xfd7zXZ\0junk"])
def test_a_raw_path_that_is_no_archive(tmp_path, content):
    (tmp_path / "raw").write_bytes(content)
    with pytest.raises(ValueError, match=rf"{tmp_path}/raw is no readable archive, or cut"):
        prepare("image_folder", tmp_path / "data", raw_dir=tmp_path / "raw")


def test_lack_of_permission_is_no_damage_to_skip(tmp_path, monkeypatch):
    write_folder(tmp_path / "raw", images())
    inner = Path.open

    def refused(self, *arguments, **options):
        if self.name == "1.png":
            raise PermissionError(13, "Permission denied", str(self))
        return inner(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(PermissionError, match=r"1\.png cannot be read; see that it is a file"):
        prepare("image_folder", tmp_path / "data", raw_dir=tmp_path / "raw", skip_damaged=True)
