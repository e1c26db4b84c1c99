"""The steps of the lecture's theorems: their formulas, and that the bounds hold in simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax import theory

STEPS = [0, 1, 2, 10, 46_340, 46_341, 10**6, 2**31 - 2]


def test_formulas_up_to_the_largest_count():
    """(k + 1)² overflows int32 at 46 340."""
    k = np.array(STEPS, np.float64)
    count = jnp.array(STEPS, jnp.int32)
    mu, alpha = 0.3, 0.7
    pl = theory.sgd_pl_schedule(mu)(count)
    np.testing.assert_allclose(pl, (2 * k + 1) / (2 * mu * (k + 1) ** 2), rtol=1e-6)
    decreasing = theory.sgd_decreasing_schedule(alpha)(count)
    np.testing.assert_allclose(decreasing, alpha / np.sqrt(k + 1), rtol=1e-6)
    constant = theory.sgd_convex_schedule(3.0, 0.5, 400)
    assert {float(constant(n)) for n in STEPS} == {float(np.float32(0.3))}


def test_what_the_proof_of_the_pl_theorem_uses():
    """1 − 2μα_k = k²/(k + 1)²: the contraction telescopes."""
    with jax.enable_x64(True):
        k = np.arange(50)
        steps = np.asarray(theory.sgd_pl_schedule(1.5)(jnp.asarray(k)))
    np.testing.assert_allclose(1 - 3 * steps, k**2 / (k + 1) ** 2, atol=1e-15)


def replicas(gradient, schedule, start, steps, count=400):
    """Iterates of SGD on one number, (steps + 1, count), and the largest E g² on the way."""
    rng = np.random.default_rng(0)
    x, seen, second = np.full(count, start), [np.full(count, start)], 0.0
    for alpha in np.asarray(schedule(jnp.arange(steps)), np.float64) * np.ones(steps):
        exact = gradient(x)
        second = max(second, float(np.max(exact**2)) + 1)  # the noise ±1 has mean square 1
        x = x - alpha * (exact + rng.choice([-1.0, 1.0], count))
        seen.append(x)
    return np.array(seen), second


def test_the_bound_for_pl_functions():
    """f = μx²/2, L = μ. σ² is the largest second moment where the iterates are."""
    mu, steps = 0.5, 300
    x, second = replicas(lambda x: mu * x, theory.sgd_pl_schedule(mu), 3.0, steps)
    gap = np.mean(mu * x**2 / 2, axis=1)
    k = np.arange(1, steps + 1)
    assert np.all(gap[1:] <= mu * second / (2 * mu**2 * k))
    assert gap[-1] < 0.01 * gap[0]


def test_the_bound_for_convex_functions_and_a_known_number_of_steps():
    """f = |x|: R = 2 and E g² = 2."""
    steps, distance, sigma = 400, 2.0, np.sqrt(2.0)
    schedule = theory.sgd_convex_schedule(distance, sigma, steps)
    x, _ = replicas(np.sign, schedule, distance, steps)
    mean = np.mean(x[:-1], axis=0)
    assert np.mean(np.abs(mean)) <= distance * sigma / np.sqrt(steps)


def test_the_bounds_for_convex_functions_and_any_number_of_steps():
    """f is Huber's function, L = 1, E g² ≤ 2; the mean is weighted by the steps."""
    steps, distance, alpha, second = 400, 2.0, 0.25, 2.0
    schedule = theory.sgd_decreasing_schedule(alpha)
    x, _ = replicas(lambda x: np.clip(x, -1, 1), schedule, distance, steps)
    weights = np.asarray(schedule(jnp.arange(steps)), np.float64)
    mean = weights @ x[:-1] / np.sum(weights)
    size = np.abs(mean)
    gap = np.mean(np.where(size < 1, size**2 / 2, size - 0.5))
    derived = (distance**2 + alpha**2 * second * (1 + np.log(steps))) / (
        4 * alpha * (np.sqrt(steps + 1) - 1)
    )
    stated = 1.25 * distance**2 / alpha / np.sqrt(steps)
    stated += 5 * alpha * second * np.log(steps + 1) / np.sqrt(steps)
    assert gap <= derived <= stated


def test_traced_constants_and_the_methods_that_take_them():
    @jax.jit
    def steps(mu):
        return theory.sgd_pl_schedule(mu)(0), theory.sgd_decreasing_schedule(mu)(3)

    np.testing.assert_allclose(steps(0.5), [1.0, 0.25])
    schedule = theory.sgd_decreasing_schedule(0.5)
    tx = clipjax.average_iterates(optax.sgd(schedule), weights=schedule)
    x = jnp.array(0.0)
    state = tx.init(x)
    for _ in range(2):
        updates, state = tx.update(jnp.array(-1.0), state, x)
        x = optax.apply_updates(x, updates)
    # x = 0, 0.5 with weights 1 and 1/√2.
    expected = 0.5 / np.sqrt(2) / (1 + 1 / np.sqrt(2))
    np.testing.assert_allclose(clipjax.eval_params(state, x), expected, rtol=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 0.9])
def test_exponential_steps_are_powers_of_the_larger_root(gamma):
    """NumPy's roots of x² - (1 + γ - λη)x + γ in float64; float32 with a decay as is used."""
    eta, decay = 0.1, 0.02
    alpha = np.roots([1, -(1 + gamma - decay * eta), gamma]).max()
    k = np.array([0, 1, 2, 50, 1000])
    with jax.enable_x64(True):
        steps = theory.exponential_schedule(eta, decay, gamma)(jnp.asarray(k))
    np.testing.assert_allclose(steps, eta * alpha ** (-2.0 * k - 1), rtol=1e-10)
    # 1 - α is 5e-8 / (1 - γ): less than float32 has beside 1, and the steps double all the same.
    gentle = theory.exponential_schedule(1e-4, 5e-4, gamma)
    steps = int(np.log(2) * (1 - gamma) / (2 * 5e-8))
    np.testing.assert_allclose(gentle(steps) / gentle(0), 2.0, rtol=1e-5)


def test_exponential_steps_at_their_limit():
    """λη = (1 - √γ)²: a double root α = √γ; γ = 0: α = 1 - λη; no decay: constant steps."""
    steps = theory.exponential_schedule(1.0, 0.25, 0.25)
    np.testing.assert_allclose(steps(0), 2.0, rtol=1e-6)
    np.testing.assert_allclose(theory.exponential_schedule(0.5, 0.0, 0.9)(10**6), 0.5)
    traced = jax.jit(lambda eta, decay: theory.exponential_schedule(eta, decay)(3))
    np.testing.assert_allclose(traced(0.5, 0.2), 0.5 * 0.9**-7, rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.exponential_schedule(0.1, 0.1, 1.0), r"momentum must lie in \[0, 1\)"),
        (lambda: theory.exponential_schedule(0.1, -0.1), "weight_decay must lie in"),
        (
            lambda: theory.exponential_schedule(1.0, 0.26, 0.25),
            r"at most \(1 - sqrt\(momentum\)\)\^2 = 0.25, got 0.26: the weights would oscillate",
        ),
        (lambda: theory.sgd_pl_schedule(0.0), "strong_convexity must be positive, got 0.0"),
        (lambda: theory.sgd_decreasing_schedule(np.inf), "initial_step must be finite, got inf"),
        (lambda: theory.sgd_convex_schedule(-1.0, 1.0, 10), "distance must be positive"),
        (lambda: theory.sgd_convex_schedule(1.0, 0.0, 10), "noise_scale must be positive"),
        (lambda: theory.sgd_convex_schedule(1.0, 1.0, 0), "iterations must be a whole number >= 1"),
    ],
)
def test_bad_constants_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
