"""Profiles and scores against the rules written out in loops, and what must not change them."""

import itertools
import statistics

import numpy as np
import pytest

from clipjax.analysis import (
    benchmark_score,
    performance_profile,
    performance_ratios,
    workload_times,
)

INF = np.inf


def written_out(times, variants, max_ratio, taus):
    """Return the ratios, profiles and scores of the seven rules, one number at a time."""
    submissions, workloads = range(len(times)), range(len(times[0]))
    t = [
        [
            statistics.median(min(INF if x != x else x for x in trials) for trials in times[s][w])
            for w in workloads
        ]
        for s in submissions
    ]
    for base, variant in variants:
        for s in submissions:
            if t[s][base] == INF:
                t[s][variant] = INF
    for w in workloads:
        fastest = min(t[s][w] for s in submissions)
        for s in submissions:
            if t[s][w] > max_ratio * fastest:
                t[s][w] = INF
    for base, variant in variants:
        for s in submissions:
            if t[s][variant] == INF:
                t[s][base] = INF
    counted = [w for w in workloads if w not in [v for _, v in variants]]
    ratios, profiles, scores = [], [], []
    for s in submissions:
        row = []
        for w in counted:
            fastest = min(t[k][w] for k in submissions)
            row.append(t[s][w] / fastest if t[s][w] < INF else INF)
        profile = [sum(r <= tau for r in row) / len(counted) for tau in taus]
        area = sum(
            (b - a) * (profile[i] + profile[i + 1]) / 2
            for i, (a, b) in enumerate(itertools.pairwise(taus))
        )
        ratios.append(row)
        profiles.append(profile)
        scores.append(area / (taus[-1] - taus[0]))
    return ratios, profiles, scores


def random_times(seed, shape=(5, 6, 3, 2), lost=0.2):
    """Times over a wide range, some of them NaN or infinite."""
    rng = np.random.default_rng(seed)
    times = np.exp(rng.normal(0, 0.8, shape))
    times[rng.random(shape) < lost] = INF
    times[rng.random(shape) < lost / 2] = np.nan
    return times


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("variants", [[], [(0, 3), (0, 4), (2, 5)]])
def test_the_rules_are_those_written_out(seed, variants):
    times, taus = random_times(seed), np.linspace(1, 4, 100)
    rules = {"variants": variants, "max_ratio": 4.0}
    ratios, profiles, scores = written_out(times, variants, 4.0, taus)
    np.testing.assert_allclose(performance_ratios(times, **rules), ratios, rtol=1e-15)
    np.testing.assert_array_equal(performance_profile(times, taus, **rules), profiles)
    np.testing.assert_allclose(benchmark_score(times, **rules), scores, rtol=0, atol=1e-14)


def test_a_small_table_by_hand():
    """Workload 1 is a variant of 0; c is cut off on 1 (13 > 4 x 3), so it loses 0 as well.

    Then a is the fastest on 0, though c was. On 2 nobody but b arrives.
    """
    times = [[[2.0], [3.0], [np.nan]], [[3.0], [6.0], [8.0]], [[1.0], [13.0], [INF]]]
    found = performance_ratios(times, variants=[(0, 1)])
    np.testing.assert_array_equal(found, [[1.0, INF], [1.5, 1.0], [INF, INF]])
    profile = performance_profile(times, [1.0, 1.49, 1.5, 4.0], variants=[(0, 1)])
    np.testing.assert_array_equal(profile, [[0.5] * 4, [0.5, 0.5, 1, 1], [0] * 4])
    # The profile of b steps up by a half at 1.5: 1/2 + 1/2 (4 - 1.5)/3 of the integral. On points
    # 1, 1.5, ..., 4 the trapezoid that ends at the step counts half: (4 - 1.25)/3 in place of it.
    assert benchmark_score(times, variants=[(0, 1)], points=7)[1] == pytest.approx(
        0.5 + 0.5 * 2.75 / 3, abs=1e-15
    )
    assert benchmark_score(times, variants=[(0, 1)], points=100_000)[1] == pytest.approx(
        0.5 + 0.5 * 2.5 / 3, abs=1e-5
    )


def test_a_variant_counts_only_for_who_reaches_its_base():
    """b is ten times faster on the variant but misses the base: it does not cut off a."""
    times = [[1.0, 10.0], [INF, 1.0], [2.0, 20.0]]
    np.testing.assert_array_equal(
        performance_ratios(times, variants=[(0, 1)])[:, 0], [1.0, INF, 2.0]
    )


def test_exactly_the_largest_ratio_still_counts():
    assert performance_ratios([[1.0], [4.0], [4.001]], max_ratio=4.0).tolist() == [[1], [4], [INF]]


def test_studies_and_trials():
    """By hand: least of each study 5, 7, inf and their median 7; of 5 and inf it is infinite."""
    trials = [[9.0, 5.0], [7.0, np.nan], [np.nan, INF]]
    assert workload_times([[trials]]).tolist() == [[7.0]]
    assert workload_times([[trials[::2]]]).tolist() == [[INF]]
    assert workload_times([[[5.0, 7.0, 9.0]]], over_studies=np.max).tolist() == [[9.0]]
    np.testing.assert_array_equal(workload_times([[1.0, np.nan]]), [[1.0, INF]])


@pytest.mark.parametrize("seed", range(10))
def test_what_changes_nothing(seed):
    times, variants = random_times(seed), [(1, 4)]
    rules = {"variants": variants}
    ratios, scores = performance_ratios(times, **rules), benchmark_score(times, **rules)
    assert ((scores >= 0) & (scores <= 1)).all()
    # The unit of a workload's times. Powers of two, so that ratios stay to the last bit.
    scaled = times * 2.0 ** np.array([3, -5, 0, 20, 1, -1])[None, :, None, None]
    np.testing.assert_array_equal(performance_ratios(scaled, **rules), ratios)
    # A submission that never arrives.
    longer = np.concatenate([times, np.full_like(times[:1], np.nan)])
    np.testing.assert_array_equal(benchmark_score(longer, **rules), [*scores, 0.0])
    # The order of submissions and of studies and trials.
    np.testing.assert_array_equal(benchmark_score(times[::-1], **rules), scores[::-1])
    np.testing.assert_array_equal(benchmark_score(times[:, :, ::-1, ::-1], **rules), scores)


@pytest.mark.parametrize("options", [{}, {"scale": "log"}, {"points": 7, "max_tau": 1.7}])
def test_the_fastest_everywhere_scores_one_to_the_last_bit(options):
    times = random_times(3, lost=0.0)
    times = np.concatenate(
        [times.min(axis=(0, 2, 3), keepdims=True) * np.ones((1, 1, 3, 2)), times]
    )
    assert benchmark_score(times, **options)[0] == 1.0
    assert (performance_profile(times, [1.0, 2.0])[0] == 1.0).all()


def test_the_log_scale_averages_over_the_logarithm():
    """One workload, ratio r: the profile is 1 from r on, its mean over ln τ is 1 - ln r / ln 4."""
    times = [[1.0], [2.5]]
    found = benchmark_score(times, scale="log", points=100_000)[1]
    assert found == pytest.approx(1 - np.log(2.5) / np.log(4), abs=1e-5)
    assert benchmark_score(times, points=100_000)[1] == pytest.approx(1.5 / 3, abs=1e-5)
    # Three points equally spaced in ln τ, 1, 2 and 4: heights 0, 0, 1, by trapezoids 1/4.
    assert benchmark_score(times, scale="log", points=3)[1] == pytest.approx(0.25, abs=1e-12)
    # A tighter range than the cut: 1 - (2.5 - 1)/(3 - 1).
    assert benchmark_score(times, max_tau=3.0, points=100_000)[1] == pytest.approx(0.25, abs=1e-5)


def test_profiles_never_fall_and_end_at_the_share_reached():
    times = random_times(5)
    profile = performance_profile(times, [*np.linspace(1, 1e4, 50), INF], max_ratio=INF)
    assert (np.diff(profile, axis=1) >= 0).all()
    np.testing.assert_array_equal(profile[:, -1], np.isfinite(workload_times(times)).mean(axis=1))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: workload_times([[0.0]]), r"times must be positive, got 0\.0"),
        (lambda: workload_times([[-1.0, INF]]), r"times must be positive, got -1\.0"),
        (lambda: workload_times([1.0]), r"shape \(1,\); expected \(submissions, workloads\)"),
        (lambda: workload_times(np.ones((2, 0))), r"shape \(2, 0\)"),
        (lambda: workload_times([["fast"]]), "times must be a number"),
        (lambda: workload_times([[1.0]], over_studies="median"), "over_studies must be a function"),
        (lambda: performance_ratios([[1.0]], max_ratio=0.5), r"max_ratio must lie in \[1, inf\]"),
        (lambda: performance_ratios([[1.0]], max_ratio=np.nan), "max_ratio must lie in"),
        (lambda: performance_ratios([[1.0, 1.0]], variants=[(0, 2)]), "at most 1, got 2"),
        (lambda: performance_ratios([[1.0, 1.0]], variants=[(0, 0)]), "workload 0 must have one"),
        (lambda: performance_ratios([[1.0] * 3], variants=[(0, 2), (1, 2)]), "workload 2 must"),
        (lambda: performance_ratios([[1.0] * 3], variants=[(0, 1), (1, 2)]), "workload 1 must"),
        (lambda: performance_ratios([[1.0] * 3], variants=[0, 1]), "variants must be pairs"),
        (lambda: performance_profile([[1.0]], [0.5, 2.0]), "taus must be a list of numbers from 1"),
        (lambda: performance_profile([[1.0]], [np.nan]), "taus must be a list"),
        (lambda: performance_profile([[1.0]], []), "taus must be a list"),
        (lambda: benchmark_score([[1.0]], max_ratio=INF), "max_ratio, which is max_tau, must lie"),
        (lambda: benchmark_score([[1.0]], max_tau=1.0), r"max_tau must lie in \(1, inf\)"),
        (lambda: benchmark_score([[1.0]], points=1), "points must be a whole number >= 2"),
        (lambda: benchmark_score([[1.0]], scale="lin"), "Did you mean 'linear'"),
    ],
)
def test_wrong_arguments_are_named(call, said):
    with pytest.raises((ValueError, TypeError), match=said):
        call()
