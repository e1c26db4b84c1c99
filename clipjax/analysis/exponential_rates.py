"""Is weight decay a growing learning rate here? Both runs side by side on a loss of your own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clipjax.optim._checks import (
    check_callable,
    check_count,
    check_floating,
    check_like,
    check_positive,
    naming,
)
from clipjax.optim.clipping import clip_by_global_norm
from clipjax.optim.theory import exponential_schedule


class RateComparison(NamedTuple):
    """Two runs beside one another, from the start on.

    Attributes:
        deviation: (steps + 1,), the distance of the directions w/|w| and w̃/|w̃|.
        decayed_norm: (steps + 1,), |w| of the run with weight decay.
        grown_norm: (steps + 1,), |w̃| of the run with growing steps and none.
    """

    deviation: np.ndarray
    decayed_norm: np.ndarray
    grown_norm: np.ndarray


def compare_exponential_rates(
    gradient: Callable[[Any, jax.Array], Any],
    params: optax.Params,
    *,
    learning_rate: float,
    weight_decay: float,
    momentum: float = 0.0,
    steps: int = 100,
    clip_level: float | None = None,
) -> RateComparison:
    r"""Run SGD with weight decay, and SGD with exponentially growing steps and none.

    .. math:: \text{deviation}_k = \left\| \frac{w_k}{\|w_k\|}
       - \frac{\tilde w_k}{\|\tilde w_k\|} \right\|

    is rounding where the loss does not depend on the length of the weights, L(cw) = L(w): see
    `clipjax.theory.exponential_schedule`. Where it grows, a parameter of the network is not
    scale-invariant (a last layer without a normalisation behind it, a normalisation's own scale and
    bias, its epsilon). Leave such parameters out of `params` and they may stay as they are.

    Args:
        gradient: (params, k) -> the gradient of the loss at step k, 0, 1, ...; batches may depend
            on k, on nothing else.
        params: w_0, real arrays; all of them decay. Deviations of 1e-12 need float64.
        learning_rate: η > 0.
        weight_decay: λ ≥ 0, with λη ≤ (1 − √γ)².
        momentum: γ in [0, 1).
        steps: how many.
        clip_level: the gradient's largest norm in the run with decay; c α^k in the other one. None
            clips neither.

    Returns:
        Deviations and norms, as float64 or in the dtype of the parameters.

    Raises:
        TypeError: for a gradient that is no function, or parameters that are no real arrays.
        ValueError: for arguments out of their ranges, the name first.

    Examples:
        >>> with jax.enable_x64(True):  # the angle of w to (1, 0) is all that counts
        ...     found = compare_exponential_rates(
        ...         jax.grad(lambda w, k: -w[0] / jnp.sqrt(jnp.sum(w**2))),
        ...         jnp.array([1.0, 2.0]),
        ...         learning_rate=0.1,
        ...         weight_decay=0.05,
        ...         momentum=0.5,
        ...     )
        >>> bool(found.deviation.max() < 1e-14)
        True

    References:
        Li and Arora 2019 (arXiv 1910.07454; RECALLED). The level c α^k is DERIVED: ∇L(w̃) is α^k
        times ∇L(w), since the gradient of a scale-invariant loss falls with the length of w.
    """
    check_callable("gradient", gradient)
    check_floating(params)
    params = jax.tree.map(jnp.asarray, params)
    check_count("steps", steps, minimum=1)
    with naming("gradient", "params", "step"):
        like = jax.eval_shape(gradient, params, jnp.asarray(0))
    check_like("what gradient returns", like, "params", params)
    schedule = exponential_schedule(learning_rate, weight_decay, momentum)
    if clip_level is not None:
        check_positive("clip_level", clip_level, finite=True)
        clip_level = float(clip_level)  # an integer of 64 bits would overflow in jax
    shrink = schedule(-1) / learning_rate  # η̃_{-1} = ηα

    def clipped(level: Any) -> optax.GradientTransformation:
        return optax.identity() if clip_level is None else clip_by_global_norm(level)

    decayed = optax.chain(
        clipped(clip_level),
        optax.add_decayed_weights(weight_decay),
        optax.trace(momentum),
        optax.scale(-learning_rate),
    )
    grown = optax.chain(
        clipped(lambda k: clip_level * shrink**k),
        optax.trace(momentum),
        optax.scale_by_learning_rate(schedule),
    )
    first = (1 - 1 / shrink) / learning_rate
    memory = jax.tree.map(lambda w: (first * w).astype(w.dtype), params)
    grown_start = optax.tree_utils.tree_set(grown.init(params), trace=memory)

    def step(carry: Any, k: jax.Array) -> Any:
        (w, state), (v, other) = carry
        updates, state = decayed.update(gradient(w, k), state, w)
        w = optax.apply_updates(w, updates)
        updates, other = grown.update(gradient(v, k), other, v)
        v = optax.apply_updates(v, updates)
        return ((w, state), (v, other)), _beside(w, v)

    carry = ((params, decayed.init(params)), (params, grown_start))
    rows = jax.jit(lambda carry: jax.lax.scan(step, carry, jnp.arange(steps))[1])(carry)
    first_row = _beside(params, params)
    return RateComparison(
        *(np.append(np.asarray(a), np.asarray(b)) for a, b in zip(first_row, rows, strict=True))
    )


def _beside(w: Any, v: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the distance of two points' directions, and their lengths."""
    one, other = optax.tree_utils.tree_norm(w), optax.tree_utils.tree_norm(v)
    apart = jax.tree.map(lambda x, y: x / one - y / other, w, v)
    return optax.tree_utils.tree_norm(apart), one, other
