"""SGD on a line: the ball by theory, by an independent loop, and the lecture's claims."""

import jax
import numpy as np
import optax
import pytest

from experiments.lecture import sgd_on_a_line as experiment
from experiments.lecture.sgd_on_a_line import QUICK, Config, follow, make_line


def test_every_claim_holds(found, refuted):
    assert len(experiment.judge(QUICK, found)) == 6
    assert refuted(found) == []


def test_claims_fail_where_the_phenomenon_is_absent(found):
    """A ball of half the size, averages that are no closer: told as not confirmed."""
    changed = dict(found, ball_last=found["ball_last"] / 2)
    for name in ("averaged_sgd", "clipped_sgd", "clipped_sstm"):
        changed[f"distance_{name}"] = found["distance_sgd"]
    changed["distance_gd"] = found["distance_gd"] * 10
    failed = [i for i, c in enumerate(experiment.judge(QUICK, changed)) if not c.confirmed]
    assert failed == [0, 1, 3, 4, 5]


def test_the_covariance_is_that_of_one_more_step():
    """E over all N^b batches, one by one: S is what one step makes of S (N = 5, b = 2)."""
    line, rate = make_line(Config(points=5)), 0.3
    covariance = experiment.stationary_covariance(line, rate, 2)
    residuals = line.heights - line.rows @ line.solution
    after = np.zeros((2, 2))
    for i in range(5):
        for j in range(5):
            a, r = line.rows[[i, j]], residuals[[i, j]]
            shrink = np.eye(2) - rate * a.T @ a / 2
            push = rate * a.T @ r / 2
            after += (shrink @ covariance @ shrink.T + np.outer(push, push)) / 25
    np.testing.assert_allclose(after, covariance, atol=1e-14)


def test_a_step_that_is_too_large_has_no_ball():
    """|1 - α H| > 1 already for the mean: α = 3 with H = diag(about 1/12, 1)."""
    with pytest.raises(ValueError, match=r"step 3.0 and batches of 2 leaves every ball"):
        experiment.stationary_covariance(make_line(Config()), 3.0, 2)


def test_paths_equal_a_loop_written_out():
    line = make_line(Config(points=7))
    key = jax.random.key(3)
    with jax.enable_x64(True):
        path = follow(line, optax.sgd, [0.5], key[None], steps=5, batch_size=2)[0, 0]
        w = np.array([5.5, 1.5])
        expected = [w]
        for k in range(5):
            i = np.asarray(jax.random.randint(jax.random.fold_in(key, k), (2,), 0, 7))
            a, y = line.rows[i], line.heights[i]
            w = w - 0.5 * (a[0] * (a[0] @ w - y[0]) + a[1] * (a[1] @ w - y[1])) / 2
            expected.append(w)
    np.testing.assert_allclose(path, expected, rtol=1e-13)


def test_the_line_is_the_lectures():
    """N = 100, x in (-1/2, 1/2); the solution within 5 σ/√(N var) of (3, 4): 5·0.2/√(100/12)."""
    line = make_line(Config())
    assert line.rows.shape == (100, 2)
    assert np.abs(line.rows[:, 0]).max() <= 0.5
    np.testing.assert_allclose(line.solution, [3, 4], atol=5 * 0.2 / (100 / 12) ** 0.5)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match=r"Config.points is 2; expected a whole number from 3"):
        Config(points=2)
    with pytest.raises(ValueError, match=r"Config.rates\[0\] is -1.0"):
        Config(rates=(-1.0,))
