"""Batches from prepared data: a pure function of the seed and the number of the batch.

Training is one infinite stream of records. Record number p = step * batch_size + j of the stream
belongs to epoch p // n (n records) and is `permutation(seed, epoch)[p % n]`: every record once
an epoch, also where a batch straddles two epochs. Augmentation draws one array of uniform
numbers for the whole global batch, from (seed, step). A process of several takes the rows
`[process_index::process_count]` of all this, so what is learnt from in step k depends neither
on the number of processes nor on where training was resumed: the step is the position.

Grain carries the batches (`clipjax.data.ahead`): its source is the function above, item i is batch
i, and it makes a few batches ahead.

Where pictures differ in size, `Views` say what is cut out of each; evaluation may take them whole:
examples whose sizes round up to the same multiples are batched together, padded to these.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Generator
from typing import Any

import numpy as np

from clipjax.data.ahead import BatchSource, iterate
from clipjax.data.augment import Augment, HostBatch, check_pixels
from clipjax.data.records import Source, UnreadableRecord
from clipjax.data.views import Record, View, pad_to

ENDLESS = 2**62
"""The length of the training stream, in batches; larger than any run."""

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
class Views:
    """What batches take of pictures that differ in size."""

    train: View
    """Of training pictures, with random numbers."""
    calibrate: View
    """Of the training pictures that BatchNorm's statistics are recomputed from; no numbers."""
    evaluate: View | int
    """Of evaluation pictures, no numbers; or a number that sides of whole ones are padded to a
    multiple of: the fewer such sizes, the fewer compilations, the more pixels for nothing."""

    def __post_init__(self) -> None:
        for name in ("train", "calibrate", "evaluate"):
            view = getattr(self, name)
            sides = name == "evaluate" and isinstance(view, int | np.integer)
            if not (sides or isinstance(view, View)):
                raise TypeError(f"{name} is {view!r}; expected a View such as center_crop(224)")
        for name in ("calibrate", "evaluate"):
            view = getattr(self, name)
            if isinstance(view, View) and view.num_draws:
                raise ValueError(f"the view to {name} must not be random")
        if not isinstance(self.evaluate, View):
            check_pixels("evaluate", self.evaluate)
            if self.evaluate < 1:
                raise ValueError(
                    f"evaluate is {self.evaluate}: sides are padded to its multiples, at least 1"
                )


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Training, evaluation and calibration batches; `clipjax.typing.Data` without JAX.

    Every batch is a dict of arrays whose leading axis is the example: `image` uint8, `label`
    int32, `target` uint8 (what the data set has of these) and `mask` float32, 1 for real
    examples and 0 for padding. Evaluation batches of whole pictures, and of those with targets,
    have `size` int32 (batch, 2): the height and width of each image before padding.

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
    views: Views | None = None
    """Needed where pictures differ in size."""
    # How batches are made ahead: neither changes them
    threads: int = 2
    workers: int = 0
    """Processes that make the training batches of splits that are not kept in memory; with none,
    threads do, as for evaluation: decoding leaves Python's lock, so threads go a long way, and
    processes take seconds to start."""

    def __post_init__(self) -> None:
        if self.threads < 1 or self.workers < 0:
            raise ValueError(
                f"threads is {self.threads}, workers {self.workers}; expected at least 1 and 0"
            )
        for source in (self.training, self.held_out):
            if self.views is None and None in source.image_shape:
                raise ValueError(
                    f"pictures of {source.name!r} differ in size: say by views what is cut out"
                )
        for field, source in (
            ("batch_size", self.training),
            ("evaluation_batch_size", self.held_out),
        ):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
            _check_fits(field, getattr(self, field), source)
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
        make = functools.partial(_made, "batch_size", self.batch_size, self._training_batch, rows)
        return self._read_ahead(make, ENDLESS, start, self.training, self.workers)

    def evaluation(
        self, *, process_index: int = 0, process_count: int = 1
    ) -> Generator[HostBatch, None, None]:
        """Yield each evaluation example once, the last batch padded and masked.

        In order; whole pictures by their padded size first, and the last batch of each size is
        padded. Every process yields equally many batches of equal shape. Arguments and errors as
        in `train`, with `evaluation_batch_size`.
        """
        size = self.evaluation_batch_size
        rows = _rows("evaluation_batch_size", size, process_index, process_count)
        batches = self._evaluation_batches
        make = functools.partial(
            _made, "evaluation_batch_size", size, self._evaluation_batch, rows, batches
        )
        return self._read_ahead(make, len(batches), 0, self.held_out)

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
        make = functools.partial(
            _made, "batch_size", self.batch_size, self._calibration_batch, rows
        )
        length = min(num_batches, self.num_train // self.batch_size)
        return self._read_ahead(make, length, 0, self.training)

    def _training_batch(self, rows: slice, step: int) -> HostBatch:
        records = stream(self.seed, step * self.batch_size, self.batch_size, self.num_train)
        view = self.views.train if self.views else None
        cut, moved = (0 if part is None else part.num_draws for part in (view, self.augment))
        uniforms = np.empty((self.batch_size, 0))
        if cut + moved:
            generator = _generator(self.seed, _AUGMENT, step)
            uniforms = generator.random((self.batch_size, cut + moved))
        uniforms = uniforms[rows]
        batch = _batch(self.training, records[rows], view, uniforms[:, :cut])
        return _finished(self.augment(batch, uniforms[:, cut:]) if self.augment else batch)

    @functools.cached_property
    def _evaluation_batches(self) -> list[tuple[np.ndarray, tuple[int, int] | None]]:
        """The records of each batch, and the size of their pictures where they are padded."""
        whole = self.views.evaluate if self.views else None
        every, size = np.arange(self.num_evaluation), self.evaluation_batch_size
        groups: list[tuple[np.ndarray, tuple[int, int] | None]] = [(every, None)]
        if isinstance(whole, int):
            padded = -(-self.held_out.sizes // whole) * whole
            shapes, group = np.unique(padded, axis=0, return_inverse=True)
            groups = [
                (every[group.reshape(-1) == i], (int(height), int(width)))
                for i, (height, width) in enumerate(shapes)
            ]
        return [
            (records[first : first + size], shape)
            for records, shape in groups
            for first in range(0, len(records), size)
        ]

    def _evaluation_batch(
        self,
        rows: slice,
        batches: list[tuple[np.ndarray, tuple[int, int] | None]],
        number: int,
    ) -> HostBatch:
        records, shape = batches[number]
        places = np.arange(self.evaluation_batch_size)[rows]
        chosen = records[np.minimum(places, len(records) - 1)]
        mask = (places < len(records)).astype(np.float32)
        view: View | None = None
        if shape is not None:
            view = View(0, functools.partial(_padded, shape))
        elif self.views and isinstance(self.views.evaluate, View):
            view = self.views.evaluate
        batch = _batch(self.held_out, chosen, view, np.empty((len(chosen), 0)))
        if "target" in batch and "size" not in batch:
            height_width = np.array(batch["image"].shape[1:3], np.int32)
            batch["size"] = np.tile(height_width, (len(chosen), 1))
        return _finished({**batch, "mask": mask})

    def _calibration_batch(self, rows: slice, number: int) -> HostBatch:
        order = _generator(self.seed, _CALIBRATE, 0).permutation(self.num_train)
        records = order[number * self.batch_size : (number + 1) * self.batch_size][rows]
        view = self.views.calibrate if self.views else None
        return _finished(_batch(self.training, records, view, np.empty((len(records), 0))))

    def _read_ahead(
        self,
        make: Callable[[int], HostBatch],
        length: int,
        start: int,
        source: Source,
        workers: int = 0,
    ) -> Generator[HostBatch, None, None]:
        if source.fits_in_memory:
            source.in_memory()  # a damaged record is raised here, before anything else begins
            return iterate(BatchSource(make, length), start, num_threads=1, workers=0)
        return iterate(BatchSource(make, length), start, self.threads, workers)


def _check_fits(field: str, size: int, source: Source) -> None:
    """Refuse a batch whose decoded pictures alone are larger than the machine's memory."""
    shapes = source.picture_shapes.values()
    needed = size * sum(math.prod(n or 1 for n in shape) for shape in shapes)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise ValueError(
            f"{field} is {size:,}: pictures of such a batch take {needed / 2**30:,.1f} GiB or more,"
            f" this machine has {memory / 2**30:,.1f} GiB of memory; choose a smaller one "
            f"(--{field.replace('_', '-')})"
        )


def _made(field: str, size: int, make: Callable[..., HostBatch], *arguments: Any) -> HostBatch:
    """Make a batch; where memory is short, say which number is too large."""
    try:
        return make(*arguments)
    except MemoryError as error:
        raise MemoryError(
            f"a batch of {size:,} examples does not fit into memory ({error}); choose a smaller "
            f"{field} (--{field.replace('_', '-')}) or a smaller crop"
        ) from error


def _padded(shape: tuple[int, int], record: Record, uniforms: np.ndarray) -> Record:
    del uniforms
    return pad_to(record, *shape)


def _rows(name: str, batch_size: int, process_index: int, process_count: int) -> slice:
    """Return this process's share of a global batch."""
    if not 0 <= process_index < process_count:
        raise ValueError(
            f"process_index must be in [0, process_count), got {process_index} of {process_count}"
        )
    if batch_size % process_count:
        raise ValueError(f"{name} {batch_size} is not divisible by {process_count} processes")
    return slice(process_index, None, process_count)


def _batch(
    source: Source, records: np.ndarray, view: View | None, uniforms: np.ndarray
) -> HostBatch:
    if view is None:
        batch = source.take(records)
    else:
        cut = [_cut(source, int(i), view, u) for i, u in zip(records, uniforms, strict=True)]
        batch = {key: np.stack([record[key] for record in cut]) for key in cut[0]}
    return {**batch, "mask": np.ones(len(records), np.float32)}


def _finished(batch: HostBatch) -> HostBatch:
    """Return the batch with labels as int32; until then, masks are moved as the bytes they are."""
    if "label" not in batch:
        return batch
    return {**batch, "label": batch["label"].astype(np.int32)}


def _cut(source: Source, index: int, view: View, uniforms: np.ndarray) -> Record:
    record = source[index]
    try:
        return view(record, uniforms)
    except ValueError as error:
        raise UnreadableRecord(
            f"{source.describe(index)}: {error}. Choose a smaller crop, or leave the picture out "
            "when the data set is prepared"
        ) from error
