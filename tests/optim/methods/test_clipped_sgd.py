"""clipped-SGD against the rule written out, against optax.sgd, and after a spike."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax.optim._trees import map_pair
from tests.optim import reference
from tests.optim.problems import assert_rows_close, gradients, run, tree

STEPS = 30
KINDS = ("global_norm", "tensor_norm", "value")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {}) for kind in KINDS),
        ("global_norm", {"momentum": 0.9}),
        ("value", {"momentum": 0.9, "nesterov": True}),
        *((kind, {"momentum": 0.9, "clip_after_momentum": True}) for kind in KINDS),
        ("tensor_norm", {"momentum": 0.9, "nesterov": True, "clip_after_momentum": True}),
    ],
)
def test_equals_the_rule_written_out(kind, options):
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(STEPS, jnp.float64)
        _, xs, _ = run(clipjax.clipped_sgd(0.1, 0.7, clip=kind, **options), params, grads)
    expected = reference.sgd(
        params,
        grads,
        lambda k: 0.1,
        lambda k: 0.7,
        kind,
        momentum=options.get("momentum", 0.0),
        nesterov=options.get("nesterov", False),
        clip_after=options.get("clip_after_momentum", False),
    )
    assert_rows_close(xs, expected, rtol=1e-12, atol=1e-13)


def test_scheduled_rate_and_geometrically_decaying_level():
    """d-clipped-SGD: λ_k = 2 · 0.7^⌊k/5⌋; with it a rate η_k = 0.5/(k + 1). Steps count from 0."""
    levels = [2 * 0.7 ** (k // 5) for k in range(STEPS)]
    # The schedule that the docstring names; Optax evaluates it in float32.
    decay = optax.exponential_decay(2.0, transition_steps=5, decay_rate=0.7, staircase=True)
    np.testing.assert_allclose([decay(k) for k in range(STEPS)], levels, rtol=1e-5)
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(STEPS, jnp.float64)
        level = jnp.asarray(levels).__getitem__
        tx = clipjax.clipped_sgd(lambda k: 0.5 / (k + 1.0), level, momentum=0.8)
        state, xs, _ = run(tx, params, grads)
        expected = reference.sgd(
            params,
            grads,
            lambda k: 0.5 / (k + 1),
            lambda k: levels[k],
            "global_norm",
            momentum=0.8,
        )
        assert_rows_close(xs, expected, rtol=1e-12, atol=1e-13)
        # The last step is number 29: 0.7^⌊29/5⌋.
        np.testing.assert_allclose(clipjax.clip_stats(state).level, 2 * 0.7**5, rtol=1e-12)


@pytest.mark.parametrize(
    ("momentum", "nesterov", "level"),
    [(None, False, None), (0.9, False, None), (0.9, True, None), (0.9, True, np.inf)],
)
def test_without_a_level_it_is_sgd(momentum, nesterov, level):
    params, grads = tree(), gradients(STEPS, heavy=False)
    tx = clipjax.clipped_sgd(0.1, level, momentum=momentum, nesterov=nesterov)
    _, xs, _ = run(tx, params, grads)
    _, expected, _ = run(optax.sgd(0.1, momentum, nesterov), params, grads)
    for name in xs:
        np.testing.assert_allclose(xs[name], expected[name], rtol=1e-6, atol=1e-6)


def positions(tx, grads):
    x, state, xs = jnp.zeros(()), tx.init(jnp.zeros(())), []
    for g in grads:
        updates, state = tx.update(jnp.asarray(g), state, x)
        x = optax.apply_updates(x, updates)
        xs.append(float(x))
    return xs


SPIKE = [1000.0, 0.5, 0.5, 0.5]


def test_a_spike_is_forgotten_when_clipping_comes_first():
    """η = λ = 1, μ = 0.9: v = 1, 0.9 + 0.5, 1.26 + 0.5, 1.584 + 0.5; x falls by each."""
    xs = positions(clipjax.clipped_sgd(1.0, 1.0, momentum=0.9), SPIKE)
    np.testing.assert_allclose(xs, [-1, -2.4, -4.16, -6.244], rtol=1e-6)


def test_a_spike_lasts_but_steps_stay_short_when_clipping_comes_last():
    """v = 1000, 900.5, 810.95, ... stays over the level: every step has the length 1."""
    tx = clipjax.clipped_sgd(1.0, 1.0, momentum=0.9, clip_after_momentum=True)
    np.testing.assert_allclose(positions(tx, SPIKE), [-1, -2, -3, -4], rtol=1e-6)


def test_scaling_the_velocity_by_the_factor_of_the_raw_gradient_runs_away():
    """What the peers do, and why neither order of ours does so: -1, -901, -1712, ..."""
    x, v, xs = 0.0, 0.0, []
    for g in SPIKE:
        v = 0.9 * v + g
        x -= min(1.0, 1.0 / abs(g)) * v
        xs.append(x)
    np.testing.assert_allclose(xs[:3], [-1, -901.5, -1712.45])
    for after in (False, True):
        tx = clipjax.clipped_sgd(1.0, 1.0, momentum=0.9, clip_after_momentum=after)
        # With clipping first the bound of a step is ηλ/(1 − μ) = 10, with clipping last ηλ = 1.
        assert max(abs(np.diff([0, *positions(tx, SPIKE * 5)]))) <= (1 if after else 10) + 1e-5


@pytest.mark.parametrize(
    ("param_dtype", "grad_dtype"),
    [(jnp.float32, jnp.bfloat16), (jnp.float32, jnp.float16), (jnp.bfloat16, jnp.float32)],
)
def test_updates_take_the_dtype_of_gradients_and_velocity_that_of_parameters(
    param_dtype, grad_dtype
):
    params, grads = tree(dtype=param_dtype), tree(1, grad_dtype)
    tx = clipjax.clipped_sgd(0.1, 1.0, momentum=0.9)
    updates, state = tx.update(grads, tx.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(grad_dtype)}
    assert {leaf.dtype for leaf in jax.tree.leaves(state[1])} == {jnp.dtype(param_dtype)}


def test_a_rate_below_the_smallest_float16():
    """1e-9 rounds to 0 in float16; the product 1e-9 · 3e4 = 3e-5 does not."""
    tx = clipjax.clipped_sgd(1e-9, None)
    grads = jnp.array([3e4], jnp.float16)
    updates, _ = tx.update(grads, tx.init(grads))
    np.testing.assert_allclose(np.asarray(updates, np.float64), -3e-5, rtol=2e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"learning_rate": None}, "learning_rate must be positive, got None"),
        ({"learning_rate": "fast"}, "learning_rate must be a number or a schedule, got 'fast'"),
        ({"learning_rate": np.inf}, "learning_rate must be finite, got inf"),
        ({"clip_level": 0}, "clip_level must be positive, got 0"),
        ({"clip": "tensornorm"}, "got 'tensornorm'. Did you mean 'tensor_norm'"),
        ({"clip": clipjax.clip_by_value}, "clip must be one of"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"momentum": -0.1}, r"momentum must lie in \[0, 1\), got -0.1"),
        ({"nesterov": True}, "nesterov=True needs a momentum"),
        ({"clip_after_momentum": True}, "clip_after_momentum=True needs a momentum"),
    ],
)
def test_bad_numbers_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        clipjax.clipped_sgd(**({"learning_rate": 0.1, "clip_level": 1.0} | change))


@pytest.mark.parametrize("level", [None, 1.0])
def test_integer_parameters_are_refused(level):
    tx = clipjax.clipped_sgd(0.1, level)
    with pytest.raises(ValueError, match=r"\['n'\] has dtype int32"):
        tx.init({"w": jnp.ones(2), "n": jnp.array(3)})


def test_whole_numbers_are_levels_and_rates_too():
    """The peers ignore an integer level."""
    tx = clipjax.clipped_sgd(1, 2)
    updates, _ = tx.update(jnp.array([30.0, 40.0]), tx.init(jnp.zeros(2)))
    np.testing.assert_allclose(updates, [-1.2, -1.6], rtol=1e-6)


def test_map_pair_of_a_tree_without_leaves():
    assert map_pair(divmod, {"a": ()}, {"a": ()}) == ({"a": ()}, {"a": ()})
