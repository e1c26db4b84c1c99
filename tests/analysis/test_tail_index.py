import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax import problems
from clipjax.analysis import (
    block_tail_index,
    hill_curve,
    hill_tail_index,
    median_block_tail_index,
)

SIZE = 100_000


def draws(noise, seeds=4):
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), seeds)
        return [np.asarray(noise.sample(key, (SIZE,), jnp.float64)) for key in keys]


@pytest.mark.parametrize("alpha", [2.0, 1.8, 1.5, 1.2, 0.8])
def test_block_sums_find_the_index_of_stable_laws(alpha):
    # Over seeds the default's standard deviation at n = 10^5 is at most 0.064 (α = 2), the median
    # form's 0.016: means of four are within 0.13 and 0.05 at four standard deviations.
    samples = draws(problems.SymmetricStable(alpha))
    assert np.mean([median_block_tail_index(x) for x in samples]) == pytest.approx(alpha, abs=0.05)
    assert np.mean([block_tail_index(x) for x in samples]) == pytest.approx(alpha, abs=0.13)


@pytest.mark.parametrize(
    ("noise", "recorded"),
    [
        # What the estimator is known to say of laws that are not stable, all of finite variance.
        (problems.Normal(), 2.00),
        (problems.StudentT(3.0), 1.78),
        (problems.Pareto(2.5), 1.64),
        (problems.Weibull(0.2), 1.19),
    ],
    ids=str,
)
def test_block_sums_say_what_is_recorded_of_other_laws(noise, recorded):
    found = np.mean([block_tail_index(x) for x in draws(noise)])
    assert found == pytest.approx(recorded, abs=0.1)


def test_block_sums_of_vectors_and_the_formula_written_out():
    x = np.random.default_rng(0).standard_cauchy((600, 3))
    sums = [x[i : i + 24].sum(axis=0) for i in range(0, 600, 24)]
    slope = np.mean(np.log(np.linalg.norm(sums, axis=1))) - np.mean(
        np.log(np.linalg.norm(x, axis=1))
    )
    assert block_tail_index(x) == pytest.approx(np.log(24) / slope)  # 24 = largest divisor ≤ √600
    assert block_tail_index(x[:599], 20) == pytest.approx(block_tail_index(x[:580], 20))


def test_hill_finds_the_index_of_power_laws():
    # Standard error index/√k: 0.025 for k = 10,000; within 2 % at two of them.
    noise = problems.Pareto(2.5)
    found = np.mean([hill_tail_index(x + noise.mean, 10_000) for x in draws(noise)])
    assert found == pytest.approx(2.5, rel=0.02)
    # Recorded for k = 500 of 10^5, 4.5 % standard error each, halved by four seeds.
    for alpha, recorded in ((1.8, 1.77), (1.5, 1.46), (1.2, 1.21)):
        samples = draws(problems.SymmetricStable(alpha))
        found = np.mean([hill_tail_index(x, 500) for x in samples])
        assert found == pytest.approx(recorded, rel=0.12)
    assert np.mean([hill_tail_index(x, 500) for x in draws(problems.Normal())]) > 8


def test_hills_curve_is_the_formula_written_out():
    x = np.random.default_rng(1).standard_t(3, size=200)
    sizes = np.sort(np.abs(x))[::-1]
    curve = hill_curve(x, [1, 7, 50])
    for k, index in zip((1, 7, 50), curve.index, strict=True):
        assert index == pytest.approx(1 / np.mean(np.log(sizes[:k] / sizes[k])))
    np.testing.assert_allclose(curve.high - curve.index, 1.96 * curve.index / np.sqrt(curve.k))
    assert hill_curve(x).k[0] == 10


def test_hills_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(2)
    curves = [hill_curve(rng.pareto(1.5, 2000) + 1, [200]) for _ in range(400)]
    share = np.mean([c.low[0] <= 1.5 <= c.high[0] for c in curves])
    assert share == pytest.approx(0.95, abs=0.045)  # four standard deviations of 1.1 %


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: block_tail_index(np.ones(3)), "3 values"),
        (lambda: block_tail_index(np.array([1.0, np.nan, 1, 1])), "not finite"),
        (lambda: block_tail_index(np.ones(10), 1), "block_size is 1"),
        (lambda: block_tail_index(np.ones(10), 6), "block_size is 6"),
        (lambda: block_tail_index(np.ones((2, 2, 2))), r"shape \(2, 2, 2\)"),
        (lambda: median_block_tail_index(np.ones(10), (6, 7)), "none of the block sizes"),
        (lambda: hill_tail_index(np.ones(10), 0), r"k \(of ks\) is \[0\]"),
        (lambda: hill_tail_index(np.ones(10), 10), "from 1 to 9"),
        (lambda: hill_tail_index(np.array([1.0, 2, 0, 0]), 2), "3-th largest value is 0"),
        (lambda: hill_tail_index(np.ones((4, 2)), 2), r"shape \(4, 2\)"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
