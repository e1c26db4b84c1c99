"""Smoothing without random numbers: averages over the noise as weighted sums over fixed points.

In one and two dimensions the points are those of quadrature rules, and averages of smooth functions
are exact to many digits. In more dimensions they are a fixed quasi-random set with an error near
1/points. `clipjax.smoothed_value_and_grad` is the form for many dimensions.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats

from clipjax.optim._checks import (
    check_callable,
    check_choice,
    check_count,
    check_instance,
    check_interval,
    check_positive,
)
from clipjax.optim.graduated.smoothing import DISTRIBUTIONS

NORMAL_RANGE = 8.5
"""Normal noise is cut here; beyond lies a mass of 2e-17."""

LARGEST_DIMENSION = 21_200
"""One less than the Sobol numbers have."""

LARGEST_POINTS = 2**27
"""Coordinates of points that are made: 1 GiB."""

LARGEST_RULE = 10_000
"""Points of a Gauss-Legendre rule, which is found from the eigenvalues of a matrix."""


class Quadrature(NamedTuple):
    """A law of noise as weighted points: float64 `points` (points, n) and `weights` (points,)."""

    points: np.ndarray
    weights: np.ndarray


def noise_quadrature(
    distribution: str = "ball", dimension: int = 1, *, points: int = 1024, df: float = 3.0
) -> Quadrature:
    """Return points u_k and weights w_k with E g(u) ≈ Σ_k w_k g(u_k), symmetric about 0.

    ================  =====================================================================
    ball              n = 1: Gauss-Legendre on [-1, 1]; n = 2: Gauss-Legendre in the squared
                      radius, equal angles
    sphere            n = 1: the two points; n = 2: equal angles
    gaussian          n = 1, 2: the trapezoidal rule, which for smooth functions converges
                      faster than any power
    student_t, cauchy n = 1: equally likely quantiles, u_k = F⁻¹((k - 1/2)/K); tails beyond
                      the first are left out
    any               else: Sobol points turned into draws, together with their mirror images
    ================  =====================================================================

    Args:
        distribution: a law of `clipjax.smoothed_value_and_grad`.
        dimension: n ≥ 1.
        points: about how many points; at least 8.
        df: degrees of freedom of "student_t".

    Raises:
        ValueError: for numbers out of range or an unknown law (with the nearest name).

    Examples:
        >>> u, w = noise_quadrature("ball", 2)
        >>> round(float(w @ np.sum(u**2, 1)), 12)  # d/(d+2)
        0.5
    """
    check_choice("distribution", distribution, DISTRIBUTIONS)
    check_count("dimension", dimension, minimum=1, maximum=LARGEST_DIMENSION)
    most = LARGEST_RULE if distribution == "ball" and dimension == 1 else LARGEST_POINTS
    check_count("points", points, minimum=8, maximum=most // max(1, dimension))
    check_positive("df", df)
    law, df = ("student_t", 1.0) if distribution == "cauchy" else (distribution, df)
    if dimension == 1:
        u, w = _line(law, points, df)
        return Quadrature(u[:, None], w)
    if dimension == 2 and law != "student_t":
        return _plane(law, points)
    return _quasi_random(law, dimension, points, df)


def smooth(
    fn: Callable[[jax.Array], jax.Array], delta: jax.typing.ArrayLike, quadrature: Quadrature
) -> Callable[[jax.Array], jax.Array]:
    """Return f̂_δ: x -> Σ_k w_k f(x - δ u_k), a function of x that JAX can differentiate.

    Args:
        fn: f, from shape (n,) to a scalar.
        delta: δ ≥ 0; may be traced.
        quadrature: the points and weights for n dimensions.

    Examples:
        >>> square = smooth(lambda x: jnp.sum(x**2), 0.5, noise_quadrature("ball", 1))
        >>> print(round(float(square(jnp.array([1.0]))), 4))  # 1 + δ²/3
        1.0833
    """
    check_callable("fn", fn)
    check_interval("delta", delta, 0, math.inf, closed_high=False)
    check_instance("quadrature", quadrature, Quadrature, "from noise_quadrature")

    def smoothed(x: jax.Array) -> jax.Array:
        u = jnp.asarray(quadrature.points, x.dtype)
        values = jax.vmap(lambda u: fn(x - jnp.asarray(delta, x.dtype) * u))(u)
        return jnp.asarray(quadrature.weights, x.dtype) @ values

    return smoothed


def sobol_points(dimension: int, count: float) -> np.ndarray:
    """Return 2^m ≈ `count` Sobol points, moved to the middle of their cells: within (0, 1)^n.

    Examples:
        >>> sobol_points(1, 4).ravel().tolist()
        [0.125, 0.625, 0.875, 0.375]
    """
    bits = max(1, round(math.log2(count)))
    return scipy.stats.qmc.Sobol(dimension, scramble=False).random_base2(bits) + 0.5 / 2**bits


def _line(law: str, points: int, df: float) -> tuple[np.ndarray, np.ndarray]:
    if law == "sphere":
        return np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    if law == "ball":
        u, w = np.polynomial.legendre.leggauss(points)
        return u, w / 2
    if law == "gaussian":
        u = np.linspace(-NORMAL_RANGE, NORMAL_RANGE, points)
        w = np.exp(-(u**2) / 2)
        return u, w / w.sum()
    u = scipy.special.stdtrit(df, (np.arange(points) + 0.5) / points)
    return u, np.full(points, 1 / points)


def _plane(law: str, points: int) -> Quadrature:
    if law == "gaussian":
        u, w = _line(law, max(3, round(points**0.5)), 0.0)
        first, second = np.meshgrid(u, u, indexing="ij")
        return Quadrature(np.stack([first.ravel(), second.ravel()], 1), np.outer(w, w).ravel())
    rings = 1 if law == "sphere" else max(2, round((points / 4) ** 0.5))
    angles = 2 * max(2, points // (2 * rings))  # even: with u there is -u
    if law == "sphere":
        radii, w = np.ones(1), np.ones(1)
    else:  # the squared radius is uniform on [0, 1]
        nodes, w = np.polynomial.legendre.leggauss(rings)
        radii, w = np.sqrt((nodes + 1) / 2), w / 2
    angle = 2 * np.pi * np.arange(angles) / angles
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    return Quadrature((radii[:, None, None] * circle).reshape(-1, 2), np.repeat(w / angles, angles))


def _quasi_random(law: str, dimension: int, points: int, df: float) -> Quadrature:
    half = sobol_points(dimension + 1, points / 2)  # one more coordinate for the ball's radius
    if law == "student_t":
        u = scipy.special.stdtrit(df, half[:, 1:])
    else:
        u = scipy.special.ndtri(half[:, 1:])
        if law in ("ball", "sphere"):
            u /= np.linalg.norm(u, axis=1, keepdims=True)
        if law == "ball":
            u *= half[:, :1] ** (1 / dimension)
    return Quadrature(np.concatenate([u, -u]), np.full(2 * len(u), 0.5 / len(u)))
