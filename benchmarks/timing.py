"""How time is taken: alternating repeats, of which the fastest counts."""

import time
from collections.abc import Callable


def seconds(runs: list[Callable[[], None]], repeats: int) -> list[float]:
    """Return the fastest of several alternating repeats of each."""
    best = [float("inf")] * len(runs)
    for repeat in range(repeats + 1):
        for index, run in enumerate(runs):
            start = time.perf_counter()
            run()
            if repeat:  # the first one compiles
                best[index] = min(best[index], time.perf_counter() - start)
    return best
