"""Clip-Adam, Clip-AdaGrad and ACClip: each against the rule written out, and against Optax's."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax.optim.methods.clipped_adaptive import running_moment
from tests.optim import reference
from tests.optim.problems import assert_rows_close, gradients, run, tree


def moments(
    x0, grads, rate, level, kind, *, b1, b2, eps, eps_root, initial, norm, delayed, correct
):
    """x^1, x^2, ... of Adam (b1, b2 given) or AdaGrad (both None) on clipped gradients."""
    x = reference.double(x0)
    m = {n: np.zeros_like(leaf) for n, leaf in x.items()}
    v = {n: np.full_like(leaf, initial) for n, leaf in x.items()}
    xs = []
    for t, g in enumerate(grads, start=1):
        g = reference.clip(kind, g, level)
        squares = {n: g[n] ** 2 for n in g}
        if norm:
            total = reference.global_norm(g) ** 2
            squares = {n: np.full_like(g[n], total) for n in g}
        old = v
        if b2 is None:
            v = {n: v[n] + squares[n] for n in v}
            m = g
        else:
            v = {n: b2 * v[n] + (1 - b2) * squares[n] for n in v}
            m = {n: b1 * m[n] + (1 - b1) * g[n] for n in m}
        b_squared = old if delayed else v
        scale = (1 - b1**t, 1 - b2**t) if correct else (1, 1)
        x = {
            n: x[n] - rate * (m[n] / scale[0]) / (np.sqrt(b_squared[n] / scale[1] + eps_root) + eps)
            for n in x
        }
        xs.append(x)
    return xs


@pytest.mark.parametrize("moment", ["coordinate", "norm"])
@pytest.mark.parametrize(
    ("delayed", "correct", "initial"), [(False, True, 0.0), (False, False, 0.2), (True, False, 0.2)]
)
def test_adam_written_out(moment, delayed, correct, initial):
    numbers = {"b1": 0.8, "b2": 0.95, "eps": 1e-3, "eps_root": 1e-4}
    with jax.enable_x64(True):
        start, grads = tree(dtype=jnp.float64), gradients(12, jnp.float64)
        tx = clipjax.clipped_adam(
            0.1,
            2.0,
            **numbers,
            clip="tensor_norm",
            moment=moment,
            delayed=delayed,
            bias_correction=correct,
            initial_accumulator_value=initial,
        )
        _, xs, _ = run(tx, start, grads)
        expected = moments(
            start,
            grads,
            0.1,
            2.0,
            "tensor_norm",
            **numbers,
            initial=initial,
            norm=moment == "norm",
            delayed=delayed,
            correct=correct,
        )
        assert_rows_close(xs, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("moment", ["coordinate", "norm"])
@pytest.mark.parametrize("delayed", [False, True])
def test_adagrad_written_out(moment, delayed):
    with jax.enable_x64(True):
        start, grads = tree(dtype=jnp.float64), gradients(12, jnp.float64)
        tx = clipjax.clipped_adagrad(
            0.3, 1.5, 0.2, 1e-3, clip="value", moment=moment, delayed=delayed
        )
        _, xs, _ = run(tx, start, grads)
        expected = moments(
            start,
            grads,
            0.3,
            1.5,
            "value",
            b1=None,
            b2=None,
            eps=0,
            eps_root=1e-3,
            initial=0.2,
            norm=moment == "norm",
            delayed=delayed,
            correct=False,
        )
        assert_rows_close(xs, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("level", [None, 1.0])
def test_adam_and_adagrad_are_those_of_optax_behind_a_clipping(level, nesterov):
    clip = optax.identity() if level is None else clipjax.clip_by_global_norm(level)
    rate = optax.exponential_decay(0.1, 3, 0.7)
    pairs = [
        (
            clipjax.clipped_adam(rate, level, 0.8, 0.9, 1e-6, 1e-5, nesterov=nesterov),
            optax.adam(rate, 0.8, 0.9, 1e-6, 1e-5, nesterov=nesterov),
        ),
        (clipjax.clipped_adam(rate, level), optax.adam(rate)),
        (clipjax.clipped_adagrad(rate, level), optax.adagrad(rate)),
    ]
    with jax.enable_x64(True):
        start, grads = tree(dtype=jnp.float64), gradients(10, jnp.float64)
        for ours, theirs in pairs:
            _, xs, _ = run(ours, start, grads)
            _, expected, _ = run(optax.chain(clip, theirs), start, grads)
            chex.assert_trees_all_close(xs, expected, rtol=1e-12, atol=1e-15)


def test_mu_dtype_is_that_of_the_first_moment_only():
    tx = clipjax.clipped_adam(0.1, 1.0, mu_dtype=jnp.bfloat16)
    state, xs, _ = run(tx, tree(), gradients(5))
    assert {leaf.dtype for leaf in jax.tree.leaves(state[1].first)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(state[1].second)} == {jnp.dtype(jnp.float32)}
    # Rounded to 8 bits in each of 5 steps: 5 · 2^-9 of a step of about 0.1.
    _, expected, _ = run(
        optax.chain(clipjax.clip_by_global_norm(1.0), optax.adam(0.1)), tree(), gradients(5)
    )
    chex.assert_trees_all_close(xs, expected, atol=5e-3)


def test_the_moments_never_see_a_spike():
    """Behind a clipping to 1 a gradient of 1e30 counts as 1; its square would be infinite."""
    grads = [jnp.array([0.5]), jnp.array([1e30]), jnp.array([0.5])]
    tx = clipjax.clipped_adam(0.1, 1.0, b2=0.5)
    x = jnp.zeros(1)
    state = tx.init(x)
    for g in grads:
        _, state = tx.update(g, state, x)
    # b²: 0.125, then 0.0625 + 0.5, then 0.28125 + 0.125.
    np.testing.assert_allclose(state[1].second, [0.40625], rtol=1e-6)


def test_delayed_the_first_step_is_divided_by_the_initial_value():
    tx = clipjax.clipped_adagrad(1.0, None, 4.0, 0.0, moment="norm", delayed=True)
    x = jnp.zeros(2)
    state = tx.init(x)
    steps = []
    for _ in range(2):  # b² = 4, then 4 + 25
        updates, state = tx.update(jnp.array([3.0, 4.0]), state, x)
        steps.append(-updates)
    np.testing.assert_allclose(steps, np.array([[1.5, 2.0], [3, 4] / np.sqrt(29)]), rtol=1e-6)


def acclip(x0, grads, rate, b1, b2, eps, alpha, normalize):
    """x^1, x^2, ... of ACClip, as in the authors' code."""
    x = reference.double(x0)
    m, power, v = ({n: np.zeros_like(leaf) for n, leaf in x.items()} for _ in range(3))
    xs = []
    for g in map(reference.double, grads):
        m = {n: b1 * m[n] + (1 - b1) * g[n] for n in x}
        power = {n: b2 * power[n] + (1 - b2) * np.abs(g[n]) ** alpha for n in x}
        v = {n: b2 * v[n] + (1 - b2) * g[n] ** 2 for n in x}
        factor = {n: np.clip(power[n] ** (1 / alpha) / (np.abs(m[n]) + eps), 0, 1) for n in x}
        if normalize:
            factor = {n: factor[n] / (np.sqrt(b2 * v[n]) + eps) for n in x}
        x = {n: x[n] - rate * factor[n] * m[n] for n in x}
        xs.append(x)
    return xs


@pytest.mark.parametrize("alpha", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("normalize", [False, True])
def test_acclip_written_out(alpha, normalize):
    with jax.enable_x64(True):
        start, grads = tree(dtype=jnp.float64), gradients(30, jnp.float64)
        tx = clipjax.acclip(0.1, 0.9, 0.99, 1e-5, alpha=alpha, normalize=normalize)
        _, xs, _ = run(tx, start, grads)
        expected = acclip(start, grads, 0.1, 0.9, 0.99, 1e-5, alpha, normalize)
        assert_rows_close(xs, expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_powers_of_acclip_neither_overflow_nor_vanish(size):
    g = jnp.array([3.0, -4.0], jnp.float32)
    tx, x = clipjax.acclip(1.0, eps=0.0, alpha=2.0), jnp.zeros(2)
    expected, _ = tx.update(g, tx.init(x), x)
    updates, state = tx.update(g * size, tx.init(x), x)
    np.testing.assert_allclose(updates / size, expected, rtol=1e-5)
    np.testing.assert_allclose(state[0].threshold / size, 0.1 * jnp.abs(g), rtol=1e-5)


def test_running_moment_of_zeros_is_zero_and_so_is_its_gradient():
    zero = jnp.zeros(2)
    np.testing.assert_array_equal(running_moment(zero, zero, 0.9, 1.5), zero)
    slope = jax.grad(lambda t: jnp.sum(running_moment(t, zero, 0.9, 1.5)))(zero)
    assert np.all(np.isfinite(slope))


MAKERS = {
    "adam": lambda **kw: clipjax.clipped_adam(0.1, 1.0, **kw),
    "adagrad": lambda **kw: clipjax.clipped_adagrad(0.1, 1.0, **kw),
    "acclip": lambda **kw: clipjax.acclip(0.1, **kw),
}


@pytest.mark.parametrize("name", MAKERS)
def test_zeros_stay_zero_even_without_eps(name):
    options = {"adagrad": {"initial_accumulator_value": 0.0}}.get(name, {})
    tx, x = MAKERS[name](eps=0.0, **options), jnp.zeros(3)
    updates, _ = tx.update(x, tx.init(x), x)
    np.testing.assert_array_equal(updates, jnp.zeros(3))


@pytest.mark.parametrize("name", MAKERS)
def test_apply_if_finite_keeps_the_moments_clean(name):
    tx, x, g = optax.apply_if_finite(MAKERS[name](), 3), jnp.zeros(2), jnp.array([1.0, 2.0])
    _, state = tx.update(g, tx.init(x), x)
    _, after = tx.update(g.at[0].set(jnp.nan), state, x)
    chex.assert_trees_all_equal(after.inner_state, state.inner_state)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("adam", {"b1": 1.0}, r"b1 must lie in \[0, 1\), got 1.0"),
        ("adam", {"b2": -0.1}, r"b2 must lie in \[0, 1\), got -0.1"),
        ("adam", {"eps": -1e-8}, "eps must lie in"),
        ("adam", {"eps_root": -1e-8}, "eps_root must lie in"),
        ("adam", {"clip": "norm"}, "clip must be one of 'global_norm'"),
        ("adam", {"moment": "norms"}, "Did you mean 'norm'"),
        ("adam", {"delayed": True}, "initial_accumulator_value of a delayed form must be positive"),
        (
            "adam",
            {"delayed": True, "initial_accumulator_value": 1.0},
            "got delayed=True, initial_accumulator_value=1.0. Set bias_correction=False",
        ),
        ("adam", {"initial_accumulator_value": 0.1}, "Set bias_correction=False"),
        ("adagrad", {"initial_accumulator_value": -1.0}, "initial_accumulator_value must lie in"),
        (
            "adagrad",
            {"delayed": True, "initial_accumulator_value": 0.0},
            "initial_accumulator_value of a delayed form must be positive, got 0.0",
        ),
        ("adagrad", {"moment": "coordinates"}, "Did you mean 'coordinate'"),
        ("acclip", {"alpha": 2.5}, r"alpha must lie in \[1, 2\], got 2.5"),
        ("acclip", {"b2": 1.0}, r"b2 must lie in \[0, 1\), got 1.0"),
        ("acclip", {"eps": -1.0}, "eps must lie in"),
    ],
)
def test_bad_numbers_are_refused(name, change, message):
    with pytest.raises(ValueError, match=message):
        MAKERS[name](**change)


@pytest.mark.parametrize("make", [clipjax.clipped_adam, clipjax.clipped_adagrad])
def test_rates_and_levels_are_checked(make):
    for rate, level in itertools.product((-0.1, 0.0, np.inf, 0.1), (-1.0, 0.0, 1.0)):
        if (rate, level) != (0.1, 1.0):
            with pytest.raises(ValueError, match=r"must be (positive|finite)"):
                make(rate, level)
    with pytest.raises(ValueError, match="learning_rate must be positive"):
        clipjax.acclip(0.0)


@pytest.mark.parametrize("name", MAKERS)
def test_integer_parameters_are_refused(name):
    with pytest.raises(ValueError, match=r"\['n'\] has dtype int32"):
        MAKERS[name]().init({"n": jnp.zeros(2, jnp.int32)})
