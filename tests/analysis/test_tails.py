import numpy as np
import pytest
import scipy.stats

from clipjax.analysis import gaussian_control, moments, normal_quantiles, outlier_ratios, survival
from clipjax.analysis.tails import NORMAL_EXTREME, NORMAL_MILD


def test_the_denominators_are_a_normal_laws_shares():
    # Jordanova and Petkova round them to 0.0035 and 1.2e-6.
    assert pytest.approx(0.003488, abs=5e-7) == NORMAL_MILD
    assert pytest.approx(1.171e-6, rel=1e-3) == NORMAL_EXTREME


def test_outliers_are_those_of_known_laws():
    # The ratio of a law's shares, from its quantiles; 10^6 values, five standard deviations.
    for law, extreme in (
        (scipy.stats.norm(), False),
        (scipy.stats.t(3), True),
        (scipy.stats.expon(), True),
    ):
        sample = law.rvs(1_000_000, random_state=np.random.default_rng(0))
        low, high = law.ppf([0.25, 0.75])
        for reach, found, normal in zip(
            (1.5, 3.0), outlier_ratios(sample), (NORMAL_MILD, NORMAL_EXTREME), strict=True
        ):
            share = law.sf(high + reach * (high - low))
            if reach == 3.0 and not extreme:
                continue  # one expected value in a million
            tolerance = 5 * np.sqrt(share / 1e6) + 0.01 * share
            assert abs(found * normal - share) < tolerance


def test_recorded_ratios_of_controls():
    # Recorded: chi with 1, 10 and 100 degrees of freedom 4.6, 1.8 and 1.26; Student's t(3) 7.8.
    rng = np.random.default_rng(1)
    for d, recorded in ((1, 4.6), (10, 1.8), (100, 1.26)):
        norms = np.sqrt(rng.chisquare(d, size=400_000))
        assert outlier_ratios(norms).mild == pytest.approx(recorded, rel=0.07)
    assert outlier_ratios(rng.standard_t(3, 400_000)).mild == pytest.approx(7.8, rel=0.05)


def test_the_control_is_gaussian_with_the_samples_mean_and_spread():
    sample = np.random.default_rng(2).pareto(1.5, 10_000)
    control = gaussian_control(sample, seed=3)
    assert control.shape == sample.shape
    assert control.mean() == pytest.approx(sample.mean())
    assert control.std() == pytest.approx(sample.std())
    scaled = (control - control.mean()) / control.std()
    assert scipy.stats.kstest(scaled, "norm").pvalue > 1e-3
    assert not np.array_equal(control, gaussian_control(sample, seed=4))


def test_survival_is_the_share_of_values_at_least_as_large():
    sample = np.random.default_rng(3).normal(size=50)
    for s, share in zip(*survival(sample), strict=True):
        assert share == pytest.approx(np.mean(sample >= s))


def test_normal_quantiles_are_scipys_probability_plot():
    sample = np.random.default_rng(4).exponential(size=500)
    curve = normal_quantiles(sample)
    (expected, ordered), _ = scipy.stats.probplot(sample)
    # probplot places the extremes a little differently (Filliben's medians).
    np.testing.assert_allclose(curve.x[5:-5], expected[5:-5], atol=0.02)
    np.testing.assert_allclose(curve.y, (ordered - sample.mean()) / sample.std())
    assert normal_quantiles(np.ones(5)).y.tolist() == [0.0] * 5


def test_moments_are_those_of_the_sample():
    x = np.array([0.0, 0.0, 0.0, 4.0])
    # mean 1, deviations -1, -1, -1, 3: variance 3, third moment 6, fourth 21.
    found = moments(x)
    assert found == pytest.approx(
        {
            "mean": 1,
            "std": 3**0.5,
            "skewness": 6 / 3**1.5,
            "excess_kurtosis": 21 / 9 - 3,
            "maximum": 4,
        }
    )


@pytest.mark.parametrize(
    "function", [outlier_ratios, gaussian_control, survival, normal_quantiles, moments]
)
def test_bad_input_is_named(function):
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        function(np.ones(3))
    with pytest.raises(ValueError, match="not finite"):
        function(np.array([1.0, np.inf, 1.0, 1.0]))
