"""f, its turn, where it is positive, and its inverse g_t, against scipy's Lambert function."""

import decimal
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from clipjax.losses import (
    generalized_logistic_loss,
    growth_constant,
    growth_exponent,
    growth_exponent_is_positive,
    growth_exponent_turn,
    growth_rate,
    lambert_w,
)

CONSTANTS = [-20.0, -3.0, -1.0, -0.3, -1e-9, 0.0, 0.5, 1.0, 3.0, 10.0]


def test_lambert_w_equals_scipys():
    """On both sides of 0, and where e^W would overflow."""
    x = np.concatenate([-np.geomspace(0.36, 1e-300, 500), [0.0], np.geomspace(1e-300, 1e308, 2000)])
    with jax.enable_x64(True):
        found = jax.jit(lambert_w)(x)
    np.testing.assert_allclose(found, scipy.special.lambertw(x).real, rtol=2e-14, atol=1e-320)


def test_lambert_w_is_exact_at_the_branch_point():
    """W e^W = x in 50 digits, by Newton's method. scipy has lost up to half its digits here."""
    near = -1 / np.e + np.geomspace(1e-15, 0.02, 40)
    with jax.enable_x64(True), decimal.localcontext(prec=50):
        for x, found in zip(near, np.asarray(lambert_w(near)), strict=True):
            x, w = decimal.Decimal(float(x)), decimal.Decimal(float(found))
            for _ in range(8):
                w -= (w - x * (-w).exp()) / (w + 1)
            assert abs(decimal.Decimal(float(found)) / w - 1) < 5e-15
        np.testing.assert_allclose(lambert_w(-1 / np.e), -1, rtol=1e-15)


def test_lambert_w_in_float32():
    x = np.concatenate(
        [np.float32(-0.3678794) + np.geomspace(1e-6, 0.3, 50), np.geomspace(1e-30, 1e38)]
    )
    x = np.float32(x)
    found = lambert_w(x)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, scipy.special.lambertw(np.float64(x)).real, rtol=1e-6)


def test_lambert_w_at_the_ends():
    found = lambert_w(jnp.asarray([-0.37, -jnp.inf, jnp.nan, jnp.inf]))
    assert np.isnan(found[:3]).all()
    assert np.isposinf(found[3])


def test_the_derivative_of_lambert_w():
    """W' = e^{-W}/(1 + W): 1 at 0; W(e) = 1 gives 1/(2e); W'' = -2 at 0 (W = x - x² + ...)."""
    with jax.enable_x64(True):
        slope = jax.grad(lambert_w)
        np.testing.assert_allclose(slope(0.0), 1, rtol=1e-15)
        np.testing.assert_allclose(slope(np.e), 1 / (2 * np.e), rtol=1e-14)
        np.testing.assert_allclose(jax.grad(slope)(0.0), -2, rtol=1e-14)


@pytest.mark.parametrize("r", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("c", CONSTANTS)
def test_g_inverts_f(c, r):
    """f(g_t) = ln t from the end of the domain on, for either sign; g_t is the larger solution."""
    first = np.e * -c if c < 0 else 1e-6
    t = np.maximum(first, np.geomspace(max(first, 1e-6), 1e12, 300))
    with jax.enable_x64(True):
        g = np.asarray(growth_rate(t, c, r))
        np.testing.assert_allclose(growth_exponent(g, c, r), np.log(t), rtol=0, atol=1e-12)
        if c < 0:
            assert np.all(g >= growth_exponent_turn(c, r) - 1e-7)
        # ... and the other way round: from the turn on, where f rises.
        s = np.linspace(0.1, 20, 50) + (np.log(-c) / r if c < 0 else 0)
        times = jnp.exp(growth_exponent(s, c, r))
        s, times = s[times < 1e300], times[times < 1e300]
        if c < 1:
            np.testing.assert_allclose(growth_rate(times, c, r), s, rtol=1e-12, atol=1e-12)
    expected = (np.log(t) + scipy.special.lambertw(c / t).real) / r
    # At the branch point W_0 loses half the digits of c/t.
    inside = (t > 1.001 * first) | (c >= 0)
    np.testing.assert_allclose(g[inside], expected[inside], rtol=1e-12, atol=1e-12)


def test_the_end_of_the_domain_is_in_it():
    """t = e|c| as float32 and float64 round it: g = t* = ln(-c)/r, where W_0(-1/e) = -1."""
    c = -np.linspace(0.1, 50, 997)
    with jax.enable_x64(True):
        found = growth_rate(np.e * -c, c, 2.0)
        np.testing.assert_allclose(found, np.log(-c) / 2, atol=1e-7)
    c = np.float32(c)
    np.testing.assert_allclose(growth_rate(np.float32(np.e) * -c, c), np.log(-c), atol=3e-3)


def test_the_rate_is_logarithmic_in_the_end():
    """r g_t - ln t = W_0(c/t) ≈ c/t."""
    with jax.enable_x64(True):
        t = np.array([1e3, 1e6, 1e9])
        for c in (-3.0, 3.0):
            rest = 0.5 * np.asarray(growth_rate(t, c, 0.5)) - np.log(t)
            np.testing.assert_allclose(rest, c / t, rtol=4e-3)


def test_the_turn():
    """f'(t*) = 0 and f(t*) = 1 + ln(-c); t* > 0 for c < -1, t* > 1 for c < -e^r."""
    with jax.enable_x64(True):
        for c, r in ((-0.2, 0.5), (-1.0, 2.0), (-9.0, 2.0)):
            turn = growth_exponent_turn(c, r)
            np.testing.assert_allclose(growth_exponent(turn, c, r), 1 + np.log(-c), rtol=1e-14)
            assert abs(jax.grad(growth_exponent)(turn, c, r)) < 1e-14
    assert growth_exponent_turn(-1.01, 2.0) > 0 > growth_exponent_turn(-0.99, 2.0)
    assert growth_exponent_turn(-1.01 * np.exp(2), 2.0) > 1 > growth_exponent_turn(-7.3, 2.0)


def test_where_f_is_positive():
    """By the roots of f: rt e^{rt} = c is solved by W_0(c) and, for -1/e < c < 0, by W_{-1}(c)."""
    t, r = np.linspace(-3, 3, 6001)[::-1], 1.7
    with jax.enable_x64(True):
        for c in (-2.0, -0.37, -0.36, -0.1, -1e-3, 0.0, 1e-3, 1.0, 10.0):
            found = np.asarray(growth_exponent_is_positive(t, c, r))
            expected = t > scipy.special.lambertw(c).real / r
            if c < 0:
                expected |= t < scipy.special.lambertw(c, -1).real / r
            if c < -1 / np.e:
                expected = np.ones_like(t, bool)
            np.testing.assert_array_equal(found, expected, str(c))
            # At the turn itself: the paper's inequality, and its opposite, which holds.
            if c < 0:
                at_turn = bool(growth_exponent_is_positive(growth_exponent_turn(c, r), c, r))
                assert at_turn == (c < -np.exp(-1)) != (c > -np.exp(-1))


def test_f_does_not_become_nan():
    found = growth_exponent(jnp.asarray([-1e4, 1e4]), jnp.asarray([[-1.0], [0.0], [1.0]]))
    assert found.tolist() == [[jnp.inf, 1e4], [-1e4, 1e4], [-jnp.inf, 1e4]]


@pytest.mark.parametrize(("start", "rate"), [(0.3, 0.5), (0.3, 2.0), (0.7, 1.0)])
def test_gradient_descent_on_one_example_grows_as_g(start, rate):
    """θ' = η (b - a)|c| r e^{-f(θ)}: f + ln f' = ln(η (b - a)|c| r t) + ..., f' -> r, and so
    θ_t ≈ g_T, T = η (b - a)|c| r² t; the difference is o(1)."""
    eta, steps, curve = 1.0, 10_000, dict(lower=0.0, upper=0.9, rate=rate, shape=0.0, start=start)
    with jax.enable_x64(True):
        slope = jax.grad(lambda theta: generalized_logistic_loss(theta, **curve))
        theta = jax.lax.fori_loop(0, steps, lambda _, x: x - eta * slope(x), jnp.float64(0.0))
        c = growth_constant(0.0, 0.9, start)
        grown = growth_rate(eta * 0.9 * -c * rate**2 * steps, c, rate)
        np.testing.assert_allclose(theta, grown, rtol=0, atol=6e-3)
        assert theta > 3


def test_all_of_it_is_mapped_and_traced():
    rates = jnp.asarray([0.5, 2.0])
    found = jax.jit(jax.vmap(lambda r: growth_rate(5.0, 1.0, r)))(rates)
    np.testing.assert_allclose(found, growth_rate(5.0, 1.0, rates), rtol=1e-6)
    assert np.isnan(jax.jit(growth_rate)(2.0, -1.0))  # below the domain: no number is made up


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: growth_rate(2.0, -1.0), "t >= e |c| where c < 0 must hold, got t=2.0, c=-1.0"),
        (lambda: growth_rate(np.array([3.0, 2.7]), -1.0), "t >= e |c| where c < 0 must hold"),
        (lambda: growth_rate(0.0, 1.0), "t > 0 must hold, got t=0.0"),
        (lambda: growth_rate(float("nan"), 1.0), "t > 0 must hold"),
        (lambda: growth_rate(1.0, float("nan")), "-inf < c < inf in float32 must hold"),
        (lambda: growth_rate(1.0, 1.0, 0.0), "0 < r < inf in float32 must hold, got r=0.0"),
        (lambda: growth_exponent(1.0, 1.0, -2.0), "0 < r < inf in float32 must hold"),
        (lambda: growth_exponent_turn(0.5), "c < 0 must hold, got c=0.5"),
        (lambda: growth_exponent_turn(float("nan")), "c < 0 must hold"),
        (
            lambda: growth_exponent(np.ones(2), np.ones(3)),
            "shapes must broadcast, got t (2,), c (3,)",
        ),
        (lambda: lambert_w("x"), "x must be a number"),
    ],
)
def test_what_is_out_of_range_is_refused_with_the_inequality(call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call()
