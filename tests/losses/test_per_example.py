"""Losses against numpy float64, and the mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax import losses


def cross_entropy(logits, labels):
    """Return log sum_j exp(logits_j) - logits_label in float64, shifted by the largest."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    chosen = np.take_along_axis(shifted, np.asarray(labels)[..., None], -1)[..., 0]
    return np.log(np.exp(shifted).sum(-1)) - chosen


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_cross_entropy_equals_float64(scale):
    """Also where exp(300) would overflow float32."""
    rng = np.random.default_rng(0)
    logits = np.float32(scale * rng.normal(size=(3, 4, 7)))
    labels = rng.integers(0, 7, size=(3, 4))
    values = losses.softmax_cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(values, cross_entropy(logits, labels), rtol=1e-5, atol=1e-5)


def test_arithmetic_is_float32_for_bfloat16_logits():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(5, 7)), jnp.bfloat16)
    labels = np.arange(5)
    values = losses.softmax_cross_entropy(logits, jnp.asarray(labels))
    assert values.dtype == jnp.float32
    # In bfloat16 the error would be 2^-9 = 2e-3.
    np.testing.assert_allclose(values, cross_entropy(logits, labels), rtol=1e-5)
    squares = losses.squared_error(logits, jnp.ones_like(logits))
    assert squares.dtype == jnp.float32
    exact = np.mean((np.asarray(logits, np.float64) - 1) ** 2, axis=1)
    np.testing.assert_allclose(squares, exact, rtol=1e-6)


def test_squared_error_is_the_mean_of_each_example():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 4, 5, 2))
    values = losses.squared_error(jnp.float32(x), jnp.float32(y))
    np.testing.assert_allclose(values, np.mean((x - y) ** 2, axis=(1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_masked_values_have_no_influence(bad):
    values, weights = jnp.array([1.0, bad, 5.0]), jnp.array([1.0, 0.0, 1.0])
    mean, gradient = jax.value_and_grad(losses.masked_mean)(values, weights)
    assert float(mean) == 3.0
    assert gradient.tolist() == [0.5, 0.0, 0.5]
    assert float(losses.masked_sum(values, weights)) == 6.0
    # ... and a mask of booleans is one of ones and zeros.
    assert float(losses.masked_mean(values, weights > 0)) == 3.0


def test_masked_mean_divides_by_the_sum_of_weights():
    """(0.25 * 2 + 0.5 * 8) / 0.75 = 6: also where the weights sum to less than one."""
    mean = losses.masked_mean(jnp.array([2.0, 8.0, 7.0]), jnp.array([0.25, 0.5, 0.0]))
    assert float(mean) == pytest.approx(6.0, rel=1e-6)


def test_masked_mean_of_nothing_is_zero():
    mean, gradient = jax.value_and_grad(losses.masked_mean)(jnp.array([1.0, 2.0]), jnp.zeros(2))
    assert float(mean) == 0.0
    assert gradient.tolist() == [0.0, 0.0]
