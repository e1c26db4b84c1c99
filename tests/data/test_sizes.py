"""Batches of pictures that differ in size: what is cut out, and whole ones padded."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pytest

from clipjax.data import (
    Pipeline,
    UnreadableRecord,
    Views,
    center_crop,
    flip,
    load,
    prepare,
    random_crop,
    random_resized_crop,
    random_scale_crop,
    resize_center_crop,
)
from clipjax.data.pipeline import stream
from tests.data.builders.miniature import encode, palette, pixels, write_folder
from tests.data.test_pipeline import first, interleave

SIZES = [(20, 30), (30, 20), (16, 16), (33, 17), (20, 31), (25, 25), (9, 12)]
CLASSES = Views(random_resized_crop(8), resize_center_crop(9, 8), resize_center_crop(9, 8))
MASKS = Views(random_scale_crop(12), center_crop(12, pad=True), 16)
TARGETS = Views(random_crop(2), center_crop(2), 4)


def mask(i):
    return np.random.default_rng(i).integers(0, 4, SIZES[i])


@pytest.fixture(scope="module")
def prepared_dir(tmp_path_factory):
    base = tmp_path_factory.mktemp("sizes")
    every = range(len(SIZES))
    pictures = {i: encode(pixels(i, *SIZES[i])) for i in every}
    write_folder(base / "c", {f"train/k{i % 3}/{i}.png": pictures[i] for i in every})
    write_folder(base / "c", {f"test/k{i % 3}/{i}.png": pictures[i] for i in every})
    write_folder(base / "s", {f"JPEGImages/{i}.png": pictures[i] for i in every})
    write_folder(base / "s", {f"SegmentationClass/{i}.png": palette(mask(i)) for i in every})
    ids = "".join(f"{i}\n" for i in every).encode()
    lists = {f"ImageSets/Segmentation/{split}.txt": ids for split in ("train", "val")}
    write_folder(base / "s", {**lists, "classes.txt": b"a\nb\nc\nd\n"})
    write_folder(
        base / "r", {f"{s}/{i}.png": pictures[i] for s in ("train", "test") for i in every}
    )
    for kind, name in (("c", "image"), ("s", "segmentation"), ("r", "super_resolution")):
        prepare(f"{name}_folder", base / "data", raw_dir=base / kind)
    return base / "data"


def pipeline(prepared_dir, kind, views, **changes):
    held_out = {"image": "test", "segmentation": "val", "super_resolution": "test"}[kind]
    return Pipeline(
        load(f"{kind}_folder", "train", prepared_dir),
        load(f"{kind}_folder", held_out, prepared_dir),
        **({"batch_size": 3, "evaluation_batch_size": 2, "augment": flip(), "seed": 5} | changes),
        views=views,
    )


@pytest.mark.parametrize(
    ("kind", "views", "shapes"),
    [
        ("image", CLASSES, {"image": (8, 8, 3), "label": ()}),
        ("segmentation", MASKS, {"image": (12, 12, 3), "label": (12, 12)}),
        ("super_resolution", TARGETS, {"image": (2, 2, 3), "target": (8, 8, 3)}),
    ],
)
def test_training_and_calibration_have_one_size(prepared_dir, kind, views, shapes):
    data = pipeline(prepared_dir, kind, views)
    for batches in (first(data.train(0), 4), first(data.calibration(2), 2)):
        for batch in batches:
            assert {k: v.shape[1:] for k, v in batch.items() if k != "mask"} == shapes
            assert batch["image"].dtype == np.uint8
            assert batch["mask"].tolist() == [1] * 3
            if "label" in batch:
                assert batch["label"].dtype == np.int32
    # Calibration is the same every time, and training is not.
    np.testing.assert_equal(first(data.calibration(2), 2), first(data.calibration(2), 2))
    train = first(data.train(0), 4)
    assert len({image.tobytes() for batch in train for image in batch["image"]}) > len(SIZES)


def test_training_batches_are_the_views_of_the_stream(prepared_dir):
    data = pipeline(prepared_dir, "image", CLASSES, augment=None)
    for step, batch in enumerate(first(data.train(0), 5)):
        records = stream(5, 3 * step, 3, len(SIZES))
        expected = [data.training[int(i)]["label"] for i in records]
        np.testing.assert_array_equal(batch["label"], expected)


@pytest.mark.parametrize("count", [1, 3])
def test_the_global_batch_does_not_depend_on_the_number_of_processes(prepared_dir, count):
    data = pipeline(prepared_dir, "segmentation", MASKS)
    whole = first(data.train(2), 3)
    shares = [first(data.train(2, process_index=i, process_count=count), 3) for i in range(count)]
    for batch, other in zip(whole, interleave(shares), strict=True):
        np.testing.assert_equal(other, batch)


@pytest.mark.parametrize("process_count", [1, 2])
@pytest.mark.parametrize("kind", ["segmentation", "super_resolution"])
def test_evaluation_takes_whole_pictures_once_each(prepared_dir, kind, process_count):
    views = MASKS if kind == "segmentation" else TARGETS
    data = pipeline(prepared_dir, kind, views)
    shares = [
        list(data.evaluation(process_index=i, process_count=process_count))
        for i in range(process_count)
    ]
    assert len({len(share) for share in shares}) == 1
    batches = interleave(shares)
    found, shapes = [], set()
    for batch in batches:
        assert len(batch["mask"]) == 2
        height, width = batch["image"].shape[1:3]
        assert height % views.evaluate == width % views.evaluate == 0
        shapes.add((height, width))
        for i in np.flatnonzero(batch["mask"]):
            rows, columns = batch["size"][i]
            assert height - rows < views.evaluate
            assert width - columns < views.evaluate
            found.append(batch["image"][i, :rows, :columns])
            if kind == "segmentation":
                label = batch["label"][i]
                assert (label[rows:] == 255).all()
                assert (label[:, columns:] == 255).all()
                number = next(
                    n for n, s in enumerate(SIZES) if pixels(n, *s).tobytes() == found[-1].tobytes()
                )
                np.testing.assert_array_equal(label[:rows, :columns], mask(number))
            else:
                assert batch["target"].shape[1:3] == (4 * height, 4 * width)
    originals = [data.held_out[i]["image"] for i in range(len(SIZES))]
    assert sorted(map(np.ndarray.tobytes, found)) == sorted(map(np.ndarray.tobytes, originals))
    if kind == "segmentation":  # multiples of 16 of the sizes above
        assert shapes == {(16, 16), (32, 32), (48, 32)}


def test_evaluation_by_a_view_is_in_order(prepared_dir):
    data = pipeline(prepared_dir, "image", CLASSES)
    batches = list(data.evaluation())
    assert [batch["mask"].tolist() for batch in batches] == [[1, 1], [1, 1], [1, 1], [1, 0]]
    labels = np.concatenate([batch["label"][batch["mask"] > 0] for batch in batches])
    np.testing.assert_array_equal(labels, [data.held_out[i]["label"] for i in range(len(SIZES))])
    assert "size" not in batches[0]


def test_a_picture_smaller_than_the_crop_is_named(prepared_dir):
    data = pipeline(
        prepared_dir, "super_resolution", dataclasses.replace(TARGETS, train=random_crop(4))
    )
    message = r"record \d \('train/6\.png'\): a crop of 4 pixels does not fit into 2 x 3"
    with pytest.raises(UnreadableRecord, match=message):
        first(data.train(0), 20)


def test_views_are_needed_and_must_not_be_random_where_that_is_wrong(prepared_dir):
    with pytest.raises(ValueError, match="pictures of 'image_folder' differ in size: say by views"):
        pipeline(prepared_dir, "image", None)
    with pytest.raises(ValueError, match="the view to evaluate must not be random"):
        dataclasses.replace(CLASSES, evaluate=random_crop(4))
    with pytest.raises(ValueError, match="evaluate is 0"):
        dataclasses.replace(MASKS, evaluate=0)
    for change in ({"threads": 0}, {"workers": -1}):
        with pytest.raises(ValueError, match="expected at least 1 and 0"):
            pipeline(prepared_dir, "image", CLASSES, **change)


def test_processes_and_threads_make_the_same_batches(prepared_dir):
    """In a process of its own: Grain's workers are started anew from a file with a main guard."""
    program = prepared_dir.parent / "program.py"
    program.write_text(
        "import itertools, sys\n"
        "import numpy as np\n"
        "from clipjax.data import Pipeline, Views, load, random_resized_crop, resize_center_crop\n"
        "def main():\n"
        "    source = load('image_folder', 'train', sys.argv[1])\n"
        "    fixed = resize_center_crop(9, 8)\n"
        "    views = Views(random_resized_crop(8), fixed, fixed)\n"
        "    found = []\n"
        "    for threads, workers in ((1, 0), (3, 0), (1, 2)):\n"
        "        data = Pipeline(source, source, 3, 2, None, 5, views, threads, workers)\n"
        "        for batches in (data.train(4), data.train(0)):\n"
        "            found.append([{k: v.copy() for k, v in b.items()}\n"
        "                          for b in itertools.islice(batches, 6)])\n"
        "            batches.close()\n"
        "    for i in (2, 4):\n"
        "        np.testing.assert_equal(found[i], found[0])\n"
        "        np.testing.assert_equal(found[i + 1], found[1])\n"
        "    print(len(found[4]), len(found[5]))\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    done = subprocess.run(
        [sys.executable, str(program), str(prepared_dir)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (0, "6 6\n"), done.stderr
