"""Leaving a minimum: the claims, the quadrature and the runs by independent loops and theory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from clipjax.problems import Normal, StudentT
from experiments.lecture import escape as experiment
from experiments.lecture.escape import QUICK, Config, Setting, landmarks, leaves, simulate


@pytest.fixture(scope="module")
def found():
    return experiment.compute(QUICK)


def failed(found):
    return [i for i, claim in enumerate(experiment.judge(QUICK, found)) if not claim.confirmed]


def test_every_claim_holds(found):
    claims = experiment.judge(QUICK, found)
    assert len(claims) == 17
    assert [claim.says for claim in claims if not claim.confirmed] == []


def changed_waves(found):
    """Gradient descent goes on as SGD does, and SGD stays."""
    return {"waves_gd": found["waves_sgd"], "waves_left": found["waves_left"] // 3}


def changed_hollows(found):
    """The large step does no more than the small one; above 2/f'' all converge, none circles."""
    return {"large": found["small"], "sweep_end": found["sweep_end"] * 0}


def changed_wells(found):
    """The flow mixes, the noise does not: all stay in the right well."""
    return {
        "flow_last": -found["flow_last"],
        "sde_last": found["flow_last"],
        "long_last": np.abs(found["long_last"]),
        "kramers_left": found["kramers_left"] // 2,
    }


def changed_tails(found):
    """Tails do nothing: every law leaves as often as the normal one."""
    left = found["tail_left"].copy()
    left[:, 1:] = left[:, :1]
    return {"tail_left": left}


def changed_clipping(found):
    """Clipping at the long level keeps, at the short one does not, wherever it is."""
    return {"tail_left": found["tail_left"][:, :, [0, 2, 1]]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (changed_waves, [0, 1, 2]),
        (changed_hollows, [3, 4, 5]),
        (changed_wells, [7, 8, 9, 10]),
        (changed_tails, [11, 12, 13, 15, 16]),
        (changed_clipping, [14, 15, 16]),
    ],
)
def test_claims_fail_where_the_phenomenon_is_absent(found, change, expected):
    assert failed(dict(found, **change(found))) == expected


def test_a_shift_costs_as_the_integral_of_the_slope_says():
    """The seventh claim has no array: f is known. f(x* − 1) − f(x*) = −∫ f' over [x* − 1, x*]."""
    costs = []
    for minimum in (landmarks().narrow, landmarks().wide):
        x = np.linspace(minimum - 1, minimum, 1001)
        costs.append(-integrate.simpson(experiment.slopes(experiment.hollows, x), x=x))
        rise = experiment.height(experiment.hollows, minimum - 1) - experiment.height(
            experiment.hollows, minimum
        )
        assert rise == pytest.approx(costs[-1], rel=1e-9)
    assert costs[0] > 20 * costs[1]


def test_runs_equal_a_loop_written_out():
    """Clipped at 0.8 and not at all, with the same draws; who was outside once has left."""
    law, key, steps = StudentT(1.5), jax.random.key(5), 20
    settings = [
        Setting(0.9, 0.1, np.inf, 0.5, -1.0, np.inf),
        Setting(1.2, 0.5, 0.8, 1.0, -1.5, 1.8),
    ]
    runs = simulate(experiment.hollows, law, settings, key, replicas=64, steps=steps, shown=64)
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
        found = leaves(experiment.wells, density, setting, steps=steps, resolution=0.05)
        assert found == pytest.approx(1 - inside, abs=1e-9)


def test_the_chance_to_leave_converges_in_the_number_of_points():
    """The sharpest density that is used: Student's, with a scale of a fortieth of the interval."""
    density = functools.partial(stats.t.pdf, df=1.5, scale=0.12)
    setting = Setting(1.0, 0.12, np.inf, 0.0, -2.6, 2.6)
    coarse, fine = (
        leaves(experiment.hollows, density, setting, steps=300, resolution=0.12 / points)
        for points in (4.0, 8.0)
    )
    assert coarse == pytest.approx(fine, abs=1e-5)


def test_kramers_rate_is_the_limit_of_the_exact_mean_time():
    """τ = (2/σ²) ∫_c^a e^{2f(y)/σ²} ∫_y^∞ e^{−2f(z)/σ²} dz dy to reach c: 1/τ → the rate."""
    marks = landmarks()
    x = np.linspace(marks.left_well, 3.0, 40_001)
    f = (x**2 - 1) ** 2 + 0.15 * x
    ratios = []
    for noise in (0.6, 0.3):
        beta = 2 / noise**2
        tail = integrate.cumulative_simpson(np.exp(-beta * f)[::-1], x=-x[::-1], initial=0)[::-1]
        upto = x <= marks.right_well
        time = beta * integrate.simpson(np.exp(beta * f[upto]) * tail[upto], x=x[upto])
        ratios.append(1 / time / experiment.kramers(noise)[1])
    assert abs(ratios[1] - 1) < 0.03 < abs(ratios[0] - 1) < experiment.ROUGH


def test_the_error_of_the_discrete_steps_shrinks_with_them(monkeypatch):
    """Of first order: half the step, half the error."""
    coarse = experiment.step_error(0.9)
    monkeypatch.setattr(experiment, "FLOW_STEP", experiment.FLOW_STEP / 2)
    assert experiment.step_error(0.9) == pytest.approx(coarse / 2, rel=0.2)


def test_stationary_points_and_ways():
    marks = landmarks()
    for function, points in (
        (experiment.waves, (marks.wave_top, marks.wave_low)),
        (experiment.hollows, (marks.hollow_top, marks.narrow, marks.wide)),
        (experiment.wells, (marks.well_top, marks.left_well, marks.right_well)),
    ):
        np.testing.assert_allclose(experiment.slopes(function, np.array(points)), 0, atol=1e-11)
        top, *minima = (experiment.curvature(function, x) for x in points)
        assert top < 0 < min(minima)
    assert marks.well_top == pytest.approx(0.0375530, abs=1e-6)  # 4x³ − 4x + 0.15 = 0
    np.testing.assert_allclose(experiment.WAYS, marks.ways, atol=0.005)


def test_all_laws_have_the_same_median_size():
    laws, scales = experiment._laws(Config())
    for law, scale in zip(laws, scales, strict=True):
        draws = scale * np.asarray(law.sample(jax.random.key(1), (200_000,), jnp.float32))
        # The median's deviation is 1/(2 p √n), p the density of the size there: about 3 to normal.
        share = (np.abs(draws) < 0.15 * stats.norm.ppf(0.75)).mean()
        assert share == pytest.approx(0.5, abs=4 * 0.5 / 200_000**0.5)


def test_normal_noise_without_clipping_is_a_chain_of_known_variance():
    """f = x²/2, step η: variance η²σ²/(1 − (1 − η)²) in the end."""
    setting = Setting(0.5, 1.0, np.inf, 0.0, -np.inf, np.inf)
    runs = simulate(
        lambda x: 0.5 * x**2, Normal(), [setting], jax.random.key(2), replicas=20_000, steps=40
    )
    expected = 0.25 / (1 - 0.25)
    assert runs.last.var() == pytest.approx(expected, rel=4 * (2 / 20_000) ** 0.5)
    assert runs.left.tolist() == [0]


def test_intervals_are_the_published_ones():
    """Wilson's of 81/263, and Newcombe's of 9/10 − 3/10 (his papers of 1998)."""
    np.testing.assert_allclose(experiment.wilson(81, 263), [81 / 263, 0.2553, 0.3662], atol=5e-5)
    np.testing.assert_allclose(experiment.difference(9, 3, 10), [0.6, 0.1705, 0.8090], atol=5e-5)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"short_clip, long_clip are 3.0, 4.0; expected the first"):
        Config(short_clip=3.0)
    with pytest.raises(ValueError, match=r"between that and 10.36"):
        Config(long_clip=11.0)
    with pytest.raises(ValueError, match=r"Config.tail is 2.0; expected a number above 1, below 2"):
        Config(tail=2.0)
    with pytest.raises(ValueError, match=r"Config.batches\[1\] is 0; expected a whole number from"):
        Config(batches=(1, 0))
