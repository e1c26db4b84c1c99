r"""Gradient clipping whose level follows the norms seen so far, or whose use is drawn at random.

| transformation          | level of a step                                  | norms of |
|-------------------------|--------------------------------------------------|----------|
| `clip_by_quantile`      | a quantile of the last norms (AutoClip)          | either   |
| `clip_by_zscore`        | from mean and deviation of the norms (ZClip)     | all      |
| `clip_by_adaptive_norm` | a multiple of the average clipped norm (AdaGC)   | each     |
| `clip_with_probability` | a given one; whether it holds is drawn at random | all      |

The norms are those of all tensors together, or of each by itself.

Norms, projection, dtypes and what is reported are those of `clipjax.optim.clipping`: nothing
overflows on the way, zeros stay zero, and a non-finite gradient comes out as NaN, whole (that
tensor, where tensors are clipped by themselves). **A norm that is not finite never enters a history
or an average**; a finite gradient whose norm exceeds the largest float is clipped like any other
spike, and does not enter either. Where each tensor has a level of its own, the norm and the level
reported are those of the tensor that was shortened most.

Each state has fixed shapes: it can be checkpointed, and stacked by `vmap`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax.optim._checks import check_choice, check_count, check_interval, check_positive
from clipjax.optim._trees import transformation, wide_dtype
from clipjax.optim.clipping import (
    ClipState,
    ScaledNorm,
    init_clip_state,
    level_at,
    record,
    scaled_norm,
    shorten,
)
from clipjax.typing import ScalarOrSchedule

MODES = ("adaptive", "mean", "percentile")
"""To which norm `clip_by_zscore` shortens a spike."""


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


class AdaptiveNormClipState(NamedTuple):
    """State of `clip_by_adaptive_norm`.

    Attributes:
        clip: what every clipping remembers.
        average: γ, the average clipped norm of each tensor, (tensors,) in the order of
            `jax.tree.leaves`; inf where no norm was seen.
    """

    clip: ClipState
    average: jax.Array


class RandomClipState(NamedTuple):
    """State of `clip_with_probability`.

    Attributes:
        clip: what every clipping remembers.
        key: the data of the base key, uint32; the draw of step k uses `fold_in(key, k)`.
    """

    clip: ClipState
    key: jax.Array


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


def _stack(norms: list[ScaledNorm], dtype: Any) -> jax.Array:
    """Return the norms of the tensors as an array (tensors,)."""
    return jnp.array([norm.norm().astype(dtype) for norm in norms], dtype).reshape(-1)


@partial(jax.jit, inline=True)
def _most_shortened(norms: jax.Array, levels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return norm and level of the tensor with the largest norm / level; NaN is larger than all."""
    if not norms.size:
        return jnp.zeros((), norms.dtype), jnp.full((), jnp.inf, levels.dtype)
    positive = levels > 0
    ratio = norms / jnp.where(positive & jnp.isfinite(levels), levels, 1)
    ratio = jnp.where(positive | (norms == 0), ratio, jnp.inf)
    ratio = jnp.where(jnp.isfinite(levels) | jnp.isnan(norms), ratio, 0)
    worst = jnp.argmax(ratio)
    return norms[worst], levels[worst]


def _check_tensors(name: str, given: int, expected: int) -> None:
    if given != expected:
        raise ValueError(
            f"{name} keeps a history of each of {expected} tensors, but the gradient has {given}. "
            "Give update a gradient with the structure of the parameters given to init."
        )


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
        window: the number w >= 1 of norms remembered, 4 bytes each (float32). Sets the shape of the
            state: static under `optax.inject_hyperparams`, name it in `static_args`.
        per_tensor: whether each tensor is clipped by itself, with a history of its own.

    Returns:
        An Optax transformation with state `QuantileClipState`; updates keep the dtype of the
        gradients.

    Raises:
        ValueError: if `quantile` is outside (0, 1), `window` is not a whole number of at least 1
            known at construction, or (in `init`) a parameter is not a real floating-point array.

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
    check_interval("quantile", quantile, 0, 1, closed_low=False, closed_high=False)
    if isinstance(window, jax.Array):
        raise ValueError(
            f"window must be a whole number known at construction, got {window}: it sets the shape "
            "of the state. Name it in static_args of optax.inject_hyperparams."
        )
    check_count("window", window, minimum=1)
    if window is None:
        raise ValueError("window must be a whole number >= 1, got None.")

    def init(params: optax.Params) -> QuantileClipState:
        clip = init_clip_state(params, jnp.inf)
        tensors = len(jax.tree.leaves(params)) if per_tensor else 1
        norms = jnp.full((tensors, window), jnp.inf, clip.norm.dtype)
        return QuantileClipState(clip, norms, jnp.zeros(tensors, jnp.int32))

    def update(updates, state: QuantileClipState, params=None, **extra_args):
        del params, extra_args
        leaves, treedef = jax.tree.flatten(updates)
        groups = [[leaf] for leaf in leaves] if per_tensor else [leaves]
        _check_tensors("clip_by_quantile", len(groups), len(state.norms))
        dtype = state.norms.dtype
        scaled = [scaled_norm(group) for group in groups]
        norms = _stack(scaled, dtype)
        q = level_at(quantile, state.clip.count, dtype)
        history, position, levels = _quantile_step(state.norms, state.position, norms, q)
        clipped = [
            shorten(group, part, level.astype(part.scale.dtype))
            for group, part, level in zip(groups, scaled, levels, strict=True)
        ]
        norm, level = _most_shortened(norms, levels)
        clip = record(state.clip, norm, level, jnp.any(norms > levels))
        clipped = jax.tree.unflatten(treedef, jax.tree.leaves(clipped))
        return clipped, QuantileClipState(clip, history, position)

    return transformation(init, update)


def zscore_level(
    norm: jax.Array, mean: jax.Array, deviation: jax.Array, threshold: jax.Array, mode: str
) -> jax.Array:
    r"""Return the level of ZClip for a gradient of this norm.

    A norm up to μ + z*σ is no spike and that is the level. A spike, of z-score z = (‖g‖ − μ)/σ, is
    shortened to μ + z*σ · (z*/z) ("adaptive": the further out, the nearer to the mean), to μ
    ("mean"), or to μ + z*σ ("percentile").

    Examples:
        >>> for norm in (1.5, 2.0, 3.0, 11.0):  # z-scores 1, 2, 4, 20
        ...     print(zscore_level(jnp.array(norm), 1.0, 0.5, 2.0, "adaptive"))
        2.0
        2.0
        1.5
        1.1
    """
    limit = mean + threshold * deviation
    spike = norm > limit
    if mode == "percentile":
        return limit
    if mode == "mean":
        return jnp.where(spike, mean, limit)
    # z*/z = z*σ/(‖g‖ − μ), at most 1, so that nothing overflows.
    inverse = threshold * deviation / jnp.where(spike, norm - mean, 1)
    return jnp.where(spike, mean + threshold * deviation * inverse, limit)


def clip_by_zscore(
    threshold: ScalarOrSchedule = 2.5,
    *,
    decay: jax.typing.ArrayLike = 0.97,
    warmup_steps: int = 25,
    max_norm: ScalarOrSchedule | None = None,
    mode: str = "adaptive",
) -> optax.GradientTransformationExtraArgs:
    r"""Clip gradients whose norm lies far above the running mean, in standard deviations (ZClip).

    .. math:: z_k = \frac{\|g_k\|_2 - \mu_{k-1}}{\sigma_{k-1}}, \qquad
       c_k = \mu_{k-1} + z^* \sigma_{k-1} \frac{z^*}{z_k} \text{ if } z_k > z^*,
       \text{ else } \|g_k\|_2

    .. math:: \mu_k = \beta \mu_{k-1} + (1-\beta) c_k, \qquad
       \sigma_k^2 = \beta \sigma_{k-1}^2 + (1-\beta) (c_k - \mu_k)^2

    The averages are fed by the clipped norm c_k, so that a spike does not raise them. In the first
    `warmup_steps` steps nothing is judged, and μ, σ become the mean and the (population) deviation
    of their norms. Unlike the authors' code there is no ε in z_k nor in the scaling of the
    gradient: what is clipped does not depend on the scale of the loss.

    Args:
        threshold: z* > 0; a number, a traced scalar, or a schedule z*(step).
        decay: β in [0, 1).
        warmup_steps: number of finite norms that start the averages, at least 1. May be traced, yet
            under `optax.inject_hyperparams` it is better named in `static_args`.
        max_norm: a level that holds besides, in the warm-up too; None for none. As in the authors'
            code it does not touch what feeds the averages.
        mode: what a spike is shortened to: "adaptive" as above, "mean" to μ, "percentile" to
            μ + z*σ. (The authors' code calls the first two mode "zscore" with clip option
            "adaptive_scaling" or "mean".)

    Returns:
        An Optax transformation with state `ZScoreClipState`; updates keep the dtype of the
        gradients. Below a spike the level in `clip_stats` is μ + z*σ, the norm from which on a
        gradient would have been clipped; in the warm-up it is inf.

    Raises:
        ValueError: if `threshold` or a `max_norm` is not positive, `decay` is outside [0, 1),
            `warmup_steps` is not a whole number of at least 1, `mode` is unknown, or (in `init`) a
            parameter is not a real floating-point array.

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
    check_positive("threshold", threshold, finite=True)
    check_interval("decay", decay, 0, 1, closed_high=False)
    check_count("warmup_steps", warmup_steps, minimum=1)
    if max_norm is not None:
        check_positive("max_norm", max_norm)
    check_choice("mode", mode, MODES)

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
        level = zscore_level(norm, state.mean, state.deviation, z, mode)
        level = jnp.where(warm, jnp.inf, level)
        mean, deviation = _feed(state, jnp.minimum(norm, level), warm, jnp.asarray(decay, dtype))
        if max_norm is not None:
            level = jnp.minimum(level, level_at(max_norm, count, dtype))
        clip = record(state.clip, norm, level, norm > level)
        finite = jnp.isfinite(norm)
        new_state = ZScoreClipState(
            clip,
            jnp.where(finite, mean, state.mean),
            jnp.where(finite, deviation, state.deviation),
            # Only the warm-up counts: past it the number may stand still.
            jnp.where(finite & warm, state.seen + 1, state.seen),
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
        >>> print(updates["w"], updates["b"])  # w had norm 0.5 and may have twice that; b passes
        [0.6 0.8] 0.15

    References:
        Wang et al., AdaGC: improving training stability for large language model pretraining, 2025
        (https://arxiv.org/abs/2502.11034), Algorithm 1.
    """
    check_positive("relative", relative, finite=True)
    check_positive("absolute", absolute)
    check_interval("decay", decay, 0, 1, closed_high=False)
    check_count("warmup_steps", warmup_steps, minimum=1)

    def init(params: optax.Params) -> AdaptiveNormClipState:
        clip = init_clip_state(params, absolute)
        average = jnp.full(len(jax.tree.leaves(params)), jnp.inf, clip.norm.dtype)
        return AdaptiveNormClipState(clip, average)

    def update(updates, state: AdaptiveNormClipState, params=None, **extra_args):
        del params, extra_args
        leaves, treedef = jax.tree.flatten(updates)
        _check_tensors("clip_by_adaptive_norm", len(leaves), len(state.average))
        dtype, count = state.average.dtype, state.clip.count
        warm = count < warmup_steps
        whole = scaled_norm(updates)
        whole_norm, whole_level = whole.norm().astype(dtype), level_at(absolute, count, dtype)
        scaled = [scaled_norm(leaf) for leaf in leaves]
        norms = _stack(scaled, dtype)
        levels = level_at(relative, count, dtype) * state.average

        clipped = [
            shorten(
                leaf,
                jax.tree.map(lambda a, b: jnp.where(warm, a, b), whole, part),
                jnp.where(warm, whole_level, levels[i]).astype(whole.scale.dtype),
            )
            for i, (leaf, part) in enumerate(zip(leaves, scaled, strict=True))
        ]
        safe = jnp.where(whole_norm > 0, whole_norm, 1)
        in_warmup = norms * jnp.minimum(1, whole_level / safe)
        entering = jnp.where(warm, in_warmup, jnp.minimum(norms, levels))
        average = jnp.where(
            jnp.isfinite(norms) & jnp.isfinite(entering) & (entering > 0),
            _adaptive_average(state.average, entering, warm, jnp.asarray(decay, dtype)),
            state.average,
        )
        norm, level = _most_shortened(norms, levels)
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


def clip_at_random(
    updates: optax.Updates,
    uniform: jax.Array,
    level: jax.Array,
    base: jax.Array,
    power: float = 1,
) -> tuple[optax.Updates, jax.Array, jax.Array]:
    """Clip to a global norm if the draw asks for it.

    Args:
        updates: the gradient.
        uniform: a draw from [0, 1).
        level: λ.
        base: b; a gradient longer than λ is clipped if uniform < b^((λ/‖g‖)^power).
        power: as above.

    Returns:
        The gradient, its norm before, and whether it was clipped.

    Examples:
        >>> g = jnp.array([3.0, 4.0])  # clipped to 2.5 with probability 0.5^0.5 = 0.707
        >>> for uniform in (0.70, 0.71):
        ...     updates, norm, clipped = clip_at_random(g, uniform, 2.5, 0.5)
        ...     print(updates, norm, clipped)
        [1.5 2. ] 5.0 True
        [3. 4.] 5.0 False
    """
    scaled = scaled_norm(updates)
    norm = scaled.norm()
    dtype = norm.dtype
    level, base = jnp.asarray(level, dtype), jnp.asarray(base, dtype)
    above = norm > level
    ratio = jnp.where(above, level / jnp.where(above, norm, 1), 1)
    drawn = uniform < jnp.power(base, ratio**power)
    # Not drawn: an infinite level, which changes nothing but keeps a NaN whole.
    return shorten(updates, scaled, jnp.where(drawn, level, jnp.inf)), norm, above & drawn


def clip_with_probability(
    max_norm: ScalarOrSchedule,
    base: jax.typing.ArrayLike,
    key: jax.Array,
    *,
    power: float = 1,
) -> optax.GradientTransformationExtraArgs:
    r"""Clip gradients longer than λ, each with a probability that grows with its length.

    .. math:: \Pr[\text{clip } g] = b^{(\lambda / \|g\|_2)^p} \text{ if } \|g\|_2 > \lambda,
       \text{ else } 0

    p = 1 is "linear", p = 2 "quadratic" randomised clipping. A gradient just above the level is
    clipped with probability b, a very long one almost surely. One draw a step decides for the whole
    gradient.

    Args:
        max_norm: the level λ > 0; a number, a traced scalar, or a schedule λ(step).
        base: b in (0, 1]; 1 always clips.
        key: a JAX random key; may be traced, so that replicas under `vmap` draw independently.
            Its data live in the state.
        power: p > 0; static under `optax.inject_hyperparams`.

    Returns:
        An Optax transformation with state `RandomClipState`; updates keep the dtype of the
        gradients. In `clip_stats` a long gradient that was let pass does not count as clipped.

    Raises:
        ValueError: if `max_norm` or `power` is not positive, `base` is outside (0, 1], `key` is not
            a random key, or (in `init`) a parameter is not a real floating-point array.

    Examples:
        >>> tx = clip_with_probability(1.0, 0.5, jax.random.key(0))
        >>> state = tx.init(jnp.zeros(1))
        >>> for _ in range(4):
        ...     updates, state = tx.update(jnp.array([2.0]), state)
        >>> from clipjax import clip_stats
        >>> print(clip_stats(state).fraction)  # its expectation is 0.5^0.5 = 0.707
        0.5

    References:
        The rule is that of "linear" and "quadratic" randomised norm clipping in
        https://github.com/EugGolovanov/TorchClippedOptimizers, which draws once a tensor.
    """
    check_positive("max_norm", max_norm)
    check_interval("base", base, 0, 1, closed_low=False)
    check_positive("power", power, finite=True)
    typed = _is_key(key)
    impl = jax.random.key_impl(key) if typed else None

    def init(params: optax.Params) -> RandomClipState:
        data = jax.random.key_data(key) if typed else key
        # A copy: a state that held the caller's key could not be donated.
        return RandomClipState(init_clip_state(params, max_norm), jnp.array(data, copy=True))

    def update(updates, state: RandomClipState, params=None, **extra_args):
        del params, extra_args
        dtype = wide_dtype(updates)
        base_key = jax.random.wrap_key_data(state.key, impl=impl)
        draw = jax.random.uniform(jax.random.fold_in(base_key, state.clip.count), (), dtype)
        level = level_at(max_norm, state.clip.count, state.clip.level.dtype)
        clipped, norm, shortened = clip_at_random(updates, draw, level, jnp.asarray(base), power)
        return clipped, RandomClipState(record(state.clip, norm, level, shortened), state.key)

    return transformation(init, update)


def _is_key(key: Any) -> bool:
    """Return whether `key` is a typed random key, not the data of one; raise if it is neither."""
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.ndim == 0:
        return True
    if dtype is None or dtype != jnp.uint32 or key.ndim != 1:
        raise ValueError(f"key must be one random key such as jax.random.key(0), got {key!r}.")
    return False
