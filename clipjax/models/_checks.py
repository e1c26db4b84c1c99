"""The check that the models' attributes share."""

import difflib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp


def check_choice(name: str, value: str | None, choices: Sequence[str | None]) -> None:
    """Raise ValueError, with the nearest choice, unless `value` is one of `choices`.

    Examples:
        >>> check_choice("stem", "smal", ("imagenet", "small"))
        Traceback (most recent call last):
        ValueError: stem must be one of ('imagenet', 'small'), got 'smal'; did you mean 'small'?
    """
    if (value is None or isinstance(value, str)) and value in choices:
        return
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{name} must be one of {tuple(choices)}, got {value!r}{hint}")


LARGEST = 2**20
"""Channels or layers; more is a mistake, and takes minutes to fail."""


def check_count(name: str, value: int, minimum: int = 1) -> None:
    """Raise ValueError unless `value` is a whole number from `minimum` to 2^20.

    Examples:
        >>> check_count("width", 0)
        Traceback (most recent call last):
        ValueError: width must be a whole number from 1 to 1048576, got 0
    """
    if not isinstance(value, int) or not minimum <= value <= LARGEST:
        shown = "a larger one" if isinstance(value, int) and value > LARGEST else repr(value)
        raise ValueError(f"{name} must be a whole number from {minimum} to {LARGEST}, got {shown}")


def check_counts(name: str, values: Sequence[int]) -> None:
    """Raise ValueError unless `values` is a list or tuple of whole numbers from 0 to 2^20."""
    if not isinstance(values, list | tuple):
        raise ValueError(f"{name} must be a tuple of whole numbers, got {values!r}")
    for value in values:
        check_count(name, value, 0)


def check_share(name: str, value: float) -> None:
    """Raise ValueError unless `value` is a number in [0, 1]."""
    if not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value!r}")


def check_dtype(name: str, value: Any) -> None:
    """Raise ValueError unless `value` names a dtype of floating-point numbers."""
    try:
        good = value is None or jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except (TypeError, ValueError):  # no dtype at all
        good = False
    if not good:
        raise ValueError(f"{name} must be a floating-point dtype such as float32, got {value!r}")
