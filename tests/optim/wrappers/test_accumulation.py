"""Accumulation: steps with means, nothing in between, and the same path as the host's form."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax.train import mesh as meshes
from clipjax.train.step import controls, step
from tests.optim import reference
from tests.optim.problems import assert_rows_close, gradients, run, tree
from tests.train.toys import Net, Points, program


def means(grads, lengths):
    """The means of consecutive groups of gradients, in float64 NumPy."""
    groups, start = [], 0
    for length in lengths:
        group = [reference.double(g) for g in grads[start : start + length]]
        groups.append({n: np.mean([g[n] for g in group], axis=0) for n in group[0]})
        start += length
    assert start == len(grads)
    return groups


@pytest.mark.parametrize(
    ("every", "lengths"),
    [
        (1, [1] * 6),
        (3, [3, 3]),
        (lambda k: k + 1, [1, 2, 3]),
        # Rounded to the nearest whole number, at least 1: 0.2, 1.4, 2.6, 3.8, ...
        (lambda k: 0.2 + 1.2 * k, [1, 1, 3, 4]),
        (optax.piecewise_constant_schedule(2, {2: 2}), [2, 2, 4]),
    ],
)
def test_a_step_with_the_mean_of_each_group(every, lengths):
    with jax.enable_x64(True):
        start, grads = tree(dtype=jnp.float64), gradients(sum(lengths), jnp.float64)
        tx = clipjax.accumulate_gradients(clipjax.clipped_sgd(0.1, 1.0, momentum=0.9), every)
        state, xs, _ = run(tx, start, grads)
        expected = reference.sgd(
            start, means(grads, lengths), lambda _: 0.1, lambda _: 1.0, "global_norm", 0.9
        )
        # Parameters rest until the last micro-step of a group.
        before = [reference.double(start), *expected[:-1]]
        rows = []
        for length, old, new in zip(lengths, before, expected, strict=True):
            rows += [old] * (length - 1) + [new]
        assert_rows_close(xs, rows, rtol=1e-13, atol=1e-15)
    assert state.outer_step == len(lengths)
    assert state.micro_step == 0
    # Clippings see means and count outer steps.
    norms = np.array([reference.norm("global_norm", g) for g in means(grads, lengths)])
    clip = state.inner_state[0]
    assert (clip.count, clip.clipped) == (len(lengths), np.sum(norms > 1))
    np.testing.assert_allclose(clip.norm, norms[-1], rtol=1e-13)


def test_between_outer_steps_updates_are_zero_and_the_inner_state_rests():
    tx = clipjax.accumulate_gradients(clipjax.clipped_sstm(0.5, 3.0, 1.0), 3)
    params, (a, b, c) = tree(), gradients(3)
    state = first = tx.init(params)
    for g in (a, b):
        updates, state = tx.update(g, state, params)
        chex.assert_trees_all_equal(updates, jax.tree.map(jnp.zeros_like, params))
        chex.assert_trees_all_equal(state.inner_state, first.inner_state)
    updates, state = tx.update(c, state, params)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(updates))
    chex.assert_trees_all_equal(state.total, jax.tree.map(jnp.zeros_like, params))


def test_the_inner_update_runs_in_outer_steps_only():
    calls = []

    def update(updates, state, params=None):
        jax.debug.callback(lambda: calls.append(1))
        return updates, state

    inner = optax.GradientTransformation(lambda params: (), update)
    tx = clipjax.accumulate_gradients(inner, 4)
    params = tree()
    state, jitted = tx.init(params), jax.jit(tx.update)
    for g in gradients(9):
        _, state = jitted(g, state, params)
    jax.effects_barrier()
    assert len(calls) == 2


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_sums_in_low_precision_are_those_of_float32(dtype):
    """300 times 300 is 90,000: no number of float16; and 1 + 2^-9 is none of bfloat16."""
    tx = clipjax.accumulate_gradients(optax.sgd(1.0), 300)
    state = tx.init(jnp.zeros(2, dtype))
    g = jnp.array([300.0, 1.0], dtype)
    _, state = jax.lax.scan(lambda s, _: (tx.update(g, s)[1], None), state, length=299)[::-1]
    updates, _ = tx.update(g, state)
    assert updates.dtype == dtype
    np.testing.assert_array_equal(np.asarray(-updates, np.float32), np.asarray(g, np.float32))


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_gradient_that_is_not_finite_spoils_its_own_outer_step(bad):
    grads = gradients(9)
    spoiled = [*grads[:3], {**grads[3], "vector": grads[3]["vector"].at[0].set(bad)}, *grads[4:]]
    tx = clipjax.accumulate_gradients(optax.apply_if_finite(clipjax.clipped_sgd(0.1, 1.0), 9), 3)
    _, xs, _ = run(tx, tree(), spoiled)
    _, expected, _ = run(tx, tree(), grads[:3] + grads[6:])
    chex.assert_trees_all_close(
        jax.tree.map(lambda x: x[8], xs), jax.tree.map(lambda x: x[5], expected), rtol=1e-6
    )
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x[5], xs), jax.tree.map(lambda x: x[2], xs))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_around_the_whole_apply_if_finite_skips_micro_steps(bad):
    """The next gradient takes the place of a bad one: the run without the bad micro-steps.

    Both counters, of micro-steps and of outer steps, count good gradients only.
    """
    grads = gradients(6)
    spoiled = {**grads[0], "vector": grads[0]["vector"].at[0].set(bad)}
    inner = clipjax.clipped_sgd(lambda k: 0.1 / (k + 1), 1.0, momentum=0.9)
    alone = clipjax.accumulate_gradients(inner, lambda k: k + 1)
    tx = optax.apply_if_finite(alone, 9)
    state, xs, _ = run(tx, tree(), [spoiled, grads[0], grads[1], spoiled, *grads[2:]])
    expected_state, expected, _ = run(alone, tree(), grads)
    kept = jax.tree.map(lambda x: x[np.array([1, 2, 4, 5, 6, 7])], xs)
    chex.assert_trees_all_close(kept, expected, rtol=1e-6)
    chex.assert_trees_all_close(state.inner_state, expected_state, rtol=1e-6)
    assert (state.inner_state.micro_step, state.inner_state.outer_step) == (0, 3)


def test_extra_arguments_of_the_last_micro_step_reach_inside():
    def update(updates, state, params=None, *, value, **extra_args):
        return jax.tree.map(lambda g: g * value, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda params: (), update)
    tx = clipjax.accumulate_gradients(inner, 2)
    state = tx.init(jnp.zeros(1))
    _, state = tx.update(jnp.ones(1), state, value=5.0, nobody="knows")
    updates, _ = tx.update(jnp.ones(1), state, value=7.0)
    np.testing.assert_array_equal(updates, [7.0])


def test_a_length_that_is_nan_is_seen():
    """Two gradients, then a schedule without an answer: NaN, not a step for every gradient."""
    tx = clipjax.accumulate_gradients(optax.sgd(1.0), lambda k: jnp.where(k == 0, 2.0, jnp.nan))
    rows = run(tx, tree(), gradients(3))[1]
    chex.assert_tree_all_finite(jax.tree.map(lambda x: x[:2], rows))
    assert all(bool(jnp.isnan(x[2]).all()) for x in jax.tree.leaves(rows))


def test_schedules_inside_count_outer_steps_and_answers_are_found():
    rates = optax.exponential_decay(1.0, transition_steps=1, decay_rate=0.1)
    tx = clipjax.accumulate_gradients(clipjax.average_iterates(optax.sgd(rates)), 2)
    x = jnp.zeros(())
    state = tx.init(x)
    seen = []
    for _ in range(4):
        updates, state = tx.update(jnp.array(-1.0), state, x)
        x = optax.apply_updates(x, updates)
        seen.append(float(x))
    np.testing.assert_allclose(seen, [0, 1, 1, 1.1], rtol=1e-6)
    # Averaged are the points of the outer steps: 0 and 1.
    np.testing.assert_allclose(clipjax.eval_params(state, x), 0.5)


def test_same_path_as_the_hosts_form():
    """`train.step` with groups of 1, 2 and 3 micro-batches, and the wrapper fed one at a time."""
    data, device, rates = Points(), jax.devices()[:1], {"learning_rate": 0.05}

    def method(rates):
        return clipjax.clipped_sgd(rates["learning_rate"], 0.5, momentum=0.9)

    host = program(device, model=Net(), optimizer=method)
    wrapped = program(
        device,
        model=Net(),
        optimizer=lambda rates: clipjax.accumulate_gradients(method(rates), lambda k: k + 1),
    )
    control = controls(0, rates)
    example = meshes.place(next(data.calibration(1)), host.mesh)
    batches = [
        meshes.place(batch, host.mesh) for _, batch in zip(range(6), data.train(0), strict=False)
    ]
    state, losses = host.init(control, example), []
    for group in (batches[:1], batches[1:3], batches[3:]):
        state, metrics = step(host, state, group, control)
        losses.append(metrics["scalars"]["loss"])
    other, singles = wrapped.init(control, example), []
    for batch in batches:
        other, metrics = step(wrapped, other, [batch], control)
        singles.append(float(metrics["scalars"]["loss"]))
    chex.assert_trees_all_close(state.params, other.params, rtol=1e-5, atol=1e-7)
    chex.assert_trees_all_close(state.model_state, other.model_state, rtol=1e-5)
    grouped = [singles[0], np.mean(singles[1:3]), np.mean(singles[3:])]
    np.testing.assert_allclose(losses, grouped, rtol=1e-5)


WEIGHTS = (4.0, 0.0, 1.0, 0.0, 3.0, 2.0, 0.0, 0.0, 0.0)
"""Three outer steps of three; nothing weighs anything in the last."""


def weighted(tx, grads, weights):
    """Return the updates of each micro-step (leading axis), by `jit` of a `scan`."""
    params = jax.tree.map(lambda g: g[0], grads)

    def micro_step(state, step):
        g, weight = step
        updates, state = tx.update(g, state, params, weight=weight)
        return state, updates

    return jax.jit(lambda s, x: jax.lax.scan(micro_step, s, x))(tx.init(params), (grads, weights))[
        1
    ]


def test_weights_give_the_weighted_mean_under_scan_vmap_and_chain():
    """Against float64; what weighs 0 is NaN or inf here, and leaves no trace."""
    rng = np.random.default_rng(0)
    grads = rng.normal(size=(2, 9, 5)).astype(np.float32)
    weights = np.float32([WEIGHTS, [1.0, 5.0, 2.0, 7.0, 7.0, 7.0, 0.0, 0.0, 1.0]])
    expected = np.zeros((2, 9, 5))
    for row in (0, 1):
        for end in (2, 5, 8):
            w = np.float64(weights[row, end - 2 : end + 1])
            expected[row, end] = -w @ np.float64(grads[row, end - 2 : end + 1]) / max(w.sum(), 1)
    grads[weights == 0] = np.nan
    grads[0, 3] = np.inf
    inner = optax.chain(optax.identity(), optax.sgd(1.0))
    tx = optax.chain(optax.identity(), clipjax.accumulate_gradients(inner, 3))
    updates = jax.vmap(lambda g, w: weighted(tx, g, w))(grads, weights)
    np.testing.assert_allclose(updates, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("weight", [1.0, 13.0, 1e-30, 1e30])
def test_equal_weights_are_no_weights_to_the_bit(weight):
    grads = jnp.asarray(np.random.default_rng(1).normal(size=(9, 50)), jnp.float32)
    tx = clipjax.accumulate_gradients(clipjax.clipped_sgd(0.1, 1.0, momentum=0.9), 3)
    state, plain = tx.init(grads[0]), []
    for g in grads:
        updates, state = tx.update(g, state, grads[0])
        plain.append(updates)
    np.testing.assert_array_equal(weighted(tx, grads, jnp.full(9, weight)), plain)


def test_accumulators_within_accumulators_weigh_exactly():
    """Two by two: the inner one is given the sums 4 and 6 as weights."""
    grads, weights = jnp.asarray([1.0, 2.0, 3.0, 5.0]), jnp.asarray([1.0, 3.0, 1.0, 5.0])
    tx = clipjax.accumulate_gradients(clipjax.accumulate_gradients(optax.sgd(1.0), 2), 2)
    updates = weighted(tx, grads, weights)
    # (1 · 1 + 3 · 2 + 1 · 3 + 5 · 5) / 10
    np.testing.assert_allclose(updates, [0, 0, 0, -3.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (-1.0, r"weight must lie in \[0, inf\], got -1.0"),
        (np.ones(3), r"one number for the whole gradient, got shape \(3,\): sum the weights"),
    ],
)
def test_weights_that_are_none_are_refused(weight, message):
    tx = clipjax.accumulate_gradients(optax.sgd(1.0), 2)
    with pytest.raises(ValueError, match=message):
        tx.update(jnp.zeros(3), tx.init(jnp.zeros(3)), weight=weight)


@pytest.mark.parametrize(
    ("every", "message"),
    [
        (0, "every must be a whole number >= 1, got 0"),
        (-3, "every must be a whole number >= 1, got -3"),
        (2.5, "every must be a whole number >= 1, got 2.5"),
        (None, "every must be a whole number >= 1 or a schedule, got None"),
    ],
)
def test_bad_numbers_are_refused(every, message):
    with pytest.raises(ValueError, match=message):
        clipjax.accumulate_gradients(optax.sgd(0.1), every)


def test_integer_parameters_are_refused():
    tx = clipjax.accumulate_gradients(optax.identity(), 2)
    with pytest.raises(ValueError, match=r"\['n'\] has dtype int32"):
        tx.init({"x": jnp.zeros(2), "n": jnp.zeros(2, jnp.int32)})
