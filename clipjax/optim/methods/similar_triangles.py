r"""The stochastic similar triangles method (SSTM) and its clipped form, with one extra buffer.

The method, with g the (clipped) stochastic gradient *at the query point* x^{k+1}, A_0 = 0:

.. math::

   A_{k+1} &= A_k + \alpha_{k+1}, \qquad \theta_{k+1} = \alpha_{k+1} / A_{k+1} \\
   x^{k+1} &= (1 - \theta_{k+1})\, y^k + \theta_{k+1}\, z^k \\
   z^{k+1} &= z^k - \alpha_{k+1}\, g \\
   y^{k+1} &= (1 - \theta_{k+1})\, y^k + \theta_{k+1}\, z^{k+1}

**What is stored.** Optax's parameters are the query point x^{k+1}, where the gradient is taken. The
state holds z^k and scalars. y^k is not stored: it is (x − θz) / (1 − θ), which
`clipjax.eval_params` computes when the answer of the method is wanted. With θ' = θ_{k+2}, from the
lines above,

.. math::

   y^{k+1} = x^{k+1} - \theta \alpha g, \qquad
   x^{k+2} = y^{k+1} + \theta' (z^{k+1} - y^{k+1}),

so the update x^{k+2} − x^{k+1} is −θαg + θ' [(z^{k+1} − x^{k+1}) + θαg], in which no two large
numbers cancel. It reads the new z, not the old: a compiler that makes a loop of each result can
then write z^{k+1} over z^k, of which it would have to keep a copy otherwise.

**Planned one step ahead.** x^{k+2} needs α_{k+2}, so each update plans it from the schedule at
count + 1 and keeps it in the state for the next update to use. A rate changed from outside
(`optax.inject_hyperparams`, a plateau rule) therefore takes effect one step later.

**The ratio, not the sum.** The state keeps the ratio A_{k+1}/α_{k+1} = 1/θ_{k+1} instead of A: a
float32 sum A is off by 3e-4 after 10^6 steps, and under a decaying rate A/α is all that matters.
See `next_ratio`.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clipjax.optim._checks import (
    check_choice,
    check_count,
    check_floating,
    check_interval,
    check_positive,
    is_concrete,
    require_params,
)
from clipjax.optim._trees import increment, map_pair, transformation, wide_dtype
from clipjax.optim.clipping.norms import (
    PROJECTIONS,
    ClipState,
    clip_step,
    init_clip_state,
    level_at,
)
from clipjax.optim.evaluation_point import EvaluationPoint
from clipjax.typing import ScalarOrSchedule, Schedule


class Ratio(NamedTuple):
    """A_{k+1} in units of the last positive step size: scalars, float32 or wider.

    Attributes:
        unit: the last α that was positive; 0 before there was one.
        value: A / unit, rounded.
        rest: A / unit − value, what the rounding left over.
    """

    unit: jax.Array
    value: jax.Array
    rest: jax.Array


class SimilarTrianglesState(NamedTuple):
    """State of `scale_by_similar_triangles`, of which the parameters are the query point x^{k+1}.

    Attributes:
        count: k, the number of updates so far; int32 scalar.
        step_size: the planned α_{k+1}; float32 or wider scalar.
        ratio: the planned A_{k+1}, relative to the step size.
        z: z^k; a tree like the parameters.
    """

    count: jax.Array
    step_size: jax.Array
    ratio: Ratio
    z: optax.Params

    def evaluation_point(self) -> EvaluationPoint:
        """Return what `clipjax.eval_params` needs: y = (x − θz) / (1 − θ), or x where θ = 1."""
        theta = averaging_weight(self)
        known = theta < 1
        pull = jnp.where(known, theta / jnp.where(known, 1 - theta, 1), 0)

        def point(x: jax.Array, z: jax.Array) -> jax.Array:
            dtype = wide_dtype(x)
            x, z = x.astype(dtype), z.astype(dtype)
            return x + pull.astype(dtype) * (x - z)

        return EvaluationPoint(self.z, point)


class ClippedSSTMState(NamedTuple):
    """State of `clipped_sstm`: the statistics of the clipping and the state of the method."""

    clip: ClipState
    similar_triangles: SimilarTrianglesState


def next_ratio(
    ratio: Ratio, step_size: jax.Array, max_ratio: jax.typing.ArrayLike = jnp.inf
) -> Ratio:
    r"""Return A'/α' = (A/α)(α/α') + 1 for the next step size α', capped at `max_ratio`.

    Evaluated as written, the product is rounded by an ulp of A/α ~ k in every step, always the same
    way: after 10^6 steps in float32 the ratio is off by 1e-3. So while α' is within a factor of two
    of α (then α' − α is exact) the increment  1 − (A/α)(α' − α)/α'  is formed, which is of order
    one, and added with the rest of the previous additions carried along: off by 1.2e-7.

    α' = 0 adds nothing to A: the ratio keeps its unit and waits for the next positive step size.

    Args:
        ratio: A and its unit α before the step.
        step_size: α' ≥ 0, a scalar.
        max_ratio: the largest A'/α' allowed; the past is forgotten beyond it.

    Examples:
        >>> ratio = start_ratio(jnp.float32(1.0))  # A_1 = α_1 = 1
        >>> for step_size in (2.0, 3.0, 0.0, 4.0):
        ...     ratio = next_ratio(ratio, jnp.float32(step_size))
        >>> print(ratio.value * ratio.unit)  # A = 1 + 2 + 3 + 0 + 4
        10.0
    """
    unit, value, rest = ratio
    moved = step_size > 0
    new_unit = jnp.where(moved, step_size, unit)
    safe_unit = jnp.where(moved, step_size, jnp.ones_like(step_size))

    near = (step_size >= 0.5 * unit) & (step_size <= 2 * unit)
    increment = 1 - value * ((step_size - unit) / safe_unit) + rest * (unit / safe_unit)
    near_value = value + increment
    # Knuth's exact two-sum: near_value + near_rest = value + increment without rounding.
    shadow = near_value - value
    near_rest = (value - (near_value - shadow)) + (increment - shadow)

    far_value = value * (unit / safe_unit) + 1
    new_value = jnp.where(near, near_value, far_value)
    capped = new_value > max_ratio
    new_value = jnp.where(capped, max_ratio, new_value)
    new_rest = jnp.where(near & ~capped, near_rest, jnp.zeros_like(rest))
    return Ratio(new_unit, jnp.where(moved, new_value, value), jnp.where(moved, new_rest, rest))


def start_ratio(step_size: jax.Array) -> Ratio:
    """Return the ratio of A_1 = α_1; a first step size of 0 leaves A = 0."""
    zero = jnp.zeros_like(step_size)
    return next_ratio(Ratio(unit=zero, value=zero, rest=zero), step_size)


def averaging_weight(state: SimilarTrianglesState) -> jax.Array:
    """Return the planned θ_{k+1} = α_{k+1} / A_{k+1}, in [0, 1]; 0 if α_{k+1} is 0.

    Examples:
        >>> tx = scale_by_similar_triangles(lambda k: k + 2.0)
        >>> params = jnp.zeros(2)
        >>> state = tx.init(params)
        >>> _, state = tx.update(params, state, params)
        >>> print(averaging_weight(state))  # 3 / (2 + 3)
        0.6
    """
    value = jnp.where(state.step_size > 0, state.ratio.value, jnp.inf)
    return jnp.ones_like(value) / value


def scale_by_similar_triangles(
    step_size: ScalarOrSchedule, *, max_averaging_ratio: jax.typing.ArrayLike = 1.0
) -> optax.GradientTransformationExtraArgs:
    r"""Turn gradients at the query points into steps of the similar triangles method.

    .. math::

       x^{k+1} = (A_k y^k + \alpha_{k+1} z^k) / A_{k+1}, \quad
       z^{k+1} = z^k - \alpha_{k+1} g(x^{k+1}), \quad
       y^{k+1} = (A_k y^k + \alpha_{k+1} z^{k+1}) / A_{k+1}

    The parameters are the x^{k+1}; the answer is y^k = `clipjax.eval_params(opt_state, params)`.
    The updates contain the sign and the step size: put nothing after it in a chain, and clippings,
    weight decay and the like before it.

    Args:
        step_size: k -> α_{k+1} ≥ 0, k from 0, or a constant. α = 0 freezes: z and y stay, x moves
            to y.
        max_averaging_ratio: cap of A_k/A_{k+1} = 1 − θ_{k+1}, in (0, 1], for long runs in which θ
            would become tiny: whenever A_k would exceed it, A_k is reduced so that the ratio holds
            exactly. 1 is no cap. Static under `optax.inject_hyperparams`: name it in `static_args`.

    Returns:
        An Optax transformation with state `SimilarTrianglesState`: one buffer (z) and scalars.
        z and the updates have the dtype of the parameters, whatever that of the gradients; sums
        are formed in float32 or wider.

    Non-finite gradients: the update is non-finite in those coordinates, and so it is in every later
    step, as z is. `optax.apply_if_finite` around it skips the step and leaves the state as it was.

    Raises:
        ValueError: for a concrete step size that is not positive and finite, a cap outside (0, 1],
            parameters that are not real floating-point arrays, or `update` without parameters.

    Examples:
        >>> import clipjax
        >>> tx = optax.chain(
        ...     optax.clip(5.0), scale_by_similar_triangles(lambda k: (k + 2.0) / 20)
        ... )
        >>> x = jnp.array([3.0, -1.0])
        >>> state = tx.init(x)
        >>> for _ in range(100):
        ...     updates, state = tx.update(2 * x, state, x)  # f = |x|²
        ...     x = optax.apply_updates(x, updates)
        >>> y = clipjax.eval_params(state, x)
        >>> print(bool(jnp.sum(y**2) < 1e-3))
        True

    References:
        Gorbunov, Danilova, Gasnikov, Stochastic optimization with heavy-tailed noise via
        accelerated gradient clipping, 2020 (https://arxiv.org/abs/2005.10785), Algorithm 1.
    """
    check_positive("step_size", step_size, finite=True, schedule=True)
    check_interval("max_averaging_ratio", max_averaging_ratio, 0, 1, closed_low=False)

    def planned(count: jax.Array, dtype: jnp.dtype) -> jax.Array:
        return level_at(step_size, count, dtype)

    def init(params: optax.Params) -> SimilarTrianglesState:
        check_floating(params)
        count = jnp.zeros((), jnp.int32)
        first = planned(count, wide_dtype(params))
        # A copy, so that the buffers of parameters and state can both be donated.
        return SimilarTrianglesState(
            count, first, start_ratio(first), jax.tree.map(jnp.copy, params)
        )

    def update(updates, state: SimilarTrianglesState, params=None, **extra_args):
        del extra_args
        params = require_params("scale_by_similar_triangles", params)
        dtype = state.step_size.dtype
        count = increment(state.count)
        next_size = planned(count, dtype)
        following = SimilarTrianglesState(
            count,
            next_size,
            next_ratio(state.ratio, next_size, _max_ratio(max_averaging_ratio, dtype)),
            state.z,
        )
        new_updates, z = similar_triangles_step(
            updates,
            params,
            state.z,
            state.step_size,
            averaging_weight(state),
            averaging_weight(following),
        )
        return new_updates, following._replace(z=z)

    return transformation(init, update)


def _max_ratio(max_averaging_ratio: jax.typing.ArrayLike, dtype: jnp.dtype) -> jax.Array:
    """Return the cap of A_{k+1}/α_{k+1}, 1 / (1 − cap of A_k/A_{k+1}); inf for no cap."""
    if is_concrete(max_averaging_ratio):  # in float64: 1 − 0.99 loses 1e-5 in float32
        gap = 1 - float(np.asarray(max_averaging_ratio))
        return jnp.asarray(1 / gap if gap else jnp.inf, dtype)
    return 1 / (1 - jnp.asarray(max_averaging_ratio, dtype))


def similar_triangles_step(
    updates: optax.Updates,
    x: optax.Params,
    z: optax.Params,
    step_size: jax.Array,
    theta: jax.Array,
    next_theta: jax.Array,
) -> tuple[optax.Updates, optax.Params]:
    """Return x^{k+2} − x^{k+1} and z^{k+1} (the formula in the module's docstring), leaf by leaf.

    Args:
        updates: g, the gradient at x; a tree like x, of any floating dtypes.
        x: the query point x^{k+1}.
        z: z^k, a tree like x.
        step_size: α_{k+1}.
        theta: θ_{k+1} = α_{k+1}/A_{k+1}.
        next_theta: θ_{k+2}.

    Examples:
        >>> update, z = similar_triangles_step(
        ...     jnp.array(1.0), jnp.array(5.0), jnp.array(5.0),
        ...     jnp.array(2.0), jnp.array(1.0), jnp.array(0.6),
        ... )
        >>> print(z, 5.0 + update)  # θ = 1: y = z' = x' = 5 − 2
        3.0 3.0
    """

    def leaf(g: jax.Array, x: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        dtype = wide_dtype(x)
        step = step_size.astype(dtype) * g.astype(dtype)
        now, after = theta.astype(dtype), next_theta.astype(dtype)
        new_z = z.astype(dtype) - step
        update = after * ((new_z - x.astype(dtype)) + now * step) - now * step
        return update.astype(x.dtype), new_z.astype(z.dtype)

    return map_pair(leaf, updates, x, z)


def sstm_step_size(
    learning_rate: ScalarOrSchedule,
    smoothness: jax.typing.ArrayLike,
    *,
    holder_exponent: jax.typing.ArrayLike = 1.0,
    step_offset: jax.typing.ArrayLike = 2,
) -> Schedule:
    r"""Return the step sizes of SSTM, k -> α_{k+1} = η_k (k + s)^{2ν/(1+ν)} / (2L).

    Args:
        learning_rate: η = 1/a, a number, a traced scalar, or a schedule η(k).
        smoothness: L, or M_ν^{2/(1+ν)} (times what the theorem adds) for ν < 1.
        holder_exponent: ν in [0, 1], of the Hölder-continuous gradient.
        step_offset: s; 2 in Gorbunov et al. 2020, 1 in Gorbunov et al. 2021 and its PyTorch code.

    Raises:
        ValueError: for a number that is NaN or out of range.

    Examples:
        >>> step_size = sstm_step_size(learning_rate=0.5, smoothness=5.0)
        >>> print(step_size(0), step_size(1))  # 0.5 · 2 / 10, 0.5 · 3 / 10
        0.1 0.15
    """
    check_interval("learning_rate", learning_rate, 0, math.inf, closed_high=False, schedule=True)
    check_positive("smoothness", smoothness, finite=True)
    check_interval("holder_exponent", holder_exponent, 0, 1)
    check_positive("step_offset", step_offset, finite=True)

    def step_size(count: jax.typing.ArrayLike) -> jax.Array:
        # The count becomes a float first: an integer product overflows at 46 340.
        k = jnp.asarray(count, float)
        rate = learning_rate(count) if callable(learning_rate) else learning_rate
        nu = jnp.asarray(holder_exponent, float)
        growth = (k + jnp.asarray(step_offset, float)) ** (2 * nu / (1 + nu))
        return jnp.asarray(rate, float) * growth / (2 * jnp.asarray(smoothness, float))

    return step_size


def clipped_sstm(
    learning_rate: ScalarOrSchedule,
    smoothness: jax.typing.ArrayLike,
    clip_level: ScalarOrSchedule | None,
    *,
    clip: str = "global_norm",
    holder_exponent: jax.typing.ArrayLike = 1.0,
    step_offset: jax.typing.ArrayLike = 2,
    max_averaging_ratio: jax.typing.ArrayLike = 1.0,
    clip_start: jax.typing.ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Accelerated SGD with clipping for heavy-tailed noise: clipped-SSTM.

    .. math::

       \alpha_{k+1} = \eta_k \frac{(k + s)^{2\nu/(1+\nu)}}{2L}, \qquad
       \lambda_{k+1} = \frac{B}{\alpha_{k+1}}, \qquad
       \tilde g = \operatorname{clip}\bigl(g(x^{k+1}), \lambda_{k+1}\bigr),

    then the step of `scale_by_similar_triangles` with g̃. Steps grow like k and levels shrink like
    1/k, so that no single gradient moves z by more than B.

    The parameters are the query points x^{k+1}, where gradients are to be taken; report and use
    y^k = `clipjax.eval_params(opt_state, params)`.

    Args:
        learning_rate: η = 1/a of the papers, positive; a number, a traced scalar, or a schedule
            η(k). Changed from outside, it takes effect one step later: steps are planned ahead.
        smoothness: L > 0, the Lipschitz constant of the gradient (of ν < 1: M_ν^{2/(1+ν)}).
        clip_level: B > 0, the largest distance that z may move in a step; a number, a traced
            scalar, or a schedule B(k). None switches clipping off: SSTM.
        clip: "global_norm", "tensor_norm" or "value".
        holder_exponent: ν in [0, 1]; static under `optax.inject_hyperparams`.
        step_offset: s > 0; 2 in Gorbunov et al. 2020, 1 in Gorbunov et al. 2021; static.
        max_averaging_ratio: cap of A_k/A_{k+1}, in (0, 1]; static.
        clip_start: number k of the first step that is clipped; None clips from the start; static.
            (The authors' PyTorch code instead chooses B = α_{k0+1}, so that the level is 1 at k0.)

    Returns:
        An Optax transformation with state `ClippedSSTMState` (`SimilarTrianglesState` if
        `clip_level` is None): one buffer besides the parameters. Updates have the dtype of the
        parameters.

    Non-finite gradients: the update is NaN in every coordinate ("global_norm"), in that tensor
    ("tensor_norm"), or in that coordinate ("value", which cuts ±inf to ±λ, or no clipping), then
    and in every later step, as z is. `optax.apply_if_finite` around it skips the step and leaves
    the state as it was.

    Raises:
        ValueError: for concrete numbers out of range, an unknown `clip` (with the nearest name),
            parameters that are not real floating-point arrays, or `update` without parameters.

    Examples:
        >>> import clipjax
        >>> tx = clipped_sstm(learning_rate=0.1, smoothness=1.0, clip_level=1.0)
        >>> x = jnp.array([3.0, -1.0])
        >>> state = tx.init(x)
        >>> for _ in range(200):
        ...     updates, state = tx.update(x, state, x)  # f = |x|²/2
        ...     x = optax.apply_updates(x, updates)
        >>> y = clipjax.eval_params(state, x)
        >>> print(bool(jnp.sum(y**2) < 1e-3))
        True

    References:
        Gorbunov, Danilova, Gasnikov, 2020 (https://arxiv.org/abs/2005.10785), Algorithm 1;
        Gorbunov, Danilova, Shibaev, Dvurechensky, Gasnikov, 2021
        (https://arxiv.org/abs/2106.05958), Algorithm 1 (Hölder-continuous gradients).
    """
    check_positive("learning_rate", learning_rate, finite=True, schedule=True)
    check_positive("smoothness", smoothness, finite=True)
    if clip_level is not None:
        check_positive("clip_level", clip_level, schedule=True)
    check_choice("clip", clip, PROJECTIONS)
    check_interval("holder_exponent", holder_exponent, 0, 1)
    check_positive("step_offset", step_offset, finite=True)
    check_count("clip_start", clip_start, optional=True)
    step_size = sstm_step_size(
        learning_rate, smoothness, holder_exponent=holder_exponent, step_offset=step_offset
    )
    method: Any = scale_by_similar_triangles(step_size, max_averaging_ratio=max_averaging_ratio)
    if clip_level is None:
        return method

    def level_for(step_size: jax.Array, count: jax.Array) -> jax.Array:
        # From the planned α_{k+1} of the state, not from the schedule: B = λα holds exactly even
        # when the rate has just been changed from outside.
        level = level_at(clip_level, count, step_size.dtype) / step_size
        return level if clip_start is None else jnp.where(count < clip_start, jnp.inf, level)

    def init(params: optax.Params) -> ClippedSSTMState:
        inner = method.init(params)
        level = level_for(inner.step_size, inner.count)
        return ClippedSSTMState(init_clip_state(params, level), inner)

    def update(updates, state: ClippedSSTMState, params=None, **extra_args):
        del extra_args
        inner = state.similar_triangles
        clipped, clip_state = clip_step(
            clip, updates, state.clip, level_for(inner.step_size, inner.count)
        )
        new_updates, inner = method.update(clipped, inner, params)
        return new_updates, ClippedSSTMState(clip_state, inner)

    return transformation(init, update)
