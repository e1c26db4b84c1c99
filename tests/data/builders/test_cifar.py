import pickle

import numpy as np
import pytest

from clipjax.data import load
from clipjax.data.builders.cifar import load_plain_pickle
from tests.data.builders.miniature import encode, prepared, shared, write_folder, write_tar

TRAIN, TEST = 23, 7


def planes(images):
    """Return rows of red, then green, then blue pixels, as the archives hold them."""
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


@pytest.fixture(scope="module", params=[10, 100])
def data(request):
    rng = np.random.default_rng(request.param)
    made = {}
    for split, count in (("train", TRAIN), ("test", TEST)):
        made[f"{split}_images"] = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        made[f"{split}_labels"] = rng.integers(0, request.param, count)
    return request.param, [f"name_{i:02d}" for i in range(request.param)], made


def python_archive(classes, names, made):
    """The authors' files: pickles of Python 2, keys and names as bytes."""

    def batch(images, labels):
        label = b"labels" if classes == 10 else b"fine_labels"
        return pickle.dumps({b"data": planes(images), label: labels.tolist()}, protocol=2)

    names = [name.encode() for name in names]
    if classes == 100:
        folder = "cifar-100-python/"
        parts = {"train": slice(None)}
        test, meta = "test", {"meta": pickle.dumps({b"fine_label_names": names}, protocol=2)}
    else:
        folder = "cifar-10-batches-py/"
        parts = {f"data_batch_{i}": slice(5 * i - 5, 5 * i) for i in range(1, 6)}
        test, meta = "test_batch", {"batches.meta": pickle.dumps({b"label_names": names})}
    files = {
        name: batch(made["train_images"][part], made["train_labels"][part])
        for name, part in parts.items()
    }
    files[test] = batch(made["test_images"], made["test_labels"])
    return {folder + name: content for name, content in {**files, **meta}.items()}


def binary_archive(classes, names, made):
    def batch(images, labels):
        coarse = [bytes([200])] * len(labels) if classes == 100 else [b""] * len(labels)
        rows = zip(coarse, labels, planes(images), strict=True)
        return b"".join(c + bytes([label]) + row.tobytes() for c, label, row in rows)

    if classes == 100:
        folder, parts, test = "cifar-100-binary/", {"train": slice(None)}, "test"
        meta = "fine_label_names.txt"
    else:
        folder, test, meta = "cifar-10-batches-bin/", "test_batch", "batches.meta.txt"
        parts = {f"data_batch_{i}": slice(5 * i - 5, 5 * i) for i in range(1, 6)}
    files = {
        f"{name}.bin": batch(made["train_images"][part], made["train_labels"][part])
        for name, part in parts.items()
    }
    files[f"{test}.bin"] = batch(made["test_images"], made["test_labels"])
    files[meta] = ("\n".join(names) + "\n\n").encode()
    return {folder + name: content for name, content in files.items()}


def write_python(raw, *data):
    write_tar(raw / f"cifar-{data[0]}-python.tar.gz", python_archive(*data), "w:gz")


def write_binary(raw, *data):
    write_tar(raw / f"cifar-{data[0]}-binary.tar.gz", binary_archive(*data), "w:gz")


def write_unpacked(raw, *data):
    write_folder(raw, python_archive(*data))


def write_npz(raw, classes, names, made):
    np.savez(raw / "subset.npz", classes=np.array(names), **made)


def write_pictures(raw, classes, names, made):
    for split in ("train", "test"):
        pairs = zip(made[f"{split}_images"], made[f"{split}_labels"], strict=True)
        files = {f"{split}/{names[k]}/{i}.png": encode(image) for i, (image, k) in enumerate(pairs)}
        write_folder(raw, files)


@pytest.mark.parametrize("write", [write_python, write_binary, write_unpacked, write_npz])
def test_every_form_gives_the_same_records(tmp_path, data, write):
    classes, names, made = data
    raw = tmp_path / "raw"
    raw.mkdir()
    write(raw, *data)
    found = prepared(f"cifar{classes}", tmp_path, raw)
    for split, count in (("train", TRAIN), ("test", TEST)):
        assert len(found[split]) == count
        for i in range(count):
            record = found[split][f"{split} {i}"]
            np.testing.assert_array_equal(record["image"], made[f"{split}_images"][i])
            assert record["label"] == made[f"{split}_labels"][i]
    source = load(f"cifar{classes}", "train", tmp_path / "prepared")
    assert source.class_names == tuple(names)


def test_a_folder_of_pictures(tmp_path):
    rng = np.random.default_rng(0)
    made = {
        f"{split}_{kind}": array
        for split in ("train", "test")
        for kind, array in (
            ("images", rng.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)),
            ("labels", np.arange(10)),
        )
    }
    names = [f"class {i}" for i in range(10)]
    write_pictures(tmp_path / "raw", 10, names, made)
    found = prepared("cifar10", tmp_path, tmp_path / "raw")
    assert sorted(int(record["label"]) for record in found["test"].values()) == list(range(10))
    np.testing.assert_array_equal(
        found["test"]["test/class 3/3.png"]["image"], made["test_images"][3]
    )


def test_the_real_subset(tmp_path):
    with np.load(shared("cifar100") / "cifar100_subset.npz") as file:
        part = {key: file[key][: 100 if key == "classes" else 200] for key in file.files}
    np.savez(tmp_path / "cifar100_subset.npz", **part)
    found = prepared("cifar100", tmp_path, tmp_path)
    assert {split: len(records) for split, records in found.items()} == {"train": 200, "test": 200}
    np.testing.assert_array_equal(found["test"]["test 5"]["image"], part["test_images"][5])
    source = load("cifar100", "train", tmp_path / "prepared")
    assert source.class_names[:2] == ("apple", "aquarium_fish")


class Evil:
    """Unpickling this as usual runs a command."""

    def __reduce__(self):
        return print, ("a stranger's code has run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({b"data": Evil()}), "a file is no .* data: it asks for builtins.print"),
        (pickle.dumps({b"data": np.random.default_rng(0)}), "it asks for numpy.random"),
        (b"\x80\x02cos\nsystem\nq\x00", "it asks for os.system"),
        (pickle.dumps({b"a": 1})[:-3], "a file is no pickle of plain data"),
        (b"", "a file is no pickle of plain data"),
        (pickle.dumps([1]), "a file holds a list, expected a dict"),
    ],
    ids=["code", "generator", "system", "cut", "empty", "list"],
)  # fmt: skip
def test_pickles_run_no_code(content, message, capsys):
    with pytest.raises(ValueError, match=message):
        load_plain_pickle(content, "a file")
    assert capsys.readouterr().out == ""


def test_pickles_of_old_and_new_numpy_are_read():
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    new = pickle.dumps({b"data": array}, protocol=2)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert b"numpy.core" in old
    for content in (new, old):
        np.testing.assert_array_equal(load_plain_pickle(content, "a file")["data"], array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": np.full(TRAIN, 100)}, r"labels 100 \.\.\. 100, expected 0 \.\.\. 99"),
        ({"train_images": np.zeros((TRAIN, 32, 32), np.uint8)}, r"pictures uint8 \(23, 32, 32\)"),
        ({"train_images": np.zeros((TRAIN, 32, 32, 3))}, "pictures float64"),
        ({"test_labels": None}, r"it has no \['test_labels'\]"),
    ],
    ids=["label", "grey", "floats", "missing"],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, message):
    made = {
        "train_images": np.zeros((TRAIN, 32, 32, 3), np.uint8),
        "train_labels": np.zeros(TRAIN, int),
        "test_images": np.zeros((TEST, 32, 32, 3), np.uint8),
        "test_labels": np.zeros(TEST, int),
    } | change
    np.savez(tmp_path / "subset.npz", **{k: v for k, v in made.items() if v is not None})
    with pytest.raises(ValueError, match=message):
        prepared("cifar100", tmp_path, tmp_path)


def test_objects_in_an_npz_are_not_unpickled(tmp_path, capsys):
    np.savez(tmp_path / "subset.npz", train_images=np.array([Evil()], dtype=object),
             train_labels=0, test_images=0, test_labels=0)  # fmt: skip
    with pytest.raises(ValueError, match=r"subset\.npz cannot be used: Object arrays"):
        prepared("cifar10", tmp_path, tmp_path)
    assert capsys.readouterr().out == ""


def test_a_cut_archive_is_named(tmp_path, data):
    classes, *_ = data
    write_binary(tmp_path, *data)
    (path,) = tmp_path.glob("*.tar.gz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(
        ValueError, match=rf"cifar-{classes}-binary\.tar\.gz is no readable archive"
    ):
        prepared(f"cifar{classes}", tmp_path, tmp_path)
