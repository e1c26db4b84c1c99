"""Build a data set into ArrayRecord, so that what carries its name is complete.

Building happens in a hidden folder beside the others, which is renamed at the end. TFDS is imported
inside the functions: `import clipjax.data` costs nothing.
"""

import contextlib
import errno
import io
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clipjax import _locks
from clipjax.data.catalogue import builder_class, check_folder, root_folder
from clipjax.data.prepared import (
    SKIPPED,
    TURNED,
    DatasetNotPrepared,
    check_shards,
    open_prepared,
    write_contents,
)
from clipjax.data.records import DamagedDataset

Progress = Callable[[Sequence[Any], str], Iterable[Any]]

_LEFTOVER = re.compile(r"\.(?P<stem>.+)-[a-z0-9_]{8}\.preparing")
"""What the folder is called in which a set is built (tempfile.mkdtemp draws the eight letters)."""


def prepare(
    name: str,
    data_dir: str | Path | None = None,
    *,
    raw_dir: str | Path | None = None,
    skip_damaged: bool = False,
    verify: bool = True,
    progress: Progress | None = None,
    wait: bool = True,
) -> Path:
    """Build a data set into ArrayRecord, unless it is there already (see `is_prepared`).

    Building happens in a hidden folder of `data_dir` and ends with one rename: killed at any
    moment, it leaves nothing that looks complete, and the next call removes what is left of it. A
    set that is there is not compared with the raw data; delete its folder to have it built again.
    One that is seen to be damaged is built again and replaced at the end.

    One process at a time builds a set. Its lock, `.NAME.lock` in `data_dir`, names it and its
    machine. Another one waits, and says so after a second or two by the logger "clipjax.data". A
    holder on this machine that was killed is followed at once; one on another machine that shares
    the folder, 150 s after its last sign of life.

    Args:
        name: one of `BUILDERS`; those of `NAMED` may have a name of yours behind a slash.
        data_dir: where prepared data sets are; `default_data_dir()` if None.
        raw_dir: where the raw data is; None for data that is embedded or can be downloaded.
        skip_damaged: leave out examples that cannot be used, in place of stopping at the first.
        verify: compare known archives with their published SHA-256.
        progress: (items, what is done with them) -> the same items; shows how far it is.
        wait: where another process prepares the same set, wait for its end and take what it made;
            else raise ValueError.

    Returns:
        The folder with the ArrayRecord files; with skipped.txt if examples were left out, and with
        turned.txt if pictures were turned upright as their EXIF data asks.

    Raises:
        ValueError: If there is no such data set (the nearest name is given), or raw data is not
            what it should be; the message names the file. Also if another process prepares the same
            set and `wait` is false; the message names it.
        FileNotFoundError: If a raw file is missing; the message says which one to put where.
        ImportError: If the package that carries the raw data is missing.
        OSError: If `data_dir` cannot be written to.
    """
    builder = builder_class(name)
    root = root_folder(data_dir)
    options: dict[str, Any] = {}
    if not builder.EMBEDDED:
        options = _raw_options(builder.NEEDS, raw_dir, skip_damaged, verify, progress)
    elif raw_dir is not None:
        raise ValueError(f"data set {name!r} ships in a package: leave raw_dir out")
    final = root / name / str(builder.VERSION)
    _remove_leftovers(root)
    if _is_whole(name, final):
        return final
    with _explained(root):
        stem = name.replace("/", "-")
        with _lock(root, stem, wait=wait):
            if _is_whole(name, final):
                return final
            staging = Path(tempfile.mkdtemp(prefix=f".{stem}-", suffix=".preparing", dir=root))
            try:
                downloading = raw_dir is None and getattr(builder, "PUBLIC", False)
                downloads = root if downloading else staging
                built = _build(builder, staging, downloads / "downloads", options)
                final.parent.mkdir(parents=True, exist_ok=True)
                if os.path.lexists(final):  # some of its files were deleted or damaged
                    final.rename(staging / "incomplete")
                built.rename(final)
            finally:
                shutil.rmtree(staging)
    return final


def is_prepared(name: str, data_dir: str | Path | None = None) -> bool:
    """Return whether `prepare` would leave a data set as it is: all there, and not seen damaged.

    Args:
        name: one of `BUILDERS`, or one of `NAMED` with a name of yours.
        data_dir: where prepared data sets are; `default_data_dir()` if None.

    Raises:
        ValueError: If there is no such data set.
    """
    version = builder_class(name).VERSION
    return _is_whole(name, root_folder(data_dir) / name / str(version))


def _is_whole(name: str, directory: Path) -> bool:
    try:
        check_shards(name, open_prepared(name, directory))
    except (DatasetNotPrepared, DamagedDataset):
        return False
    return True


def _remove_leftovers(root: Path) -> None:
    """Remove the folders of killed builders: those whose lock no process holds."""
    for leftover in root.glob(".*.preparing"):
        match = _LEFTOVER.fullmatch(leftover.name)
        if match is None:
            continue
        # Not where it is in use, not ours to remove, or a link, which rmtree refuses.
        with contextlib.suppress(OSError, ValueError), _lock(root, match["stem"], wait=False):
            shutil.rmtree(leftover)


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def _explained(root: Path) -> Iterator[None]:
    """Say of an error in writing where it was and what to do."""
    try:
        yield
    except OSError as error:
        ours = error.errno in _FULL or str(error.filename or "").startswith(str(root))
        if error.errno is None or not ours:
            raise  # a raw file's, or it has a message of its own
        raise _unwritable(root, error.errno) from error
    except RuntimeError as error:  # so ArrayRecord's writer says that a disk is full
        full = next((number for number in _FULL if os.strerror(number) in str(error)), None)
        if full is None:
            raise
        raise _unwritable(root, full) from error


def _unwritable(root: Path, number: int) -> OSError:
    cure = "make room" if number in _FULL else "see that it is a folder you may write to"
    return OSError(
        number,
        f"{os.strerror(number)}: prepared data cannot be written into {root}; {cure}, or choose "
        "another folder with --data-dir (data_dir). Nothing half-made is left",
    )


def _raw_options(
    needs: str,
    raw_dir: str | Path | None,
    skip_damaged: bool,
    verify: bool,
    progress: Progress | None,
) -> dict[str, Any]:
    from clipjax.data.builders.raw import MissingRawData, Raw

    directory = None if raw_dir is None else check_folder("raw_dir", raw_dir)
    if directory is not None and not directory.exists():
        raise MissingRawData(f"there is no {directory}; expected there: {needs}")
    shown = {} if progress is None else {"progress": progress}
    return {"raw": Raw(directory, skip_damaged, verify, **shown)}


def _build(kind: Any, staging: Path, downloads: Path, options: Mapping[str, Any]) -> Path:
    """Build into a staging folder; return the folder of the files in it."""
    import tensorflow_datasets as tfds

    with contextlib.ExitStack() as stack:
        builder = kind(data_dir=staging, file_format="array_record", **options)
        if hasattr(builder, "close"):
            stack.callback(builder.close)
        with _quiet():
            builder.download_and_prepare(
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
    built = Path(builder.data_dir)
    for listed, file in (("skipped", SKIPPED), ("turned", TURNED)):
        if lines := getattr(builder, listed, []):
            (built / file).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    write_contents(built)
    return built


@contextlib.contextmanager
def _lock(root: Path, stem: str, *, wait: bool) -> Iterator[None]:
    """Hold the lock of who prepares a set; the kernel ends it with the process.

    Raises:
        Held: another process holds it, and `wait` is false; or has taken it over meanwhile, from
            another machine, and removed what was built here.
    """
    path = root / f".{stem}.lock"
    what = f"data set {stem!r} is being prepared in {root}"
    advice = "Wait for it to end: what it prepares is there for all"
    try:
        with _locks.hold(path, what, advice, waiting=_say if wait else None) as ours:
            try:
                yield
            except OSError as error:
                if ours():
                    raise
                raise _locks.Held(f"{what} by a process that took {path} over", advice) from error
    except OSError as error:
        if error.errno != errno.ELOOP or error.filename != str(path):
            raise
        raise ValueError(f"{path} is a link, which is not written through; delete it") from error


def _say(held: str) -> None:
    logging.getLogger("clipjax.data").warning("waiting: %s", held)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide TFDS's own progress bars."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
