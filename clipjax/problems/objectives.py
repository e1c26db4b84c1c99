"""Smooth objectives whose curvature is known: the quadratic and Rosenbrock's valley."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from clipjax.problems._checks import check_count, check_number, check_positive


@dataclass(frozen=True)
class Quadratic:
    """The quadratic with a given spectrum.

        f(x) = 1/2 Σ_i d_i x_i²,   L = max d_i,   μ = min d_i,   f* = 0 at x* = 0.

    Args:
        spectrum: the eigenvalues d of the Hessian, one per coordinate, none negative.

    Raises:
        ValueError: if the spectrum is empty or has a negative or non-finite eigenvalue.

    Examples:
        >>> import jax.numpy as jnp
        >>> problem = Quadratic((1.0, 10.0))
        >>> float(problem.value(jnp.array([2.0, 1.0])))
        7.0
        >>> problem.smoothness, problem.strong_convexity
        (10.0, 1.0)
    """

    spectrum: tuple[float, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.spectrum, tuple | list | np.ndarray):
            raise ValueError(f"spectrum is {self.spectrum!r}; expected a tuple of eigenvalues")
        if not len(self.spectrum):
            raise ValueError("spectrum is empty; give one eigenvalue per coordinate")
        for i, eigenvalue in enumerate(self.spectrum):
            check_number(f"spectrum[{i}]", eigenvalue)
            if not (math.isfinite(eigenvalue) and eigenvalue >= 0):
                raise ValueError(
                    f"spectrum[{i}] is {eigenvalue}; eigenvalues must be finite and not negative"
                )

    @property
    def dimension(self) -> int:
        """Return the number of coordinates."""
        return len(self.spectrum)

    @property
    def smoothness(self) -> float:
        """Return L = max d_i."""
        return max(self.spectrum)

    @property
    def strong_convexity(self) -> float:
        """Return μ = min d_i."""
        return min(self.spectrum)

    @property
    def minimum(self) -> float:
        """Return f* = 0."""
        return 0.0

    @property
    def minimiser(self) -> tuple[float, ...]:
        """Return x* = 0."""
        return (0.0,) * self.dimension

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) = 1/2 Σ_i d_i x_i² for `x` of shape (n,)."""
        return 0.5 * jnp.sum(jnp.asarray(self.spectrum, x.dtype) * x**2)


@dataclass(frozen=True)
class Rosenbrock:
    """Rosenbrock's valley, in the n-dimensional form of `scipy.optimize.rosen`.

        f(x) = Σ_{i<n} [ curvature (x_{i+1} - x_i²)² + (1 - x_i)² ],   f* = 0 at x* = (1, ..., 1).

    It is not convex and its gradient is not Lipschitz: L = inf and μ = -inf.

    Args:
        dimension: the number of coordinates n, at least 2.
        curvature: the weight of the valley's walls, positive; 100 in H. H. Rosenbrock, "An
            automatic method for finding the greatest or least value of a function", 1960.

    Raises:
        ValueError: if the dimension is below 2 or the curvature not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(Rosenbrock().value(jnp.array([-1.0, 1.0])))
        4.0
    """

    dimension: int = 2
    curvature: float = 100.0

    def __post_init__(self) -> None:
        check_count("dimension", self.dimension)
        if self.dimension < 2:
            raise ValueError(f"dimension is {self.dimension}; Rosenbrock's valley needs at least 2")
        check_positive("curvature", self.curvature)

    @property
    def smoothness(self) -> float:
        """Return L = inf: the gradient grows as a cubic."""
        return math.inf

    @property
    def strong_convexity(self) -> float:
        """Return μ = -inf: ∂²f/∂x_1² = 2 - 4 curvature x_2 at x_1 = 0 has no lower bound."""
        return -math.inf

    @property
    def minimum(self) -> float:
        """Return f* = 0."""
        return 0.0

    @property
    def minimiser(self) -> tuple[float, ...]:
        """Return x* = (1, ..., 1)."""
        return (1.0,) * self.dimension

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        return jnp.sum(self.curvature * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
