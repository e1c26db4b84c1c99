import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax.optim.graduated.gradient_variance import (
    measure_gradient_variance,
    per_example_variance,
    variance_stats,
)
from tests.optim.problems import run, stack, tree


def measured(gradients, every, micro_batch_size, decay=0.0, params=None):
    """Feed gradients (leading axis: micro-steps); return the stats after each and the state."""
    params = jax.tree.map(lambda g: g[0], gradients) if params is None else params
    tx = measure_gradient_variance(
        clipjax.accumulate_gradients(optax.sgd(0.1), every), micro_batch_size, decay=decay
    )

    def step(state, g):
        _, state = tx.update(g, state, params)
        return state, variance_stats(state)

    state, stats = jax.jit(lambda s, g: jax.lax.scan(step, s, g))(tx.init(params), gradients)
    return state, stats


def test_unbiased_for_a_known_covariance():
    """Micro-batches of n = 3 of skewed examples with covariance AAᵀ and mean G; m = 4 of them.

    Within four standard errors, which the estimates themselves give.
    """
    rng = np.random.default_rng(0)
    mean, outer, m, n = np.array([0.3, -0.2, 0.1]), 4000, 4, 3
    root = np.array([[1.0, 0.5, 0.0], [0.0, 0.8, 0.2], [0.3, 0.0, 1.5]])
    examples = mean + (rng.exponential(size=(outer * m, n, 3)) - 1) @ root.T
    gradients = jnp.asarray(examples.mean(axis=1), jnp.float32)
    state, stats = measured(gradients, m, n)
    assert state.count == outer
    for values, expected in (
        (stats.variance[m - 1 :: m], np.trace(root @ root.T)),
        (stats.squared_norm[m - 1 :: m], mean @ mean),
    ):
        values = np.asarray(values, np.float64)
        error = values.std() / outer**0.5
        assert abs(values.mean() - expected) < 4 * error
        assert error < 0.15 * expected, "the tolerance must be able to tell"
    # The plain |mean gradient|² is not: it contains C²/(mn).
    naive = np.square(np.asarray(gradients).reshape(outer, m, 3).mean(axis=1)).sum(axis=1).mean()
    assert abs(naive - mean @ mean) > 4 * error


def test_averages_of_numerator_and_denominator():
    """Against the formulas in float64; the noise scale is the ratio of averages."""
    gradients = [tree(seed) for seed in range(9)]
    m, n, decay = 3, 5, 0.7
    _, stats = measured(stack(gradients), m, n, decay)
    flat = np.array(
        [np.concatenate([np.ravel(leaf) for leaf in g.values()]) for g in gradients], np.float64
    )
    weight = variance = norm = 0.0
    for group in flat.reshape(3, m, -1):
        c2 = n * np.square(group - group.mean(axis=0)).sum() / (m - 1)
        g2 = np.square(group.mean(axis=0)).sum() - c2 / (m * n)
        weight = decay * weight + 1 - decay
        variance = decay * variance + (1 - decay) * c2
        norm = decay * norm + (1 - decay) * g2
    last = jax.tree.map(lambda leaf: leaf[-1], stats)
    np.testing.assert_allclose(last.variance, variance / weight, rtol=1e-5)
    np.testing.assert_allclose(last.squared_norm, norm / weight, rtol=1e-5)
    scale = variance / norm if norm > 0 else np.inf
    np.testing.assert_allclose(last.noise_scale, scale, rtol=1e-5)
    assert last.count == 3
    # Nothing is reported before the first outer step has ended.
    assert np.isnan(stats.variance[:2]).all()
    assert np.isnan(stats.noise_scale[:2]).all()
    assert np.isfinite(stats.variance[2:]).all()


def test_weights_that_are_numbers_of_examples_leave_it_unbiased():
    """Micro-batches of 1, 0, 2 and 6 examples of 3 on average, among those that have any.

    Against D / w̄ · n / (m − 1) in float64, and over 4,000 outer steps within four standard errors
    of C² = tr AAᵀ.
    """
    rng = np.random.default_rng(0)
    mean, outer, sizes = np.array([0.3, -0.2, 0.1]), 4000, np.array([1, 0, 2, 6])
    root = np.array([[1.0, 0.5, 0.0], [0.0, 0.8, 0.2], [0.3, 0.0, 1.5]])
    noise = rng.normal(size=(outer, 4, 3)) / np.sqrt(np.maximum(sizes, 1))[:, None]
    gradients = mean + noise @ root.T
    expected = []
    for group in gradients[:, sizes > 0]:
        w = sizes[sizes > 0]
        deviation = w @ np.square(group - w @ group / 9).sum(axis=1)
        expected.append(3 / 2 * deviation / 3)
    gradients[:, 1] = np.nan
    tx = measure_gradient_variance(
        clipjax.accumulate_gradients(optax.sgd(0.1), 4), micro_batch_size=3, decay=0.0
    )
    steps = jnp.asarray(gradients.reshape(-1, 3), jnp.float32), jnp.tile(sizes, outer)

    def step(state, given):
        _, state = tx.update(given[0], state, weight=given[1])
        return state, variance_stats(state)

    state, stats = jax.jit(lambda s, x: jax.lax.scan(step, s, x))(tx.init(jnp.zeros(3)), steps)
    assert state.count == outer
    np.testing.assert_allclose(stats.variance[3::4], expected, rtol=1e-3)
    for values, true in (
        (stats.variance[3::4], np.trace(root @ root.T)),
        (stats.squared_norm[3::4], mean @ mean),
    ):
        values = np.asarray(values, np.float64)
        assert abs(values.mean() - true) < 4 * values.std() / outer**0.5


def test_nearly_equal_gradients_do_not_cancel():
    """Gradients 1000 ± 0.01 in float32: Σ|g|² − m|ḡ|² is all rounding."""
    rng = np.random.default_rng(2)
    gradients = np.float32(1000 + 0.01 * rng.normal(size=(8, 50)))
    exact = np.var(np.asarray(gradients, np.float64), axis=0, ddof=1).sum()
    _, stats = measured(jnp.asarray(gradients), 8, 1)
    # The running mean is rounded at 1000 · 2⁻²⁴ = 6e-5 of deviations of 1e-2.
    np.testing.assert_allclose(stats.variance[-1], exact, rtol=1e-2)
    mean = gradients.mean(axis=0)
    naive = (np.sum(gradients**2) - 8 * np.sum(mean**2)) / 7
    assert abs(naive / exact - 1) > 0.5


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan, 1e30])
@pytest.mark.parametrize("where", [0, 1, 2])
def test_what_is_not_finite_never_enters(bad, where):
    """The outer step that it spoils is left out, at any of its micro-steps; so do overflows."""
    rng = np.random.default_rng(3)
    clean = np.float32(rng.normal(size=(9, 4)))
    spoiled = clean.copy()
    spoiled[3 + where, 1] = bad
    state, _ = measured(jnp.asarray(spoiled), 3, 2, decay=0.5)
    expected, _ = measured(jnp.asarray(np.delete(clean, [3, 4, 5], axis=0)), 3, 2, decay=0.5)
    chex.assert_trees_all_equal(variance_stats(state), variance_stats(expected))
    assert state.count == 2


def test_an_outer_step_of_one_micro_batch_tells_nothing():
    gradients = jnp.asarray(np.random.default_rng(4).normal(size=(9, 4)), jnp.float32)
    state, stats = measured(gradients, 1, 2)
    assert state.count == 0
    assert np.isnan(stats.variance).all()
    # Outer steps of 1, 2, 3 and 3 micro-batches.
    state, stats = measured(gradients, lambda k: jnp.minimum(k + 1, 3), 2)
    assert np.isnan(stats.variance[:2]).all()
    assert list(np.asarray(stats.count)) == [0, 0, 1, 1, 1, 2, 2, 2, 3]
    pair = np.asarray(gradients[1:3], np.float64)
    np.testing.assert_allclose(stats.variance[2], np.square(pair[0] - pair[1]).sum(), rtol=1e-5)


class Network(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(4)(nn.relu(nn.Dense(16)(nn.LayerNorm()(x))))


@functools.cache
def network():
    model = Network()
    rng = np.random.default_rng(5)
    images = jnp.asarray(rng.normal(size=(48, 10)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 4, 48))
    params = model.init(jax.random.key(0), images[:1])

    def loss(params, example):
        image, label = example
        return optax.losses.softmax_cross_entropy_with_integer_labels(
            model.apply(params, image), label
        )

    each = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(params, (images, labels))
    return loss, params, (images, labels), each


def test_a_real_network_agrees_with_its_per_example_gradients():
    """Micro-batches of one example are the per-example estimate; of four, one within its error."""
    loss, params, examples, each = network()
    direct = per_example_variance(loss, params, examples, chunk_size=20)
    _, stats = measured(each, 48, 1, params=params)
    for name in ("variance", "squared_norm", "noise_scale"):
        expected = getattr(direct, name)
        np.testing.assert_allclose(getattr(stats, name)[-1], expected, rtol=1e-3, err_msg=name)
    np.testing.assert_allclose(stats.variance[-1], direct.variance, rtol=1e-5)

    # 100 random divisions into 12 micro-batches of 4: their mean is the estimate of all 48, since
    # each pair of examples meets equally often.
    order = np.stack([np.random.default_rng(s).permutation(48) for s in range(100)])
    micro = jax.tree.map(lambda g: jnp.mean(g[order.reshape(-1, 4)], axis=1), each)
    _, stats = measured(micro, 12, 4, params=params)
    values = np.asarray(stats.variance[11::12], np.float64)
    error = values.std() / 100**0.5
    assert abs(values.mean() - float(direct.variance)) < 4 * error
    assert error < 0.02 * direct.variance


def test_per_example_variance_against_numpy_whatever_the_chunks():
    loss, params, examples, each = network()
    flat = np.concatenate(
        [np.asarray(g, np.float64).reshape(48, -1) for g in jax.tree.leaves(each)], axis=1
    )
    variance = flat.var(axis=0, ddof=1).sum()
    norm = np.square(flat.mean(axis=0)).sum() - variance / 48
    for chunk_size in (20, 48, 1000):
        stats = per_example_variance(loss, params, examples, chunk_size=chunk_size)
        np.testing.assert_allclose(stats.variance, variance, rtol=1e-5)
        np.testing.assert_allclose(stats.squared_norm, norm, rtol=1e-4)
        assert stats.count == 48


def test_updates_are_those_of_the_wrapped_transformation():
    inner = clipjax.accumulate_gradients(clipjax.clipped_sgd(0.1, 1.0, momentum=0.9), 3)
    tx = measure_gradient_variance(inner, 8)
    grads = [tree(seed) for seed in range(6)]
    state, xs, _ = run(tx, tree(), grads)
    other, expected, _ = run(inner, tree(), grads)
    chex.assert_trees_all_equal(xs, expected)
    chex.assert_trees_all_equal(state.inner_state, other)


def test_found_in_chains_and_around_graduated_optimisation():
    schedule = clipjax.graduated_schedule(0.1, 4, 2, decay="geometric", batch_share=1.0)
    tx = optax.chain(
        clipjax.clip_by_global_norm(10.0),
        measure_gradient_variance(clipjax.implicit_graduated_optimization(schedule, 2, 2), 2),
    )
    state, _, _ = run(tx, tree(), [tree(seed) for seed in range(4)])  # two outer steps
    assert variance_stats(state).count == 2
    assert variance_stats(state).variance > 0


def test_replicas_under_vmap():
    gradients = jnp.asarray(np.random.default_rng(6).normal(size=(5, 6, 4)), jnp.float32)
    together = jax.vmap(lambda g: measured(g, 3, 2, decay=0.5)[1])(gradients)
    for i in range(5):
        alone = measured(gradients[i], 3, 2, decay=0.5)[1]
        chex.assert_trees_all_close(jax.tree.map(lambda x, i=i: x[i], together), alone, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda inner: measure_gradient_variance(inner, 0), "micro_batch_size must be a whole"),
        (lambda inner: measure_gradient_variance(inner, 4, decay=1.0), r"decay must lie in \[0, 1"),
        (
            lambda inner: measure_gradient_variance(optax.sgd(0.1, 0.9), 4).init(tree()),
            "found nowhere.*TraceState",
        ),
        (
            lambda inner: measure_gradient_variance(optax.chain(inner, inner), 4).init(tree()),
            r"opt_state\[0\], AccumulateState at opt_state\[1\]",
        ),
        (lambda inner: variance_stats(inner.init(tree())), "found no measure_gradient_variance"),
        (
            lambda inner: variance_stats(
                optax.chain(*[measure_gradient_variance(inner, 4)] * 2).init(tree())
            ),
            "several measurements",
        ),
        (
            lambda inner: measure_gradient_variance(inner, 4).init({"n": jnp.zeros(2, int)}),
            "floating-point",
        ),
        (
            lambda inner: per_example_variance(lambda p, x: p * x, jnp.ones(()), jnp.ones(1)),
            "at least 2",
        ),
        (
            lambda inner: per_example_variance(
                lambda p, x: p, jnp.ones(()), (jnp.ones(3), jnp.ones(4))
            ),
            r"lengths \[3, 4\]",
        ),
        (
            lambda inner: per_example_variance(
                lambda p, x: p * x, jnp.ones(()), jnp.ones(4), chunk_size=0
            ),
            "chunk_size must be a whole number >= 1",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(clipjax.accumulate_gradients(optax.sgd(0.1), 2))
