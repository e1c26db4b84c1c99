"""Norms of the tensors of a gradient, where each tensor is clipped by itself."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from clipjax.optim.clipping.norms import ScaledNorm


def stack_norms(norms: list[ScaledNorm], dtype: Any) -> jax.Array:
    """Return the norms of the tensors as an array (tensors,)."""
    return jnp.array([norm.norm().astype(dtype) for norm in norms], dtype).reshape(-1)


@partial(jax.jit, inline=True)
def most_shortened(norms: jax.Array, levels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return norm and level of the tensor with the largest norm / level; NaN is larger than all."""
    if not norms.size:
        return jnp.zeros((), norms.dtype), jnp.full((), jnp.inf, levels.dtype)
    positive = levels > 0
    ratio = norms / jnp.where(positive & jnp.isfinite(levels), levels, 1)
    ratio = jnp.where(positive | (norms == 0), ratio, jnp.inf)
    ratio = jnp.where(jnp.isfinite(levels), ratio, 0)
    ratio = jnp.where(jnp.isnan(norms), jnp.nan, ratio)  # whatever its level
    worst = jnp.argmax(ratio)
    return norms[worst], levels[worst]


def check_tensors(name: str, given: int, expected: int) -> None:
    if given != expected:
        raise ValueError(
            f"{name} keeps a history of each of {expected} tensors, but the gradient has {given}. "
            "Give update a gradient with the structure of the parameters given to init."
        )
