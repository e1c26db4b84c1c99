"""Ctrl-C, SIGTERM and SIGHUP: a run is saved first, anything else ends with one line.

Python calls its handlers only between two lines of Python, and compiling takes minutes without one.
So a thread reads the signals too (through `signal.set_wakeup_fd`): it answers at once, and ends the
process at the second Ctrl-C. Nothing here imports JAX: this is in place before it is imported.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType

EXIT_STOPPED = 75
"""EX_TEMPFAIL: stopped by SIGTERM or SIGHUP after saving; the same line goes on."""

EXIT_INTERRUPTED = 130
"""128 + SIGINT: ended by Ctrl-C."""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

APART = 0.5
"""Seconds between the first and the second Ctrl-C; `timeout -s INT` sends two at once."""

PATIENCE = 1.0
"""Seconds after which a Ctrl-C that was not followed yet is answered in words."""


class Listener:
    """The signals that came to this process, and what they do."""

    def __init__(self):
        self.came: list[signal.Signals] = []
        self.saves = self._forwards = False
        self._terminals = [fd for fd in (1, 2) if os.isatty(fd)]
        self._answered = threading.Event()

    def interrupted(self) -> bool:
        """Return whether a signal came."""
        return bool(self.came)

    def exit_code(self) -> int:
        """Return the exit code of a program that a signal stopped."""
        return EXIT_INTERRUPTED if signal.SIGINT in self.came else EXIT_STOPPED

    def save_first(self, *, several_hosts: bool) -> None:
        """From now on a signal is only noted: who runs asks `interrupted` and saves.

        Args:
            several_hosts: JAX listens to SIGTERM and tells all hosts; other signals become one.
        """
        self.saves, self._forwards = True, several_hosts

    def handle(self, number: int, _: FrameType | None) -> None:
        """Note a signal (in the main thread)."""
        self.came.append(signal.Signals(number))
        if not self.saves:
            raise KeyboardInterrupt
        if self._forwards and number != signal.SIGTERM:
            os.kill(os.getpid(), signal.SIGTERM)

    def wait_for_answer(self) -> None:
        """Let the thread answer a Ctrl-C before the caller prints what came of it."""
        if self.saves and signal.SIGINT in self.came:
            self._answered.wait(PATIENCE)

    def watch(self, pipe: int) -> None:
        """Read the numbers of signals from a pipe until it is closed (in a thread)."""
        first, told = None, False
        while True:
            wait = None if first is None or told else PATIENCE
            if not select.select([pipe], [], [], wait)[0]:
                told = True
                say("ending as soon as this is computed; Ctrl-C again ends at once")
                continue
            numbers = os.read(pipe, 64)
            if not numbers:
                return
            if signal.SIGHUP in numbers:
                self._let_go_of_terminal()
            if signal.SIGINT not in numbers:
                continue
            if first is None:
                first = time.monotonic()
                if self.saves:
                    told = True
                    say("stopping after this step, to be saved; Ctrl-C again ends at once")
                    self._answered.set()
            elif time.monotonic() - first > APART:
                end_at_once("ended at once; what was saved before is kept", EXIT_INTERRUPTED)

    def _let_go_of_terminal(self) -> None:
        """Write to nowhere: the terminal is gone, and an error in printing would end the run."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for fd in self._terminals:
            os.dup2(nowhere, fd)
        os.close(nowhere)


@contextlib.contextmanager
def listening() -> Iterator[Listener]:
    """Listen to signals while the block runs; those that are ignored (nohup) stay ignored."""
    listener = Listener()
    pipe, end = os.pipe()
    os.set_blocking(end, False)
    thread = threading.Thread(target=listener.watch, args=(pipe,), daemon=True)
    thread.start()
    heard = [s for s in SIGNALS if signal.getsignal(s) is not signal.SIG_IGN]
    before = {number: signal.signal(number, listener.handle) for number in heard}
    wakeup = signal.set_wakeup_fd(end, warn_on_full_buffer=False)
    _LISTENERS.append(listener)
    try:
        yield listener
    finally:
        _LISTENERS.remove(listener)
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(end)
        thread.join(PATIENCE)  # what it has to say comes before what the caller prints next


_LISTENERS: list[Listener] = []
"""The one that listens, if any: signals come to a process, not to an object."""


def current() -> Listener:
    """Return the listener at work; one that hears nothing where none is (in tests)."""
    return _LISTENERS[-1] if _LISTENERS else Listener()


def end_while_importing() -> None:
    """Until `listening`, let a signal end the process with one line: nothing has begun yet."""

    def handle(number: int, _: FrameType | None) -> None:
        code = EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_STOPPED
        name = signal.Signals(number).name
        end_at_once(f"stopped by {name} at the start; nothing had begun", code)

    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handle)


def end_at_once(text: str, code: int) -> None:
    """Say a last line and end the process, whatever its threads are about."""
    say(text)
    if os.isatty(2):
        with contextlib.suppress(OSError):
            os.write(2, b"\x1b[?25h")  # a progress line hides the cursor
    os._exit(code)


def say(text: str) -> None:
    """Print a line to stderr from any thread; a closed terminal is no error."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
