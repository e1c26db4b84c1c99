"""What constructors and `init` refuse, in one place, so that every message reads alike.

Only concrete numbers are judged. A traced number (a learning rate inside a jitted training step, a
level under `jax.vmap`) has no value yet and passes.
"""

import difflib
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def is_concrete(value: Any) -> bool:
    """Return whether `value` is a number whose value is known now, not a schedule or a tracer."""
    return not (value is None or callable(value) or isinstance(value, Tracer))


def _numbers(name: str, value: Any) -> np.ndarray:
    numbers = np.asarray(value)
    if not jnp.issubdtype(numbers.dtype, jnp.number):
        raise ValueError(f"{name} must be a number or a schedule, got {value!r}.")
    return numbers


def check_positive(name: str, value: Any, *, finite: bool = False) -> None:
    """Raise ValueError unless every concrete entry of `value` is positive (and finite if asked).

    Examples:
        >>> check_positive("max_norm", 1.0)
        >>> check_positive("max_norm", -1.0)
        Traceback (most recent call last):
            ...
        ValueError: max_norm must be positive, got -1.0.
    """
    if value is None:
        raise ValueError(f"{name} must be positive, got None.")
    if not is_concrete(value):
        return
    numbers = _numbers(name, value)
    if not np.all(numbers > 0):
        raise ValueError(f"{name} must be positive, got {value}.")
    if finite and not np.all(np.isfinite(numbers)):
        raise ValueError(f"{name} must be finite, got {value}.")


def check_interval(
    name: str,
    value: Any,
    low: float,
    high: float,
    *,
    closed_low: bool = True,
    closed_high: bool = True,
    required: bool = False,
) -> None:
    """Raise ValueError unless every concrete entry of `value` lies between `low` and `high`.

    None passes unless `required`.

    Examples:
        >>> check_interval("momentum", 1.0, 0, 1, closed_high=False)
        Traceback (most recent call last):
            ...
        ValueError: momentum must lie in [0, 1), got 1.0.
    """
    left, right = "[" if closed_low else "(", "]" if closed_high else ")"
    if value is None and required:
        raise ValueError(f"{name} must lie in {left}{low}, {high}{right}, got None.")
    if not is_concrete(value):
        return
    numbers = _numbers(name, value)
    above = numbers >= low if closed_low else numbers > low
    below = numbers <= high if closed_high else numbers < high
    if not np.all(above & below):
        raise ValueError(f"{name} must lie in {left}{low}, {high}{right}, got {value}.")


def check_count(name: str, value: Any, minimum: int = 0, *, required: bool = False) -> None:
    """Raise ValueError unless a concrete `value` is a whole number, at least `minimum`.

    None and schedules pass unless `required`.

    Examples:
        >>> check_count("window", 0, minimum=1)
        Traceback (most recent call last):
            ...
        ValueError: window must be a whole number >= 1, got 0.
    """
    if required and (value is None or callable(value)):
        raise ValueError(f"{name} must be a whole number >= {minimum}, got {value}.")
    if not is_concrete(value):
        return
    number = np.asarray(value)
    if not (np.issubdtype(number.dtype, np.integer) and np.all(number >= minimum)):
        raise ValueError(f"{name} must be a whole number >= {minimum}, got {value}.")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise ValueError, with the nearest name, unless `value` is one of `choices`.

    Examples:
        >>> check_choice("clip", "global_nrom", ["global_norm", "value"])
        Traceback (most recent call last):
            ...
        ValueError: clip must be one of 'global_norm', 'value', got 'global_nrom'. \
Did you mean 'global_norm'?
    """
    choices = list(choices)
    if isinstance(value, str) and value in choices:
        return
    nearest = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.{hint}")


def check_floating(params: Any) -> None:
    """Raise ValueError, naming the leaf, if `params` holds anything but real floating-point arrays.

    Examples:
        >>> check_floating({"w": jnp.zeros(3), "steps": jnp.zeros(2, jnp.int32)})
        Traceback (most recent call last):
            ...
        ValueError: Parameters must be real floating-point arrays, but ['steps'] has dtype int32. \
Leave it out with optax.masked or cast it.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        dtype = jnp.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            where = jax.tree_util.keystr(path) or "the only leaf"
            raise ValueError(
                f"Parameters must be real floating-point arrays, but {where} has dtype {dtype}. "
                "Leave it out with optax.masked or cast it."
            )


def require_params(name: str, params: Any) -> Any:
    """Return `params`; raise ValueError if `update` of `name` was called without them."""
    if params is None:
        raise ValueError(
            f"{name} reads the current parameters: call tx.update(grads, state, params)."
        )
    return params
