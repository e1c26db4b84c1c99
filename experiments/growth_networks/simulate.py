"""All networks at once: folds and seeds by one `vmap`, what is compared by another inside it.

A *group* is a fold of a seed. Its networks begin with the same weights and see the same batches,
so that differences between them are paired. Whatever is random is a function of (seed, fold,
epoch): where a run is cut, and what runs beside a network, changes none of its numbers.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.growth_networks.networks import (
    Params,
    Setting,
    initial_params,
    losses,
    sgd_step,
)

SPLITS = ("train", "validation", "test")
UNUSED = len(SPLITS)
"""In `Groups.member`: an example of no split."""
BLOCK = 500
"""Examples that are evaluated at once."""


@dataclass(frozen=True)
class Data:
    """A data set in memory: what is split into folds, and behind it what no fold contains.

    Attributes:
        images: uint8 (examples, inputs).
        labels: int32 (examples,).
        pool: how many of them, from the first on, are for training and validation.
        classes: how many there are.
    """

    images: np.ndarray
    labels: np.ndarray
    pool: int
    classes: int


class Groups(NamedTuple):
    """The folds of some seeds.

    Attributes:
        keys: (groups,), of their weights and batches.
        train: int32 (groups, examples), numbers of the training examples.
        member: int8 (groups, all examples), the split of each in `SPLITS`, or `UNUSED`.
    """

    keys: jax.Array
    train: jax.Array
    member: jax.Array


def make_groups(data: Data, seeds: Sequence[int], folds: int) -> Groups:
    """Return the folds of each seed, seed by seed, every seed with its own partition.

    Args:
        data: the examples. Those of the pool beyond a multiple of `folds` are left out.
        seeds: of the partitions, weights and batches.
        folds: parts of the pool; each is the validation set of one group.

    Raises:
        ValueError: if the pool has fewer examples than folds.
    """
    size = data.pool // folds
    if not size:
        raise ValueError(f"folds is {folds}; expected at most the {data.pool} training examples")
    keys, trains, members = [], [], []
    for seed in seeds:
        base = jax.random.key(seed)
        order = np.asarray(jax.random.permutation(jax.random.fold_in(base, 0), data.pool))
        parts = order[: size * folds].reshape(folds, size)
        for fold in range(folds):
            train = np.delete(parts, fold, axis=0).ravel()
            member = np.full(len(data.images), UNUSED, np.int8)
            member[train], member[parts[fold]] = 0, 1
            member[data.pool :] = 2
            keys.append(jax.random.fold_in(jax.random.fold_in(base, 1), fold))
            trains.append(train.astype(np.int32))
            members.append(member)
    return Groups(jnp.stack(keys), jnp.asarray(np.stack(trains)), jnp.asarray(np.stack(members)))


def start(groups: Groups, settings: Setting, sizes: tuple[int, ...]) -> Params:
    """Return the initial weights, leading axes (groups, networks)."""

    def network(key: jax.Array, scale: jax.Array) -> Params:
        return initial_params(jax.random.fold_in(key, 0), sizes, scale)

    networks = jax.vmap(network, in_axes=(None, 0))
    return jax.vmap(networks, in_axes=(0, None))(groups.keys, jnp.asarray(settings.scale))


@jax.jit
def epoch_order(groups: Groups, epoch: jax.Array | int) -> jax.Array:
    """Return the training examples of each group as they come in an epoch, (groups, examples)."""

    def one(key: jax.Array, train: jax.Array) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(key, 1 + epoch), train)

    return jax.vmap(one)(groups.keys, groups.train)


@functools.partial(jax.jit, donate_argnums=0, static_argnames="batch_size")
def advance(
    params: Params,
    settings: Setting,
    rates: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    order: jax.Array,
    first: jax.Array | int,
    last: jax.Array | int,
    iteration: jax.Array | int,
    per_step: jax.Array | int,
    *,
    batch_size: int,
) -> Params:
    """Return the weights after the batches first, ..., last - 1 of an epoch.

    Args:
        params: leading axes (groups, networks); given up.
        settings: (networks,) each.
        rates: (iterations, networks), r at each iteration.
        images: uint8 (examples, inputs), of 0 to 255.
        labels: (examples,).
        order: of `epoch_order`.
        first: number of a batch in the epoch.
        last: the same.
        iteration: of the first batch, from 0 on.
        per_step: iterations that a step is: 1, or 0 where an iteration is an epoch.
        batch_size: examples of a batch.
    """
    networks = jax.vmap(sgd_step, in_axes=(0, 0, 0, None, None))
    groups = jax.vmap(networks, in_axes=(0, None, None, 0, 0))

    def step(number: jax.Array, params: Params) -> Params:
        rows = jax.lax.dynamic_slice_in_dim(order, number * batch_size, batch_size, axis=1)
        rate = rates[iteration + per_step * (number - first)]
        return groups(params, settings, rate, _scaled(images[rows], rates.dtype), labels[rows])

    return jax.lax.fori_loop(first, last, step, params)


@jax.jit
def evaluate(
    params: Params,
    settings: Setting,
    rate: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    member: jax.Array,
) -> jax.Array:
    """Return the mean loss and the accuracy of every network on every split.

    Args:
        params: leading axes (groups, networks).
        settings: (networks,) each.
        rate: (networks,).
        images: uint8 (examples, inputs).
        labels: (examples,).
        member: of `Groups`.

    Returns:
        (splits, 2, groups, networks): loss, and share of examples of the right class. NaN for a
        split without examples.
    """
    networks = jax.vmap(losses, in_axes=(0, 0, 0, None, None))
    groups = jax.vmap(networks, in_axes=(0, None, None, None, None))
    missing = -len(images) % BLOCK
    images = jnp.pad(images, ((0, missing), (0, 0))).reshape(-1, BLOCK, images.shape[1])
    labels = jnp.pad(labels, (0, missing)).reshape(-1, BLOCK)
    member = jnp.pad(member, ((0, 0), (0, missing)), constant_values=UNUSED)
    blocks = jnp.moveaxis(member.reshape(len(member), -1, BLOCK), 1, 0)

    def block(total: jax.Array, part: tuple[jax.Array, jax.Array, jax.Array]):
        images, labels, member = part
        loss, right = groups(params, settings, rate, _scaled(images, rate.dtype), labels)
        inside = member[:, None] == jnp.arange(len(SPLITS))[:, None]
        # Not a product with 0: a loss that is not finite spoils its own split only.
        found = [
            jnp.where(inside[:, None], value[:, :, None], 0).sum(-1)
            for value in (loss, right.astype(loss.dtype))
        ]
        return total + jnp.stack(found), None

    shape = (2, len(member), len(rate), len(SPLITS))
    total, _ = jax.lax.scan(block, jnp.zeros(shape, rate.dtype), (images, labels, blocks))
    counts = (member[:, None] == jnp.arange(len(SPLITS))[:, None]).sum(-1)
    return jnp.moveaxis(total / counts[:, None], -1, 0)


def _scaled(images: jax.Array, dtype: jnp.dtype) -> jax.Array:
    return images.astype(dtype) / 255
