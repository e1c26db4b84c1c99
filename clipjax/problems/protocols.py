"""What an objective, a noise and an oracle must say of themselves."""

from typing import Protocol

import jax
import jax.numpy as jnp


class Problem(Protocol):
    """An objective f on R^n with known constants; one that is not known in closed form is NaN."""

    @property
    def dimension(self) -> int:
        """Return n."""
        ...

    @property
    def smoothness(self) -> float:
        """Return L, the smallest Lipschitz constant of the gradient; inf where there is none."""
        ...

    @property
    def strong_convexity(self) -> float:
        """Return μ, the largest number for which f - μ/2 |x|² is convex (below 0: f is not)."""
        ...

    @property
    def minimum(self) -> float:
        """Return f*, the smallest value of f."""
        ...

    @property
    def minimiser(self) -> tuple[float, ...]:
        """Return x*, a point where f takes its smallest value."""
        ...

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x), a scalar, for `x` of shape (n,)."""
        ...


class Noise(Protocol):
    """A law centred at 0: its mean, or its median where it has none; drawn per coordinate."""

    @property
    def variance(self) -> float:
        """Return the variance of one coordinate; inf where there is none."""
        ...

    @property
    def tail_index(self) -> float:
        """Return the supremum of the powers p for which E|ξ|^p is finite."""
        ...

    def sample(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        """Return independent draws, a function of the arguments only."""
        ...


class Oracle(Protocol):
    """Stochastic gradients of a problem: first draw ξ, then query ∇f(x, ξ) wherever wanted."""

    @property
    def problem(self) -> Problem:
        """Return the objective E f(x, ξ)."""
        ...

    def sample(self, key: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Return a draw ξ."""
        ...

    def gradient(self, x: jax.Array, draw: jax.Array) -> jax.Array:
        """Return ∇f(x, ξ), shaped as `x`."""
        ...
