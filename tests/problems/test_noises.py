import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from clipjax.problems import (
    BurrXII,
    Exponential,
    Normal,
    Pareto,
    Standardised,
    StudentT,
    SymmetricStable,
    Weibull,
)


def centred(law, scale=1.0):
    """A SciPy law moved to mean 0, scaled."""
    return lambda s: law.cdf(np.asarray(s) / scale + law.mean())


STABLE = scipy.stats.levy_stable
LAWS = [
    (Exponential(2.0), centred(scipy.stats.expon(), 2.0)),
    (Weibull(0.2), centred(scipy.stats.weibull_min(0.2))),
    (Weibull(1.5, scale=3.0), centred(scipy.stats.weibull_min(1.5), 3.0)),
    (BurrXII(1.0, 2.3), centred(scipy.stats.burr12(1.0, 2.3))),
    (BurrXII(3.0, 0.5, scale=0.5), centred(scipy.stats.burr12(3.0, 0.5), 0.5)),
    (Pareto(2.5), centred(scipy.stats.pareto(2.5))),
    (SymmetricStable(2.0), scipy.stats.norm(scale=np.sqrt(2)).cdf),
    (SymmetricStable(1.0, scale=2.0), scipy.stats.cauchy(scale=2.0).cdf),
]


@pytest.mark.parametrize(("noise", "cdf"), LAWS, ids=lambda x: str(x) if "scale" in str(x) else "")
def test_noise_follows_its_law(noise, cdf):
    # In float64: close to its lower end the centred Weibull law has steps of float32's rounding.
    with jax.enable_x64(True):
        sample = np.asarray(noise.sample(jax.random.key(1), (100_000,), jnp.float64))
    # Kolmogorov-Smirnov distance of 100,000 draws exceeds 1.95 / √100,000 = 0.0062 with p = 0.1 %.
    assert scipy.stats.kstest(sample, cdf).statistic < 0.0062


@pytest.mark.parametrize("alpha", [1.8, 1.5, 1.2, 0.8])
def test_stable_noise_has_its_characteristic_function(alpha):
    # E cos(tξ) = exp(-|t|^α); the mean of 200,000 cosines is off by at most 4 * √(1/2 / 200,000).
    sample = np.asarray(SymmetricStable(alpha).sample(jax.random.key(2), (200_000,), jnp.float32))
    t = np.array([0.1, 0.5, 1.0, 2.0, 4.0])
    found = np.cos(t[:, None] * sample.astype(float)).mean(axis=1)
    np.testing.assert_allclose(found, np.exp(-(t**alpha)), atol=4 * np.sqrt(0.5 / 200_000))
    # Symmetric: E sin(tξ) = 0.
    sines = np.sin(t[:, None] * sample.astype(float)).mean(axis=1)
    np.testing.assert_allclose(sines, 0, atol=4 * np.sqrt(0.5 / 200_000))


def test_stable_sums_are_stable():
    # (ξ_1 + ... + ξ_10) / 10^(1/α) has the law of ξ_1.
    draws = SymmetricStable(1.5).sample(jax.random.key(3), (10, 50_000), jnp.float32)
    sums = np.asarray(draws).sum(0) / 10 ** (1 / 1.5)
    other = SymmetricStable(1.5).sample(jax.random.key(4), (50_000,), jnp.float32)
    assert scipy.stats.ks_2samp(sums, np.asarray(other)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("noise", "survival"),
    [
        # P(|ξ| > s) → 2 Γ(α) sin(πα/2) / π s^-α for the stable law; 0.4 s^-1.5 ... at s = 1e3
        # the next term of the series is 1e-4 of the first.
        (SymmetricStable(1.5), lambda s: 2 * 0.8862269 * np.sin(0.75 * np.pi) / np.pi * s**-1.5),
        (Pareto(1.5), lambda s: (s + 3.0) ** -1.5),
        (BurrXII(1.0, 1.5), lambda s: (1 + s + 2.0) ** -1.5),
    ],
    ids=["stable", "pareto", "burr"],
)
def test_far_tails_hold_as_many_draws_as_the_law_says(noise, survival):
    sizes = np.abs(noise.sample(jax.random.key(5), (4_000_000,), jnp.float32))
    for s in (1e2, 1e3, 1e4):
        expected = survival(s) * sizes.size
        count = np.count_nonzero(sizes > s)
        # 5 standard deviations of a Poisson count, and 1 % for the series' next term at s = 100.
        assert abs(count - expected) < 5 * np.sqrt(expected) + 0.01 * expected


def test_variances_are_those_of_the_laws():
    pairs = [
        (Exponential(3.0), 9 * scipy.stats.expon().var()),
        (Weibull(0.2), scipy.stats.weibull_min(0.2).var()),
        (Weibull(1.5, 2.0), 4 * scipy.stats.weibull_min(1.5).var()),
        (BurrXII(1.0, 2.3), scipy.stats.burr12(1.0, 2.3).var()),
        (BurrXII(2.0, 3.0, 0.5), 0.25 * scipy.stats.burr12(2.0, 3.0).var()),
        (Pareto(2.5, 2.0), 4 * scipy.stats.pareto(2.5).var()),
        (SymmetricStable(2.0, 3.0), 18.0),
    ]
    for noise, expected in pairs:
        assert noise.variance == pytest.approx(expected, rel=1e-9)
    for noise in (BurrXII(1.0, 2.0), Pareto(2.0), SymmetricStable(1.9), BurrXII(1.0, 1.5)):
        assert noise.variance == np.inf


def test_tail_index_bounds_the_finite_moments():
    indices = [
        noise.tail_index for noise in (BurrXII(2.0, 0.75), Pareto(1.2), SymmetricStable(1.3))
    ]
    assert indices == [1.5, 1.2, 1.3]
    for noise in (Exponential(), Weibull(0.2), SymmetricStable(2.0)):
        assert noise.tail_index == np.inf


def test_standardised_noise_has_the_variance_asked_for():
    noise = Standardised(BurrXII(1.0, 9.0), scale=2.0)
    draws = np.asarray(noise.sample(jax.random.key(6), (400_000,), jnp.float32))
    # Kurtosis is finite (index 9): the variance of 400,000 draws is off by about 1 %.
    assert draws.var() == pytest.approx(4.0, rel=0.05)
    assert abs(draws.mean()) < 5 * 2 / np.sqrt(400_000)
    assert (noise.variance, noise.tail_index) == (4.0, 9.0)


@pytest.mark.parametrize("bits", [0, 2**32 - 1])
@pytest.mark.parametrize(
    "noise",
    [Exponential(), Weibull(0.2), BurrXII(1.0, 1.5), Pareto(1.5)]
    + [SymmetricStable(alpha) for alpha in (2.0, 1.999, 1.0, 0.9, 1.5)],
    ids=str,
)
def test_noise_is_finite_whatever_the_random_bits(monkeypatch, noise, bits):
    monkeypatch.setattr(jax.random, "bits", lambda _, shape, dtype: jnp.full(shape, bits, dtype))
    assert np.isfinite(noise.sample(jax.random.key(0), (), jnp.float32))


@pytest.mark.parametrize(
    "noise",
    [Exponential(), Weibull(0.5), BurrXII(1.0, 2.3), Pareto(2.5), SymmetricStable(1.5)],
    ids=str,
)
def test_a_replica_draws_the_same_alone_or_among_others(noise):
    keys = jax.random.split(jax.random.key(3), 4)
    with jax.enable_x64(True):
        together = jax.vmap(lambda key: noise.sample(key, (20,), jnp.float64))(keys)
        alone = jnp.stack([noise.sample(key, (20,), jnp.float64) for key in keys])
    np.testing.assert_allclose(together, alone, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Exponential(0.0), "scale is 0.0"),
        (lambda: Weibull(-0.2), "shape is -0.2"),
        (lambda: BurrXII(1.0, 0.9), "c d is 0.9; it must exceed 1"),
        (lambda: BurrXII(0.0, 2.0), "c is 0.0"),
        (lambda: Pareto(1.0), "index is 1.0"),
        (lambda: SymmetricStable(2.1), r"alpha is 2.1; .* \(0, 2\]"),
        (lambda: SymmetricStable(1.5, scale=float("nan")), "scale is nan"),
        (lambda: Standardised(StudentT(1.5)), "infinite variance"),
        (lambda: Standardised(Normal(), scale=-1.0), "scale is -1.0"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
