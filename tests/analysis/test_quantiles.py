import numpy as np
import pytest

from clipjax.analysis import bootstrap_ranks, quantiles


@pytest.mark.parametrize("size", [1, 2, 7, 100, 2000])
def test_quantiles_are_numpys_inverse_of_the_empirical_distribution(size):
    sample = np.random.default_rng(0).normal(size=(size, 3))
    levels = (0.01, 0.5, 0.9, 0.99, 0.999)
    found = quantiles(sample, levels)
    np.testing.assert_array_equal(
        found.value, np.quantile(sample, levels, axis=0, method="inverted_cdf")
    )
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99, 0.999])
def test_intervals_are_the_percentile_bootstraps(level):
    # 4,000 resamples of the ranks 1..n themselves; a rank may be off by one where the exact
    # distribution passes 2.5 % between two ranks.
    size, rng = 500, np.random.default_rng(1)
    resamples = rng.integers(1, size + 1, (4000, size))
    drawn = np.quantile(resamples, level, axis=1, method="inverted_cdf")
    simulated = np.quantile(drawn, [0.025, 0.975], method="inverted_cdf")
    assert np.abs(np.array(bootstrap_ranks(size, level)) - simulated).max() <= 1


def test_intervals_cover_as_often_as_they_say():
    # The interval holds the true median when fewer than `high` and at least `low` of n values lie
    # below it: checked on 2,000 samples of 99; 95 % ± 4 standard deviations of 0.5 %.
    samples = np.random.default_rng(2).standard_t(1.5, size=(99, 2000))
    found = quantiles(samples, [0.5])
    share = np.mean((found.low <= 0) & (found.high >= 0))
    assert share == pytest.approx(0.95, abs=0.02)


def test_replicas_that_diverged_stay_in_the_sample():
    sample = np.array([1.0, np.inf, 2.0, 3.0, np.inf])
    found = quantiles(sample, [0.6, 0.7])
    assert found.value.tolist() == [3.0, np.inf]  # the third and fourth smallest of five
    assert found.high.tolist() == [np.inf, np.inf]


def test_rounding_does_not_shift_a_rank():
    # 0.07 * 100 is 7.000000000000001 in floating point; the 7 % quantile is still the 7th of 100.
    assert quantiles(np.arange(1.0, 101.0), [0.07]).value.tolist() == [7.0]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"count replicas that diverged as \+inf"):
        quantiles(np.array([1.0, np.nan]), [0.5])
    with pytest.raises(ValueError, match="empty"):
        quantiles(np.array([]), [0.5])
    with pytest.raises(ValueError, match=r"level is 1\.0"):
        quantiles(np.ones(3), [1.0])
    with pytest.raises(ValueError, match=r"confidence is 95"):
        quantiles(np.ones(3), [0.5], confidence=95)
