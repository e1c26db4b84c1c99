"""A prepared set that something else has changed is noticed, named, and never imported from."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from clipjax.data import (
    DamagedDataset,
    DatasetNotPrepared,
    Pipeline,
    UnreadableRecord,
    is_prepared,
    load,
    prepare,
    records,
    splits,
)
from clipjax.data.prepared import CONTENTS, FEATURES, INFO, known_features

SHARD = "digits-train.array_record-00000-of-00001"


@pytest.fixture(params=["listed", "old"])
def folder(request, tmp_path, data_dir):
    """Prepared digits, with contents.json, or without as of older versions and TFDS's builders."""
    found = shutil.copytree(prepare("digits", data_dir), tmp_path / "digits/1.0.0")
    if request.param == "old":
        (found / CONTENTS).unlink()
    return found


def read(root):
    source = load("digits", "train", root)
    source.in_memory()
    return splits("digits", root)


def cut(content):
    return content[: len(content) * 2 // 3]


DAMAGE = {
    "cut": cut,
    "empty": lambda content: b"",
    "longer": lambda content: content + b"\xff" * 100,
    "list": lambda content: b"[]",
    "number": lambda content: b"3",
    "null": lambda content: b"null",
    "another object": lambda content: b'{"a": 1}',
    "types": lambda content: content.replace(b'"digits"', b"7").replace(b'"10"', b"[]"),
    "not text": lambda content: b"\xff\xfe" + content,
    "deep": lambda content: b"[" * 100_000,
}


def test_sets_of_before_are_read(folder):
    assert read(folder.parents[1]) == {"test": 360, "train": 1437}
    assert is_prepared("digits", folder.parents[1])


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", [INFO, FEATURES])
def test_a_changed_json_file_is_named(folder, file, damage):
    path = folder / file
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    for use in (read, lambda root: splits("digits", root)):
        with pytest.raises(DamagedDataset) as raised:
            use(folder.parents[1])
        assert str(path) in str(raised.value)
        assert f"delete {folder} and prepare it again (python -m exp" in str(raised.value)
        assert "\n" not in str(raised.value)
    assert not is_prepared("digits", folder.parents[1])


@pytest.mark.parametrize("damage", ["cut", "empty", "longer", "another shard", "junk"])
def test_a_changed_shard_is_named_at_opening(folder, damage):
    path = folder / SHARD
    content = path.read_bytes()
    changed = {
        "another shard": (folder / SHARD.replace("train", "test")).read_bytes(),
        "junk": np.random.default_rng(0).bytes(len(content)),
    }
    path.write_bytes(changed[damage] if damage in changed else DAMAGE[damage](content))
    with pytest.raises(DamagedDataset, match=rf"{path}: .* delete {folder} and prepare it again"):
        load("digits", "train", folder.parents[1])
    assert not is_prepared("digits", folder.parents[1])


@pytest.mark.parametrize("name", [INFO, FEATURES, SHARD])
def test_a_folder_in_place_of_a_file_is_named(folder, name):
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(DamagedDataset, match=str(folder / name)):
        load("digits", "train", folder.parents[1])


def test_a_number_that_was_changed_is_noticed_by_the_list(folder):
    # 10 classes become 11: valid JSON, and nothing but the list could tell.
    path = folder / FEATURES
    path.write_bytes(path.read_bytes().replace(b'"numClasses": "10"', b'"numClasses": "11"'))
    if (folder / CONTENTS).exists():
        with pytest.raises(DamagedDataset, match=r"features\.json: it has|features\.json: its SHA"):
            load("digits", "train", folder.parents[1])
    else:
        assert load("digits", "train", folder.parents[1]).num_classes == 11


def test_damaged_sets_are_prepared_again_when_asked(folder):
    (folder / FEATURES).write_bytes(b"")
    assert prepare("digits", folder.parents[1]) == folder
    assert read(folder.parents[1]) == {"test": 360, "train": 1437}
    assert sorted(p.name for p in folder.parents[1].iterdir()) == ["digits"]


def flip_a_record(root):
    """Flip a bit in the middle of the training records of photos_x4."""
    (shard,) = root.glob("photos_x4/*/*train*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)


def test_a_flipped_record_is_named_by_the_threads_that_read_ahead(tmp_path, data_dir, monkeypatch):
    folder = shutil.copytree(prepare("photos_x4", data_dir), tmp_path / "photos_x4/1.0.0")
    flip_a_record(tmp_path)
    monkeypatch.setattr(records, "IN_MEMORY_BYTES", 0)
    source = load("photos_x4", "train", tmp_path)
    batches = Pipeline(source, source, 602, 602, None, 0).train(0)
    with pytest.raises(UnreadableRecord, match=rf"record \d+ of 602: .*delete {folder}"):
        next(batches)


@pytest.mark.faults
def test_a_flipped_record_is_named_by_processes(tmp_path, data_dir):
    """Grain's workers are started anew from a file with a main guard."""
    folder = shutil.copytree(prepare("photos_x4", data_dir), tmp_path / "photos_x4/1.0.0")
    flip_a_record(tmp_path)
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from clipjax.data import Pipeline, load, records\n"
        "def main():\n"
        "    records.IN_MEMORY_BYTES = 0\n"
        "    source = load('photos_x4', 'train', sys.argv[1])\n"
        "    next(Pipeline(source, source, 602, 602, None, 0, workers=1).train(0))\n"
        "if __name__ == '__main__':\n"
        "    main()\n"
    )
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    message = rf"UnreadableRecord: data set 'photos_x4', .* delete {folder}"
    assert re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize("error", [PermissionError(13, "denied"), MemoryError("no room")])
@pytest.mark.parametrize(
    "place", ["builder_from_directory", "features.FeatureConnector.from_config"]
)
def test_lack_of_permission_or_memory_is_no_damage(folder, monkeypatch, place, error):
    def refused(*arguments, **options):
        raise error

    monkeypatch.setattr(f"tensorflow_datasets.{place}", refused)
    with pytest.raises(type(error), match=r"denied|no room"):
        load("digits", "train", folder.parents[1])
    with pytest.raises(type(error), match=r"denied|no room"):
        is_prepared("digits", folder.parents[1])  # and so nothing is prepared again


def change(folder, edit):
    """Change features.json as someone would who knows of the list."""
    path = folder / FEATURES
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    (folder / CONTENTS).unlink(missing_ok=True)


EVIL = {"pythonClassName": "evil_module.Feature", "jsonFeature": {"json": "{}"}}
INSIDE = {
    "a feature": lambda c: c["featuresDict"]["features"].update(label=EVIL),
    "the other name": lambda c: c["featuresDict"]["features"].update(
        label={"python_class_name": "evil_module.Feature", "json_feature": {"json": "{}"}}
    ),
    "the whole": lambda c: c.update(EVIL),
    "as old versions": lambda c: (
        c.clear(),
        c.update(type="evil_module.Feature", content="{}", proto_cls="x"),
    ),
    "json in json": lambda c: c["featuresDict"]["features"].update(
        label={
            "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
            "jsonFeature": {
                "json": json.dumps({"feature": {"type": "evil_module.F", "content": {}}})
            },
        }
    ),
    "a proto in a string": lambda c: (
        c.clear(),
        c.update(
            type="tensorflow_datasets.core.features.features_dict.FeaturesDict",
            proto_cls="tensorflow_datasets.FeaturesDict",
            content=json.dumps({"features": {"label": EVIL}}),
        ),
    ),
    "no text": lambda c: c.update(pythonClassName=["evil_module.Feature"]),
}


@pytest.mark.parametrize("place", INSIDE)
def test_no_module_is_imported_on_the_word_of_a_file(folder, tmp_path, monkeypatch, place):
    (tmp_path / "evil_module.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    change(folder, INSIDE[place])
    with pytest.raises(DamagedDataset, match=r"features\.json.*evil_module.*none of TFDS's"):
        load("digits", "train", tmp_path)
    assert "evil_module" not in sys.modules


def test_every_feature_of_tfds_is_known():
    import tensorflow_datasets as tfds

    features = tfds.features
    made = [features.BBoxFeature(), features.Sequence(features.Scalar(np.int32))]
    made += [features.Image(), features.Text(), features.Translation(("de", "en"))]
    names = {f"{type(feature).__module__}.{type(feature).__name__}" for feature in made}
    assert names <= known_features()
    assert all(name.startswith("tensorflow_datasets.") for name in known_features())


def test_shards_outside_of_the_folder_are_not_read(folder):
    content = json.loads((folder / INFO).read_text())
    for split in content["splits"]:
        split["filepathTemplate"] = "../" + split["filepathTemplate"]
    (folder / INFO).write_text(json.dumps(content))
    (folder / CONTENTS).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        shutil.copy(folder / SHARD, folder.parent)
    with pytest.raises(DamagedDataset, match=r"dataset_info\.json: it lists .*elsewhere"):
        load("digits", "train", folder.parents[1])


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("train[", r"split 'train\['.* Expected one of \['test', 'train'\], or a part such as"),
        ("train[5:2]", "is empty; the sizes are"),
        ("train[0:0]", "is empty; the sizes are"),
        ("train[:0%]", "is empty; the sizes are"),
        ("train[:99999]", "incompatible with 1437 examples. Expected one of"),
        ("train+tset", "Expected one of"),
        (None, "split is None; expected text, one of"),
        (3, "split is 3; expected text, one of"),
    ],
)
def test_splits_that_there_are_not(data_dir, split, message):
    with pytest.raises(ValueError, match=message) as raised:
        load("digits", split, data_dir)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [None, 3, b"digits", ["digits"], "a\0b", "x" * 5000, ".."])
def test_names_of_odd_kinds(tmp_path, name):
    for use in (prepare, splits, lambda name, where: load(name, "train", where)):
        with pytest.raises(ValueError, match=r"there is no data set|expected text such as"):
            use(name, tmp_path)


@pytest.mark.parametrize("folder", ["", " ", "a\0b"])
def test_an_empty_data_dir_is_not_the_current_folder(folder):
    with pytest.raises(ValueError, match=r"data_dir is .* expected the path of a folder"):
        prepare("digits", folder)


def test_a_missing_file_is_named_where_data_cannot_be_made_anew(tmp_path, data_dir):
    folder = shutil.copytree(prepare("digits", data_dir), tmp_path / "cifar10/1.0.0")
    (folder / SHARD).unlink()
    with pytest.raises(DatasetNotPrepared, match=rf"{folder / SHARD} is missing"):
        load("cifar10", "train", tmp_path)
