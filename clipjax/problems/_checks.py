"""What constructors of this package refuse."""

import math


def check_positive(name: str, value: float) -> None:
    """Raise ValueError unless `value` is positive and finite.

    Examples:
        >>> check_positive("scale", 1.0)
        >>> check_positive("scale", 0.0)
        Traceback (most recent call last):
            ...
        ValueError: scale is 0.0; it must be positive and finite
    """
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}; it must be positive and finite")
