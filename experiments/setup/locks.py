"""One run at a time in a folder: `lock.json` there names the process that is at work."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax

from clipjax import _locks
from clipjax._locks import Held as Held
from experiments.setup import signals

NAME = "lock.json"


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold a folder's lock while the block runs; of several hosts the first holds it for all.

    The folder is made if it is missing, and removed in the end if nothing was written into it. If
    this process was halted for so long that another machine took the folder over, it ends when it
    wakes: two writers would mix two runs.

    Raises:
        Held: another run holds it; the message names it.
        OSError: the folder cannot be made or written to.
    """
    if jax.process_index() != 0:
        yield
        return

    def end(said: str) -> None:
        signals.end_at_once(f"error: {folder} {said}", 1)

    advice = "Wait for it to end, or use another --workdir"
    with _locks.hold(folder / NAME, f"{folder} is in use", advice, on_loss=end):
        yield
