import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipjax.optim.graduated.noise_levels import (
    BOUNDED,
    FACTORS,
    WITHOUT_MOMENTUM,
    heavy_ball_root,
    noise_level,
    solve_batch_size,
    solve_learning_rate,
    solve_momentum,
)

KINDS = list(FACTORS)
# C² and K of the authors' code for ResNet-18 with heavy ball.
STD, BOUND = 25.318**0.5, 1.77


def extras(kind, momentum=0.6):
    return {
        "kind": kind,
        "momentum": 0.0 if kind == "sgd" else momentum,
        "gradient_bound": BOUND if kind in BOUNDED else None,
    }


def test_sgd():
    # η C/√b = 0.1 · 4/√64
    assert noise_level(0.1, 64, 4.0) == pytest.approx(0.05, rel=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_without_momentum_every_kind_is_sgd(kind):
    level = noise_level(0.1, 128, STD, **extras(kind, 0.0))
    assert level == pytest.approx(0.1 * STD / 128**0.5, rel=1e-15)


def test_published_forms_as_the_authors_write_them():
    """Their "C" is our C²."""
    lr, batch, beta, C, K = 0.1, 128, 0.9, 25.318, 1.77
    beta_hat = (beta * (beta**2 - beta + 1)) / ((1 - beta) ** 2)
    shb = lr * np.sqrt(C / batch + beta_hat * ((C / batch) + K**2))
    nshb = lr * np.sqrt(C / batch + 4 * beta**2 * ((C / batch) + K**2))
    arguments = {"momentum": beta, "gradient_bound": K}
    assert noise_level(lr, batch, C**0.5, **arguments, kind="shb_2024") == pytest.approx(shb)
    assert noise_level(lr, batch, C**0.5, **arguments, kind="nshb_2024") == pytest.approx(nshb)
    # β' = 1 − η'²(1 − β)b/(γ²η²b') keeps δ' = γδ for δ² ∝ η²/((1 − β)b).
    new_lr, new_batch, gamma = 0.08, 150, 0.9
    new_beta = 1 - (new_lr**2 * (1 - beta) * batch) / (gamma**2 * lr**2 * new_batch)
    before = noise_level(lr, batch, 1.0, momentum=beta, kind="nshb_aaai25")
    after = noise_level(new_lr, new_batch, 1.0, momentum=new_beta, kind="nshb_aaai25")
    assert after / before == pytest.approx(gamma)


@pytest.mark.parametrize(
    ("kind", "factor"),
    [
        # β̂(0.9) = 0.9 · 0.91/0.01 = 81.9; 1 + 4 · 0.81; 1/(1 − β); its square.
        ("shb_2024", 82.9),
        ("nshb_2024", 4.24),
        ("nshb_aaai25", 10.0),
        ("shb_stationary", 10.0),
        ("nshb_stationary", 1.0),
        ("shb_effective", 100.0),
    ],
)
def test_variance_factors_at_momentum_0_9(kind, factor):
    assert FACTORS[kind](0.9)[0] == pytest.approx(factor)


@pytest.mark.parametrize(
    ("gamma", "beta"), [(0.9, 0.8900), (0.7, 0.8623), (0.5, 0.8158), (0.2, 0.6173)]
)
def test_momentum_that_lowers_the_noise_of_heavy_ball(gamma, beta):
    size = {"batch_size": 128, "gradient_std": STD, "gradient_bound": BOUND, "kind": "shb_2024"}
    start = noise_level(0.1, **size, momentum=0.9)
    assert solve_momentum(gamma * start, 0.1, **size) == pytest.approx(beta, abs=5e-5)


@settings(deadline=None, max_examples=60)
@given(st.floats(-12, 12))
def test_the_cubic_has_its_root_to_full_precision(exponent):
    u = 10.0**exponent
    beta = heavy_ball_root(u)
    assert 0 <= beta < 1
    # What a relative error of 1e-15 in β and in 1 − β does to β̂, whose logarithm has the
    # derivative 1/β + ... + 2/(1 − β).
    tolerance = 1e-15 * (10 + 4 / (1 - beta))
    assert beta * (beta**2 - beta + 1) / (1 - beta) ** 2 == pytest.approx(u, rel=tolerance)
    # The only root in [0, 1): of three, numpy finds no other.
    roots = np.roots([1, -(1 + u), 1 + 2 * u, -u])
    inside = [r.real for r in roots if abs(r.imag) < 1e-9 * abs(r) and 0 <= r.real < 1 - 1e-4]
    assert all(r == pytest.approx(beta, rel=1e-6) for r in inside)


@pytest.mark.parametrize("kind", KINDS)
def test_inverses(kind):
    options = extras(kind)
    delta = noise_level(0.1, 128, STD, **options)
    assert solve_learning_rate(delta, 128, STD, **options) == pytest.approx(0.1, rel=1e-14)
    assert solve_batch_size(delta, 0.1, STD, **options) == pytest.approx(128, rel=1e-12)
    if kind not in WITHOUT_MOMENTUM:
        momentum = options.pop("momentum")
        found = solve_momentum(delta, 0.1, 128, STD, **options)
        assert found == pytest.approx(momentum, rel=1e-13)
        # The least noise there is belongs to momentum 0.
        assert solve_momentum(0.1 * STD / 128**0.5, 0.1, 128, STD, **options) == pytest.approx(
            0, abs=1e-12
        )


def stationary_variance(learning_rate, momentum, curvature, normalised=False):
    """Var x of (NS)HB on hx²/2 with gradient noise of variance 1: P = APAᵀ + BBᵀ, solved."""
    gain = 1 - momentum if normalised else 1.0
    # (x, m): m' = βm + gain (hx + w), x' = x − ηm'
    drift = np.array(
        [
            [1 - learning_rate * gain * curvature, -learning_rate * momentum],
            [gain * curvature, momentum],
        ]
    )
    noise = np.array([[-learning_rate * gain], [gain]])
    flat = np.linalg.solve(np.eye(4) - np.kron(drift, drift), (noise @ noise.T).ravel())
    return flat[0]


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.99])
def test_derived_forms_are_the_stationary_variance_of_a_quadratic(beta):
    """The formulas are limits for small steps: to the first order in ηh/(1 − β) <= 0.01."""
    eta, h = 1e-4, 1.0
    sgd = stationary_variance(eta, 0.0, h)
    np.testing.assert_allclose(sgd, eta / (2 * h), rtol=1e-4)
    shb = stationary_variance(eta, beta, h)
    nshb = stationary_variance(eta, beta, h, normalised=True)
    arguments = {"batch_size": 1, "gradient_std": 1.0, "momentum": beta}

    def squared(kind):
        return (noise_level(eta, kind=kind, **arguments) / eta) ** 2

    np.testing.assert_allclose(shb / sgd, squared("shb_stationary"), rtol=1e-2)
    np.testing.assert_allclose(nshb / sgd, squared("nshb_stationary"), rtol=1e-2)
    # "shb_effective" is the noise of the SGD that has the same variance.
    rate = noise_level(eta, kind="shb_effective", **arguments)  # C/√b = 1: δ is the rate
    np.testing.assert_allclose(shb, stationary_variance(rate, 0.0, h), rtol=1e-2)


def test_only_the_effective_form_knows_that_nshb_is_shb_with_a_smaller_rate():
    """NSHB at η is SHB at η(1 − β), step by step."""
    eta, beta, size = 0.1, 0.9, {"batch_size": 128, "gradient_std": STD}

    def disagreement(nshb, shb, **bound):
        a = noise_level(eta, **size, momentum=beta, kind=nshb, **bound)
        b = noise_level(eta * (1 - beta), **size, momentum=beta, kind=shb, **bound)
        return a / b

    assert disagreement("nshb_stationary", "shb_effective") == pytest.approx(1, rel=1e-12)
    # The variance's form: η² against η²(1 − β)²/(1 − β).
    assert disagreement("nshb_stationary", "shb_stationary") == pytest.approx(10**0.5)
    # 4.24 C²/b + 3.24 K² against 0.829 C²/b + 0.819 K².
    v = 25.318 / 128
    expected = ((4.24 * v + 3.24 * BOUND**2) / (0.829 * v + 0.819 * BOUND**2)) ** 0.5
    bounded = disagreement("nshb_2024", "shb_2024", gradient_bound=BOUND)
    assert bounded == pytest.approx(expected)


def test_arrays_and_tracers():
    rates, betas = jnp.array([0.1, 0.2]), jnp.array([0.0, 0.5])

    def level(eta, beta):
        return noise_level(eta, 100, 10.0, momentum=beta, kind="shb_stationary")

    np.testing.assert_allclose(jax.jit(jax.vmap(level))(rates, betas), [0.1, 0.2 * 2**0.5], 1e-6)
    np.testing.assert_allclose(level(np.array([0.1, 0.2]), np.array([0.0, 0.5]))[0], 0.1)
    batch = jax.jit(lambda delta: solve_batch_size(delta, 0.1, 10.0))(0.1)
    np.testing.assert_allclose(batch, 100, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: noise_level(0.1, 1, 1.0, kind="shb2024"), "Did you mean 'shb_2024'"),
        (lambda: noise_level(0.1, 1, 1.0, momentum=0.9), "kind='sgd' has no momentum"),
        (lambda: noise_level(0.1, 1, 1.0, momentum=1.0, kind="shb_effective"), r"in \[0, 1\)"),
        (lambda: noise_level(0.1, 1, 1.0, momentum=-0.1, kind="nshb_aaai25"), r"in \[0, 1\)"),
        (lambda: noise_level(0.1, 1, 1.0, kind="shb_2024"), "needs gradient_bound"),
        (lambda: noise_level(0.1, 1, 1.0, gradient_bound=1.0), "gradient_bound=1.0 has no place"),
        (lambda: noise_level(-0.1, 1, 1.0), "learning_rate must be positive"),
        (lambda: noise_level(0.1, 0, 1.0), "batch_size must be positive"),
        (lambda: noise_level(0.1, 1, np.nan), "gradient_std must be positive"),
        (lambda: solve_learning_rate(0.0, 1, 1.0), "noise must be positive"),
        # η√k K = 0.1 · 2 · 0.5 · 3 = 0.3
        (
            lambda: solve_batch_size(
                0.3, 0.1, 1.0, momentum=0.5, gradient_bound=3.0, kind="nshb_2024"
            ),
            "stays above 0.3",
        ),
        # momentum 0 gives 0.1 · 2/√4
        (
            lambda: solve_momentum(0.099, 0.1, 4, 2.0, kind="shb_stationary"),
            "momentum 0 already gives 0.1",
        ),
        # At β = 1: 0.1 √(5 · 1 + 4 · 1)
        (
            lambda: solve_momentum(0.31, 0.1, 4, 2.0, gradient_bound=1.0, kind="nshb_2024"),
            "stays below 0.3",
        ),
        (lambda: solve_momentum(0.1, 0.1, 4, 2.0, kind="sgd"), "does not contain momentum"),
        (lambda: solve_momentum(0.1, 0.1, 4, 2.0, kind="shb_"), "kind must be one of"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
