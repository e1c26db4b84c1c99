"""The multilayer perceptron: against numpy, its size, no batch statistics."""

import jax
import jax.numpy as jnp
import numpy as np

from clipjax.models import MLP
from tests.models.reference import num_params, randomized, shapes


def test_equals_numpy():
    model = MLP(num_outputs=3, hidden=(5, 4))
    x = np.random.default_rng(0).normal(size=(6, 2, 3, 1))
    variables = randomized(shapes(model, x.shape)[1])
    y = x.reshape(6, -1)
    for number in range(3):
        layer = variables["params"][f"Dense_{number}"]
        y = y @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        y = np.maximum(y, 0) if number < 2 else y
    for train in (False, True):
        outputs = model.apply(variables, jnp.float32(x), train=train)
        np.testing.assert_allclose(outputs, y, rtol=1e-4, atol=1e-5)


def test_size_and_collections():
    # 64*64 + 64 = 4,160 and 64*10 + 10 = 650.
    assert num_params(MLP(10), (1, 8, 8, 1)) == 4_810
    assert set(shapes(MLP(10), (1, 8, 8, 1))[1]) == {"params"}


def test_bfloat16_keeps_parameters_and_outputs_float32():
    outputs, variables = shapes(MLP(10, dtype=jnp.bfloat16), (1, 8, 8, 1))
    assert outputs.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
