r"""How noisy the gradient is: the variance C² of one example's gradient, measured in training.

**From micro-batches, at no extra gradient.** When m micro-batches of n examples are accumulated at
the same parameters, their mean gradients g_1, ..., g_m are m independent samples of variance C²/n:

.. math::

   \hat C^2 = \frac{n}{m - 1} \sum_{i=1}^m \|g_i - \bar g\|^2, \qquad
   \widehat{\|G\|^2} = \|\bar g\|^2 - \frac{\hat C^2}{m n}

are unbiased for C² = E‖∇f_i − ∇f‖² = tr Σ and for ‖∇f‖². Their ratio is the simple noise scale, the
batch size at which noise and signal are of one size ("critical batch size"): below it doubling the
batch almost halves the steps, far above it gains nothing.

**How the sum is kept.** Not as Σ‖g_i‖² − m‖ḡ‖², two large numbers whose difference is rounding when
the gradients are nearly equal, but by Welford's recurrence on the running mean,

.. math:: D_k = D_{k-1} + \frac{k}{k - 1} \|g_k - \bar g_k\|^2, \qquad k = 2, \ldots, m,

which reads the accumulator's own sum: two scalars are stored besides. C² and ‖G‖² are averaged over
outer steps *separately*, and divided only when read: the mean of ratios would be biased (and ‖G‖²
is negative now and then).

**Weights.** With `update(..., weight=w)` the accumulator forms the mean with weights w_i, and the
estimate assumes that the variance of g_i is inversely proportional to w_i, as it is for the mean
over w_i independent things (examples, pixels that do not depend on one another, tokens). Then with

.. math::

   D = \sum_i w_i \|g_i - \bar g\|^2, \qquad \hat C^2 = \frac{n}{m - 1} \cdot \frac{D}{\bar w}

is unbiased, w̄ being the mean of the m weights: C²/n is the variance of a gradient of weight w̄, and
C²/(m n) that of their mean. (Labelled pixels of one picture do depend on one another. Where their
number differs from micro-batch to micro-batch, the estimate leans towards the noise of those that
have more.) D follows West's recurrence, D_k = D_{k-1} + w_k W_k / W_{k-1} ‖g_k − ḡ_k‖² with
W_k = w_1 + ... + w_k, which with equal weights is the one above. A micro-batch of weight 0 is left
out, as if it had not been there.

**What may enter.** An outer step of one micro-batch tells nothing of the variance and is left out,
as is one in which anything was not finite (squares that overflow included).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax._weighted_means import relative_weight, squared_deviation
from clipjax.optim._checks import (
    check_callable,
    check_count,
    check_floating,
    check_interval,
    check_transformation,
    common_length,
    naming,
)
from clipjax.optim._trees import (
    describe,
    find_states,
    increment,
    state_names,
    transformation,
    wide_dtype,
)
from clipjax.optim.wrappers.accumulation import AccumulateState, check_weight, gather


class GradientVarianceState(NamedTuple):
    """State of `measure_gradient_variance`; all but `inner_state` are scalars.

    Attributes:
        deviations: D = Σ w_i ‖g_i − ḡ‖² over the micro-batches of the outer step under way, the
            weights in the accumulator's unit; float32 or wider.
        counted: how many of them have a positive weight; int32.
        count: outer steps measured so far; int32.
        weight: sum of the weights in the two averages, 1 − decay^count; float32 or wider.
        variance: weighted sum of the estimates of C²; same dtype.
        squared_norm: weighted sum of the estimates of ‖G‖²; same dtype.
        inner_state: the state of the wrapped transformation.
    """

    deviations: jax.Array
    counted: jax.Array
    count: jax.Array
    weight: jax.Array
    variance: jax.Array
    squared_norm: jax.Array
    inner_state: optax.OptState


class VarianceStats(NamedTuple):
    """What is known of the gradient's noise: float scalars, and a count.

    Attributes:
        variance: C² = tr Σ, the variance of one example's gradient; NaN before the first estimate.
        squared_norm: ‖∇f‖², unbiased, hence perhaps negative.
        noise_scale: variance / squared_norm, the critical batch size in examples; inf where the
            estimate of ‖∇f‖² is not positive.
        count: int32; outer steps measured, or examples for `per_example_variance`.
    """

    variance: jax.Array
    squared_norm: jax.Array
    noise_scale: jax.Array
    count: jax.Array


def mean_squared_norm(total: optax.Updates, weight: jax.typing.ArrayLike) -> jax.Array:
    """Return ‖ḡ_k‖², ḡ_k = total/W_k, in float32 or wider.

    Examples:
        >>> print(mean_squared_norm(jnp.array([6.0, 8.0]), 2))
        25.0
    """
    dtype = wide_dtype(total)
    squares = [jnp.sum(jnp.square(g.astype(dtype))) for g in jax.tree.leaves(total)]
    # Divided last: total/k is formed elsewhere too, and would be kept to be read twice.
    return sum(squares, start=jnp.zeros((), dtype)) / jnp.asarray(weight, dtype) ** 2


def micro_batch_estimates(
    deviations: jax.typing.ArrayLike,
    mean_squared_norm: jax.typing.ArrayLike,
    count: jax.typing.ArrayLike,
    micro_batch_size: jax.typing.ArrayLike,
) -> tuple[jax.Array, jax.Array]:
    r"""Return the unbiased estimates of C² and ‖∇f‖² from m micro-batches of n examples.

    Args:
        deviations: D = Σ‖g_i − ḡ‖²; with weights D/w̄.
        mean_squared_norm: ‖ḡ‖².
        count: m >= 2.
        micro_batch_size: n.

    Examples:
        >>> variance, squared_norm = micro_batch_estimates(8.0, 9.0, 3, 32)
        >>> print(variance, round(float(squared_norm), 4))  # 32/2 · 8, 9 − 128/96
        128.0 7.6667
    """
    m = jnp.asarray(count, float)
    n = jnp.asarray(micro_batch_size, float)
    # m = 1 gives no estimate: 0/1, which callers discard, rather than 0/0.
    variance = n * jnp.asarray(deviations) / jnp.maximum(m - 1, 1)
    return variance, jnp.asarray(mean_squared_norm) - variance / (m * n)


def measure_gradient_variance(
    inner: optax.GradientTransformation,
    micro_batch_size: int,
    *,
    decay: jax.typing.ArrayLike = 0.9,
) -> optax.GradientTransformationExtraArgs:
    r"""Measure the variance of the gradient from the micro-batches that `inner` accumulates.

    `inner` is `accumulate_gradients(...)`, `implicit_graduated_optimization(...)` or a wrapper of
    one; its updates are passed on untouched, as are extra arguments (its `weight` among them; the
    module says what the estimate assumes of weights). After each outer step of m >= 2 micro-batches
    the estimates of C² and ‖∇f‖² (the formulas of this module) enter exponential averages, which
    `variance_stats(opt_state)` reads. With C the noise level is `noise_level(η, b, C)`.

    The gradients given to this transformation must be those that are accumulated: put what changes
    them (clipping of micro-gradients, say) before it in a chain, not between it and `inner`'s
    accumulator.
    With data parallelism a micro-batch is the one over all devices, whose mean gradient comes here.

    Args:
        inner: a transformation with one accumulator in its state.
        micro_batch_size: n, examples behind each gradient (with weights: behind one of mean
            weight); static under `optax.inject_hyperparams`.
        decay: of the averages over outer steps, in [0, 1); 0 keeps the last estimate only.

    Returns:
        An Optax transformation with state `GradientVarianceState`: six scalars more than `inner`.

    Non-finite gradients: the update is that of `inner`; an outer step with such a gradient, or
    whose squares overflow, enters no average. `optax.apply_if_finite` around the whole skips the
    micro-step, and the next gradient takes its place.

    Raises:
        ValueError: for numbers out of range, parameters that are not real floating-point arrays,
            or (in `init`) an `inner` without an accumulator, or with several.

    Examples:
        >>> from clipjax.optim.wrappers.accumulation import accumulate_gradients
        >>> tx = measure_gradient_variance(accumulate_gradients(optax.sgd(0.1), 2), 8)
        >>> x = jnp.zeros(2)
        >>> state = tx.init(x)
        >>> for g in ([1.0, 5.0], [3.0, 5.0]):
        ...     updates, state = tx.update(jnp.array(g), state, x)
        >>> stats = variance_stats(state)
        >>> print(stats.variance, stats.squared_norm)  # 8/1 · (1 + 1), 4 + 25 − 16/16
        16.0 28.0

    References:
        McCandlish et al., An empirical model of large-batch training, 2018
        (https://arxiv.org/abs/1812.06162), Appendix A.1 (their estimator compares two batch sizes;
        with one micro-batch against the whole batch it is this one).
    """
    check_transformation("inner", inner)
    check_count("micro_batch_size", micro_batch_size, minimum=1)
    check_interval("decay", decay, 0, 1, closed_high=False)
    inner = optax.with_extra_args_support(inner)

    def init(params: optax.Params) -> GradientVarianceState:
        check_floating(params)
        inner_state = inner.init(params)
        _accumulator(inner_state)
        dtype = wide_dtype(params)
        # One array each: buffers that are shared cannot be donated.
        deviations, weight, variance, squared_norm = (jnp.zeros((), dtype) for _ in range(4))
        counted, count = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        return GradientVarianceState(
            deviations, counted, count, weight, variance, squared_norm, inner_state
        )

    def update(updates, state: GradientVarianceState, params=None, **extra_args):
        before = _accumulator(state.inner_state)
        dtype = state.variance.dtype
        weight = extra_args.get("weight")
        check_weight(weight)
        # The accumulator forms the same sum, and compilers form it once; were the old sum read
        # here, it would have to be copied before the accumulator overwrites it.
        after = gather(before, updates, weight)
        share, _ = relative_weight(weight, before.unit)
        started = before.micro_step > 0
        added = squared_deviation(updates, after.total, before.weight, share).astype(dtype)
        deviations = jnp.where(started, state.deviations, 0) + added
        k = jnp.where(started, state.counted, 0) + (share != 0).astype(jnp.int32)
        total_weight = jnp.where(k == 0, 1, after.weight)
        variance, squared_norm = micro_batch_estimates(
            deviations * (k.astype(dtype) / total_weight),
            mean_squared_norm(after.total, total_weight),
            k,
            micro_batch_size,
        )
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        ended = _accumulator(inner_state).micro_step == 0
        measured = ended & (k > 1) & jnp.isfinite(variance) & jnp.isfinite(squared_norm)
        keep = jnp.asarray(decay, dtype)

        def average(old: jax.Array, new: jax.Array) -> jax.Array:
            mixed = keep * old + (1 - keep) * new.astype(dtype)
            return jnp.where(measured, mixed, old)

        return updates, GradientVarianceState(
            deviations,
            k,
            jnp.where(measured, increment(state.count), state.count),
            average(state.weight, jnp.ones((), dtype)),
            average(state.variance, variance),
            average(state.squared_norm, squared_norm),
            inner_state,
        )

    return transformation(init, update)


def _accumulator(opt_state: optax.OptState) -> AccumulateState:
    states = find_states(opt_state, AccumulateState)
    if not states:
        raise ValueError(
            "measure_gradient_variance compares the micro-batches of accumulate_gradients (or of "
            "implicit_graduated_optimization), which it found nowhere in the state of its inner "
            f"transformation. That holds: {state_names(opt_state)}."
        )
    if len(states) > 1:
        raise ValueError(
            "measure_gradient_variance needs one accumulator to look at and found "
            f"{describe(states)}. Wrap each on its own."
        )
    return states[0][1]


def variance_stats(opt_state: optax.OptState) -> VarianceStats:
    """Return the measured variance, squared norm and noise scale of the gradient.

    Args:
        opt_state: a state holding that of exactly one `measure_gradient_variance`, at any depth.

    Returns:
        `VarianceStats(variance, squared_norm, noise_scale, count)`: averages over the outer steps
        measured, NaN if there are none yet.

    Raises:
        ValueError: if no such state is found, or several (pass the part of the state you mean).

    Examples:
        >>> from clipjax.optim.wrappers.accumulation import accumulate_gradients
        >>> tx = measure_gradient_variance(accumulate_gradients(optax.sgd(0.1), 2), 8)
        >>> print(variance_stats(tx.init(jnp.zeros(2))).variance)
        nan
    """
    states = find_states(opt_state, GradientVarianceState)
    if not states:
        raise ValueError(
            "variance_stats found no measure_gradient_variance in opt_state, which holds: "
            f"{state_names(opt_state)}."
        )
    if len(states) > 1:
        raise ValueError(
            f"variance_stats found several measurements: {describe(states)}. Pass the part of the "
            f"state that you mean, such as opt_state{states[0][0]}."
        )
    state = states[0][1]
    none = state.weight == 0
    weight = jnp.where(none, jnp.nan, state.weight)
    return _stats(state.variance / weight, state.squared_norm / weight, state.count)


def _stats(variance: jax.Array, squared_norm: jax.Array, count: jax.Array) -> VarianceStats:
    positive = squared_norm > 0
    scale = jnp.where(positive, variance / jnp.where(positive, squared_norm, 1), jnp.inf)
    scale = jnp.where(jnp.isnan(variance + squared_norm), jnp.nan, scale)
    return VarianceStats(variance, squared_norm, scale, count)


Loss = Callable[[optax.Params, Any], jax.Array]


def per_example_variance(
    loss: Loss, params: optax.Params, examples: Any, *, chunk_size: int = 128
) -> VarianceStats:
    r"""Estimate the variance of the gradient from the gradients of single examples.

    .. math::

       \hat C^2 = \frac{1}{n - 1} \sum_{i=1}^n \|\nabla \ell_i - \bar g\|^2

    Each chunk of examples has its gradients formed together (`jax.vmap`) and is merged into the
    mean and the sum of squared deviations by Chan's formula, so one pass suffices and nothing
    cancels. Chunks are a Python loop over one compiled function, not a `lax.scan`, in which the
    gradients of convolutions are slow on CPUs; keep the same `loss` function for calls that are to
    share the compilation.

    Args:
        loss: (params, example) -> the loss of one example, a scalar. No layer may mix examples
            (BatchNorm in training mode would).
        params: a tree of real floating-point arrays.
        examples: a tree of arrays whose leading axis, n >= 2, is the example.
        chunk_size: examples whose gradients are held at once: memory is chunk_size times the size
            of the parameters.

    Returns:
        `VarianceStats`, its `count` being n.

    Raises:
        ValueError: for fewer than two examples, arrays of different lengths, or a `chunk_size` that
            is not a positive whole number.

    Examples:
        >>> def loss(x, example):
        ...     return jnp.sum((x - example) ** 2) / 2  # the gradient is x − example
        >>> stats = per_example_variance(loss, jnp.zeros(2), jnp.array([[1.0, 0.0], [3.0, 0.0]]))
        >>> print(stats.variance, stats.squared_norm)  # 1 + 1, 4 − 2/2
        2.0 3.0
    """
    check_callable("loss", loss)
    check_count("chunk_size", chunk_size, minimum=1)
    check_floating(params)
    total = common_length("examples", examples, 2)

    def moments(start: int) -> Moments:
        chunk = jax.tree.map(lambda leaf: leaf[start : start + chunk_size], examples)
        with naming("loss", "params", "examples"):
            return _chunk_moments(loss, params, chunk)

    sample = moments(0)
    for start in range(chunk_size, total, chunk_size):
        sample = _merge(sample, moments(start))
    variance, squared_norm = micro_batch_estimates(
        sample.deviations, _squared_norm(sample.mean), total, 1
    )
    return _stats(variance, squared_norm, jnp.asarray(total, jnp.int32))


class Moments(NamedTuple):
    """Number, mean and Σ‖∇ℓ_i − mean‖² of a sample of gradients, in float32 or wider."""

    count: jax.Array
    mean: optax.Updates
    deviations: jax.Array


def _squared_norm(tree: Any) -> jax.Array:
    return sum((jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(tree)), jnp.zeros(()))


@partial(jax.jit, static_argnums=0)
def _chunk_moments(loss: Loss, params: optax.Params, chunk: Any) -> Moments:
    gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0))(params, chunk)
    gradients = jax.tree.map(lambda g: g.astype(wide_dtype(g)), gradients)
    mean = jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)
    count = jnp.asarray(len(jax.tree.leaves(chunk)[0]), float)
    return Moments(count, mean, _squared_norm(jax.tree.map(jnp.subtract, gradients, mean)))


@jax.jit
def _merge(first: Moments, second: Moments) -> Moments:
    """Return the moments of the union of two samples (Chan's formula)."""
    count = first.count + second.count
    share = second.count / count
    gap = jax.tree.map(jnp.subtract, second.mean, first.mean)
    mean = jax.tree.map(lambda a, d: a + d * share.astype(d.dtype), first.mean, gap)
    between = _squared_norm(gap) * first.count * share
    return Moments(count, mean, first.deviations + second.deviations + between)
