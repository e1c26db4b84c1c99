"""One coordinate: runs and the chance to leave by independent loops, by SciPy and by theory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from clipjax.problems import Normal, StudentT
from experiments.lecture import one_coordinate
from experiments.lecture.one_coordinate import Setting, landmarks, leaves, simulate


def test_runs_equal_a_loop_written_out():
    """Clipped at 0.8 and not at all, with the same draws; who was outside once has left."""
    law, key, steps = StudentT(1.5), jax.random.key(5), 20
    settings = [
        Setting(0.9, 0.1, np.inf, 0.5, -1.0, np.inf),
        Setting(1.2, 0.5, 0.8, 1.0, -1.5, 1.8),
    ]
    runs = simulate(one_coordinate.hollows, law, settings, key, replicas=64, steps=steps, shown=64)
    for i, (setting, of) in enumerate(zip(settings, jax.random.split(key, 2), strict=True)):
        x = np.full(64, setting.start)
        left = np.zeros(64, bool)
        for k in range(steps):
            draws = np.asarray(law.sample(jax.random.fold_in(of, k), (64,), jnp.float32))
            slope = stats.norm.pdf(x, 0, 0.9) * x / 0.81 + stats.norm.pdf(x, 13, 5) * (x - 13) / 5
            g = slope + setting.scale * draws.astype(np.float64)
            x = x - setting.rate * np.clip(g, -setting.level, setting.level)
            left |= (x < setting.low) | (x > setting.high)
            np.testing.assert_allclose(runs.paths[i][k + 1], x, rtol=1e-4, atol=1e-4)
        np.testing.assert_array_equal(runs.paths[i][-1], runs.last[i])
        assert 0 < left.sum() < 64
        assert runs.left[i] == left.sum()


def test_the_chance_to_leave_is_the_integral_over_one_and_two_steps():
    """From 1 in the wells: 1 − ∫ p(x1|1) dx1, and 1 − ∫ p(x1|1) ∫ p(x2|x1) dx2 dx1, by SciPy."""
    setting = Setting(0.1, 2.0, np.inf, 1.0, 0.2, 1.7)
    density = functools.partial(stats.norm.pdf, scale=2.0)
    spread = setting.rate * setting.scale

    def stays(x):
        mean = x - setting.rate * (4 * x * (x**2 - 1) + 0.15)
        law = functools.partial(stats.norm.pdf, loc=mean, scale=spread)
        low, high = stats.norm.cdf([setting.low, setting.high], mean, spread)
        return law, high - low

    first, once = stays(1.0)
    twice = integrate.quad(lambda x: first(x) * stays(x)[1], setting.low, setting.high)[0]
    for steps, inside in ((1, once), (2, twice)):
        found = leaves(one_coordinate.wells, density, setting, steps=steps, resolution=0.05)
        assert found == pytest.approx(1 - inside, abs=1e-9)


def test_the_chance_to_leave_converges_in_the_number_of_points():
    """The sharpest density that is used: Student's, with a scale of a fortieth of the interval."""
    density = functools.partial(stats.t.pdf, df=1.5, scale=0.12)
    setting = Setting(1.0, 0.12, np.inf, 0.0, -2.6, 2.6)
    coarse, fine = (
        leaves(one_coordinate.hollows, density, setting, steps=300, resolution=0.12 / points)
        for points in (4.0, 8.0)
    )
    assert coarse == pytest.approx(fine, abs=1e-5)


def test_stationary_points():
    marks = landmarks()
    for function, points in (
        (one_coordinate.waves, (marks.wave_top, marks.wave_low)),
        (one_coordinate.hollows, (marks.hollow_top, marks.narrow, marks.wide)),
        (one_coordinate.wells, (marks.well_top, marks.left_well, marks.right_well)),
    ):
        np.testing.assert_allclose(one_coordinate.slopes(function, np.array(points)), 0, atol=1e-11)
        top, *minima = (one_coordinate.curvature(function, x) for x in points)
        assert top < 0 < min(minima)
    assert marks.well_top == pytest.approx(0.0375530, abs=1e-6)  # 4x³ − 4x + 0.15 = 0


def test_normal_noise_without_clipping_is_a_chain_of_known_variance():
    """f = x²/2, step η: variance η²σ²/(1 − (1 − η)²) in the end."""
    setting = Setting(0.5, 1.0, np.inf, 0.0, -np.inf, np.inf)
    runs = simulate(
        lambda x: 0.5 * x**2, Normal(), [setting], jax.random.key(2), replicas=20_000, steps=40
    )
    expected = 0.25 / (1 - 0.25)
    assert runs.last.var() == pytest.approx(expected, rel=4 * (2 / 20_000) ** 0.5)
    assert runs.left.tolist() == [0]
