"""The names and protocols that the rooms of clipjax share.

This module imports nothing of ours, and everyone may import it. The protocols say what training
needs from the outside: a `Task` (what a batch is, what is lost, what is measured) and `Data`
(where batches come from). `clipjax.train` sees tasks and data through these protocols only.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import jax
import numpy as np

Params: TypeAlias = Any
"""A tree of floating-point arrays, as in Optax."""

Schedule: TypeAlias = Callable[[jax.typing.ArrayLike], jax.Array]
"""A function from the number of the step (from 0) to a scalar, as in Optax."""

ScalarOrSchedule: TypeAlias = jax.typing.ArrayLike | Schedule

Batch: TypeAlias = Mapping[str, jax.Array]
"""Arrays whose leading axis is the example, among them `mask` (batch,), 1.0 for real examples
and 0.0 for the padding of a last, partial batch. Where pictures of several sizes are padded to one,
`size` int32 (batch, 2): rows and columns of each `image` that are no padding."""

HostBatch: TypeAlias = dict[str, np.ndarray]
"""The same on the host, before it is placed on devices."""

Statistics: TypeAlias = dict[str, jax.Array]
"""Sums over examples (numerators and counts). Sums of statistics are statistics of the union,
which makes every metric exact on partial batches, over devices and over hosts."""


class Task(Protocol):
    """What a batch is, what is lost and what is measured. Implemented in `clipjax.tasks`."""

    def inputs(self, batch: Batch) -> jax.Array:
        """Return the model's input, float32 (batch, height, width, channels)."""
        ...

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Return the scalar training loss, a mean over the batch's real examples (or pixels)."""
        ...

    def weight(self, batch: Batch) -> jax.Array:
        """Return how many things `loss` is the mean of, a float32 scalar.

        The loss of the union of several batches is the mean of their losses with these weights. A
        batch in which nothing counts has weight 0, and then a loss and a gradient of 0.
        """
        ...

    def statistics(self, outputs: jax.Array, batch: Batch) -> Statistics:
        """Return summable statistics of the batch, its masked examples left out."""
        ...

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Return named metrics (always `loss`) from summed statistics; host code, float64."""
        ...

    def samples(self, outputs: jax.Array, batch: Batch) -> dict[str, np.ndarray]:
        """Return arrays worth looking at (input, prediction, truth), leading axis the example."""
        ...


class Data(Protocol):
    """Where batches come from. Implemented in `clipjax.data`, which never imports JAX.

    With several processes each yields its own share, `examples[process_index::process_count]` of
    every global batch, so that the same records meet in the same step however many processes run.
    """

    @property
    def num_train(self) -> int:
        """Number of training examples."""
        ...

    @property
    def num_evaluation(self) -> int:
        """Number of evaluation examples."""
        ...

    @property
    def batch_size(self) -> int:
        """Examples in one global training batch (one optimizer step)."""
        ...

    def train(
        self, start: int, *, process_index: int = 0, process_count: int = 1
    ) -> Iterator[HostBatch]:
        """Yield batches number `start`, `start + 1`, ... of an infinite stream.

        Each is a pure function of the seed and its number: a checkpoint needs the step only.
        """
        ...

    def evaluation(self, *, process_index: int = 0, process_count: int = 1) -> Iterator[HostBatch]:
        """Yield each evaluation example once, the last batch padded and masked."""
        ...

    def calibration(
        self, num_batches: int, *, process_index: int = 0, process_count: int = 1
    ) -> Iterator[HostBatch]:
        """Yield up to `num_batches` full training batches for BatchNorm's statistics.

        They are not augmented, repeat no example and depend on the seed only.
        """
        ...
