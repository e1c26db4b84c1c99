"""Stochastic gradients of an objective: what a method is allowed to see."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from clipjax.problems._checks import check_count, check_has
from clipjax.problems.finite_sums import FiniteSum
from clipjax.problems.protocols import Noise, Problem


@dataclass(frozen=True)
class AdditiveNoise:
    """The oracle that adds noise to the exact gradient: ∇f(x, ξ) = ∇f(x) + ξ.

    Args:
        problem: the objective f.
        noise: the law of each coordinate of ξ.

    Raises:
        TypeError: for what is no problem or no noise.

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

    def __post_init__(self) -> None:
        check_has("problem", self.problem, ("value", "dimension"), "a Problem such as Sphere()")
        check_has("noise", self.noise, ("sample",), "a Noise such as Normal()")

    def sample(self, key: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Return ξ of shape (n,)."""
        return self.noise.sample(key, (self.problem.dimension,), dtype)

    def gradient(self, x: jax.Array, draw: jax.Array) -> jax.Array:
        """Return ∇f(x) + ξ, shape (n,)."""
        return jax.grad(self.problem.value)(x) + draw


@dataclass(frozen=True)
class Minibatch:
    """The oracle that samples examples with replacement: ∇f(x, ξ) = 1/b Σ_{i in ξ} ∇f_i(x).

    Args:
        problem: a mean over examples.
        batch_size: the number b of examples in a draw, at least 1.

    Raises:
        ValueError: if the batch size is below 1.
        TypeError: for a problem that is no mean over examples.

    Examples:
        >>> import jax, numpy as np
        >>> from clipjax.problems import LogisticRegression
        >>> problem = LogisticRegression(np.eye(3), np.array([1, -1, 1]))
        >>> draw = Minibatch(problem, 2).sample(jax.random.key(0), jnp.float32)
        >>> draw.shape, bool(jnp.all((0 <= draw) & (draw < 3)))
        ((2,), True)
    """

    problem: FiniteSum
    batch_size: int

    def __post_init__(self) -> None:
        check_count("batch_size", self.batch_size)
        check_has(
            "problem",
            self.problem,
            ("value_on", "num_examples"),
            "a mean over examples such as LogisticRegression(...)",
        )

    def sample(self, key: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Return ξ: the indices of b examples, each equally likely, int32 (b,)."""
        del dtype  # indices have their own
        return jax.random.randint(key, (self.batch_size,), 0, self.problem.num_examples)

    def gradient(self, x: jax.Array, draw: jax.Array) -> jax.Array:
        """Return the mean gradient over the draw, shape (n,)."""
        return jax.grad(self.problem.value_on)(x, draw)
