import numpy as np
import pytest
from PIL import Image

from clipjax.data import load
from clipjax.data.builders.pictures import VOID
from clipjax.data.builders.voc2012_segmentation import CLASSES
from tests.data.builders.miniature import (
    encode,
    palette,
    pixels,
    prepared,
    shared,
    write_folder,
    write_tar,
    write_zip,
)

ROOT = "VOCdevkit/VOC2012/"
LISTS = f"{ROOT}ImageSets/Segmentation/"
IDS = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]}


def mask(seed, height, width):
    classes = np.random.default_rng(seed).integers(0, 21, (height, width))
    classes[0] = VOID
    return classes


def example(seed):
    size = (10 + seed, 15)
    return encode(pixels(seed, *size), "JPEG", quality=95), mask(seed, *size)


@pytest.fixture
def files():
    every = [*IDS["train"], *IDS["val"]]
    made = {name: example(seed) for seed, name in enumerate(every)}
    listed = {**IDS, "trainval": sorted(every)}
    return {
        **{f"{ROOT}JPEGImages/{name}.jpg": picture for name, (picture, _) in made.items()},
        **{f"{ROOT}SegmentationClass/{n}.png": palette(m) for n, (_, m) in made.items()},
        # A picture without a mask, as most of VOC's are: it belongs to no list.
        f"{ROOT}JPEGImages/2012_000001.jpg": b"not to be read",
        **{
            f"{LISTS}{s}.txt": "".join(f"{n}\n" for n in names).encode()
            for s, names in listed.items()
        },
    }


def assert_is_the_data(found):
    assert {split: sorted(records) for split, records in found.items() if split != "trainaug"} == {
        **IDS,
        "trainval": sorted([*IDS["train"], *IDS["val"]]),
    }
    for seed, name in enumerate([*IDS["train"], *IDS["val"]]):
        record = found["trainval"][name]
        assert record["image"].shape == (10 + seed, 15, 3)
        np.testing.assert_array_equal(record["label"], mask(seed, 10 + seed, 15))


def test_from_the_tar(tmp_path, files):
    (tmp_path / "raw").mkdir()
    write_tar(tmp_path / "raw/VOCtrainval_11-May-2012.tar", files)
    assert_is_the_data(prepared("voc2012_segmentation", tmp_path, tmp_path / "raw"))
    source = load("voc2012_segmentation", "val", tmp_path / "prepared")
    assert (source.num_classes, source.class_names) == (21, CLASSES)
    assert CLASSES[0] == "background"


@pytest.mark.parametrize("inside", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_from_folders(tmp_path, files, inside):
    write_folder(tmp_path / "raw", files)
    raw = tmp_path / "raw" / inside
    assert_is_the_data(prepared("voc2012_segmentation", tmp_path, raw))


@pytest.mark.parametrize("masks", ["folder", "zip"])
@pytest.mark.parametrize("lines", ["ids", "paths"])
def test_a_longer_list_to_train_on(tmp_path, files, masks, lines):
    (tmp_path / "raw").mkdir()
    extra = encode(pixels(9), "JPEG"), mask(9, 12, 16)
    files[f"{ROOT}JPEGImages/2008_000002.jpg"] = extra[0]
    write_tar(tmp_path / "raw/VOCtrainval_11-May-2012.tar", files)
    more = {  # masks of the Semantic Boundaries Dataset come as grey PNGs
        "2008_000002": encode(extra[1].astype(np.uint8)),
        IDS["train"][0]: encode(mask(0, 10, 15).astype(np.uint8)),
    }
    line = "{}" if lines == "ids" else "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png"
    listed = "".join(line.format(name) + "\n" for name in more)
    (tmp_path / "raw/train_aug.txt").write_text(listed)
    named = {f"SegmentationClassAug/{name}.png": content for name, content in more.items()}
    if masks == "zip":
        write_zip(tmp_path / "raw/SegmentationClassAug.zip", named)
    else:
        write_folder(tmp_path / "raw", named)
    found = prepared("voc2012_segmentation", tmp_path, tmp_path / "raw")
    assert_is_the_data(found)
    assert set(found["trainaug"]) == set(more)
    np.testing.assert_array_equal(found["trainaug"]["2008_000002"]["label"], extra[1])


def test_a_longer_list_must_leave_val_alone(tmp_path, files):
    files[f"{LISTS}trainaug.txt"] = IDS["val"][0].encode()
    files[f"{ROOT}SegmentationClassAug/{IDS['val'][0]}.png"] = palette(mask(2, 12, 15))
    write_folder(tmp_path / "raw", files)
    with pytest.raises(ValueError, match=r"1 pictures of val, such as '2007_000033'"):
        prepared("voc2012_segmentation", tmp_path, tmp_path / "raw")


def test_real_pictures_in_the_format_of_the_original(tmp_path):
    """CamVid's palette masks, in a tar laid out as VOCtrainval."""
    folder = shared("segmentation/camvid_voc")
    files = {}
    for split in ("train", "val"):
        ids = (folder / f"ImageSets/Segmentation/{split}.txt").read_text().split()[:3]
        files[f"{LISTS}{split}.txt"] = "\n".join(ids).encode()
        for name in ids:
            files[f"{ROOT}JPEGImages/{name}.jpg"] = (folder / f"JPEGImages/{name}.jpg").read_bytes()
            inside = f"SegmentationClass/{name}.png"
            files[f"{ROOT}{inside}"] = (folder / inside).read_bytes()
    files[f"{LISTS}trainval.txt"] = files[f"{LISTS}train.txt"] + b"\n" + files[f"{LISTS}val.txt"]
    (tmp_path / "raw").mkdir()
    write_tar(tmp_path / "raw/VOCtrainval_11-May-2012.tar", files)
    found = prepared("voc2012_segmentation", tmp_path, tmp_path / "raw")
    assert {split: len(records) for split, records in found.items()} == {
        "train": 3,
        "val": 3,
        "trainval": 6,
    }
    for name, record in found["train"].items():
        with Image.open(folder / f"SegmentationClass/{name}.png") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(record["label"], np.asarray(image))


BAD = "2007_000039"
PICTURE, MASK = f"{ROOT}JPEGImages/{BAD}.jpg", f"{ROOT}SegmentationClass/{BAD}.png"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            MASK,
            palette(np.full((11, 15), 21)),
            r"png has class 21 \(165 pixels; 1 such classes\), ex",
        ),
        (
            MASK,
            palette(np.zeros((15, 11))),
            r"png is \(15, 11\) pixels .* picture .*jpg \(11, 15\)",
        ),
        (
            MASK,
            encode(pixels(0, 11, 15)),
            "png is a picture of Pillow's mode 'RGB'; a mask has one",
        ),
        (MASK, palette(np.zeros((11, 15)))[:-30], "png is not a readable mask"),
        (PICTURE, example(1)[0][:-40], "jpg is not a readable picture"),
    ],
    ids=["class", "size", "colour", "cut mask", "cut"],
)
def test_what_is_wrong_is_named_or_left_out(tmp_path, files, file, content, message):
    files[file] = content
    write_folder(tmp_path / "raw", files)
    with pytest.raises(ValueError, match=f"{BAD}.{message}.*--skip-damaged"):
        prepared("voc2012_segmentation", tmp_path, tmp_path / "raw")
    assert not (tmp_path / "prepared/voc2012_segmentation").exists()
    found = prepared("voc2012_segmentation", tmp_path, tmp_path / "raw", skip_damaged=True)
    assert {split: len(records) for split, records in found.items()} == {
        "train": 1,
        "val": 1,
        "trainval": 2,
    }
    (skipped,) = (tmp_path / "prepared").rglob("skipped.txt")
    lines = skipped.read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["train", "trainval"]
    assert "2007_000039" in lines[0]


def test_a_listed_picture_that_is_not_there(tmp_path, files):
    del files[f"{ROOT}JPEGImages/2007_000039.jpg"]
    write_folder(tmp_path / "raw", files)
    with pytest.raises(
        ValueError, match=r"train\.txt lists '2007_000039', but there is no .*39\.jpg"
    ):
        prepared("voc2012_segmentation", tmp_path, tmp_path / "raw")
