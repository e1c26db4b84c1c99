"""When one of several processes fails, all end, and each says why.

Processes of a run wait for one another in every collective, so one that fails would leave the
others waiting. Here they tell one another through the key-value store that JAX keeps for them:

    clipjax/alive/I     a counter that process I raises ten times within the heartbeat
    clipjax/failed/I    why process I failed
    clipjax/heard/I     process I has read why, and ends
    clipjax/done/I      process I came to its end

A thread of each process reads them. It ends its process, with the reason as the last line, as soon
as another one has failed, or has given no sign of life for half of the heartbeat.

The store lives in process 0. When that one is killed JAX aborts the others at once, before any
Python runs. Their last line then comes from a small helper process that each of them starts and
that does nothing but wait for its end.
"""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any, NoReturn

# JAX has no public way to its key-value store.
from jax._src import distributed

PREFIX = "clipjax/"

REMEDY = "Start the same line again on every host: it goes on from the newest checkpoint"

_LAST_WORDS = """
import socket, sys
index, count, host, port, remedy = sys.argv[1:]
if not sys.stdin.read():
    why = "was killed"
    if index != "0":
        try:
            socket.create_connection((host, int(port)), 2).close()
        except OSError:
            why = "ended because process 0 was lost"
    print(f"error: process {index} of {count} {why}. {remedy}", file=sys.stderr)
"""


@dataclass(frozen=True)
class _Store:
    """The key-value store of a run on several hosts, as one process sees it."""

    client: Any
    index: int
    count: int

    def put(self, name: str, value: str) -> None:
        self.client.key_value_set(f"{PREFIX}{name}/{self.index}", value, allow_overwrite=True)

    def get(self, name: str) -> dict[int, str]:
        """Return what the processes have put under a name, by their index."""
        found = self.client.key_value_dir_get(f"{PREFIX}{name}/")
        return {int(key.rsplit("/", 1)[1]): value for key, value in found}


def _store() -> _Store | None:
    state = distributed.global_state
    if state.client is None or state.num_processes == 1:
        return None
    return _Store(state.client, state.process_id, state.num_processes)


def several() -> bool:
    """Return whether this process is one of several of a run."""
    return _store() is not None


def watch(heartbeat_timeout_seconds: float) -> None:
    """Watch the other processes until this one ends; returns at once.

    Call it once, after `jax.distributed.initialize`. A process that runs alone watches nobody.

    Args:
        heartbeat_timeout_seconds: within how many seconds all end when one fails.
    """
    store = _store()
    if store is None:
        return
    host, port = str(distributed.global_state.coordinator_address).rsplit(":", 1)
    about = (str(store.index), str(store.count), host, port, REMEDY)
    waiting = subprocess.Popen(
        [sys.executable, "-S", "-E", "-c", _LAST_WORDS, *about],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in a terminal is not meant for it
    )

    def farewell() -> None:
        """Tell the helper process that this process ends by itself."""
        with contextlib.suppress(BrokenPipeError):
            waiting.communicate(b"bye")

    def done() -> None:
        with contextlib.suppress(Exception):  # the store is gone when process 0 ended first
            store.put("done", "")
        farewell()

    atexit.register(done)  # before JAX's own, which waits for the other processes
    threading.Thread(
        target=_watch, args=(store, heartbeat_timeout_seconds, farewell), daemon=True
    ).start()


def fail_together(reason: str, exit_code: int = 1) -> None:
    """End all processes of the run because of a failure on this one; alone, do nothing.

    It does not return where there are other processes. A failure that only follows from another
    process's end, such as a lost connection, gives way to the word of that end.

    Args:
        reason: one line, printed last by every process.
        exit_code: of this process; the others end with 1.
    """
    store = _store()
    if store is None:
        return
    while True:
        # The thread of `watch` ends this process. It needs a moment to learn who was lost.
        with contextlib.suppress(Exception):  # the store is gone: so will this process be
            store.put("failed", json.dumps({"reason": reason, "exit_code": exit_code}))
        time.sleep(60)


def _watch(store: _Store, timeout: float, farewell: Any) -> None:
    """Raise our counter and read those of the others, until one of them has failed."""
    pause, patience = timeout / 10, timeout / 2
    seen: dict[int, tuple[str, float]] = {}
    beats = 0
    while True:
        beats += 1
        try:
            store.put("alive", str(beats))
            alive, failed, done = (store.get(name) for name in ("alive", "failed", "done"))
        except Exception:
            # Process 0 ended. If it was killed JAX ends this one now, and the helper process
            # says so; if it came to its end so does this one.
            return
        now = time.monotonic()
        for index in range(store.count):
            if index not in seen or alive.get(index) != seen[index][0]:
                seen[index] = alive.get(index, ""), now
        lost = [
            index
            for index, (_, when) in seen.items()
            if index not in done and index not in failed and now - when > patience
        ]
        own_fault = {i: why for i, why in failed.items() if not follows(json.loads(why)["reason"])}
        oldest = min((when for index, (_, when) in seen.items() if index not in done), default=now)
        if lost or own_fault or (failed and now - oldest > patience):
            _end(store, lost, own_fault or failed, patience, farewell)
        time.sleep(pause)


def follows(reason: str) -> bool:
    """Return whether a failure tells no more than that another process is gone.

    Examples:
        >>> follows("Gloo all-reduce failed: Connection closed by peer"), follows("disk is full")
        (True, False)
    """
    return any(word in reason for word in ("Gloo", "NCCL", "coordination service", "UNAVAILABLE"))


def _end(
    store: _Store, lost: list[int], failed: dict[int, str], patience: float, farewell: Any
) -> NoReturn:
    """Say who failed and why, and end this process; process 0 ends last, it keeps the store."""
    exit_code = 1
    if lost:
        names = " and ".join(f"process {index}" for index in lost)
        text = f"{names} of {store.count} gave no sign of life for {patience:g} s. {REMEDY}"
    else:
        index = min(failed)
        told = json.loads(failed[index])
        text = told["reason"]
        if index != store.index:
            text = f"process {index} of {store.count} failed: {text}"
        else:
            exit_code = told["exit_code"]
    with contextlib.suppress(Exception):  # process 0 may be the one that was lost
        store.put("heard", "")
        deadline = time.monotonic() + patience
        missing = set(range(store.count)) - set(lost)
        while (
            store.index == 0 and time.monotonic() < deadline and missing - set(store.get("heard"))
        ):
            time.sleep(0.05)
    sys.stdout.flush()
    print(f"error: {text}", file=sys.stderr, flush=True)
    farewell()
    # Not sys.exit: this is a thread, and the main one may wait in a collective for ever.
    os._exit(exit_code)
