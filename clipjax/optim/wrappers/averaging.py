r"""Averages of the iterates, for methods that keep none of their own.

A weighted mean is formed as x̄ + (w_k / W_k)(x^k − x̄), with W_k = w_s + ... + w_k. W is kept in
units of the first positive weight, so that its size does not matter. It is a sum of two numbers, of
which the second holds what rounding took from the first (Neumaier 1974): in float32 alone a sum of
ones would stop growing at 2^24, and later iterates would count too much.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax._weighted_means import relative_weight
from clipjax.optim._checks import (
    check_count,
    check_floating,
    check_interval,
    check_transformation,
    require_params,
)
from clipjax.optim._trees import increment, transformation, wide_dtype
from clipjax.optim.evaluation_point import EvaluationPoint
from clipjax.typing import ScalarOrSchedule


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


class WeightedAverageState(NamedTuple):
    """State of `average_iterates` with weights.

    Attributes:
        count: number of updates so far, N; int32 scalar.
        averaged: number of iterates that were given a weight, 0 among them; int32 scalar.
        unit: the first positive weight, 0 before there is one; float scalar.
        total: the sum of the weights in that unit, rounded; float scalar.
        rest: what is to be added to `total`, as rounding left it out; float scalar.
        mean: the average; a tree like the parameters, in float32 or wider.
        inner_state: the state of the wrapped transformation.
    """

    count: jax.Array
    averaged: jax.Array
    unit: jax.Array
    total: jax.Array
    rest: jax.Array
    mean: optax.Params
    inner_state: optax.OptState

    def evaluation_point(self) -> EvaluationPoint:
        """Return what `clipjax.eval_params` needs: the mean, once an iterate has a weight."""

        def point(x: jax.Array, mean: jax.Array) -> jax.Array:
            return jnp.where(self.total == 0, x.astype(mean.dtype), mean)

        return EvaluationPoint(self.mean, point)


def average_iterates(
    inner: optax.GradientTransformation,
    *,
    start: int = 0,
    decay: jax.typing.ArrayLike | None = None,
    weights: ScalarOrSchedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Keep an average of the iterates x^k at which `inner` is given gradients.

    .. math::

       \bar x = \frac{1}{N - s} \sum_{k=s}^{N-1} x^k
       \qquad\text{or, with a decay } \beta,\qquad
       \bar x \leftarrow \beta \bar x + (1 - \beta) x^k,\quad \bar x = x^s \text{ at first},
       \qquad\text{or, with weights},\qquad
       \bar x = \sum_{k=s}^{N-1} w_k x^k \Big/ \sum_{k=s}^{N-1} w_k,

    where N is the number of updates. The updates are those of `inner`; `clipjax.eval_params`
    returns the average (before step s, the parameters). As in the theorems the last point x^N,
    where no gradient has been taken yet, is left out. The iterates averaged are the parameters that
    `update` is given, so whatever else moves them, in a chain or by hand, is included.

    The mean is formed as x̄ + (x − x̄)/n, in float32 or wider, and costs one buffer. With weights n
    is W_k / w_k. Where a theorem is about the mean weighted by the steps, give both the same
    schedule: `average_iterates(optax.sgd(schedule), weights=schedule)`.

    Args:
        inner: the transformation whose updates move the parameters.
        start: s, number of the first iterate averaged, from 0; static under
            `optax.inject_hyperparams`.
        decay: β in [0, 1); None for the uniform mean.
        weights: w_k ≥ 0; a number, a traced scalar, or a schedule w(k) of the number of the iterate
            from 0, which is the number of the step that starts there. Only their ratios matter. An
            iterate of weight 0 is left out. None for the uniform mean or `decay`.

    Returns:
        An Optax transformation with state `AverageIteratesState`, or `WeightedAverageState` with
        weights.

    Non-finite gradients: the update is that of `inner`. Parameters that became non-finite enter the
    average, which stays so. `optax.apply_if_finite` around the whole skips the step: the iterate is
    averaged once, not twice. A weight that is negative or not finite makes the average NaN for
    good.

    Raises:
        ValueError: for a negative `start`, a concrete `decay` outside [0, 1), concrete weights that
            are negative or not finite, weights and a decay, parameters that are not real
            floating-point arrays, or `update` without parameters.

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
    check_interval("weights", weights, 0, jnp.inf, closed_high=False, optional=True, schedule=True)
    if weights is not None and decay is not None:
        raise ValueError(f"Give average_iterates weights or a decay, not both (decay={decay}).")
    inner = optax.with_extra_args_support(inner)
    if weights is not None:
        return _weighted(inner, start, weights)

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


def _weighted(
    inner: optax.GradientTransformationExtraArgs, start: int, weights: ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    """Return `average_iterates` with weights."""

    def init(params: optax.Params) -> WeightedAverageState:
        check_floating(params)
        count, averaged = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        unit, total, rest = (jnp.zeros((), wide_dtype(params)) for _ in range(3))
        mean = jax.tree.map(lambda x: jnp.array(x, wide_dtype(x), copy=True), params)
        return WeightedAverageState(count, averaged, unit, total, rest, mean, inner.init(params))

    def update(updates, state: WeightedAverageState, params=None, **extra_args):
        params = require_params("average_iterates", params)
        included = state.count >= start
        weight = weights(state.count) if callable(weights) else weights
        weight = jnp.where(included, jnp.asarray(weight, state.unit.dtype), 0)
        weight = jnp.where((weight >= 0) & jnp.isfinite(weight), weight, jnp.nan)
        share, unit = relative_weight(weight, state.unit)
        total, rest = _add(state.total, state.rest, share)
        whole = total + rest
        ratio = jnp.where(share == 0, 0, share / jnp.where(whole == 0, 1, whole))

        def mix(mean: jax.Array, x: jax.Array) -> jax.Array:
            mixed = mean + ratio.astype(mean.dtype) * (x.astype(mean.dtype) - mean)
            first = jnp.where(ratio == 1, x.astype(mean.dtype), mixed)  # whatever the mean was
            return jnp.where(ratio == 0, mean, first)

        mean = jax.tree.map(mix, state.mean, params)
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        count = increment(state.count)
        averaged = jnp.where(included, increment(state.averaged), state.averaged)
        new = WeightedAverageState(count, averaged, unit, total, rest, mean, inner_state)
        return updates, new

    return transformation(init, update)


def _add(total: jax.Array, rest: jax.Array, term: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return total + term rounded, and `rest` with what the rounding left out (Neumaier).

    Examples:
        >>> total, rest = _add(jnp.float32(2.0**24), jnp.float32(0), jnp.float32(1))
        >>> print(int(total), int(rest))
        16777216 1
        >>> total, rest = _add(jnp.float32(1), jnp.float32(0), jnp.float32(2.0**24))
        >>> print(int(total), int(rest))
        16777216 1
    """
    new = total + term
    larger = jnp.abs(total) >= jnp.abs(term)
    lost = jnp.where(larger, (total - new) + term, (term - new) + total)
    return new, rest + lost
