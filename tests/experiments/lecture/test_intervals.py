"""Intervals: the published examples, and how often they cover."""

import numpy as np

from experiments.lecture import intervals


def test_an_interval_of_a_mean_covers_as_often_as_it_says():
    """Of 4,000 samples of 5 normal numbers 95 % ± 4 √(0.95 · 0.05/4000) hold the mean."""
    draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 5))
    inside = [abs(one.mean() - 3.0) <= intervals.spread(one) for one in draws]
    assert abs(np.mean(inside) - 0.95) < 0.014


def test_bounds_are_those_of_the_whole_interval():
    values = np.array([1.0, 2.0, 3.0])  # 2 ± 4.30/√3 = 2 ± 2.48
    assert intervals.above(values, -0.5)
    assert not intervals.above(values, -0.4)
    assert intervals.below(values, 4.5)
    assert not intervals.below(values, 4.4)


def test_intervals_are_the_published_ones():
    """Wilson's of 81/263, and Newcombe's of 9/10 − 3/10 (his papers of 1998)."""
    np.testing.assert_allclose(intervals.wilson(81, 263), [81 / 263, 0.2553, 0.3662], atol=5e-5)
    np.testing.assert_allclose(intervals.difference(9, 3, 10), [0.6, 0.1705, 0.8090], atol=5e-5)
