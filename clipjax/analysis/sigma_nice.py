"""Is a function σ-nice? Its smoothed minimisers, and how convex it is around them, as numbers.

Graduated optimisation is proved to find the global minimum of two classes of functions. With x*_δ a
minimiser of f̂_δ (f smoothed at level δ) and x* one of f:

- **σ-nice** (Hazan, Levy and Shalev-Shwartz, 2016), for all δ > 0:
  |x*_δ - x*_{δ/2}| ≤ δ/2, and f̂_δ is σ-strongly convex on N(x*_δ; 3δ).
- **new σ-nice** (Sato and Iiduka), for levels δ_{m+1} = γ_m δ_m:
  |x*_{δ_m} - x*_{δ_{m+1}}| ≤ δ_m - δ_{m+1}, and f̂_{δ_m} is σ-strongly convex on N(x*; d_m δ_m).

The checks look at given levels of a function of few coordinates and say how far each condition
holds. They are numerical: minimisers are searched on a grid of a box, curvature along rays.
Everything is computed in float64. The functions must be twice differentiable (the Hessian of f̂ is
the average of f's).
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from clipjax.analysis.minimisers import Objective, check_levels, check_point, smoothed_minimisers
from clipjax.analysis.quadrature import Quadrature, smooth, sobol_points
from clipjax.optim._checks import check_callable, check_count, check_interval, check_positive

RESOLUTION = 500
"""How many radii a ray has."""

DIRECTIONS = 32
"""How many rays go out from a centre in two and more dimensions."""


class SigmaNice(NamedTuple):
    """The conditions of σ-nice functions at each level; all of shape (levels,) but `minimisers`.

    Attributes:
        levels: δ.
        minimisers: x*_δ, shape (levels, n).
        shift: |x*_δ - x*_{δ/2}|, to be at most `levels`/2.
        radius: how far around x*_δ f̂_δ is σ-strongly convex, to be at least 3δ (and measured no
            further than `max_radius`).
        curvature: the smallest eigenvalue of the Hessian of f̂_δ on N(x*_δ; 3δ), the largest σ for
            which the second condition holds.
        holds: whether both conditions hold.
    """

    levels: np.ndarray
    minimisers: np.ndarray
    shift: np.ndarray
    radius: np.ndarray
    curvature: np.ndarray
    holds: np.ndarray


class NewSigmaNice(NamedTuple):
    """The conditions of new σ-nice functions for a sequence of levels δ_1 > ... > δ_M.

    Attributes:
        levels: δ_m, shape (M,).
        minimisers: x*_{δ_m}, shape (M, n).
        shift: |x*_{δ_m} - x*_{δ_{m+1}}|, shape (M-1,).
        allowed: δ_m - δ_{m+1}, shape (M-1,).
        radius: how far around x* f̂_{δ_m} is σ-strongly convex (at most `max_radius`); shape (M,).
        d: radius/δ_m, the largest d_m; shape (M,). The theory has d_m ≥ 1.
        distance: |x*_{δ_m} - x*|, shape (M,); Proposition 3.3 has it below d_{m+1} δ_{m+1}.
        gamma: γ_m = δ_{m+1}/δ_m, shape (M-1,); it has to exceed 1/d_{m+1}.
        holds: whether shift ≤ allowed and d_m ≥ 1, shape (M,) (the last level has no shift).
        reaches: whether γ_m > 1/d_{m+1} and distance < d_{m+1} δ_{m+1}, shape (M-1,): then x*_{δ_m}
            lies where f̂_{δ_{m+1}} is strongly convex.
    """

    levels: np.ndarray
    minimisers: np.ndarray
    shift: np.ndarray
    allowed: np.ndarray
    radius: np.ndarray
    d: np.ndarray
    distance: np.ndarray
    gamma: np.ndarray
    holds: np.ndarray
    reaches: np.ndarray


def strong_convexity_radius(
    fn: Objective,
    centre: Sequence[float] | np.ndarray,
    strong_convexity: float,
    *,
    max_radius: float,
    resolution: int = RESOLUTION,
    directions: int = DIRECTIONS,
) -> float:
    """Return the largest ρ ≤ `max_radius` for which f is σ-strongly convex on N(centre; ρ).

    The smallest eigenvalue of the Hessian is followed along rays, at `resolution` radii, and where
    it first falls below σ is found by bisection. In one dimension both rays are followed; in more,
    `directions` of them, and the answer is an upper bound.

    Args:
        fn: f (or f̂_δ, see `smooth`), from shape (n,) to a scalar.
        centre: shape (n,).
        strong_convexity: σ.
        max_radius: where to stop.
        resolution: how many radii; a dip between two of them is missed.
        directions: how many rays, for n ≥ 2.

    Returns:
        ρ; 0 if the centre itself fails, `max_radius` if nothing does.

    Examples:
        >>> def cosine(x):
        ...     return -jnp.sum(jnp.cos(x))
        >>> round(strong_convexity_radius(cosine, [0.0], 0.5, max_radius=3.0), 6)  # π/3
        1.047198
    """
    check_positive("max_radius", max_radius, finite=True)
    check_interval("strong_convexity", strong_convexity, -np.inf, np.inf)
    check_count("resolution", resolution, minimum=2, maximum=2**24)
    check_callable("fn", fn)
    centre = check_point("centre", centre)
    check_count("directions", directions, minimum=1, maximum=2**20)
    rays = _directions(len(centre), directions)
    lowest = _curvature(fn)
    return _radius(lowest, centre, rays, strong_convexity, np.linspace(0, max_radius, resolution))


def lowest_curvature(
    fn: Objective,
    centre: Sequence[float] | np.ndarray,
    radius: float,
    *,
    resolution: int = RESOLUTION,
    directions: int = DIRECTIONS,
) -> float:
    """Return the smallest eigenvalue of the Hessian of f over N(centre; radius), along rays.

    Args:
        fn: f, from shape (n,) to a scalar.
        centre: shape (n,).
        radius: not negative.
        resolution: how many radii.
        directions: how many rays, for n ≥ 2.

    Examples:
        >>> def cosine(x):
        ...     return -jnp.sum(jnp.cos(x))
        >>> round(lowest_curvature(cosine, [0.0], np.pi / 3), 6)  # cos π/3
        0.5
    """
    check_callable("fn", fn)
    centre = check_point("centre", centre)
    check_count("directions", directions, minimum=1, maximum=2**20)
    rays = _directions(len(centre), directions)
    check_interval("radius", radius, 0, np.inf, closed_high=False)
    check_count("resolution", resolution, minimum=1, maximum=2**24)
    return float(_along(_curvature(fn), centre, rays, np.linspace(0, radius, resolution)).min())


def check_sigma_nice(
    fn: Objective,
    strong_convexity: float,
    levels: Sequence[float] | np.ndarray,
    quadrature: Quadrature,
    *,
    box: float,
    max_radius: float | None = None,
    **search: int,
) -> SigmaNice:
    """Return how far the two conditions of σ-nice functions hold at the given levels.

    Args:
        fn: f, from shape (n,) to a scalar, twice differentiable.
        strong_convexity: σ > 0.
        levels: δ > 0.
        quadrature: the law of the noise; the definition has the uniform ball.
        box: minimisers are searched in |x_i| ≤ box.
        max_radius: how far to measure the radius; None for 4δ.
        **search: `grid` and `starts` of `smoothed_minimisers`.

    Examples:
        >>> from clipjax.analysis import noise_quadrature
        >>> def bowl(x):
        ...     return jnp.sum(x**2)
        >>> report = check_sigma_nice(bowl, 2.0, [1.0, 0.5], noise_quadrature("ball"), box=3.0)
        >>> report.holds.tolist(), report.curvature.tolist()
        ([True, True], [2.0, 2.0])
    """
    check_positive("strong_convexity", strong_convexity, finite=True)
    if max_radius is not None:
        check_positive("max_radius", max_radius, finite=True)
    deltas = check_levels(levels, positive=True)
    both = np.stack([deltas, deltas / 2], 1).ravel()
    found = smoothed_minimisers(fn, both, quadrature, box=box, **search)
    now, halved = found[::2], found[1::2]
    rays = _directions(now.shape[1], DIRECTIONS)
    lowest = _curvature(lambda x, delta: smooth(fn, delta, quadrature)(x))
    radii, curvatures = [], []
    for delta, centre in zip(deltas, now, strict=True):
        at_delta = functools.partial(lowest, args=(delta,))
        grid = np.linspace(0, 4 * delta if max_radius is None else max_radius, RESOLUTION)
        radii.append(_radius(at_delta, centre, rays, strong_convexity, grid))
        grid = np.linspace(0, 3 * delta, RESOLUTION)
        curvatures.append(_along(at_delta, centre, rays, grid).min())
    shift = np.linalg.norm(now - halved, axis=1)
    radius, curvature = np.array(radii), np.array(curvatures)
    holds = (shift <= deltas / 2) & (curvature >= strong_convexity)
    return SigmaNice(deltas, now, shift, radius, curvature, holds)


def check_new_sigma_nice(
    fn: Objective,
    strong_convexity: float,
    levels: Sequence[float] | np.ndarray,
    quadrature: Quadrature,
    minimiser: Sequence[float] | np.ndarray,
    *,
    box: float,
    max_radius: float,
    **search: int,
) -> NewSigmaNice:
    """Return how far the conditions of new σ-nice functions hold for a sequence of levels.

    Args:
        fn: f, from shape (n,) to a scalar, twice differentiable.
        strong_convexity: σ > 0.
        levels: δ_1 > ... > δ_M > 0, M ≥ 2.
        quadrature: the law of the noise.
        minimiser: x*, shape (n,).
        box: smoothed minimisers are searched in |x_i| ≤ box.
        max_radius: how far around x* to measure.
        **search: `grid` and `starts` of `smoothed_minimisers`.

    Raises:
        ValueError: if the levels do not fall, among others.

    Examples:
        >>> from clipjax.analysis import noise_quadrature
        >>> def bowl(x):
        ...     return jnp.sum(x**2)
        >>> report = check_new_sigma_nice(
        ...     bowl, 2.0, [1.0, 0.5], noise_quadrature("ball"), [0.0], box=3.0, max_radius=3.0
        ... )
        >>> report.holds.tolist(), report.d.tolist()
        ([True, True], [3.0, 6.0])
    """
    check_positive("strong_convexity", strong_convexity, finite=True)
    check_positive("max_radius", max_radius, finite=True)
    deltas = check_levels(levels, positive=True)
    if len(deltas) < 2 or not (np.diff(deltas) < 0).all():
        raise ValueError(f"levels must be at least two and fall strictly, got {levels}.")
    centre = check_point("minimiser", minimiser)
    found = smoothed_minimisers(fn, deltas, quadrature, box=box, **search)
    rays = _directions(len(centre), DIRECTIONS)
    grid = np.linspace(0, max_radius, RESOLUTION)
    lowest = _curvature(lambda x, delta: smooth(fn, delta, quadrature)(x))
    radius = np.array(
        [
            _radius(functools.partial(lowest, args=(d,)), centre, rays, strong_convexity, grid)
            for d in deltas
        ]
    )
    d = radius / deltas
    shift = np.linalg.norm(np.diff(found, axis=0), axis=1)
    allowed = -np.diff(deltas)
    distance = np.linalg.norm(found - centre, axis=1)
    gamma = deltas[1:] / deltas[:-1]
    near = np.append(shift <= allowed, True)
    reaches = (gamma * d[1:] > 1) & (distance[:-1] < radius[1:])
    return NewSigmaNice(
        deltas, found, shift, allowed, radius, d, distance, gamma, near & (d >= 1), reaches
    )


def _curvature(fn: Callable[..., jax.Array]) -> Callable[..., np.ndarray]:
    """Return a function from points (k, n) to the smallest eigenvalues of f's Hessian, (k,)."""

    def one(x: jax.Array, args: tuple[float, ...]) -> jax.Array:
        return jnp.linalg.eigvalsh(jax.hessian(fn)(x, *args))[0]

    batched = jax.jit(
        lambda points, args: jax.lax.map(lambda x: one(x, args), points, batch_size=64)
    )

    def lowest(points: np.ndarray, args: tuple[float, ...] = ()) -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(batched(jnp.asarray(points), args))

    return lowest


def _along(
    lowest: Callable[[np.ndarray], np.ndarray],
    centre: np.ndarray,
    rays: np.ndarray,
    radii: np.ndarray,
) -> np.ndarray:
    """Return the smallest eigenvalues at centre + radius * ray, shape (rays, radii)."""
    points = centre + radii[None, :, None] * rays[:, None, :]
    return lowest(points.reshape(-1, len(centre))).reshape(len(rays), len(radii))


def _radius(
    lowest: Callable[[np.ndarray], np.ndarray],
    centre: np.ndarray,
    rays: np.ndarray,
    strong_convexity: float,
    radii: np.ndarray,
) -> float:
    """Return the radius up to which the smallest eigenvalue is at least σ along all the rays."""
    # Not "smaller": a curvature that is NaN is none that is large enough.
    below = ~(_along(lowest, centre, rays, radii) >= strong_convexity)
    if below[:, 0].any():
        return 0.0
    if not below.any():
        return float(radii[-1])
    first = below.any(axis=0).argmax()
    failing = rays[below[:, first]]
    low, high = (np.full(len(failing), radii[i]) for i in (first - 1, first))
    for _ in range(40):
        middle = (low + high) / 2
        fails = ~(lowest(centre + middle[:, None] * failing) >= strong_convexity)
        low, high = np.where(fails, low, middle), np.where(fails, middle, high)
    return float(low.min())


def _directions(dimension: int, count: int) -> np.ndarray:
    if dimension == 1:
        return np.array([[1.0], [-1.0]])
    if dimension == 2:
        angle = 2 * np.pi * np.arange(count) / count
        return np.stack([np.cos(angle), np.sin(angle)], 1)
    normal = scipy.special.ndtri(sobol_points(dimension, count))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)
