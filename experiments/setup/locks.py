"""One process a folder: a lock that names its holder and ends with it.

The holder keeps `flock` on a file `.lock` in the folder, which the kernel frees when the process
ends, however it ends. The file says who holds it. Where a folder is shared by several hosts the
kernel of one does not know of the other's lock, so the holder also renews the file's time every
ten seconds. A lock of another host counts until it was not renewed for `SILENCE` seconds.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from clipjax.train import files

NAME = ".lock"
RENEWED = 10.0
"""Seconds between two signs of life."""
SILENCE = 60.0
"""Seconds without a sign of life after which a lock of another host is taken over."""


class Held(ValueError):
    """Another process works on this folder."""


@contextlib.contextmanager
def hold(folder: Path, *, write: bool = True) -> Iterator[None]:
    """Hold a folder for this process while the context lasts.

    What a killed holder left half written is removed. A folder that had to be made, and in which
    nothing was written, is removed at the end.

    Args:
        folder: made if it is missing.
        write: False on all hosts of a run but the first, which holds it for all.

    Raises:
        Held: another process holds it; the message says which, and since when.

    Examples:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with hold(folder), hold(folder):  # doctest: +ELLIPSIS
        ...     pass
        Traceback (most recent call last):
            ...
        experiments.setup.locks.Held: ... is in use by process ...
    """
    if not write:
        yield
        return
    made = _missing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    descriptor = _lock(path, folder)
    files.remove_leftovers(folder)  # of a holder that was killed while it wrote
    released = threading.Event()
    threading.Thread(target=_renew, args=(descriptor, released), daemon=True).start()
    try:
        yield
    finally:
        released.set()
        path.unlink(missing_ok=True)  # before the lock ends: nobody else can have taken it
        os.close(descriptor)
        with contextlib.suppress(OSError):  # something was written there
            for parent in made:
                parent.rmdir()


def _missing(folder: Path) -> list[Path]:
    """Return the folder and those above it that are not there yet, the deepest first."""
    return [path for path in (folder, *folder.parents) if not path.exists()]


def _lock(path: Path, folder: Path) -> int:
    """Return the descriptor of the locked file.

    Raises:
        Held: another process has it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 4096, 0)
            os.close(descriptor)
            raise Held(_message(folder, text)) from None
        # The holder before us may have removed the file between our opening and locking it.
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                break
        os.close(descriptor)
    text = os.pread(descriptor, 4096, 0)
    age = time.time() - os.fstat(descriptor).st_mtime
    holder = _holder(text)
    if holder.get("host") not in (None, socket.gethostname()) and age < SILENCE:
        os.close(descriptor)
        raise Held(
            f"{_message(folder, text)}. Its last sign of life is {max(age, 0):.0f} s old; after "
            f"{SILENCE:.0f} s without one the folder is free"
        )
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    about = {"host": socket.gethostname(), "process": os.getpid(), "since": since}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, (json.dumps(about) + "\n").encode(), 0)
    return descriptor


def _holder(text: bytes) -> dict[str, object]:
    """Return who is said to hold a lock; nobody where that cannot be read."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _message(folder: Path, text: bytes) -> str:
    holder = _holder(text)
    return (
        f"{folder} is in use by process {holder.get('process', '?')} on host "
        f"{holder.get('host', '?')} since {holder.get('since', '?')}: wait for its end, stop it, "
        "or use another folder"
    )


def _renew(descriptor: int, released: threading.Event) -> None:
    while not released.wait(RENEWED):
        with contextlib.suppress(OSError):  # released just now, or the disk has gone away
            os.utime(descriptor)
