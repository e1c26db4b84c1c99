r"""Adam and AdaGrad behind a clipping, and ACClip, which clips by what Adam only divides by.

Adam and AdaGrad divide by the size of past gradients. That does not protect them from the next one:
with heavy-tailed noise their step counts grow polynomially with 1/β, β the probability of failure,
and with clipping in front logarithmically (Chezhegov et al. 2024). The clipping comes first, so the
moments never see a spike.

| `moment`     | `delayed` | b_t is formed from              | names in the paper            |
|--------------|-----------|---------------------------------|-------------------------------|
| "coordinate" | False     | the coordinates of g̃_1, ..., g̃_t | Clip-Adam, Clip-AdaGrad       |
| "norm"       | False     | ‖g̃_1‖, ..., ‖g̃_t‖               | their "norm" forms            |
| either       | True      | the same up to t − 1            | Clip-AdamD, Clip-AdaGradD     |

The delayed form makes b_t independent of the gradient it divides, which the proof uses; b_0 > 0 has
to be given, as nothing has been seen before the first step.

ACClip clips each coordinate of the momentum to a running α-th moment of the gradient's coordinate,
for noise whose tail differs from coordinate to coordinate.

**Non-finite gradients** make the moments NaN or infinite for good, and every later update of what
they divide NaN: wrap the optimizer in `optax.apply_if_finite`. Moments are float32 or wider, where
the square of a gradient above 1.8e19 is infinite. Behind a clipping no such gradient arrives;
without one the gradient is cut there, which leaves the quotient of the moments as it is. Where b²
overflows all the same (in a delayed form, or AdaGrad's sum of several such squares) the update is
NaN: b has lost its size, and a quotient of 0 would stand still unseen.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clipjax.optim._checks import (
    check_choice,
    check_dtype,
    check_flag,
    check_floating,
    check_interval,
    check_positive,
    is_concrete,
)
from clipjax.optim._trees import increment, map_pair, transformation, wide_dtype
from clipjax.optim.clipping.norms import PROJECTIONS, clipping, scaled_norm, shorten
from clipjax.optim.methods.clipped_sgd import descend
from clipjax.typing import ScalarOrSchedule

MOMENTS = ("coordinate", "norm")
"""Of what the second moment is formed."""


class MomentsState(NamedTuple):
    """State of `clipped_adam` and `clipped_adagrad` behind the clipping.

    Attributes:
        count: number of steps so far; int32 scalar.
        second: b², one scalar ("norm") or a tree like the parameters; float32 or wider.
        first: m, a tree like the parameters; () for AdaGrad.
    """

    count: jax.Array
    second: Any
    first: Any


class ACClipState(NamedTuple):
    """State of `acclip`.

    Attributes:
        first: m, the momentum; a tree like the parameters.
        threshold: τ, to which m is clipped; a tree like the parameters, float32 or wider.
        second: v, the mean square of the gradient, likewise; () unless `normalize`.
    """

    first: optax.Updates
    threshold: optax.Updates
    second: Any


def mix(old: jax.Array, new: jax.Array, decay: jax.typing.ArrayLike | None) -> jax.Array:
    """Return β·old + (1 − β)·new, or the sum if there is no β, in the dtype of `old`."""
    new = new.astype(old.dtype)
    if decay is None:
        return old + new
    weight = jnp.asarray(decay, old.dtype)
    return weight * old + (1 - weight) * new


class _Moments(NamedTuple):
    """The numbers of Adam and AdaGrad, under Optax's names."""

    b1: jax.typing.ArrayLike | None
    b2: jax.typing.ArrayLike | None
    eps: jax.typing.ArrayLike
    eps_root: jax.typing.ArrayLike
    initial: jax.typing.ArrayLike


def _direction(
    g: jax.Array, m: jax.Array, count: jax.Array, rule: _Moments, *, nesterov: bool, correct: bool
) -> jax.Array:
    """Return the numerator: m, corrected for its start at 0, and a step ahead with Nesterov."""
    b1 = jnp.asarray(rule.b1, m.dtype)
    # The powers of optax.adam: Dozat's m̂ looks ahead to β₁^{t+1}.
    m_hat = m / (1 - b1 ** (count + nesterov)) if correct else m
    if not nesterov:
        return m_hat
    g = g.astype(m.dtype)
    return b1 * m_hat + (1 - b1) * (g / (1 - b1**count) if correct else g)


def _divide(
    direction: jax.Array, b_squared: jax.Array, count: jax.Array, rule: _Moments, *, correct: bool
) -> jax.Array:
    """Return direction / (√(b² + ε_r) + ε), 0 where the denominator is, NaN where it is not finite.

    An infinite b has lost its size. A quotient of 0 would let the coordinate stand still unseen.
    """
    dtype = b_squared.dtype
    if correct:
        b_squared = b_squared / (1 - jnp.asarray(rule.b2, dtype) ** count)
    b = jnp.sqrt(b_squared + jnp.asarray(rule.eps_root, dtype)) + jnp.asarray(rule.eps, dtype)
    zero = b == 0
    return jnp.where(zero, 0, direction / jnp.where(zero, 1, jnp.where(jnp.isinf(b), jnp.nan, b)))


def largest_to_square(dtype: Any) -> float:
    """Return a number just below the root of the largest float: its square is finite.

    The margin of 2^-7 leaves room for the roundings of a mean of such squares, and in bfloat16 for
    the number itself.

    Examples:
        >>> print(f"{largest_to_square(jnp.float32):.3e}")
        1.830e+19
    """
    return float(np.sqrt(np.float64(jnp.finfo(dtype).max))) * (1 - 2.0**-7)


def bounded(g: jax.Array, dtype: Any) -> jax.Array:
    """Return g cut to where its square is a finite number of `dtype`; ±inf and NaN stay.

    The rules divide a mean of g by the root of a mean of g². Whatever was seen before is nothing
    beside a coordinate that is cut here, so their quotient is what it would be without the cut.
    """
    largest = largest_to_square(dtype)
    if float(jnp.finfo(g.dtype).max) <= largest:  # float16 beside float32
        return g
    limit = jnp.asarray(largest, g.dtype)
    return jnp.where(jnp.isfinite(g), jnp.clip(g, -limit, limit), g)


def _scale_by_moments(
    rule: _Moments,
    *,
    moment: str,
    delayed: bool,
    bias_correction: bool = False,
    nesterov: bool = False,
    mu_dtype: Any = None,
) -> optax.GradientTransformationExtraArgs:
    """Divide m (g if there is no b1) by b, the root of a mean of squares (of their sum: no b2).

    The plain forms are Optax's `scale_by_adam` and `scale_by_rss`, whose states however take the
    dtype of whatever gradient comes; here b² is kept in float32 or wider, and types stay.
    """
    norm, correct = moment == "norm", bias_correction

    def init(params: optax.Params) -> MomentsState:
        check_floating(params)

        def start(dtype: Any) -> jax.Array:
            return jnp.array(rule.initial, dtype, copy=True)  # a buffer that can be donated

        second: Any = (
            start(wide_dtype(params))
            if norm
            else jax.tree.map(
                lambda x: jnp.full_like(x, start(wide_dtype(x)), wide_dtype(x)), params
            )
        )
        first = () if rule.b1 is None else optax.tree.zeros_like(params, dtype=mu_dtype)
        return MomentsState(jnp.zeros((), jnp.int32), second, first)

    def update(updates, state: MomentsState, params=None, **extra_args):
        del params, extra_args
        count = increment(state.count)
        if norm:
            scaled = scaled_norm(updates)
            length, limit = scaled.norm(), largest_to_square(state.second.dtype)
            if not delayed:
                updates = shorten(updates, scaled, jnp.asarray(limit, length.dtype))
                length = jnp.minimum(length, limit)
            second = mix(state.second, jnp.square(length), rule.b2)
            divisor = jax.tree.map(lambda _: state.second if delayed else second, updates)
        else:
            if not delayed:  # the delayed step itself is as long as its gradient
                updates = jax.tree.map(lambda v, g: bounded(g, v.dtype), state.second, updates)
            second = jax.tree.map(
                lambda v, g: mix(v, jnp.square(g.astype(v.dtype)), rule.b2), state.second, updates
            )
            divisor = state.second if delayed else second

        def leaf(g: jax.Array, v: jax.Array, *first: jax.Array) -> tuple[jax.Array, Any]:
            wide = g.astype(wide_dtype(g))
            if not first:
                return _divide(wide, v, count, rule, correct=False).astype(g.dtype), ()
            m = mix(first[0].astype(wide_dtype(first[0])), g, rule.b1)
            direction = _direction(wide, m, count, rule, nesterov=nesterov, correct=correct)
            new = _divide(direction, v, count, rule, correct=correct)
            return new.astype(g.dtype), m.astype(first[0].dtype)

        if rule.b1 is None:
            new_updates, _ = map_pair(leaf, updates, divisor)
            return new_updates, MomentsState(count, second, ())
        new_updates, first = map_pair(leaf, updates, divisor, state.first)
        return new_updates, MomentsState(count, second, first)

    return transformation(init, update)


def _optimizer(
    learning_rate: ScalarOrSchedule, clip_level: ScalarOrSchedule | None, clip: str, core: Any
) -> optax.GradientTransformationExtraArgs:
    """Clip, divide by the moments, descend."""
    check_positive("learning_rate", learning_rate, finite=True, schedule=True)
    check_choice("clip", clip, PROJECTIONS)
    if clip_level is not None:
        check_positive("clip_level", clip_level, schedule=True)
    clipper = optax.identity() if clip_level is None else clipping(clip, clip_level)
    return optax.chain(clipper, core, descend(learning_rate))


def _check_moments(
    moment: str, delayed: bool, initial: jax.typing.ArrayLike, **eps: jax.typing.ArrayLike
) -> None:
    check_choice("moment", moment, MOMENTS)
    check_flag("delayed", delayed)
    for name, value in {"initial_accumulator_value": initial, **eps}.items():
        check_interval(name, value, 0, jnp.inf, closed_high=False)
    if delayed:
        # The first gradient is divided by it.
        check_positive("initial_accumulator_value of a delayed form", initial)


def clipped_adam(
    learning_rate: ScalarOrSchedule,
    clip_level: ScalarOrSchedule | None,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    eps_root: jax.typing.ArrayLike = 0.0,
    mu_dtype: Any = None,
    *,
    nesterov: bool = False,
    clip: str = "global_norm",
    moment: str = "coordinate",
    delayed: bool = False,
    bias_correction: bool = True,
    initial_accumulator_value: jax.typing.ArrayLike = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam on clipped gradients: Clip-Adam, and its norm and delayed forms.

    .. math:: \tilde g = \operatorname{clip}(g, \lambda), \quad
       m \leftarrow \beta_1 m + (1-\beta_1) \tilde g, \quad
       b^2 \leftarrow \beta_2 b^2 + (1-\beta_2) \tilde g^2, \quad
       x \leftarrow x - \eta\, m / (\sqrt{b^2 + \epsilon_r} + \epsilon)

    By default these are the steps of `optax.adam` behind a clipping, bias correction included. The
    theorem's method has none: `bias_correction=False`. With `moment="norm"` b² is one number, fed
    by ‖g̃‖²; the delayed form (Clip-AdamD) divides by the b of the step before.

    Args:
        learning_rate: η > 0; a number, a traced scalar, or a schedule η(step).
        clip_level: λ > 0; a number, a traced scalar, or a schedule λ(step). None switches clipping
            off.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε ≥ 0.
        eps_root: ε_r ≥ 0.
        mu_dtype: dtype in which m is kept; None for that of the parameters.
        nesterov: whether m looks a step ahead, as in `optax.adam`.
        clip: "global_norm", "tensor_norm" or "value".
        moment: "coordinate" or "norm".
        delayed: whether b leaves out the gradient that it divides.
        bias_correction: whether m and b² are divided by 1 − β^t.
        initial_accumulator_value: b_0² ≥ 0.

    Returns:
        An Optax transformation. Updates have the dtype of the gradients.

    Non-finite gradients: the update is NaN in every coordinate ("global_norm"), in that tensor
    ("tensor_norm"), or in that coordinate ("value", which cuts ±inf to ±λ, or no clipping), then
    and in every later step, as the moments are. With `moment="norm"` b² is one number: every
    coordinate is NaN from then on. So it is where b² overflows. `optax.apply_if_finite` around it
    skips the step and leaves the state as it was.

    Raises:
        ValueError: for concrete numbers out of range or unknown names (with the nearest); bias
            correction in the delayed form or with an initial value, which it would blow up; a
            delayed form without an initial value; or parameters that are not real floating-point
            arrays.

    Examples:
        >>> tx = clipped_adam(learning_rate=0.5, clip_level=1.0)
        >>> x = jnp.array([30.0, 40.0])
        >>> updates, _ = tx.update(x, tx.init(x), x)  # the first step is η in every coordinate
        >>> print(updates.round(5))
        [-0.5 -0.5]

    References:
        Kingma, Ba, 2014 (https://arxiv.org/abs/1412.6980), Algorithm 1; Chezhegov et al., Clipping
        improves Adam-Norm and AdaGrad-Norm when the noise is heavy-tailed, 2024
        (https://arxiv.org/abs/2406.04443), Clip-Adam and Clip-AdamD. The rules are those of the
        authors' code; the paper itself was not at hand.
    """
    for name, value in (("b1", b1), ("b2", b2)):
        check_interval(name, value, 0, 1, closed_high=False)
    _check_moments(moment, delayed, initial_accumulator_value, eps=eps, eps_root=eps_root)
    check_dtype("mu_dtype", mu_dtype)
    check_flag("nesterov", nesterov)
    check_flag("bias_correction", bias_correction)
    initial = initial_accumulator_value
    if bias_correction and (delayed or (is_concrete(initial) and np.any(np.asarray(initial) != 0))):
        raise ValueError(
            "bias_correction=True is for moments that start at 0 and hold the current gradient, "
            f"got delayed={delayed}, initial_accumulator_value={initial}. Set "
            "bias_correction=False."
        )
    core = _scale_by_moments(
        _Moments(b1, b2, eps, eps_root, initial),
        moment=moment,
        delayed=delayed,
        bias_correction=bias_correction,
        nesterov=nesterov,
        mu_dtype=mu_dtype,
    )
    return _optimizer(learning_rate, clip_level, clip, core)


def clipped_adagrad(
    learning_rate: ScalarOrSchedule,
    clip_level: ScalarOrSchedule | None,
    initial_accumulator_value: jax.typing.ArrayLike = 0.1,
    eps: jax.typing.ArrayLike = 1e-7,
    *,
    clip: str = "global_norm",
    moment: str = "coordinate",
    delayed: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""AdaGrad on clipped gradients: Clip-AdaGrad, and its norm and delayed forms.

    .. math:: \tilde g = \operatorname{clip}(g, \lambda), \quad
       b^2 \leftarrow b^2 + \tilde g^2, \quad
       x \leftarrow x - \eta\, \tilde g / \sqrt{b^2 + \epsilon}

    By default these are the steps of `optax.adagrad` behind a clipping. With `moment="norm"` b² is
    one number, fed by ‖g̃‖²; the delayed form (Clip-AdaGradD) divides by the b of the step before.

    Args:
        learning_rate: η > 0; a number, a traced scalar, or a schedule η(step).
        clip_level: λ > 0; a number, a traced scalar, or a schedule λ(step). None switches clipping
            off.
        initial_accumulator_value: b_0² ≥ 0.
        eps: ε ≥ 0, inside the root, as in `optax.adagrad`.
        clip: "global_norm", "tensor_norm" or "value".
        moment: "coordinate" or "norm".
        delayed: whether b leaves out the gradient that it divides.

    Returns:
        An Optax transformation. Updates have the dtype of the gradients.

    Non-finite gradients: the update is NaN in every coordinate ("global_norm"), in that tensor
    ("tensor_norm"), or in that coordinate ("value", which cuts ±inf to ±λ, or no clipping), then
    and in every later step, as b² is. With `moment="norm"` b² is one number: every coordinate is
    NaN from then on. So it is where b² overflows. `optax.apply_if_finite` around it skips the step
    and leaves the state as it was.

    Raises:
        ValueError: for concrete numbers out of range, unknown names (with the nearest), a delayed
            form without an initial value, or parameters that are not real floating-point arrays.

    Examples:
        >>> tx = clipped_adagrad(1.0, 5.0, 0.0, 0.0, moment="norm")
        >>> x = jnp.array([30.0, 40.0])
        >>> state = tx.init(x)
        >>> for _ in range(2):  # g̃ = (3, 4); b = 5, then √50
        ...     updates, state = tx.update(x, state, x)
        ...     print(f"{updates[0]:.4f} {updates[1]:.4f}")
        -0.6000 -0.8000
        -0.4243 -0.5657

    References:
        Duchi, Hazan, Singer, Adaptive subgradient methods for online learning and stochastic
        optimization, 2011; Chezhegov et al., 2024 (https://arxiv.org/abs/2406.04443), Clip-AdaGrad
        and Clip-AdaGradD. The rules are those of the authors' code; the paper was not at hand.
    """
    _check_moments(moment, delayed, initial_accumulator_value, eps=eps)
    rule = _Moments(None, None, 0.0, eps, initial_accumulator_value)
    core = _scale_by_moments(rule, moment=moment, delayed=delayed)
    return _optimizer(learning_rate, clip_level, clip, core)


def running_moment(
    old: jax.Array, new: jax.Array, decay: jax.typing.ArrayLike, power: jax.typing.ArrayLike
) -> jax.Array:
    r"""Return (β τ^α + (1 − β) |g|^α)^{1/α}, whose powers can neither overflow nor vanish.

    Examples:
        >>> tau = running_moment(jnp.array(3e30), jnp.array(4e30), 0.5, 2.0)
        >>> print(f"{tau:.4e}")  # √12.5 e30
        3.5355e+30
    """
    new = jnp.abs(new.astype(old.dtype))
    beta, alpha = jnp.asarray(decay, old.dtype), jnp.asarray(power, old.dtype)
    largest = jnp.maximum(old, new)
    scale = jnp.where(largest > 0, largest, 1)
    mean = beta * (old / scale) ** alpha + (1 - beta) * (new / scale) ** alpha
    positive = mean > 0  # keeps the derivative of the root at 0 finite
    return jnp.where(positive, scale * jnp.where(positive, mean, 1) ** (1 / alpha), mean)


def acclip(
    learning_rate: ScalarOrSchedule,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.99,
    eps: jax.typing.ArrayLike = 1e-5,
    *,
    alpha: jax.typing.ArrayLike = 2.0,
    normalize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Clip each coordinate of the momentum to a running moment of its gradient (ACClip).

    .. math:: m \leftarrow \beta_1 m + (1-\beta_1) g, \quad
       \tau^\alpha \leftarrow \beta_2 \tau^\alpha + (1-\beta_2) |g|^\alpha, \quad
       x \leftarrow x - \eta \min\{\tau / (|m| + \epsilon),\ 1\}\, m

    in every coordinate. With `normalize` the step is divided by √(β₂ v) + ε besides, where v is the
    running mean of g²: the authors' form for attention models ("mod=1").

    Args:
        learning_rate: η > 0; a number, a traced scalar, or a schedule η(step). 1e-4 in the authors'
            code.
        b1: β₁ in [0, 1).
        b2: β₂ in [0, 1).
        eps: ε ≥ 0.
        alpha: α in [1, 2], the moment that the noise is taken to have. The paper argues for α < 2,
            the authors' code takes 2.
        normalize: see above.

    Returns:
        An Optax transformation with states `ACClipState` and of the step; two buffers, three with
        `normalize`. Updates have the dtype of the gradients.

    Non-finite gradients: the update is NaN in those coordinates, then and in every later step, as
    the averages are. `optax.apply_if_finite` around it skips the step and leaves the state as it
    was.

    Raises:
        ValueError: for concrete numbers out of range or parameters that are not real floating-point
            arrays.

    Examples:
        >>> tx = acclip(1.0, b1=0.0, b2=0.75, eps=0.0)
        >>> x = jnp.array([8.0, 1.0])
        >>> updates, _ = tx.update(x, tx.init(x), x)  # m = (8, 1), τ = √(m²/4)
        >>> print(updates)
        [-4.  -0.5]

    References:
        Zhang et al., Why are adaptive methods good for attention models?, 2020
        (https://arxiv.org/abs/1912.03194), Algorithm 2 (ACClip);
        https://github.com/rivercold/ACClip-Pytorch.
    """
    check_positive("learning_rate", learning_rate, finite=True, schedule=True)
    for name, value in (("b1", b1), ("b2", b2)):
        check_interval(name, value, 0, 1, closed_high=False)
    check_interval("eps", eps, 0, jnp.inf, closed_high=False)
    check_interval("alpha", alpha, 1, 2)
    check_flag("normalize", normalize)

    def init(params: optax.Params) -> ACClipState:
        check_floating(params)

        def zeros() -> optax.Updates:
            return jax.tree.map(lambda x: jnp.zeros_like(x, wide_dtype(x)), params)

        first = jax.tree.map(jnp.zeros_like, params)
        return ACClipState(first, zeros(), zeros() if normalize else ())

    def update(updates, state: ACClipState, params=None, **extra_args):
        del params, extra_args
        if normalize:
            # For all three averages: the step is a ratio of them.
            updates = jax.tree.map(lambda v, g: bounded(g, v.dtype), state.second, updates)
        threshold = jax.tree.map(
            lambda t, g: running_moment(t, g, b2, alpha), state.threshold, updates
        )
        if normalize:
            second = jax.tree.map(
                lambda v, g: mix(v, jnp.square(g.astype(v.dtype)), b2), state.second, updates
            )
            divisors = jax.tree.map(
                lambda v: jnp.sqrt(jnp.asarray(b2, v.dtype) * v) + jnp.asarray(eps, v.dtype), second
            )
        else:
            second, divisors = (), jax.tree.map(jnp.ones_like, threshold)

        def leaf(g: jax.Array, m: jax.Array, t: jax.Array, d: jax.Array):
            new = mix(m.astype(wide_dtype(m)), g, b1)
            size = jnp.abs(new) + jnp.asarray(eps, new.dtype)
            factor = jnp.minimum(t / jnp.where(size > 0, size, 1), 1)
            step = jnp.where(d == 0, 0, factor * new / jnp.where(d == 0, 1, d))
            return step.astype(g.dtype), new.astype(m.dtype)

        new_updates, first = map_pair(leaf, updates, state.first, threshold, divisors)
        return new_updates, ACClipState(first, threshold, second)

    return optax.chain(transformation(init, update), descend(learning_rate))
