"""Every method in every replica: the one compiled program of the experiment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clipjax import problems
from experiments.setup.evaluation import evaluation_point


@dataclass(frozen=True)
class Method:
    """A transformation to study.

    Args:
        label: its name in tables and figures.
        make: from a replica's key to the transformation, called inside `vmap`; its `update` is
            given gradient, state and parameters.
        description: its parameters in words.
        evaluation: (opt_state, params) -> the point where the method is evaluated.
    """

    label: str
    make: Callable[[jax.Array], Any]
    description: str = ""
    evaluation: Callable[[Any, Any], Any] = evaluation_point


def record_times(steps: int, records: int, spacing: str = "geometric") -> np.ndarray:
    """Return increasing step counts from 0 to `steps`, at most `records` + 1.

    Examples:
        >>> record_times(1000, 7).tolist()
        [0, 1, 3, 10, 32, 100, 316, 1000]
        >>> record_times(1000, 4, "linear").tolist()
        [0, 250, 500, 750, 1000]
    """
    if spacing == "linear":
        return np.unique(np.rint(np.linspace(0, steps, records + 1)).astype(int))
    geometric = np.rint(np.geomspace(1, steps, records)).astype(int)
    return np.unique(np.concatenate([[0], geometric, [steps]]))


def replica(
    oracle: problems.Oracle,
    methods: Mapping[str, Method],
    start: jax.Array,
    times: Sequence[int] | np.ndarray | jax.Array,
    key: jax.Array,
) -> dict[str, jax.Array]:
    """Run every method in one replica, a pure function of its key; for `simulate`.

    All methods see the same draws: draw k comes from fold_in(key, k), so that it depends neither on
    the method nor on which other replicas run.

    Returns:
        For each method f(x) - f* at its evaluation point, shape (len(times),), dtype of `start`. A
        gap that is not finite is +inf.
    """
    counts = jnp.diff(jnp.asarray(times), prepend=0)
    # Base key and step keys come from different branches, so no draw meets a method's own.
    draws, private = jax.random.split(key)
    transforms = {name: method.make(private) for name, method in methods.items()}

    def gap(name: str, state: tuple[jax.Array, Any]) -> jax.Array:
        params, opt_state = state
        point = methods[name].evaluation(opt_state, params)
        gap = oracle.problem.value(jnp.asarray(point)) - oracle.problem.minimum
        return jnp.where(jnp.isfinite(gap), gap, jnp.inf)

    def step(k: jax.Array, states: dict[str, Any]) -> dict[str, Any]:
        draw = oracle.sample(jax.random.fold_in(draws, k), start.dtype)
        new = {}
        for name, (params, opt_state) in states.items():
            gradient = oracle.gradient(params, draw)
            updates, opt_state = transforms[name].update(gradient, opt_state, params)
            new[name] = optax.apply_updates(params, updates), opt_state
        return new

    def until_next_record(carry, count):
        done, states = carry
        states = jax.lax.fori_loop(done, done + count, step, states)
        return (done + count, states), {name: gap(name, s) for name, s in states.items()}

    first = {name: (start, transform.init(start)) for name, transform in transforms.items()}
    _, gaps = jax.lax.scan(until_next_record, (0, first), counts)
    return gaps


def simulate(
    oracle: problems.Oracle,
    methods: Mapping[str, Method],
    start: jax.Array,
    times: Sequence[int] | np.ndarray | jax.Array,
    keys: jax.Array,
) -> dict[str, jax.Array]:
    """Run every method in every replica; traceable, to be called under `jit`.

    Args:
        oracle: the stochastic gradients.
        methods: the transformations, by name.
        start: the first point, shape (n,); its dtype is that of the computation.
        times: numbers of gradients after which the gap is recorded, none smaller than the one
            before; they may be traced, so that one compiled program serves shorter runs too.
        keys: one key per replica, shape (replicas,).

    Returns:
        For each method f(x) - f* at its evaluation point, shape (replicas, len(times)), dtype of
        `start`. A gap that is not finite is +inf.
    """
    return jax.vmap(lambda key: replica(oracle, methods, start, times, key))(keys)


def replica_keys(seed: int, replicas: int, first: int = 0) -> jax.Array:
    """Return keys of replicas first, first + 1, ...: replica i has fold_in(key(seed), i)."""
    numbers = first + jnp.arange(replicas)
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), numbers)
