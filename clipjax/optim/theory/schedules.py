r"""The steps of the classical theorems on SGD, as schedules from the step (from 0) to α_k.

SGD is x_{k+1} = x_k − α_k ∇f_{i_k}(x_k), with E‖∇f_i(x)‖² ≤ σ². That σ² bounds the second moment of
the stochastic gradient, not its variance. A strongly convex f on all of R^n cannot satisfy it:
there the theorem is about a bounded set in which the iterates stay.

The first three are those of the lecture (source 002), where all but the third are also proved. The
last is no theorem on noise: it says which growing steps do what weight decay does.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clipjax.optim._checks import check_count, check_interval, check_positive, is_concrete
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


def exponential_schedule(
    learning_rate: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
    momentum: jax.typing.ArrayLike = 0.0,
) -> Schedule:
    r"""Return the growing steps that do without weight decay what SGD does with it.

    .. math:: \tilde\eta_k = \eta\,\alpha^{-2k-1}, \qquad
       \alpha = \tfrac12\left(1 + \gamma - \lambda\eta
       + \sqrt{(1 + \gamma - \lambda\eta)^2 - 4\gamma}\right)

    for a scale-invariant loss, L(cw) = L(w) for all c > 0, such as that of a network whose weights
    each feed a normalisation. SGD with step η, momentum γ and weight decay λ, added to the
    gradient,

    .. math:: m_{k+1} = \gamma m_k + \nabla L(w_k) + \lambda w_k, \qquad
       w_{k+1} = w_k - \eta m_{k+1}

    from m_0 = 0 then goes through the same directions as SGD with momentum γ, steps
    :math:`\tilde\eta_k` and no decay from the same w_0: :math:`\tilde w_k = \alpha^{-k} w_k`. With
    momentum the latter must begin with

    .. math:: \tilde m_0 = -\frac{1 - \alpha}{\eta\alpha}\, w_0,

    not with 0. `clipjax.analysis.compare_exponential_rates` runs both on a loss of your own. Where
    the first clips ∇L at a level c, the second must clip at c α^k.

    Args:
        learning_rate: η > 0; a number or a traced scalar.
        weight_decay: λ ≥ 0, added to the gradient times the weights, as
            `optax.add_decayed_weights` in front of `optax.sgd` does it; likewise.
        momentum: γ in [0, 1); likewise.

    Returns:
        A schedule of the step k, from 0. It grows by the factor 1/α² ≈ 1 + 2λη/(1 − γ) a step, so
        that float32 overflows after about 44(1 − γ)/(λη) steps.

    Raises:
        ValueError: for concrete numbers outside of their ranges, or with λη > (1 − √γ)²: the
            weights then oscillate, and no steps do the same.

    Examples:
        >>> schedule = exponential_schedule(0.1, 0.5)  # α = 1 - 0.05
        >>> print(round(float(schedule(0)), 6), round(float(schedule(1) / schedule(0)), 6))
        0.105263 1.108033

    References:
        Li and Arora 2019, "An exponential learning rate schedule for deep learning", Theorem 2.12
        (arXiv 1910.07454; RECALLED). DERIVED: from w_k = α^k w̃_k and 1 + γ − λη = α + γ/α, and
        tested to rounding.
    """
    check_positive("learning_rate", learning_rate, finite=True)
    check_interval("weight_decay", weight_decay, 0, float("inf"), closed_high=False)
    check_interval("momentum", momentum, 0, 1, closed_high=False)
    eta, decay, gamma = (
        jnp.asarray(value, float) for value in (learning_rate, weight_decay, momentum)
    )
    if all(map(is_concrete, (learning_rate, weight_decay, momentum))):
        # In float64: of jax's float32 numbers the limit itself would be refused.
        known: Any = (learning_rate, weight_decay, momentum)
        rate, shrink, memory = map(np.float64, known)
        product, largest = rate * shrink, (1 - np.sqrt(memory)) ** 2
        if product > largest:
            raise ValueError(
                "weight_decay * learning_rate must be at most (1 - sqrt(momentum))^2 = "
                f"{largest:.3g}, got {product:.3g}: the weights would oscillate."
            )
    # 1 - α is the smaller root of x² - (1 - γ + λη)x + λη, here without cancellation.
    width = 1 - gamma + decay * eta
    shrinking = 2 * decay * eta / (width + jnp.sqrt(jnp.maximum(width**2 - 4 * decay * eta, 0)))

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        steps = 2 * jnp.asarray(count, float) + 1
        return eta * jnp.exp(-steps * jnp.log1p(-shrinking))

    return schedule
