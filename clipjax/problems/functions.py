"""A function of the user's own as a problem."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax

from clipjax.problems._checks import check_number


@dataclass(frozen=True)
class Function:
    """Any differentiable function, with the constants that its author knows.

    Args:
        function: x of shape (n,) -> a scalar, traceable by JAX.
        minimiser: x*, whose length is n; f* is the value there.
        smoothness: L; inf where unknown or none.
        strong_convexity: μ; -inf where unknown or none.

    Raises:
        ValueError: if the minimiser is empty or not finite, or f there is not a finite scalar.

    Examples:
        >>> import jax.numpy as jnp
        >>> problem = Function(lambda x: jnp.sum(jnp.cosh(x)), (0.0, 0.0), strong_convexity=1.0)
        >>> problem.dimension, problem.minimum
        (2, 2.0)
    """

    function: Callable[[jax.Array], jax.Array]
    minimiser: tuple[float, ...]
    smoothness: float = math.inf
    strong_convexity: float = -math.inf

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"function is {self.function!r}; expected a function of an array")
        if not isinstance(self.minimiser, tuple | list):
            raise ValueError(f"minimiser is {self.minimiser!r}; expected a tuple of numbers")
        for i, coordinate in enumerate(self.minimiser):
            check_number(f"minimiser[{i}]", coordinate)
        check_number("smoothness", self.smoothness)
        if not self.smoothness >= 0:
            raise ValueError(f"smoothness is {self.smoothness}; it must not be negative")
        check_number("strong_convexity", self.strong_convexity)
        if not self.strong_convexity <= self.smoothness:
            raise ValueError(
                f"strong_convexity is {self.strong_convexity}; it must be at most the smoothness, "
                f"{self.smoothness}"
            )
        if not (self.minimiser and all(map(math.isfinite, self.minimiser))):
            raise ValueError(f"minimiser is {self.minimiser}; it must be finite and not empty")
        if not math.isfinite(self.minimum):
            raise ValueError(f"the function is {self.minimum} at its minimiser; expected a number")

    @property
    def dimension(self) -> int:
        """Return n."""
        return len(self.minimiser)

    @property
    def minimum(self) -> float:
        """Return f* = f(x*), in the widest floating-point type that is on."""
        with jax.ensure_compile_time_eval():
            value = self.function(jax.numpy.asarray(self.minimiser, float))
            if value.shape:
                raise ValueError(f"the function's value has shape {value.shape}; expected a scalar")
            return float(value)

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        return self.function(x)
