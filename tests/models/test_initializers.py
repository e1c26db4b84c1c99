"""Initial values: the claimed variances, fans and numbers."""

import jax
import numpy as np
import pytest

from clipjax.models import initializers

SHAPE = (3, 3, 16, 64)  # fan_in 144, fan_out 576


@pytest.mark.parametrize(
    ("draw", "std"),
    [
        (initializers.he_normal_fan_out, np.sqrt(2 / 576)),
        (initializers.he_normal_fan_in, np.sqrt(2 / 144)),
        (initializers.uniform_fan_in, 1 / np.sqrt(3 * 144)),  # U(-b, b) has b / sqrt(3)
    ],
)
def test_spread(draw, std):
    values = np.asarray(draw(jax.random.key(0), SHAPE), np.float64)
    assert values.shape == SHAPE
    # 9,216 draws: relative errors of 0.7 % (normal) for the spread, 1 % of it for the mean.
    assert values.std() == pytest.approx(std, rel=0.035)
    assert abs(values.mean()) < 0.05 * std


def test_the_flat_draw_is_that_of_jax():
    key = jax.random.key(3)
    expected = np.sqrt(2 / 576) * jax.random.normal(key, SHAPE)
    np.testing.assert_allclose(initializers.he_normal_fan_out(key, SHAPE), expected, rtol=1e-6)


def test_uniform_stays_within_its_bound():
    values = np.abs(np.asarray(initializers.uniform_fan_in(jax.random.key(0), (50, 100))))
    assert 0.99 / np.sqrt(50) < values.max() <= 1 / np.sqrt(50)


def test_bilinear_weights_sum_to_one_at_every_output():
    """An output pixel meets the taps r and r + s of each axis: a partition of unity."""
    stride = 4
    kernel = np.asarray(initializers.bilinear(jax.random.key(0), (8, 8, 2, 2)))
    taps = kernel[:, :, 0, 0].reshape(2, stride, 2, stride).sum((0, 2))
    np.testing.assert_allclose(taps, 1.0, rtol=1e-6)
    assert not kernel[:, :, 0, 1].any()
    assert not kernel[:, :, 1, 0].any()
