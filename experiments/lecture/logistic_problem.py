"""The lecture's logistic regression: 200 examples, 10 columns, and how SGD is run on it.

f(x) = μ/2 |x|² + 1/m Σ ln(1 + exp(−b_i a_iᵀx)), from scikit-learn's make_classification with
random_state 0. Labels are ±1: with the labels 0 and 1 of the lecture's notebook half of the
examples would have a constant loss.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import make_classification

from clipjax.problems import LogisticRegression
from experiments.setup.evaluation import evaluation_point

EXAMPLES, COLUMNS = 200, 10


def make_problem(ridge: float) -> LogisticRegression:
    """Return the problem with μ = ridge."""
    features, classes = make_classification(EXAMPLES, COLUMNS, n_informative=5, random_state=0)
    return LogisticRegression(features, np.where(classes == 1, 1, -1), ridge)


def start_point() -> jax.Array:
    """Return x_0, a draw from the normal law: the same in float32 and in float64."""
    drawn = jax.random.normal(jax.random.key(0), (COLUMNS,), jnp.float32)
    return drawn.astype(float)


class Recorded(NamedTuple):
    """What is kept of every step: the gap where the method is evaluated, and the largest moment.

    Attributes:
        gap: f − f*, (steps + 1,).
        moment: 1/m Σ |∇f_i(x)|² at the iterate, (steps + 1,).
    """

    gap: jax.Array
    moment: jax.Array


def draw(key: jax.Array, batch_size: int) -> jax.Array:
    """Return the examples of a batch, drawn without replacement."""
    if batch_size == 1:
        return jax.random.randint(key, (1,), 0, EXAMPLES)
    if batch_size == EXAMPLES:
        return jnp.arange(EXAMPLES)
    return jax.random.choice(key, EXAMPLES, (batch_size,), replace=False)


def second_moment(problem: LogisticRegression, x: jax.Array) -> jax.Array:
    """Return the mean of |∇f_i(x)|² over the examples."""
    rows = jnp.asarray(problem.features) * jnp.asarray(problem.labels)[:, None]
    gradients = -jax.nn.sigmoid(-rows @ x)[:, None] * rows + problem.ridge * x
    return jnp.mean(jnp.sum(gradients**2, axis=1))


def run_sgd(
    problem: LogisticRegression,
    transformation: Any,
    keys: jax.Array,
    *,
    batch_size: int,
    steps: int,
    at: np.ndarray,
) -> Recorded:
    """Return gaps and second moments of runs of a method, at chosen steps.

    Args:
        problem: f.
        transformation: of Optax; one that keeps an average is evaluated there.
        keys: of the batches, one for each run.
        batch_size: examples of a step.
        steps: of each run.
        at: steps to keep, from 0 on, rising.

    Returns:
        Arrays (runs, len(at)).
    """
    start, minimum = start_point(), problem.minimum
    gradient = jax.grad(problem.value_on)

    def row(x: Any, state: Any) -> Recorded:
        return Recorded(
            problem.value(evaluation_point(state, x)) - minimum, second_moment(problem, x)
        )

    def one(key: jax.Array) -> Recorded:
        def step(carry: Any, k: jax.Array) -> Any:
            x, state = carry
            examples = draw(jax.random.fold_in(key, k), batch_size)
            updates, state = transformation.update(gradient(x, examples), state, x)
            x = optax.apply_updates(x, updates)
            return (x, state), row(x, state)

        state = transformation.init(start)
        path = jax.lax.scan(step, (start, state), jnp.arange(steps))[1]
        first = row(start, state)
        whole = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b]), first, path)
        return jax.tree.map(lambda values: values[at], whole)

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys))


def log_spaced(steps: int, per_decade: int) -> np.ndarray:
    """Return steps from 1 to the last, evenly spaced in their logarithm, each once."""
    count = int(np.ceil(per_decade * np.log10(steps))) + 1
    return np.unique(np.round(np.geomspace(1, steps, count)).astype(int))


def slope(steps: np.ndarray, values: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Return the slope of ln mean over ln steps, with its 95 % bootstrap interval over runs.

    Args:
        steps: (n,).
        values: (runs, n), positive in the mean.
        seed: of the bootstrap.
    """
    log = np.log(steps)
    draws = np.random.default_rng(seed).integers(0, len(values), (1000, len(values)))
    means = np.concatenate([values.mean(0)[None], values[draws].mean(1)])
    slopes = np.polyfit(log, np.log(means).T, 1)[0]
    low, high = np.quantile(slopes[1:], [0.025, 0.975])
    return float(slopes[0]), float(low), float(high)
