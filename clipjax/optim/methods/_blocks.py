"""Tensors as stacks of equal matrix blocks, and their Gram matrices as one flat array.

Shampoo keeps two small symmetric matrices for each block of each tensor. All of them lie one after
another in one array of one dimension, by size: equal sizes are decomposed together, and the state
has the same structure whatever the parameters are.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

Pair = tuple[jax.Array, jax.Array]
"""The left (blocks, r, r) and right (blocks, c, c) matrices of a tensor."""

BySize = dict[int, jax.Array]
"""All matrices (number, size, size), by their size."""


class Blocks(NamedTuple):
    """How a tensor is cut: into `down` x `across` blocks of `rows` x `columns`, padded by zeros.

    Attributes:
        shape: of the tensor.
        rows: of a block.
        columns: of a block.
        down: number of blocks above each other.
        across: number of blocks beside each other.
    """

    shape: tuple[int, ...]
    rows: int
    columns: int
    down: int
    across: int

    @property
    def count(self) -> int:
        """Number of blocks."""
        return self.down * self.across

    def split(self, tensor: jax.Array) -> jax.Array:
        """Return the blocks of a tensor, (count, rows, columns)."""
        height, width = _merged(self.shape)
        below = self.down * self.rows - height
        right = self.across * self.columns - width
        padded = jnp.pad(tensor.reshape(height, width), ((0, below), (0, right)))
        cut = padded.reshape(self.down, self.rows, self.across, self.columns)
        return cut.swapaxes(1, 2).reshape(self.count, self.rows, self.columns)

    def join(self, blocks: jax.Array) -> jax.Array:
        """Return the tensor of which these are the blocks."""
        height, width = _merged(self.shape)
        cut = blocks.reshape(self.down, self.across, self.rows, self.columns).swapaxes(1, 2)
        padded = cut.reshape(self.down * self.rows, self.across * self.columns)
        return padded[:height, :width].reshape(self.shape)


def _merged(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return rows and columns of a tensor as a matrix: all axes but the last are merged."""
    return math.prod(shape[:-1]), shape[-1]


def cut(shape: tuple[int, ...], block_size: int) -> Blocks | None:
    """Return how a tensor is cut; None for scalars, vectors and a single row or column.

    A dimension d is cut into ⌈d / block_size⌉ blocks, as equal as whole numbers allow.

    Examples:
        >>> cut((3, 3, 5, 64), 32)  # a convolution's kernel: 45 x 64
        Blocks(shape=(3, 3, 5, 64), rows=23, columns=32, down=2, across=2)
        >>> cut((7,), 32) is None
        True
    """
    if len(shape) < 2 or min(_merged(shape)) < 2:
        return None
    height, width = _merged(shape)
    down, across = -(-height // block_size), -(-width // block_size)
    return Blocks(shape, -(-height // down), -(-width // across), down, across)


def by_size(pairs: list[Pair]) -> BySize:
    """Return the matrices of all tensors, those of one size together."""
    found: dict[int, list[jax.Array]] = {}
    for pair in pairs:
        for matrices in pair:
            found.setdefault(matrices.shape[-1], []).append(matrices)
    return {size: jnp.concatenate(found[size]) for size in sorted(found)}


def by_tensor(matrices: BySize, plan: list[Blocks]) -> list[Pair]:
    """Undo `by_size`."""
    taken = dict.fromkeys(matrices, 0)

    def take(size: int, count: int) -> jax.Array:
        start = taken[size]
        taken[size] += count
        return matrices[size][start : start + count]

    return [(take(b.rows, b.count), take(b.columns, b.count)) for b in plan]


def _counts(plan: list[Blocks]) -> dict[int, int]:
    """Return how many matrices there are of each size."""
    counts: dict[int, int] = {}
    for blocks in plan:
        for size in (blocks.rows, blocks.columns):
            counts[size] = counts.get(size, 0) + blocks.count
    return dict(sorted(counts.items()))


def identities(plan: list[Blocks], scale: jax.typing.ArrayLike, dtype: jnp.dtype) -> jax.Array:
    """Return scale · I for each matrix, in one flat array."""
    return flat(
        {
            size: jnp.tile(jnp.asarray(scale, dtype) * jnp.eye(size, dtype=dtype), (count, 1, 1))
            for size, count in _counts(plan).items()
        },
        dtype,
    )


def flat(matrices: BySize, dtype: jnp.dtype) -> jax.Array:
    """Return all matrices in one array, smaller sizes first; empty if there are none."""
    return jnp.concatenate([jnp.zeros(0, dtype), *(m.reshape(-1) for m in matrices.values())])


def unflat(array: jax.Array, plan: list[Blocks]) -> BySize:
    """Undo `flat`.

    Raises:
        ValueError: if the array is that of other tensors.
    """
    counts = _counts(plan)
    expected = sum(count * size**2 for size, count in counts.items())
    if array.shape != (expected,):
        raise ValueError(
            f"Shampoo's state holds {array.size} numbers for the blocks of its parameters, but the "
            f"gradient's blocks have {expected}. Give update a gradient with the shapes of the "
            "parameters given to init."
        )
    matrices, start = {}, 0
    for size, count in counts.items():
        stop = start + count * size**2
        matrices[size] = array[start:stop].reshape(count, size, size)
        start = stop
    return matrices
