"""Pictures that are padded to one size, seen by a network as if they were not.

A convolution with padding "SAME" sees zeros beyond a picture's border. Where the picture is
continued at the right and below, it sees what was put there, and from the second layer on what the
layers before made of that (no zeros even of zeros, because of biases and of BatchNorm's shift). If
the input of every convolution is set to zero beyond the picture, each sees zeros there again, and
within the picture all is as without padding, to rounding.
"""

import jax
import jax.numpy as jnp


def inside(x: jax.Array, size: jax.Array) -> jax.Array:
    """Return which pixels lie in the first `size` rows and columns, bool (batch, h, w, 1).

    Args:
        x: (batch, h, w, c); its shape counts only.
        size: int (batch, 2), rows and columns.

    Examples:
        >>> inside(jnp.zeros((1, 2, 3, 1)), jnp.array([[1, 2]]))[0, :, :, 0].tolist()
        [[True, True, False], [False, False, False]]
    """
    rows = jnp.arange(x.shape[1])[:, None] < size[:, 0, None, None]
    columns = jnp.arange(x.shape[2]) < size[:, 1, None, None]
    return (rows & columns)[..., None]


def cut(x: jax.Array, size: jax.Array | None, scale: float = 1) -> jax.Array:
    """Return `x` with zeros beyond the first `scale` times `size` rows and columns, rounded up.

    Args:
        x: (batch, h, w, c).
        size: int (batch, 2), rows and columns of the network's input that are no padding; None
            where all are.
        scale: of `x` against the network's input, a power of two.

    Examples:
        >>> cut(jnp.ones((1, 2, 3, 1)), jnp.array([[1, 3]]), 0.5)[0, :, :, 0].tolist()
        [[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
        >>> cut(jnp.ones((1, 1, 2, 1)), None)[0, :, :, 0].tolist()
        [[1.0, 1.0]]
    """
    if size is None:
        return x
    scaled = size * int(scale) if scale >= 1 else -(-size // round(1 / scale))
    return jnp.where(inside(x, scaled), x, 0)


def resize_cubic(x: jax.Array, shape: tuple[int, ...], size: jax.Array | None) -> jax.Array:
    """Return pictures enlarged by bicubic interpolation (Keys 1981, a = -1/2), as if not padded.

    At borders the weights of what lies inside are scaled to the sum 1, as `jax.image.resize` does;
    beyond the picture the result is 0.

    Args:
        x: (batch, h, w, c), float.
        shape: of the result, (batch, s h, s w, c).
        size: int (batch, 2), rows and columns of `x` that are no padding; None where all are.

    Examples:
        >>> ramp = jnp.arange(3.0).reshape(1, 1, 3, 1)
        >>> padded = jnp.pad(ramp, ((0, 0), (0, 0), (0, 2), (0, 0)), constant_values=9)
        >>> found = resize_cubic(padded, (1, 2, 10, 1), jnp.array([[1, 3]]))
        >>> bool(jnp.allclose(found[:, :, :6], resize_cubic(ramp, (1, 2, 6, 1), None)))
        True
    """
    if size is None:
        return jax.image.resize(x, shape, "cubic")
    real = inside(x, size)
    total = jax.image.resize(jnp.where(real, x, 0), shape, "cubic")
    weight = jax.image.resize(real.astype(x.dtype), (*shape[:3], 1), "cubic")
    kept = inside(total, size * (shape[1] // x.shape[1]))
    return jnp.where(kept, total / jnp.where(kept, weight, 1), 0)
