"""What files a folder holds: written once it is complete, compared before it is read.

manifest.json    {"files": {path: {"bytes": size, "sha256": digest}}}
"""

import hashlib
import json
from pathlib import Path

from clipjax.train.log import write_json

NAME = "manifest.json"


def write(folder: Path) -> None:
    """Write the manifest of all files of a folder into it.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a").write_bytes(b"abc")
        >>> write(folder)
        >>> damage(folder)
        >>> _ = (folder / "a").write_bytes(b"abd")
        >>> damage(folder)
        'a is not as it was written'
    """
    files = {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": _sha256(path),
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != NAME
    }
    write_json(folder / NAME, {"files": files})


def damage(folder: Path) -> str | None:
    """Return what is wrong with a folder's files; None where they are those of its manifest.

    Raises:
        FileNotFoundError: the folder has no manifest.
        OSError: a file that is there cannot be read, for lack of permission for instance. That is
            no damage.
    """
    text = (folder / NAME).read_bytes()
    try:
        files = {
            name: (entry["bytes"], entry["sha256"])
            for name, entry in json.loads(text)["files"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{NAME} is not as it was written"
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
        if _sha256(path) != digest:
            return f"{name} is not as it was written"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
