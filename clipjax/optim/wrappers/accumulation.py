r"""Large batches out of small ones: the mean of several gradients as one step of an optimizer.

Theorems about clipped methods ask for batches m_k that grow with the step, and implicit graduated
optimisation lets them grow to take noise away. A device has memory for one micro-batch. Here the
micro-batch stays and the number of them in a step grows.

**Counting.** A *micro-step* is a call of `update`, an *outer step* is a step of the wrapped
optimizer. Whatever is inside (schedules of rates and levels, clippings and their statistics,
averages, restarts) sees outer steps and means only; parameters move in the last micro-step of an
outer step.

**Weighing.** A micro-batch's gradient is usually a mean: over its examples, its labelled pixels,
its tokens. Where micro-batches hold different numbers of these, the plain mean of their gradients
is not the gradient of the large batch; the mean with these numbers as weights is.

The number of micro-steps may be a schedule of the outer step, known while tracing or not. A loop on
the host that knows it anyway can leave the wrapper away: `clipjax.train.step` adds gradients in one
compiled function and updates in another, with the same trajectory.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax._weighted_means import add_weighed, relative_weight
from clipjax.optim._checks import check_count, check_floating, check_interval, check_transformation
from clipjax.optim._trees import increment, transformation, wide_dtype
from clipjax.typing import ScalarOrSchedule


class AccumulateState(NamedTuple):
    """State of `accumulate_gradients`.

    Attributes:
        micro_step: number of gradients in the sum, int32 scalar.
        outer_step: number of steps of the wrapped transformation, int32 scalar.
        weight: the sum of their weights, float scalar, in units of `unit`: the number of gradients
            where all weigh the same.
        unit: the first positive weight since the last outer step, 0 before there is one; float
            scalar.
        total: the sum of the gradients since the last outer step, each times its weight in units
            of `unit`; a tree like the parameters, in float32 or wider.
        inner_state: the state of the wrapped transformation.
    """

    micro_step: jax.Array
    outer_step: jax.Array
    weight: jax.Array
    unit: jax.Array
    total: optax.Updates
    inner_state: optax.OptState


def accumulation_length(
    every: ScalarOrSchedule, outer_step: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the number of micro-steps in an outer step, at least 1, and whether it is a number.

    The value of a schedule is rounded to the nearest whole number. NaN counts as 1.

    Examples:
        >>> [int(accumulation_length(lambda k: 1.5 * k, jnp.int32(k))[0]) for k in range(4)]
        [1, 2, 3, 4]
    """
    length = jnp.asarray(every(outer_step) if callable(every) else every)
    known = ~jnp.isnan(length)
    whole = jnp.maximum(jnp.rint(jnp.where(known, length, 1)), 1).astype(jnp.int32)
    return whole, known


def gather(
    state: AccumulateState, gradient: optax.Updates, weight: jax.typing.ArrayLike | None
) -> AccumulateState:
    """Return the state with one gradient more in its sum; the inner state is as before.

    A gradient of weight 0 adds nothing, be it NaN.
    """
    share, unit = relative_weight(weight, state.unit)

    return state._replace(
        micro_step=increment(state.micro_step),
        weight=state.weight + share,
        unit=unit,
        total=jax.tree.map(lambda s, g: add_weighed(s, g, share), state.total, gradient),
    )


def accumulate_gradients(
    inner: optax.GradientTransformation, every: ScalarOrSchedule
) -> optax.GradientTransformationExtraArgs:
    r"""Step once every m gradients, with their mean; the updates in between are zero.

    .. math:: \bar g_k = \sum_{i=1}^{m_k} w_{k,i} g_{k,i} \Big/ \sum_{i=1}^{m_k} w_{k,i}

    Each weight is 1 unless it is given: `update(g, state, params, weight=w)`. Give the number of
    things whose mean loss was differentiated (examples that count, labelled pixels, tokens), and
    the step is that of the one large batch, to rounding. A gradient of weight 0 has no influence,
    be it NaN; where all weights are 0 the mean is 0, as for a batch in which nothing counts. Equal
    weights give the same bits as none. The network must treat examples one by one: BatchNorm in
    training mode normalises each micro-batch by itself, so no weights make its gradient that of the
    large batch.

    Unlike `optax.MultiSteps` the work of `inner` is done in outer steps only, its clippings never
    see a partial sum, sums are formed in float32 or wider whatever the gradients' dtype, and a
    gradient that is not finite spoils no outer step but its own. Extra arguments of the last
    micro-step reach `inner`; as `weight`, where there is one, the sum of the outer step's.

    Args:
        inner: the transformation that takes the means.
        every: m >= 1, a whole number, or a schedule m(outer step), rounded, at least 1. Where it
            gives NaN the gradient is NaN, for all to see.

    Returns:
        An Optax transformation with state `AccumulateState`: one buffer besides those of `inner`.
        The mean is given to `inner` in the dtype of the gradients; updates have the dtype that
        `inner` gives them.

    Non-finite gradients: the mean of its outer step is non-finite, and so is what `inner` makes of
    it; later outer steps start afresh. A sum that exceeds the largest float counts as infinite.
    `optax.apply_if_finite` around the whole skips the micro-step, and the next gradient takes its
    place; around `inner` it skips the outer step.

    Raises:
        ValueError: if `every` is not a whole number of at least 1, or (in `init`) a parameter is
            not a real floating-point array, or (in `update`) if `weight` is negative or not one
            number.

    Examples:
        >>> tx = accumulate_gradients(optax.sgd(1.0), every=lambda k: k + 1)
        >>> x = jnp.array(0.0)
        >>> state = tx.init(x)
        >>> for g in (1.0, 2.0, 4.0, 3.0, 3.0, 6.0):  # means 1, 3, 4
        ...     updates, state = tx.update(jnp.array(g), state, x)
        ...     x = optax.apply_updates(x, updates)
        ...     print(x, end=" ")
        -1.0 -1.0 -4.0 -4.0 -4.0 -8.0

        Gradients of the mean over 3 examples and of the mean over 1:

        >>> tx = accumulate_gradients(optax.sgd(1.0), every=2)
        >>> state = tx.init(x)
        >>> for g, examples in ((2.0, 3), (6.0, 1)):
        ...     updates, state = tx.update(jnp.array(g), state, x, weight=examples)
        >>> print(updates)  # −(3 · 2 + 1 · 6) / 4
        -3.0

    References:
        Gorbunov, Danilova, Gasnikov, 2020 (https://arxiv.org/abs/2005.10785), the batches m_k of
        Algorithm 1; Sato, Iiduka, 2023 (https://arxiv.org/abs/2311.08745), Algorithm 3, the batches
        b_m.
    """
    if not callable(every):
        if every is None:
            raise ValueError("every must be a whole number >= 1 or a schedule, got None.")
        check_count("every", every, minimum=1)
    check_transformation("inner", inner)
    inner = optax.with_extra_args_support(inner)

    def init(params: optax.Params) -> AccumulateState:
        check_floating(params)
        micro_step, outer_step = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        weight, unit = (jnp.zeros((), wide_dtype(params)) for _ in range(2))
        total = jax.tree.map(lambda x: jnp.zeros_like(x, wide_dtype(x)), params)
        return AccumulateState(micro_step, outer_step, weight, unit, total, inner.init(params))

    def update(updates, state: AccumulateState, params=None, *, weight=None, **extra_args):
        check_weight(weight)
        gathered = gather(state, updates, weight)
        length, known = accumulation_length(every, state.outer_step)

        def step(gathered, params):
            # Once the reciprocal, as compilers do for a count: the bits of the plain mean.
            inverse = 1 / jnp.where(gathered.weight == 0, 1, gathered.weight)
            inverse = jnp.where(known, inverse, jnp.nan)
            mean = jax.tree.map(
                lambda s, g: (s * inverse.astype(s.dtype)).astype(g.dtype), gathered.total, updates
            )
            whole = {} if weight is None else {"weight": gathered.weight * gathered.unit}
            new_updates, inner_state = inner.update(
                mean, gathered.inner_state, params, **whole, **extra_args
            )
            # What is gathered starts from nothing again.
            nothing = jax.tree.map(jnp.zeros_like, gathered._replace(inner_state=None))
            return new_updates, nothing._replace(
                outer_step=increment(state.outer_step), inner_state=inner_state
            )

        def wait(gathered, params):
            like, _ = jax.eval_shape(step, gathered, params)
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
            return zeros, gathered

        return jax.lax.cond(gathered.micro_step >= length, step, wait, gathered, params)

    return transformation(init, update)


def check_weight(weight: jax.typing.ArrayLike | None) -> None:
    """Raise ValueError unless a weight is None or one number, not negative where that is known."""
    if weight is None:
        return
    if jnp.shape(weight) != ():
        raise ValueError(
            f"weight must be one number for the whole gradient, got shape {jnp.shape(weight)}: "
            "sum the weights of the examples."
        )
    check_interval("weight", weight, 0, jnp.inf)
