"""One run at a time in a folder: a lock that tells who holds it and outlives no holder.

The file `lock.json` in the folder names the holder. Two things say that the holder lives:

    the kernel's lock on the file (`flock`), which ends with the process, however it ended: with it
        a lock left behind on this machine is taken over at once
    the file's time, renewed every BEAT seconds, for holders on other machines that share the
        folder: a lock whose time is older than SILENCE is taken over
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import jax

from experiments.setup import signals

NAME = "lock.json"

BEAT = 15.0
"""Seconds between two signs of life."""

SILENCE = 10 * BEAT
"""Seconds without one after which the holder on another machine is taken to be gone."""

SETTLE = 1.0
"""Seconds in which two machines that take over the same lock see one another."""

_NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""What file systems without `flock` answer."""


class Held(ValueError):
    """Another run is at work in the folder."""


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder's lock while the block runs; of several hosts the first holds it for all.

    The folder is made if it is missing, and removed in the end if nothing was written into it.

    Raises:
        Held: another run holds it; the message names it.
        OSError: the folder cannot be made or written to.
    """
    if jax.process_index() != 0:
        yield
        return
    made = _make(folder)
    try:
        holder = _holder()
        file = _take(folder / NAME, holder)
        ended = threading.Event()
        args = (file, folder / NAME, holder["token"], ended)
        beat = threading.Thread(target=_beat, args=args, daemon=True)
        beat.start()
        try:
            yield
        finally:
            ended.set()
            beat.join()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(folder / NAME)  # while it is locked, so it is nobody else's
            os.close(file)
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it is in use
                path.rmdir()


def _make(folder: Path) -> list[Path]:
    """Make a folder and those above it; return the new ones, innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _holder() -> dict[str, str | int]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "host": platform.node(),
        "boot": _boot(),
        "pid": os.getpid(),
        "process_started": _process_started(os.getpid()),
        "since": now,
        "token": uuid.uuid4().hex,
    }


def _boot() -> str:
    """Return what tells this machine, since it was switched on, from others; "" if unknown."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _process_started(pid: int) -> str:
    """Return when a process began, in ticks since the machine did; "" where nothing tells."""
    with contextlib.suppress(OSError, IndexError):
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        return text.rpartition(")")[2].split()[19]
    return ""


def _take(path: Path, holder: dict[str, str | int]) -> int:
    """Return the open, locked file of a lock that is ours now."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            free = _try(file)
            other = _read(file)
            if free is not False and not _same(file, path):  # its holder removed it in between
                os.close(file)
                continue
            if free is False or (other is not None and _lives(other, file, path, free)):
                raise _held(path, other, file)
            _write(file, path, holder)
            if other is not None and not _is_here(other):
                time.sleep(SETTLE)
                now = _read(file)
                if now != holder:
                    raise _held(path, now, file)
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(file)
            raise
        return file


def _try(file: int) -> bool | None:
    """Return whether the kernel gives us its lock; None where the file system has none."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            raise
        return None
    return True


def _lives(other: dict[str, str | int], file: int, path: Path, free: bool | None) -> bool:
    """Return whether a holder that the kernel's lock does not tell of is at work still."""
    if not _is_here(other):
        return _silent_for(file, path.parent) < SILENCE
    if free:
        return False
    started = _process_started(int(other["pid"]))
    return bool(started) and started == other.get("process_started")


def _write(file: int, path: Path, holder: dict[str, str | int]) -> None:
    try:
        os.ftruncate(file, 0)
        os.pwrite(file, (json.dumps(holder, indent=2) + "\n").encode(), 0)
    except OSError:  # the disk is full
        os.unlink(path)
        raise


def _read(file: int) -> dict[str, str | int] | None:
    """Return the holder that an open lock file names; None if it names none, as a new one."""
    try:
        found = json.loads(os.pread(file, 10_000, 0))
    except ValueError:
        return None
    whole = isinstance(found, dict) and {"host", "pid", "token"} <= set(found)
    return found if whole and isinstance(found["pid"], int) else None


def _same(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _is_here(other: dict[str, str | int]) -> bool:
    """Return whether a holder is or was on this machine, where the kernel's lock is the answer."""
    boot = _boot()
    return other.get("boot") == boot if boot else other["host"] == platform.node()


def _silent_for(file: int, folder: Path) -> float:
    """Return the seconds since the last sign of life, by the clock of the file system."""
    with tempfile.TemporaryFile(dir=folder) as now:
        return os.fstat(now.fileno()).st_mtime - os.fstat(file).st_mtime


def _held(path: Path, other: dict[str, str | int] | None, file: int) -> Held:
    who = "another process"
    if other is not None:
        who = f"process {other.get('pid')} on {other['host']} since {other.get('since')}"
    advice = "Wait for it to end, or use another --workdir"
    if other is not None and not _is_here(other):
        advice += (
            f". Its last sign of life is {_silent_for(file, path.parent):.0f} s old; if it is gone,"
            f" the folder can be used {SILENCE:.0f} s after it"
        )
    return Held(f"{path.parent} is in use by {who} ({path}). {advice}")


def _beat(file: int, path: Path, token: str, ended: threading.Event) -> None:
    """Give signs of life; end the process where another one has taken the folder over."""
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):  # a share that is away for a moment; the next one counts
            os.utime(file)
            with path.open("rb") as current:
                other = _read(current.fileno())
            if other is not None and other["token"] != token and not ended.is_set():
                # This process was halted for longer than SILENCE. Two writers would mix two runs.
                signals.end_at_once(
                    f"error: {path.parent} was taken over by process {other['pid']} on "
                    f"{other['host']}: this one gave no sign of life for {SILENCE:.0f} s",
                    1,
                )
