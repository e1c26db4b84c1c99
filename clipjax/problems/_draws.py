"""Uniform numbers fit for inverting a heavy-tailed law."""

import jax
import jax.numpy as jnp


def uniforms(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Return uniforms in (0, 1], made of 32 random bits whatever the dtype.

    `jax.random.uniform` has 23 bits in float32 and may return its lower end: of 10^8 draws a
    handful would be exactly there, and a heavy tail turns them into infinities. Here the smallest
    value is 2^-33, so that a tail is followed down to probabilities of about 10^-10.
    """
    bits = jax.random.bits(key, shape, jnp.uint32)
    return (bits.astype(dtype) + 0.5) * 2.0**-32
