r"""SGD with clipping, with momentum after (or before) the clipping.

**The order matters.** Clipping *before* momentum bounds what one gradient can add to the velocity:
with momentum μ no step is longer than ηλ/(1 − μ), and a spike is forgotten like any other gradient.
That is the default. Clipping *after* momentum bounds the step itself by ηλ, but the spike stays in
the velocity: the method walks in its direction, at full length, until μ^k has worn it down.

The authors' PyTorch code clips after momentum. There "layer_wise" and "coordinate_wise" clip the
velocity, which `clip_after_momentum=True` reproduces. Its "norm" however scales the velocity by the
factor of the *raw gradient*, min(1, λ/‖g‖): the step after a spike has a small gradient, hence the
factor 1, and the whole spike passes. With η = λ = 1, μ = 0.9 a gradient of 1000 followed by
gradients of 0.5 moves the parameter to −1, −901.5, −1712.45, ... That is not a clipping, and is not
offered.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax.optim._checks import (
    check_choice,
    check_flag,
    check_floating,
    check_interval,
    check_positive,
)
from clipjax.optim._trees import increment, map_pair, transformation, wide_dtype
from clipjax.optim.clipping.norms import PROJECTIONS, clipping
from clipjax.typing import ScalarOrSchedule


class MomentumState(NamedTuple):
    """The velocity v, a tree like the parameters."""

    velocity: optax.Updates


def momentum_step(
    updates: optax.Updates,
    velocity: optax.Updates,
    momentum: jax.typing.ArrayLike,
    *,
    nesterov: bool = False,
) -> tuple[optax.Updates, optax.Updates]:
    """Return the direction and v' = μv + g; the direction is v', with Nesterov g + μv'.

    Sums are formed in float32 or wider; the velocity keeps its dtype, and the direction takes that
    of the gradient.

    Examples:
        >>> direction, v = momentum_step(jnp.array(1.0), jnp.array(2.0), 0.5)
        >>> print(direction, v)
        2.0 2.0
        >>> direction, v = momentum_step(jnp.array(1.0), jnp.array(4.0), 0.5, nesterov=True)
        >>> print(direction, v)  # v' = 3, 1 + 1.5
        2.5 3.0
    """

    def leaf(g: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        dtype = wide_dtype(g, v)
        mu, wide_g = jnp.asarray(momentum, dtype), g.astype(dtype)
        new_v = mu * v.astype(dtype) + wide_g
        direction = wide_g + mu * new_v if nesterov else new_v
        return direction.astype(g.dtype), new_v.astype(v.dtype)

    return map_pair(leaf, updates, velocity)


def heavy_ball(
    momentum: jax.typing.ArrayLike, nesterov: bool, *, before_clipping: bool
) -> optax.GradientTransformationExtraArgs:
    """Momentum as `optax.trace`, but with stable dtypes for low-precision gradients.

    An infinite velocity never comes back, and a clipping by value after it would cut it to ±λ in
    every step to come: `before_clipping` its direction is NaN.
    """

    def init(params: optax.Params) -> MomentumState:
        check_floating(params)
        return MomentumState(jax.tree.map(jnp.zeros_like, params))

    def update(updates, state: MomentumState, params=None, **extra_args):
        del params, extra_args
        direction, velocity = momentum_step(updates, state.velocity, momentum, nesterov=nesterov)
        if before_clipping:
            direction = jax.tree.map(
                lambda d, v: jnp.where(jnp.isfinite(v), d, jnp.nan), direction, velocity
            )
        return direction, MomentumState(velocity)

    return transformation(init, update)


def clipped_sgd(
    learning_rate: ScalarOrSchedule,
    clip_level: ScalarOrSchedule | None,
    *,
    clip: str = "global_norm",
    momentum: jax.typing.ArrayLike | None = None,
    nesterov: bool = False,
    clip_after_momentum: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""SGD with gradient clipping and, if asked for, momentum.

    .. math::

       \tilde g = \operatorname{clip}(g, \lambda), \qquad
       v \leftarrow \mu v + \tilde g, \qquad x \leftarrow x - \eta v

    With Nesterov momentum x ← x − η(g̃ + μv); with `clip_after_momentum` v ← μv + g and
    x ← x − η clip(v, λ).

    d-clipped-SGD (the level decays geometrically) is a schedule of the level:
    `clip_level=optax.exponential_decay(λ0, transition_steps=every, decay_rate=q, staircase=True)`.
    For the averaged iterate of the theorems wrap it: `clipjax.average_iterates(clipped_sgd(...))`.

    Args:
        learning_rate: η > 0; a number, a traced scalar, or a schedule η(step).
        clip_level: λ > 0; a number, a traced scalar, or a schedule λ(step). None switches clipping
            off.
        clip: "global_norm", "tensor_norm" or "value".
        momentum: μ in [0, 1); None keeps no velocity.
        nesterov: whether to use Nesterov's form of momentum.
        clip_after_momentum: clip the velocity's step instead of the gradient; see the module's
            docstring for why that is not the default.

    Returns:
        An Optax transformation. Updates have the dtype of the gradients.

    Non-finite gradients: the update is non-finite where the clipping of this kind leaves it so: NaN
    in every coordinate ("global_norm"), in that tensor ("tensor_norm"), or in that coordinate
    ("value", which cuts ±inf to ±λ, or no clipping). Momentum keeps it for good. With
    `clip_after_momentum` an infinite velocity gives NaN, with "value" too. `optax.apply_if_finite`
    around it skips the step and leaves the state as it was.

    Raises:
        ValueError: for concrete numbers out of range, an unknown `clip` (with the nearest name),
            `nesterov` or `clip_after_momentum` without momentum, or parameters that are not real
            floating-point arrays.

    Examples:
        >>> tx = clipped_sgd(learning_rate=0.5, clip_level=1.0, momentum=0.9)
        >>> x = jnp.array([3.0, 4.0])
        >>> state = tx.init(x)
        >>> updates, state = tx.update(x, state, x)  # f = |x|²/2, the norm of the gradient is 5
        >>> print(updates)
        [-0.3 -0.4]

    References:
        Gorbunov, Danilova, Gasnikov, 2020 (https://arxiv.org/abs/2005.10785), Algorithm 3
        (clipped-SGD; without momentum, the gradient at x^k).
    """
    check_positive("learning_rate", learning_rate, finite=True, schedule=True)
    if clip_level is not None:
        check_positive("clip_level", clip_level, schedule=True)
    check_choice("clip", clip, PROJECTIONS)
    check_interval("momentum", momentum, 0, 1, closed_high=False, optional=True)
    check_flag("nesterov", nesterov)
    check_flag("clip_after_momentum", clip_after_momentum)
    if momentum is None and (nesterov or clip_after_momentum):
        option = "nesterov" if nesterov else "clip_after_momentum"
        raise ValueError(f"{option}=True needs a momentum, got momentum=None.")
    clipper = optax.identity() if clip_level is None else clipping(clip, clip_level)
    velocity = (
        optax.identity()
        if momentum is None
        else heavy_ball(momentum, nesterov, before_clipping=clip_after_momentum)
    )
    ordered = (velocity, clipper) if clip_after_momentum else (clipper, velocity)
    return optax.chain(*ordered, descend(learning_rate))


class DescendState(NamedTuple):
    """Number of steps taken; int32 scalar."""

    count: jax.Array


def descend(learning_rate: ScalarOrSchedule) -> optax.GradientTransformationExtraArgs:
    """Multiply by −η in float32 or wider: a rate of 1e-9 is no number of float16.

    Examples:
        >>> tx = descend(1e-9)
        >>> g = jnp.array(3000.0, jnp.float16)
        >>> print(tx.update(g, tx.init(g))[0])
        -3e-06
    """

    def init(params: optax.Params) -> DescendState:
        check_floating(params)
        return DescendState(jnp.zeros((), jnp.int32))

    def update(updates, state: DescendState, params=None, **extra_args):
        del params, extra_args
        rate = learning_rate(state.count) if callable(learning_rate) else learning_rate

        def leaf(g: jax.Array) -> jax.Array:
            dtype = wide_dtype(g)
            return (-jnp.asarray(rate, dtype) * g.astype(dtype)).astype(g.dtype)

        return jax.tree.map(leaf, updates), DescendState(increment(state.count))

    return transformation(init, update)
