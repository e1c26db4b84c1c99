"""Locks in files: they tell who holds them, and outlive no holder.

The lock's file names the holder. Two things say that the holder lives:

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

BEAT = 15.0
"""Seconds between two signs of life."""

SILENCE = 10 * BEAT
"""Seconds without one after which the holder on another machine is taken to be gone."""

SETTLE = 1.0
"""Seconds in which two machines that take over the same lock see one another."""

PATIENCE = 1.5
"""Seconds of waiting without a word."""

POLL = 0.2
"""Seconds between two tries of who waits."""

_NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
"""What file systems without `flock` answer."""


class Held(ValueError):
    """Another process holds the lock.

    Attributes:
        by: what is held, by whom, since when, and the lock's file: the message without its advice.
    """

    def __init__(self, by: str, advice: str):
        super().__init__(f"{by}. {advice}")
        self.by = by


@contextlib.contextmanager
def hold(
    path: Path,
    what: str,
    advice: str,
    *,
    waiting: Callable[[str], None] | None = None,
    on_loss: Callable[[str], None] | None = None,
) -> Iterator[Callable[[], bool]]:
    """Hold a lock while the block runs.

    The folder is made if it is missing, and removed in the end if nothing was written into it.

    Args:
        path: the lock's file.
        what: what is held, to which messages add "by" and the holder's name.
        advice: what to do about it where another one holds the lock.
        waiting: waits for another holder to end in place of raising `Held`; called once, with
            `Held.by`, if that takes longer than PATIENCE.
        on_loss: called from a thread, with a sentence, where this process was halted for so long
            that another machine took the lock over.

    Yields:
        A function that tells whether the lock is still ours.

    Raises:
        Held: another process holds it; the message names it.
        OSError: the folder cannot be made or written to; ELOOP where the file is a link.
    """
    made = _make(path.parent)
    try:
        holder = _holder()
        held = _Lock(path, what, advice)
        file = held.take(holder) if waiting is None else held.wait(holder, waiting)
        ended = threading.Event()

        def ours() -> bool:
            with contextlib.suppress(FileNotFoundError), path.open("rb") as current:
                return (_read(current.fileno()) or {}).get("token") == holder["token"]
            return False

        beat = threading.Thread(target=_beat, args=(file, path, ours, ended, on_loss), daemon=True)
        beat.start()
        try:
            yield ours
        finally:
            ended.set()
            beat.join()
            with contextlib.suppress(OSError):
                if ours():
                    os.unlink(path)  # while it is locked, so it is nobody else's
            os.close(file)
    finally:
        for folder in made:
            with contextlib.suppress(OSError):  # it is in use
                folder.rmdir()


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


@dataclass(frozen=True)
class _Lock:
    path: Path
    what: str
    advice: str

    def wait(self, holder: dict[str, str | int], waiting: Callable[[str], None]) -> int:
        """Return what `take` does, as soon as it can be taken."""
        began, told = time.monotonic(), False
        while True:
            try:
                return self.take(holder)
            except Held as held:
                if not told and time.monotonic() - began > PATIENCE:
                    waiting(held.by)
                    told = True
            time.sleep(POLL)

    def take(self, holder: dict[str, str | int]) -> int:
        """Return the open, locked file of a lock that is ours now."""
        while True:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                free = _try(file)
                other = _read(file)
                if free is not False and not _same(file, self.path):
                    os.close(file)  # its holder removed it in between
                    continue
                if free is False or (other is not None and _lives(other, file, self.path, free)):
                    raise self.held(other, file)
                _write(file, self.path, holder)
                if other is not None and not _is_here(other):
                    time.sleep(SETTLE)
                    now = _read(file)
                    if now != holder:
                        raise self.held(now, file)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.close(file)
                raise
            return file

    def held(self, other: dict[str, str | int] | None, file: int) -> Held:
        """Return the error that names the other holder."""
        who, advice = "another process", self.advice
        if other is not None:
            who = f"process {other.get('pid')} on {other['host']} since {other.get('since')}"
            if not _is_here(other):
                advice += (
                    f". Its last sign of life is {_silent_for(file, self.path.parent):.0f} s old; "
                    f"if it is gone, the folder can be used {SILENCE:.0f} s after it"
                )
        return Held(f"{self.what} by {who} ({self.path})", advice)


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


def _beat(
    file: int,
    path: Path,
    ours: Callable[[], bool],
    ended: threading.Event,
    on_loss: Callable[[str], None] | None,
) -> None:
    """Give signs of life until the block has ended or another one has taken the lock over."""
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):  # a share that is away for a moment; the next one counts
            os.utime(file)
            with path.open("rb") as current:
                other = _read(current.fileno())
            if other is None or ours() or ended.is_set():
                continue
            if on_loss is not None:
                on_loss(
                    f"was taken over by process {other['pid']} on {other['host']}: this one gave "
                    f"no sign of life for {SILENCE:.0f} s"
                )
            return
