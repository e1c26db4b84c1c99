"""The generalised logistic curve: its ODE, its limits, its extremes, its dtypes, its refusals."""

import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax import losses
from clipjax.losses import (
    generalized_logistic,
    generalized_logistic_loss,
    generalized_softmax,
    growth_constant,
    growth_exponent,
)

NAMES = ("t", "lower", "upper", "rate", "shape", "start")
CURVES = [
    dict(),
    dict(lower=0.1, upper=0.9, rate=2.8, shape=1.0),
    dict(lower=0.1, upper=0.9, rate=0.5, shape=0.3, start=0.2),
    dict(lower=0.0, upper=0.7, rate=1.7, shape=2.5, start=0.01),
    dict(lower=0.05, upper=1.0, rate=1.0, shape=40.0, start=0.3),
    dict(lower=0.05, upper=1.0, rate=1.0, shape=1e-7, start=0.3),
    dict(lower=0.15, upper=0.85, rate=1.3, shape=0.0, start=0.1),
]


def written_out(t, lower=0.0, upper=1.0, rate=1.0, shape=1.0, start=None):
    """(7) and (9) as they stand, NumPy float64."""
    start = (upper - 3 * lower) / 2 if start is None else start
    c = np.log((start + lower) / (upper - lower))
    if shape == 0:
        return lower + (upper - lower) * np.exp(c * np.exp(-rate * t))
    q_capital = ((upper - lower) / (start + lower)) ** shape - 1
    return lower + (upper - lower) / (1 + q_capital * np.exp(-rate * t)) ** (1 / shape)


@pytest.mark.parametrize("curve", [c for c in CURVES if c.get("shape") != 1e-7])
def test_the_curve_is_7_and_9_as_written(curve):
    t = np.linspace(-8, 12, 101)
    with jax.enable_x64(True):
        values = generalized_logistic(t, **curve)
        assert values.dtype == jnp.float64
        np.testing.assert_allclose(values, written_out(t, **curve), rtol=1e-12)
        start = curve.get("start", (curve.get("upper", 1) - 3 * curve.get("lower", 0)) / 2)
        above = generalized_logistic(0.0, **curve) - curve.get("lower", 0)
        np.testing.assert_allclose(above, start + curve.get("lower", 0), rtol=1e-13)


@pytest.mark.parametrize("curve", CURVES)
def test_it_solves_its_ode(curve):
    """l' = (r/q) u (1 - z^q), z = u/(b - a), u = l - a; (1 - z^q)/q = -expm1(q ln z)/q -> -ln z."""
    t = np.linspace(-8, 12, 101)
    with jax.enable_x64(True):
        slope = np.asarray(jax.vmap(jax.grad(lambda t: generalized_logistic(t, **curve)))(t))
        above = np.asarray(generalized_logistic(t, **curve)) - curve.get("lower", 0.0)
    span, q = curve.get("upper", 1.0) - curve.get("lower", 0.0), curve.get("shape", 1.0)
    log = np.log(np.maximum(above / span, 1e-300))  # u ln z -> 0
    factor = -np.expm1(q * log) / q if q else -log
    residual = slope - curve.get("rate", 1.0) * above * factor
    assert np.max(np.abs(residual)) < 1e-12
    assert np.max(slope) > 0.01


def test_the_derivative_of_the_limit_is_11_and_12():
    with jax.enable_x64(True):
        curve = dict(lower=0.1, upper=0.8, rate=1.7, start=0.2)
        c = growth_constant(0.1, 0.8, 0.2)
        np.testing.assert_allclose(c, np.log(0.3 / 0.7), rtol=1e-14)
        t = np.linspace(-4, 30, 69)
        slope = jax.vmap(jax.grad(lambda t: generalized_logistic(t, shape=0.0, **curve)))(t)
        expected = 0.7 * -c * 1.7 * jnp.exp(-growth_exponent(t, c, 1.7))
        np.testing.assert_allclose(slope, expected, rtol=1e-12)


def test_the_limit_is_reached_as_q():
    """|l_q - l_0| falls tenfold with q, down to rounding: the error is O(q)."""
    t = np.linspace(-3, 8, 45)
    with jax.enable_x64(True):
        curve = functools.partial(generalized_logistic, t, 0.1, 0.9, 1.5, start=0.05)
        errors = [
            float(jnp.max(jnp.abs(curve(shape=10.0**-k) - curve(shape=0.0)))) for k in range(3, 9)
        ]
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 10, rtol=0.02)
    assert errors[-1] < 1e-8


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_a_traced_shape_goes_down_to_zero_without_a_jump(dtype):
    """h = kE + q (k²E - k²E²)/2 + O(q²), E = e^{-t}, and so dS/dq = -S k²E (1 - E)/2 at q = 0."""
    with jax.enable_x64(dtype == jnp.float64):
        k, t = float(np.log(4)), jnp.asarray([-1.0, 0.5, 2.0], dtype)
        value = jax.jit(jax.vmap(lambda q: generalized_logistic(t, shape=q, start=0.25)))
        slope = jax.jit(
            jax.vmap(jax.jacfwd(lambda q: generalized_logistic(t, shape=q, start=0.25)))
        )
        q = jnp.asarray([0.0, 1e-38, 1e-30, 1e-20, 1e-12, 1e-7, 1e-5, 1e-4], dtype)
        grown = np.exp(-np.float64(t))
        limit = np.exp(-k * grown)
        first = -limit * k**2 * grown * (1 - grown) / 2
        expected = limit + np.outer(q, first)
        rounding = 8 * jnp.finfo(dtype).eps
        # The next term of h is below q² (k E)³, 54 at t = -1.
        np.testing.assert_allclose(value(q), expected, rtol=0, atol=rounding + 60e-8)
        np.testing.assert_allclose(value(q)[:5], expected[:5], rtol=1e2 * rounding)
        np.testing.assert_allclose(slope(q)[:7], np.tile(first, (7, 1)), rtol=5e-3)
        # A fine grid across x = q|c| = 1/2 and y = Q e^{-rt} = 1, where the branches meet.
        fine = jnp.linspace(0, 2, 4001, dtype=dtype)
        for found in (value(fine), slope(fine)):
            jumps = np.abs(np.diff(np.float64(found), n=2, axis=0)).max()
            assert jumps < 1e-5 * np.abs(found).max() + 100 * rounding, jumps


@pytest.mark.parametrize("shape", [0.0, 1e-30, 1e-6, 0.3, 1.0, 7.0, 1e3])
@pytest.mark.parametrize("start", [None, 0.0, 0.4, 0.8])  # 0.8 = b - 2a: the constant b
def test_it_is_finite_and_monotone_from_minus_to_plus_10000(shape, start):
    """In float32: values, and derivatives by each argument, the second one by t, too."""
    t = jnp.asarray([-1e4, -3e3, -500, -110, -60, -33, -20, -3, 0, 3, 20, 60, 110, 500, 1e4])

    def curve(t, lower, upper, rate, shape, start):
        return generalized_logistic(t, lower, upper, rate, shape, start)

    arguments = (0.1, 1.0, 1.7, shape, start)
    numbers = tuple(range(5 if start is None else 6))
    derivatives = jax.vmap(jax.grad(curve, numbers), (0, *[None] * 5))(t, *arguments)
    second = jax.vmap(jax.grad(jax.grad(curve)), (0, *[None] * 5))(t, *arguments)
    values = generalized_logistic(t, *arguments)
    assert jnp.all(jnp.diff(values) >= 0)
    assert 0.1 <= values[0] <= values[-1] <= 1 + 1e-6
    np.testing.assert_allclose(values[-1], 1, rtol=1e-6)
    for name, found in zip(NAMES, derivatives, strict=False):
        assert jnp.all(jnp.isfinite(found)), name
    assert jnp.all(jnp.isfinite(second))
    assert jnp.all(derivatives[0] >= 0)
    loss = generalized_logistic_loss(t, *arguments)
    assert jnp.all(jnp.diff(loss) <= 0)
    assert jnp.all(loss >= 0)
    np.testing.assert_allclose(loss, 1 - values, atol=2e-7)


def test_a_tiny_shape_has_a_second_derivative_far_below():
    """q = 1e-13 and Q e^{40} > 1: 1/q³ is infinite in float32, the curve 0 to the last bit."""
    curve = functools.partial(generalized_logistic, -40.0, 0.0, 1.0, 1.0)
    assert jax.grad(jax.grad(curve))(1e-13) == 0


def test_large_shapes_do_not_overflow():
    """q = 1000, p = 1/4: Q = 4^1000, and -ln S = softplus(1000 ln 4 - t)/1000."""
    t = jnp.asarray([-1e4, 0.0, 1e3, 2e3])
    found = generalized_logistic(t, shape=1e3, start=0.25)
    expected = np.exp(-np.logaddexp(0, 1000 * np.log(4) - np.float64(t)) / 1000)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("curve", CURVES)
def test_the_tail_of_the_loss_keeps_its_accuracy(curve):
    """ℓ = -(b - a) expm1(-ln(1 + Q e^{-rm})/q), here in float64; b - l(m) is 0 in float32.

    In the end it is (b - a) w e^{-rm}, w = (e^{-qc} - 1)/q.
    """
    span = curve.get("upper", 1.0) - curve.get("lower", 0.0)
    start, q, rate = curve.get("start"), curve.get("shape", 1.0), curve.get("rate", 1.0)
    c = np.log(0.5 if start is None else (start + curve["lower"]) / span)
    margins = np.array([30.0, 50.0, 70.0], np.float32) / np.float32(rate)
    found = generalized_logistic_loss(margins, **curve)
    grown = np.exp(-rate * np.float64(margins))
    depth = np.log1p(np.expm1(-q * c) * grown) / q if q else -c * grown
    np.testing.assert_allclose(found, -span * np.expm1(-depth), rtol=2e-5)
    w = np.expm1(-q * c) / q if q else -c
    np.testing.assert_allclose(found[-1], span * w * grown[-1], rtol=2e-5)


def test_q_1_is_the_sigmoid_between_the_asymptotes():
    """(10), the author's BioSigmoid; also where q is not the literal 1, or P_0 is given."""
    t = jnp.linspace(-9, 9, 37)
    expected = 0.1 + 0.8 * jax.nn.sigmoid(2.8 * t)
    found = [
        generalized_logistic(t, 0.1, 0.9, 2.8),
        generalized_logistic(t, 0.1, 0.9, 2.8, jnp.asarray(1.0)),
        generalized_logistic(t, 0.1, 0.9, 2.8, 1.0, start=0.3),
        jax.jit(generalized_logistic)(t, 0.1, 0.9, 2.8, 1.0),
    ]
    for values in found:
        np.testing.assert_allclose(values, expected, rtol=2e-6)
    np.testing.assert_allclose(
        generalized_logistic_loss(t, 0.1, 0.9, 2.8), 0.8 * jax.nn.sigmoid(-2.8 * t), rtol=1e-5
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("shape", [0.0, 0.4, 1.0])
def test_half_precision_is_computed_in_float32(dtype, shape):
    t = jnp.asarray([-1e4, -5, -1, 0, 0.5, 3, 8, 1e4], dtype)
    curve = functools.partial(generalized_logistic, lower=0.1, upper=0.9, shape=shape, start=0.2)
    values = curve(t)
    wide = curve(t.astype(jnp.float32))
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, wide.astype(dtype))
    slopes = jax.grad(lambda t: jnp.sum(curve(t), dtype=jnp.float32))(t)
    assert slopes.dtype == dtype
    expected = jax.grad(lambda t: jnp.sum(curve(t)))(t.astype(jnp.float32))
    np.testing.assert_allclose(
        np.float32(slopes), expected, rtol=float(2 * jnp.finfo(dtype).eps), atol=1e-7
    )
    loss = generalized_logistic_loss(t, shape=shape)
    assert loss.dtype == jnp.float32
    whole = generalized_logistic(jnp.arange(3))
    assert whole.dtype == jnp.float32


def test_parameters_broadcast_and_are_mapped():
    rates = jnp.asarray([0.5, 1.0, 2.0])
    t = jnp.linspace(-2, 2, 5)
    mapped = jax.vmap(lambda r: generalized_logistic(t, rate=r))(rates)
    np.testing.assert_allclose(generalized_logistic(t, rate=rates[:, None]), mapped, rtol=1e-6)
    np.testing.assert_allclose(mapped[2], jax.nn.sigmoid(2 * t), rtol=1e-6)
    np.testing.assert_allclose(
        generalized_logistic(np.ones((4, 3)), rate=rates)[1],
        mapped[:, 3] * 0 + jax.nn.sigmoid(rates),
        rtol=1e-6,
    )


def descend(rate, step, begin, steps=500, **curve):
    """Gradient descent on the summed loss of eight fixed examples; the iterates, (steps, 2)."""
    rng = np.random.default_rng(0)
    examples = rng.normal(size=(8, 2)) + np.array([2.0, 1.0])

    def objective(theta):
        return jnp.sum(generalized_logistic_loss(examples @ theta, rate=rate, **curve))

    def one(theta, _):
        theta = theta - step * jax.grad(objective)(theta)
        return theta, theta

    return np.asarray(jax.lax.scan(one, jnp.asarray(begin), None, length=steps)[1])


@pytest.mark.parametrize("curve", [dict(), dict(lower=0.1, upper=0.9, shape=0.0, start=0.05)])
def test_the_rate_is_a_step_size(curve):
    """L_r(θ) = L_1(rθ) has the gradient r ∇L_1(rθ): with φ = rθ, φ' = φ - η r² ∇L_1(φ)."""
    with jax.enable_x64(True):
        for rate in (0.5, 3.0):
            slow = descend(rate, 0.1, [0.2 / rate, -0.1 / rate], **curve)
            fast = descend(1.0, 0.1 * rate**2, [0.2, -0.1], **curve)
            assert np.linalg.norm(fast[-1]) > 1
            np.testing.assert_allclose(rate * slow, fast, rtol=1e-12)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_softmax_form(normalize):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 10)), jnp.float32)
    found = generalized_softmax(x, 0.1, 0.9, 2.8, normalize=normalize)
    plain = 0.1 + 0.8 * jax.nn.softmax(2.8 * x)  # sums to 10 * 0.1 + 0.8 = 1.8
    np.testing.assert_allclose(found, plain / (1.8 if normalize else 1), rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(found, -1), 1 if normalize else 1.8, rtol=1e-6)
    columns = generalized_softmax(x.T, 0.1, 0.9, 2.8, axis=0, normalize=normalize)
    np.testing.assert_allclose(columns, found.T, rtol=1e-6)
    half = generalized_softmax(x.astype(jnp.bfloat16), 0.1, 0.9)
    assert half.dtype == jnp.bfloat16
    extreme = generalized_softmax(jnp.asarray([1e4, -1e4]), 0.1, 0.9, 5.0)
    np.testing.assert_allclose(extreme, [0.9, 0.1], rtol=1e-6)


def test_both_are_activations_of_a_flax_model():
    """The author's network in small: Dense, BioSigmoid, Dense, BioSoftmax, with a learned rate."""

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            rate = self.param("rate", nn.initializers.constant(2.8), (4,))
            x = generalized_logistic(nn.Dense(4)(x), lower=0.1, upper=0.9, rate=rate)
            return generalized_softmax(nn.Dense(3)(x), 0.1, 0.9, 2.8)

    model, x = Network(), jnp.ones((2, 6))
    variables = model.init(jax.random.key(0), x)
    outputs = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(jnp.sum(outputs, -1), 3 * 0.1 + 0.8, rtol=1e-6)
    gradients = jax.grad(lambda v: jnp.sum(jnp.log(model.apply(v, x))[:, 0]))(variables)
    for leaf in jax.tree.leaves(gradients):
        assert jnp.all(jnp.isfinite(leaf))
    assert jnp.all(gradients["params"]["rate"] != 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(lower=-0.1), "0 <= lower < upper <= 1 must hold, got lower=-0.1, upper=1.0"),
        (dict(upper=1.1), "0 <= lower < upper <= 1 must hold"),
        (dict(lower=0.5, upper=0.5), "0 <= lower < upper <= 1 must hold"),
        (dict(lower=np.array([0.0, 0.5]), upper=np.array([0.4, 0.5])), "0 <= lower < upper <= 1"),
        (dict(rate=0.0), "0 < rate < inf in float32 must hold, got rate=0.0"),
        (dict(rate=1e-50), "0 < rate < inf in float32"),
        (dict(rate=float("nan")), "0 < rate < inf"),
        (dict(shape=-0.5), "0 <= shape < inf in float32 must hold, got shape=-0.5"),
        (dict(shape=float("inf")), "0 <= shape < inf"),
        (dict(start=-0.01), "0 <= start must hold, got start=-0.01"),
        (dict(start=0.0), "start + lower > 0 must hold"),
        (dict(lower=0.1, upper=0.9, start=0.71), "0 <= start <= upper - 2 lower must hold"),
        (dict(rate="fast"), "rate must be a number"),
        (dict(rate=np.ones(3), shape=np.ones(2)), "shapes must broadcast"),
        (dict(t=np.ones((2, 3)), rate=np.ones(2)), "shapes must broadcast"),
        (dict(t=None), "t must be a number"),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_inequality(change, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        generalized_logistic(**{"t": 0.0} | change)
    change = dict(change)
    margin = change.pop("t", 0.0)
    with pytest.raises(ValueError, match=re.escape(re.sub("^t must", "margin must", words))):
        generalized_logistic_loss(margin, **change)


def test_one_known_asymptote_is_judged_alone():
    with pytest.raises(ValueError, match=r"0 <= lower < 1 must hold, got lower=1\.5"):
        jax.jit(lambda upper: generalized_logistic(0.0, 1.5, upper))(1.0)
    with pytest.raises(ValueError, match=r"0 < upper <= 1 must hold, got upper=2\."):
        jax.jit(lambda lower: generalized_logistic(0.0, lower, 2.0))(1.0)


def test_the_bounds_themselves_are_allowed():
    """P_0 = b - 2a, in floats whose difference is rounded: the constant b."""
    assert 0.65 > 0.95 - 2 * 0.15
    with jax.enable_x64(True):
        found = generalized_logistic(np.array([-1e4, 0.0, 5.0]), 0.15, 0.95, start=0.65, shape=0.3)
    np.testing.assert_allclose(found, 0.95, rtol=1e-14)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(axis=2), "axis must be one of logits"),
        (dict(normalize="no"), "normalize must be True or False"),
        (dict(rate=np.ones(2)), "rate must be one number"),
        (dict(lower=0.9, upper=0.2), "0 <= lower < upper <= 1"),
    ],
)
def test_the_softmax_form_refuses(change, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        generalized_softmax(jnp.ones((2, 3)), **change)


def test_every_public_name_is_exported():
    assert sorted(losses.__all__) == losses.__all__
    assert "generalized_logistic" in losses.__all__
