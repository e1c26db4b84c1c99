r"""Clipping to a quantile of the norms seen so far (AutoClip), kept in a ring buffer.

Norms, projection, dtypes and what is reported are those of `clipjax.optim.clipping.norms`: nothing
overflows on the way, zeros stay zero, and a non-finite gradient comes out as NaN, whole (that
tensor, where tensors are clipped by themselves). **A norm that is not finite never enters the
history**; a finite gradient whose norm exceeds the largest float is clipped like any other spike,
and does not enter either.

The state has a fixed shape: it can be checkpointed, and stacked by `vmap`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax.optim._checks import check_count, check_flag, check_interval
from clipjax.optim._trees import transformation
from clipjax.optim.clipping._tensor_norms import check_tensors, most_shortened, stack_norms
from clipjax.optim.clipping.norms import (
    ClipState,
    init_clip_state,
    level_at,
    record,
    scaled_norm,
    shorten,
)
from clipjax.typing import ScalarOrSchedule


class QuantileClipState(NamedTuple):
    """State of `clip_by_quantile`, for one or `tensors` histories.

    Attributes:
        clip: what every clipping remembers.
        norms: the last finite norms, (tensors, window); inf where there is none yet.
        position: where the next norm goes, int32 (tensors,), in [0, window).
    """

    clip: ClipState
    norms: jax.Array
    position: jax.Array


LARGEST_WINDOW = 2**24
"""Positions in the sorted window are float32, which counts no further in steps of one."""

LARGEST_STATE = 2**28
"""Norms in the windows of all tensors together: 1 GiB in float32."""


def _size(norms: int) -> str:
    return f"{4 * norms / 2**30:.3g} GiB"


def empirical_quantile(values: jax.Array, quantile: jax.Array) -> jax.Array:
    """Return the quantile of the finite entries along the last axis; inf where there is none.

    Between two order statistics it is linear, as NumPy's default: the quantile q of n sorted values
    lies at index q(n − 1). Padding with inf and not with NaN keeps `jax_debug_nans` usable.

    Examples:
        >>> print(empirical_quantile(jnp.array([3.0, jnp.inf, 1.0, 2.0, jnp.inf]), 0.75))
        2.5
        >>> print(empirical_quantile(jnp.array([jnp.inf]), 0.75))
        inf
    """
    finite = jnp.isfinite(values)
    last = jnp.maximum(jnp.sum(finite, axis=-1, dtype=jnp.int32) - 1, 0)
    index = jnp.asarray(quantile, values.dtype) * last.astype(values.dtype)
    lower = jnp.floor(index)
    ordered = jnp.sort(values, axis=-1)  # the padding comes last
    ordered = jnp.where(jnp.isfinite(ordered), ordered, 0)
    places = jnp.arange(values.shape[-1], dtype=values.dtype)
    low, high = (
        jnp.sum(jnp.where(places == place[..., None], ordered, 0), axis=-1)
        for place in (lower, jnp.minimum(lower + 1, last))
    )
    value = low + (index - lower) * (high - low)
    return jnp.where(jnp.any(finite, axis=-1), value, jnp.inf)


def remember(norms: jax.Array, position: jax.Array, new: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the ring buffers with one new norm each, and the next positions; only finite ones.

    Args:
        norms: (tensors, window).
        position: where to write, int32 (tensors,).
        new: (tensors,).

    Examples:
        >>> norms, position = jnp.array([[1.0, 2.0], [1.0, 2.0]]), jnp.array([1, 1])
        >>> norms, position = remember(norms, position, jnp.array([7.0, jnp.nan]))
        >>> print(norms.tolist(), position)
        [[1.0, 7.0], [1.0, 2.0]] [0 1]
    """
    window = norms.shape[-1]
    finite = jnp.isfinite(new)
    here = jnp.arange(window, dtype=position.dtype) == position[:, None]
    norms = jnp.where(here & finite[:, None], new[:, None], norms)
    return norms, jnp.where(finite, (position + 1) % window, position)


@partial(jax.jit, inline=True)  # a step without jit dispatches it as one operation
def _quantile_step(
    norms: jax.Array, position: jax.Array, new: jax.Array, quantile: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the next ring buffers and positions, and the level of each tensor."""
    norms, position = remember(norms, position, new)
    return norms, position, empirical_quantile(norms, quantile)


def clip_by_quantile(
    quantile: ScalarOrSchedule, window: int = 1000, *, per_tensor: bool = False
) -> optax.GradientTransformationExtraArgs:
    r"""Clip the gradient to a quantile of the norms of the last steps (AutoClip).

    .. math:: \lambda_k = Q_q(\|g_{k-w+1}\|_2, \dots, \|g_k\|_2),
       \qquad g_k \leftarrow \min\{1,\ \lambda_k / \|g_k\|_2\}\, g_k

    The quantile is exact, of the norms before clipping, the current one included, and linear
    between two of them. While fewer than `window` norms have been seen it is that of all of them:
    the first gradient is its own quantile and passes. About a share 1 − q of stationary gradients
    is clipped; there is no level to tune. If more than a share q of the norms are zero, so is the
    level, until others have taken their place.

    Args:
        quantile: q in (0, 1), such as 0.1 (the paper's) or 0.9; a number, a traced scalar, or a
            schedule q(step).
        window: the number w of norms remembered, from 1 to 2^24, 4 bytes each (float32). With
            `per_tensor` the windows of all tensors together hold 2^28 norms at most (1 GiB). Sets
            the shape of the state: static under `optax.inject_hyperparams`, name it in
            `static_args`.
        per_tensor: whether each tensor is clipped by itself, with a history of its own.

    Returns:
        An Optax transformation with state `QuantileClipState`; updates keep the dtype of the
        gradients.

    Non-finite gradients: the update is NaN, in every coordinate (with `per_tensor`, of that
    tensor). A norm that is not finite enters no history, so later levels are those without it.
    `optax.apply_if_finite` around it skips the step and leaves the state as it was.

    Raises:
        ValueError: if `quantile` is outside (0, 1), `window` is not a whole number from 1 to 2^24
            known at construction, or (in `init`) a parameter is not a real floating-point array or
            the windows of all tensors are too large.
        TypeError: if `per_tensor` is not True or False.

    Examples:
        >>> tx = clip_by_quantile(0.5)
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in (1.0, 3.0, 100.0):
        ...     updates, state = tx.update(jnp.array([g]), state)
        ...     print(updates)
        [1.]
        [2.]
        [3.]

    References:
        Seetharaman et al., AutoClip: adaptive gradient clipping for source separation networks,
        2020 (https://arxiv.org/abs/2007.14469), Algorithm 1, which keeps all norms.
    """
    check_interval("quantile", quantile, 0, 1, closed_low=False, closed_high=False, schedule=True)
    if isinstance(window, jax.Array):
        raise ValueError(
            f"window must be a whole number known at construction, got {window}: it sets the shape "
            "of the state. Name it in static_args of optax.inject_hyperparams."
        )
    check_count("window", window, minimum=1)
    if window > LARGEST_WINDOW:
        raise ValueError(
            f"window must be at most 2^24 = {LARGEST_WINDOW} norms, got {window}: a buffer of "
            f"{_size(window)}, all of which is sorted in every step."
        )
    check_flag("per_tensor", per_tensor)

    def init(params: optax.Params) -> QuantileClipState:
        clip = init_clip_state(params, jnp.inf)
        tensors = len(jax.tree.leaves(params)) if per_tensor else 1
        if tensors * window > LARGEST_STATE:
            raise ValueError(
                f"window={window} for each of {tensors} tensors is a buffer of "
                f"{_size(tensors * window)}; at most {_size(LARGEST_STATE)}. Take a window of "
                f"{LARGEST_STATE // tensors} or less, or per_tensor=False."
            )
        norms = jnp.full((tensors, window), jnp.inf, clip.norm.dtype)
        return QuantileClipState(clip, norms, jnp.zeros(tensors, jnp.int32))

    def update(updates, state: QuantileClipState, params=None, **extra_args):
        del params, extra_args
        leaves, treedef = jax.tree.flatten(updates)
        groups = [[leaf] for leaf in leaves] if per_tensor else [leaves]
        check_tensors("clip_by_quantile", len(groups), len(state.norms))
        dtype = state.norms.dtype
        scaled = [scaled_norm(group) for group in groups]
        norms = stack_norms(scaled, dtype)
        q = level_at(quantile, state.clip.count, dtype)
        history, position, levels = _quantile_step(state.norms, state.position, norms, q)
        clipped = [
            shorten(group, part, level.astype(part.scale.dtype))
            for group, part, level in zip(groups, scaled, levels, strict=True)
        ]
        norm, level = most_shortened(norms, levels)
        clip = record(state.clip, norm, level, jnp.any(norms > levels))
        clipped = jax.tree.unflatten(treedef, jax.tree.leaves(clipped))
        return clipped, QuantileClipState(clip, history, position)

    return transformation(init, update)
