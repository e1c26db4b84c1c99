"""What the laboratory refuses before it computes: wrong numbers, sizes, methods."""

import sys
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from clipjax import problems
from experiments.high_probability.simulate import Method
from experiments.setup import memory

MIB = 2**20
LARGEST = sys.float_info.max


def check_count(name: str, value: int, most: int = 2**31 - 1) -> None:
    """Raise ValueError unless a number lies between 1 and the most it may be."""
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be at least 1")
    if value > most:
        raise ValueError(f"{name} is {value}; it must be at most {most:,}")


def check_seed(seed: int) -> None:
    """Raise ValueError for a seed beyond int64, of which JAX makes no key."""
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed is {seed}; it must lie between -2^63 and 2^63 - 1")


def check_finite(name: str, value: float) -> None:
    """Raise ValueError unless a number is finite and float64 can hold it."""
    if not abs(value) <= LARGEST:
        raise ValueError(f"{name} is {value}; it must be finite")


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless a number is positive and finite."""
    if not 0 < value <= LARGEST:
        raise ValueError(f"{name} is {value}; it must be positive and finite")


def check_given(name: str, values: tuple[Any, ...]) -> None:
    """Raise ValueError if a flag that takes several values was given none."""
    if not values:
        raise ValueError(f"{name} is empty; give at least one value, or leave the flag out")


def check_dimension(config: Any, dimension: int) -> None:
    """Raise ValueError if one replica cannot fit, before anything of that size is made.

    A draw, the point and for each method gradient, updates and new parameters are the least.
    """
    arrays = 2 + 4 * len(config.methods)
    needed = arrays * dimension * jnp.dtype(config.precision).itemsize
    if needed > config.memory * MIB:
        raise ValueError(
            f"memory is {config.memory:g} MiB, but one replica of {dimension:,} coordinates needs "
            f"at least {needed / MIB:.3g} MiB ({arrays} arrays); raise memory, or take fewer "
            "coordinates or methods"
        )


def check_results(config: Any, records: int) -> None:
    """Raise ValueError if what the experiment measures is larger than the machine's memory."""
    each = config.replicas * records * jnp.dtype(config.precision).itemsize
    memory.check_fits(
        each * len(config.methods),
        f"the gaps of {config.replicas:,} replicas at {records:,} times for "
        f"{len(config.methods)} methods",
        "take fewer replicas or records",
    )


def dry_run(oracle: problems.Oracle, methods: Mapping[str, Method], start: jax.Array) -> None:
    """Raise ValueError for a noise or a method that does not fit the problem.

    One step of each is traced, which computes nothing.
    """
    key = jax.random.key(0)
    try:
        gradient = jax.eval_shape(
            lambda k: oracle.gradient(start, oracle.sample(k, start.dtype)), key
        )
    except Exception as error:  # the noise and the problem are somebody's, and may raise anything
        raise ValueError(f"the noise of {oracle!r:.200} cannot be drawn: {error}") from error
    _check_like("the stochastic gradient", gradient, start)
    for name, method in methods.items():
        try:
            before, after, updates, point = jax.eval_shape(
                lambda k, method=method: _step(method, k, start), key
            )
        except Exception as error:  # a method may come from anywhere, and raise anything
            raise ValueError(f"method {name!r} cannot make a step: {error}") from error
        _check_like(f"the update of method {name!r}", updates, start)
        _check_like(f"the evaluation point of method {name!r}", point, start)
        if jax.tree.map(_like, before) != jax.tree.map(_like, after):
            raise ValueError(f"method {name!r} changes the shapes or dtypes of its state in a step")


def _step(method: Method, key: jax.Array, start: jax.Array) -> tuple[Any, Any, Any, Any]:
    transform = method.make(key)
    state = transform.init(start)
    updates, after = transform.update(start, state, start)
    params = optax.apply_updates(start, updates)
    return state, after, updates, method.evaluation(after, params)


def _like(leaf: Any) -> tuple[Any, Any]:
    return leaf.shape, leaf.dtype


def _check_like(what: str, found: Any, start: jax.Array) -> None:
    if getattr(found, "shape", None) != start.shape:
        raise ValueError(f"{what} is {found}; expected the shape of the point, {start.shape}")
