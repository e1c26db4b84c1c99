"""Quantiles of replicas with bootstrap percentile intervals, without resampling."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special

from clipjax.optim._checks import as_numbers, check_count

LARGEST_SAMPLE = 10**8
"""Values whose ranks are computed: 2.4 GB."""


class Quantiles(NamedTuple):
    """Quantiles of a sample and their intervals, each of shape (levels, ...)."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def quantiles(
    sample: np.ndarray, levels: Sequence[float], *, confidence: float = 0.95
) -> Quantiles:
    """Return quantiles along the first axis with bootstrap percentile intervals.

    The q-quantile of n values is the ⌈qn⌉-th smallest (the inverse of the empirical distribution
    function), which is well defined where some values are +inf. For the intervals see
    `bootstrap_ranks`.

    Args:
        sample: values, +inf allowed, shape (n, ...).
        levels: quantile levels in (0, 1).
        confidence: nominal coverage of the intervals, in (0, 1). With fewer than about ten values
            above a quantile the upper end is the largest value or near it, and the interval covers
            less often than it says.

    Raises:
        ValueError: if the sample is empty or has a NaN, or a level is not in (0, 1).

    Examples:
        >>> import numpy as np
        >>> found = quantiles(np.append(np.arange(1.0, 100.0), np.inf), [0.5, 0.99])
        >>> found.value.tolist(), found.low.tolist(), found.high.tolist()
        ([50.0, 99.0], [40.0, 95.0], [60.0, inf])
    """
    sample = as_numbers("sample", sample)
    if not sample.ndim:
        raise ValueError(f"sample must be an array of numbers, got {sample}")
    if as_numbers("levels", levels).ndim != 1 or not len(levels):
        raise ValueError(f"levels must be a list of numbers in (0, 1), got {levels}")
    if not len(sample):
        raise ValueError("the sample is empty; quantiles need at least one value")
    if np.isnan(sample).any():
        raise ValueError("the sample has NaNs; count replicas that diverged as +inf")
    size = len(sample)
    ordered = np.sort(sample, axis=0)
    ranks = np.array([(_rank(size, q), *bootstrap_ranks(size, q, confidence)) for q in levels])
    return Quantiles(*(ordered[rank - 1] for rank in ranks.T))


def bootstrap_ranks(size: int, level: float, confidence: float = 0.95) -> tuple[int, int]:
    """Return which order statistics bound the percentile-bootstrap interval of a quantile.

    Of n draws with replacement from n values, the k-th smallest, k = ⌈level n⌉, is at most the
    j-th smallest of the values exactly when at least k draws fall among the j smallest:

        P(J ≤ j) = P( Binomial(n, j/n) ≥ k ).

    The bootstrap distribution of an order statistic is thus known exactly, and the interval is
    what infinitely many resamples would give (B. Efron, "Bootstrap methods: another look at the
    jackknife", Annals of Statistics 7, 1979, section 3).

    Args:
        size: the number of values n.
        level: the quantile level in (0, 1).
        confidence: the nominal coverage in (0, 1).

    Returns:
        The ranks, from 1, of the lower and of the upper end.

    Raises:
        ValueError: if a level or the confidence is not in (0, 1).

    Examples:
        >>> bootstrap_ranks(2000, 0.99)
        (1970, 1987)
        >>> bootstrap_ranks(2000, 0.999)
        (1993, 2000)
    """
    check_count("size", size, minimum=1, maximum=LARGEST_SAMPLE)
    for name, value in (("level", level), ("confidence", confidence)):
        if as_numbers(name, value).ndim or not 0 < value < 1:
            raise ValueError(f"{name} is {value}; it must lie strictly between 0 and 1")
    ranks = np.arange(1, size + 1)
    at_most = scipy.special.bdtrc(_rank(size, level) - 1, size, ranks / size)
    at_most[-1] = 1.0
    outside = (1 - confidence) / 2
    low, high = np.searchsorted(at_most, [outside, 1 - outside])
    return int(ranks[low]), int(ranks[high])


def _rank(size: int, level: float) -> int:
    # 0.99 * 100 is 99.00000000000001 or so in floating point, which must not become 100.
    return max(1, int(np.ceil(level * size - 1e-9 * size)))
