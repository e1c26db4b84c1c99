"""What the theorems share: their assumptions, the solution for N, restarts."""

import math
from collections.abc import Callable

from clipjax.optim._checks import check_count, check_interval, check_positive
from clipjax.optim.theory.constants import (
    BatchSizes,
    ClippedSSTMConstants,
    RestartedConstants,
    Single,
    for_accuracy_or_iterations,
)

LARGEST = 1e60
"""The largest constant: its powers and products in the theorems are still floats."""


def check_assumptions(
    *,
    distance: float,
    noise_scale: float,
    failure_probability: float,
    smoothness: float = 1.0,
    holder_constant: float = 1.0,
    holder_exponent: float = 1.0,
    moment: float = 2.0,
    batch_size: int | None = None,
) -> None:
    """Raise ValueError for the first number that no theorem here allows."""
    check_positive("smoothness", smoothness, finite=True)
    check_positive("holder_constant", holder_constant, finite=True)
    check_interval("holder_exponent", holder_exponent, 0, 1)
    check_positive("distance", distance, finite=True)
    check_interval("noise_scale", noise_scale, 0, math.inf, closed_high=False)
    check_interval("moment", moment, 1, 2, closed_low=False)
    _check_probability(failure_probability)
    check_count("batch_size", batch_size, minimum=1)
    lengths = {"smoothness": smoothness, "distance": distance, "noise_scale": noise_scale}
    for name, value in (lengths | {"holder_constant": holder_constant}).items():
        check_interval(name, value, 0, LARGEST, required=True)


def _check_probability(value: float) -> None:
    check_interval("failure_probability", value, 0, 1, closed_low=False, closed_high=False)


def similar_triangles(
    n: int,
    *,
    a: float,
    variance: float,
    batch_size: int | None,
    smoothness: float,
    clip_level: float,
    radius2: float,
    total_weight: float,
    holder_exponent: float = 1.0,
    step_offset: int = 2,
) -> ClippedSSTMConstants:
    """Return the constants of N steps α_{k+1} = (k + s)^p/(2aL) with bound radius2/A_N.

    A_N = total_weight/(2aL) and m_k = variance · α_{k+1}². With a fixed batch b, a is raised until
    variance · α_N² ≤ b.
    """
    power = 2 * holder_exponent / (1 + holder_exponent)
    if batch_size is None:
        sizes = BatchSizes(variance / (2 * a * smoothness) ** 2, 2 * power, step_offset)
    else:
        last = (n - 1 + step_offset) ** power
        a = max(a, last * math.sqrt(variance / batch_size) / (2 * smoothness))
        sizes = BatchSizes(0.0, minimum=batch_size)
    return ClippedSSTMConstants(
        iterations=n,
        learning_rate=1 / a,
        smoothness=float(smoothness),
        clip_level=clip_level,
        batch_sizes=sizes,
        bound=2 * a * smoothness * radius2 / total_weight,
        holder_exponent=holder_exponent,
        step_offset=step_offset,
    )


def solve(
    constants: Callable[[int], Single],
    accuracy: float | None,
    iterations: int | None,
    failure_probability: float,
) -> Single:
    """Solve for N among those with ln(4N/β) ≥ 2, from where on ln²(4N/β)/N² falls."""
    first = max(1, math.ceil(failure_probability * math.e**2 / 4))
    condition = f" for failure_probability {failure_probability} (the theorem: ln(4N/β) ≥ 2)"
    return for_accuracy_or_iterations(constants, accuracy, iterations, first, condition)


def restarted(
    run: Callable[..., Single],
    *,
    smoothness: float,
    strong_convexity: float,
    distance: float,
    failure_probability: float,
    accuracy: float,
) -> RestartedConstants[Single]:
    """Return τ runs with R_t² = R_0²/2^t, ε_t = μR_t²/4 and β/τ, each made by `run`."""
    check_positive("smoothness", smoothness, finite=True)
    check_interval("strong_convexity", strong_convexity, 0, smoothness, closed_low=False)
    check_positive("distance", distance, finite=True)
    check_interval("distance", distance, 0, LARGEST)
    check_positive("accuracy", accuracy, finite=True)
    _check_probability(failure_probability)
    count = max(1, math.ceil(math.log2(strong_convexity * distance**2 / (2 * accuracy))))
    runs = [
        run(
            smoothness=smoothness,
            distance=distance / 2 ** (t / 2),
            failure_probability=failure_probability / count,
            accuracy=strong_convexity * distance**2 / 2 ** (t + 2),
        )
        for t in range(count)
    ]
    return RestartedConstants(tuple(runs))
