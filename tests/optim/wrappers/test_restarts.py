"""Restarts: runs one after another, each begun at the answer of the one before."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from tests.optim.problems import gradients, run, tree


def by_hand(method, lengths, restarts, params, grads):
    """The parameters of fresh runs of `method(t)`, the next begun at the evaluation point."""
    xs, start = [], 0
    for t, length in enumerate(lengths):
        _, path, points = run(method(t), params, grads[start : start + length], evaluate=True)
        xs += [jax.tree.map(lambda x, i=i: x[i], path) for i in range(length)]
        if t < restarts:
            params = xs[-1] = jax.tree.map(lambda y: y[-1], points)
        start += length
    return xs


def sstm(t):
    return clipjax.clipped_sstm(0.5, 3.0, 2.0 * 0.5**t)


def averaged(_):
    return clipjax.average_iterates(clipjax.clipped_sgd(0.1, 1.0, momentum=0.9), start=1)


def within_a_chain(_):
    return optax.chain(
        clipjax.clip_by_value(0.7), clipjax.scale_by_similar_triangles(lambda k: (k + 1.0) / 8)
    )


@pytest.mark.parametrize(
    ("restart_steps", "lengths"),
    [(4, [4, 4, 4]), ([3, 8], [3, 5, 4]), ((1, 2), [1, 1, 10])],
)
@pytest.mark.parametrize("method", [sstm, averaged, within_a_chain])
def test_equals_runs_by_hand(method, restart_steps, lengths):
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(12, jnp.float64)
        restarts = 12 // restart_steps if isinstance(restart_steps, int) else len(restart_steps)
        expected = by_hand(method, lengths, restarts, params, grads)
        # t inside is traced; averaged and within_a_chain do not depend on it.
        inner = method if method is sstm else method(0)
        state, xs, _ = run(clipjax.with_restarts(inner, restart_steps), params, grads)
        for k, x in enumerate(expected):
            chex.assert_trees_all_close(
                jax.tree.map(lambda leaf, k=k: leaf[k], xs), x, rtol=1e-12, atol=1e-14
            )
    assert state.restarts == restarts
    # The run after the last restart goes on; at a restart its own count is back at 0.
    assert state.count == (0 if isinstance(restart_steps, int) else 12 - restart_steps[-1])


def test_after_a_restart_the_state_is_that_of_a_fresh_run_to_the_last_bit():
    tx, params = clipjax.with_restarts(sstm, 3), tree()
    state = tx.init(params)
    for g in gradients(3):
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
    fresh = sstm(1).init(params)
    chex.assert_trees_all_equal(state.inner_state, fresh)
    chex.assert_trees_all_equal(clipjax.eval_params(state, params), params)
    # Statistics are those of the run.
    assert clipjax.clip_stats(state).fraction == 0


def test_each_run_halves_the_squared_distance():
    """R-clipped-SSTM on f = Σ d x²/2 with μ = 1, L = 10, without noise.

    For a = 1 a run of N_0 = ⌈4C√(aL/μ)⌉ steps, C = √5, halves ‖x − x*‖² (MATH of the theorem:
    4aC²LR²/N_0² ≤ μR²/4, and μ‖x − x*‖²/2 ≤ f(x) − f*). SSTM alone, as long, is far behind.
    """
    with jax.enable_x64(True):
        spectrum = jnp.linspace(1.0, 10.0, 5)
        steps = int(np.ceil(4 * np.sqrt(5 * 10)))

        def distances(tx, runs):
            @jax.jit
            def train(x):
                def step(carry, _):
                    x, state = carry
                    updates, state = tx.update(spectrum * x, state, x)
                    x = optax.apply_updates(x, updates)
                    return (x, state), jnp.sum(clipjax.eval_params(state, x) ** 2)

                return jax.lax.scan(step, (x, tx.init(x)), length=steps * runs)[1]

            return np.asarray(train(jnp.ones(5)))[steps - 1 :: steps]

        method = clipjax.clipped_sstm(1.0, 10.0, 100.0)
        restarted = distances(clipjax.with_restarts(method, steps), 6)
        assert np.all(restarted[1:] <= restarted[:-1] / 2)
        assert restarted[-1] < 1e-3 * distances(method, 6)[-1]


def test_schedules_inside_count_the_steps_of_their_run():
    rate = optax.exponential_decay(1.0, transition_steps=1, decay_rate=0.5)
    tx = clipjax.with_restarts(clipjax.average_iterates(optax.sgd(rate), start=100), 3)
    x = jnp.zeros(())
    state, seen = tx.init(x), []
    for _ in range(6):
        updates, state = tx.update(jnp.array(-1.0), state, x)
        x = optax.apply_updates(x, updates)
        seen.append(float(x))
    # Before step 100 the answer is the parameters, so nothing but the schedule starts anew.
    np.testing.assert_allclose(seen, np.cumsum([1, 0.5, 0.25] * 2))


def test_extra_arguments_reach_the_inner_transformation():
    def update(updates, state, params=None, *, factor, **extra_args):
        return jax.tree.map(lambda g: factor * g, updates), state

    inner = clipjax.average_iterates(
        optax.GradientTransformationExtraArgs(lambda params: (), update)
    )
    tx, x = clipjax.with_restarts(inner, 5), jnp.zeros(1)
    updates, _ = tx.update(jnp.ones(1), tx.init(x), x, factor=3.0)
    np.testing.assert_array_equal(updates, [3.0])


def test_low_precision_gradients_lead_exactly_to_the_evaluation_point():
    """Under bfloat16 gradients the step to y is one of float32, the dtype of the parameters."""
    params, grads = tree(), gradients(2, jnp.bfloat16)
    inner = clipjax.average_iterates(clipjax.clipped_sgd(0.1, 1.0))
    _, xs, _ = run(clipjax.with_restarts(inner, 2), params, grads)
    _, _, points = run(inner, params, grads, evaluate=True)
    chex.assert_trees_all_close(
        jax.tree.map(lambda x: x[1], xs), jax.tree.map(lambda y: y[1], points), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (0, "restart_steps must be a whole number >= 1, got 0"),
        (2.5, "restart_steps must be a whole number >= 1, got 2.5"),
        ([3, 3], r"restart_steps must increase, got \[3, 3\]"),
        ([5, 3], r"restart_steps must increase, got \[5, 3\]"),
        ([-1, 3], "restart_steps must be a whole number >= 1"),
        ([], "restart_steps must be a flat list of whole numbers, at least one, got"),
        ([[1, 2]], "restart_steps must be a flat list of whole numbers, at least one, got"),
        (None, "restart_steps must be known at construction, got None"),
        (lambda k: k, "restart_steps must be known at construction"),
    ],
)
def test_bad_numbers_are_refused(steps, message):
    with pytest.raises(ValueError, match=message):
        clipjax.with_restarts(sstm, steps)


def test_a_method_without_an_evaluation_point_is_refused_in_init():
    tx = clipjax.with_restarts(optax.sgd(0.1, momentum=0.9), 5)
    with pytest.raises(ValueError, match="eval_params found no method"):
        tx.init(tree())


def test_missing_and_integer_parameters_are_refused():
    tx = clipjax.with_restarts(sstm, 5)
    with pytest.raises(ValueError, match="with_restarts reads the current parameters"):
        tx.update(tree(), tx.init(tree()))
    with pytest.raises(ValueError, match=r"\['n'\] has dtype int32"):
        tx.init({"n": jnp.zeros(2, jnp.int32)})
