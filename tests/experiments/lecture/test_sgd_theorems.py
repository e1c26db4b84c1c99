"""Theorems on SGD: bounds by hand, the two-phase method written out, and the claims."""

import jax
import numpy as np
import pytest

from experiments.lecture import sgd_theorems as experiment
from experiments.lecture.logistic_problem import make_problem, start_point
from experiments.lecture.sgd_theorems import QUICK, Config


def test_every_claim_holds(found, refuted):
    assert len(experiment.judge(QUICK, found)) == 8
    assert refuted(found) == []


def test_claims_fail_where_the_phenomenon_is_absent(found):
    """Gaps above every bound that fall like 1/√k, the constant step's like 1/k."""
    changed = dict(found)
    for name in found:
        if name.startswith("gap_"):
            power = 1.0 if name == "gap_pl_constant" else 0.5
            one = 1e4 / found["steps"] ** power
            changed[name] = np.broadcast_to(one, found[name].shape) * _wobble(len(found[name]))
    changed["newton"] = changed["newton_plain"] = found["newton_plain"]
    assert [c.says for c in experiment.judge(QUICK, changed) if c.confirmed] == []


def _wobble(count):
    return np.random.default_rng(0).uniform(0.9, 1.1, (count, 1))


def test_bounds_by_hand():
    """(1 - 2·0.1)^k gap + Lσ²·0.1/4, Lσ²/(2k) with σ² = 2; Rσ/√N at the last step; 5R²L/√k."""
    strong, convex = make_problem(1.0), make_problem(0.0)
    steps = np.array([10, QUICK.steps])
    first = float(strong.value(start_point())) - strong.minimum
    found = experiment.bound("pl_constant", QUICK, strong, 2.0, steps)
    np.testing.assert_allclose(found[0], 0.8**10 * first + strong.smoothness * 0.05, rtol=1e-6)
    found = experiment.bound("pl_decreasing", QUICK, strong, 2.0, steps)
    np.testing.assert_allclose(found, strong.smoothness / steps)
    far = experiment.distance(convex)
    found = experiment.bound("convex_constant", QUICK, convex, 4.0, steps)
    np.testing.assert_allclose(found[1], far * 2 / QUICK.steps**0.5)
    found = experiment.bound("convex_decreasing", QUICK, convex, 0.0, steps)
    np.testing.assert_allclose(found, 5 * far**2 * convex.smoothness / np.sqrt(steps))


def test_the_two_phase_method_is_a_loop_written_out():
    problem, key, steps = make_problem(0.0), jax.random.key(2), 7
    rows = np.asarray(problem.features) * problem.labels[:, None]
    moment = (rows**2).sum(1).max()
    far = experiment.distance(problem)

    def averaged(key, x, rate, count, gradient):
        mean = x.copy()
        for k in range(count):
            row = rows[int(jax.random.randint(jax.random.fold_in(key, k), (), 0, 200))]
            x = x - rate * gradient(x, row)
            mean = mean + (x - mean) / (k + 1)
        return mean

    def sigmoid(t):
        return 1 / (1 + np.exp(-t))

    def plain(x, row):
        return -sigmoid(-row @ x) * row

    with jax.enable_x64(True):
        found = experiment.two_phase_newton(problem, key[None], steps=steps)[:, 0]
        first, second = jax.random.split(key)
        start = np.asarray(start_point())
        whole = averaged(first, start, far / np.sqrt(moment * 7), 7, plain)
        point = averaged(first, start, far / np.sqrt(moment * 3), 3, plain)

        def model(x, row):
            miss = sigmoid(-row @ point)
            return (-miss + miss * (1 - miss) * row @ (x - point)) * row

        answer = averaged(second, point, 0.5 / moment, 4, model)
        expected = [float(problem.value(x)) - problem.minimum for x in (whole, answer)]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_a_step_that_the_theorem_does_not_allow_is_refused():
    with pytest.raises(ValueError, match=r"rate is 0.5; the theorem needs a step below .* = 0.5"):
        Config(rate=0.5)
