"""Files that a run goes on from: each bound to its experiment and its place in it by a SHA-256.

A file of arrays begins with the digest of its place and of all that follows. What was damaged, or
comes from another experiment, is found before anything is read from it, and is computed again. A
plan says which experiment a folder belongs to, with its own digest beside.
"""

import hashlib
import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clipjax.train.files import replacing
from clipjax.train.log import write_json


def text(value: Any) -> bytes:
    """Return JSON values as bytes, the same for equal ones.

    Examples:
        >>> text({"b": 1, "a": [2.0]})
        b'{"a": [2.0], "b": 1}'
    """
    return json.dumps(value, sort_keys=True).encode()


def digest(*parts: bytes) -> str:
    """Return the SHA-256 of parts; where one ends and the next begins counts.

    Examples:
        >>> digest(b"ab", b"c") == digest(b"a", b"bc")
        False
    """
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big") + part)
    return sha.hexdigest()


def write_arrays(
    path: Path, place: bytes, arrays: Mapping[str, Any], *, compressed: bool = True
) -> None:
    """Write a file of arrays, whole or not at all.

    Args:
        path: of the file.
        place: what binds it to its place, such as `text` of the config and a number.
        arrays: by name.
        compressed: what is nearly random, such as weights, is not worth the time.
    """
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, **arrays)
    body = buffer.getvalue()
    with replacing(path) as file:
        file.write(digest(place, body).encode() + body)


def read_arrays(path: Path, place: bytes, *, again: str) -> dict[str, np.ndarray] | None:
    """Return the arrays of a file by name; None where it is missing or not what was written.

    The latter is said on stderr: "... is damaged, or of another experiment: AGAIN".
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    said, body = content[:64], content[64:]
    if said != digest(place, body).encode():
        if jax.process_index() == 0:
            print(f"{path} is damaged, or of another experiment: {again}", file=sys.stderr)
        return None
    with np.load(io.BytesIO(body)) as arrays:
        return dict(arrays)


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays so that a reader sees the old file or the new one, never half of either."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    with replacing(path) as file:
        file.write(buffer.getvalue())


def write_plan(path: Path, plan: Mapping[str, Any]) -> None:
    """Write JSON values with their digest."""
    write_json(path, {**plan, "sha256": digest(text(plan))})


def read_plan(path: Path, *keys: str) -> dict[str, Any]:
    """Return what `write_plan` wrote.

    Args:
        path: of the plan; the folder around it is what it plans.
        *keys: that it must have.

    Raises:
        ValueError: it was cut or changed, or lacks a key.
    """
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        said = plan.pop("sha256")
        _ = [plan[key] for key in keys]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete {path.parent}") from error
    if said != digest(text(plan)):
        raise ValueError(
            f"{path} was changed after it was written (its checksum differs); "
            f"delete {path.parent} to begin again"
        )
    return plan


def check_same(old: Any, new: Any, folder: Path, what: str) -> None:
    """Raise ValueError, with the differences, unless a folder is of this experiment.

    Args:
        old: what its plan says, JSON values.
        new: what is asked for now, likewise.
        folder: of the plan.
        what: it holds, such as "chunks".
    """
    changed = list(_differences(old, new))
    if changed:
        raise ValueError(
            f"{folder} holds {what} of another config: {'; '.join(changed)}. Use another "
            "--workdir, the old values, or delete that folder"
        )


def _differences(old: Any, new: Any, prefix: str = ""):
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in {**old, **new}:
            yield from _differences(old.get(name), new.get(name), f"{prefix}{name}.")
    elif old != new:
        yield f"{prefix.rstrip('.').removeprefix('config.')} was {old!r}, is {new!r}"
