"""Small inputs and the loops that the tests of this room share."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

import clipjax


def tree(seed: int = 0, dtype=jnp.float32, scale: float = 1.0) -> dict[str, jax.Array]:
    """Parameters or a gradient: a matrix, a vector and a scalar."""
    rng = np.random.default_rng(seed)
    shapes = {"matrix": (3, 2), "vector": (4,), "scalar": ()}
    return {n: jnp.asarray(scale * rng.normal(size=s), dtype) for n, s in shapes.items()}


def gradients(count: int, dtype=jnp.float32, heavy: bool = True) -> list[dict[str, jax.Array]]:
    """Gradients with Student-t(1.5) entries (infinite variance), so that clipping has work."""
    rng = np.random.default_rng(7)
    shapes = {"matrix": (3, 2), "vector": (4,), "scalar": ()}
    draw = (lambda s: rng.standard_t(1.5, s)) if heavy else (lambda s: rng.normal(size=s))
    return [{n: jnp.asarray(draw(s), dtype) for n, s in shapes.items()} for _ in range(count)]


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def run(tx, params, grads, evaluate: bool = False):
    """Feed `grads` open-loop; return the states, and all parameters (and evaluation points)."""

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        point = clipjax.eval_params(state, params) if evaluate else params
        return (params, state), (params, point)

    start = (params, tx.init(params))
    (_, state), (xs, points) = jax.jit(lambda c, g: jax.lax.scan(step, c, g))(start, stack(grads))
    return state, xs, points


def assert_rows_close(actual, expected, **tolerance):
    """Compare a stacked trajectory with a list of trees."""
    for name, leaf in actual.items():
        rows = np.stack([row[name] for row in expected])
        np.testing.assert_allclose(np.asarray(leaf, np.float64), rows, err_msg=name, **tolerance)


@partial(jax.jit, static_argnums=0)
def scan(tx, state, grads):
    """Return the last state, and the updates and states of all steps."""

    def step(state, g):
        updates, state = tx.update(g, state)
        return state, (updates, state)

    return jax.lax.scan(step, state, grads)


def feed(tx, grads):
    """Return the updates and states of all steps, stacked, and the last state."""
    if isinstance(grads, list):
        grads = jax.tree.map(lambda *leaves: np.stack(leaves), *grads)
    last, (updates, states) = scan(tx, tx.init(jax.tree.map(lambda g: g[0], grads)), grads)
    return updates, states, last


def sizes(*numbers, dtype=jnp.float32):
    """Gradients of one tensor with these norms."""
    return [np.array([number], dtype) for number in numbers]


def check_updates(updates, expected, rtol=1e-12):
    """Compare stacked updates with a list of trees."""
    for name, leaf in updates.items():
        np.testing.assert_allclose(leaf, np.stack([g[name] for g in expected]), rtol=rtol)
