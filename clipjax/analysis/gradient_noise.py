"""Norms of the gradient noise of a loss, exactly: every example's gradient is formed.

    |∇f_i(x) - ∇f(x)|,   f = 1/m Σ_i f_i

Examples are taken in chunks, so that no more than `chunk` gradients exist at once. ∇f is the mean
over all m examples (not m - 1) and is summed in float64 on the host.

A loss is compiled at its first use and kept. One that changes between calls, such as a network's
with its running statistics, is given as `jax.tree_util.Partial(function, *arrays)`: the same
function with other arrays is not compiled again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from clipjax.optim._checks import (
    LARGEST_COUNT,
    check_callable,
    check_count,
    check_floating,
    check_like,
    common_length,
    naming,
)

Loss = Callable[[Any, Any], jax.Array]
"""(parameters, one example) -> its loss, a scalar."""


class GradientNoise(NamedTuple):
    """What `gradient_noise` measured.

    Attributes:
        norms: |∇f_i - ∇f|, (m,).
        gradient_norms: |∇f_i|, (m,).
        mean: ∇f, a tree like the parameters, float64.
        mean_norm: |∇f|.
    """

    norms: np.ndarray
    gradient_norms: np.ndarray
    mean: Any
    mean_norm: float


def gradient_noise(loss: Loss, params: Any, examples: Any, *, chunk: int = 32) -> GradientNoise:
    """Return the norm of every example's gradient noise at a point.

    Cost: two gradients per example, `chunk` times the parameters in memory.

    Args:
        loss: (parameters, one example) -> scalar; traceable.
        params: the point.
        examples: a tree of arrays whose leading axis is the example.
        chunk: gradients formed at once, at least 1.

    Raises:
        ValueError: for a chunk below 1, no examples, or leading axes that differ.

    Examples:
        >>> loss, data = lambda x, a: 0.5 * (x - a) ** 2, np.array([1.0, 3.0])
        >>> found = gradient_noise(loss, jnp.array(0.0), data)
        >>> found.norms.tolist(), found.gradient_norms.tolist(), found.mean_norm
        ([1.0, 1.0], [1.0, 3.0], 2.0)
    """
    _check_chunk(chunk)
    count = common_length("examples", examples, 1)
    chunk = min(chunk, count)  # the rest of a larger one would be computed for nothing
    mean = mean_gradient(loss, params, examples, chunk=chunk)
    loss = _partial(loss)
    like = jax.tree.map(lambda m, p: jnp.asarray(m, jnp.asarray(p).dtype), mean, params)
    found = []
    for first in range(0, count, chunk):
        part, kept = _part(examples, first, chunk, count)
        found.append([np.asarray(values)[:kept] for values in _norms(loss, params, like, part)])
    noise, whole = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return GradientNoise(noise, whole, mean, _norm(mean))


def mean_gradient(loss: Loss, params: Any, examples: Any, *, chunk: int = 32) -> Any:
    """Return ∇f, the mean of all examples' gradients, a tree like `params`, float64 on the host.

    Args: as `gradient_noise`.

    Examples:
        >>> data = np.array([1.0, 2.0, 6.0])
        >>> float(mean_gradient(lambda x, a: x * a, jnp.array(0.0), data, chunk=2))
        3.0
    """
    _check_chunk(chunk)
    count, loss = common_length("examples", examples, 1), _partial(loss)
    chunk = min(chunk, count)
    check_floating(params)
    sums = jax.tree.map(lambda p: np.zeros(np.shape(p)), params)
    for first in range(0, count, chunk):
        part, kept = _part(examples, first, chunk, count)
        with naming("loss", "params", "examples"):
            found = _total(loss, params, part, kept)
        sums = jax.tree.map(lambda s, g: s + np.asarray(g, float), sums, found)
    return jax.tree.map(lambda s: s / count, sums)


def minibatch_noise(
    loss: Loss,
    params: Any,
    examples: Any,
    mean: Any,
    *,
    batch_size: int,
    num_batches: int,
    seed: int = 0,
) -> np.ndarray:
    """Return the noise norms of minibatch gradients, |1/b Σ_{i in B} ∇f_i - ∇f|, (num_batches,).

    Batches are drawn with replacement, examples of one batch too, so that they are independent.

    Args:
        loss: (parameters, one example) -> scalar; traceable.
        params: the point.
        examples: a tree of arrays whose leading axis is the example.
        mean: ∇f, from `gradient_noise` or `mean_gradient`.
        batch_size: b.
        num_batches: how many.
        seed: of the draws.

    Raises:
        ValueError: for a batch size or number of batches below 1.

    Examples:
        >>> found = minibatch_noise(lambda x, a: x * a, jnp.array(0.0), np.array([1.0, 3.0]),
        ...                         np.array(2.0), batch_size=1, num_batches=3)
        >>> found.tolist()
        [1.0, 1.0, 1.0]
    """
    for name, value in (("batch_size", batch_size), ("num_batches", num_batches)):
        check_count(name, value, minimum=-LARGEST_COUNT)
    check_count("seed", seed, maximum=2**63)
    check_floating(params)
    check_floating(mean, "mean")
    if batch_size < 1 or num_batches < 1:
        raise ValueError(
            f"batch_size {batch_size}, num_batches {num_batches}; both must be at least 1"
        )
    check_like("mean", mean, "params", params)
    count, loss = common_length("examples", examples, 1), _partial(loss)
    like = jax.tree.map(lambda m, p: jnp.asarray(m, jnp.asarray(p).dtype), mean, params)
    picks = np.random.default_rng(seed).integers(0, count, (num_batches, batch_size))
    with naming("loss", "params", "examples"):
        norms = [_norm_of(loss, params, like, _take(examples, pick)) for pick in picks]
    return np.array([float(norm) for norm in norms])


# A loss is an argument whose function is static, so these compile once for each function.


@jax.jit
def _norms(loss: Loss, params: Any, mean: Any, part: Any) -> tuple[jax.Array, jax.Array]:
    def one(example: Any) -> tuple[jax.Array, jax.Array]:
        gradient = jax.grad(loss)(params, example)
        noise = jax.tree.map(jnp.subtract, gradient, mean)
        return optax.tree.norm(noise), optax.tree.norm(gradient)

    return jax.vmap(one)(part)


@jax.jit
def _total(loss: Loss, params: Any, part: Any, kept: jax.Array) -> Any:
    def masked(params: Any) -> jax.Array:
        losses = jax.vmap(loss, (None, 0))(params, part)
        return jnp.sum(jnp.where(jnp.arange(len(losses)) < kept, losses, 0))

    return jax.grad(masked)(params)


@jax.jit
def _norm_of(loss: Loss, params: Any, mean: Any, batch: Any) -> jax.Array:
    def whole(params: Any) -> jax.Array:
        return jnp.mean(jax.vmap(loss, (None, 0))(params, batch))

    return optax.tree.norm(jax.tree.map(jnp.subtract, jax.grad(whole)(params), mean))


def _check_chunk(chunk: int) -> None:
    check_count("chunk", chunk, minimum=-LARGEST_COUNT)
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it must be at least 1")


def _partial(loss: Loss) -> Loss:
    check_callable("loss", loss)
    return loss if isinstance(loss, Partial) else Partial(loss)


def _part(examples: Any, first: int, chunk: int, count: int) -> tuple[Any, int]:
    """Return a full chunk, its end filled with the last example, and how many are real."""
    pick = np.minimum(np.arange(first, first + chunk), count - 1)
    return _take(examples, pick), min(chunk, count - first)


def _take(examples: Any, pick: np.ndarray) -> Any:
    return jax.tree.map(lambda array: np.asarray(array)[pick], examples)


def _norm(tree: Any) -> float:
    return float(np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(tree))))
