"""Open the folder of a prepared data set, checked before TFDS, protobuf or Grain see it.

A set is read if its two JSON files are whole and name feature classes of TFDS only, if every shard
is there and holds as many records as it should, and if all of them are the files that `prepare`
listed in contents.json (sets of older versions and of TFDS's own builders have no such list). Bytes
that change inside of a shard are noticed by the format's checksums when the record is read.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clipjax.data.records import DamagedDataset, how_to_prepare, remedy

INFO, FEATURES = "dataset_info.json", "features.json"

CONTENTS = "contents.json"
"""The list that `prepare` writes: the size of each file, and the SHA-256 of the small ones."""

SKIPPED, TURNED = "skipped.txt", "turned.txt"
"""Lists for people: what was left out as damaged, and what was turned upright."""

HASHED_BYTES = 2**24
"""Files up to this size are hashed at opening; shards are larger, and have their own checksums."""


class DatasetNotPrepared(FileNotFoundError):
    """The data set is not on disk, or not all of it; the message says how to prepare it."""


def open_prepared(name: str, directory: Path) -> Any:
    """Return TFDS's builder of a prepared folder.

    Args:
        name: how messages call the data set.
        directory: the folder of the files.

    Raises:
        DatasetNotPrepared: if a file is missing.
        DamagedDataset: if one is not what was written, or names a class that is not TFDS's.
    """
    import tensorflow_datasets as tfds

    for file in (directory / INFO, directory / FEATURES):
        if not file.exists():
            raise _not_prepared(name, file)
    _check_contents(name, directory)
    read_json(name, directory / INFO)
    _check_feature_classes(name, directory / FEATURES)
    try:
        tfds.features.FeatureConnector.from_config(str(directory))
    except Exception as error:  # TFDS and protobuf raise anything on a damaged file
        _reraise_if_not_damage(error)
        raise damaged(name, directory / FEATURES, error) from error
    try:
        builder = tfds.builder_from_directory(directory)
        shards = [Path(f) for s in builder.info.splits.values() for f in s.filepaths]
    except Exception as error:  # TFDS and protobuf raise anything on a damaged file
        _reraise_if_not_damage(error)
        raise damaged(name, directory / INFO, error) from error
    if not shards:
        raise damaged(name, directory / INFO, "it lists no files of records")
    for shard in shards:
        if shard.parent != directory:
            raise damaged(name, directory / INFO, f"it lists {shard}, which is elsewhere")
        if not shard.exists():
            raise _not_prepared(name, shard)
    return builder


def check_shards(name: str, builder: Any, split: str | None = None) -> None:
    """Compare the number of records in each ArrayRecord file with what dataset_info.json says.

    TFRecord files are checked by `clipjax.data.tfrecords` when they are opened.

    Args:
        name: how messages call the data set.
        builder: what `open_prepared` returned.
        split: the only split to check; None checks all.

    Raises:
        DamagedDataset: if they differ, or a shard is cut.
    """
    if getattr(builder.info.file_format, "value", None) != "array_record":
        return
    for key, info in builder.info.splits.items():
        if split not in (None, key):
            continue
        for file, expected in zip(map(Path, info.filepaths), info.shard_lengths, strict=True):
            found = _count(name, file)
            if found != expected:
                raise damaged(name, file, f"it holds {found} records, {expected} were written")


def read_json(name: str, file: Path) -> dict[str, Any]:
    """Return the object in a JSON file of a prepared data set.

    Raises:
        DamagedDataset: if it is none; the message names the file.
    """
    try:
        if not file.is_file():
            raise ValueError("it is no file")
        content = json.loads(file.read_bytes().decode("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}, expected an object")
    except (ValueError, RecursionError) as error:
        raise damaged(name, file, error) from error
    return content


def write_contents(directory: Path) -> None:
    """List the files of a folder in contents.json, for `open_prepared` to compare with."""
    listed = {
        file.name: {"bytes": file.stat().st_size, **_digest(file)}
        for file in sorted(directory.iterdir())
        if file.name not in (CONTENTS, SKIPPED, TURNED)
    }
    text = json.dumps(listed, indent=1, sort_keys=True)
    (directory / CONTENTS).write_text(f"{text}\n", encoding="utf-8")


def _check_contents(name: str, directory: Path) -> None:
    if not (directory / CONTENTS).exists():
        return
    contents = read_json(name, directory / CONTENTS)
    if INFO not in contents or FEATURES not in contents:
        raise damaged(name, directory / CONTENTS, f"it does not list {INFO} and {FEATURES}")
    for listed, expected in contents.items():
        file = directory / listed
        if file.parent != directory or not isinstance(expected, dict):
            raise damaged(name, directory / CONTENTS, f"its entry {listed!r} makes no sense")
        if not file.exists():
            raise _not_prepared(name, file)
        if not file.is_file():
            raise damaged(name, file, "it is no file")
        found = file.stat().st_size
        if found != expected.get("bytes"):
            raise damaged(name, file, f"it has {found} bytes, {expected.get('bytes')} were written")
        if "sha256" in expected and _digest(file) != {"sha256": expected["sha256"]}:
            raise damaged(name, file, "its SHA-256 is not that of the file that was written")


def _digest(file: Path) -> dict[str, str]:
    if file.suffix not in (".json", ".txt") or file.stat().st_size > HASHED_BYTES:
        return {}
    return {"sha256": hashlib.sha256(file.read_bytes()).hexdigest()}


def _check_feature_classes(name: str, file: Path) -> None:
    """Refuse classes that are not TFDS's: TFDS imports whatever module features.json names."""
    content = read_json(name, file)
    known = known_features()
    for said in _class_names(content):
        if not isinstance(said, str) or said not in known:
            raise DamagedDataset(
                f"{file}: it names the feature class {said!r}, which is none of TFDS's; no other "
                f"module is imported on the word of a file. {remedy(name, file.parent)}"
            )


def known_features() -> frozenset[str]:
    """Return the names that TFDS's feature classes have in features.json.

    Examples:
        >>> "tensorflow_datasets.core.features.image_feature.Image" in known_features()
        True
    """
    import tensorflow_datasets as tfds

    base = tfds.features.FeatureConnector
    classes = [
        c for c in vars(tfds.features).values() if isinstance(c, type) and issubclass(c, base)
    ]
    return frozenset(said for c in classes for said in (f"{c.__module__}.{c.__name__}", *c.ALIASES))


def _class_names(content: Any) -> Iterator[Any]:
    """Yield every class that TFDS would look up, also in JSON that lies in strings of the JSON."""
    if isinstance(content, dict):
        yield from (
            content[key] for key in ("pythonClassName", "python_class_name") if key in content
        )
        if "type" in content and "content" in content:  # as TFDS wrote it before version 4.5
            yield content["type"]
        content = list(content.values())
    if isinstance(content, list):
        for value in content:
            yield from _class_names(value)
    elif isinstance(content, str) and content.lstrip()[:1] in ("{", "["):
        try:
            inner = json.loads(content)
        except ValueError:
            return  # plain text
        yield from _class_names(inner)


def _count(name: str, file: Path) -> int:
    """Return the number of records of an ArrayRecord file, from the index at its end."""
    from array_record.python.array_record_module import ArrayRecordReader

    if not os.access(file, os.R_OK):
        raise PermissionError(f"no permission to read {file}")
    try:
        reader = ArrayRecordReader(str(file), options="readahead_buffer_size:0")
        count = reader.num_records()
        reader.close()  # raises what was wrong
    except (RuntimeError, ValueError) as error:
        raise damaged(name, file, error) from error
    return count


def _not_prepared(name: str, file: Path) -> DatasetNotPrepared:
    return DatasetNotPrepared(
        f"data set {name!r} is not prepared: {file} is missing. "
        f"Prepare it first: {how_to_prepare(name)}"
    )


def damaged(name: str, file: Path, what: object) -> DamagedDataset:
    """Return the error of a file that is not what was written."""
    said = " ".join(str(what).split())[:200].rstrip(".")
    return DamagedDataset(f"data set {name!r}, {file}: {said}. {remedy(name, file.parent)}")


def _reraise_if_not_damage(error: Exception) -> None:
    if isinstance(error, MemoryError | OSError):
        raise error
