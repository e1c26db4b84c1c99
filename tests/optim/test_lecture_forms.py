"""The lecture's AdaGrad, RMSProp, Adam and AdamW are Optax's with the arguments given here.

Nothing of them is written again in the library: docs/api.md says which arguments, and where
Optax's defaults differ.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clipjax.problems import Rosenbrock

RATE, EPS = 0.1, 1e-6


def adagrad(x, g, k, m, v):
    v = v + g**2
    return x - RATE * g / np.sqrt(v + EPS), m, v


def rmsprop(x, g, k, m, v):
    v = 0.8 * v + 0.2 * g**2
    return x - RATE * g / np.sqrt(v + EPS), m, v


def adam(x, g, k, m, v, decay=0.0):
    m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
    m_hat, v_hat = m / (1 - 0.8**k), v / (1 - 0.9**k)
    return x - RATE * (m_hat / (np.sqrt(v_hat) + EPS) + decay * x), m, v


def adamw(x, g, k, m, v):
    return adam(x, g, k, m, v, decay=0.3)


FORMS = {
    "adagrad": (adagrad, optax.adagrad(RATE, initial_accumulator_value=0.0, eps=EPS)),
    "rmsprop": (rmsprop, optax.rmsprop(RATE, decay=0.8, eps=EPS)),
    "adam": (adam, optax.adam(RATE, b1=0.8, b2=0.9, eps=EPS)),
    "adamw": (adamw, optax.adamw(RATE, b1=0.8, b2=0.9, eps=EPS, weight_decay=0.3)),
}
ELSEWHERE = {
    "adagrad, initial accumulator 0.1": (adagrad, optax.adagrad(RATE, eps=EPS)),
    "rmsprop, epsilon outside": (rmsprop, optax.rmsprop(RATE, 0.8, EPS, eps_in_sqrt=False)),
    "adam, epsilon inside": (adam, optax.adam(RATE, 0.8, 0.9, eps=0.0, eps_root=EPS)),
    "adamw, weight decay 1e-4": (adamw, optax.adamw(RATE, b1=0.8, b2=0.9, eps=EPS)),
}


def distance(form, tx):
    """How far Optax is from the lecture after eight steps, in units of the rate."""
    # The third coordinate is about as small as √ε, where it matters where ε stands.
    grads = np.random.default_rng(0).normal(size=(8, 3)) * [1.0, 0.1, 1e-3]
    expected = np.array([1.0, -2.0, 3.0])
    with jax.enable_x64(True):
        x = jnp.asarray(expected)
        state, m, v = tx.init(x), np.zeros(3), np.zeros(3)
        for k, g in enumerate(grads, 1):
            updates, state = tx.update(jnp.asarray(g), state, x)
            x = optax.apply_updates(x, updates)
            expected, m, v = form(expected, g, k, m, v)
        last = np.asarray(x)
    return np.max(np.abs(last - expected)) / RATE


@pytest.mark.parametrize("name", FORMS)
def test_optax_takes_the_steps_of_the_lecture(name):
    assert distance(*FORMS[name]) < 1e-11


@pytest.mark.parametrize("name", ELSEWHERE)
def test_other_arguments_give_other_steps(name):
    assert distance(*ELSEWHERE[name]) > 1e-2


def scan(tx, x, gradient, steps, project=lambda x: x):
    """Return the last point."""

    def step(carry, k):
        x, state = carry
        updates, state = tx.update(gradient(x, k), state, x)
        return (project(optax.apply_updates(x, updates)), state), None

    run = jax.jit(lambda x: jax.lax.scan(step, (x, tx.init(x)), jnp.arange(steps))[0][0])
    return run(x)


ROSENBROCK = {
    "adam": (optax.adam(0.003), 0.21911),
    "adamw": (optax.adamw(0.003), 0.21864),
    "rmsprop": (optax.rmsprop(0.003), 0.0173),
    "adagrad": (optax.adagrad(0.003), 660.39),
}


@pytest.mark.parametrize("name", ROSENBROCK)
def test_rosenbrock_as_in_the_lecture(name):
    """From (0.1, 3), 2000 steps of 0.003: finals of an independent computation in NumPy.

    RMSProp ends in a small cycle around the minimum; where on it depends on rounding.
    """
    tx, final = ROSENBROCK[name]
    loss = Rosenbrock().value
    with jax.enable_x64(True):
        x = scan(tx, jnp.array([0.1, 3.0]), lambda x, k: jax.grad(loss)(x), 2000)
        assert float(loss(x)) == pytest.approx(final, rel=1e-2 if name == "rmsprop" else 5e-3)


def test_adam_does_not_converge_on_a_simple_convex_problem():
    """f_t = 3x in every third step, −x in the others, on [−1, 1]: the minimum is at −1.

    With β₁ = 0 and β₂ = 1/(1 + C²) Adam ends at the other side, AMSGrad near the minimum (Reddi,
    Kale, Kumar 2018).
    """
    numbers = {"b1": 0.0, "b2": 1 / 10, "eps": 1e-8}

    def rate(k):
        return 0.1 / jnp.sqrt(k + 1.0)

    def final(tx):
        return scan(
            tx,
            jnp.zeros(()),
            lambda x, k: jnp.where(k % 3 == 0, 3.0, -1.0),
            3000,
            lambda x: jnp.clip(x, -1, 1),
        )

    assert final(optax.adam(rate, **numbers)) > 0.99
    assert final(optax.amsgrad(rate, **numbers)) < -0.95
