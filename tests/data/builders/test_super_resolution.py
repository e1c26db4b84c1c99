"""DIV2K and pictures of one's own for super-resolution."""

import numpy as np
import pytest

from clipjax.data.builders.photos_x4 import reduce_bicubic
from clipjax.data.builders.super_resolution_folder import TILE, windows
from tests.data.builders.miniature import (
    decode,
    encode,
    pixels,
    prepared,
    shared,
    write_folder,
    write_zip,
)


def div2k_files():
    """{archive: {member: bytes}}, and the pictures: the 2nd training one is large."""
    sizes = {"train": {"0001": (40, 60), "0002": (300, 1000)}, "valid": {"0801": (300, 1000)}}
    archives, pictures = {}, {}
    for part, named in sizes.items():
        high = {name: pixels(int(name), *size) for name, size in named.items()}
        low = {name: reduce_bicubic(picture) for name, picture in high.items()}
        archives[f"DIV2K_{part}_HR"] = {
            f"DIV2K_{part}_HR/{name}.png": encode(picture) for name, picture in high.items()
        }
        archives[f"DIV2K_{part}_LR_bicubic_X4"] = {
            f"DIV2K_{part}_LR_bicubic/X4/{name}x4.png": encode(p) for name, p in low.items()
        }
        pictures |= {name: (high[name], low[name]) for name in named}
    return archives, pictures


@pytest.mark.parametrize("form", ["zips", "folders"])
def test_div2k(tmp_path, form):
    archives, pictures = div2k_files()
    raw = tmp_path / "raw"
    raw.mkdir()
    for name, files in archives.items():
        if form == "zips":
            write_zip(raw / f"{name}.zip", files)
        else:
            write_folder(raw, files)
    found = prepared("div2k_x4", tmp_path, raw)
    # 1000 pixels: tiles at columns 0, 480, 520; the small picture is whole, and so is validation.
    assert sorted(found["train"]) == [
        "0001",
        *(f"0002 at row 0, column {column}" for column in (0, 480, 520)),
    ]
    assert list(found["validation"]) == ["0801"]
    for name in ("0001", "0801"):
        record = (found["train"] | found["validation"])[name]
        np.testing.assert_array_equal(record["target"], pictures[name][0])
        np.testing.assert_array_equal(record["image"], pictures[name][1])
    tile = found["train"]["0002 at row 0, column 520"]
    np.testing.assert_array_equal(tile["target"], pictures["0002"][0][:, 520:1000])
    np.testing.assert_array_equal(tile["image"], pictures["0002"][1][:, 130:250])


def test_tiles_cover_every_pixel_and_fit_the_quarter_size():
    for height, width in ((1356, 2040), (2040, 1356), (964, 480), (2040, 648)):
        covered = np.zeros((height, width), bool)
        for window in windows(height, width):
            top, left, rows, columns = window
            assert not any(n % 4 for n in window)
            assert (rows, columns) == (min(height, TILE), min(width, TILE))
            covered[top : top + rows, left : left + columns] = True
        assert covered.all()


@pytest.mark.parametrize(
    ("archive", "member", "content", "message"),
    [
        ("DIV2K_train_LR_bicubic_X4", "DIV2K_train_LR_bicubic/X4/0001x4.png",
         encode(pixels(0, 10, 14)),
         r"0001\.png is 40 x 60 pixels, which is not 4 times the 10 x 14 of .*0001x4\.png"),
        ("DIV2K_train_HR", "DIV2K_train_HR/0001.png", encode(pixels(0, 40, 60))[:-50],
         r"0001\.png is not a readable picture"),
        ("DIV2K_valid_HR", "DIV2K_valid_HR/0801.png", b"", r"0801\.png is not a readable picture"),
    ],
    ids=["sizes", "cut", "empty"],
)  # fmt: skip
def test_pictures_that_cannot_be_used_are_named(tmp_path, archive, member, content, message):
    archives, _ = div2k_files()
    archives[archive][member] = content
    (tmp_path / "raw").mkdir()
    for name, files in archives.items():
        write_zip(tmp_path / f"raw/{name}.zip", files)
    with pytest.raises(ValueError, match=message):
        prepared("div2k_x4", tmp_path, tmp_path / "raw")


def test_a_picture_without_a_partner(tmp_path):
    archives, _ = div2k_files()
    del archives["DIV2K_train_LR_bicubic_X4"]["DIV2K_train_LR_bicubic/X4/0002x4.png"]
    for files in archives.values():
        write_folder(tmp_path / "raw", files)
    with pytest.raises(ValueError, match=r"0002\.png has no partner in .*LR_bicubic \(1 such pict"):
        prepared("div2k_x4", tmp_path, tmp_path / "raw")


def test_only_full_sizes(tmp_path):
    files = {f"train/{i}.png": encode(pixels(i, 21, 30)) for i in range(2)}
    write_folder(tmp_path / "raw", files | {"test/HR/9.png": encode(pixels(9, 8, 8))})
    found = prepared("super_resolution_folder", tmp_path, tmp_path / "raw")
    assert {split: len(records) for split, records in found.items()} == {"train": 2, "test": 1}
    record = found["train"]["train/1.png"]
    np.testing.assert_array_equal(record["target"], pixels(1, 21, 30)[:20, :28])
    np.testing.assert_array_equal(record["image"], reduce_bicubic(pixels(1, 21, 30)[:20, :28]))


def test_set5_and_bsds(tmp_path):
    """MATLAB's quarter sizes, as they are, beside ours, made of BSDS's photographs."""
    set5, bsds = shared("sr/set5"), shared("sr/bsds500_train")
    every = sorted(path for path in set5.rglob("*.png"))
    high = [path for path in every if "HR" in path.as_posix()]
    low = [path for path in every if path not in high]
    assert len(high) == len(low) == 5
    raw = tmp_path / "raw"
    write_folder(raw, {f"test/HR/{i}.png": path.read_bytes() for i, path in enumerate(high)})
    write_folder(raw, {f"test/LR/{i}x4.png": path.read_bytes() for i, path in enumerate(low)})
    for path in sorted(bsds.glob("*.jpg"))[:3]:
        write_folder(raw, {f"train/{path.name}": path.read_bytes()})
    found = prepared("super_resolution_folder/set5", tmp_path, raw)
    assert {split: len(records) for split, records in found.items()} == {"train": 3, "test": 5}
    for i, path in enumerate(low):
        record = found["test"][f"test/HR/{i}.png"]
        np.testing.assert_array_equal(record["image"], decode(path.read_bytes()))
        # MATLAB's imresize and Pillow's bicubic differ by rounding only (away from the border).
        ours = reduce_bicubic(record["target"]).astype(int)
        assert np.abs(ours - record["image"])[2:-2, 2:-2].mean() < 1
    for record in found["train"].values():
        assert tuple(4 * n for n in record["image"].shape[:2]) == record["target"].shape[:2]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["train/HR/a.png", "train/HR/b.png", "train/LR/b.png"], r"a\.png has no picture in LR"),
        (["train/HR/a.png", "train/LR/a.png", "train/LR/b.png"], r"b\.png has no picture in HR"),
    ],
)
def test_full_and_quarter_sizes_belong_together(tmp_path, files, message):
    sizes = {"HR": (16, 16), "LR": (4, 4)}
    made = {name: encode(pixels(0, *sizes[name.split("/")[1]])) for name in files}
    write_folder(tmp_path / "raw", made)
    with pytest.raises(ValueError, match=message):
        prepared("super_resolution_folder", tmp_path, tmp_path / "raw")
