"""Smooth f and noise of finite variance: Gorbunov, Danilova, Gasnikov, NeurIPS 2020."""

import math
from functools import partial

from clipjax.optim.theory._common import check_assumptions, restarted, similar_triangles, solve
from clipjax.optim.theory.constants import (
    BatchSizes,
    ClippedSGDConstants,
    ClippedSSTMConstants,
    RestartedConstants,
)


def clipped_sgd_constants(
    *,
    smoothness: float,
    distance: float,
    noise_scale: float,
    failure_probability: float,
    accuracy: float | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
) -> ClippedSGDConstants:
    r"""Return the constants of clipped-SGD for a convex, smooth f and noise of finite variance.

    With ℓ = ln(4N/β) ≥ 2 and C = √2:

    .. math::

       \gamma = \frac{1}{80 L \ell}, \qquad \lambda = 2 L C R_0, \qquad
       m = \max\Bigl\{1, \frac{27 N \sigma^2}{2 C^2 R_0^2 L^2 \ell}\Bigr\}, \qquad
       f(\bar x^N) - f^* \le \frac{80 C^2 L R_0^2 \ell}{N}

    Status: γ, ℓ ≥ 2 and the orders of m and of the bound VERIFIED (theorem 1 of the thesis, whose
    algorithm misprints the gradient at x^{k+1}; it is taken at x^k); λ and C VERIFIED in the
    authors' notebooks; the constants 27/2 and 80C² RECALLED. A fixed batch is DERIVED: an L-smooth
    f is L'-smooth for any larger L', and L' = max{L, σ√(27N/(2C²ℓb))/R_0} makes m ≤ b.

    Args:
        smoothness: L > 0.
        distance: R_0 > 0.
        noise_scale: σ ≥ 0.
        failure_probability: β in (0, 1).
        accuracy: ε > 0; or
        iterations: N ≥ βe²/4.
        batch_size: b ≥ 1; None for m.

    Returns:
        `ClippedSGDConstants`.

    Raises:
        ValueError: for numbers out of range, or unless one of accuracy and iterations is given.

    Examples:
        >>> constants = clipped_sgd_constants(
        ...     smoothness=1.0, distance=1.0, noise_scale=0.1, failure_probability=0.01,
        ...     accuracy=0.1,
        ... )
        >>> constants.iterations, int(constants.batch_sizes(0)), round(constants.bound, 6)
        (25842, 109, 0.1)

    References:
        Gorbunov, Danilova, Gasnikov, Stochastic optimization with heavy-tailed noise via
        accelerated gradient clipping, 2020 (https://arxiv.org/abs/2005.10785), the theorem on
        clipped-SGD in the convex case.
    """
    given = check_assumptions(
        smoothness=smoothness,
        distance=distance,
        noise_scale=noise_scale,
        failure_probability=failure_probability,
        batch_size=batch_size,
    )
    C2 = 2.0

    def constants(n: int) -> ClippedSGDConstants:
        log = math.log(4 * n / failure_probability)
        batch = 27 * n * noise_scale**2 / (2 * C2 * distance**2 * log)  # m = batch / L²
        if batch_size is None:
            L, sizes = smoothness, BatchSizes(batch / smoothness**2)
        else:
            L = max(smoothness, math.sqrt(batch / batch_size))
            sizes = BatchSizes(0.0, minimum=batch_size)
        return ClippedSGDConstants(
            iterations=n,
            learning_rate=1 / (80 * L * log),
            clip_level=2 * L * math.sqrt(C2) * distance,
            batch_sizes=sizes,
            bound=80 * C2 * L * distance**2 * log / n,
        )

    return solve(constants, accuracy, iterations, failure_probability, given)


def clipped_sstm_constants(
    *,
    smoothness: float,
    distance: float,
    noise_scale: float,
    failure_probability: float,
    accuracy: float | None = None,
    iterations: int | None = None,
    batch_size: int | None = None,
) -> ClippedSSTMConstants:
    r"""Return the constants of clipped-SSTM for a convex, smooth f and noise of finite variance.

    With ℓ = ln(4N/β) ≥ 2, C = √5 and α_{k+1} = (k + 2)/(2aL):

    .. math::

       a &= \max\bigl\{1,\; 16 \ell / C,\; 36 (2 \ell + \sqrt{4 \ell^2 + 2 \ell})^2\bigr\}, \qquad
       B = \frac{C R_0}{16 \ell} \\
       m_k &= \max\Bigl\{1,
           \frac{6000\, \sigma^2 \alpha_{k+1}^2 N \ell}{C^2 R_0^2}\Bigr\}, \qquad
       f(y^N) - f^* \le \frac{4 a C^2 L R_0^2}{N (N + 3)} = \frac{C^2 R_0^2}{A_N}

    Status: the algorithm and A_N = N(N + 3)/(4aL) VERIFIED and DERIVED; the orders of m_k, B, a and
    of the bound, ℓ ≥ 2, C and the entries of a VERIFIED (theorem 2 of the thesis, which misprints
    m_k without σ² and a without the square of its last entry; the square is DERIVED: a must be of
    the order ℓ²); the constants 6000, 16 of B and 4C² RECALLED. A fixed batch is DERIVED: a is
    raised to (N + 1) σ √(1500 Nℓ/b)/(C L R_0), which makes the largest m_k equal to b.

    Args:
        smoothness: L > 0.
        distance: R_0 > 0.
        noise_scale: σ ≥ 0.
        failure_probability: β in (0, 1).
        accuracy: ε > 0; or
        iterations: N ≥ βe²/4.
        batch_size: b ≥ 1, paid with shorter steps; None for m_k.

    Returns:
        `ClippedSSTMConstants`.

    Raises:
        ValueError: for numbers out of range, or unless one of accuracy and iterations is given.

    Examples:
        >>> constants = clipped_sstm_constants(
        ...     smoothness=1.0, distance=1.0, noise_scale=0.1, failure_probability=0.01,
        ...     accuracy=0.1,
        ... )
        >>> constants.iterations, round(1 / constants.learning_rate), round(constants.clip_level, 4)
        (4963, 123204, 0.0096)
        >>> print(constants.batch_sizes(0), constants.batch_sizes(4962), constants.oracle_calls)
        1 351 582679

    References:
        Gorbunov, Danilova, Gasnikov, 2020 (https://arxiv.org/abs/2005.10785), the theorem on
        clipped-SSTM in the convex case, and its corollary for batches of one.
    """
    given = check_assumptions(
        smoothness=smoothness,
        distance=distance,
        noise_scale=noise_scale,
        failure_probability=failure_probability,
        batch_size=batch_size,
    )
    C2 = 5.0

    def constants(n: int) -> ClippedSSTMConstants:
        log = math.log(4 * n / failure_probability)
        root = 2 * log + math.sqrt(4 * log**2 + 2 * log)
        return similar_triangles(
            n,
            a=max(1.0, 16 * log / math.sqrt(C2), 36 * root**2),
            variance=6000 * noise_scale**2 * n * log / (C2 * distance**2),
            batch_size=batch_size,
            smoothness=smoothness,
            clip_level=math.sqrt(C2) * distance / (16 * log),
            radius2=C2 * distance**2,
            total_weight=n * (n + 3) / 2,
        )

    return solve(constants, accuracy, iterations, failure_probability, given)


def restarted_clipped_sgd_constants(
    *,
    smoothness: float,
    strong_convexity: float,
    distance: float,
    noise_scale: float,
    failure_probability: float,
    accuracy: float,
    batch_size: int | None = None,
) -> RestartedConstants[ClippedSGDConstants]:
    r"""Return the constants of R-clipped-SGD for a μ-strongly convex, smooth f.

    τ = ⌈log2(μR_0²/(2ε))⌉ runs (at least one) of `clipped_sgd_constants` with R_t² = R_0²/2^t,
    ε_t = μR_t²/4 and β/τ. By strong convexity f − f* ≤ μR_t²/4 leaves ‖x − x*‖² ≤ R_t²/2 = R_{t+1}²
    for the next run, and the last run ends at μR_0²/2^{τ+1} ≤ ε.

    Status: τ RECALLED, the rest DERIVED from the single run: N_0 is the smallest solution of
    80C²Lℓ/N_0 ≤ μ/4, that is N_0 ≥ 320C²(L/μ) ln(4N_0τ/β), and λ_t = 2LCR_t.

    Args:
        smoothness: L > 0.
        strong_convexity: μ in (0, L].
        distance: R_0 > 0.
        noise_scale: σ ≥ 0.
        failure_probability: β in (0, 1), of all runs together.
        accuracy: ε > 0.
        batch_size: b ≥ 1, then runs grow longer as R_t falls; None for m.

    Returns:
        `RestartedConstants` of τ runs, each `ClippedSGDConstants`.

    Raises:
        ValueError: for numbers out of range.

    Examples:
        >>> constants = restarted_clipped_sgd_constants(
        ...     smoothness=1.0, strong_convexity=0.1, distance=1.0, noise_scale=0.0,
        ...     failure_probability=0.01, accuracy=0.01,
        ... )
        >>> constants.restart_steps
        (120239, 240478, 360717)

    References:
        Gorbunov, Danilova, Gasnikov, 2020 (https://arxiv.org/abs/2005.10785), R-clipped-SGD.
    """
    run = partial(clipped_sgd_constants, noise_scale=noise_scale, batch_size=batch_size)
    return restarted(
        run,
        smoothness=smoothness,
        strong_convexity=strong_convexity,
        distance=distance,
        failure_probability=failure_probability,
        accuracy=accuracy,
    )


def restarted_clipped_sstm_constants(
    *,
    smoothness: float,
    strong_convexity: float,
    distance: float,
    noise_scale: float,
    failure_probability: float,
    accuracy: float,
    batch_size: int | None = None,
) -> RestartedConstants[ClippedSSTMConstants]:
    r"""Return the constants of R-clipped-SSTM for a μ-strongly convex, smooth f.

    τ = ⌈log2(μR_0²/(2ε))⌉ runs (at least one) of `clipped_sstm_constants` with R_t² = R_0²/2^t,
    ε_t = μR_t²/4 and β/τ, as in `restarted_clipped_sgd_constants`. Each starts at y^{N_0} of the
    one before, with fresh A, z and k.

    Status: τ RECALLED, the rest DERIVED from the single run: N_0 is the smallest solution of
    4aC²L/(N_0(N_0 + 3)) ≤ μ/4, which N_0 ≥ 4C√(aL/μ) satisfies; B_t = CR_t/(16 ln(4N_0τ/β)).

    Args:
        smoothness: L > 0.
        strong_convexity: μ in (0, L].
        distance: R_0 > 0.
        noise_scale: σ ≥ 0.
        failure_probability: β in (0, 1), of all runs together.
        accuracy: ε > 0.
        batch_size: b ≥ 1, then runs grow longer as R_t falls; None for m_k^t.

    Returns:
        `RestartedConstants` of τ runs, each `ClippedSSTMConstants`.

    Raises:
        ValueError: for numbers out of range.

    Examples:
        >>> constants = restarted_clipped_sstm_constants(
        ...     smoothness=1.0, strong_convexity=0.1, distance=1.0, noise_scale=0.1,
        ...     failure_probability=0.01, accuracy=0.01,
        ... )
        >>> constants.restart_steps
        (11227, 22454, 33681)
        >>> levels = [run.clip_level for run in constants.runs]
        >>> print(f"{levels[1] / levels[0]:.4f}")  # R_1/R_0 = 1/√2
        0.7071

    References:
        Gorbunov, Danilova, Gasnikov, 2020 (https://arxiv.org/abs/2005.10785), R-clipped-SSTM.
    """
    run = partial(clipped_sstm_constants, noise_scale=noise_scale, batch_size=batch_size)
    return restarted(
        run,
        smoothness=smoothness,
        strong_convexity=strong_convexity,
        distance=distance,
        failure_probability=failure_probability,
        accuracy=accuracy,
    )
