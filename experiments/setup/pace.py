"""How long a computation will take, told before it starts, and that it is still going on."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

LONGEST_DAYS = 30.0
"""What would take longer is refused: it is a slip of the pen more often than a wish."""
_PIECE_SECONDS = 0.25
_GROWTH = 8


def estimate(run: Callable[[int], object], steps: int) -> float:
    """Return about how many seconds `steps` steps will take.

    Pieces of 1, 8, 64, ... steps are run until one takes a quarter of a second. All but the first
    piece's time is taken to be proportional to the number of steps.

    Args:
        run: makes that many steps and waits for them.
        steps: how many will be made.

    Examples:
        >>> 5 < estimate(lambda n: time.sleep(0.01 * n), 1000) < 30
        True
    """
    first = seconds = _seconds(run, 1)
    piece = 1
    while seconds < _PIECE_SECONDS and piece * _GROWTH * _GROWTH <= steps:
        piece *= _GROWTH
        seconds = _seconds(run, piece)
    if piece == 1:
        return first * steps
    return first + max(seconds - first, 0.0) / (piece - 1) * (steps - 1)


def _seconds(run: Callable[[int], object], steps: int) -> float:
    began = time.monotonic()
    run(steps)
    return time.monotonic() - began


def check(seconds: float, what: str, cure: str) -> None:
    """Raise ValueError for a computation that would take longer than `LONGEST_DAYS`."""
    if seconds > LONGEST_DAYS * 86400:
        raise ValueError(
            f"{what} would take {words(seconds)}; more than {LONGEST_DAYS:g} days are refused. "
            f"{cure}"
        )


def words(seconds: float) -> str:
    """Return a length of time to two digits.

    Examples:
        >>> [words(x) for x in (0.4, 95, 7200, 2e6, 1e12)]
        ['1 s', '95 s', '2 h', '23 days', '32,000 years']
    """
    for name, length in (("years", 365 * 86400), ("days", 2 * 86400), ("h", 7200), ("min", 120)):
        if seconds >= length:
            unit = {"years": 365 * 86400, "days": 86400, "h": 3600, "min": 60}[name]
            return f"{float(f'{seconds / unit:.2g}'):,.0f} {name}"
    return f"{max(seconds, 1):.0f} s"


@contextlib.contextmanager
def telling(say: Callable[[str], None], what: str, *, every: float = 10.0) -> Iterator[None]:
    """Say every ten seconds that something is going on, for as long as the block lasts.

    Args:
        say: prints a line.
        what: what is going on.
        every: seconds between two lines.
    """
    ended, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not ended.wait(every):
            say(f"{what}: {words(time.monotonic() - began)} so far")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


@contextlib.contextmanager
def aloud(what: str) -> Iterator[None]:
    """Do `telling` on stderr, for commands that have no line of progress of their own."""
    with telling(lambda text: print(text, file=sys.stderr, flush=True), what):
        yield
