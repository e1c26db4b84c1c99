"""Files by name, in a folder, a tar or a zip, read where they lie: nothing is unpacked."""

import contextlib
import lzma
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any


class BadExample(ValueError):
    """A raw picture or mask that cannot be used; the message names its file."""


# RuntimeError and NotImplementedError: a zip with a password, or packed in an unusual way.
_DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError),
    *(RuntimeError, NotImplementedError, ValueError, OverflowError, struct.error),
)

LARGEST_FILE = 2**30
"""Bytes of the largest file that is read whole; unpacking more could fill the memory."""


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, links to other folders included."""
    for at, folders, names in os.walk(folder, followlinks=True):
        here = Path(at)
        # A link to one of the folders above would be walked without end.
        above = {here.resolve(), *here.resolve().parents}
        folders[:] = [name for name in folders if (here / name).resolve() not in above]
        yield from (here / name for name in names if (here / name).is_file())


def as_text(content: bytes, where: str) -> str:
    r"""Return the text of a file, which is in UTF-8, with or without a mark of that.

    Raises:
        ValueError: If it is not; the message names the file and the line.

    Examples:
        >>> as_text(b"one\ntw\xf6", "a.txt")
        Traceback (most recent call last):
        ValueError: a.txt, line 2: not UTF-8 text (b'\xf6'); save the file as UTF-8
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = content[error.start : error.start + 8]
        raise ValueError(
            f"{where}, line {line}: not UTF-8 text ({found!r}); save the file as UTF-8"
        ) from error


class Members:
    """The files of a folder, a tar (compressed or not) or a zip.

    Examples:
        >>> import io, tempfile, zipfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with zipfile.ZipFile(f"{folder}/a.zip", "w") as archive:
        ...         archive.writestr("b/c.txt", "hello")
        ...     with Members(Path(folder, "a.zip")) as members:
        ...         members.names, members.read("b/c.txt")
        (['b/c.txt'], b'hello')
    """

    def __init__(self, path: Path, file: IO[bytes] | None = None) -> None:
        """Open an archive or a folder.

        Args:
            path: where it is; a name for messages where `file` is given.
            file: a tar inside of another archive, seekable.

        Raises:
            ValueError: If the archive is cut or is none; the message names it.
        """
        self.path = path
        self._close: Callable[[], None] = lambda: None
        self._entries: dict[str, Any] = {}
        if file is None and path.is_dir():
            self._entries = {file.relative_to(path).as_posix(): file for file in _files(path)}
            self._open: Callable[[Any], IO[bytes]] = lambda entry: entry.open("rb")
        else:
            try:
                self._open_archive(file)
            except _DAMAGE as error:
                raise ValueError(f"{path} is no readable archive, or cut: {error}") from error
        self.names = sorted(self._entries)

    def __enter__(self) -> "Members":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the archive."""
        self._close()

    def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            ValueError: If there is no such file.
            BadExample: If it is damaged, or larger than `LARGEST_FILE`.
            OSError: If a file of a folder cannot be read, for lack of permission or as a disk
                fails: that is no damage to skip.
        """
        size = self.size(name)
        if size > LARGEST_FILE:
            raise BadExample(
                f"{self.where(name)} is {size:,} bytes large; at most {LARGEST_FILE:,} are read "
                "as one file"
            )
        try:
            with self.open(name) as file:
                return file.read(LARGEST_FILE + 1)
        except _DAMAGE as error:
            if isinstance(self._entries[name], Path) and isinstance(error, OSError):
                raise OSError(
                    error.errno,
                    f"{os.strerror(error.errno or 0)}: {self.where(name)} cannot be read; see that "
                    "it is a file that you may read",
                ) from error
            raise BadExample(f"{self.where(name)} cannot be read: {error}") from error

    def size(self, name: str) -> int:
        """Return how many bytes a file has, as the folder or the head of the archive says."""
        if name not in self._entries:
            raise ValueError(f"{self.path} has no {name}")
        entry = self._entries[name]
        if isinstance(entry, Path):
            return entry.stat().st_size
        return entry.file_size if isinstance(entry, zipfile.ZipInfo) else entry.size

    def text(self, name: str) -> str:
        """Return the text of a file; errors as `read` and `as_text`."""
        return as_text(self.read(name), self.where(name))

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading; seekable in folders and in tars that are not compressed."""
        if name not in self._entries:
            raise ValueError(f"{self.path} has no {name}")
        return self._open(self._entries[name])

    def where(self, name: str) -> str:
        """Return how messages name a file."""
        said = str(self.path / name) if self.path.is_dir() else f"{self.path}: {name}"
        return said.encode("utf-8", "backslashreplace").decode()  # names may be any bytes

    def under(self, folder: str, suffixes: tuple[str, ...] = ()) -> list[str]:
        """Return the names below a folder, sorted; hidden files are left out.

        Args:
            folder: its name with "/" at its end, or "" for all.
            suffixes: in lower case, such as ".png"; any if empty.
        """
        return [
            name
            for name in self.names
            if name.startswith(folder)
            and not name.rpartition("/")[2].startswith(".")
            and (not suffixes or name.lower().endswith(suffixes))
        ]

    def _open_archive(self, file: IO[bytes] | None) -> None:
        with contextlib.ExitStack() as stack:
            # Open until `close`, as members are read from it all the while.
            opened = stack.enter_context(self.path.open("rb")) if file is None else file
            if file is None and zipfile.is_zipfile(opened):
                packed = stack.enter_context(zipfile.ZipFile(opened))
                self._entries = {i.filename: i for i in packed.infolist() if not i.is_dir()}
                self._open = packed.open
            else:
                opened.seek(0)
                tar = stack.enter_context(tarfile.open(fileobj=opened))

                def extract(entry: tarfile.TarInfo) -> IO[bytes]:
                    opened = tar.extractfile(entry)
                    assert opened is not None  # only files are kept below
                    return opened

                self._entries = {
                    entry.name.removeprefix("./"): entry for entry in tar if entry.isfile()
                }
                self._open = extract
            self._close = stack.pop_all().close
