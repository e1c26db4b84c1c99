"""Weight decay beside growing steps: both runs written out, and what is not invariant."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clipjax import theory
from clipjax.analysis import compare_exponential_rates

ETA, DECAY, GAMMA = 0.1, 0.005, 0.9


def rayleigh(w, k):
    """wᵀHw/wᵀw with an H that depends on the step."""
    x = w["a"] @ w["b"]
    h = jnp.diag(jnp.arange(1.0, 4.0) + jnp.cos(k))
    return x @ h @ x / (x @ x)


def start():
    return {
        "a": jax.random.normal(jax.random.key(0), (3, 2)),
        "b": jax.random.normal(jax.random.key(1), (2,)),
    }


def written_out(gamma, steps, level=np.inf):
    """The norm of PyTorch's SGD with weight decay, in NumPy."""
    w = jax.tree.map(np.asarray, start())
    gradient = jax.jit(jax.grad(rayleigh))
    m = jax.tree.map(np.zeros_like, w)
    norms = [np.sqrt(sum((x**2).sum() for x in w.values()))]
    for k in range(steps):
        g = jax.tree.map(np.asarray, gradient(w, k))
        norm = np.sqrt(sum((x**2).sum() for x in g.values()))
        m = {key: gamma * m[key] + g[key] * min(1, level / norm) + DECAY * w[key] for key in w}
        w = {key: w[key] - ETA * m[key] for key in w}
        norms.append(np.sqrt(sum((x**2).sum() for x in w.values())))
    return np.array(norms)


@pytest.mark.parametrize("gamma", [0.0, GAMMA])
@pytest.mark.parametrize("level", [None, 0.2])
def test_directions_are_equal_and_lengths_are_those_of_the_theorem(gamma, level):
    """Directions to 1e-12; |w| by a loop of its own; |w̃| = α^(-k) |w|."""
    with jax.enable_x64(True):
        found = compare_exponential_rates(
            jax.grad(rayleigh),
            start(),
            learning_rate=ETA,
            weight_decay=DECAY,
            momentum=gamma,
            steps=60,
            clip_level=level,
        )
        expected = written_out(gamma, 60, np.inf if level is None else level)
    assert found.deviation.shape == (61,)
    assert found.deviation.max() < 1e-12
    np.testing.assert_allclose(found.decayed_norm, expected, rtol=1e-10)
    alpha = np.roots([1, -(1 + gamma - DECAY * ETA), gamma]).max()
    np.testing.assert_allclose(found.grown_norm, expected * alpha ** -np.arange(61.0), rtol=1e-10)


def test_a_loss_that_is_not_invariant_is_seen():
    """With |w|² added to the loss: the directions part."""
    with jax.enable_x64(True):
        found = compare_exponential_rates(
            jax.grad(lambda w, k: rayleigh(w, k) + 0.1 * jnp.sum(w["b"] ** 2)),
            start(),
            learning_rate=ETA,
            weight_decay=DECAY,
            steps=60,
        )
    assert found.deviation[0] == 0
    assert found.deviation[-1] > 1e-4


def test_momentum_from_zero_is_another_run():
    """The exponential schedule alone does not do it: its momentum must begin with -(1-α)/(ηα) w_0.

    Decayed and grown run, the latter from m_0 = 0, by Optax's own SGD.
    """
    with jax.enable_x64(True):
        decayed = optax.chain(optax.add_decayed_weights(DECAY), optax.sgd(ETA, momentum=GAMMA))
        grown = optax.sgd(theory.exponential_schedule(ETA, DECAY, GAMMA), momentum=GAMMA)
        ends = []
        gradient = jax.jit(jax.grad(rayleigh))
        for tx in (decayed, grown):
            w, state = start(), tx.init(start())
            for k in range(60):
                updates, state = tx.update(gradient(w, k), state, w)
                w = optax.apply_updates(w, updates)
            norm = optax.tree_utils.tree_norm(w)
            ends.append(jax.tree.map(lambda x, norm=norm: x / norm, w))
        apart = float(optax.tree_utils.tree_norm(optax.tree_utils.tree_sub(*ends)))
    assert 1e-6 < apart < 1


def test_float32_stays_float32():
    found = compare_exponential_rates(
        jax.grad(rayleigh), start(), learning_rate=ETA, weight_decay=DECAY, steps=3
    )
    assert found.grown_norm.dtype == np.float32
    chex.assert_tree_all_finite(found)
    assert found.deviation.max() < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gradient": 3}, "gradient must be a function, got 3"),
        ({"params": {"a": jnp.arange(3)}}, "params"),
        ({"gradient": lambda w: w}, "gradient failed with the given params and step"),
        ({"gradient": lambda w, k: w["a"]}, "what gradient returns"),
        ({"steps": 0}, "steps must be a whole number >= 1"),
        ({"clip_level": 0.0}, "clip_level must be positive"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"weight_decay": 1.0, "momentum": 0.9}, "the weights would oscillate"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = dict(
        gradient=jax.grad(rayleigh), params=start(), learning_rate=ETA, weight_decay=DECAY
    )
    with pytest.raises((TypeError, ValueError), match=message):
        compare_exponential_rates(**(arguments | change))
