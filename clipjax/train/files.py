"""Files that are written whole: a reader sees the old file or the new one, never half of either."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.tmp")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Yield a new file that takes the place of `path` when the block ends without an error.

    It lies beside `path` under a name that nobody can foresee, and is made anew: a link that lies
    there is not written through. After an error it is removed; what a kill leaves there,
    `remove_leftovers` removes.

    Args:
        path: the file; its folder is made if missing.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with replacing(folder / "a.txt") as file:
        ...     _ = file.write(b"whole")
        >>> [(p.name, p.read_bytes()) for p in folder.iterdir()]
        [('a.txt', b'whole')]
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> list[Path]:
    """Remove the temporary files of runs that were killed, and return what they were.

    Only for a folder that no other process writes to at this moment.
    """
    found = []
    if folder.is_dir():
        found = sorted(p for p in folder.iterdir() if _LEFTOVER.fullmatch(p.name))
    for path in found:
        path.unlink(missing_ok=True)
    return found
