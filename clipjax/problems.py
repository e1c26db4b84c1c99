"""Objectives and noises whose constants are known exactly.

A stochastic method sees an objective through an *oracle*: it draws ξ, then answers queries
∇f(x, ξ). Drawing apart from answering lets several methods query one draw (common random numbers:
their paths differ by what the methods do and by nothing else) and lets one method query two points
with it.

A `Problem` states its constants: L, μ, f* and x*. A `Noise` states its tail. `AdditiveNoise` joins
one of each into an oracle.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp


class Problem(Protocol):
    """An objective f on R^n with known constants."""

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
    """A symmetric law, drawn independently for every coordinate."""

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
        if not self.spectrum:
            raise ValueError("spectrum is empty; give one eigenvalue per coordinate")
        for i, eigenvalue in enumerate(self.spectrum):
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
        if self.dimension < 2:
            raise ValueError(f"dimension is {self.dimension}; Rosenbrock's valley needs at least 2")
        _check_positive("curvature", self.curvature)

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


@dataclass(frozen=True)
class Normal:
    """Normal noise: mean 0, variance scale², every moment finite.

    Args:
        scale: the standard deviation, positive.

    Raises:
        ValueError: if the scale is not positive.

    Examples:
        >>> Normal(scale=2.0).variance
        4.0
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("scale", self.scale)

    @property
    def variance(self) -> float:
        """Return scale²."""
        return self.scale**2

    @property
    def tail_index(self) -> float:
        """Return inf: all moments are finite."""
        return math.inf

    def sample(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        """Return independent normal draws."""
        return self.scale * jax.random.normal(key, shape, dtype)


@dataclass(frozen=True)
class StudentT:
    """Student's t noise: P(|ξ| > s) decays as s^-df, so moments of order df and above are infinite.

    Drawn in polar form (R. W. Bailey, "Polar generation of random variates with the
    t-distribution", Mathematics of Computation 62, 1994), with U and V uniform on (0, 1]:

        ξ = scale √( df (U^(-2/df) - 1) ) cos(2πV)

    On a CPU this is about ten times as fast as `jax.random.t`, whose gamma draws are loops.

    Args:
        df: the degrees of freedom, positive; the mean (0) exists for df > 1, the variance for
            df > 2.
        scale: the scale, positive.

    Raises:
        ValueError: if either is not positive.

    Examples:
        >>> StudentT(df=1.5).variance, StudentT(df=1.5).tail_index
        (inf, 1.5)
        >>> StudentT(df=4.0).variance
        2.0
    """

    df: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("df", self.df)
        _check_positive("scale", self.scale)

    @property
    def variance(self) -> float:
        """Return scale² df / (df - 2), inf for df ≤ 2."""
        return self.scale**2 * self.df / (self.df - 2) if self.df > 2 else math.inf

    @property
    def tail_index(self) -> float:
        """Return df."""
        return self.df

    def sample(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        """Return independent draws of Student's t."""
        u, v = _uniforms(key, (2, *shape), dtype)
        radius = jnp.sqrt(self.df * jnp.expm1(-2 / self.df * jnp.log(u)))
        return self.scale * radius * jnp.cos(2 * jnp.pi * v)


@dataclass(frozen=True)
class AdditiveNoise:
    """The oracle that adds noise to the exact gradient: ∇f(x, ξ) = ∇f(x) + ξ.

    Args:
        problem: the objective f.
        noise: the law of each coordinate of ξ.

    Examples:
        >>> import jax, jax.numpy as jnp
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


def _uniforms(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    """Return uniforms in (0, 1], made of 32 random bits whatever the dtype.

    `jax.random.uniform` has 23 bits in float32 and may return its lower end: of 10^8 draws a
    handful would be exactly there, and a heavy tail turns them into infinities. Here the smallest
    value is 2^-33, so that a tail is followed down to probabilities of about 10^-10.
    """
    bits = jax.random.bits(key, shape, jnp.uint32)
    return (bits.astype(dtype) + 0.5) * 2.0**-32


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value}; it must be positive and finite")
