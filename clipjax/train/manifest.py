"""A manifest of a folder: the size and SHA-256 of each file, to tell damage apart from the rest.

    {"files": {"state/d/0f3c": {"bytes": 455, "sha256": "9b1d..."}, ...}}

It is written into a checkpoint before the checkpoint gets its name, and compared before anything
else reads the files. A file that is missing, cut or changed is damage. A file that cannot be read
for another reason (permission, network, hardware) is not: that error is passed on.
"""

import errno
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

NAME = "manifest.json"
"""The manifest's own name; it lies in the folder that it describes."""

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
"""Errors of opening a file that is not there, or that is no file. Any other is no damage."""


def write_manifest(folder: Path, items: Iterable[str]) -> None:
    """Write the manifest of all files below the named folders of a folder.

    Args:
        folder: where the manifest goes.
        items: names of folders in it.
    """
    files = {}
    for item in sorted(items):
        for path in sorted(p for p in (folder / item).rglob("*") if p.is_file()):
            size, digest = _measure(path)
            files[path.relative_to(folder).as_posix()] = {"bytes": size, "sha256": digest}
    with (folder / NAME).open("w", encoding="utf-8") as file:
        json.dump({"files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def has_manifest(folder: Path) -> bool:
    """Return whether the folder has a manifest."""
    return os.path.lexists(folder / NAME)


def find_damage(folder: Path) -> str | None:
    """Return what is wrong with a folder by its manifest, None if all is as it was written.

    Raises:
        OSError: a file is there but cannot be read.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "item").mkdir()
        >>> _ = (folder / "item" / "a").write_text("1234")
        >>> write_manifest(folder, ["item"])
        >>> find_damage(folder)
        >>> _ = (folder / "item" / "a").write_text("123")
        >>> find_damage(folder)
        'item/a has 3 bytes, 4 were written'
    """
    try:
        files = json.loads((folder / NAME).read_bytes())["files"]
        expected = {str(k): (int(v["bytes"]), str(v["sha256"])) for k, v in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{NAME} is no manifest"
    except OSError as error:
        if error.errno in ABSENT:
            return f"{NAME} is missing"
        raise
    for name, (size, digest) in expected.items():
        try:
            found_size, found_digest = _measure(folder / name)
        except OSError as error:
            if error.errno in ABSENT:
                return f"{name} is missing"
            raise
        if found_size != size:
            return f"{name} has {found_size} bytes, {size} were written"
        if found_digest != digest:
            return f"the bytes of {name} are not those written"
    return None


def read_through(folder: Path) -> None:
    """Read every file below a folder, to meet errors of reading before others do.

    Raises:
        OSError: a file or a folder cannot be read.
    """

    def give_up(error: OSError) -> None:
        raise error

    for parent, _, names in os.walk(folder, onerror=give_up):
        for name in names:
            try:
                _measure(Path(parent, name))
            except OSError as error:
                if error.errno not in ABSENT:
                    raise


def _measure(path: Path) -> tuple[int, str]:
    """Return a file's size and SHA-256."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return file.tell(), digest
