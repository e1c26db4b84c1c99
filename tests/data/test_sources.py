import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from clipjax.data import catalogue
from clipjax.data.builders.digits import Digits
from clipjax.data.builders.raw import RawBuilder
from clipjax.data.sources import (
    DatasetNotPrepared,
    UnreadableRecord,
    decode_image,
    default_data_dir,
    load,
    prepare,
)
from tests.data.builders.miniature import encode, pixels, write_folder


def png(pixels, mode=None):
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(file, "PNG")
    return file.getvalue()


class Tiny(RawBuilder):
    """Two readable pictures and, as record 1 or so, whatever `third` is."""

    NEEDS = "nothing"
    third = png(np.zeros((4, 4, 3), np.uint8))

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(4, 4, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=3),
        }
        return tfds.core.DatasetInfo(
            builder=self, description="", features=tfds.features.FeaturesDict(features)
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        good = png(np.full((4, 4, 3), 5, np.uint8))
        for i, picture in enumerate((good, good, self.third)):
            yield i, {"id": f"picture {i}", "image": picture, "label": i}


@pytest.fixture
def tiny(monkeypatch):
    builders = {**catalogue.BUILDERS, "tiny": "tests_tiny:Tiny"}
    monkeypatch.setattr(catalogue, "BUILDERS", builders)
    monkeypatch.setitem(sys.modules, "tests_tiny", types.SimpleNamespace(Tiny=Tiny))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def run_python(program: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_where_the_data_is(monkeypatch, tmp_path):
    monkeypatch.setenv("CLIPJAX_DATA_DIR", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("CLIPJAX_DATA_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_data_dir() == Path("/somewhere/clipjax/data")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_data_dir() == Path.home() / ".cache/clipjax/data"


@pytest.mark.parametrize(
    "embedded",
    [("digits", "photos_x4"), pytest.param(("digit_scenes",), marks=pytest.mark.faults)],
    ids=["quick ones", "digit_scenes"],
)
def test_preparing_twice_gives_the_same_bytes(data_dir, tmp_path, embedded):
    # In another process, whose string hashes differ: protobuf orders its maps by them.
    program = "".join(f"clipjax.data.prepare({name!r})\n" for name in embedded)
    process = run_python(
        f"import clipjax.data\n{program}", CLIPJAX_DATA_DIR=str(tmp_path), PYTHONHASHSEED="12345"
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    for name in embedded:
        folder = prepare(name, data_dir)
        assert contents(folder) == contents(tmp_path / folder.relative_to(data_dir)), name
    folders = {entry.name for entry in tmp_path.iterdir() if entry.is_dir()}
    assert folders == set(embedded)  # no staging folder is left


def test_what_is_prepared_is_not_prepared_again(tmp_path, monkeypatch):
    folder = prepare("digits", tmp_path)

    def must_not_run(self, *args, **kwargs):
        raise AssertionError("prepared again")

    monkeypatch.setattr(Digits, "_split_generators", must_not_run)
    assert prepare("digits", tmp_path) == folder
    assert len(load("digits", "test", tmp_path)) == 360


def test_preparing_is_silent(tmp_path, capfd):
    prepare("digits", tmp_path)
    assert capfd.readouterr() == ("", "")


def test_records(data_dir):
    source = load("digit_scenes", "test", data_dir)
    assert (source.name, source.split, source.num_classes) == ("digit_scenes", "test", 11)
    assert source.image_shape == (128, 128, 3)
    record = source[3]
    assert {k: (v.dtype, v.shape) for k, v in record.items()} == {
        "image": (np.uint8, (128, 128, 3)),
        "label": (np.uint8, (128, 128)),
    }
    arrays = source.in_memory()
    assert arrays["image"].shape == (100, 128, 128, 3)
    np.testing.assert_array_equal(arrays["image"][3], record["image"])
    np.testing.assert_array_equal(source.take(np.array([5, 3]))["label"][1], record["label"])
    assert source.in_memory()["image"] is arrays["image"]  # decoded once
    with pytest.raises(ValueError, match="read-only"):
        arrays["image"][0] = 0
    with pytest.raises(IndexError, match="record 100 of 100"):
        source[100]


def test_super_resolution_has_no_classes(data_dir):
    assert load("photos_x4", "test", data_dir).num_classes == 0


def test_a_part_of_a_split(data_dir):
    whole = load("digits", "test", data_dir).in_memory()["image"]
    part = load("digits", "test[100:150]", data_dir).in_memory()["image"]
    np.testing.assert_array_equal(part, whole[100:150])


def test_unknown_names_get_the_nearest(data_dir):
    with pytest.raises(
        ValueError, match=r"no data set 'digit_scene' \(did you mean 'digit_scenes'"
    ):
        load("digit_scene", "train", data_dir)
    with pytest.raises(ValueError, match=r"known are \['cifar10', .*'voc2012_segmentation'\], and"):
        prepare("quux", data_dir)
    with pytest.raises(
        ValueError, match=r"no split 'tset' \(did you mean 'test'\?\); it has \['test'"
    ):
        load("digits", "tset", data_dir)


def test_what_is_not_embedded_must_be_prepared_first(tiny, tmp_path):
    with pytest.raises(DatasetNotPrepared, match=r"experiments\.prepare --dataset tiny"):
        load("tiny", "train", tmp_path)
    assert issubclass(DatasetNotPrepared, FileNotFoundError)
    assert list(tmp_path.iterdir()) == []
    prepare("tiny", tmp_path)
    assert len(load("tiny", "train", tmp_path)) == 3


def test_a_missing_shard_is_noticed(tiny, tmp_path):
    (shard,) = prepare("tiny", tmp_path).glob("*train.array_record*")
    shard.unlink()
    with pytest.raises(DatasetNotPrepared, match=shard.name):
        load("tiny", "train", tmp_path)
    prepare("tiny", tmp_path)
    assert len(load("tiny", "train", tmp_path)) == 3


def test_a_builder_that_fails_leaves_nothing(tiny, tmp_path, monkeypatch):
    def fails(self):
        yield 0, {"id": "0", "image": png(np.zeros((4, 4, 3), np.uint8)), "label": 0}
        raise OSError("disk full")

    monkeypatch.setattr(Tiny, "_generate_examples", fails)
    with pytest.raises(OSError, match="disk full"):
        prepare("tiny", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", [pytest.param("generating", marks=pytest.mark.faults), "renaming"])
def test_killed_while_preparing(tmp_path, when):
    # SIGKILL after 500 of 1437 examples, or when all is written and only the rename is left.
    victim = {
        "generating": (
            "from clipjax.data.builders.digits import Digits\n"
            "inner = Digits._generate_examples\n"
            "def killed(self, *arguments):\n"
            "    for i, example in enumerate(inner(self, *arguments)):\n"
            "        if i == 500: os.kill(os.getpid(), signal.SIGKILL)\n"
            "        yield example\n"
            "Digits._generate_examples = killed\n"
        ),
        "renaming": (
            "import clipjax.data.sources\n"
            "from pathlib import Path\n"
            "Path.rename = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)\n"
        ),
    }[when]
    program = f"import os, signal\n{victim}from clipjax.data import prepare\nprepare('digits')\n"
    process = run_python(program, CLIPJAX_DATA_DIR=str(tmp_path))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, errors
    assert list(tmp_path.glob(".digits-*.preparing"))  # it had begun
    assert not (tmp_path / "digits" / "1.0.0").exists()  # and nothing looks complete
    assert json.loads((tmp_path / ".digits.lock").read_text())["pid"] == process.pid
    began = time.monotonic()
    assert len(load("digits", "test", tmp_path)) == 360
    assert time.monotonic() - began < 60  # not after 150 s: the kernel tells that it is dead
    assert not (tmp_path / ".digits.lock").exists()
    assert not list(tmp_path.glob(".digits-*.preparing"))  # what it left is cleared away


def test_two_processes_load_an_embedded_set_for_the_first_time(tmp_path, data_dir):
    """The first builds, and is held up until the other one says that it waits for it."""
    program = (
        "import os, sys, time\n"
        "from clipjax.data.builders.digits import Digits\n"
        "inner = Digits._split_generators\n"
        "def counted(self, manager):\n"
        "    os.write(1, b'built')\n"  # past sys.stdout, which prepare hides
        "    while not os.path.exists(os.environ['GO']): time.sleep(0.05)\n"
        "    return inner(self, manager)\n"
        "Digits._split_generators = counted\n"
        "from clipjax.data import load\n"
        "assert len(load('digits', 'train')) == 1437\n"
    )
    go = tmp_path / "go"
    environment = {"CLIPJAX_DATA_DIR": str(tmp_path / "data"), "GO": str(go)}
    first = run_python(program, **environment)
    assert first.stdout.read(5) == "built"
    second = run_python(program, **environment)
    said = second.stderr.readline()
    go.touch()
    results = [process.communicate(timeout=300) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], results
    assert f"waiting: data set 'digits' is being prepared in {tmp_path / 'data'} by process" in said
    assert f"process {first.pid} on {os.uname().nodename} since 2" in said
    assert results == [("", ""), ("", "")]  # the other built nothing, and said no more
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["digits"]
    assert contents(tmp_path / "data/digits/1.0.0") == contents(prepare("digits", data_dir))


@pytest.mark.parametrize(
    ("third", "message"),
    [
        (b"no picture at all", "not a readable picture"),
        (
            png(np.random.default_rng(0).integers(0, 255, (4, 4, 3), np.uint8))[:-30],
            "not a readable",
        ),
        (png(np.zeros((4, 5, 3), np.uint8)), r"shape \(4, 5, 3\), expected \(4, 4, 3\)"),
    ],
    ids=["text", "truncated", "size"],
)
def test_an_unreadable_picture_is_named(tiny, tmp_path, monkeypatch, third, message):
    monkeypatch.setattr(Tiny, "third", third)
    prepare("tiny", tmp_path)
    source = load("tiny", "train", tmp_path)
    with pytest.raises(UnreadableRecord, match=message) as raised:
        source.in_memory()
    number = [record["id"] for record in source.records].index(b"picture 2")
    expected = f"data set 'tiny', split 'train', record {number} of 3 ('image' of 'picture 2'): "
    assert str(raised.value).startswith(expected)
    with contextlib.suppress(ValueError):  # the others are readable
        assert source[(number + 1) % 3]["image"].mean() == 5


def test_a_flipped_bit_in_a_record_is_named(tmp_path):
    folder = prepare("digits", tmp_path)
    (shard,) = folder.glob("digits-test.array_record*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 3] ^= 1
    shard.write_bytes(content)
    expected = rf"data set 'digits', split 'test', record \d+ of 360: .* delete {folder}"
    with pytest.raises(UnreadableRecord, match=expected):
        load("digits", "test", tmp_path).in_memory()


def test_masks_are_never_palettes():
    # OpenCV and Pillow disagree about these: one gives colours, the other indices.
    palette = png(np.array([[0, 200], [100, 50]], np.uint8), mode="P")
    with pytest.raises(ValueError, match="mode 'P', where 'L' was expected"):
        decode_image(palette, channels=1)


def test_importing_is_cheap_and_tensorflow_is_never_needed(data_dir):
    program = (
        "import sys, clipjax\n"
        "before = set(sys.modules)\n"
        "import clipjax.data\n"
        "new = {m.partition('.')[0] for m in set(sys.modules) - before}\n"
        "assert not new & {'tensorflow_datasets', 'grain', 'PIL', 'cv2', 'sklearn'}, new\n"
        "clipjax.data.load('digits', 'train').in_memory()\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    process = run_python(program, CLIPJAX_DATA_DIR=str(data_dir))
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors


def test_photographs_of_a_version_that_did_not_turn_them_upright_are_read_with_a_warning(tmp_path):
    files = {"train/a/1.png": encode(pixels(0)), "train/b/2.png": encode(pixels(1))}
    write_folder(tmp_path / "raw", files)
    folder = prepare("image_folder", tmp_path / "data", raw_dir=tmp_path / "raw")
    folder.rename(folder.with_name("1.0.0"))
    with pytest.warns(UserWarning, match=r"1\.0\.0 of the data set 'image_folder', .* upright"):
        assert load("image_folder", "train", tmp_path / "data").directory.name == "1.0.0"
    prepare("image_folder", tmp_path / "data", raw_dir=tmp_path / "raw")
    assert load("image_folder", "train", tmp_path / "data").directory.name == "1.1.0"


def test_an_older_version_of_an_embedded_set_is_made_anew(tmp_path):
    made = load("digits", "train", tmp_path).directory
    made.rename(made.with_name("0.9.0"))
    assert load("digits", "train", tmp_path).directory == made
