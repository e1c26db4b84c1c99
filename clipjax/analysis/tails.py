"""What a sample's tail looks like, in numbers and in curves, beside a Gaussian of like spread."""

from typing import NamedTuple

import jax
import numpy as np
import scipy.stats

from clipjax.optim._checks import as_numbers, check_count

# P(X > Q3 + 1.5 IQR) and P(X > Q3 + 3 IQR) of a normal law, exactly.
_Q3 = scipy.stats.norm.ppf(0.75)
NORMAL_MILD = float(scipy.stats.norm.sf(4 * _Q3))
NORMAL_EXTREME = float(scipy.stats.norm.sf(7 * _Q3))


class Outliers(NamedTuple):
    """Shares of mild and extreme right outliers, as multiples of a normal law's shares."""

    mild: float
    extreme: float


def outlier_ratios(sample: np.ndarray) -> Outliers:
    """Return how much more often than a normal law a sample has outliers to the right.

        ρ_mR = P(X > Q3 + 1.5 IQR) / 0.0035,   ρ_eR = P(X > Q3 + 3 IQR) / 1.2e-6

    with the quartiles of the sample and IQR = Q3 - Q1. The denominators are a normal law's shares,
    0.003488 and 1.171e-6; here they are used unrounded. A sample of far fewer than 10^6 values
    holds an extreme outlier of normal noise by accident only, and one is then worth many units of
    ρ_eR: 1 of 10^5 counts as 8.5.

    Args:
        sample: values, (n,), finite.

    Raises:
        ValueError: for fewer than four values, or values that are not finite.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=1_000_000)
        >>> print(round(outlier_ratios(x).mild, 1), outlier_ratios(np.exp(x)).mild > 20)
        1.0 True

    References:
        Jordanova, Petkova, Measuring heavy-tailedness of distributions, 2017, as used by Gorbunov
        et al., 2022 (https://arxiv.org/abs/2206.01095); the denominators are as recalled from
        there and agree with the normal law.
    """
    sample = _checked(sample)
    low, high = np.quantile(sample, [0.25, 0.75])
    shares = [np.mean(sample > high + reach * (high - low)) for reach in (1.5, 3.0)]
    return Outliers(float(shares[0] / NORMAL_MILD), float(shares[1] / NORMAL_EXTREME))


def gaussian_control(sample: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return a normal sample of the same size, mean and standard deviation.

    Whatever an estimator says of the sample, look at what it says of the control.

    Examples:
        >>> x = np.random.default_rng(0).exponential(size=1000)
        >>> control = gaussian_control(x)
        >>> bool(np.isclose(control.mean(), x.mean())), bool(np.isclose(control.std(), x.std()))
        (True, True)
    """
    sample = _checked(sample)
    check_count("seed", seed, maximum=2**63)
    draws = np.random.default_rng(seed).normal(size=sample.shape)
    draws = (draws - draws.mean()) / draws.std()
    return sample.mean() + sample.std() * draws


class Curve(NamedTuple):
    """Points of a curve, each (points,)."""

    x: np.ndarray
    y: np.ndarray


def survival(sample: np.ndarray) -> Curve:
    """Return the share of values that reach s (y) against s (x): straight on log axes = power law.

    Of n values a share of i/n is at least as large as the i-th largest.

    Examples:
        >>> curve = survival(np.array([3.0, 1.0, 2.0, 8.0]))
        >>> curve.x.tolist(), curve.y.tolist()
        ([1.0, 2.0, 3.0, 8.0], [1.0, 0.75, 0.5, 0.25])
    """
    sample = _checked(sample)
    return Curve(np.sort(sample), np.arange(len(sample), 0, -1) / len(sample))


def normal_quantiles(sample: np.ndarray) -> Curve:
    """Return the sample's quantiles in its standard deviations (y) against a normal law's (x).

    Examples:
        >>> curve = normal_quantiles(np.array([-1.0, 1.0, 0.0, 4.0, -4.0]))
        >>> np.round(curve.x, 2).tolist(), np.round(curve.y, 2).tolist()
        ([-1.28, -0.52, 0.0, 0.52, 1.28], [-1.53, -0.38, 0.0, 0.38, 1.53])
    """
    sample = _checked(sample)
    spread = sample.std()
    scaled = (np.sort(sample) - sample.mean()) / (spread if spread > 0 else 1.0)
    share = (np.arange(len(sample)) + 0.5) / len(sample)
    return Curve(scipy.stats.norm.ppf(share), scaled)


def moments(sample: np.ndarray) -> dict[str, float]:
    """Return mean, standard deviation, skewness, excess kurtosis and maximum.

    Of a law without a fourth moment the sample kurtosis only tells how large the largest value is:
    it grows with n.

    Examples:
        >>> found = moments(np.random.default_rng(0).normal(size=100_000))
        >>> {name: round(value, 1) + 0 for name, value in found.items() if name != "maximum"}
        {'mean': 0.0, 'std': 1.0, 'skewness': 0.0, 'excess_kurtosis': 0.0}
    """
    sample = _checked(sample)
    return {
        "mean": float(sample.mean()),
        "std": float(sample.std()),
        "skewness": float(scipy.stats.skew(sample)),
        "excess_kurtosis": float(scipy.stats.kurtosis(sample)),
        "maximum": float(sample.max()),
    }


def _checked(sample: np.ndarray) -> np.ndarray:
    if not isinstance(sample, list | tuple | np.ndarray | jax.Array):
        raise TypeError(f"sample must be an array of numbers, got {sample!r}")
    sample = as_numbers("sample", sample).astype(np.float64)
    if sample.ndim != 1 or len(sample) < 4:
        raise ValueError(f"a sample of shape {sample.shape}; expected (n,), n at least 4")
    if not np.isfinite(sample).all():
        raise ValueError("the sample has values that are not finite")
    return sample
