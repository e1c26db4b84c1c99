"""Which method reaches its target soonest, over many workloads: ratios, profiles, one score.

The order of the rules is that of AlgoPerf (https://github.com/mlcommons/algorithmic-efficiency,
scoring/performance_profile.py):

    1. a study's time is that of its fastest trial, a workload's the median of its studies
    2. a time on a held-out variant counts only where the base workload's target was reached
    3. a time above `max_ratio` times the fastest on that workload counts as not reached
    4. a base workload counts as not reached where one of its variants was not reached
    5. the ratio of a time to the fastest one that is left, on base workloads only
    6. the share of base workloads whose ratio is at most τ: the performance profile
    7. the mean of the profile over 1 ≤ τ ≤ `max_tau`: the score

Rules 3 and 4 can take away the fastest time; the next one is the fastest then.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np

from clipjax.optim._checks import (
    as_numbers,
    check_callable,
    check_choice,
    check_count,
    check_interval,
)

OverStudies: TypeAlias = Callable[..., np.ndarray]
"""From times and `axis` to one time for all studies along that axis, such as `numpy.median`."""

Variants: TypeAlias = Sequence[tuple[int, int]]
"""Pairs (base, variant) of columns of `times`."""


def workload_times(times: np.ndarray, *, over_studies: OverStudies = np.median) -> np.ndarray:
    """Return one time for each submission and workload, inf where the target was not reached.

        t = median over studies of ( min over trials of time )

    A study is a repetition of a whole tuning, its trials are the points tried. The median of an
    even number of studies is the mean of the two in the middle, and infinite if one of these is.

    Args:
        times: (submissions, workloads), or with studies as a third axis, or with studies and trials
            as a third and a fourth; positive, in any unit; NaN or inf for a target not reached.
        over_studies: called with times and `axis=-1`.

    Returns:
        (submissions, workloads), float64.

    Raises:
        ValueError: for another shape, no entries, or times that are not positive.

    Examples:
        >>> times = [[[[9.0, 5.0], [7.0, np.nan], [np.nan, np.nan]]]]
        >>> workload_times(times).tolist()
        [[7.0]]

    References:
        Dahl et al., Benchmarking neural network training algorithms, 2023
        (https://arxiv.org/abs/2306.07179); the competition's rules for external tuning.
    """
    check_callable("over_studies", over_studies)
    found = as_numbers("times", times).astype(np.float64)
    if found.ndim not in (2, 3, 4) or not found.size:
        raise ValueError(
            f"times has the shape {found.shape}; expected (submissions, workloads), with studies "
            "as a third axis, or with studies and trials as a third and a fourth, none of them 0."
        )
    found = np.where(np.isnan(found), np.inf, found)
    if not (found > 0).all():
        raise ValueError(f"times must be positive, got {found.min()}.")
    if found.ndim == 4:
        found = found.min(axis=-1)
    if found.ndim == 3:
        found = np.asarray(over_studies(found, axis=-1), np.float64)
    return found


def performance_ratios(
    times: np.ndarray,
    *,
    variants: Variants = (),
    over_studies: OverStudies = np.median,
    max_ratio: float = 4.0,
) -> np.ndarray:
    """Return how many times as long as the fastest each submission took, inf for not reached.

        r_{s,w} = t_{s,w} / min over s' of t_{s',w}

    after the rules 1 to 4 of this module (`clipjax.analysis.performance_profiles`).

    Args:
        times: as of `workload_times`.
        variants: pairs (base, variant) of workloads' numbers. Variants have no ratio of their own.
        over_studies: as of `workload_times`.
        max_ratio: times above so many times the fastest count as not reached; inf keeps all.

    Returns:
        (submissions, base workloads), the workloads in the order of `times` without variants.

    Raises:
        ValueError: as `workload_times`; for a pair that names no two workloads, a variant that has
            two bases or variants of its own; for a ratio below 1.

    Examples:
        The third submission misses the variant (column 2) of workload 0, where it was the fastest.

        >>> times = [[2.0, 6.0, 3.0], [3.0, 2.0, 3.0], [1.0, 9.0, np.inf]]
        >>> performance_ratios(times, variants=[(0, 2)]).tolist()
        [[1.0, 3.0], [1.5, 1.0], [inf, inf]]

    References:
        Dolan, Moré, Benchmarking optimization software with performance profiles, Mathematical
        Programming 91, 2002, section 2; Dahl et al., 2023 (https://arxiv.org/abs/2306.07179).
    """
    check_interval("max_ratio", max_ratio, 1, math.inf, required=True)
    found = workload_times(times, over_studies=over_studies)
    variants = _checked(variants, found.shape[1])
    for base, variant in variants:
        found[np.isinf(found[:, base]), variant] = np.inf
    with np.errstate(over="ignore"):
        found[found > max_ratio * found.min(axis=0)] = np.inf
    for base, variant in variants:
        found[np.isinf(found[:, variant]), base] = np.inf
    found = np.delete(found, [variant for _, variant in variants], axis=1)
    ratios = np.full_like(found, np.inf)
    with np.errstate(over="ignore"):
        return np.divide(found, found.min(axis=0), out=ratios, where=np.isfinite(found))


def performance_profile(
    times: np.ndarray,
    taus: np.ndarray,
    *,
    variants: Variants = (),
    over_studies: OverStudies = np.median,
    max_ratio: float = 4.0,
) -> np.ndarray:
    """Return the share of workloads that each submission solves within τ times the fastest time.

        ρ_s(τ) = #{ w : r_{s,w} ≤ τ } / (number of base workloads)

    ρ_s(1) is the share of workloads on which s is the fastest, ρ_s(max_ratio) the share whose
    target it reaches at all. A workload whose target nobody reaches counts for nobody.

    Args:
        times: as of `workload_times`.
        taus: (points,), at least 1; at a smaller τ every share would be 0.
        variants: as of `performance_ratios`.
        over_studies: as of `workload_times`.
        max_ratio: as of `performance_ratios`; inf gives the profile of Dolan and Moré.

    Returns:
        (submissions, points), each in [0, 1] and not falling with τ.

    Raises:
        ValueError: as `performance_ratios`; if a τ is below 1.

    Examples:
        >>> times = [[2.0, 6.0], [3.0, 2.0], [4.0, np.nan]]
        >>> performance_profile(times, [1.0, 2.0, 4.0]).tolist()
        [[0.5, 0.5, 1.0], [0.5, 1.0, 1.0], [0.0, 0.5, 0.5]]

    References:
        Dolan, Moré, Benchmarking optimization software with performance profiles, Mathematical
        Programming 91, 2002, section 2; Dahl et al., 2023 (https://arxiv.org/abs/2306.07179).
    """
    at = as_numbers("taus", taus).astype(np.float64)
    if at.ndim != 1 or not at.size or not (at >= 1).all():
        raise ValueError(f"taus must be a list of numbers from 1 on, got {taus}.")
    ratios = performance_ratios(
        times, variants=variants, over_studies=over_studies, max_ratio=max_ratio
    )
    return (np.isfinite(ratios)[:, :, None] & (ratios[:, :, None] <= at)).mean(axis=1)


def benchmark_score(
    times: np.ndarray,
    *,
    variants: Variants = (),
    over_studies: OverStudies = np.median,
    max_ratio: float = 4.0,
    max_tau: float | None = None,
    points: int = 100,
    scale: Literal["linear", "log"] = "linear",
) -> np.ndarray:
    """Return the mean height of each submission's performance profile: AlgoPerf's score.

        B_s = 1/(τ_max - 1) ∫_1^τ_max ρ_s(τ) dτ,      with "log":  1/ln τ_max ∫ ρ_s(τ) d(ln τ)

    by the trapezoidal rule on `points` values of τ, as AlgoPerf does it with 100. The profile is a
    staircase, so the sum is off the integral by at most half a spacing, 1/(2 (points - 1)).

    The score is 1 for a submission that is the fastest everywhere and 0 for one that reaches no
    target. It depends on who else takes part: the fastest of all is the measure.

    Args:
        times: as of `workload_times`.
        variants: as of `performance_ratios`.
        over_studies: as of `workload_times`.
        max_ratio: as of `performance_ratios`.
        max_tau: τ_max, `max_ratio` by default.
        points: how many values of τ, both ends included.
        scale: over which the profile is averaged, and on which the values of τ are equally spaced.

    Returns:
        (submissions,), each in [0, 1].

    Raises:
        ValueError: as `performance_ratios`; if τ_max is not finite or not above 1.

    Examples:
        >>> times = [[2.0, 6.0], [3.0, 2.0], [4.0, np.nan]]
        >>> np.round(benchmark_score(times), 3).tolist()
        [0.669, 0.917, 0.336]

    References:
        Dahl et al., Benchmarking neural network training algorithms, 2023
        (https://arxiv.org/abs/2306.07179).
    """
    last = max_ratio if max_tau is None else max_tau
    name = "max_ratio, which is max_tau," if max_tau is None else "max_tau"
    ends = {"closed_low": False, "closed_high": False, "required": True}
    check_interval(name, last, 1, math.inf, **ends)
    check_count("points", points, minimum=2, maximum=10**6, required=True)
    check_choice("scale", scale, ("linear", "log"))
    spaced = np.geomspace if scale == "log" else np.linspace
    taus = spaced(1.0, last, points)
    profile = performance_profile(
        times, taus, variants=variants, over_studies=over_studies, max_ratio=max_ratio
    )
    along = np.log(taus) if scale == "log" else taus
    # Divided by the same sum for a profile of ones: 1 is 1 to the last bit.
    return np.trapezoid(profile, along, axis=1) / np.trapezoid(np.ones(points), along)


def _checked(variants: Variants, workloads: int) -> list[tuple[int, int]]:
    """Return the pairs as numbers; raise ValueError where they contradict each other."""
    pairs = np.asarray(variants, dtype=object)
    if pairs.size and (pairs.ndim != 2 or pairs.shape[1] != 2):
        raise ValueError(f"variants must be pairs (base, variant), got {variants}.")
    found = [(base, variant) for base, variant in pairs.tolist()] if pairs.size else []
    for pair in found:
        for number in pair:
            check_count("a workload in variants", number, maximum=workloads - 1, required=True)
    bases, held_out = {base for base, _ in found}, [variant for _, variant in found]
    if twice := {v for v in held_out if held_out.count(v) > 1 or v in bases}:
        raise ValueError(
            f"variants {variants}: workload {min(twice)} must have one base and be none itself."
        )
    return found
