"""Batches made ahead by Grain, in threads or in processes of their own."""

import dataclasses
from collections.abc import Callable, Generator
from typing import Any

from clipjax.data.augment import HostBatch

BATCHES_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class BatchSource:
    """What Grain reads: item i is batch first + i."""

    make: Callable[[int], HostBatch]
    length: int
    first: int = 0

    def __len__(self) -> int:
        return self.length - self.first

    def __getitem__(self, index: int) -> HostBatch:
        return self.make(self.first + index)


def iterate(
    batches: BatchSource, start: int, num_threads: int, workers: int
) -> Generator[HostBatch, None, None]:
    """Yield the batches from number `start` on, made ahead by threads or by processes.

    Args:
        batches: all of them.
        start: the number of the first.
        num_threads: how many threads make them.
        workers: how many processes make them; 0 for none.
    """
    import grain

    ahead = BATCHES_AHEAD if workers == 0 else 1
    options = grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=max(ahead, num_threads)
    )
    if workers == 0:
        iterator = iter(grain.MapDataset.source(batches).to_iter_dataset(options))
        grain.experimental.set_next_index(iterator, start)
    else:
        iterator = iter(_in_processes(batches, start, options, workers))
    try:
        yield from iterator
    finally:  # also when the generator is closed or collected: ends the threads
        iterator.close()


def _in_processes(batches: BatchSource, start: int, options: Any, workers: int) -> Any:
    """Return the batches from `start` on, made by processes: number i by process i % workers."""
    import grain
    from absl import flags

    if not flags.FLAGS.is_parsed():  # Grain hands absl's flags on to its processes
        flags.FLAGS.mark_as_parsed()
    rest = dataclasses.replace(batches, first=start)
    processes = grain.MultiprocessingOptions(
        num_workers=workers, per_worker_buffer_size=BATCHES_AHEAD
    )
    return grain.MapDataset.source(rest).to_iter_dataset(options).mp_prefetch(processes)
