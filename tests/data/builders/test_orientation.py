"""Pictures and masks are stored upright, whatever EXIF says about how the sensor lay."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from clipjax.data import load, prepare
from clipjax.data.builders.archives import BadExample
from clipjax.data.builders.pictures import size, stored_mask, stored_picture, upright
from clipjax.data.records import decode_image
from tests.data.builders.miniature import (
    decode,
    encode,
    palette,
    pixels,
    prepared,
    write_folder,
    write_zip,
)

EVERY = range(1, 9)


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


@pytest.mark.parametrize("orientation", EVERY)
def test_the_eight_orientations_are_those_of_pillow(orientation):
    image = pixels(0, 3, 5)
    lying = Image.fromarray(image)
    lying.getexif()[0x0112] = orientation
    expected = np.asarray(ImageOps.exif_transpose(lying))
    np.testing.assert_array_equal(upright(image, orientation), expected)


def test_upright_written_out():
    # CIPA DC-008: row 0 and column 0 of the file are, in the picture that is seen, the
    # (top, left), (top, right), (bottom, right), (bottom, left),
    # (left, top), (right, top), (right, bottom), (left, bottom) sides.
    image = pixels(0, 3, 5, channels=1)
    height, width = image.shape
    places = {
        1: lambda r, c: (r, c),
        2: lambda r, c: (r, width - 1 - c),
        3: lambda r, c: (height - 1 - r, width - 1 - c),
        4: lambda r, c: (height - 1 - r, c),
        5: lambda r, c: (c, r),
        6: lambda r, c: (c, height - 1 - r),
        7: lambda r, c: (width - 1 - c, height - 1 - r),
        8: lambda r, c: (width - 1 - c, r),
    }
    for orientation, place in places.items():
        seen = np.zeros((width, height) if orientation >= 5 else (height, width), np.uint8)
        for row, column in np.ndindex(height, width):
            seen[place(row, column)] = image[row, column]
        np.testing.assert_array_equal(upright(image, orientation), seen)


@pytest.mark.parametrize("orientation", EVERY)
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_stored_is_the_decoded_picture_turned(kind, mode, orientation):
    encoded = encode(pixels(1, 10, 18), kind, mode, exif=exif(orientation))
    stored = stored_picture(encoded, "a file")
    assert stored.orientation == orientation
    # Nothing but the turn happens to the pixels: PNG loses nothing.
    expected = upright(decode_image(encoded, channels=3), orientation)
    np.testing.assert_array_equal(decode_image(stored.encoded, channels=3), expected)
    assert size(encoded) == size(stored.encoded) == expected.shape[:2]
    if orientation == 1:
        assert stored.encoded == encoded  # the bytes of the file


@pytest.mark.parametrize("orientation", EVERY)
@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("TIFF", "RGB", {}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("WEBP", "RGB", {"lossless": True}),
        ("PNG", "P", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "I;16", {}),
    ],
)
def test_converted_pictures_are_turned_once(kind, mode, options, orientation):
    image = pixels(2, 8, 12)
    if mode == "I;16":
        image = image[..., 0].astype(np.uint16) << 8
    encoded = encode(
        image, kind, None if mode == "I;16" else mode, exif=exif(orientation), **options
    )
    plain = encode(image, kind, None if mode == "I;16" else mode, **options)
    stored = stored_picture(encoded, "a file")
    expected = upright(decode(stored_picture(plain, "a file").encoded), orientation)
    np.testing.assert_array_equal(decode(stored.encoded), expected)
    assert stored.orientation == orientation
    assert size(encoded) == expected.shape[:2]


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_orientations_that_there_are_not_turn_nothing(orientation):
    encoded = encode(pixels(0), "JPEG", exif=exif(orientation))
    assert stored_picture(encoded, "a file") == (encoded, 1)


def test_a_damaged_exif_block_turns_nothing():
    block = b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 20
    encoded = encode(pixels(0), "JPEG", exif=block)
    assert stored_picture(encoded, "a file") == (encoded, 1)


@pytest.mark.parametrize("orientation", EVERY)
def test_masks_are_turned_by_their_own_exif(orientation):
    classes = np.random.default_rng(0).integers(0, 4, (5, 7), np.uint8)
    stored = stored_mask(encode(classes, exif=exif(orientation)), 4, "a mask")
    np.testing.assert_array_equal(decode(stored.encoded, "L"), upright(classes, orientation))
    assert stored.orientation == orientation


def test_a_folder_of_photographs(tmp_path):
    image = pixels(0, 10, 18)
    files = {f"train/a/{o}.jpg": encode(image, "JPEG", exif=exif(o)) for o in EVERY}
    write_zip(tmp_path / "raw.zip", {**files, "train/a/damaged.jpg": files["train/a/6.jpg"][:-90]})
    records = prepared("image_folder", tmp_path, tmp_path / "raw.zip", skip_damaged=True)["train"]
    for orientation in EVERY:
        encoded = files[f"train/a/{orientation}.jpg"]
        expected = upright(decode_image(encoded, channels=3), orientation)
        np.testing.assert_array_equal(records[f"train/a/{orientation}.jpg"]["image"], expected)
    folder = load("image_folder", "train", tmp_path / "prepared").directory
    turned = (folder / "turned.txt").read_text().splitlines()
    where = tmp_path / "raw.zip"
    expected = [f"train: {where}: train/a/{o}.jpg: EXIF orientation {o}" for o in range(2, 9)]
    assert turned == expected  # and not the one that was left out


def segmentation(mask):
    picture = encode(pixels(0, 10, 18), "JPEG", exif=exif(6))  # seen as 18 x 10
    return {
        "JPEGImages/a.jpg": picture,
        "SegmentationClass/a.png": mask,
        "ImageSets/Segmentation/train.txt": b"a\n",
        "classes.txt": b"one\ntwo\n",
    }


def test_masks_are_compared_with_the_upright_picture(tmp_path):
    classes = np.random.default_rng(0).integers(0, 2, (18, 10))
    write_folder(tmp_path / "raw", segmentation(palette(classes)))
    record = prepared("segmentation_folder", tmp_path, tmp_path / "raw")["train"]["a"]
    assert record["image"].shape == (18, 10, 3)
    np.testing.assert_array_equal(record["label"], classes)

    write_folder(tmp_path / "lying", segmentation(palette(classes.T)))
    message = r"a\.png is \(10, 18\) pixels high and wide, .*a\.jpg \(18, 10\), both upright"
    with pytest.raises(BadExample, match=message):
        prepare("segmentation_folder", tmp_path / "again", raw_dir=tmp_path / "lying")


def test_tiles_are_cut_from_the_upright_picture(tmp_path):
    # 500 x 1000 as stored, seen as 1000 x 500: larger than 960, so tiles begin at 0, 480 and 520
    # of the 1000 rows, and at 0 and 20 of the 500 columns.
    image = pixels(0, 500, 1000)
    write_folder(tmp_path / "raw", {"train/HR/a.png": encode(image, exif=exif(6))})
    records = prepared("super_resolution_folder", tmp_path, tmp_path / "raw")["train"]
    assert len(records) == 6
    seen = upright(image, 6)
    for name, record in records.items():
        row, column = (int(word) for word in name.replace(",", "").split() if word.isdigit())
        np.testing.assert_array_equal(
            record["target"], seen[row : row + 480, column : column + 480]
        )
    folder = load("super_resolution_folder", "train", tmp_path / "prepared").directory
    assert len((folder / "turned.txt").read_text().splitlines()) == 1  # one picture, six tiles
