"""Convolution and pooling written out in numpy float64, and sizes of trees."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def shapes(model, image_shape, *, train=False):
    """Return the output's shape and dtype and the variables', without computing anything."""
    return jax.eval_shape(
        lambda key: model.init_with_output(
            {"params": key, "dropout": key}, jnp.zeros(image_shape), train=train
        ),
        jax.random.key(0),
    )


def num_params(model, image_shape):
    """Return the number of parameters."""
    _, variables = shapes(model, image_shape)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


def convolve(x, kernel, stride, padding):
    """Return out[m, n] = sum_{i,j} x[stride m + i - padding, stride n + j - padding] kernel[i, j].

    Outside the image x is zero; floor((size + 2 padding - k) / stride) + 1 rows and columns, as
    in torch.nn.Conv2d.

    Args:
        x: (h, w, c).
        kernel: (k, k, c, features).
        stride: of both axes.
        padding: zeros before and after each axis.
    """
    size = kernel.shape[0]
    x = np.pad(np.asarray(x, np.float64), ((padding, padding), (padding, padding), (0, 0)))
    rows, columns = ((n - size) // stride + 1 for n in x.shape[:2])
    out = np.empty((rows, columns, kernel.shape[3]))
    for m in range(rows):
        for n in range(columns):
            window = x[stride * m : stride * m + size, stride * n : stride * n + size]
            out[m, n] = np.tensordot(window, np.asarray(kernel, np.float64), 3)
    return out


def pool(x, size, stride, padding):
    """Return the maximum of each window, outside the image -inf, as in torch.nn.MaxPool2d."""
    pads = ((padding, padding), (padding, padding), (0, 0))
    x = np.pad(np.asarray(x, np.float64), pads, constant_values=-np.inf)
    rows, columns = ((n - size) // stride + 1 for n in x.shape[:2])
    windows = [
        [x[stride * m : stride * m + size, stride * n : stride * n + size] for n in range(columns)]
        for m in range(rows)
    ]
    return np.array([[window.max(axis=(0, 1)) for window in row] for row in windows])


def randomized(variables, seed=0):
    """Return the variables with all leaves drawn anew: nothing is hidden by a zero or a one."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        values = rng.normal(size=leaf.shape)
        if path[-1].key in ("var", "scale"):
            values = 0.5 + np.abs(values)
        elif leaf.ndim == 4:
            values /= np.sqrt(math.prod(leaf.shape[:3]))
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, variables)


def batch_norm(x, params, stats):
    """Return (x - mean) / sqrt(var + 1e-5) * scale + bias."""
    params, stats = ({k: np.asarray(v, np.float64) for k, v in t.items()} for t in (params, stats))
    normal = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    return normal * params["scale"] + params["bias"]
