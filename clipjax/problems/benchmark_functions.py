"""Standard test functions of global optimisation, with the constants that are known exactly.

All but Schwefel's have f* = 0 over the whole space. `smoothness` and `strong_convexity` are exact
where a number or an infinity is given and NaN where no closed form is known; the reasons stand with
them. Gradients by automatic differentiation are finite everywhere, and 0 at x*, kink or not.

Definitions as in M. Jamil and X.-S. Yang, "A literature survey of benchmark functions for global
optimization problems", 2013 (https://arxiv.org/abs/1308.4008), except where noted.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from clipjax.problems._checks import check_count, check_number, check_positive


@dataclass(frozen=True)
class _ZeroAtOrigin:
    """A function of `dimension` coordinates with f* = 0 at x* = 0."""

    dimension: int = 2

    def __post_init__(self) -> None:
        _check_dimension(self.dimension)

    @property
    def minimum(self) -> float:
        """Return f* = 0."""
        return 0.0

    @property
    def minimiser(self) -> tuple[float, ...]:
        """Return x* = 0."""
        return (0.0,) * self.dimension


@dataclass(frozen=True)
class Sphere(_ZeroAtOrigin):
    """f(x) = Σ_i x_i², L = μ = 2.

    Args:
        dimension: the number of coordinates n, at least 1.

    Raises:
        ValueError: if the dimension is below 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(Sphere().value(jnp.array([1.0, 2.0])))
        5.0
    """

    @property
    def smoothness(self) -> float:
        """Return L = 2."""
        return 2.0

    @property
    def strong_convexity(self) -> float:
        """Return μ = 2."""
        return 2.0

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        return jnp.sum(x**2)


@dataclass(frozen=True)
class Ellipsoid(_ZeroAtOrigin):
    """f(x) = Σ_i i x_i², L = 2n, μ = 2: a sphere with axes from 1 to n.

    Args:
        dimension: the number of coordinates n, at least 1.

    Raises:
        ValueError: if the dimension is below 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(Ellipsoid().value(jnp.array([1.0, 2.0])))
        9.0
    """

    @property
    def smoothness(self) -> float:
        """Return L = 2n."""
        return 2.0 * self.dimension

    @property
    def strong_convexity(self) -> float:
        """Return μ = 2."""
        return 2.0

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        return jnp.sum(jnp.arange(1, self.dimension + 1, dtype=x.dtype) * x**2)


@dataclass(frozen=True)
class Rastrigin(_ZeroAtOrigin):
    """f(x) = Σ_i [ x_i² + A (1 - cos 2πx_i) ]: a bowl with a grid of minima, about one per unit.

    Args:
        dimension: the number of coordinates n, at least 1.
        amplitude: A, positive; 10 in the literature.

    Raises:
        ValueError: if the dimension is below 1 or the amplitude not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(Rastrigin().value(jnp.array([1.0, 2.0])))
        5.0
    """

    amplitude: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("amplitude", self.amplitude)

    @property
    def smoothness(self) -> float:
        """Return L = 2 + 4π²A, at x = 0: the second derivative is 2 + 4π²A cos 2πx_i."""
        return 2 + 4 * math.pi**2 * self.amplitude

    @property
    def strong_convexity(self) -> float:
        """Return μ = 2 - 4π²A, at x_i = 1/2."""
        return 2 - 4 * math.pi**2 * self.amplitude

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        return jnp.sum(x**2 + self.amplitude * (1 - jnp.cos(2 * jnp.pi * x)))


@dataclass(frozen=True)
class Ackley(_ZeroAtOrigin):
    """f(x) = 20 (1 - exp(-|x| / (5√n))) + e - exp( (1/n) Σ_i cos 2πx_i ).

    A plateau near 20 + e - 1 with small waves, and a funnel that ends in a kink at 0.

    Args:
        dimension: the number of coordinates n, at least 1.

    Raises:
        ValueError: if the dimension is below 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> round(float(Ackley().value(jnp.array([1.0, 1.0]))), 4)  # 20 (1 - exp(-1/5))
        3.6254
    """

    @property
    def smoothness(self) -> float:
        """Return L = inf: there is a kink at 0."""
        return math.inf

    @property
    def strong_convexity(self) -> float:
        """Return NaN: finite and below 0, but not known in closed form."""
        return math.nan

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        spread = _norm(x) / (5 * math.sqrt(self.dimension))
        waves = jnp.mean(jnp.cos(2 * jnp.pi * x)) - 1
        return -20 * jnp.expm1(-spread) - math.e * jnp.expm1(waves)


@dataclass(frozen=True)
class Griewank(_ZeroAtOrigin):
    """f(x) = Σ_i x_i²/4000 + 1 - Π_i cos(x_i/√i).

    The product is the mean of cos(s·x), s = (±1/√1, ..., ±1/√n) over all signs. Along any v its
    second derivative is at most Σ_i v_i²/i in size, so that the bounds below hold, and they are
    reached.

    Args:
        dimension: the number of coordinates n, at least 1.

    Raises:
        ValueError: if the dimension is below 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> round(float(Griewank().value(jnp.array([jnp.pi, 0.0]))), 5)  # π²/4000 + 2
        2.00247
    """

    @property
    def smoothness(self) -> float:
        """Return L = 1 + 1/2000, at x = 0."""
        return 1 + 1 / 2000

    @property
    def strong_convexity(self) -> float:
        """Return μ = 1/2000 - 1, at x = (π, 0, ..., 0)."""
        return 1 / 2000 - 1

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        roots = jnp.sqrt(jnp.arange(1, self.dimension + 1, dtype=x.dtype))
        return jnp.sum(x**2) / 4000 + 1 - jnp.prod(jnp.cos(x / roots))


@dataclass(frozen=True)
class Salomon(_ZeroAtOrigin):
    """f(x) = 1 - cos(2π|x|) + |x|/10: rings around a kink at 0.

    Args:
        dimension: the number of coordinates n, at least 1.

    Raises:
        ValueError: if the dimension is below 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> round(float(Salomon().value(jnp.array([3.0, 4.0]))), 5)
        0.5
    """

    @property
    def smoothness(self) -> float:
        """Return L = inf: there is a kink at 0."""
        return math.inf

    @property
    def strong_convexity(self) -> float:
        """Return μ = -4π²: the second derivative along the ray is 4π² cos 2πr.

        Across the ray it is the mean of the former over [0, r] and 1/(10r), so no smaller.
        """
        return -4 * math.pi**2

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        radius = _norm(x)
        return 1 - jnp.cos(2 * jnp.pi * radius) + radius / 10


@dataclass(frozen=True)
class Schwefel221(_ZeroAtOrigin):
    """f(x) = max_i |x_i|, Schwefel's problem 2.21: convex, with kinks.

    Args:
        dimension: the number of coordinates n, at least 1.

    Raises:
        ValueError: if the dimension is below 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(Schwefel221().value(jnp.array([1.0, -2.0])))
        2.0
    """

    @property
    def smoothness(self) -> float:
        """Return L = inf: there are kinks."""
        return math.inf

    @property
    def strong_convexity(self) -> float:
        """Return μ = 0: convex, with flat parts."""
        return 0.0

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        return jnp.max(_absolute(x))


@dataclass(frozen=True)
class DropWave(_ZeroAtOrigin):
    """f(x) = 1 - (1 + cos ω|x|) / (2 + |x|²/2): rings that fade, around a narrow hole at 0.

    The literature leaves out the constant 1, so that its f* is -1. ω = 12 there; the pictures of
    the σ-nice papers, in one dimension, have ω = 12π.

    Args:
        dimension: the number of coordinates n, at least 1.
        frequency: ω, positive.

    Raises:
        ValueError: if the dimension is below 1 or the frequency not positive.

    Examples:
        >>> import jax.numpy as jnp
        >>> DropWave().smoothness
        72.5
        >>> float(DropWave(1, math.pi).value(jnp.array([2.0])))  # 1 - 2/4
        0.5
    """

    frequency: float = 12.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("frequency", self.frequency)

    @property
    def smoothness(self) -> float:
        """Return L = (ω² + 1)/2, at x = 0.

        Along a ray 1 - f is a product of two functions whose Fourier transforms are not negative
        (1 + cos ωr and 2/(4 + r²)), so it is such a function and its second derivative is largest
        in size at 0. Across the ray it is a mean of that over [0, r].
        """
        return (self.frequency**2 + 1) / 2

    @property
    def strong_convexity(self) -> float:
        """Return NaN: between -L and 0, but not known in closed form."""
        return math.nan

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,); the second derivative at 0 itself is not to be had."""
        return 1 - (1 + jnp.cos(self.frequency * _norm(x))) / (2 + jnp.sum(x**2) / 2)


@dataclass(frozen=True)
class Alpine1(_ZeroAtOrigin):
    """f(x) = Σ_i |x_i sin x_i + x_i/10|.

    Args:
        dimension: the number of coordinates n, at least 1.

    Raises:
        ValueError: if the dimension is below 1.

    Examples:
        >>> import jax.numpy as jnp
        >>> round(float(Alpine1().value(jnp.array([jnp.pi, 0.0]))), 5)  # π/10
        0.31416
    """

    @property
    def smoothness(self) -> float:
        """Return L = inf: there are kinks."""
        return math.inf

    @property
    def strong_convexity(self) -> float:
        """Return μ = -inf: at its crests f bends down by |x_i|, however large."""
        return -math.inf

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        return jnp.sum(_absolute(x * jnp.sin(x) + x / 10))


def _schwefel_peak() -> float:
    """Return the maximiser of t sin √t in [0, 500], where tan √t = -√t/2, by Newton's method."""
    root = 20.5
    for _ in range(20):
        slope = math.cos(root) + 0.5 * math.cos(root) - 0.5 * root * math.sin(root)
        root -= (math.sin(root) + 0.5 * root * math.cos(root)) / slope
    return root**2


_PEAK = _schwefel_peak()


@dataclass(frozen=True)
class Schwefel:
    """f(x) = Σ_i [ c - x_i sin √|x_i| ], to be minimised over |x_i| ≤ 500.

    c = 418.98... is the largest value of t sin √t in the box, so that f* = 0 there; the next best
    minimum is far away from the best. Outside the box f falls without bound.

    Args:
        dimension: the number of coordinates n, at least 1.

    Raises:
        ValueError: if the dimension is below 1.

    Examples:
        >>> round(Schwefel(1).minimiser[0], 4)
        420.9687
    """

    dimension: int = 2

    def __post_init__(self) -> None:
        _check_dimension(self.dimension)

    @property
    def smoothness(self) -> float:
        """Return L = inf: the second derivative grows as |x_i|^(-1/2) at 0."""
        return math.inf

    @property
    def strong_convexity(self) -> float:
        """Return μ = -inf: on the positive side of 0 it tends to -inf."""
        return -math.inf

    @property
    def minimum(self) -> float:
        """Return f* = 0, of the box."""
        return 0.0

    @property
    def minimiser(self) -> tuple[float, ...]:
        """Return x* = (420.9687..., ...), of the box."""
        return (_PEAK,) * self.dimension

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        root = _root(jnp.abs(x))
        return jnp.sum(_PEAK * math.sin(math.sqrt(_PEAK)) - x * jnp.sin(root))


@dataclass(frozen=True)
class HappyCat:
    """f(x) = | |x|² - n |^(2α) + Σ_i (x_i + 1)² / (2n): a curved ditch with walls like cusps.

    H.-G. Beyer and S. Finck, "HappyCat - a simple function class where well-known direct search
    algorithms do fail", 2012; their last two terms, (|x|²/2 + Σ x_i)/n + 1/2, are the second here.

    Args:
        dimension: the number of coordinates n, at least 1.
        exponent: α in (0, 1/2); 1/8 in the paper.

    Raises:
        ValueError: if the dimension is below 1 or the exponent not in (0, 1/2).

    Examples:
        >>> import jax.numpy as jnp
        >>> float(HappyCat().value(jnp.array([1.0, 1.0])))  # in the ditch: 8/4
        2.0
    """

    dimension: int = 2
    exponent: float = 0.125

    def __post_init__(self) -> None:
        _check_dimension(self.dimension)
        check_number("exponent", self.exponent)
        if not 0 < self.exponent < 0.5:
            raise ValueError(f"exponent is {self.exponent}; it must lie between 0 and 1/2")

    @property
    def smoothness(self) -> float:
        """Return L = inf: f is not even Lipschitz in the ditch |x|² = n."""
        return math.inf

    @property
    def strong_convexity(self) -> float:
        """Return μ = -inf: beside the ditch f bends down without bound."""
        return -math.inf

    @property
    def minimum(self) -> float:
        """Return f* = 0."""
        return 0.0

    @property
    def minimiser(self) -> tuple[float, ...]:
        """Return x* = (-1, ..., -1)."""
        return (-1.0,) * self.dimension

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        depth = jnp.abs(jnp.sum(x**2) - self.dimension)
        safe = jnp.where(depth == 0, 1.0, depth)
        wall = jnp.where(depth == 0, 0.0, safe ** (2 * self.exponent))
        return wall + jnp.sum((x + 1) ** 2) / (2 * self.dimension)


def _norm(x: jax.Array) -> jax.Array:
    """Return |x|, whose gradient at 0 is 0 and not NaN."""
    return _root(jnp.sum(x**2))


def _root(x: jax.Array) -> jax.Array:
    """Return √x, whose derivative at 0 is 0 here; NaN, which is not positive either, stays NaN."""
    return jnp.where(x == 0, 0.0, jnp.sqrt(jnp.where(x == 0, 1.0, x)))


def _absolute(x: jax.Array) -> jax.Array:
    """Return |x_i|, whose derivative at 0 is 0; that of `jnp.abs` is 1."""
    return x * jnp.sign(x)


def _check_dimension(dimension: int) -> None:
    check_count("dimension", dimension)
