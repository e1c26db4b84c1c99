"""Intervals of 95 % of means and of shares, and how claims say them."""

import math
from typing import Any

import numpy as np
from scipy import stats


def spread(values: np.ndarray) -> float:
    """Return the half width of the interval of a mean, by Student's t.

    Examples:
        >>> round(spread(np.array([0.0, 2.0])), 3)  # t_{0.975, 1} = 12.706, standard error 1
        12.706
    """
    error = np.std(values, ddof=1) / len(values) ** 0.5
    return float(stats.t.ppf(0.975, len(values) - 1) * error)


def mean_and_spread(values: np.ndarray) -> tuple[float, float]:
    """Return a mean and the half width of its interval."""
    return float(np.mean(values)), spread(values)


def interval(values: np.ndarray) -> str:
    """Return a mean and its interval in words.

    Examples:
        >>> interval(np.array([0.0, 2.0]))
        '1 ± 13 (95 %)'
    """
    return f"{np.mean(values):.3g} ± {spread(values):.2g} (95 %)"


def above(values: np.ndarray, bound: float) -> bool:
    """Return whether the whole interval of a mean lies above a bound."""
    return bool(np.mean(values) - spread(values) > bound)


def below(values: np.ndarray, bound: float) -> bool:
    """Return whether the whole interval of a mean lies below a bound."""
    return bool(np.mean(values) + spread(values) < bound)


UNLIKELY = 6e-5
"""A count as unlikely as this, or less, does not agree with theory: four deviations, two-sided."""


def wilson(count: int, number: int) -> tuple[float, float, float]:
    """Return a share and the ends of its 95 % Wilson interval.

    Examples:
        >>> [round(end, 4) for end in wilson(0, 100)]
        [0.0, 0.0, 0.037]
    """
    found = stats.binomtest(int(count), number).proportion_ci(method="wilson")
    return count / number, float(found.low), float(found.high)


def difference(first: int, second: int, number: int) -> tuple[float, float, float]:
    """Return p_1 − p_2 of counts out of the same number of runs, and its 95 % interval.

    Newcombe's: the distances of the two Wilson intervals' ends, added in squares.

    Examples:
        >>> [round(end, 4) for end in difference(60, 40, 100)]
        [0.2, 0.0614, 0.3281]

    References:
        R. G. Newcombe, "Interval estimation for the difference between independent proportions",
        Statistics in Medicine 17, 1998 (method 10).
    """
    p, p_low, p_high = wilson(first, number)
    q, q_low, q_high = wilson(second, number)
    low = p - q - math.hypot(p - p_low, q_high - q)
    high = p - q + math.hypot(p_high - p, q - q_low)
    return p - q, low, high


def likely(count: Any, number: int, expected: Any) -> float:
    """Return how likely a count is that is as far off, or farther."""
    chance = float(np.clip(expected, 0.0, 1.0))
    return float(stats.binomtest(int(count), number, chance).pvalue)


def said(numbers: tuple[float, float, float]) -> str:
    """Return a share or a difference and its interval in words."""
    value, low, high = numbers
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def leaving_rate(share: float, time: float) -> float:
    """Return the rate k of leaving for which a share 1 − exp(−k t) has left."""
    return -math.log1p(-share) / time if share < 1 else math.inf
