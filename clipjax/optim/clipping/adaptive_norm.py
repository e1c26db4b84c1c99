r"""Clipping of each tensor to a multiple of the average of its own clipped norms (AdaGC).

Norms, projection, dtypes and what is reported are those of `clipjax.optim.clipping.norms`: nothing
overflows on the way, zeros stay zero, and a tensor that is not finite comes out as NaN, whole. **A
norm that is not finite never enters the averages**; a finite tensor whose norm exceeds the largest
float is clipped like any other spike, and does not enter either.

The state has a fixed shape: it can be checkpointed, and stacked by `vmap`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax.optim._checks import check_count, check_interval, check_positive
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


class AdaptiveNormClipState(NamedTuple):
    """State of `clip_by_adaptive_norm`.

    Attributes:
        clip: what every clipping remembers.
        average: γ, the average clipped norm of each tensor, (tensors,) in the order of
            `jax.tree.leaves`; inf where no norm was seen.
    """

    clip: ClipState
    average: jax.Array


def clip_by_adaptive_norm(
    relative: ScalarOrSchedule = 1.05,
    absolute: ScalarOrSchedule = 1.0,
    *,
    decay: jax.typing.ArrayLike = 0.98,
    warmup_steps: int = 100,
) -> optax.GradientTransformationExtraArgs:
    r"""Clip each tensor to a multiple of the average of its own clipped norms (AdaGC).

    .. math:: \hat g_t = \min\{1,\ \lambda_\text{rel} \gamma_t / \|g_t\|_2\}\, g_t, \qquad
       \gamma_t \leftarrow \beta \gamma_t + (1-\beta) \|\hat g_t\|_2
       \quad\text{for each tensor } t

    In the first `warmup_steps` steps the whole gradient is clipped to the global norm λ_abs, and
    γ_t is the smallest norm of tensor t seen (after clipping). Norms of zero do not enter γ_t: one
    such step in the warm-up would hold the tensor at zero for ever.

    Args:
        relative: λ_rel > 0; a number, a traced scalar, or a schedule. γ_t can grow by a factor of
            at most β + (1 − β) λ_rel a step.
        absolute: λ_abs > 0, the global norm in the warm-up; likewise.
        decay: β in [0, 1).
        warmup_steps: number of steps, at least 1. May be traced, yet under
            `optax.inject_hyperparams` it is better named in `static_args`.

    Returns:
        An Optax transformation with state `AdaptiveNormClipState`; updates keep the dtype of the
        gradients.

    Non-finite gradients: the update of a tensor with a non-finite entry is NaN, whole; in the
    warm-up, where all are clipped together, every tensor's. What was not finite enters no average,
    but its step counts as one of the warm-up. `optax.apply_if_finite` around it skips the step and
    leaves the state as it was.

    Raises:
        ValueError: if `relative` or `absolute` is not positive, `decay` is outside [0, 1),
            `warmup_steps` is not a whole number of at least 1, or (in `init`) a parameter is not a
            real floating-point array.

    Examples:
        >>> tx = clip_by_adaptive_norm(2.0, warmup_steps=1)
        >>> grads = {"w": jnp.array([0.3, 0.4]), "b": jnp.array(0.1)}
        >>> _, state = tx.update(grads, tx.init(grads))
        >>> grads = {"w": jnp.array([30.0, 40.0]), "b": jnp.array(0.15)}
        >>> updates, state = tx.update(grads, state)
        >>> print(jnp.round(updates["w"], 3), updates["b"])  # w may have twice its norm; b passes
        [0.6 0.8] 0.15

    References:
        Wang et al., AdaGC: improving training stability for large language model pretraining, 2025
        (https://arxiv.org/abs/2502.11034), Algorithm 1.
    """
    check_positive("relative", relative, finite=True, schedule=True)
    check_positive("absolute", absolute, schedule=True)
    check_interval("decay", decay, 0, 1, closed_high=False)
    check_count("warmup_steps", warmup_steps, minimum=1)

    def init(params: optax.Params) -> AdaptiveNormClipState:
        clip = init_clip_state(params, absolute)
        average = jnp.full(len(jax.tree.leaves(params)), jnp.inf, clip.norm.dtype)
        return AdaptiveNormClipState(clip, average)

    def update(updates, state: AdaptiveNormClipState, params=None, **extra_args):
        del params, extra_args
        leaves, treedef = jax.tree.flatten(updates)
        check_tensors("clip_by_adaptive_norm", len(leaves), len(state.average))
        dtype, count = state.average.dtype, state.clip.count
        warm = count < warmup_steps
        whole = scaled_norm(updates)
        whole_norm, whole_level = whole.norm().astype(dtype), level_at(absolute, count, dtype)
        scaled = [scaled_norm(leaf) for leaf in leaves]
        norms = stack_norms(scaled, dtype)
        levels = level_at(relative, count, dtype) * state.average

        clipped = [
            shorten(
                leaf,
                jax.tree.map(lambda a, b: jnp.where(warm, a, b), whole, part),
                jnp.where(warm, whole_level, levels[i]).astype(whole.scale.dtype),
            )
            for i, (leaf, part) in enumerate(zip(leaves, scaled, strict=True))
        ]
        # NaN stays NaN: beside a tensor that is not finite no norm enters in the warm-up.
        safe = jnp.where(whole_norm == 0, 1, whole_norm)
        factor = whole_level / safe
        in_warmup = norms * jnp.minimum(1, factor)
        # Under a norm near the largest float the factor is flushed to zero; the product may be 1.
        flushed = factor < jnp.finfo(dtype).tiny
        in_warmup = jnp.where(flushed, whole_level * (norms / safe), in_warmup)
        entering = jnp.where(warm, in_warmup, jnp.minimum(norms, levels))
        average = jnp.where(
            jnp.isfinite(norms) & jnp.isfinite(entering) & (entering > 0),
            _adaptive_average(state.average, entering, warm, jnp.asarray(decay, dtype)),
            state.average,
        )
        norm, level = most_shortened(norms, levels)
        norm, level = jnp.where(warm, whole_norm, norm), jnp.where(warm, whole_level, level)
        changed = jnp.where(warm, whole_norm > whole_level, jnp.any(norms > levels))
        clip = record(state.clip, norm, level, changed)
        return jax.tree.unflatten(treedef, clipped), AdaptiveNormClipState(clip, average)

    return transformation(init, update)


def _adaptive_average(
    average: jax.Array, norms: jax.Array, warm: jax.Array, decay: jax.Array
) -> jax.Array:
    """Return γ after one more clipped norm of each tensor; the first norm starts it."""
    known = jnp.isfinite(average)
    mixed = jnp.where(known, average, norms)
    mixed = mixed + (1 - decay) * (norms - mixed)
    return jnp.where(warm, jnp.minimum(average, norms), mixed)
