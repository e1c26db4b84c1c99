"""Prepared data sets: built once into ArrayRecord, then read record by record.

A data set is a TFDS builder of ours (`clipjax.data.builders`), prepared without TensorFlow into

    DATA_DIR/NAME/VERSION/{dataset_info.json, features.json, NAME-SPLIT.array_record-00000-of-...}

`prepare` builds in a hidden folder beside it and renames the whole folder at the end, so a
folder of that name is complete, whenever the builder was killed. `load` opens one split as a
`Source`: records by number, each a dict of NumPy arrays with the keys

    image   uint8 (height, width, channels)
    label   int32 (), or the class of every pixel, uint8 (height, width)
    target  uint8 (height, width, channels), the picture that super-resolution should give

TFDS and Pillow are imported inside the functions: `import clipjax.data` costs nothing.
"""

import contextlib
import dataclasses
import difflib
import fcntl
import functools
import importlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BUILDERS: Mapping[str, str] = {
    "digits": "clipjax.data.builders.digits:Digits",
    "digit_scenes": "clipjax.data.builders.digit_scenes:DigitScenes",
    "photos_x4": "clipjax.data.builders.photos_x4:PhotosX4",
}
"""Where the builder of each data set is: `module:class`."""

IN_MEMORY_BYTES = 2**30
"""A split that is no larger than this once decoded is decoded once and kept."""

_BATCH_KEYS = ("image", "label", "target")
_PILLOW_MODES = {1: "L", 3: "RGB"}


class DatasetNotPrepared(FileNotFoundError):
    """The data set is not on disk, or not all of it; the message says how to prepare it."""


class UnreadableRecord(ValueError):
    """A record of a prepared data set cannot be read; the message names it."""


def default_data_dir() -> Path:
    """Return the folder of the prepared data sets.

    `$CLIPJAX_DATA_DIR` where it is set, else `clipjax/data` in the user's cache (`$XDG_CACHE_HOME`,
    by default `~/.cache`).

    Examples:
        >>> default_data_dir().is_absolute()
        True
    """
    if chosen := os.environ.get("CLIPJAX_DATA_DIR"):
        return Path(chosen).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "clipjax" / "data"


def decode_image(encoded: bytes, channels: int) -> np.ndarray:
    """Decode a PNG or JPEG.

    Pillow, not OpenCV: a mask keeps its class numbers (OpenCV turns palettes into colours).

    Args:
        encoded: the bytes of the file.
        channels: 1 (grey, or a mask) or 3 (RGB).

    Returns:
        uint8 (height, width, channels).

    Raises:
        ValueError: If the bytes are no picture, or one with other channels.

    Examples:
        >>> from io import BytesIO
        >>> from PIL import Image
        >>> file = BytesIO()
        >>> Image.new("L", (3, 2), color=7).save(file, "PNG")
        >>> decode_image(file.getvalue(), channels=1)[..., 0]
        array([[7, 7, 7],
               [7, 7, 7]], dtype=uint8)
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            mode, pixels = image.mode, np.array(image)
    except (OSError, SyntaxError) as error:  # what Pillow raises on damaged files
        raise ValueError(f"not a readable picture: {error}") from error
    if mode != _PILLOW_MODES[channels]:
        raise ValueError(
            f"a picture of Pillow's mode {mode!r}, where {_PILLOW_MODES[channels]!r} was expected"
        )
    return pixels.reshape(*pixels.shape[:2], channels)


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One split of a prepared data set, read by record number.

    Examples:
        >>> digits = load("digits", "test")
        >>> len(digits), digits.num_classes, digits.image_shape
        (360, 10, (8, 8, 1))
        >>> {key: value.shape for key, value in digits[0].items()}
        {'image': (8, 8, 1), 'label': ()}
    """

    name: str
    split: str
    num_classes: int
    """Classes of an example or of a pixel; 0 where there are none (super-resolution)."""
    image_shape: tuple[int | None, int | None, int]
    """Height, width, channels; None where pictures differ in size."""
    directory: Path
    records: Sequence[Mapping[str, Any]] = dataclasses.field(repr=False)
    """The records with their pictures still encoded, as TFDS reads them."""
    picture_shapes: Mapping[str, tuple[int | None, int | None, int]] = dataclasses.field(repr=False)
    """The shape of each key that is an encoded picture."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self}: record {index} of {len(self)}")
        return self._read([index])[0]

    @property
    def fits_in_memory(self) -> bool:
        """Whether the decoded split is at most `IN_MEMORY_BYTES`."""
        pixels = 0
        for height, width, channels in self.picture_shapes.values():
            if height is None or width is None:
                return False
            pixels += height * width * channels
        return len(self) * pixels <= IN_MEMORY_BYTES

    def in_memory(self) -> dict[str, np.ndarray]:
        """Return all records, decoded on the first call, stacked by key; not to be written to.

        Returns:
            Arrays whose leading axis is the record.

        Raises:
            UnreadableRecord: If a record is damaged.
        """
        return self._decoded

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the records of these numbers, stacked by key.

        Args:
            indices: int (batch,), each in [0, len(self)).

        Returns:
            New arrays whose leading axis is `indices`.
        """
        if self.fits_in_memory:
            return {key: value[indices] for key, value in self._decoded.items()}
        return self._stack(self._read([int(i) for i in indices]))

    @functools.cached_property
    def _decoded(self) -> dict[str, np.ndarray]:
        arrays = self._stack(self._read(range(len(self))))
        for array in arrays.values():
            array.flags.writeable = False
        return arrays

    def _stack(self, records: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {key: np.stack([record[key] for record in records]) for key in records[0]}

    def _read(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        return [self._decode(index, self._raw(index)) for index in indices]

    def _raw(self, index: int) -> Mapping[str, Any]:
        try:
            return self.records[index]
        except (OSError, RuntimeError, ValueError) as error:  # ArrayRecord's and protobuf's
            raise self._unreadable(index, "", error) from error

    def _decode(self, index: int, record: Mapping[str, Any]) -> dict[str, np.ndarray]:
        decoded = {}
        for key in _BATCH_KEYS:
            if key not in record:
                continue
            if key not in self.picture_shapes:
                decoded[key] = np.int32(record[key])
                continue
            shape = self.picture_shapes[key]
            try:
                picture = decode_image(record[key], shape[-1])
                if any(
                    want not in (None, got) for want, got in zip(shape, picture.shape, strict=True)
                ):
                    raise ValueError(f"a picture of shape {picture.shape}, expected {shape}")
            except ValueError as error:
                name = _text(record.get("id", b""))
                raise self._unreadable(index, f" ({key!r} of {name!r})", error) from error
            decoded[key] = picture[..., 0] if key == "label" else picture
        return decoded

    def _unreadable(self, index: int, where: str, error: Exception) -> UnreadableRecord:
        return UnreadableRecord(
            f"data set {self.name!r}, split {self.split!r}, record {index} of {len(self)}{where}: "
            f"{error}. The files are damaged: delete {self.directory} and prepare it again "
            f"({_how_to_prepare(self.name)})"
        )


def prepare(name: str, data_dir: str | Path | None = None) -> Path:
    """Build a data set into ArrayRecord, unless it is there already.

    Building happens in a hidden folder of `data_dir` under a lock and ends with one rename:
    killed at any moment, it leaves nothing that looks complete; of two processes that prepare
    the same set, one builds and the other waits.

    Args:
        name: one of `BUILDERS`.
        data_dir: where prepared data sets are; `default_data_dir()` if None.

    Returns:
        The folder with the ArrayRecord files.

    Raises:
        ValueError: If there is no such data set; the nearest name is given.
        ImportError: If the package that carries the raw data is missing.
    """
    builder_class = _builder_class(name)
    root = _root(data_dir)
    final = root / name / str(builder_class.VERSION)
    if not _missing_files(final):
        return final
    root.mkdir(parents=True, exist_ok=True)
    with _lock(root / f".{name}.lock"):
        if not _missing_files(final):
            return final
        for leftover in root.glob(f".{name}-*.preparing"):  # of a process that was killed
            shutil.rmtree(leftover)
        staging = Path(tempfile.mkdtemp(prefix=f".{name}-", suffix=".preparing", dir=root))
        try:
            builder = builder_class(data_dir=staging, file_format="array_record")
            with _quiet():
                builder.download_and_prepare()
            final.parent.mkdir(exist_ok=True)
            if final.exists():  # some of its files were deleted
                final.rename(staging / "incomplete")
            Path(builder.data_dir).rename(final)
        finally:
            shutil.rmtree(staging)
    return final


def load(name: str, split: str, data_dir: str | Path | None = None) -> Source:
    """Open a split of a prepared data set.

    Data sets that are embedded in installed packages are prepared on first use, in seconds.

    Args:
        name: one of `BUILDERS`.
        split: "train", "test", or a part of one in TFDS's notation ("train[:80%]").
        data_dir: where prepared data sets are; `default_data_dir()` if None.

    Returns:
        The records of the split.

    Raises:
        ValueError: If there is no such data set or split; the nearest name is given.
        DatasetNotPrepared: If the data set is not in `data_dir` and needs raw data that only
            the user has.

    Examples:
        >>> load("digits", "train")[0]["image"].dtype
        dtype('uint8')
    """
    builder_class = _builder_class(name)
    directory = _root(data_dir) / name / str(builder_class.VERSION)
    if missing := _missing_files(directory):
        if not builder_class.EMBEDDED:
            raise DatasetNotPrepared(
                f"data set {name!r} is not prepared: {missing[0]} is missing. "
                f"Prepare it first: {_how_to_prepare(name)}"
            )
        prepare(name, data_dir)
    return _open(name, split, directory)


def _open(name: str, split: str, directory: Path) -> Source:
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(directory)
    features: dict[str, Any] = dict(builder.info.features.items())
    pictures: dict[str, Any] = {
        key: feature
        for key, feature in features.items()
        if isinstance(feature, tfds.features.Image)
    }
    try:
        records = builder.as_data_source(
            split=split, decoders={key: tfds.decode.SkipDecoding() for key in pictures}
        )
    except (KeyError, ValueError) as error:
        splits = sorted(builder.info.splits)
        raise ValueError(
            f"data set {name!r} has no split {split!r}{_nearest(split, splits)}; it has {splits}"
        ) from error
    return Source(
        name=name,
        split=split,
        num_classes=getattr(features.get("label"), "num_classes", 0),
        image_shape=features["image"].shape,
        directory=directory,
        records=records,
        picture_shapes={key: feature.shape for key, feature in pictures.items()},
    )


def _builder_class(name: str) -> Any:
    if name not in BUILDERS:
        raise ValueError(
            f"there is no data set {name!r}{_nearest(name, BUILDERS)}; known are {sorted(BUILDERS)}"
        )
    module, _, attribute = BUILDERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def _how_to_prepare(name: str) -> str:
    return f"clipjax.data.prepare({name!r}, data_dir)"


def _root(data_dir: str | Path | None) -> Path:
    return default_data_dir() if data_dir is None else Path(data_dir).expanduser().absolute()


def _missing_files(directory: Path) -> list[Path]:
    """Return the files that a complete data set would have and this folder has not."""
    described = [directory / "dataset_info.json", directory / "features.json"]
    if missing := [file for file in described if not file.is_file()]:
        return missing
    import tensorflow_datasets as tfds

    splits = tfds.builder_from_directory(directory).info.splits.values()
    shards = [Path(file) for split in splits for file in split.filepaths]
    return [file for file in shards if not file.is_file()]


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock, which the system releases if the process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide TFDS's progress bars, which are for sets that take longer than seconds."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
