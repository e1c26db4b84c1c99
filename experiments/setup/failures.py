"""What went wrong, in one line with its cure: disks, permissions, memory.

A full disk shows in many ways. Python raises OSError, often without a path. TensorStore, which
writes the arrays of a checkpoint, raises ValueError or RuntimeError with the system's error number
in its text. Orbax saves in threads of its own and hands on either, some steps later.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

GO_ON = "start the same line again; what was saved is kept"

_PERMISSION = f"Choose another folder, or see that you may write there, and {GO_ON}"
_ROOM = f"Make room (df -h shows the space, df -i the inodes) and {GO_ON}"
_PATH = "Give another path: a part of this one is a file where a folder should be, or the reverse"
CURES: dict[int, str] = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: f"Your quota is used up: make room and {GO_ON}",
    errno.EFBIG: f"The file system or `ulimit -f` allows no larger file: change that and {GO_ON}",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EROFS: _PERMISSION,
    errno.ENOTDIR: _PATH,
    errno.EISDIR: _PATH,
    errno.EEXIST: _PATH,
    errno.ENAMETOOLONG: "Give a shorter path: most file systems take names of up to 255 bytes",
    errno.ELOOP: "Give another path: links in this one lead back to themselves",
    errno.ENOENT: "See that the path is right",
    errno.EMFILE: f"Raise the number of open files (`ulimit -n`) and {GO_ON}",
    errno.ENFILE: f"The machine has too many open files: close some and {GO_ON}",
    errno.ENOMEM: f"The machine is out of memory: end something and {GO_ON}",
    errno.EPIPE: "Who read the output is gone; results are in the files",
}
"""What to do about an error of the operating system."""

_MEMORY = (
    "not enough memory ({said}). Make what is computed at once smaller (--batch-size, --replicas, "
    f"--memory, or the model), and {GO_ON}"
)


class ToldInFull(ValueError):
    """An error whose own text says all, whatever it was raised from."""


def said(error: BaseException) -> str:
    """Return an error's text; the name of its kind where it has none or fails to make it.

    Examples:
        >>> said(ValueError("keep is 1")), said(KeyError())
        ('keep is 1', 'KeyError')
    """
    try:
        return str(error) or type(error).__name__
    except Exception:  # a class of the user's: its text is any program
        return type(error).__name__


def in_one_line(error: BaseException) -> str | None:
    """Return an error of the machine with its cure in one line; None for any other error.

    Examples:
        >>> in_one_line(OSError(errno.ENOTDIR, "Not a directory", "/etc/passwd/run"))[:34]
        '/etc/passwd/run: Not a directory. '
        >>> in_one_line(KeyError("x")) is None
        True
    """
    if isinstance(error, ToldInFull):
        return None
    if line := _of_one(error):
        return line
    # A library's error about something else, raised where a disk had failed.
    return next((line for cause in _causes(error) if (line := _of_one(cause))), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield what an error was raised from, and what was being handled then, if a disk can cause it.

    A file that is not there is often looked for in vain and no cause of the next error.
    """
    seen = [error]
    cause = error.__cause__ or error.__context__
    while cause is not None and cause not in seen:
        if not isinstance(cause, FileNotFoundError | FileExistsError):
            yield cause
        seen.append(cause)
        cause = cause.__cause__ or cause.__context__


def _of_one(error: BaseException) -> str | None:
    text = said(error)
    if isinstance(error, OSError) and error.errno is not None:
        return _system_error(error)
    if found := re.search(r"\[os_error_code='(\d+)'", text):  # TensorStore
        named = re.search(r'"(/[^"]*)"', text)
        return _line(named[1] if named else "", int(found[1]))
    if any(os.strerror(full) in text for full in (errno.ENOSPC, errno.EDQUOT)):  # ArrayRecord
        return _line("", errno.ENOSPC)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED: Out of memory" in text:
        size = "no size is known" if text == type(error).__name__ else text.splitlines()[0]
        return _MEMORY.format(said=size)
    return None


def _system_error(error: OSError) -> str:
    number = error.errno
    assert number is not None
    said = error.strerror or os.strerror(number)
    if said != os.strerror(number) and error.filename is None:
        return said  # it names its path and cure itself
    path = error.filename2 if error.filename is None else error.filename
    return _line(os.fsdecode(path) if isinstance(path, str | bytes) else "", number)


def _line(path: str, number: int) -> str:
    shown = path if len(path) <= 200 else f"{path[:100]}...{path[-60:]}"
    cure = CURES.get(number, f"When it is mended, {GO_ON}")
    return f"{shown}{': ' if shown else ''}{os.strerror(number)}. {cure}"


@contextlib.contextmanager
def naming(folder: Path) -> Iterator[None]:
    """Give errors of writing that name no path the folder that was being written to."""
    try:
        yield
    except OSError as error:
        plain = error.errno is not None and error.strerror == os.strerror(error.errno)
        if plain and error.filename is None and error.errno != errno.EPIPE:
            error.filename = str(folder)
        raise
