"""Prepared data sets: built once into ArrayRecord, then read record by record.

A data set is a TFDS builder of ours (`clipjax.data.builders`), prepared without TensorFlow into

    DATA_DIR/NAME/VERSION/{dataset_info.json, features.json, NAME-SPLIT.array_record-00000-of-...,
                           contents.json}

`prepare` builds in a hidden folder beside it and renames the whole folder at the end, so a
folder of that name is complete, whenever the builder was killed. `load` opens one split as a
`Source` (`clipjax.data.records`). What users of TensorFlow prepared with TFDS's own builders into
DATA_DIR (`cifar100`, `imagenet2012`, `div2k/bicubic_x4`) is read as it is, ArrayRecord or TFRecord.

TFDS, Pillow and OpenCV are imported inside the functions: `import clipjax.data` costs nothing.
"""

import contextlib
import difflib
import errno
import fcntl
import importlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipjax.data.prepared import (
    SKIPPED,
    TURNED,
    DatasetNotPrepared,
    check_shards,
    damaged,
    open_prepared,
    write_contents,
)
from clipjax.data.records import DamagedDataset, Source, UnreadableRecord, decode_image
from clipjax.data.tfrecords import TfRecords

__all__ = [
    "BUILDERS",
    "DamagedDataset",
    "DatasetNotPrepared",
    "Source",
    "UnreadableRecord",
    "decode_image",
    "default_data_dir",
    "is_prepared",
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

LONGEST_NAME = 60
"""Letters of a name of the user's: file systems take 255 bytes, and files are called after it."""

OTHER_KEYS = ({"image": "lr", "target": "hr"},)
"""What our keys are called in data sets that TFDS's own builders prepared (DIV2K)."""

_LEFTOVER = re.compile(r"\.(?P<stem>.+)-[a-z0-9_]{8}\.preparing")
"""What the folder is called in which a set is built (tempfile.mkdtemp draws the eight letters)."""


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
    """Build a data set into ArrayRecord, unless it is there already (see `is_prepared`).

    Building happens in a hidden folder of `data_dir` under a lock and ends with one rename:
    killed at any moment, it leaves nothing that looks complete, and the next call removes what is
    left of it; of two processes that prepare the same set, one builds and the other waits. A set
    that is there is not compared with the raw data; delete its folder to have it built again. One
    that is seen to be damaged is built again and replaced at the end.

    Args:
        name: one of `BUILDERS`; those of `NAMED` may have a name of yours behind a slash.
        data_dir: where prepared data sets are; `default_data_dir()` if None.
        raw_dir: where the raw data is; None for data that is embedded or can be downloaded.
        skip_damaged: leave out examples that cannot be used, in place of stopping at the first.
        verify: compare known archives with their published SHA-256.
        progress: (items, what is done with them) -> the same items; shows how far it is.

    Returns:
        The folder with the ArrayRecord files; with skipped.txt if examples were left out, and with
        turned.txt if pictures were turned upright as their EXIF data asks.

    Raises:
        ValueError: If there is no such data set (the nearest name is given), or raw data is not
            what it should be; the message names the file.
        FileNotFoundError: If a raw file is missing; the message says which one to put where.
        ImportError: If the package that carries the raw data is missing.
        OSError: If `data_dir` cannot be written to.
    """
    builder_class = _builder_class(name)
    root = _root(data_dir)
    options: dict[str, Any] = {}
    if not builder_class.EMBEDDED:
        options = _raw_options(builder_class.NEEDS, raw_dir, skip_damaged, verify, progress)
    elif raw_dir is not None:
        raise ValueError(f"data set {name!r} ships in a package: leave raw_dir out")
    final = root / name / str(builder_class.VERSION)
    _remove_leftovers(root)
    if _is_whole(name, final):
        return final
    with _explained(root):
        root.mkdir(parents=True, exist_ok=True)
        stem = name.replace("/", "-")
        with _lock(root / f".{stem}.lock"):
            if _is_whole(name, final):
                return final
            staging = Path(tempfile.mkdtemp(prefix=f".{stem}-", suffix=".preparing", dir=root))
            try:
                downloading = raw_dir is None and getattr(builder_class, "PUBLIC", False)
                downloads = root if downloading else staging
                built = _build(builder_class, staging, downloads / "downloads", options)
                final.parent.mkdir(parents=True, exist_ok=True)
                if os.path.lexists(final):  # some of its files were deleted or damaged
                    final.rename(staging / "incomplete")
                built.rename(final)
            finally:
                shutil.rmtree(staging)
    return final


def is_prepared(name: str, data_dir: str | Path | None = None) -> bool:
    """Return whether `prepare` would leave a data set as it is: all there, and not seen damaged.

    Args:
        name: one of `BUILDERS`, or one of `NAMED` with a name of yours.
        data_dir: where prepared data sets are; `default_data_dir()` if None.

    Raises:
        ValueError: If there is no such data set.
    """
    version = _builder_class(name).VERSION
    return _is_whole(name, _root(data_dir) / name / str(version))


def _is_whole(name: str, directory: Path) -> bool:
    try:
        check_shards(name, open_prepared(name, directory))
    except (DatasetNotPrepared, DamagedDataset):
        return False
    return True


def _remove_leftovers(root: Path) -> None:
    """Remove the folders of killed builders: those whose lock no process holds."""
    for leftover in root.glob(".*.preparing"):
        match = _LEFTOVER.fullmatch(leftover.name)
        if match is None:
            continue
        lock = root / f".{match['stem']}.lock"
        # Not where it is in use, not ours to remove, or a link, which rmtree refuses.
        with contextlib.suppress(OSError), _lock(lock, wait=False):
            shutil.rmtree(leftover)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Say of an error in writing where it was and what to do."""
    try:
        yield
    except OSError as error:
        ours = error.errno in _FULL or str(error.filename or "").startswith(str(root))
        if error.errno is None or not ours:
            raise  # a raw file's, or it has a message of its own
        raise _unwritable(root, error.errno) from error
    except RuntimeError as error:  # so ArrayRecord's writer says that a disk is full
        full = next((number for number in _FULL if os.strerror(number) in str(error)), None)
        if full is None:
            raise
        raise _unwritable(root, full) from error


def _unwritable(root: Path, number: int) -> OSError:
    cure = "make room" if number in _FULL else "see that it is a folder you may write to"
    return OSError(
        number,
        f"{os.strerror(number)}: prepared data cannot be written into {root}; {cure}, or choose "
        "another folder with --data-dir (data_dir). Nothing half-made is left",
    )


def _raw_options(
    needs: str,
    raw_dir: str | Path | None,
    skip_damaged: bool,
    verify: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    from clipjax.data.builders.raw import MissingRawData, Raw

    directory = None if raw_dir is None else _folder("raw_dir", raw_dir)
    if directory is not None and not directory.exists():
        raise MissingRawData(f"there is no {directory}; expected there: {needs}")
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
    for listed, file in (("skipped", SKIPPED), ("turned", TURNED)):
        if lines := getattr(builder, listed, []):
            (built / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    write_contents(built)
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
        DamagedDataset: If a file of it is cut or changed; the message names it.

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
    found = open_prepared(name, _directory(name, data_dir)).info.splits
    return {split: found[split].num_examples for split in sorted(found)}


def _directory(name: str, data_dir: str | Path | None) -> Path:
    """Return the folder of a prepared data set; embedded ones are prepared."""
    root = _root(data_dir)
    if not _is_ours(name):
        if _may_be_a_folder(name) and (found := _prepared_by_others(root / name)):
            return found
        _builder_class(name)  # names the nearest
    builder_class = _builder_class(name)
    directory = root / name / str(builder_class.VERSION)
    try:
        open_prepared(name, directory)
    except DatasetNotPrepared:
        if not directory.exists() and (found := _prepared_by_others(root / name)):
            return found
        if not builder_class.EMBEDDED:
            raise
        prepare(name, data_dir)
    return directory


def _is_ours(name: object) -> bool:
    return isinstance(name, str) and name.partition("/")[0] in BUILDERS


def _may_be_a_folder(name: object) -> bool:
    return isinstance(name, str) and "\0" not in name and all(len(p) < 256 for p in name.split("/"))


def _prepared_by_others(folder: Path) -> Path | None:
    """Return the newest version in a folder that holds a data set, whoever prepared it."""

    def version(path: Path) -> tuple[int, ...]:
        return tuple(map(int, path.name.split(".")))

    found = [path.parent for path in folder.glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json")]
    found = [path for path in found if all(part.isdigit() for part in path.name.split("."))]
    return max(found, key=version, default=None)


def _open(name: str, split: str, directory: Path) -> Source:
    import tensorflow_datasets as tfds

    builder = open_prepared(name, directory)
    features: dict[str, Any] = dict(builder.info.features.items())
    keys = next((k for k in OTHER_KEYS if set(k.values()) <= set(features)), {})
    keys = {key: stored for key, stored in keys.items() if key not in features}
    named = {**features, **{key: features[stored] for key, stored in keys.items()}}
    pictures: dict[str, Any] = {
        key: feature for key, feature in named.items() if isinstance(feature, tfds.features.Image)
    }
    if "image" not in pictures:
        raise ValueError(f"{directory} holds no pictures; its records have {sorted(features)}")
    decoders = {keys.get(key, key): tfds.decode.SkipDecoding() for key in pictures}
    _check_split(name, split, {k: s.num_examples for k, s in builder.info.splits.items()}, builder)
    check_shards(name, builder, split.partition("[")[0] if "+" not in split else None)
    records = _records(name, directory, builder, split, decoders)
    label = named.get("label")
    return Source(
        name=name,
        split=split,
        num_classes=getattr(label, "num_classes", None) or 0,
        image_shape=pictures["image"].shape,
        directory=directory,
        records=records,
        picture_shapes={key: feature.shape for key, feature in pictures.items()},
        class_names=tuple(getattr(label, "names", None) or ()),
        keys=keys,
    )


def _check_split(name: str, split: str, sizes: Mapping[str, int], builder: Any) -> None:
    """Refuse what names no records of the data set, before TFDS's readers see it."""
    known = sorted(sizes)
    if not isinstance(split, str):
        raise ValueError(f"split is {split!r}; expected text, one of {known} or a part of one")
    base = split.partition("[")[0]
    if base not in known and not ("+" in split or split == "all"):
        raise ValueError(
            f"data set {name!r} has no split {split!r}{_nearest(split, known)}; it has {known}"
        )
    try:
        count = sum(part.take for part in builder.info.splits[split].file_instructions)
    except Exception as error:  # TFDS's parser raises several kinds
        said = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"split {split!r} of data set {name!r}: {said}. Expected one of {known}, or a part "
            "such as 'train[:80%]' or 'train[100:200]'"
        ) from error
    if count < 1:
        raise ValueError(f"split {split!r} of data set {name!r} is empty; the sizes are {sizes}")


def _records(
    name: str, directory: Path, builder: Any, split: str, decoders: dict[str, Any]
) -> Sequence[Mapping[str, Any]]:
    info = builder.info
    try:
        if info.file_format is None or info.file_format.value != "tfrecord":
            return builder.as_data_source(split=split, decoders=decoders)
        parts = [(p.filename, p.skip, p.take) for p in info.splits[split].file_instructions]

        def parse(record: bytes) -> Any:
            return info.features.deserialize_example_np(record, decoders=decoders)

        return TfRecords(parts, parse)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # a format that is not there, a cut file
        raise damaged(name, directory / "dataset_info.json", error) from error


def _builder_class(name: str) -> Any:
    if not isinstance(name, str):
        raise ValueError(f"the name of a data set is {name!r}; expected text such as 'digits'")
    base, _, own = name.partition("/")
    own_is_fine = base in NAMED and own.replace("_", "a").isalnum() and len(own) <= LONGEST_NAME
    if base not in BUILDERS or ("/" in name and not own_is_fine):
        raise ValueError(
            f"there is no data set {name!r}{_nearest(name, BUILDERS)}; known are {sorted(BUILDERS)}"
            f", and {', '.join(f'{kind}/NAME' for kind in NAMED)} (NAME of letters, digits and _, "
            f"at most {LONGEST_NAME})"
        )
    module, _, attribute = BUILDERS[base].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _nearest(name: object, known: Sequence[str] | Mapping[str, Any]) -> str:
    match = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def _root(data_dir: str | Path | None) -> Path:
    root = default_data_dir() if data_dir is None else _folder("data_dir", data_dir)
    if str(root).encode("utf-8", "ignore").decode() != str(root):
        raise ValueError(
            f"data_dir is {str(root)!r}, which is not UTF-8: ArrayRecord opens no such path; "
            "choose another folder, or rename that part of it"
        )
    return root


def _folder(argument: str, value: str | Path) -> Path:
    if not isinstance(value, str | Path):
        raise TypeError(f"{argument} is {value!r}; expected the path of a folder")
    if not str(value).strip() or "\0" in str(value):
        raise ValueError(f"{argument} is {str(value)!r}; expected the path of a folder")
    return Path(value).expanduser().absolute()


@contextlib.contextmanager
def _lock(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold an exclusive lock, which the system releases if the process dies.

    Raises:
        BlockingIOError: If another process holds it, and `wait` is false.
    """
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise ValueError(f"{path} is a link, which is not written through; delete it") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(file)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide TFDS's own progress bars."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
