"""Small inputs and the loops that the tests of this room share."""

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
