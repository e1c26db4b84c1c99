"""Max pooling: Flax's numbers and its gradient, for every rounding of sizes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax.models.pooling import max_pool

PADDINGS: dict[int, Any] = {2: "SAME", 3: ((1, 1), (1, 1))}


@pytest.mark.parametrize("window", PADDINGS)
@pytest.mark.parametrize("size", [(8, 6), (7, 9), (5, 4), (1, 2), (1, 1)])
def test_it_is_flaxs_with_its_gradient(size, window):
    x = jax.random.normal(jax.random.key(0), (2, *size, 3)) - 5  # all negative: no zero padding

    def flaxs(x):
        return nn.max_pool(x, (window, window), strides=(2, 2), padding=PADDINGS[window])

    def ours(x):
        return max_pool(x, window)

    np.testing.assert_array_equal(ours(x), flaxs(x))
    # No two pixels are equal, so the gradient goes where the maximum was; a pixel may be the
    # maximum of four neighbourhoods, summed in any order.
    gradients = [jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(x) for f in (ours, flaxs)]
    np.testing.assert_allclose(*gradients, rtol=1e-6, atol=1e-7)
