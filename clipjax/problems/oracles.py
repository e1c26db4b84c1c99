"""Stochastic gradients of an objective: what a method is allowed to see."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from clipjax.problems.protocols import Noise, Problem


@dataclass(frozen=True)
class AdditiveNoise:
    """The oracle that adds noise to the exact gradient: ∇f(x, ξ) = ∇f(x) + ξ.

    Args:
        problem: the objective f.
        noise: the law of each coordinate of ξ.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> from clipjax.problems import Quadratic, StudentT
        >>> oracle = AdditiveNoise(Quadratic((1.0, 10.0)), StudentT(df=1.5))
        >>> draw = oracle.sample(jax.random.key(0), jnp.float32)
        >>> x = jnp.ones(2)
        >>> bool(jnp.all(oracle.gradient(x, draw) == jnp.array([1.0, 10.0]) + draw))
        True
    """

    problem: Problem
    noise: Noise

    def sample(self, key: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Return ξ of shape (n,)."""
        return self.noise.sample(key, (self.problem.dimension,), dtype)

    def gradient(self, x: jax.Array, draw: jax.Array) -> jax.Array:
        """Return ∇f(x) + ξ, shape (n,)."""
        return jax.grad(self.problem.value)(x) + draw
