"""Max pooling: Flax's numbers and its gradient, for every rounding of sizes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax.models.pooling import max_pool

PADDINGS: dict[int, Any] = {2: "SAME", 3: ((1, 1), (1, 1))}


SIZES = ((8, 6), (7, 9), (5, 4), (1, 2), (1, 1))


@pytest.mark.parametrize("window", PADDINGS)
def test_it_is_flaxs_with_its_gradient(window):
    rng = np.random.default_rng(0)
    # All negative: no zero padding.
    images = [rng.normal(size=(2, *size, 3)).astype(np.float32) - 5 for size in SIZES]

    def flaxs(x):
        return nn.max_pool(x, (window, window), strides=(2, 2), padding=PADDINGS[window])

    def ours(x):
        return max_pool(x, window)

    @jax.jit  # one program for all sizes: compiling is all that this test costs
    def values_and_gradients(images):
        return [
            [(f(x), jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(x)) for f in (ours, flaxs)]
            for x in images
        ]

    for size, (mine, theirs) in zip(SIZES, values_and_gradients(images), strict=True):
        np.testing.assert_array_equal(mine[0], theirs[0], err_msg=str(size))
        # No two pixels are equal, so the gradient goes where the maximum was; a pixel may be the
        # maximum of four neighbourhoods, summed in any order.
        np.testing.assert_allclose(mine[1], theirs[1], rtol=1e-6, atol=1e-7, err_msg=str(size))
