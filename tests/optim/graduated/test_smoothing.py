"""Monte-Carlo smoothing: laws of the noise, closed forms, unbiasedness, shapes, refusals."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from clipjax.optim.graduated import smoothing
from clipjax.optim.graduated.smoothing import draw_noise, smoothed_value_and_grad

D = 5
LIKE = {"a": jnp.zeros((2, 2)), "b": jnp.zeros(1)}
KEY = jax.random.key(0)


def replicate(fn, count):
    """fn of `count` keys, stacked. A loop: it compiles in half the time of `jax.vmap`."""
    return jax.jit(lambda keys: jax.lax.map(fn, keys))(jax.random.split(KEY, count))


def draws(law, count=20_000, df=3.0):
    keys = jax.random.split(jax.random.key(1), count)
    tree = jax.jit(jax.vmap(lambda key: draw_noise(key, LIKE, law, df=df)))(keys)
    return np.concatenate([tree["a"].reshape(count, -1), tree["b"]], axis=1)


# Marginal law of a coordinate on the sphere of R^5: (1 + u)/2 ~ Beta(2, 2). For the ball the
# coordinate is that of the sphere of R^7 (drop two): Beta(3, 3).
MARGINALS = {
    "ball": scipy.stats.beta(3, 3, loc=-1, scale=2),
    "sphere": scipy.stats.beta(2, 2, loc=-1, scale=2),
    "gaussian": scipy.stats.norm(),
    "student_t": scipy.stats.t(3),
}


@pytest.mark.parametrize("law", MARGINALS)
def test_every_coordinate_follows_its_marginal_law(law):
    u = draws(law)
    # Kolmogorov-Smirnov distance of 20,000 draws exceeds 1.95 / √20,000 = 0.0138 with p = 0.1 %.
    for i in range(D):
        assert scipy.stats.kstest(u[:, i], MARGINALS[law].cdf).statistic < 0.0138


@pytest.mark.parametrize("law", ["ball", "sphere", "gaussian"])
def test_radius_is_that_of_the_whole_tree_and_directions_have_no_preference(law):
    u = draws(law)
    radius = np.linalg.norm(u, axis=1)
    if law == "sphere":
        np.testing.assert_allclose(radius, 1, rtol=1e-5)
    else:
        known = scipy.stats.powerlaw(D) if law == "ball" else scipy.stats.chi(D)
        assert scipy.stats.kstest(radius, known.cdf).statistic < 0.0138
    # The covariance of unit directions is I/d; 5 standard errors of a product with variance < 1/d².
    v = u / radius[:, None]
    np.testing.assert_allclose(v.T @ v / len(v), np.eye(D) / D, atol=5 / D / np.sqrt(len(v)))


def test_one_coordinate_drawn_as_zero_is_no_nan(monkeypatch):
    monkeypatch.setattr(jax.random, "normal", lambda key, shape, dtype: jnp.zeros(shape, dtype))
    assert draw_noise(KEY, jnp.zeros(1), "ball") == 0


def matrix(seed=0):
    a = np.random.default_rng(seed).normal(size=(D, D))
    return jnp.asarray(a @ a.T, jnp.float32)


A = matrix()
X = jnp.array([0.5, -1.0, 2.0, 0.0, 1.5])


def quadratic(x):
    return 0.5 * x @ A @ x + jnp.sum(x)


# E f(x - δu) = f(x) + δ²/2 tr(A) E u_i²;  E u_i² = 1/(d+2), 1/d, 1, df/(df-2) = 3/2 for df = 6.
SECOND_MOMENTS = {"ball": 1 / (D + 2), "sphere": 1 / D, "gaussian": 1.0, "student_t": 1.5}


@pytest.mark.parametrize(
    ("law", "antithetic"), [(law, law in ("ball", "student_t")) for law in SECOND_MOMENTS]
)
def test_smoothed_quadratic_has_its_closed_form(law, antithetic):
    delta, replicas = 0.7, 400

    def estimate(key):
        options = {"distribution": law, "df": 6.0, "antithetic": antithetic}
        return smoothed_value_and_grad(quadratic, delta, 20, key, **options)(X)

    values, gradients = replicate(estimate, replicas)
    expected = quadratic(X) + 0.5 * delta**2 * jnp.trace(A) * SECOND_MOMENTS[law]
    assert_unbiased(values, expected)
    if antithetic:  # A(x - δu) and A(x + δu) average to Ax exactly
        np.testing.assert_allclose(gradients - jax.grad(quadratic)(X), 0, atol=1e-4)
    else:
        assert_unbiased(gradients, jax.grad(quadratic)(X))


def assert_unbiased(sample, expected):
    """The mean is within 4.5 of its standard errors (p = 7e-6 each, a dozen numbers)."""
    sample = np.asarray(sample, np.float64)
    error = sample.std(0, ddof=1) / np.sqrt(len(sample))
    assert (error > 0).all()
    assert (np.abs(sample.mean(0) - np.asarray(expected)) < 4.5 * error).all()


@pytest.mark.parametrize(
    ("law", "antithetic"),
    [("ball", True), ("ball", False), ("gaussian", False), ("student_t", True), ("cauchy", True)],
)
def test_zeroth_order_gradient_is_unbiased(law, antithetic):
    """On a function that is bounded (Cauchy noise has an average) and neither odd nor even."""

    def bump(x):
        return jnp.cos(x[0] + 0.3) * jnp.exp(-0.1 * x[1] ** 2)

    x, delta = jnp.array([0.4, 0.7]), 0.8

    def estimate(key, samples, estimator):
        options = {"distribution": law, "antithetic": antithetic, "estimator": estimator}
        return smoothed_value_and_grad(bump, delta, samples, key, **options)(x)

    def both(key):  # the reference is the first-order estimate, ten times as many points
        return estimate(key, 40, "zeroth_order"), estimate(key, 400, "first_order")

    (values, gradients), (found, exact) = replicate(both, 300)
    spread = np.hypot(*(np.std(a, 0, ddof=1) / np.sqrt(300) for a in (gradients, exact)))
    assert (np.abs(gradients.mean(0) - exact.mean(0)) < 4.5 * spread).all()
    spread = np.hypot(*(np.std(a, ddof=1) / np.sqrt(300) for a in (values, found)))
    assert abs(values.mean() - found.mean()) < 4.5 * spread


def test_zeroth_order_sees_a_step_function():
    """f = [x > 0]: f̂_δ(x) = P(u < x/δ) = (1 + x/δ)/2 in the ball of R, with slope 1/(2δ)."""

    def step(x):
        return jnp.sum(x > 0)

    estimate = smoothed_value_and_grad(step, 0.5, 4000, KEY, estimator="zeroth_order")
    value, gradient = estimate(jnp.array([0.2]))
    assert float(value) == pytest.approx(0.7, abs=0.03)  # 4.5 √(.7 .3 / 4000)
    np.testing.assert_allclose(gradient, 1.0, rtol=1e-5)  # d/δ (f(x+δ) - f(x-δ))/2, no noise
    with pytest.raises(TypeError, match="real-valued"):
        smoothed_value_and_grad(step, 0.5, 2, KEY)(jnp.array([0.2]))


def test_antithetic_pairs_remove_the_variance_of_linear_functions_and_lower_it_elsewhere():
    def linear(x):
        return 3 * x[0] - x[1] + 2

    def tilted(x):
        return jnp.exp(x[0]) + x[1]

    x = jnp.array([0.25, 0.5])

    def values(fn, antithetic):
        options = {"antithetic": antithetic}
        return replicate(
            lambda key: smoothed_value_and_grad(fn, 0.5, 10, key, **options)(x)[0], 200
        )

    assert np.ptp(values(linear, True)) < 1e-6 < np.ptp(values(linear, False))
    assert np.var(values(tilted, True)) < 0.05 * np.var(values(tilted, False))


@pytest.mark.parametrize("estimator", smoothing.ESTIMATORS)
@pytest.mark.parametrize("batch_size", [1, 8, 100])
def test_batches_change_nothing_but_rounding(batch_size, estimator):
    def estimate(batch):
        options = {"batch_size": batch, "estimator": estimator}
        return jax.jit(smoothed_value_and_grad(quadratic, 0.3, 12, KEY, **options))(X)

    chex.assert_trees_all_close(estimate(batch_size), estimate(None), rtol=1e-5, atol=1e-5)


def test_trees_dtypes_arguments_and_tracing():
    def fn(x, scale, *, shift=0.0):
        return scale * sum(jnp.sum(leaf.astype(jnp.float32) ** 2) for leaf in x.values()) + shift

    x = {"w": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.zeros(())}

    def estimate(x, delta, key):
        return smoothed_value_and_grad(fn, delta, 8, key)(x, 2.0, shift=1.0)

    value, gradient = jax.jit(estimate)(x, 0.1, KEY)
    chex.assert_trees_all_equal_shapes_and_dtypes(gradient, x)
    assert value.dtype == jnp.float32
    assert 12 < float(value) - 1 < 12.2  # 2 (6 + δ² 7/9) = 12.016, up to bfloat16
    other, _ = jax.jit(estimate)(x, 0.1, jax.random.fold_in(KEY, 1))
    assert float(other) != float(value)
    with jax.enable_x64(True):
        value, gradient = smoothed_value_and_grad(jnp.sum, 0.1, 2, KEY)(jnp.ones(2, jnp.float64))
        assert value.dtype == gradient.dtype == jnp.float64


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"delta": 0.0}, "delta must be positive, got 0.0"),
        ({"delta": -1.0}, "delta must be positive"),
        ({"delta": np.inf}, "delta must be finite"),
        ({"delta": np.nan}, "delta must be positive, got nan"),
        ({"num_samples": 0, "antithetic": False}, "num_samples must be a whole number >= 1, got 0"),
        ({"num_samples": 2.5}, "num_samples must be a whole number"),
        ({"num_samples": 5}, "num_samples must be even, got 5.*Use 6"),
        ({"distribution": "gausian"}, "Did you mean 'gaussian'"),
        ({"estimator": "zero_order"}, "Did you mean 'zeroth_order'"),
        ({"distribution": "sphere", "estimator": "zeroth_order"}, "no density"),
        ({"distribution": "student_t", "df": 0.0}, "df must be positive"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1"),
    ],
)
def test_bad_input_is_named(change, words):
    arguments = {"fn": quadratic, "delta": 0.1, "num_samples": 4, "key": KEY} | change
    with pytest.raises(ValueError, match=words):
        smoothed_value_and_grad(**arguments)


def test_bad_points_and_values_are_named():
    with pytest.raises(ValueError, match="real floating-point"):
        smoothed_value_and_grad(quadratic, 0.1, 4, KEY)(jnp.arange(5))
    for estimator in smoothing.ESTIMATORS:
        estimate = smoothed_value_and_grad(lambda x: x, 0.1, 4, KEY, estimator=estimator)
        with pytest.raises(ValueError, match=r"fn must return a scalar, got shape \(5,\)"):
            estimate(X)
    with pytest.raises(ValueError, match="known now"):
        jax.jit(lambda n: smoothed_value_and_grad(quadratic, 0.1, n, KEY)(X))(4)
