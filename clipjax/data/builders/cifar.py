"""CIFAR-10 and CIFAR-100: 50,000 and 10,000 pictures of 32 x 32 in 10 or 100 classes.

Krizhevsky 2009, "Learning multiple layers of features from tiny images". From the authors' Python
or binary archive (packed or not), an npz, or a folder train/CLASS/*.png, test/CLASS/*.png.

The Python archives hold pickles. They are read by an unpickler that knows NumPy's arrays and
Python's plain containers and refuses every other name, so that no code of a file is run.
"""

import io
import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from clipjax.data.builders.archives import LARGEST_FILE, Members
from clipjax.data.builders.image_folder import folder_examples, folder_splits
from clipjax.data.builders.pictures import png_of
from clipjax.data.builders.raw import RawBuilder, checked_names

SIDE = 32
PIXELS = 3 * SIDE * SIDE


class Arrays(NamedTuple):
    """A split: uint8 (n, 32, 32, 3) pictures and int (n,) labels."""

    images: np.ndarray
    labels: np.ndarray


def _as_bytes(text: str, encoding: str) -> bytes:
    """Stand in for `_codecs.encode`, by which Python 3 writes bytes for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it asks for the codec {encoding!r}")
    return text.encode("latin1")


class _PlainUnpickler(pickle.Unpickler):
    """Makes arrays and plain containers, and nothing else."""

    _KNOWN = {  # noqa: RUF012  (a table, not a default)
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): _as_bytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what a name stands for, if it is one of the few that data needs."""
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which data does not need")
        return self._KNOWN[module, name]


def load_plain_pickle(content: bytes, where: str) -> dict[str, Any]:
    """Read a pickled dict of arrays, numbers, strings and lists; anything else is refused.

    Raises:
        ValueError: If it is damaged, or asks for anything else; the message names the file.

    Examples:
        >>> load_plain_pickle(pickle.dumps({b"a": [1]}), "a file")
        {'a': [1]}
        >>> load_plain_pickle(pickle.dumps({"a": print}), "a file")
        Traceback (most recent call last):
        ValueError: a file is no pickle of plain data: it asks for builtins.print, ...
    """
    try:
        loaded = _PlainUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(f"{where} is no pickle of plain data: {error}") from error
    if not isinstance(loaded, dict):
        raise ValueError(f"{where} holds a {type(loaded).__name__}, expected a dict")
    return {key.decode() if isinstance(key, bytes) else str(key): v for key, v in loaded.items()}


class Cifar10(RawBuilder):
    """Ten classes of animals and vehicles."""

    name = "cifar10"
    PUBLIC = True
    SOURCE = "https://www.cs.toronto.edu/~kriz/cifar-10-"
    NUM_CLASSES = 10
    STEM = "cifar-10"
    PYTHON = ("cifar-10-batches-py", tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    BINARY = ("cifar-10-batches-bin", tuple(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    LABELS, META, NAMES = "labels", "batches.meta", "label_names"
    NAMES_FILE = "batches.meta.txt"
    LABEL_BYTES = 1
    """Bytes before the pixels of a binary record; the last of them is the class."""
    NEEDS = (
        "cifar-10-python.tar.gz or cifar-10-binary.tar.gz (or what is in them), an npz with "
        "train_images, train_labels, test_images, test_labels (classes), or folders "
        "train/CLASS/*.png and test/CLASS/*.png"
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
                    # Names are set once the raw data has been read.
                    "label": tfds.features.ClassLabel(num_classes=self.NUM_CLASSES),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        if (folder := self.find("train")) and folder.is_dir():
            members = self.open(folder.parent)
            splits = folder_splits(members, self.missing(f"{self.STEM}-python.tar.gz"))
            self._name_classes(splits["train"][0])
            return {
                split: folder_examples(self, members, split, *found)
                for split, found in splits.items()
            }
        splits, names = self._read(dl_manager)
        self._name_classes(names)
        return {split: self._split(split, arrays) for split, arrays in splits.items()}

    def _name_classes(self, names: list[str]) -> None:
        features: Any = self.info.features
        if len(names) != self.NUM_CLASSES:
            raise ValueError(f"{self.name} has {self.NUM_CLASSES} classes, found {len(names)}")
        features["label"].names = checked_names(names, f"the classes of {self.name}")

    def _split(self, split: str, arrays: Arrays) -> Any:
        images, labels = arrays

        def make(index: int) -> dict[str, Any]:
            return {
                "id": f"{split} {index}",
                "image": png_of(images[index]),
                "label": int(labels[index]),
            }

        return self.examples(split, range(len(labels)), make)

    def _read(self, dl_manager: Any) -> tuple[dict[str, Arrays], list[str]]:
        if self.raw.directory is not None:
            for path in sorted(self.folder().glob("*.npz")):
                return self._from_npz(path)
        python, binary = f"{self.STEM}-python.tar.gz", f"{self.STEM}-binary.tar.gz"
        # Folders, then archives; the Python one where nothing is there and all may be downloaded.
        for name, (folder, *_), read in (
            (python, self.PYTHON, self._from_python),
            (binary, self.BINARY, self._from_binary),
        ):
            if (found := self.find(folder)) and found.is_dir():
                return read(self.open(found), "")
            if self.find(name):
                return read(self.open(self.archive(dl_manager, name)), f"{folder}/")
        return self._from_python(self.open(self.archive(dl_manager, python)), f"{self.PYTHON[0]}/")

    def _from_python(self, members: Members, prefix: str) -> tuple[dict[str, Arrays], list[str]]:
        def batch(name: str) -> Arrays:
            where = members.where(prefix + name)
            content = load_plain_pickle(members.read(prefix + name), where)
            pixels, labels = content.get("data"), content.get(self.LABELS)
            if not isinstance(pixels, np.ndarray) or not isinstance(labels, list):
                raise ValueError(f"{where} has no data and {self.LABELS}; it has {sorted(content)}")
            return self._arrays(pixels, np.array(labels), where)

        _, train, test = self.PYTHON
        where = members.where(prefix + self.META)
        names = load_plain_pickle(members.read(prefix + self.META), where)[self.NAMES]
        return self._splits([batch(name) for name in train], batch(test)), [
            name.decode() if isinstance(name, bytes) else name for name in names
        ]

    def _from_binary(self, members: Members, prefix: str) -> tuple[dict[str, Arrays], list[str]]:
        def batch(name: str) -> Arrays:
            content = np.frombuffer(members.read(f"{prefix}{name}.bin"), np.uint8)
            where = members.where(f"{prefix}{name}.bin")
            row = self.LABEL_BYTES + PIXELS
            if content.size % row:
                raise ValueError(f"{where} is cut: {content.size} bytes, no multiple of {row}")
            rows = content.reshape(-1, row)
            return self._arrays(rows[:, -PIXELS:], rows[:, self.LABEL_BYTES - 1], where)

        _, train, test = self.BINARY
        names = members.text(prefix + self.NAMES_FILE).split()
        return self._splits([batch(name) for name in train], batch(test)), names

    def _from_npz(self, path: Path) -> tuple[dict[str, Arrays], list[str]]:
        keys = ("train_images", "train_labels", "test_images", "test_labels")
        try:
            with zipfile.ZipFile(path) as packed:
                unpacked = sum(entry.file_size for entry in packed.infolist())
            if unpacked > LARGEST_FILE:
                raise ValueError(f"{unpacked:,} bytes unpacked, at most {LARGEST_FILE:,} are read")
            with np.load(path, allow_pickle=False) as file:
                missing = [key for key in keys if key not in file.files]
                if missing:
                    raise ValueError(f"it has no {missing}; it has {sorted(file.files)}")
                values = {key: file[key] for key in file.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{path} cannot be used: {error}") from error
        names = list(map(str, values.get("classes", range(self.NUM_CLASSES))))
        return {
            split: self._arrays(values[f"{split}_images"], values[f"{split}_labels"], str(path))
            for split in ("train", "test")
        }, names

    def _splits(self, train: list[Arrays], test: Arrays) -> dict[str, Arrays]:
        return {"train": Arrays(*map(np.concatenate, zip(*train, strict=True))), "test": test}

    def _arrays(self, pixels: np.ndarray, labels: np.ndarray, where: str) -> Arrays:
        """Check a part, and turn rows of planes (red, green, blue) into pictures."""
        if pixels.ndim == 2 and pixels.shape[1] == PIXELS:
            pixels = pixels.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
        labels = labels.reshape(-1)
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), SIDE, SIDE, 3):
            raise ValueError(
                f"{where} has pictures {pixels.dtype} {pixels.shape} and {len(labels)} labels; "
                f"expected uint8 (n, {PIXELS}) or (n, {SIDE}, {SIDE}, 3), and n labels"
            )
        if len(labels) and not 0 <= labels.min() <= labels.max() < self.NUM_CLASSES:
            raise ValueError(
                f"{where} has labels {labels.min()} ... {labels.max()}, expected 0 ... "
                f"{self.NUM_CLASSES - 1}"
            )
        return Arrays(np.ascontiguousarray(pixels), labels)


class Cifar100(Cifar10):
    """A hundred classes; the fine labels."""

    name = "cifar100"
    SOURCE = "https://www.cs.toronto.edu/~kriz/cifar-100-"
    NUM_CLASSES = 100
    STEM = "cifar-100"
    PYTHON = ("cifar-100-python", ("train",), "test")
    BINARY = ("cifar-100-binary", ("train",), "test")
    LABELS, META, NAMES = "fine_labels", "meta", "fine_label_names"
    NAMES_FILE = "fine_label_names.txt"
    LABEL_BYTES = 2  # the coarse class, then the fine one
    NEEDS = Cifar10.NEEDS.replace("cifar-10-", "cifar-100-")
