r"""Means of gradients of which some count more: what `clipjax.optim` and `clipjax.train` share.

.. math:: \bar g = \sum_i w_i g_i \Big/ \sum_i w_i

The sums are kept in units of the first positive weight, Σ (w_i / w) g_i and Σ w_i / w. So equal
weights, whatever they are, give exactly the plain sum and the plain count, and a large weight does
not overflow a large gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp


def relative_weight(
    weight: jax.typing.ArrayLike | None, unit: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return a weight in units of the first positive one, and that unit; None weighs 1.

    Args:
        weight: of a gradient, a number >= 0.
        unit: the first positive weight before it, a float scalar; 0 if there is none.

    Examples:
        >>> share, unit = relative_weight(24.0, jnp.float32(0))
        >>> print(share, unit, *relative_weight(12.0, unit))
        1.0 24.0 0.5 24.0
        >>> print(*relative_weight(0.0, jnp.float32(0)))
        0.0 0.0
    """
    weight = jnp.asarray(1 if weight is None else weight, unit.dtype)
    unit = jnp.where(unit == 0, weight, unit)
    return jnp.where(weight == 0, 0, weight / jnp.where(unit == 0, 1, unit)), unit


def add_weighed(total: jax.Array, value: jax.Array, share: jax.Array) -> jax.Array:
    """Return total + share * value, in the total's dtype; a share of 0 adds nothing, be it NaN.

    A share of 1 is a branch of its own, so that compilers make of it what they make of a plain sum
    (a product and a sum are rounded once or twice, as they are fused): the same bits.

    Examples:
        >>> print(add_weighed(jnp.array([2.0, 3.0]), jnp.array([1.0, jnp.nan]), jnp.float32(0)))
        [2. 3.]
    """
    value = value.astype(total.dtype)
    scaled = total + value * share.astype(total.dtype)
    return jnp.where(share == 1, total + value, jnp.where(share == 0, total, scaled))


def squared_deviation(
    gradient: Any,
    total: Any,
    before: jax.typing.ArrayLike,
    weight: jax.typing.ArrayLike = 1,
) -> jax.Array:
    r"""Return what the k-th gradient adds to D = Σ w_i ‖g_i − ḡ‖².

    .. math:: \frac{w_k W_k}{W_{k-1}} \|g_k - \bar g_k\|^2, \qquad
        W_k = w_1 + \ldots + w_k, \quad \bar g_k = \text{total} / W_k

    (West 1979; with weights of 1 it is Welford's k / (k − 1) ‖g_k − ḡ_k‖².) It is 0 for the first
    gradient and for one of weight 0. The difference Σ w_i ‖g_i‖² − W ‖ḡ‖² would cancel where the
    noise is small.

    Args:
        gradient: g_k, a tree of arrays.
        total: w_1 g_1 + ... + w_k g_k, a tree like it.
        before: W_{k-1} >= 0, a scalar.
        weight: w_k >= 0, a scalar; that of the first gradient is 1 (`relative_weight`).

    Returns:
        A scalar, float32 or wider; NaN if the gradient is not finite and has a weight.

    Examples:
        >>> g1, g2, g3 = jnp.array([1.0, 0.0]), jnp.array([3.0, 0.0]), jnp.array([5.0, 0.0])
        >>> print(squared_deviation(g2, g1 + g2, 1) + squared_deviation(g3, g1 + g2 + g3, 2))
        8.0
        >>> print(squared_deviation(g2, g1 + 3 * g2, 1, 3))  # mean 2.5: 1 · 1.5² + 3 · 0.5²
        3.0
    """
    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves((gradient, total)))
    before, weight = jnp.asarray(before, dtype), jnp.asarray(weight, dtype)
    after = before + weight
    # Multiplied, not divided: XLA on CPU would give the quotient a buffer of its own.
    inverse = 1 / jnp.where(after == 0, 1, after)

    def leaf(g: jax.Array, summed: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(g.astype(dtype) - summed.astype(dtype) * inverse))

    gap = sum(jax.tree.leaves(jax.tree.map(leaf, gradient, total)), start=jnp.zeros((), dtype))
    # For the first, the gap itself is 0 (or NaN).
    added = gap * (weight * after / jnp.where(before == 0, 1, before))
    return jnp.where(weight == 0, 0, added)
