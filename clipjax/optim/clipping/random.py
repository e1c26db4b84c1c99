r"""Clipping of long gradients that is drawn at random, the likelier the longer they are.

Norms, projection, dtypes and what is reported are those of `clipjax.optim.clipping.norms`: nothing
overflows on the way, zeros stay zero, and a non-finite gradient comes out as NaN, whole, whether
the draw asks for clipping or not.

The state holds the base key and the step; the draw of a step depends on nothing else. It can be
checkpointed, and stacked by `vmap`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax.optim._checks import check_interval, check_positive
from clipjax.optim._trees import transformation, wide_dtype
from clipjax.optim.clipping.norms import (
    ClipState,
    init_clip_state,
    level_at,
    record,
    scaled_norm,
    shorten,
)
from clipjax.typing import ScalarOrSchedule


class RandomClipState(NamedTuple):
    """State of `clip_with_probability`.

    Attributes:
        clip: what every clipping remembers.
        key: the data of the base key, uint32; the draw of step k uses `fold_in(key, k)`.
    """

    clip: ClipState
    key: jax.Array


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
    # Not drawn: an infinite level, which changes nothing but keeps a NaN whole. A level that is NaN
    # is seen in every step, as in every other clipping.
    used = jnp.where(drawn | jnp.isnan(level), level, jnp.inf)
    return shorten(updates, scaled, used), norm, above & drawn


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

    Non-finite gradients: the update is NaN, in every coordinate, whatever the draw.
    `optax.apply_if_finite` around it skips the step and leaves the state as it was.

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
    check_positive("max_norm", max_norm, schedule=True)
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
