"""What the builders share that prepare data which does not ship in packages.

Raw files come from a folder of the user's, or, where the source is public, from its address
through TFDS's download manager. Known archives (checksums.tsv, TFDS's own list and, for CIFAR's
Python archives, Keras's) are compared with their SHA-256 before anything is read from them.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tensorflow_datasets as tfds

from clipjax.data.builders.archives import BadExample, Members
from clipjax.data.builders.base import DatasetBuilder
from clipjax.data.builders.pictures import Stored, stored_mask, stored_picture

T = TypeVar("T")

Progress = Callable[[Sequence[Any], str], Iterable[Any]]
"""(items, what is done with them) -> the same items, shown as they pass."""


def _silent(items: Sequence[Any], what: str) -> Iterable[Any]:
    del what
    return items


class MissingRawData(FileNotFoundError):
    """A raw file is not there; the message says which one to put where."""


class WrongChecksum(ValueError):
    """A raw file is not the published one."""


def checked_names(names: Sequence[str], where: str) -> list[str]:
    """Return the names of classes, which TFDS stores as a line of UTF-8 each.

    Raises:
        ValueError: If there are none, or one is empty, comes twice or is not a line of text.

    Examples:
        >>> checked_names(["cat", "dog", "cat"], "classes.txt")
        Traceback (most recent call last):
        ValueError: classes.txt: the class 'cat' comes twice, as number 0 and as number 2; ...
    """
    if not names:
        raise ValueError(f"{where}: it names no class")
    numbers: dict[str, int] = {}
    for number, name in enumerate(names):
        is_text = name.encode("utf-8", "ignore").decode() == name
        if not is_text or [name] != [line.strip() for line in name.splitlines()]:
            raise ValueError(
                f"{where}: the class {name!r} is not a line of UTF-8 text without blanks around it;"
                " rename it"
            )
        if name in numbers:
            raise ValueError(
                f"{where}: the class {name!r} comes twice, as number {numbers[name]} and as number "
                f"{number}; each name stands for one class"
            )
        numbers[name] = number
    return list(names)


@dataclasses.dataclass(frozen=True)
class Raw:
    """Where raw data is, and what to do with what is wrong in it."""

    directory: Path | None = None
    """The user's folder; None downloads, where the source is public."""
    skip_damaged: bool = False
    """Leave out examples that cannot be used, in place of stopping at the first."""
    verify: bool = True
    """Compare known archives with their published SHA-256."""
    progress: Progress = _silent


UPRIGHT = tfds.core.Version("1.1.0")
"""The version of sets made of picture files; in those of 1.0.0, EXIF's orientation was ignored."""


class RawBuilder(DatasetBuilder):
    """A builder of ours whose raw data is the user's or is downloaded."""

    VERSION = tfds.core.Version("1.0.0")
    EMBEDDED = False
    NEEDS: str
    """What to put into the raw folder, for messages."""
    SOURCE: str = ""
    """How the addresses of its archives in checksums.tsv begin; "" where there are none."""
    PUBLIC: bool = False
    """Whether anyone may download them."""

    def __init__(self, *, raw: Raw | None = None, **kwargs: Any) -> None:
        self.raw = raw or Raw()
        self.skipped: list[str] = []
        """What was wrong with the examples that were left out."""
        self.turned: list[str] = []
        """Pictures and masks that were turned upright, and the orientation they had."""
        self._turning: list[str] = []  # of the example that is being made
        self._opened: list[Members] = []
        try:
            super().__init__(**kwargs)  # may look into archives for the names of the classes
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the archives."""
        for members in self._opened:
            members.close()

    def open(self, path: Path, file: Any = None) -> Members:
        """Open a folder or an archive until `close`."""
        members = Members(path, file)
        self._opened.append(members)
        return members

    def picture(self, members: Members, name: str) -> bytes:
        """Return what is stored of a picture, upright; `turned` lists it if it was not."""
        where = members.where(name)
        return self._upright(stored_picture(members.read(name), where), where)

    def mask(self, members: Members, name: str, num_classes: int) -> bytes:
        """Return what is stored of a mask, upright; `turned` lists it if it was not."""
        where = members.where(name)
        return self._upright(stored_mask(members.read(name), num_classes, where), where)

    def _upright(self, stored: Stored, where: str) -> bytes:
        if stored.orientation != 1:
            self._turning.append(f"{where}: EXIF orientation {stored.orientation}")
        return stored.encoded

    def folder(self) -> Path:
        """Return the user's folder.

        Raises:
            MissingRawData: If none is given, or it does not exist.
        """
        directory = self.raw.directory
        if directory is None:
            raise MissingRawData(
                f"data set {self.name!r} needs raw data that only you have. Give --raw-dir "
                f"(raw_dir), with {self.NEEDS}"
            )
        if not directory.exists():
            raise MissingRawData(f"there is no {directory}; expected there: {self.NEEDS}")
        return directory

    def find(self, *names: str) -> Path | None:
        """Return the first of these files or folders that is in the user's folder."""
        if self.raw.directory is None:
            return None
        paths = (self.folder() / name for name in names)
        return next((path for path in paths if path.exists()), None)

    def archive(self, dl_manager: tfds.download.DownloadManager, name: str) -> Path:
        """Return a published file, checked: from the user's folder, or downloaded.

        Raises:
            MissingRawData: If it is not there and cannot be downloaded.
            WrongChecksum: If it is not the published one.
        """
        if found := self.find(name):
            self.verify(found)
            return found
        if self.raw.directory is not None or not self.PUBLIC:
            raise self.missing(name)
        url = next(url for url, info in self._known().items() if info.filename == name)
        try:
            return Path(dl_manager.download(url))
        except Exception as error:  # requests', urllib3's, TFDS's: whatever a network raises
            raise MissingRawData(
                f"{url} could not be downloaded: {error}. {self._remedy(name)}, and name the "
                "folder with --raw-dir (raw_dir)"
            ) from error

    def verify(self, path: Path) -> None:
        """Compare a file with its published size and SHA-256; nothing for unknown names."""
        known = {info.filename: info for info in self._known().values()}.get(path.name)
        if known is None or not self.raw.verify:
            return
        size = path.stat().st_size
        found = f"{size} bytes"
        if size == known.size:
            digest = self._sha256(path)
            if digest == known.checksum:
                return
            found = f"SHA-256 {digest}"
        raise WrongChecksum(
            f"{path} is not the published file: {found}, expected {int(known.size)} bytes and "
            f"SHA-256 {known.checksum}. Download it again; if it is meant to differ, say "
            "--no-verify (verify=False)"
        )

    def missing(self, name: str) -> MissingRawData:
        """Return the error of a file that is not in the user's folder."""
        where = self.raw.directory or "a folder that --raw-dir (raw_dir) names"
        told = f"data set {self.name!r}: no {name} in {where}"
        return MissingRawData(f"{told}. {self._remedy(name)}")

    def examples(
        self, split: str, items: Sequence[T], make: Callable[[T], dict[str, Any]]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the examples that `make` makes of the items, by their `id`.

        Raises:
            BadExample: If an item cannot be used and such are not to be skipped, or if none can.
            ValueError: If two examples have the same id.
        """
        used: set[str] = set()
        for item in self.raw.progress(items, f"{self.name}, {split}"):
            self._turning.clear()
            try:
                example = make(item)
                _check_is_text(example["id"])
            except BadExample as error:
                if not self.raw.skip_damaged:
                    remedy = "Replace the file, or leave such examples out with --skip-damaged"
                    raise BadExample(f"{error}. {remedy} (skip_damaged=True)") from error
                self.skipped.append(f"{split}: {error}")
                continue
            if example["id"] in used:
                raise ValueError(
                    f"data set {self.name!r}, split {split!r}: there are two examples with the id "
                    f"{example['id']!r}; rename one, or list it once"
                )
            used.add(example["id"])
            self.turned += [f"{split}: {line}" for line in self._turning]
            yield example["id"], example
        if not used:
            raise BadExample(
                f"data set {self.name!r}: split {split!r} has no usable example"
                f" ({self.raw.directory or 'downloaded'})"
            )

    def _generate_examples(self, *arguments: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        return self.examples(*arguments)

    def _known(self) -> dict[str, Any]:
        infos = self.url_infos or {}
        return {url: i for url, i in infos.items() if self.SOURCE and url.startswith(self.SOURCE)}

    def _remedy(self, name: str) -> str:
        facts = [
            f"{name}: {url}, {int(info.size)} bytes, SHA-256 {info.checksum}"
            for url, info in self._known().items()
            if info.filename == name
        ]
        listed = f" ({'; '.join(facts)})" if facts else ""
        return f"Put into a folder {self.NEEDS}{listed}"

    def _sha256(self, path: Path) -> str:
        import hashlib

        digest, block = hashlib.sha256(), 2**24
        parts = range(0, path.stat().st_size, block)
        with path.open("rb") as file:
            for _ in self.raw.progress(parts, f"checking {path.name}"):
                digest.update(file.read(block))
        return digest.hexdigest()


def _check_is_text(name: str) -> None:
    """Refuse a name that is not UTF-8: a record could not hold it."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError as error:
        shown = name.encode("utf-8", "backslashreplace").decode()
        raise BadExample(f"the name {shown} is not UTF-8; rename the file") from error
