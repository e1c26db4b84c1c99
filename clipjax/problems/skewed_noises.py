"""One-sided noises, centred: exponential, Weibull, Burr XII and Pareto; and the unit-variance form.

Each is drawn by inverting its survival function S at a uniform U: X = S⁻¹(U), and is then moved to
mean zero. U has 32 random bits and is never 0, so that tails are followed down to probabilities of
about 10^-10.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from clipjax.problems._checks import check_number, check_positive
from clipjax.problems._draws import uniforms
from clipjax.problems.protocols import Noise


@dataclass(frozen=True)
class Exponential:
    """Exponential noise: ξ = scale (X - 1), P(X > s) = exp(-s); variance scale².

    Args:
        scale: the standard deviation, positive.

    Raises:
        ValueError: if the scale is not positive.

    Examples:
        >>> Exponential(scale=2.0).variance
        4.0
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive("scale", self.scale)

    @property
    def variance(self) -> float:
        """Return scale²."""
        return self.scale**2

    @property
    def tail_index(self) -> float:
        """Return inf: all moments are finite."""
        return math.inf

    def sample(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        """Return independent centred draws."""
        return self.scale * (-jnp.log(uniforms(key, shape, dtype)) - 1)


@dataclass(frozen=True)
class Weibull:
    """Weibull noise: ξ = scale (X - E X), P(X > s) = exp(-s^shape).

        E X = Γ(1 + 1/shape),   Var X = Γ(1 + 2/shape) - Γ(1 + 1/shape)²

    All moments are finite, yet for shapes far below 1 the largest of many draws dwarfs the rest.

    Args:
        shape: the exponent c, positive; 0.2 in the experiments of Gorbunov, Danilova and Gasnikov.
        scale: the scale, positive.

    Raises:
        ValueError: if either is not positive.

    Examples:
        >>> round(Weibull(0.2).variance)  # 10! - 5!²
        3614400
    """

    shape: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive("shape", self.shape)
        check_positive("scale", self.scale)

    @property
    def mean(self) -> float:
        """Return scale E X, what is taken off."""
        return self.scale * math.gamma(1 + 1 / self.shape)

    @property
    def variance(self) -> float:
        """Return scale² (Γ(1 + 2/shape) - Γ(1 + 1/shape)²)."""
        return self.scale**2 * math.gamma(1 + 2 / self.shape) - self.mean**2

    @property
    def tail_index(self) -> float:
        """Return inf: all moments are finite."""
        return math.inf

    def sample(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        """Return independent centred draws."""
        return self.scale * (-jnp.log(uniforms(key, shape, dtype))) ** (1 / self.shape) - self.mean


@dataclass(frozen=True)
class BurrXII:
    """Burr XII noise: ξ = scale (X - E X), P(X > s) = (1 + s^c)^-d, a power law of index c d.

        E X^p = d B(d - p/c, 1 + p/c)   for p < c d, with Euler's beta function B

    Args:
        c: the first shape, positive.
        d: the second shape, positive; c d > 1, or there is no mean to take off. (1, 2.3) in the
            experiments of Gorbunov, Danilova and Gasnikov.
        scale: the scale, positive.

    Raises:
        ValueError: if one is not positive, or c d ≤ 1.

    Examples:
        >>> round(BurrXII(1.0, 2.3).variance, 3), BurrXII(1.0, 2.3).tail_index
        (4.536, 2.3)
    """

    c: float
    d: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("c", "d", "scale"):
            check_positive(name, getattr(self, name))
        if self.c * self.d <= 1:
            raise ValueError(
                f"c d is {self.c * self.d:g}; it must exceed 1, or the noise has no mean"
            )

    def _moment(self, p: int) -> float:
        """Return E X^p, inf where it is not finite."""
        if p >= self.c * self.d:
            return math.inf
        a, b = self.d - p / self.c, 1 + p / self.c
        return self.d * math.exp(math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b))

    @property
    def mean(self) -> float:
        """Return scale E X, what is taken off."""
        return self.scale * self._moment(1)

    @property
    def variance(self) -> float:
        """Return scale² (E X² - (E X)²), inf for c d ≤ 2."""
        return self.scale**2 * self._moment(2) - self.mean**2

    @property
    def tail_index(self) -> float:
        """Return c d."""
        return self.c * self.d

    def sample(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        """Return independent centred draws."""
        power = jnp.expm1(-jnp.log(uniforms(key, shape, dtype)) / self.d)
        return self.scale * power ** (1 / self.c) - self.mean


@dataclass(frozen=True)
class Pareto:
    """Pareto noise: ξ = scale (X - E X), P(X > s) = s^-index for s ≥ 1.

        E X = index / (index - 1),   Var X = index / ((index - 1)² (index - 2))

    Args:
        index: the tail index, above 1, or there is no mean to take off.
        scale: the scale, positive.

    Raises:
        ValueError: if the index is not above 1 or the scale not positive.

    Examples:
        >>> Pareto(3.0).variance, Pareto(1.5).variance
        (0.75, inf)
    """

    index: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive("scale", self.scale)
        check_number("index", self.index)
        if not (math.isfinite(self.index) and self.index > 1):
            raise ValueError(
                f"index is {self.index}; it must be finite and exceed 1, or the noise has no mean"
            )
        check_positive("index", self.index)

    @property
    def mean(self) -> float:
        """Return scale E X, what is taken off."""
        return self.scale * self.index / (self.index - 1)

    @property
    def variance(self) -> float:
        """Return scale² Var X, inf for an index up to 2."""
        if self.index <= 2:
            return math.inf
        return self.scale**2 * self.index / ((self.index - 1) ** 2 * (self.index - 2))

    @property
    def tail_index(self) -> float:
        """Return the index."""
        return self.index

    def sample(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        """Return independent centred draws."""
        return self.scale * uniforms(key, shape, dtype) ** (-1 / self.index) - self.mean


@dataclass(frozen=True)
class Standardised:
    """A noise divided by its standard deviation, times `scale`: its variance is scale².

    Args:
        noise: a noise of finite variance.
        scale: the standard deviation wanted, positive.

    Raises:
        ValueError: if the noise's variance is infinite or the scale not positive.

    Examples:
        >>> Standardised(Weibull(0.2)).variance
        1.0
    """

    noise: Noise
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_positive("scale", self.scale)
        if not callable(getattr(self.noise, "sample", None)):
            raise TypeError(f"noise is {self.noise!r}; expected a Noise such as Normal()")
        if not math.isfinite(self.noise.variance):
            raise ValueError(f"{self.noise} has infinite variance; it cannot be standardised")

    @property
    def variance(self) -> float:
        """Return scale²."""
        return self.scale**2

    @property
    def tail_index(self) -> float:
        """Return that of the noise."""
        return self.noise.tail_index

    def sample(self, key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
        """Return independent draws."""
        return self.scale / math.sqrt(self.noise.variance) * self.noise.sample(key, shape, dtype)
