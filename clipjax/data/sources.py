"""Prepared data sets: built once into ArrayRecord, then read record by record.

A data set is a TFDS builder of ours (`clipjax.data.builders`), prepared without TensorFlow into

    DATA_DIR/NAME/VERSION/{dataset_info.json, features.json, NAME-SPLIT.array_record-00000-of-...}

`prepare` builds in a hidden folder beside it and renames the whole folder at the end, so a
folder of that name is complete, whenever the builder was killed. `load` opens one split as a
`Source` (`clipjax.data.records`). What users of TensorFlow prepared with TFDS's own builders into
DATA_DIR (`cifar100`, `imagenet2012`, `div2k/bicubic_x4`) is read as it is, ArrayRecord or TFRecord.

TFDS, Pillow and OpenCV are imported inside the functions: `import clipjax.data` costs nothing.
"""

import contextlib
import difflib
import fcntl
import importlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipjax.data.records import Source, UnreadableRecord, decode_image, how_to_prepare
from clipjax.data.tfrecords import TfRecords

__all__ = [
    "BUILDERS",
    "DatasetNotPrepared",
    "Source",
    "UnreadableRecord",
    "decode_image",
    "default_data_dir",
    "load",
    "prepare",
    "splits",
]

BUILDERS: Mapping[str, str] = {
    "digits": "clipjax.data.builders.digits:Digits",
    "digit_scenes": "clipjax.data.builders.digit_scenes:DigitScenes",
    "photos_x4": "clipjax.data.builders.photos_x4:PhotosX4",
    "imagenet100": "clipjax.data.builders.imagenet100:Imagenet100",
    "voc2012_segmentation": "clipjax.data.builders.voc2012_segmentation:Voc2012Segmentation",
    "div2k_x4": "clipjax.data.builders.div2k_x4:Div2kX4",
    "cifar10": "clipjax.data.builders.cifar:Cifar10",
    "cifar100": "clipjax.data.builders.cifar:Cifar100",
    "mnist": "clipjax.data.builders.mnist:Mnist",
    "fashion_mnist": "clipjax.data.builders.mnist:FashionMnist",
    "tiny_imagenet": "clipjax.data.builders.tiny_imagenet:TinyImagenet",
    "image_folder": "clipjax.data.builders.image_folder:ImageFolder",
    "segmentation_folder": "clipjax.data.builders.segmentation_folder:SegmentationFolder",
    "super_resolution_folder": (
        "clipjax.data.builders.super_resolution_folder:SuperResolutionFolder"
    ),
}
"""Where the builder of each data set is: `module:class`."""

Progress = Callable[[Sequence[Any], str], Iterable[Any]]

NAMED = ("image_folder", "segmentation_folder", "super_resolution_folder")
"""Data of the user's: of each there may be several, as `image_folder/flowers`."""

OTHER_KEYS = ({"image": "lr", "target": "hr"},)
"""What our keys are called in data sets that TFDS's own builders prepared (DIV2K)."""

SKIPPED = "skipped.txt"
"""The file in a prepared folder that lists what was left out as damaged."""


class DatasetNotPrepared(FileNotFoundError):
    """The data set is not on disk, or not all of it; the message says how to prepare it."""


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


def prepare(
    name: str,
    data_dir: str | Path | None = None,
    *,
    raw_dir: str | Path | None = None,
    skip_damaged: bool = False,
    verify: bool = True,
    progress: Progress | None = None,
) -> Path:
    """Build a data set into ArrayRecord, unless it is there already.

    Building happens in a hidden folder of `data_dir` under a lock and ends with one rename:
    killed at any moment, it leaves nothing that looks complete; of two processes that prepare
    the same set, one builds and the other waits.

    Args:
        name: one of `BUILDERS`; those of `NAMED` may have a name of yours behind a slash.
        data_dir: where prepared data sets are; `default_data_dir()` if None.
        raw_dir: where the raw data is; None for data that is embedded or can be downloaded.
        skip_damaged: leave out examples that cannot be used, in place of stopping at the first.
        verify: compare known archives with their published SHA-256.
        progress: (items, what is done with them) -> the same items; shows how far it is.

    Returns:
        The folder with the ArrayRecord files, and with skipped.txt if examples were left out.

    Raises:
        ValueError: If there is no such data set (the nearest name is given), or raw data is not
            what it should be; the message names the file.
        FileNotFoundError: If a raw file is missing; the message says which one to put where.
        ImportError: If the package that carries the raw data is missing.
    """
    builder_class = _builder_class(name)
    root = _root(data_dir)
    final = root / name / str(builder_class.VERSION)
    if not _missing_files(final):
        return final
    root.mkdir(parents=True, exist_ok=True)
    stem = name.replace("/", "-")
    with _lock(root / f".{stem}.lock"):
        if not _missing_files(final):
            return final
        for leftover in root.glob(f".{stem}-*.preparing"):  # of a process that was killed
            shutil.rmtree(leftover)
        staging = Path(tempfile.mkdtemp(prefix=f".{stem}-", suffix=".preparing", dir=root))
        try:
            options: dict[str, Any] = {}
            if not builder_class.EMBEDDED:
                options = _raw_options(raw_dir, skip_damaged, verify, progress)
            elif raw_dir is not None:
                raise ValueError(f"data set {name!r} ships in a package: leave raw_dir out")
            downloading = raw_dir is None and getattr(builder_class, "PUBLIC", False)
            downloads = root if downloading else staging
            built = _build(builder_class, staging, downloads / "downloads", options)
            final.parent.mkdir(parents=True, exist_ok=True)
            if final.exists():  # some of its files were deleted
                final.rename(staging / "incomplete")
            built.rename(final)
        finally:
            shutil.rmtree(staging)
    return final


def _raw_options(
    raw_dir: str | Path | None, skip_damaged: bool, verify: bool, progress: Progress | None
) -> dict[str, Any]:
    from clipjax.data.builders.raw import Raw

    directory = None if raw_dir is None else Path(raw_dir).expanduser().absolute()
    shown = {} if progress is None else {"progress": progress}
    return {"raw": Raw(directory, skip_damaged, verify, **shown)}


def _build(builder_class: Any, staging: Path, downloads: Path, options: Mapping[str, Any]) -> Path:
    """Build into a staging folder; return the folder of the files in it."""
    import tensorflow_datasets as tfds

    with contextlib.ExitStack() as stack:
        builder = builder_class(data_dir=staging, file_format="array_record", **options)
        if hasattr(builder, "close"):
            stack.callback(builder.close)
        with _quiet():
            builder.download_and_prepare(
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
    built = Path(builder.data_dir)
    if skipped := getattr(builder, "skipped", []):
        (built / SKIPPED).write_text("".join(f"{line}\n" for line in skipped), encoding="utf-8")
    return built


def load(name: str, split: str, data_dir: str | Path | None = None) -> Source:
    """Open a split of a prepared data set.

    Data sets that are embedded in installed packages are prepared on first use, in seconds.

    Args:
        name: one of `BUILDERS`, or the folder of a data set that TFDS's own builders prepared.
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
    return _open(name, split, _directory(name, data_dir))


def splits(name: str, data_dir: str | Path | None = None) -> dict[str, int]:
    """Return the splits of a prepared data set and their lengths; arguments and errors as `load`.

    Examples:
        >>> splits("digits")
        {'test': 360, 'train': 1437}
    """
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(_directory(name, data_dir))
    found = builder.info.splits
    return {split: found[split].num_examples for split in sorted(found)}


def _directory(name: str, data_dir: str | Path | None) -> Path:
    """Return the folder of a prepared data set; embedded ones are prepared."""
    root = _root(data_dir)
    if name.partition("/")[0] not in BUILDERS:
        if found := _prepared_by_others(root / name):
            return found
        _builder_class(name)  # names the nearest
    builder_class = _builder_class(name)
    directory = root / name / str(builder_class.VERSION)
    if missing := _missing_files(directory):
        if not missing[0].parent.exists() and (found := _prepared_by_others(root / name)):
            return found
        if not builder_class.EMBEDDED:
            raise DatasetNotPrepared(
                f"data set {name!r} is not prepared: {missing[0]} is missing. "
                f"Prepare it first: {how_to_prepare(name)}"
            )
        prepare(name, data_dir)
    return directory


def _prepared_by_others(folder: Path) -> Path | None:
    """Return the newest version in a folder that holds a data set, whoever prepared it."""

    def version(path: Path) -> tuple[int, ...]:
        return tuple(map(int, path.name.split(".")))

    found = [path.parent for path in folder.glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json")]
    found = [path for path in found if all(part.isdigit() for part in path.name.split("."))]
    return max(found, key=version, default=None)


def _open(name: str, split: str, directory: Path) -> Source:
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(directory)
    features: dict[str, Any] = dict(builder.info.features.items())
    keys = next((k for k in OTHER_KEYS if set(k.values()) <= set(features)), {})
    keys = {key: stored for key, stored in keys.items() if key not in features}
    named = {**features, **{key: features[stored] for key, stored in keys.items()}}
    if "image" not in named:
        raise ValueError(f"{directory} holds no pictures; its records have {sorted(features)}")
    pictures: dict[str, Any] = {
        key: feature for key, feature in named.items() if isinstance(feature, tfds.features.Image)
    }
    decoders = {keys.get(key, key): tfds.decode.SkipDecoding() for key in pictures}
    try:
        records = _records(builder, split, decoders)
    except (KeyError, ValueError) as error:
        known = sorted(builder.info.splits)
        if split.partition("[")[0] in known:
            raise
        raise ValueError(
            f"data set {name!r} has no split {split!r}{_nearest(split, known)}; it has {known}"
        ) from error
    label = named.get("label")
    return Source(
        name=name,
        split=split,
        num_classes=getattr(label, "num_classes", None) or 0,
        image_shape=named["image"].shape,
        directory=directory,
        records=records,
        picture_shapes={key: feature.shape for key, feature in pictures.items()},
        class_names=tuple(getattr(label, "names", None) or ()),
        keys=keys,
    )


def _records(builder: Any, split: str, decoders: dict[str, Any]) -> Sequence[Mapping[str, Any]]:
    info = builder.info
    if info.file_format is None or info.file_format.value != "tfrecord":
        return builder.as_data_source(split=split, decoders=decoders)
    parts = [(p.filename, p.skip, p.take) for p in info.splits[split].file_instructions]

    def parse(record: bytes) -> Any:
        return info.features.deserialize_example_np(record, decoders=decoders)

    return TfRecords(parts, parse)


def _builder_class(name: str) -> Any:
    base, _, own = name.partition("/")
    own_is_fine = base in NAMED and own.replace("_", "a").isalnum()
    if base not in BUILDERS or ("/" in name and not own_is_fine):
        raise ValueError(
            f"there is no data set {name!r}{_nearest(name, BUILDERS)}; known are {sorted(BUILDERS)}"
            f", and {', '.join(f'{kind}/NAME' for kind in NAMED)}"
        )
    module, _, attribute = BUILDERS[base].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _nearest(name: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


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
    """Hide TFDS's own progress bars."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
