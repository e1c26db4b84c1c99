r"""The steps of the classical theorems on SGD, as schedules from the step (from 0) to α_k.

SGD is x_{k+1} = x_k − α_k ∇f_{i_k}(x_k), with E‖∇f_i(x)‖² ≤ σ². That σ² bounds the second moment of
the stochastic gradient, not its variance. A strongly convex f on all of R^n cannot satisfy it:
there the theorem is about a bounded set in which the iterates stay.

The schedules are those of the lecture (source 002), where all but the last are also proved.
"""

import jax
import jax.numpy as jnp

from clipjax.optim._checks import check_count, check_positive
from clipjax.typing import Schedule


def sgd_pl_schedule(strong_convexity: jax.typing.ArrayLike) -> Schedule:
    r"""Return the decreasing steps of SGD for smooth functions with the PL property.

    .. math:: \alpha_k = \frac{2k+1}{2\mu(k+1)^2}, \qquad
       \mathbb{E}[f(x_k) - f^*] \le \frac{L\sigma^2}{2\mu^2 k}

    for L-smooth f with ‖∇f(x)‖² ≥ 2μ(f(x) − f*), which μ-strong convexity implies. The answer is
    the last iterate. The first step is 1/(2μ), whatever L is: where L is much larger than μ the run
    may go far away before the bound brings it back.

    Args:
        strong_convexity: μ > 0, the PL constant; a number or a traced scalar.

    Returns:
        A schedule of the step k, from 0. It falls like 1/(μk).

    Raises:
        ValueError: for a concrete μ that is not positive and finite.

    Examples:
        >>> schedule = sgd_pl_schedule(0.5)
        >>> print(schedule(0), schedule(1), schedule(9))  # 1/1, 3/4, 19/100
        1.0 0.75 0.19

    References:
        The lecture's theorem on the PL case with decreasing steps (VERIFIED: read there, with its
        proof). It follows from 1 − 2μα_k = k²/(k + 1)².
    """
    check_positive("strong_convexity", strong_convexity, finite=True)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        steps = jnp.asarray(count, float) + 1  # a square of the count would overflow int32
        return (2 - 1 / steps) / (2 * jnp.asarray(strong_convexity, steps.dtype) * steps)

    return schedule


def sgd_convex_schedule(
    distance: jax.typing.ArrayLike, noise_scale: jax.typing.ArrayLike, iterations: int
) -> Schedule:
    r"""Return the constant step of SGD for convex functions and a known number of steps.

    .. math:: \alpha = \frac{R}{\sigma\sqrt{N}}, \qquad
       \mathbb{E}[f(\bar x_N) - f^*] \le \frac{R\sigma}{\sqrt{N}}, \qquad
       \bar x_N = \frac{1}{N}\sum_{k<N} x_k

    for convex f, smooth or not. The answer is the uniform mean, `clipjax.average_iterates`. This
    step minimises the bound R²/(2αN) + ασ²/2 of any constant step.

    Args:
        distance: R > 0, at least ‖x_0 − x*‖; a number or a traced scalar.
        noise_scale: σ > 0, with E‖∇f_i(x)‖² ≤ σ²; likewise.
        iterations: N ≥ 1, the number of steps.

    Returns:
        A schedule that is the same in every step.

    Raises:
        ValueError: for concrete numbers that are not positive and finite.

    Examples:
        >>> print(sgd_convex_schedule(distance=2.0, noise_scale=5.0, iterations=16)(3))
        0.1

    References:
        The lecture's theorem on the convex case with a constant step (VERIFIED: read there, with
        its proof).
    """
    check_positive("distance", distance, finite=True)
    check_positive("noise_scale", noise_scale, finite=True)
    check_count("iterations", iterations, minimum=1)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        del count
        root = jnp.sqrt(jnp.asarray(iterations, float))
        return jnp.asarray(distance, root.dtype) / noise_scale / root

    return schedule


def sgd_decreasing_schedule(initial_step: jax.typing.ArrayLike) -> Schedule:
    r"""Return the decreasing steps of SGD for convex functions, for any number of steps.

    .. math:: \alpha_k = \frac{\alpha_0}{\sqrt{k+1}}, \qquad
       \mathbb{E}[f(\bar x_k) - f^*] \le
       \frac{5R^2}{4\alpha_0\sqrt{k}} + \frac{5\alpha_0\sigma^2\ln(k+1)}{\sqrt{k}}, \qquad
       \bar x_k = \sum_{t<k} \alpha_t x_t \Big/ \sum_{t<k} \alpha_t

    for convex, L-smooth f and α_0 ≤ 1/(4L), with R = ‖x_0 − x*‖. The answer is the mean weighted by
    the steps: `average_iterates(optax.sgd(schedule), weights=schedule)`.

    Args:
        initial_step: α_0 > 0; a number or a traced scalar.

    Returns:
        A schedule of the step k, from 0.

    Raises:
        ValueError: for a concrete α_0 that is not positive and finite.

    Examples:
        >>> schedule = sgd_decreasing_schedule(0.3)
        >>> print(schedule(0), schedule(8))
        0.3 0.1

    References:
        The lecture's theorem on the convex case with decreasing steps (VERIFIED: stated there).
        DERIVED: it holds, also without α_0 ≤ 1/(4L), but is loose, since the weighted mean has
        [R² + α_0²σ²(1 + ln k)] / (4α_0(√(k + 1) − 1)).
    """
    check_positive("initial_step", initial_step, finite=True)

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        steps = jnp.asarray(count, float) + 1
        return jnp.asarray(initial_step, steps.dtype) / jnp.sqrt(steps)

    return schedule
