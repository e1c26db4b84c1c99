"""Prepared data sets: built once into ArrayRecord, then read record by record.

A data set is a TFDS builder of ours (`clipjax.data.builders`), prepared without TensorFlow into

    DATA_DIR/NAME/VERSION/{dataset_info.json, features.json, NAME-SPLIT.array_record-00000-of-...,
                           contents.json}

`prepare` builds in a hidden folder beside it and renames the whole folder at the end, so a
folder of that name is complete, whenever the builder was killed. `load` opens one split as a
`Source` (`clipjax.data.records`). What users of TensorFlow prepared with TFDS's own builders into
DATA_DIR (`cifar100`, `imagenet2012`, `div2k/bicubic_x4`) is read as it is, ArrayRecord or TFRecord.

`clipjax.data.catalogue` says which data sets there are, `clipjax.data.preparing` builds them. TFDS,
Pillow and OpenCV are imported inside the functions: `import clipjax.data` costs nothing.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipjax.data.catalogue import (
    BUILDERS,
    builder_class,
    default_data_dir,
    is_ours,
    nearest,
    root_folder,
)
from clipjax.data.prepared import (
    DatasetNotPrepared,
    check_shards,
    damaged,
    open_prepared,
)
from clipjax.data.preparing import is_prepared, prepare
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

OTHER_KEYS = ({"image": "lr", "target": "hr"},)
"""What our keys are called in data sets that TFDS's own builders prepared (DIV2K)."""


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
    root = root_folder(data_dir)
    if not is_ours(name):
        if _may_be_a_folder(name) and (found := _prepared_by_others(root / name)):
            return found
        builder_class(name)  # names the nearest
    builder = builder_class(name)
    directory = root / name / str(builder.VERSION)
    try:
        open_prepared(name, directory)
    except DatasetNotPrepared:
        found = None if directory.exists() else _prepared_by_others(root / name)
        if found and _version(found) > _version(directory):  # TFDS's own; ours begin at 1.0.0
            return found
        if builder.EMBEDDED:
            prepare(name, data_dir)
            return directory
        if not found:
            raise
        warnings.warn(
            f"{found} is of version {found.name} of the data set {name!r}, which is at "
            f"{builder.VERSION}: its photographs lie as their files do, not upright. Prepare it "
            f"again: python -m experiments.prepare --dataset {name} --raw-dir FOLDER",
            stacklevel=3,
        )
        return found
    return directory


def _version(directory: Path) -> tuple[int, ...]:
    return tuple(map(int, directory.name.split(".")))


def _may_be_a_folder(name: object) -> bool:
    return isinstance(name, str) and "\0" not in name and all(len(p) < 256 for p in name.split("/"))


def _prepared_by_others(folder: Path) -> Path | None:
    """Return the newest version in a folder that holds a data set, whoever prepared it."""
    found = [path.parent for path in folder.glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json")]
    found = [path for path in found if all(part.isdigit() for part in path.name.split("."))]
    return max(found, key=_version, default=None)


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
            f"data set {name!r} has no split {split!r}{nearest(split, known)}; it has {known}"
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
