"""Batches from prepared data: a pure function of the seed and the number of the batch.

Training is one infinite stream of records. Record number p = step * batch_size + j of the stream
belongs to epoch p // n (n records) and is `permutation(seed, epoch)[p % n]`: every record once
an epoch, also where a batch straddles two epochs. Augmentation draws one array of uniform
numbers for the whole global batch, from (seed, step). A process of several takes the rows
`[process_index::process_count]` of all this, so what is learnt from in step k depends neither
on the number of processes nor on where training was resumed: the step is the position.

Grain carries the batches: its source is the function above (item i is batch i) and it makes a
few batches ahead in a thread.
"""

import dataclasses
import functools
from collections.abc import Callable, Generator

import numpy as np

from clipjax.data.augment import Augment, HostBatch
from clipjax.data.sources import Source

ENDLESS = 2**62
"""The length of the training stream, in batches; larger than any run."""

BATCHES_AHEAD = 4

# Which numbers a generator is for: equal (seed, number) of two purposes must not correlate.
_SHUFFLE, _AUGMENT, _CALIBRATE = range(3)


def _generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, number)))


@functools.lru_cache(maxsize=4)  # a batch needs at most two epochs, and steps go forward
def permutation(seed: int, epoch: int, num_records: int) -> np.ndarray:
    """Return the order of the records in an epoch.

    Args:
        seed: of the run's data.
        epoch: its number, from 0.
        num_records: n.

    Returns:
        int64 (n,), read-only.

    Examples:
        >>> sorted(permutation(0, 7, 4).tolist())
        [0, 1, 2, 3]
    """
    order = _generator(seed, _SHUFFLE, epoch).permutation(num_records)
    order.flags.writeable = False
    return order


def stream(seed: int, first: int, size: int, num_records: int) -> np.ndarray:
    """Return `size` consecutive records of the infinite shuffled stream.

    Args:
        seed: of the run's data.
        first: position in the stream, from 0.
        size: at most `num_records`.
        num_records: n.

    Returns:
        int64 (size,), record numbers: at p, `permutation(seed, p // n)[p % n]`.

    Examples:
        >>> sorted(stream(0, first=0, size=3, num_records=3).tolist())
        [0, 1, 2]
    """
    epoch, offset = divmod(first, num_records)
    head = permutation(seed, epoch, num_records)[offset : offset + size]
    if len(head) == size:
        return head
    return np.concatenate([head, permutation(seed, epoch + 1, num_records)[: size - len(head)]])


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Training, evaluation and calibration batches; `clipjax.typing.Data` without JAX.

    Every batch is a dict of arrays whose leading axis is the example: `image` uint8, `label`
    int32, `target` uint8 (what the data set has of these) and `mask` float32, 1 for real
    examples and 0 for padding.

    Examples:
        >>> from clipjax.data.augment import pad_crop
        >>> from clipjax.data.sources import load
        >>> data = Pipeline(load("digits", "train"), load("digits", "test"), batch_size=64,
        ...                 evaluation_batch_size=100, augment=pad_crop(1), seed=0)
        >>> batch = next(data.train(start=1000))
        >>> {key: (value.dtype.name, value.shape) for key, value in batch.items()}
        {'image': ('uint8', (64, 8, 8, 1)), 'label': ('int32', (64,)), 'mask': ('float32', (64,))}
        >>> [int(batch["mask"].sum()) for batch in data.evaluation()]
        [100, 100, 100, 60]
    """

    # What is read
    training: Source
    held_out: Source
    # Examples in a global batch
    batch_size: int
    evaluation_batch_size: int
    # What happens to training batches, and what decides their order
    augment: Augment | None
    seed: int

    def __post_init__(self) -> None:
        for field in ("batch_size", "evaluation_batch_size"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.batch_size > len(self.training):
            raise ValueError(
                f"batch_size {self.batch_size} is larger than the {len(self.training)} training "
                f"examples of {self.training.name!r}: choose a smaller batch"
            )
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if len(self.held_out) == 0:
            raise ValueError(f"split {self.held_out.split!r} of {self.held_out.name!r} is empty")

    @property
    def num_train(self) -> int:
        """Number of training examples."""
        return len(self.training)

    @property
    def num_evaluation(self) -> int:
        """Number of evaluation examples."""
        return len(self.held_out)

    def train(
        self, start: int, *, process_index: int = 0, process_count: int = 1
    ) -> Generator[HostBatch, None, None]:
        """Yield batches number `start`, `start + 1`, ... of the infinite stream.

        Args:
            start: the step to begin at, from 0.
            process_index: which process this is.
            process_count: how many there are; must divide `batch_size`.

        Raises:
            ValueError: If an argument is out of range.
            UnreadableRecord: If a record is damaged.
        """
        if start < 0:
            raise ValueError(f"start must not be negative, got {start}")
        rows = _rows("batch_size", self.batch_size, process_index, process_count)
        make = functools.partial(self._training_batch, rows)
        return _read_ahead(make, ENDLESS, start, self.training)

    def evaluation(
        self, *, process_index: int = 0, process_count: int = 1
    ) -> Generator[HostBatch, None, None]:
        """Yield each evaluation example once, in order, the last batch padded and masked.

        Every process yields equally many batches of equal shape. Arguments and errors as
        in `train`, with `evaluation_batch_size`.
        """
        size = self.evaluation_batch_size
        rows = _rows("evaluation_batch_size", size, process_index, process_count)
        make = functools.partial(self._evaluation_batch, rows)
        return _read_ahead(make, -(-self.num_evaluation // size), 0, self.held_out)

    def calibration(
        self, num_batches: int, *, process_index: int = 0, process_count: int = 1
    ) -> Generator[HostBatch, None, None]:
        """Yield up to `num_batches` full training batches for BatchNorm's statistics.

        They are not augmented, repeat no example and depend on the seed only; fewer come where
        the training set is used up. Arguments and errors as in `train`.
        """
        if num_batches < 1:
            raise ValueError(f"num_batches must be at least 1, got {num_batches}")
        rows = _rows("batch_size", self.batch_size, process_index, process_count)
        make = functools.partial(self._calibration_batch, rows)
        length = min(num_batches, self.num_train // self.batch_size)
        return _read_ahead(make, length, 0, self.training)

    def _training_batch(self, rows: slice, step: int) -> HostBatch:
        records = stream(self.seed, step * self.batch_size, self.batch_size, self.num_train)
        batch = _batch(self.training, records[rows])
        if self.augment is None:
            return batch
        shape = (self.batch_size, self.augment.num_draws)
        return self.augment(batch, _generator(self.seed, _AUGMENT, step).random(shape)[rows])

    def _evaluation_batch(self, rows: slice, number: int) -> HostBatch:
        size = self.evaluation_batch_size
        records = np.arange(number * size, (number + 1) * size)[rows]
        batch = _batch(self.held_out, np.minimum(records, self.num_evaluation - 1))
        return {**batch, "mask": (records < self.num_evaluation).astype(np.float32)}

    def _calibration_batch(self, rows: slice, number: int) -> HostBatch:
        order = _generator(self.seed, _CALIBRATE, 0).permutation(self.num_train)
        records = order[number * self.batch_size : (number + 1) * self.batch_size]
        return _batch(self.training, records[rows])


def _rows(name: str, batch_size: int, process_index: int, process_count: int) -> slice:
    """Return this process's share of a global batch."""
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index must be in [0, process_count), got {process_index} of {process_count}"
        )
    if batch_size % process_count:
        raise ValueError(f"{name} {batch_size} is not divisible by {process_count} processes")
    return slice(process_index, None, process_count)


def _batch(source: Source, records: np.ndarray) -> HostBatch:
    batch = source.take(records)
    if "label" in batch:
        batch["label"] = batch["label"].astype(np.int32)
    return {**batch, "mask": np.ones(len(records), np.float32)}


@dataclasses.dataclass(frozen=True)
class _BatchSource:
    """What Grain reads: item i is batch i."""

    make: Callable[[int], HostBatch]
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> HostBatch:
        return self.make(index)


def _read_ahead(
    make: Callable[[int], HostBatch], length: int, start: int, source: Source
) -> Generator[HostBatch, None, None]:
    if source.fits_in_memory:
        source.in_memory()  # here, where a damaged record is raised before anything else begins
    return _iterate(
        _BatchSource(make, length), start, num_threads=1 if source.fits_in_memory else 2
    )


def _iterate(
    batches: _BatchSource, start: int, num_threads: int
) -> Generator[HostBatch, None, None]:
    import grain

    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=BATCHES_AHEAD)
    iterator = iter(grain.MapDataset.source(batches).to_iter_dataset(options))
    grain.experimental.set_next_index(iterator, start)
    try:
        yield from iterator
    finally:  # also when the generator is closed or collected: ends the threads
        iterator.close()
