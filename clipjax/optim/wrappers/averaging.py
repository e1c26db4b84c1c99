"""Averages of the iterates, for methods that keep none of their own."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax.optim._checks import (
    check_count,
    check_floating,
    check_interval,
    check_transformation,
    require_params,
)
from clipjax.optim._trees import increment, transformation, wide_dtype
from clipjax.optim.evaluation_point import EvaluationPoint


class AverageIteratesState(NamedTuple):
    """State of `average_iterates`.

    Attributes:
        count: number of updates so far, N; int32 scalar.
        averaged: number of iterates in the mean; int32 scalar.
        mean: the average; a tree like the parameters, in float32 or wider.
        inner_state: the state of the wrapped transformation.
    """

    count: jax.Array
    averaged: jax.Array
    mean: optax.Params
    inner_state: optax.OptState

    def evaluation_point(self) -> EvaluationPoint:
        """Return what `clipjax.eval_params` needs: the mean, once there is one."""

        def point(x: jax.Array, mean: jax.Array) -> jax.Array:
            return jnp.where(self.averaged > 0, mean, x.astype(mean.dtype))

        return EvaluationPoint(self.mean, point)


def average_iterates(
    inner: optax.GradientTransformation,
    *,
    start: int = 0,
    decay: jax.typing.ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Keep an average of the iterates x^k at which `inner` is given gradients.

    .. math::

       \bar x = \frac{1}{N - s} \sum_{k=s}^{N-1} x^k
       \qquad\text{or, with a decay } \beta,\qquad
       \bar x \leftarrow \beta \bar x + (1 - \beta) x^k,\quad \bar x = x^s \text{ at first},

    where N is the number of updates. The updates are those of `inner`; `clipjax.eval_params`
    returns the average (before step s, the parameters). As in the theorems the last point x^N,
    where no gradient has been taken yet, is left out. The iterates averaged are the parameters that
    `update` is given, so whatever else moves them, in a chain or by hand, is included.

    The mean is formed as x̄ + (x − x̄)/n, in float32 or wider, and costs one buffer.

    Args:
        inner: the transformation whose updates move the parameters.
        start: s, number of the first iterate averaged, from 0; static under
            `optax.inject_hyperparams`.
        decay: β in [0, 1); None for the uniform mean.

    Returns:
        An Optax transformation with state `AverageIteratesState`.

    Non-finite gradients: the update is that of `inner`. Parameters that became non-finite enter the
    average, which stays so. `optax.apply_if_finite` around the whole skips the step: the iterate is
    averaged once, not twice.

    Raises:
        ValueError: for a negative `start`, a concrete `decay` outside [0, 1), parameters that are
            not real floating-point arrays, or `update` without parameters.

    Examples:
        >>> from clipjax import eval_params
        >>> tx = average_iterates(optax.sgd(1.0))
        >>> x = jnp.array(0.0)
        >>> state = tx.init(x)
        >>> for _ in range(4):  # x = 0, 1, 2, 3
        ...     updates, state = tx.update(jnp.array(-1.0), state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> print(x, eval_params(state, x))
        4.0 1.5

    References:
        Polyak, Juditsky, Acceleration of stochastic approximation by averaging, 1992;
        Gorbunov, Danilova, Gasnikov, 2020 (https://arxiv.org/abs/2005.10785), the x̄^N of the
        theorem on clipped-SGD.
    """
    check_transformation("inner", inner)
    check_count("start", start)
    check_interval("decay", decay, 0, 1, closed_high=False, optional=True)
    inner = optax.with_extra_args_support(inner)

    def init(params: optax.Params) -> AverageIteratesState:
        check_floating(params)
        # Buffers of their own throughout: parameters and state can both be donated.
        count, averaged = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        mean = jax.tree.map(lambda x: jnp.array(x, wide_dtype(x), copy=True), params)
        return AverageIteratesState(count, averaged, mean, inner.init(params))

    def update(updates, state: AverageIteratesState, params=None, **extra_args):
        params = require_params("average_iterates", params)
        included = state.count >= start
        averaged = jnp.where(included, increment(state.averaged), state.averaged)

        def mix(mean: jax.Array, x: jax.Array) -> jax.Array:
            weight = 1 / jnp.maximum(averaged, 1).astype(mean.dtype)
            if decay is not None:
                weight = jnp.where(averaged <= 1, 1, 1 - jnp.asarray(decay, mean.dtype))
            mixed = mean + weight * (x.astype(mean.dtype) - mean)
            return jnp.where(included, mixed, mean)

        mean = jax.tree.map(mix, state.mean, params)
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        count = increment(state.count)
        return updates, AverageIteratesState(count, averaged, mean, inner_state)

    return transformation(init, update)
