r"""Clipping of norms that stand out from their running mean, in standard deviations (ZClip).

Norms, projection, dtypes and what is reported are those of `clipjax.optim.clipping.norms`: nothing
overflows on the way, zeros stay zero, and a non-finite gradient comes out as NaN, whole. **A norm
that is not finite never enters the averages**; a finite gradient whose norm exceeds the largest
float is clipped like any other spike, and does not enter either.

The state is a handful of scalars: it can be checkpointed, and stacked by `vmap`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax.optim._checks import (
    check_choice,
    check_count,
    check_flag,
    check_interval,
    check_positive,
)
from clipjax.optim._trees import transformation
from clipjax.optim.clipping.norms import (
    ClipState,
    init_clip_state,
    level_at,
    record,
    scaled_norm,
    shorten,
)
from clipjax.typing import ScalarOrSchedule

MODES = ("adaptive", "mean", "percentile")
"""To which norm `clip_by_zscore` shortens a spike."""


class ZScoreClipState(NamedTuple):
    """State of `clip_by_zscore`.

    Attributes:
        clip: what every clipping remembers.
        mean: average norm μ, scalar.
        deviation: standard deviation σ of the norm, scalar; its square could overflow.
        seen: number of finite norms that entered the averages; int32 scalar.
    """

    clip: ClipState
    mean: jax.Array
    deviation: jax.Array
    seen: jax.Array


def zscore_level(
    norm: jax.Array,
    mean: jax.Array,
    deviation: jax.Array,
    threshold: jax.Array,
    mode: str,
    clip_factor: jax.typing.ArrayLike = 1.0,
) -> tuple[jax.Array, jax.Array]:
    r"""Return the level of ZClip for a gradient of this norm, and whether the norm is a spike.

    A norm up to μ + z*σ is no spike and that is the level. A spike, of z-score z = (‖g‖ − μ)/σ, is
    shortened to a factor times μ + z*σ · (z*/z) ("adaptive": the further out, the nearer to the
    mean), times μ ("mean"), or times μ + z*σ ("percentile").

    Examples:
        >>> for norm in (1.5, 2.0, 3.0, 11.0):  # z-scores 1, 2, 4, 20
        ...     level, spike = zscore_level(jnp.array(norm), 1.0, 0.5, 2.0, "adaptive")
        ...     print(level, spike)
        2.0 False
        2.0 False
        1.5 True
        1.1 True
    """
    limit = mean + threshold * deviation
    spike = norm > limit
    if mode == "percentile":
        level = limit
    elif mode == "mean":
        level = mean
    else:  # z*/z = z*σ/(‖g‖ − μ), at most 1, so that nothing overflows
        inverse = threshold * deviation / jnp.where(spike, norm - mean, 1)
        level = mean + threshold * deviation * inverse
    return jnp.where(spike, clip_factor * level, limit), spike


def clip_by_zscore(
    threshold: ScalarOrSchedule = 2.5,
    *,
    decay: jax.typing.ArrayLike = 0.97,
    warmup_steps: int = 25,
    max_norm: ScalarOrSchedule | None = None,
    mode: str = "adaptive",
    clip_factor: jax.typing.ArrayLike = 1.0,
    skip_update_on_spike: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Clip gradients whose norm lies far above the running mean, in standard deviations (ZClip).

    .. math:: z_k = \frac{\|g_k\|_2 - \mu_{k-1}}{\sigma_{k-1}}, \qquad
       c_k = f \left(\mu_{k-1} + z^* \sigma_{k-1} \frac{z^*}{z_k}\right) \text{ if } z_k > z^*,
       \text{ else } \|g_k\|_2

    .. math:: \mu_k = \beta \mu_{k-1} + (1-\beta) c_k, \qquad
       \sigma_k^2 = \beta \sigma_{k-1}^2 + (1-\beta) (c_k - \mu_k)^2

    The averages are fed by the clipped norm c_k, so that a spike does not raise them. In the first
    `warmup_steps` steps nothing is judged, and μ, σ become the mean and the (population) deviation
    of their norms. Unlike the authors' code there is no ε in z_k nor in the scaling of the
    gradient: what is clipped does not depend on the scale of the loss.

    The authors' options and ours: `mode="zscore", clip_option="adaptive_scaling"` is mode
    "adaptive", `mode="zscore", clip_option="mean"` is mode "mean", `mode="percentile"` is itself;
    z_thresh, alpha and max_grad_norm (theirs: 1 unless said) are threshold, decay and max_norm;
    clip_factor and skip_update_on_spike have their names.

    Args:
        threshold: z* > 0; a number, a traced scalar, or a schedule z*(step).
        decay: β in [0, 1).
        warmup_steps: number of finite norms that start the averages, at least 1. May be traced, yet
            under `optax.inject_hyperparams` it is better named in `static_args`.
        max_norm: a level that holds besides, in the warm-up too; None for none. As in the authors'
            code it does not touch what feeds the averages.
        mode: what a spike is shortened to: "adaptive" as above, "mean" to f·μ, "percentile" to
            f·(μ + z*σ).
        clip_factor: f in (0, 1], which shortens spikes further; a number or a traced scalar. It
            acts in every mode; the authors' code, which advises 0.3 to 0.7 where norms are
            volatile, ignores it but in "adaptive".
        skip_update_on_spike: whether a spike leaves μ and σ as they are, instead of entering as
            c_k. What is skipped is the update of these statistics: the parameters still move, by
            the shortened gradient. Norms that rise above μ + z*σ for good then stay spikes for
            good, as the averages never see them.

    Returns:
        An Optax transformation with state `ZScoreClipState`; updates keep the dtype of the
        gradients. Below a spike the level in `clip_stats` is μ + z*σ, the norm from which on a
        gradient would have been clipped; in the warm-up it is inf.

    Non-finite gradients: the update is NaN, in every coordinate. A norm that is not finite does not
    enter the averages, nor count as a step of the warm-up. `optax.apply_if_finite` around it skips
    the step and leaves the state as it was.

    Raises:
        ValueError: if `threshold` or a `max_norm` is not positive, `decay` is outside [0, 1),
            `clip_factor` outside (0, 1], `warmup_steps` is not a whole number of at least 1, `mode`
            is unknown, or (in `init`) a parameter is not a real floating-point array.

    Examples:
        >>> tx = clip_by_zscore(2.0, warmup_steps=2)
        >>> state = tx.init(jnp.zeros(1))
        >>> for g in (0.5, 1.5, 2.0, 11.0):  # the warm-up leaves mean 1 and deviation 0.5
        ...     updates, state = tx.update(jnp.array([g]), state)
        ...     print(f"{updates[0]:.3f} {state.mean:.3f} {state.deviation:.3f}")
        0.500 0.500 0.000
        1.500 1.000 0.500
        2.000 1.030 0.520
        1.139 1.033 0.513

    References:
        Kumar et al., ZClip: adaptive spike mitigation for LLM pre-training, 2025
        (https://arxiv.org/abs/2504.02507), Algorithm 1.
    """
    check_positive("threshold", threshold, finite=True, schedule=True)
    check_interval("decay", decay, 0, 1, closed_high=False)
    check_count("warmup_steps", warmup_steps, minimum=1)
    if max_norm is not None:
        check_positive("max_norm", max_norm, schedule=True)
    check_choice("mode", mode, MODES)
    check_flag("skip_update_on_spike", skip_update_on_spike)
    check_interval("clip_factor", clip_factor, 0, 1, closed_low=False)

    def init(params: optax.Params) -> ZScoreClipState:
        clip = init_clip_state(params, jnp.inf)
        dtype = clip.norm.dtype
        zero = jnp.zeros((), dtype)
        return ZScoreClipState(clip, zero, jnp.zeros_like(zero), jnp.zeros((), jnp.int32))

    def update(updates, state: ZScoreClipState, params=None, **extra_args):
        del params, extra_args
        dtype, count = state.mean.dtype, state.clip.count
        scaled = scaled_norm(updates)
        norm = scaled.norm().astype(dtype)
        warm = state.seen < warmup_steps
        z = level_at(threshold, count, dtype)
        factor = jnp.asarray(clip_factor, dtype)
        level, spike = zscore_level(norm, state.mean, state.deviation, z, mode, factor)
        level = jnp.where(warm, jnp.inf, level)
        mean, deviation = _feed(state, jnp.minimum(norm, level), warm, jnp.asarray(decay, dtype))
        enters = jnp.isfinite(norm)
        if skip_update_on_spike:
            enters &= warm | ~spike
        if max_norm is not None:
            level = jnp.minimum(level, level_at(max_norm, count, dtype))
        clip = record(state.clip, norm, level, norm > level)
        new_state = ZScoreClipState(
            clip,
            jnp.where(enters, mean, state.mean),
            jnp.where(enters, deviation, state.deviation),
            # Only the warm-up counts: past it the number may stand still.
            jnp.where(enters & warm, state.seen + 1, state.seen),
        )
        return shorten(updates, scaled, level.astype(scaled.scale.dtype)), new_state

    return transformation(init, update)


def _feed(
    state: ZScoreClipState, norm: jax.Array, warm: jax.Array, decay: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return mean and deviation after one more norm: equal weights in the warm-up, then averages.

    With δ = c − μ and weight w both are μ + wδ, while σ² is (1 − w)σ² + w(1 − w)δ² in the warm-up
    (Welford's form, w = 1/k) and (1 − w)σ² + w(1 − w)²δ² after it (w = 1 − β).
    """
    weight = jnp.where(warm, 1 / (state.seen + 1).astype(decay.dtype), 1 - decay)
    kept = 1 - weight
    delta = norm - state.mean
    share = jnp.sqrt(weight) * jnp.where(warm, jnp.sqrt(kept), kept)
    deviation = jnp.hypot(jnp.sqrt(kept) * state.deviation, share * delta)
    return state.mean + weight * delta, deviation
