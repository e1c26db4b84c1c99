import functools
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax import graduated_schedule, plan_stages
from clipjax.optim.graduated.gradient_variance import variance_stats
from clipjax.optim.graduated.implicit import StagedMomentumState, implicit_graduated_optimization
from tests.optim.problems import assert_rows_close, gradients, run, tree
from tests.optim.reference import double

GOLDEN = Path(__file__).parents[2] / "golden"
GEOMETRIC = {"decay": "geometric", "factor": 0.5}


def nshb(learning_rate, momentum):
    return optax.chain(
        optax.ema(momentum, debias=False), optax.scale_by_learning_rate(learning_rate)
    )


def walk(x0, grads, plan, normalised=False):
    """Graduated (N)SHB written out in float64: parameters after each micro-step."""
    x = double(x0)
    v = {n: np.zeros_like(leaf) for n, leaf in x.items()}
    xs, group, step = [], [], 0
    for g in map(double, grads):
        group.append(g)
        stage = plan.stage_at_step(step)
        if len(group) == plan.schedule.batch_sizes[stage] // plan.micro_batch_size:
            beta, eta = plan.schedule.momenta[stage], plan.schedule.learning_rates[stage]
            for n in x:
                mean = np.mean([g[n] for g in group], axis=0)
                v[n] = beta * v[n] + (1 - beta if normalised else 1) * mean
                x[n] = x[n] - eta * v[n]
            group, step = [], step + 1
        xs.append({n: leaf.copy() for n, leaf in x.items()})
    return xs


SPLITS = {
    "lr": {},
    "batch": {"batch_share": 1.0},
    "hybrid": {"batch_share": 0.5},
    "momentum": {"batch_share": 0.2, "momentum_share": 0.4},
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("normalised", [False, True], ids=["shb", "nshb"])
def test_every_split_against_float64(split, normalised):
    """Three stages of two outer steps, and on at the last stage's numbers."""
    kind = "nshb_aaai25" if normalised else "shb_stationary"
    schedule = graduated_schedule(0.1, 4, 3, momentum=0.9, kind=kind, **GEOMETRIC, **SPLITS[split])
    inner = nshb if normalised else optax.sgd
    tx = implicit_graduated_optimization(schedule, 2, 2, inner=inner)
    plan = plan_stages(schedule, 2, 2)
    grads = gradients(plan.total_micro_steps + plan.accumulations[-1] + 1, heavy=False)
    state, xs, _ = run(tx, tree(), grads)
    assert_rows_close(xs, walk(tree(), grads, plan, normalised), rtol=1e-5, atol=1e-6)
    assert state.outer_step == plan.total_steps + 1
    assert state.micro_step == (1 % plan.accumulations[-1])


def test_without_momentum_any_factory_will_do():
    """Adam, which takes no `momentum`, with rates by stage: as Adam by hand."""
    schedule = graduated_schedule(0.1, 2, 2, batch_share=0.0, **GEOMETRIC)
    tx = implicit_graduated_optimization(schedule, 2, 1, inner=optax.adam)
    grads = gradients(8)
    _, xs, _ = run(tx, tree(), grads)
    means = [
        jax.tree.map(lambda a, b: (a + b) / 2, *pair)
        for pair in zip(grads[::2], grads[1::2], strict=True)
    ]
    rates = jnp.array([0.1, 0.1, 0.05, 0.05])
    _, expected, _ = run(optax.adam(lambda k: rates[k]), tree(), means)
    actual = jax.tree.map(lambda leaf: leaf[1::2], xs)
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_growing_batches_take_the_steps_of_whole_ones():
    """A sum of micro-batches' gradients is the gradient of the batch: a quadratic, in float64."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        schedule = graduated_schedule(0.05, 4, 3, batch_share=1.0, momentum=0.9, **GEOMETRIC)
        plan = plan_stages(schedule, 3, 2)
        noise = jnp.asarray(rng.normal(size=(plan.total_examples, 5)))
        tx = implicit_graduated_optimization(schedule, 3, 2)
        x, state = jnp.ones(5), tx.init(jnp.ones(5))
        update = jax.jit(tx.update)
        for micro in range(plan.total_micro_steps):
            g = x + noise[2 * micro : 2 * micro + 2].mean(axis=0)
            updates, state = update(g, state, x)
            x = optax.apply_updates(x, updates)
        y = np.ones(5)
        v, start = np.zeros(5), 0
        for step in range(plan.total_steps):
            stage = plan.stage_at_step(step)
            end = start + plan.schedule.batch_sizes[stage]
            v = 0.9 * v + y + np.asarray(noise[start:end]).mean(axis=0)
            y = y - plan.schedule.learning_rates[stage] * v
            start = end
        assert start == plan.total_examples
        np.testing.assert_allclose(x, y, rtol=1e-12)


def test_stopped_anywhere_and_resumed_bit_for_bit():
    """After each micro-step, within stages and outer steps; through bytes, with new objects."""

    def make():
        schedule = graduated_schedule(
            0.1, 2, 3, momentum=0.9, batch_share=0.5, momentum_share=0.3, **GEOMETRIC
        )
        tx = implicit_graduated_optimization(
            schedule, 2, 1, inner=functools.partial(clipjax.clipped_sgd, clip_level=1.0)
        )
        tx = optax.chain(
            clipjax.clip_by_global_norm(20.0), clipjax.measure_gradient_variance(tx, 1)
        )

        @jax.jit
        def step(params, state, g):
            updates, state = tx.update(g, state, params)
            return optax.apply_updates(params, updates), state

        return tx, step

    grads = gradients(20)
    tx, step = make()
    carries = [(tree(), tx.init(tree()))]
    for g in grads:
        carries.append(step(*carries[-1], g))
    assert variance_stats(carries[-1][1]).count > 0
    tx, step = make()
    target = jax.eval_shape(lambda x: (x, tx.init(x)), tree())
    for stop in range(1, 20):
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(carries[stop])]
        stored = [(leaf.tobytes(), leaf.dtype, leaf.shape) for leaf in leaves]
        restored = [jnp.asarray(np.frombuffer(b, d).reshape(s)) for b, d, s in stored]
        carry = jax.tree.unflatten(jax.tree.structure(target), restored)
        for g in grads[stop:]:
            carry = step(*carry, g)
        chex.assert_trees_all_equal(carry, carries[-1])


def test_velocity_is_kept_across_stages():
    """A gradient in stage 1 still moves the parameters in stage 2: −η_2 β v, v = 1."""
    schedule = graduated_schedule(0.1, 1, 2, momentum=0.5, **GEOMETRIC)
    tx = implicit_graduated_optimization(schedule, 1, 1)
    _, xs, _ = run(tx, jnp.zeros(()), [jnp.array(1.0), jnp.array(0.0)])
    np.testing.assert_allclose(xs, [-0.1, -0.1 - 0.05 * 0.5], rtol=1e-6)


@pytest.mark.parametrize("momentum_share", [0.0, 0.4])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_low_precision_stays_what_it_is(dtype, momentum_share):
    """The numbers of a stage act as numbers in the source do: no leaf changes its type."""
    schedule = graduated_schedule(
        0.1, 1, 3, momentum=0.9, momentum_share=momentum_share, **GEOMETRIC
    )
    tx = implicit_graduated_optimization(schedule, 1, 1)
    params = tree(dtype=dtype)
    state = tx.init(params)
    updates, new_state = jax.eval_shape(tx.update, params, state, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    chex.assert_trees_all_equal_shapes_and_dtypes(new_state, state)


def test_state_tells_the_stage():
    schedule = graduated_schedule(0.1, 1, 2, momentum=0.9, momentum_share=0.5, **GEOMETRIC)
    state = implicit_graduated_optimization(schedule, 2, 1).init(tree())
    assert isinstance(state, clipjax.AccumulateState)
    assert isinstance(state.inner_state, StagedMomentumState)


def test_the_authors_normalised_heavy_ball():
    """Their recorded NSHB, through a constant schedule."""
    with jax.enable_x64(True):
        with np.load(GOLDEN / "igo_nshb.npz", allow_pickle=False) as file:
            data = dict(file)
        schedule = graduated_schedule(
            0.02, 1, 2, decay="constant", momentum=0.9, kind="nshb_aaai25"
        )
        tx = implicit_graduated_optimization(schedule, 25, 1, inner=nshb)
        _, xs, _ = run(tx, jnp.asarray(data["x0"]), [jnp.asarray(g) for g in data["grads"]])
    np.testing.assert_allclose(xs, data["x"][1:], rtol=0, atol=1e-10)


SCHEDULE = graduated_schedule(0.1, 8, 3, momentum=0.9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: implicit_graduated_optimization(SCHEDULE, 2, 16), "larger than a batch"),
        (
            lambda: implicit_graduated_optimization(SCHEDULE, 0, 4),
            "steps_per_stage must be a whole number >= 1",
        ),
        (
            lambda: implicit_graduated_optimization(SCHEDULE, None, 4),
            "either steps_per_stage or examples_per_stage",
        ),
        (
            lambda: implicit_graduated_optimization(SCHEDULE, 2, 4, dataset_size=7),
            "Stage 1 asks for batches of 8",
        ),
        (
            lambda: implicit_graduated_optimization(SCHEDULE, 2, 4, inner=optax.adam),
            "inner=adam takes no argument `momentum`",
        ),
        (
            lambda: implicit_graduated_optimization(
                graduated_schedule(0.1, 8, 3, momentum=0.9, kind="nshb_aaai25"), 2, 4
            ),
            "normalised heavy ball, but optax.sgd",
        ),
        (
            lambda: implicit_graduated_optimization(
                graduated_schedule(0.1, 8, 3, momentum=0.9, kind="nshb_aaai25"),
                2,
                4,
                inner=functools.partial(optax.sgd, nesterov=True),
            ),
            "normalised heavy ball, but optax.sgd",
        ),
        (
            lambda: implicit_graduated_optimization(SCHEDULE, 2, 4).init({"n": jnp.zeros(2, int)}),
            "floating-point",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
