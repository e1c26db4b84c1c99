"""Smoothing by quadrature, minimisers, σ-nice conditions: against closed forms of Rastrigin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from clipjax import analysis
from clipjax.analysis import noise_quadrature, smooth
from clipjax.problems import Ellipsoid, Quadratic, Rastrigin

RASTRIGIN = Rastrigin(1).value
BALL = noise_quadrature("ball", points=64)

# u ~ U(-1, 1): E cos 2π(x - δu) = cos(2πx) sin(2πδ)/(2πδ), so
# f̂_δ = x² + δ²/3 + 10 - 10 s cos 2πx, with s = sinc(2δ) in NumPy's convention.


def smoothed_rastrigin(x, delta):
    return x**2 + delta**2 / 3 + 10 - 10 * np.sinc(2 * delta) * np.cos(2 * np.pi * x)


def radius_of_rastrigin(delta, sigma):
    """f̂'' = 2 + 40π² s cos 2πx ≥ σ around 0: up to arccos((σ - 2)/(40π² s))/(2π), if s > 0."""
    bound = (sigma - 2) / (40 * np.pi**2 * np.sinc(2 * delta))
    if np.sinc(2 * delta) < 0:
        return np.inf if bound >= 1 else 0.0  # convex everywhere or not even at 0
    return np.inf if bound < -1 else np.arccos(min(bound, 1)) / (2 * np.pi)


@pytest.mark.parametrize("delta", [0.0, 0.3, 0.5, 1.7])
def test_smoothed_rastrigin_has_its_closed_form(delta):
    x = np.linspace(-3, 3, 50)
    with jax.enable_x64(True):
        found = jax.vmap(smooth(RASTRIGIN, delta, BALL))(jnp.asarray(x)[:, None])
        np.testing.assert_allclose(found, smoothed_rastrigin(x, delta), rtol=1e-10)
        # Gaussian: E cos 2π(x - δu) = cos(2πx) exp(-2π²δ²).
        normal = smooth(RASTRIGIN, delta, noise_quadrature("gaussian"))
        damped = np.exp(-2 * np.pi**2 * delta**2)
        expected = x**2 + delta**2 + 10 - 10 * damped * np.cos(2 * np.pi * x)
        np.testing.assert_allclose(jax.vmap(normal)(jnp.asarray(x)[:, None]), expected, rtol=1e-10)


@pytest.mark.parametrize("dimension", [1, 2, 3])
@pytest.mark.parametrize("law", ["ball", "sphere", "gaussian", "student_t", "cauchy"])
def test_quadratures_are_symmetric_laws_with_the_right_moments(law, dimension):
    u, w = noise_quadrature(law, dimension, points=1024, df=5.0)
    assert w.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(w @ u, 0, atol=1e-9)
    # E cos u_1. Sphere: cos 1, J_0(1), sin 1; ball: that of the sphere of R^(n+2), up to
    # normalisation; normal and Cauchy: their characteristic functions; t: its density integrated.
    t = np.linspace(-60, 60, 400_001)
    expected = {
        "sphere": (np.cos(1), scipy.special.j0(1), np.sin(1))[dimension - 1],
        "ball": (np.sin(1), 2 * scipy.special.j1(1), 3 * (np.sin(1) - np.cos(1)))[dimension - 1],
        "gaussian": np.exp(-0.5),
        "cauchy": np.exp(-1),
        "student_t": np.trapezoid(np.cos(t) * scipy.stats.t(5).pdf(t), t),
    }[law]
    exact = law in ("ball", "sphere", "gaussian") and dimension < 3
    assert w @ np.cos(u[:, 0]) == pytest.approx(expected, abs=1e-9 if exact else 5e-3)


def test_minimisers_of_rastrigin_jump_where_the_ball_turns_its_waves_over():
    """s < 0 for 1/2 < δ < 1: then x*_δ ≠ 0 solves 2x + 20π s sin 2πx = 0 near ±1/2."""
    levels = [0.75, 0.4, 0.1]
    found = analysis.smoothed_minimisers(RASTRIGIN, levels, BALL, box=5.12)[:, 0]
    slope = 2 * found[0] + 20 * np.pi * np.sinc(1.5) * np.sin(2 * np.pi * found[0])
    assert slope == pytest.approx(0, abs=1e-6)
    assert 0.4 < abs(found[0]) < 0.5
    np.testing.assert_allclose(found[1:], 0, atol=1e-8)


def test_minimisers_in_two_and_three_dimensions():
    for dimension in (2, 3):
        target = np.arange(1, dimension + 1) / 4

        def bowl(x, target=target):
            return Ellipsoid(len(target)).value(x - target)

        noise = noise_quadrature("ball", dimension, points=64)
        found = analysis.smoothed_minimisers(bowl, [0.5, 0.1], noise, box=2.0, grid=50)
        np.testing.assert_allclose(found, [target, target], atol=1e-6)


def test_path_is_graduated_descent_and_leaves_a_crest():
    # At δ = 1/2 the waves are gone (s = 0): from any start to 0. At δ = .75 0 is a crest.
    path = analysis.minimiser_path(RASTRIGIN, [0.5, 0.75, 0.5, 0.1, 0.0], BALL, [3.9])[:, 0]
    assert path[0] == 3.9
    np.testing.assert_allclose(path[[1, 3, 4, 5]], 0, atol=1e-8)
    assert 0.4 < abs(path[2]) < 0.5
    # Without smoothing it stays in its valley: 2x + 20π sin 2πx = 0 near 4.
    end = analysis.minimiser_path(RASTRIGIN, [0.0], BALL, [3.9])[-1, 0]
    assert 2 * end + 20 * np.pi * np.sin(2 * np.pi * end) == pytest.approx(0, abs=1e-6)
    assert 3.9 < end < 4
    with pytest.raises(RuntimeError, match=r"level 0\.5 did not end in 3 steps"):
        analysis.minimiser_path(RASTRIGIN, [0.5], BALL, [3.9], max_steps=3)


@pytest.mark.parametrize("sigma", [0.5, 2.0, 100.0])
def test_radius_of_strong_convexity_has_its_closed_form(sigma):
    for delta in (0.1, 0.25, 0.45, 0.7):
        found = analysis.strong_convexity_radius(
            smooth(RASTRIGIN, delta, BALL), [0.0], sigma, max_radius=2.0
        )
        expected = min(2.0, radius_of_rastrigin(delta, sigma))
        assert found == pytest.approx(expected, abs=1e-8)


def test_curvature_is_the_smallest_eigenvalue_in_any_direction():
    quadratic = Quadratic((0.5, 2.0, 7.0)).value
    assert analysis.lowest_curvature(quadratic, np.ones(3), 2.0) == pytest.approx(0.5)
    assert analysis.strong_convexity_radius(quadratic, np.ones(3), 0.49, max_radius=3.0) == 3.0
    assert analysis.strong_convexity_radius(quadratic, np.ones(3), 0.51, max_radius=3.0) == 0.0

    def quartic(x):  # x⁴ - 3y²x²: at (0, y) the smaller eigenvalue is -6y²
        return x[0] ** 4 - 3 * x[1] ** 2 * x[0] ** 2 + 10 * x[1] ** 2 + 5 * x[0] ** 2

    found = analysis.strong_convexity_radius(quartic, [0.0, 0.0], 4.0, max_radius=3.0)
    assert found == pytest.approx(1.0, abs=1e-6)  # 10 - 6y² = 4 on the ray (0, 1)


def test_where_a_function_is_nan_it_is_not_convex_and_has_no_minimisers():
    """NaN is not below σ, and a step of NaN is not longer than any bound."""

    def nowhere(x):
        return jnp.sum(x**2) * jnp.nan

    def inside(x):  # √(1 - x²) up to 1; NaN beyond, and its derivatives too
        return -jnp.sum(jnp.sqrt(1 - x**2))

    assert analysis.strong_convexity_radius(nowhere, [0.0], 1.0, max_radius=3.0) == 0.0
    found = analysis.strong_convexity_radius(inside, [0.0], 1.0, max_radius=3.0)
    assert found == pytest.approx(1.0, abs=1e-6)
    path = analysis.minimiser_path(nowhere, [1.0, 0.5], BALL, [1.0])
    np.testing.assert_array_equal(path, [[1.0], [np.nan], [np.nan]])
    with pytest.raises(ValueError, match="at level 1 has no finite value in the box of 3"):
        analysis.smoothed_minimisers(nowhere, [1.0], BALL, box=3.0)


def test_reports_tell_which_condition_of_rastrigin_fails_and_by_how_much():
    sigma, levels = 1.0, np.array([0.75, 0.4, 0.2, 0.1, 0.05])
    nice = analysis.check_sigma_nice(RASTRIGIN, sigma, levels, BALL, box=5.12, max_radius=1.0)
    radius = np.array([radius_of_rastrigin(delta, sigma) for delta in levels])
    np.testing.assert_allclose(nice.radius[1:], radius[1:], atol=1e-7)
    # The one level of the jump: x*_.75 is near ±1/2 and x*_.375 = 0, further than .75/2.
    assert nice.shift[0] > 0.375
    np.testing.assert_allclose(nice.shift[1:], 0, atol=1e-7)
    # Curvature on N(0; 3δ) is its least value at the first trough, or at 3δ.
    s = np.sinc(2 * levels[1:])
    worst = np.cos(2 * np.pi * np.minimum(3 * levels[1:], 0.5))
    np.testing.assert_allclose(
        nice.curvature[1:], 2 + 40 * np.pi**2 * s * worst, rtol=1e-4, atol=1e-4
    )
    assert nice.holds.tolist() == [False, False, False, False, True]  # 3δ ≤ 1/4 at last
    new = analysis.check_new_sigma_nice(
        RASTRIGIN, sigma, levels, BALL, [0.0], box=5.12, max_radius=4.0
    )
    np.testing.assert_allclose(new.radius, radius, atol=1e-7)
    np.testing.assert_allclose(new.d, radius / levels, atol=1e-6)
    np.testing.assert_allclose(new.gamma, [0.4 / 0.75, 0.5, 0.5, 0.5])
    assert new.holds.tolist() == [False, False, True, True, True]  # d = .25/δ ≥ 1
    # γ_m > 1/d_{m+1}: 1/2 > δ/.25 for δ_{m+1} = .1 and .05 only.
    assert new.reaches.tolist() == [False, False, True, True]


def test_a_quadratic_is_nice_at_every_level():
    report = analysis.check_new_sigma_nice(
        Quadratic((3.0,)).value, 3.0, [2.0, 1.0, 0.6], BALL, [0.0], box=5.0, max_radius=9.0
    )
    assert report.holds.all()
    assert report.reaches.all()
    np.testing.assert_allclose(report.radius, 9.0)
    assert not analysis.check_sigma_nice(
        Quadratic((3.0,)).value, 3.1, [1.0], BALL, box=5.0
    ).holds.any()


def test_alignment_probability_is_that_of_random_directions():
    # Beside the talk's formula, which is n = 2 whatever the dimension.
    generator = np.random.default_rng(0)
    for dimension in (2, 3, 10):
        v = generator.normal(size=(200_000, dimension))
        share = np.mean(np.abs(v[:, 0]) >= 0.3 * np.linalg.norm(v, axis=1))
        found = analysis.alignment_probability(0.3, dimension)
        assert found == pytest.approx(share, abs=4.5 * 0.5 / np.sqrt(200_000))
    assert analysis.alignment_probability(0.3, 2) == pytest.approx(
        analysis.alignment_probability_uniform_angle(0.3), rel=1e-12
    )
    assert analysis.alignment_probability(0.3, 3) == pytest.approx(0.7)  # Archimedes: 1 - c
    assert analysis.alignment_probability(0.3, 1000) < 1e-21
    assert analysis.alignment_probability(1.5, 10) == 0.0
    assert analysis.alignment_probability_uniform_angle(1.5) == 0.0
    assert analysis.alignment_probability(0.9, 1) == 1.0


def test_arrival_level_enters_the_ball_and_d_stays_in_its_bounds():
    r, a = 0.7, 3.0
    least = analysis.alignment_threshold(a * r, 1.0, r, a)
    low, high = analysis.d_bounds(a)
    for cosine in np.linspace(least + 1e-9, 1, 20):
        level = analysis.arrival_level(a * r, 1.0, cosine, r, a)
        assert level == pytest.approx(analysis.arrival_level(a * r, 1.0, -cosine, r, a))
        x = np.array([a * r, 0.0]) - level * np.array([cosine, np.sqrt(1 - cosine**2)])
        assert np.linalg.norm(x) == pytest.approx(r)
        d = a * r / level
        assert low <= a / np.sqrt(a**2 - 1) - 1e-6 <= d <= a / (a - 1) + 1e-6 <= high
        assert analysis.gamma_lower_bound(d) == 1 / d
    with pytest.raises(ValueError, match=r"no level exists.*at least 0.94"):
        analysis.arrival_level(a * r, 1.0, 0.5, r, a)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: noise_quadrature("bal"), "Did you mean 'ball'"),
        (lambda: noise_quadrature("ball", 0), "dimension must be a whole number >= 1"),
        (lambda: noise_quadrature("ball", points=3), "points must be a whole number >= 8"),
        (lambda: analysis.smoothed_minimisers(RASTRIGIN, [], BALL, box=1.0), "levels must be"),
        (lambda: analysis.smoothed_minimisers(RASTRIGIN, [1], BALL, box=0.0), "box must be"),
        (lambda: analysis.minimiser_path(RASTRIGIN, [-1.0], BALL, [0.0]), "not negative, got"),
        (lambda: analysis.check_sigma_nice(RASTRIGIN, 1.0, [0.0], BALL, box=1.0), "positive, got"),
        (
            lambda: analysis.check_new_sigma_nice(
                RASTRIGIN, 1.0, [0.1, 0.2], BALL, [0.0], box=1.0, max_radius=1.0
            ),
            "fall strictly",
        ),
        (lambda: analysis.d_bounds(1.2), "a must be finite and more than √2, got 1.2"),
        (lambda: analysis.sufficient_level(1.0, 1.0, 1.0, 1.0), r"gamma must lie in \(0, 1\)"),
        (lambda: analysis.gamma_lower_bound(0.5), "d_next must lie in"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
