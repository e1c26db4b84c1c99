"""What the theorems share: their assumptions, the solution for N, restarts."""

import math
from collections.abc import Callable
from functools import partial

from clipjax.optim._checks import check_count, check_interval, check_positive
from clipjax.optim.theory.constants import (
    BatchSizes,
    ClippedSSTMConstants,
    RestartedConstants,
    Single,
    for_accuracy_or_iterations,
)

LARGEST = 1e60
SMALLEST = 1e-60
"""The largest and the smallest constant: their powers and products in the theorems are floats."""


def check_assumptions(*, batch_size: int | None = None, **numbers: float) -> str:
    """Return the numbers, with their names, for a message.

    Raises:
        ValueError: for the first number that no theorem here allows.

    Examples:
        >>> check_assumptions(smoothness=1.0, distance=2**62, noise_scale=0.1)
        ' with smoothness=1, distance=4.61169e+18, noise_scale=0.1'
    """
    for name, value in numbers.items():
        _CHECKS[name](name, value)
    check_count("batch_size", batch_size, minimum=1, optional=True)
    given = numbers if batch_size is None else numbers | {"batch_size": batch_size}
    return " with " + ", ".join(f"{name}={float(value):g}" for name, value in given.items())


def _check_length(name: str, value: float) -> None:
    check_positive(name, value, finite=True)
    check_interval(name, value, SMALLEST, LARGEST)


_CHECKS: dict[str, Callable[[str, float], None]] = {
    "smoothness": _check_length,
    "holder_constant": _check_length,
    "distance": _check_length,
    "holder_exponent": partial(check_interval, low=0, high=1),
    "noise_scale": partial(check_interval, low=0, high=LARGEST),
    "moment": partial(check_interval, low=1, high=2, closed_low=False),
    "failure_probability": partial(
        check_interval, low=0, high=1, closed_low=False, closed_high=False
    ),
}


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
    given: str,
) -> Single:
    """Solve for N among those with ln(4N/β) ≥ 2, from where on ln²(4N/β)/N² falls."""
    first = max(1, math.ceil(failure_probability * math.e**2 / 4))
    condition = f" for failure_probability {failure_probability} (the theorem: ln(4N/β) ≥ 2)"
    return for_accuracy_or_iterations(constants, accuracy, iterations, first, condition, given)


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
    check_assumptions(
        smoothness=smoothness, distance=distance, failure_probability=failure_probability
    )
    check_interval("strong_convexity", strong_convexity, 0, smoothness, closed_low=False)
    check_interval("strong_convexity", strong_convexity, SMALLEST, smoothness)
    check_positive("accuracy", accuracy, finite=True)
    ratio = strong_convexity * distance**2 / 2 / accuracy
    if math.isinf(ratio):
        raise ValueError(f"accuracy {accuracy} takes too many runs; ask for less accuracy.")
    count = math.ceil(math.log2(ratio)) if ratio > 1 else 1
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
