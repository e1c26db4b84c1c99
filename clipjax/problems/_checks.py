"""What constructors of this package refuse."""

import math
from typing import Any

import numpy as np

LARGEST_COUNT = 2**31 - 1
"""Arrays are indexed by int32, and JAX turns Python's integers into it."""


LARGEST = 1e30
"""The largest scale or index: a draw times it is a number of float32."""


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless `value` is positive, finite and at most 1e30.

    Examples:
        >>> check_positive("scale", 1.0)
        >>> check_positive("scale", 0.0)
        Traceback (most recent call last):
            ...
        ValueError: scale is 0.0; it must be positive and finite
    """
    check_number(name, value)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}; it must be positive and finite")
    if value > LARGEST:
        raise ValueError(f"{name} is {value}; it must be at most {LARGEST}")


def check_number(name: str, value: float) -> None:
    """Raise ValueError unless `value` is one real number that a float can hold.

    Examples:
        >>> check_number("scale", "1")
        Traceback (most recent call last):
            ...
        ValueError: scale is '1'; it must be one real number
    """
    try:
        real = np.ndim(value) == 0 and not isinstance(value, str | bytes)
        math.isfinite(value)
    except (TypeError, ValueError, OverflowError):  # no number, or larger than any float
        real = False
    if not real:
        raise ValueError(f"{name} is {_shown(value)}; it must be one real number")
    if isinstance(value, int) and abs(value) > LARGEST_COUNT:
        raise ValueError(
            f"{name} is {_shown(value)}, more than JAX's integers hold; write it as {value:.6g}"
        )


def check_count(name: str, value: int, minimum: int = 1) -> None:
    """Raise ValueError unless `value` is a whole number from `minimum` to 2^31 - 1.

    Examples:
        >>> check_count("dimension", 2**40)
        Traceback (most recent call last):
            ...
        ValueError: dimension is 1099511627776; it must be a whole number from 1 to 2147483647
    """
    if not isinstance(value, int | np.integer) or not minimum <= value <= LARGEST_COUNT:
        if isinstance(value, int) and value < minimum:
            raise ValueError(f"{name} is {value}; it must be at least {minimum}")
        raise ValueError(
            f"{name} is {_shown(value)}; it must be a whole number from {minimum} to "
            f"{LARGEST_COUNT}"
        )


def check_has(name: str, value: Any, attributes: tuple[str, ...], kind: str) -> None:
    """Raise TypeError unless `value` has the attributes of a protocol.

    Examples:
        >>> check_has("noise", 1.0, ("sample",), "a Noise such as Normal()")
        Traceback (most recent call last):
            ...
        TypeError: noise is 1.0; expected a Noise such as Normal()
    """
    if isinstance(value, type) or not all(hasattr(value, one) for one in attributes):
        raise TypeError(f"{name} is {_shown(value)}; expected {kind}")


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = "a number of more than 4,300 digits"
    return text if len(text) <= 200 else text[:200] + "..."
