"""How heavy a tail is: the index of stability by block sums, and Hill's estimator.

Neither knows whether its model holds. The block estimators *assume* a stable law: of normal noise
they say 2, but of Student's t(3) 1.8, of Pareto(2.5) 1.6 and of a centred Weibull(0.2) 1.2, though
all of these have finite variance. Hill's estimator assumes a power law beyond the k-th largest
value and finds an index even where there is none (about 10 for a Gaussian, 1.2 for Weibull(0.2));
only a stretch of k over which it does not change means something. Report them together, beside
those of a Gaussian sample (`clipjax.analysis.gaussian_control`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from clipjax.optim._checks import as_numbers, check_count


def block_tail_index(sample: np.ndarray, block_size: int | None = None) -> float:
    """Return the index of stability estimated from sums over blocks.

        1/α = 1/ln m · ( mean ln |Y_j| - mean ln |X_i| ),   Y_j = sum of the j-th m values

    A sum of m independent symmetric α-stable values is m^(1/α) times one of them in law.

    Args:
        sample: independent values, centred, (n,), or vectors (n, d), of which the norms are taken.
        block_size: m, at least 2; by default the largest divisor of n that is at most √n. Values
            beyond the last whole block are left out.

    Returns:
        The estimate of α; it may exceed 2 by chance, and is inf where sums are no larger than
        single values.

    Raises:
        ValueError: for fewer than four values, values that are not finite, or a block size that
            leaves fewer than two blocks.

    Examples:
        >>> x = np.random.default_rng(0).normal(size=100_000)
        >>> print(round(block_tail_index(x), 1), round(block_tail_index(1 / x), 1))
        2.0 1.1

    References:
        Mohammadi, Mohammadpour, Ogata, On estimating the tail index and the spectral measure of
        multivariate α-stable distributions, Metrika 78, 2015, corollary 2.4; Şimşekli, Sagun,
        Gürbüzbalaban, A tail-index analysis of stochastic gradient noise, 2019, where the default
        block size is from.
    """
    sample = _checked(sample)
    count = len(sample)
    check_count("block_size", block_size, optional=True)
    if block_size is None:
        block_size = max(m for m in range(1, int(np.sqrt(count)) + 1) if count % m == 0)
        if block_size == 1:  # n is prime
            block_size = int(np.sqrt(count))
    if block_size < 2 or count // block_size < 2:
        raise ValueError(
            f"block_size is {block_size} for {count} values; expected at least 2, and 2 blocks"
        )
    kept = sample[: count // block_size * block_size]
    sums = kept.reshape(-1, block_size, *kept.shape[1:]).sum(axis=1)
    slope = (_mean_log_norm(sums) - _mean_log_norm(kept)) / np.log(block_size)
    return float(1 / slope) if slope > 0 else float("inf")


def median_block_tail_index(
    sample: np.ndarray, block_sizes: Sequence[int] = (2, 5, 10, 20, 50, 100, 500, 1000)
) -> float:
    """Return the median of `block_tail_index` over the block sizes that leave two blocks or more.

    Less sensitive to one choice of block size; used for layers of networks by Gürbüzbalaban,
    Şimşekli and Zhu, The heavy-tail phenomenon in SGD, 2021.

    Raises:
        ValueError: as `block_tail_index`, or if no block size fits.

    Examples:
        >>> x = np.random.default_rng(0).standard_cauchy(100_000)
        >>> print(round(median_block_tail_index(x), 1))
        1.0
    """
    sample = _checked(sample)
    sizes = as_numbers("block_sizes", block_sizes)
    if sizes.ndim != 1:
        raise ValueError(f"block_sizes must be a list of numbers, got {block_sizes!r}")
    check_count("block_sizes", block_sizes, minimum=2, arrays=True)
    fitting = [m for m in block_sizes if len(sample) // m >= 2]
    if not fitting:
        raise ValueError(f"none of the block sizes {tuple(block_sizes)} fits {len(sample)} values")
    return float(np.median([block_tail_index(sample, m) for m in fitting]))


class HillCurve(NamedTuple):
    """Hill's estimate against the number k of values above the threshold, each of shape (points,).

    `low` and `high` are asymptotic 95 % intervals, α (1 ± 1.96/√k), right where the tail beyond the
    threshold is an exact power law.
    """

    k: np.ndarray
    index: np.ndarray
    low: np.ndarray
    high: np.ndarray


def hill_tail_index(sample: np.ndarray, k: int) -> float:
    """Return Hill's estimate of the tail index from the k largest values.

        1/α = 1/k Σ_{i=1..k} ln( X_(n-i+1) / X_(n-k) )

    Args:
        sample: values, (n,); of vectors give the norms. Their absolute values are taken.
        k: how many, from 1 to n - 1; the (k + 1)-th largest must not be zero.

    Raises:
        ValueError: for fewer than four values, values that are not finite, a k out of range, or a
            threshold of zero.

    Examples:
        >>> x = np.random.default_rng(0).pareto(2.5, size=100_000) + 1
        >>> print(round(hill_tail_index(x, 10_000), 1))
        2.5

    References:
        Hill, A simple general approach to inference about the tail of a distribution, Annals of
        Statistics 3, 1975.
    """
    check_count("k", k)
    return float(hill_curve(sample, [k]).index[0])


def hill_curve(sample: np.ndarray, ks: Sequence[int] | np.ndarray | None = None) -> HillCurve:
    """Return Hill's estimate for many k: look for a stretch where it stays level.

    Args:
        sample: as in `hill_tail_index`.
        ks: numbers of largest values; by default 60 of them, geometrically from 10 to n/5.

    Raises:
        ValueError: as in `hill_tail_index`.

    Examples:
        >>> curve = hill_curve(np.random.default_rng(0).pareto(2.5, size=100_000) + 1)
        >>> level = curve.index[curve.k > 2000]
        >>> bool(level.min() > 2.4), bool(level.max() < 2.6)
        (True, True)
    """
    sizes = np.sort(np.abs(_checked(sample, vectors=False)))[::-1]
    if ks is None:
        ks = np.unique(np.rint(np.geomspace(min(10, len(sizes) - 1), len(sizes) / 5, 60)))
    numbers = as_numbers("ks", ks)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError(f"ks must be a list of whole numbers, got {ks!r}")
    ks = np.clip(numbers, 0, len(sizes)).astype(int)
    if not (len(ks) and ks.min() >= 1 and ks.max() < len(sizes)):
        raise ValueError(f"k (of ks) is {ks.tolist()}; expected numbers from 1 to {len(sizes) - 1}")
    if sizes[ks.max()] == 0:
        raise ValueError(f"the {ks.max() + 1}-th largest value is 0; expected smaller k")
    logs = np.log(sizes[: ks.max() + 1])
    excess = np.cumsum(logs)[ks - 1] / ks - logs[ks]
    index = np.divide(1.0, excess, out=np.full(len(ks), np.inf), where=excess > 0)
    width = 1.96 / np.sqrt(ks)
    return HillCurve(ks, index, index * (1 - width), index * (1 + width))


def _checked(sample: np.ndarray, *, vectors: bool = True) -> np.ndarray:
    if not isinstance(sample, list | tuple | np.ndarray | jax.Array):
        raise TypeError(f"sample must be an array of numbers, got {sample!r}")
    sample = as_numbers("sample", sample).astype(np.float64)
    if sample.ndim != 1 and not (vectors and sample.ndim == 2):
        raise ValueError(
            f"a sample of shape {sample.shape}; expected (n,)" + " or (n, d)" * vectors
        )
    if len(sample) < 4:
        raise ValueError(f"a sample of {len(sample)} values; expected at least 4")
    if not np.isfinite(sample).all():
        raise ValueError("the sample has values that are not finite")
    return sample


def _mean_log_norm(values: np.ndarray) -> float:
    norms = np.abs(values) if values.ndim == 1 else np.linalg.norm(values, axis=1)
    return float(np.mean(np.log(norms + np.spacing(1))))
