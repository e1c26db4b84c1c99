r"""Gradient clipping: the projection of the gradient onto a ball.

Each kind of clipping measures the gradient g by a norm and projects it onto the ball
{‖g‖ ≤ λ} of that norm:

| kind          | norm                                  | projection                          |
|---------------|---------------------------------------|-------------------------------------|
| "global_norm" | ‖g‖₂ over all tensors together        | g · min(1, λ / ‖g‖₂)                |
| "tensor_norm" | the largest ‖g_t‖₂ of any tensor t    | g_t · min(1, λ / ‖g_t‖₂), each t    |
| "value"       | the largest |g_i| of any coordinate i | g_i cut to [−λ, λ]                  |

The norm kinds keep the direction (of the whole, or of each tensor); "value" does not. Here the
level is a number or a schedule. Clippings whose level follows the norms seen so far, or whose use
is drawn at random, have files of their own and share the norms and the projection of this one:

| transformation          | level of a step                                  | norms of |
|-------------------------|--------------------------------------------------|----------|
| `clip_by_quantile`      | a quantile of the last norms (AutoClip)          | either   |
| `clip_by_zscore`        | from mean and deviation of the norms (ZClip)     | all      |
| `clip_by_adaptive_norm` | a multiple of the average clipped norm (AdaGC)   | each     |
| `clip_with_probability` | a given one; whether it holds is drawn at random | all      |

The norms are those of all tensors together, or of each by itself. Where each tensor has a level of
its own, the norm and the level reported are those of the tensor that was shortened most.

**Numbers.** A norm is kept as scale · relative with relative = ‖g / scale‖₂, both accumulated in
float32 or wider. scale = max|g_i|, with relative of order one to √n; for large gradients on a CPU
scale = √Σg² wherever that is far from both ends of the floats. Nothing overflows on the way: a
gradient of 1e30 (or of 300 in float16) is clipped to the level, where the naive √Σg² is infinite
and gives zero. Zero gradients stay zero. Results keep the dtype.

**Passes over memory.** Clipping reads a large gradient once for its norm (twice where it asks for
max|g_i| first: at the ends of the floats, and always on accelerators), and once more where it is
used: g · factor is cheap enough for a compiler to form it in the loops of the update, where a
division would get a buffer of its own.

**Non-finite gradients.** A NaN or an infinite entry leaves no direction to keep: the norm kinds
return NaN for the whole gradient (for that tensor, with "tensor_norm"), whatever the level, so that
the failure is seen at once and whole. "value" cuts ±inf to ±λ and passes NaN on. To skip such steps
wrap the optimizer: `optax.apply_if_finite(optax.chain(clipjax.clip_by_global_norm(1.0), ...), 5)`;
it judges the incoming gradient and leaves every state as it was. A non-finite step shows as a NaN
norm in `clip_stats` (inf, where "value" cuts it) until the next step, and a NaN is not counted as
clipped.
"""

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax.optim._checks import check_choice, check_floating, check_positive
from clipjax.optim._trees import (
    describe,
    find_states,
    increment,
    state_names,
    transformation,
    wide_dtype,
)
from clipjax.typing import ScalarOrSchedule


class ClipState(NamedTuple):
    """What every clipping remembers.

    Attributes:
        count: number of steps taken; int32 scalar.
        norm: norm of the last incoming gradient, in the norm of the kind; float32 or wider scalar.
        level: the level λ the last gradient was clipped to; same dtype.
        clipped: number of steps whose gradient was changed; int32 scalar, so that the share of
            clipped steps is exact after any number of steps.
    """

    count: jax.Array
    norm: jax.Array
    level: jax.Array
    clipped: jax.Array


class ClipStats(NamedTuple):
    """What `clip_stats` reports: float scalars (batched like the state under `vmap`).

    Attributes:
        norm: norm of the last incoming gradient, in the norm of the clipping's kind.
        level: the level it was clipped to.
        fraction: share of the steps so far whose gradient was changed, in [0, 1].
    """

    norm: jax.Array
    level: jax.Array
    fraction: jax.Array


class ScaledNorm(NamedTuple):
    """A Euclidean norm as a product of two factors that cannot overflow.

    Attributes:
        scale: ‖g‖₂ or max|g_i|, or 1 if that is zero. Between 2^-126 and 2^126 in float32, so that
            1 / scale, by which gradients are multiplied, is neither infinite nor flushed to zero.
        relative: ‖g / scale‖₂, in [1, 4√n] (less if all g_i are subnormal), 0 if the gradient is
            zero, NaN if it is not finite.
    """

    scale: jax.Array
    relative: jax.Array

    def norm(self) -> jax.Array:
        """Return ‖g‖₂ itself; inf if it exceeds the largest float."""
        return self.scale * self.relative


ONE_PASS_FROM = 2**16
"""Entries of a gradient from which on its norm is worth a branch: 256 KiB of float32."""


def scaled_norm(updates: optax.Updates) -> ScaledNorm:
    """Return ‖g‖₂ over all leaves as scale · relative, accumulated in float32 or wider.

    Examples:
        >>> g = jnp.array([3e30, 4e30])
        >>> s = scaled_norm(g)
        >>> print(f"{s.scale:.1e} {s.relative:.3f} {s.norm():.1e}")
        4.0e+30 1.250 5.0e+30
    """
    # A gradient that fits the cache is read twice for nothing, and without a branch a loop around
    # the step stays one kernel. On a CPU a second pass over a larger one costs and a branch does
    # not. An accelerator may have to ask the host which branch to take.
    if sum(leaf.size for leaf in jax.tree.leaves(updates)) < ONE_PASS_FROM:
        return _rescaled_norm(updates)
    return jax.lax.platform_dependent(updates, cpu=_checked_norm, default=_rescaled_norm)


def _checked_norm(updates: optax.Updates) -> ScaledNorm:
    """Return the norm after one pass over g, or three if Σg² overflowed or underflowed."""
    dtype = wide_dtype(updates)
    squares = _sum_of_squares(updates, jnp.ones((), dtype))
    # Each g_i² below `tiny` may be flushed to zero: above `least` all of them together lack less
    # than a rounding error of the sum.
    size = sum(leaf.size for leaf in jax.tree.leaves(updates))
    info = jnp.finfo(dtype)
    least = max(size, 1) * float(info.tiny) / float(info.eps)
    safe = (squares >= least) & (squares <= info.max)
    squares = jnp.where(safe, squares, 1)  # vmap takes both branches
    return jax.lax.cond(safe, _norm_from_squares, _norm_from_updates, squares, updates)


def _norm_from_squares(squares: jax.Array, updates: optax.Updates) -> ScaledNorm:
    del updates
    norm = jnp.sqrt(squares)
    # The norm does not depend on how it is split, so neither do its derivatives.
    scale = jax.lax.stop_gradient(norm)
    return ScaledNorm(scale, norm / scale)


def _norm_from_updates(squares: jax.Array, updates: optax.Updates) -> ScaledNorm:
    del squares
    return _rescaled_norm(updates)


def _rescaled_norm(updates: optax.Updates) -> ScaledNorm:
    """Return the norm after two passes over g, of which the first finds max|g_i|."""
    dtype = wide_dtype(updates)
    largest = jax.lax.stop_gradient(_max_abs(updates))
    tiny = jnp.asarray(jnp.finfo(dtype).tiny, dtype)
    scale = jnp.where(largest > 0, jnp.clip(largest, tiny, 1 / tiny), 1)
    squares = _sum_of_squares(updates, 1 / scale)
    nonzero = squares > 0  # keeps the derivative of the square root at 0 finite
    relative = jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, squares, 1)), 0)
    return ScaledNorm(scale, jnp.where(jnp.isfinite(largest), relative, jnp.nan))


def _sum_of_squares(updates: optax.Updates, factor: jax.Array) -> jax.Array:
    dtype = factor.dtype
    sums = [jnp.sum(jnp.square(g.astype(dtype) * factor)) for g in jax.tree.leaves(updates)]
    return sum(sums, start=jnp.zeros((), dtype))


def _max_abs(updates: optax.Updates) -> jax.Array:
    dtype = wide_dtype(updates)
    peaks = [jnp.max(jnp.abs(x), initial=0).astype(dtype) for x in jax.tree.leaves(updates)]
    return reduce(jnp.maximum, peaks, jnp.zeros((), dtype))


def shorten(updates: optax.Updates, norm: ScaledNorm, level: jax.Array) -> optax.Updates:
    """Return g · min(1, λ / ‖g‖₂) leaf by leaf, each leaf in its own dtype.

    Computed as g · (1 / scale) · (λ / relative), whose products are all of moderate size.
    """
    dtype = norm.scale.dtype
    within = norm.norm() <= level  # False when the norm or the level is NaN: the result is NaN
    factor = level / jnp.where(norm.relative == 0, jnp.ones_like(norm.relative), norm.relative)
    inverse = 1 / norm.scale
    return jax.tree.map(
        lambda g: jnp.where(within, g, (g.astype(dtype) * inverse * factor).astype(g.dtype)),
        updates,
    )


Projection = Callable[[optax.Updates, jax.Array], tuple[optax.Updates, jax.Array]]
"""Takes a gradient and a level; returns the projected gradient and the norm it had before."""


def project_global_norm(
    updates: optax.Updates, level: jax.Array
) -> tuple[optax.Updates, jax.Array]:
    """Return g · min(1, λ / ‖g‖₂) and ‖g‖₂, the norm over all tensors together.

    Examples:
        >>> g, norm = project_global_norm({"a": jnp.array(3.0), "b": jnp.array(4.0)}, 1.0)
        >>> print(f"{g['a']:.1f} {g['b']:.1f} {norm:.1f}")
        0.6 0.8 5.0
    """
    norm = scaled_norm(updates)
    return shorten(updates, norm, jnp.asarray(level, norm.scale.dtype)), norm.norm()


def project_tensor_norm(
    updates: optax.Updates, level: jax.Array
) -> tuple[optax.Updates, jax.Array]:
    """Return g_t · min(1, λ / ‖g_t‖₂) for each tensor t, and max_t ‖g_t‖₂.

    Examples:
        >>> g, norm = project_tensor_norm({"a": jnp.array(3.0), "b": jnp.array(0.5)}, 1.0)
        >>> print(f"{g['a']:.1f} {g['b']:.1f} {norm:.1f}")
        1.0 0.5 3.0
    """
    dtype = wide_dtype(updates)
    leaves, treedef = jax.tree.flatten(updates)
    norms = [scaled_norm(leaf) for leaf in leaves]
    clipped = [
        shorten(leaf, norm, jnp.asarray(level, norm.scale.dtype))
        for leaf, norm in zip(leaves, norms, strict=True)
    ]
    largest = reduce(
        jnp.maximum, [norm.norm().astype(dtype) for norm in norms], jnp.zeros((), dtype)
    )
    return jax.tree.unflatten(treedef, clipped), largest


def project_value(updates: optax.Updates, level: jax.Array) -> tuple[optax.Updates, jax.Array]:
    """Return every coordinate cut to [−λ, λ], and max_i |g_i|.

    Examples:
        >>> g, norm = project_value(jnp.array([-3.0, 0.5]), 1.0)
        >>> print(g, norm)
        [-1.   0.5] 3.0
    """
    dtype = wide_dtype(updates)
    level = jnp.asarray(level, dtype)
    clipped = jax.tree.map(
        lambda g: jnp.clip(g.astype(dtype), -level, level).astype(g.dtype), updates
    )
    return clipped, _max_abs(updates)


PROJECTIONS: dict[str, Projection] = {
    "global_norm": project_global_norm,
    "tensor_norm": project_tensor_norm,
    "value": project_value,
}
"""The kinds of clipping that optimizers take as `clip`."""


def init_clip_state(params: optax.Params, level: ScalarOrSchedule) -> ClipState:
    """Return the state before the first step: no norm seen, the level of step 0."""
    check_floating(params)
    dtype = wide_dtype(params)
    count = jnp.zeros((), jnp.int32)
    return ClipState(
        count, jnp.zeros((), dtype), level_at(level, count, dtype), jnp.zeros_like(count)
    )


def level_at(level: ScalarOrSchedule, count: jax.Array, dtype: Any) -> jax.Array:
    """Return the level at step `count` (from 0) as a new array of the given dtype, at least 0.

    A schedule or a traced number may fall below 0, where nothing can be raised; as a level it would
    turn gradients round. New, because a state that held the caller's array (such as a
    hyperparameter kept by `optax.inject_hyperparams`) could not be donated.

    Examples:
        >>> print(level_at(lambda k: 1.0 - k, jnp.array(3), jnp.float32))
        0.0
    """
    return jnp.maximum(jnp.asarray(level(count) if callable(level) else level, dtype), 0)


def record(state: ClipState, norm: jax.Array, level: jax.Array, clipped: jax.Array) -> ClipState:
    """Return the state after a step with this norm and level; `clipped`: was anything changed?"""
    clipped = clipped & ~jnp.isnan(norm)  # a tensor may be clipped beside one that is NaN
    return ClipState(
        count=increment(state.count),
        norm=norm.astype(state.norm.dtype),
        level=level.astype(state.level.dtype),
        clipped=jnp.where(clipped, increment(state.clipped), state.clipped),
    )


def clip_step(
    kind: str, updates: optax.Updates, state: ClipState, level: jax.Array
) -> tuple[optax.Updates, ClipState]:
    """Clip once: the step that all the constructors below and the clipped optimizers share.

    Args:
        kind: "global_norm", "tensor_norm" or "value".
        updates: the gradient, a tree of floating-point arrays.
        state: statistics so far.
        level: λ, a scalar.

    Returns:
        The clipped gradient, each leaf in its own dtype, and the statistics after this step.
    """
    clipped, norm = PROJECTIONS[kind](updates, level)
    level = jnp.asarray(level, state.level.dtype)
    return clipped, record(state, norm, level, norm > level)


def clipping(kind: str, level: ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Return the clipping of the given kind ("global_norm", "tensor_norm" or "value").

    Raises:
        ValueError: for an unknown kind (with the nearest name), and in `init` for parameters that
            are not floating-point arrays. The level is the caller's to check, under its own name.
    """
    check_choice("clip", kind, PROJECTIONS)

    def init(params: optax.Params) -> ClipState:
        return init_clip_state(params, level)

    def update(updates, state: ClipState, params=None, **extra_args):
        del params, extra_args
        return clip_step(kind, updates, state, level_at(level, state.count, state.level.dtype))

    return transformation(init, update)


def clip_by_global_norm(max_norm: ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    r"""Clip the gradient to a Euclidean norm, taken over all tensors together.

    .. math:: \operatorname{clip}(g, \lambda) = \min\{1,\ \lambda / \|g\|_2\}\, g

    Overflow-safe, unlike `optax.clip_by_global_norm`, and it reports what it does: see the module's
    docstring and `clip_stats`.

    Args:
        max_norm: the level λ > 0; a number, a traced scalar, or a schedule λ(step), step from 0.

    Returns:
        An Optax transformation with state `ClipState`; updates keep the dtype of the gradients.

    Non-finite gradients: the update is NaN, in every coordinate. `optax.apply_if_finite` around it
    skips the step and leaves the state as it was.

    Raises:
        ValueError: if a concrete `max_norm` is not positive, or (in `init`) a parameter is not a
            real floating-point array.

    Examples:
        >>> tx = clip_by_global_norm(1.0)
        >>> params = {"w": jnp.zeros(2), "b": jnp.zeros(())}
        >>> state = tx.init(params)
        >>> updates, state = tx.update({"w": jnp.array([2.0, 4.0]), "b": jnp.array(4.0)}, state)
        >>> print(updates["w"], updates["b"])  # the norm was 6
        [0.33333334 0.6666667 ] 0.6666667

    References:
        Pascanu et al., On the difficulty of training recurrent neural networks, 2013
        (https://arxiv.org/abs/1211.5063), Algorithm 1; Gorbunov et al., 2020
        (https://arxiv.org/abs/2005.10785), equation for clip(g, λ).
    """
    check_positive("max_norm", max_norm, schedule=True)
    return clipping("global_norm", max_norm)


def clip_by_tensor_norm(max_norm: ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    r"""Clip each tensor of the gradient to a Euclidean norm of its own ("layer-wise" clipping).

    .. math:: g_t \leftarrow \min\{1,\ \lambda / \|g_t\|_2\}\, g_t \quad\text{for each tensor } t

    A step counts as clipped if any tensor was; the norm reported is the largest of any tensor.

    Args:
        max_norm: the level λ > 0, the same for every tensor; a number, a traced scalar, or a
            schedule λ(step).

    Returns:
        An Optax transformation with state `ClipState`; updates keep the dtype of the gradients.

    Non-finite gradients: the update of a tensor with a non-finite entry is NaN, whole; other
    tensors are clipped as ever. `optax.apply_if_finite` around it skips the step and leaves the
    state as it was.

    Raises:
        ValueError: if a concrete `max_norm` is not positive, or (in `init`) a parameter is not a
            real floating-point array.

    Examples:
        >>> tx = clip_by_tensor_norm(1.0)
        >>> grads = {"w": jnp.array([3.0, 4.0]), "b": jnp.array(0.5)}
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(updates["w"], updates["b"])
        [0.6 0.8] 0.5

    References:
        Gorbunov et al., 2021 (https://arxiv.org/abs/2106.05958), experiments: "layer-wise"
        clipping.
    """
    check_positive("max_norm", max_norm, schedule=True)
    return clipping("tensor_norm", max_norm)


def clip_by_value(max_value: ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    r"""Clip each coordinate of the gradient ("coordinate-wise" clipping). Changes the direction.

    .. math:: g_i \leftarrow \min\{\max\{g_i, -\lambda\}, \lambda\}

    A step counts as clipped if any coordinate was; the norm reported is max|g_i|.

    Args:
        max_value: the level λ > 0; a number, a traced scalar, or a schedule λ(step).

    Returns:
        An Optax transformation with state `ClipState`; updates keep the dtype of the gradients.

    Non-finite gradients: ±inf is cut to ±λ as every large coordinate is, NaN stays NaN; other
    coordinates do not notice. `optax.apply_if_finite` around it skips the step and leaves the state
    as it was.

    Raises:
        ValueError: if a concrete `max_value` is not positive, or (in `init`) a parameter is not a
            real floating-point array.

    Examples:
        >>> tx = clip_by_value(0.1)
        >>> grads = jnp.array([-3.0, 0.05, 0.2])
        >>> updates, state = tx.update(grads, tx.init(grads))
        >>> print(updates, clip_stats(state).fraction)
        [-0.1   0.05  0.1 ] 1.0

    References:
        Gorbunov et al., 2021 (https://arxiv.org/abs/2106.05958), experiments: "coordinate-wise"
        clipping.
    """
    check_positive("max_value", max_value, schedule=True)
    return clipping("value", max_value)


def normalize_by_global_norm() -> optax.GradientTransformationExtraArgs:
    r"""Divide the gradient by its Euclidean norm: normalised SGD, which has no level to tune.

    .. math:: g \leftarrow g / \|g\|_2, \qquad 0 \leftarrow 0

    In `clip_stats` the level is 1, and a step counts as clipped if its gradient was longer than
    that. After `optax.ema(0.9, debias=False)` in a chain it gives NSGD-M.

    Returns:
        An Optax transformation with state `ClipState`; updates keep the dtype of the gradients.

    Non-finite gradients: the update is NaN, in every coordinate. `optax.apply_if_finite` around it
    skips the step and leaves the state as it was.

    Raises:
        ValueError: in `init`, if a parameter is not a real floating-point array.

    Examples:
        >>> tx = normalize_by_global_norm()
        >>> grads = jnp.array([3e-5, 4e-5])
        >>> updates, _ = tx.update(grads, tx.init(grads))
        >>> print(f"{updates[0]:.3f} {updates[1]:.3f}")
        0.600 0.800

    References:
        Hübler et al., From gradient clipping to normalization for heavy tailed SGD, 2024
        (https://arxiv.org/abs/2410.13849), Algorithm 1.
    """

    def init(params: optax.Params) -> ClipState:
        return init_clip_state(params, 1.0)

    def update(updates, state: ClipState, params=None, **extra_args):
        del params, extra_args
        norm = scaled_norm(updates)
        dtype = norm.scale.dtype
        inverse = 1 / norm.scale
        factor = 1 / jnp.where(norm.relative == 0, jnp.ones_like(norm.relative), norm.relative)
        unit = jax.tree.map(lambda g: (g.astype(dtype) * inverse * factor).astype(g.dtype), updates)
        length = norm.norm()
        return unit, record(state, length, state.level, length > state.level)

    return transformation(init, update)


def clip_stats(opt_state: optax.OptState) -> ClipStats:
    """Return the last norm, the level used and the share of clipped steps of a clipping.

    Args:
        opt_state: a state holding that of exactly one clipping of this package, at any depth: in a
            chain, within wrappers, in an optimizer such as `clipped_sstm`.

    Returns:
        `ClipStats(norm, level, fraction)`, float scalars; `fraction` is 0 before the first step.

    Raises:
        ValueError: if no clipping is found, or several (pass the part of the state that you mean).

    Examples:
        >>> tx = optax.chain(clip_by_global_norm(2.0), optax.sgd(0.1))
        >>> state = tx.init(jnp.zeros(2))
        >>> for g in ([0.3, 0.4], [3.0, 4.0]):
        ...     _, state = tx.update(jnp.array(g), state)
        >>> stats = clip_stats(state)
        >>> print(f"{stats.norm:.1f} {stats.level:.1f} {stats.fraction:.1f}")
        5.0 2.0 0.5
    """
    states = find_states(opt_state, ClipState)
    if not states:
        raise ValueError(
            "clip_stats found no clipping of clipjax in opt_state, which holds: "
            f"{state_names(opt_state)}."
        )
    if len(states) > 1:
        raise ValueError(
            f"clip_stats found several clippings: {describe(states)}. Pass the part of the state "
            f"that you mean, such as opt_state{states[0][0]}."
        )
    return _stats(states[0][1])


def all_clip_stats(opt_state: optax.OptState) -> tuple[ClipStats, ...]:
    """Return `clip_stats` of every clipping in a state, outermost first; none where there is none.

    Examples:
        >>> tx = optax.chain(clip_by_global_norm(2.0), clip_by_value(1.0), optax.sgd(0.1))
        >>> [float(stats.level) for stats in all_clip_stats(tx.init(jnp.zeros(2)))]
        [2.0, 1.0]
    """
    return tuple(_stats(state) for _, state in find_states(opt_state, ClipState))


def _stats(state: ClipState) -> ClipStats:
    fraction = state.clipped.astype(state.norm.dtype) / jnp.maximum(state.count, 1)
    return ClipStats(state.norm, state.level, fraction.astype(state.norm.dtype))
