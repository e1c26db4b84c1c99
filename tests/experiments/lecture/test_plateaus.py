"""Plateaus of SGD: the problem, the loops written out, and the lecture's claims."""

import jax
import numpy as np
import optax
import pytest

from experiments.lecture import logistic_problem
from experiments.lecture import plateaus as experiment
from experiments.lecture.logistic_problem import draw, make_problem, run_sgd, slope, start_point
from experiments.lecture.plateaus import QUICK, Config


def test_every_claim_holds(found, refuted):
    assert len(experiment.judge(QUICK, found)) == 9
    assert refuted(found) == []


def test_claims_fail_where_the_phenomenon_is_absent(found):
    """All batches alike, all methods at the plateau but clipped ones far from it, no slack."""
    changed = dict(found, slack=found["slack"] - 1, minimum=found["minimum"] + 1)
    level = np.full_like(found["gap"][:, 0], 0.1)
    changed["gap"] = np.broadcast_to(level[:, None], found["gap"].shape)
    changed["moment"] = found["moment"] * 1e-3
    for name in experiment.METHODS:
        changed[f"gap_{name}"] = level * (10 if name == "clipped_sgd" else 0.99)
    assert [c.says for c in experiment.judge(QUICK, changed) if c.confirmed] == []


@pytest.mark.parametrize(
    ("ridge", "minimum", "smoothness"), [(1.0, 0.542404, 4.554714), (0.1, 0.385123, 3.654714)]
)
def test_the_problem_is_the_lectures(ridge, minimum, smoothness):
    problem = make_problem(ridge)
    assert abs(problem.minimum - minimum) < 1e-6
    assert abs(problem.smoothness - smoothness) < 1e-6


def by_hand(problem, x, examples):
    """The gradient of the mean over examples, in NumPy."""
    rows, labels = np.asarray(problem.features)[examples], problem.labels[examples]
    miss = 1 / (1 + np.exp(labels * (rows @ x)))
    return -(rows * (labels * miss)[:, None]).mean(0) + problem.ridge * x


def test_sgd_is_a_loop_written_out():
    problem, key = make_problem(0.1), jax.random.key(5)
    with jax.enable_x64(True):
        found = run_sgd(
            problem, optax.sgd(0.1), key[None], batch_size=20, steps=4, at=np.array([0, 4])
        )
        x = np.asarray(start_point())
        moments = []
        for k in range(5):
            gradients = [by_hand(problem, x, [i]) for i in range(200)]
            moments.append(np.mean([g @ g for g in gradients]))
            x = x - 0.1 * by_hand(problem, x, np.asarray(draw(jax.random.fold_in(key, k), 20)))
        first, last = (float(problem.value(p)) for p in (start_point(), _after(problem, key, 4)))
    np.testing.assert_allclose(found.moment[0], [moments[0], moments[4]], rtol=1e-12)
    expected = np.array([first, last]) - problem.minimum
    np.testing.assert_allclose(found.gap[0], expected, rtol=1e-10)


def _after(problem, key, steps):
    x = np.asarray(start_point())
    for k in range(steps):
        x = x - 0.1 * by_hand(problem, x, np.asarray(draw(jax.random.fold_in(key, k), 20)))
    return x


def test_svrg_is_a_loop_written_out():
    """Anchors at the steps 0 and 12 (3 passes in batches of 50), the gap of every step."""
    problem, key = make_problem(1.0), jax.random.key(6)
    with jax.enable_x64(True):
        found = experiment.run_svrg(problem, key[None], rate=0.1, batch_size=50, steps=14)[0]
        x = anchor = np.asarray(start_point())
        every = np.arange(200)
        expected = [float(problem.value(x)) - problem.minimum]
        for k in range(14):
            anchor = x if k % 12 == 0 else anchor
            batch = np.asarray(draw(jax.random.fold_in(key, k), 50))
            corrected = by_hand(problem, x, batch) - by_hand(problem, anchor, batch)
            x = x - 0.1 * (corrected + by_hand(problem, anchor, every))
            expected.append(float(problem.value(x)) - problem.minimum)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_batches_have_no_example_twice():
    for size in (1, 20, 200):
        drawn = np.asarray(draw(jax.random.key(0), size))
        assert len(set(drawn.tolist())) == size == len(drawn)


def test_the_slope_is_that_of_a_power():
    steps = logistic_problem.log_spaced(1000, 5)
    assert steps[0] == 1
    assert steps[-1] == 1000
    runs = np.random.default_rng(0).uniform(0.5, 1.5, (400, 1)) / steps**0.7
    found, low, high = slope(steps, runs, 0)
    np.testing.assert_allclose([found, low, high], -0.7, rtol=1e-9)


def test_bad_settings_are_named():
    with pytest.raises(ValueError, match=r"Config.batches\[0\] is 201"):
        Config(batches=(201,))
    with pytest.raises(ValueError, match=r"Config.ridges\[0\] is 0.0"):
        Config(ridges=(0.0,))
