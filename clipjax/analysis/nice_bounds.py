"""The numbers in the theory of new σ-nice functions (Sato and Iiduka), in closed form.

Setting: f is σ-strongly convex on the ball B(x*; r). A point x in N(x*; a r), a > √2, is moved
along -u; Proposition 3.1 says at which noise level |δ⁻| it arrives in that ball, and takes f̂ to be
σ-strongly convex on N(x*; a r) = N(x*; d |δ⁻|) for that level. Numbered as in the talk "Global
optimisation of deep neural networks by graduated optimisation using the smoothing of SGD" (2024);
the paper is https://arxiv.org/abs/2311.08745.

The formulas are the talk's. Where our own derivation differs, the text says so.
"""

import math

import numpy as np
import scipy.special

from clipjax.optim._checks import check_count, check_interval, check_positive

LARGEST = 1e150
"""The largest length whose square is a float."""


def arrival_level(distance: float, noise_norm: float, cosine: float, r: float, a: float) -> float:
    """Return |δ⁻| of Proposition 3.1.

        |δ⁻| = | D|u| cosθ - √( D²|u|² cos²θ - r²(a² - 1) ) |,   D = |x* - x|

    For |u| = 1 and D = ar this is the smallest δ for which x - δu, θ being the angle between u and
    x - x* (up to sign), lies in B(x*; r). (Derived; for other |u| that level would be the root of
    δ²|u|² - 2δD|u| cosθ + D² - r², a different number.)

    Args:
        distance: D ≥ 0.
        noise_norm: |u|, in (0, 1].
        cosine: cos θ, in [-1, 1].
        r: radius of the ball on which f is strongly convex, positive.
        a: more than √2.

    Raises:
        ValueError: for numbers out of range, or if the root is not real: no δ⁻ exists then, which
            `alignment_probability` is about.

    Examples:
        >>> arrival_level(2.0, 1.0, 1.0, r=1.0, a=2.0)  # straight at the ball: from 2 to 1
        1.0
    """
    _check_spread(a)
    check_interval("distance", distance, 0, LARGEST)
    check_interval("r", r, 0, LARGEST, closed_low=False)
    check_interval("noise_norm", noise_norm, 0, 1, closed_low=False)
    check_interval("cosine", cosine, -1, 1)
    reach = distance * noise_norm * cosine
    gap = reach**2 - r**2 * (a**2 - 1)
    if gap < 0:
        raise ValueError(
            f"no level exists: |cos θ| is {abs(cosine):g} and must be at least "
            f"{alignment_threshold(distance, noise_norm, r, a):g}, with distance={distance}, "
            f"noise_norm={noise_norm}, cosine={cosine}, r={r} and a={a}."
        )
    return abs(reach - math.copysign(math.sqrt(gap), reach))


def d_bounds(a: float) -> tuple[float, float]:
    """Return the bounds 1 ≤ d ≤ a/(√(a² - 1) - 1) of d = a r/|δ⁻|, as in the talk.

    The exact range (derived), for x in N(x*; ar) and |u| ≤ 1, is narrower: |δ⁻| falls from r√(a²-1)
    to r(a - 1) as D|u||cosθ| grows from there to ar, so that  a/√(a² - 1) ≤ d ≤ a/(a - 1).

    Args:
        a: more than √2.

    Examples:
        >>> low, high = d_bounds(2.0)
        >>> low, round(high, 3)  # exact: 1.155 and 2
        (1.0, 2.732)
    """
    _check_spread(a)
    return 1.0, a / (math.sqrt(a**2 - 1) - 1)


def gamma_lower_bound(d_next: float) -> float:
    """Return 1/d_{m+1}: Proposition 3.3 needs 1/d_{m+1} < γ_m < 1, so levels must fall slowly.

    Args:
        d_next: d_{m+1} ≥ 1. (d = 1 leaves no γ at all.)

    Examples:
        >>> gamma_lower_bound(1.25)
        0.8
    """
    check_interval("d_next", d_next, 1, math.inf)
    return 1 / d_next


def sufficient_level(
    gradient_norm: float, next_gradient_norm: float, strong_convexity: float, gamma: float
) -> float:
    """Return what |δ_m| must reach in Proposition 3.2 for the minimisers to move slowly enough.

        2 max{ |∇f̂_{δ_m}(x*)|, |∇f̂_{δ_{m+1}}(x*)| } / (σ (1 - γ_m)) ≤ |δ_m|

    Args:
        gradient_norm: |∇f̂_{δ_m}(x*)|.
        next_gradient_norm: |∇f̂_{δ_{m+1}}(x*)|.
        strong_convexity: σ > 0.
        gamma: γ_m = δ_{m+1}/δ_m in (0, 1).

    Examples:
        >>> sufficient_level(0.1, 0.05, strong_convexity=2.0, gamma=0.5)
        0.2
    """
    check_positive("strong_convexity", strong_convexity, finite=True)
    check_interval("gradient_norm", gradient_norm, 0, math.inf)
    check_interval("next_gradient_norm", next_gradient_norm, 0, math.inf)
    check_interval("gamma", gamma, 0, 1, closed_low=False, closed_high=False)
    return 2 * max(gradient_norm, next_gradient_norm) / (strong_convexity * (1 - gamma))


def alignment_threshold(distance: float, noise_norm: float, r: float, a: float) -> float:
    """Return c = r√(a² - 1) / (D|u|), the least |cosθ| for which δ⁻ exists.

    Args:
        distance: D = |x* - x|, positive.
        noise_norm: |u|, positive.
        r: radius of the ball on which f is strongly convex.
        a: more than √2.

    Examples:
        >>> round(alignment_threshold(2.0, 1.0, r=1.0, a=2.0), 3)
        0.866
    """
    _check_spread(a)
    check_interval("r", r, 0, LARGEST)
    check_positive("distance", distance, finite=True)
    check_positive("noise_norm", noise_norm, finite=True)
    return r * math.sqrt(a**2 - 1) / (distance * noise_norm)


def alignment_probability(threshold: float, dimension: int) -> float:
    """Return P(|cosθ| ≥ c) for a direction uniform on the sphere of R^n.

        p = I_{1-c²}((n - 1)/2, 1/2)

    with the regularised incomplete beta function I: cos²θ has the law Beta(1/2, (n-1)/2). In many
    dimensions two directions are nearly orthogonal, and the probability that δ⁻ exists is nil.

    Args:
        threshold: c ≥ 0 (`alignment_threshold`).
        dimension: n ≥ 1.

    Examples:
        >>> [f"{alignment_probability(0.3, n):.2g}" for n in (2, 10, 100, 1000)]
        ['0.81', '0.37', '0.0023', '2.9e-22']
    """
    check_interval("threshold", threshold, 0, math.inf)
    check_count("dimension", dimension, minimum=1)
    if threshold > 1:
        return 0.0
    if dimension == 1:
        return 1.0  # θ is 0 or π
    return float(scipy.special.betainc((dimension - 1) / 2, 0.5, 1 - threshold**2))


def alignment_probability_uniform_angle(threshold: float) -> float:
    """Return the talk's p(a_m) = 2 arccos(c)/π: P(|cosθ| ≥ c) for a uniform angle, so for n = 2.

    Args:
        threshold: c ≥ 0.

    Examples:
        >>> round(alignment_probability_uniform_angle(0.3), 3)
        0.806
    """
    check_interval("threshold", threshold, 0, math.inf)
    return float(2 * np.arccos(min(threshold, 1.0)) / np.pi)


def _check_spread(a: float) -> None:
    check_positive("a", a, finite=True)
    if not (a <= LARGEST and a > math.sqrt(2)):
        raise ValueError(f"a must be finite and more than √2, got {a}.")
