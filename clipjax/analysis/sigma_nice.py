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

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.special

from clipjax.analysis.quadrature import Quadrature, smooth, sobol_points
from clipjax.optim._checks import check_count, check_positive

Objective = Callable[[jax.Array], jax.Array]


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


def smoothed_minimisers(
    fn: Objective,
    levels: Sequence[float] | np.ndarray,
    quadrature: Quadrature,
    *,
    box: float,
    grid: int = 2001,
    starts: int = 5,
) -> np.ndarray:
    """Return x*_δ, the global minimiser of f̂_δ over |x_i| ≤ `box`, for each level.

    The best grid points are refined with L-BFGS-B, and the best result is taken. A minimum narrower
    than the grid's spacing can be missed.

    Args:
        fn: f, from shape (n,) to a scalar, defined around the box too.
        levels: δ ≥ 0, shape (levels,); 0 is f itself.
        quadrature: the law of the noise in n dimensions (`noise_quadrature`).
        box: half of the box's side.
        grid: about how many points to try; a lattice for n ≤ 2, Sobol points for more.
        starts: how many of them to refine.

    Returns:
        float64, shape (levels, n).

    Examples:
        >>> from clipjax.analysis import noise_quadrature
        >>> def tilted(x):  # two wells; the right one is deeper, the left one wider
        ...     return -jnp.sum(1.2 * jnp.exp(-(((x - 2) / 0.3) ** 2)) + jnp.exp(-((x + 1) ** 2)))
        >>> found = smoothed_minimisers(tilted, [1.0, 0.01], noise_quadrature("ball"), box=4.0)
        >>> found[:, 0].round(1).tolist()
        [-1.0, 2.0]
    """
    _check_levels(levels)
    check_positive("box", box, finite=True)
    check_count("grid", grid, minimum=2)
    check_count("starts", starts, minimum=1)
    dimension = quadrature.points.shape[1]
    lattice = box * _lattice(dimension, grid)
    bounds = [(-box, box)] * dimension
    found = []
    with jax.enable_x64(True):
        values = jax.jit(jax.vmap(lambda x, d: smooth(fn, d, quadrature)(x), (0, None)))
        value_and_grad = jax.jit(lambda x, d: jax.value_and_grad(smooth(fn, d, quadrature))(x))
        for delta in np.asarray(levels, float):
            best = np.argsort(np.asarray(values(lattice, delta)), kind="stable")[:starts]
            refined = [
                scipy.optimize.minimize(
                    lambda x, delta=delta: _as_numpy(value_and_grad(x, delta)),
                    lattice[i],
                    jac=True,
                    method="L-BFGS-B",
                    bounds=bounds,
                    options={"ftol": 1e-15, "gtol": 1e-10},
                )
                for i in best
            ]
            found.append(min(refined, key=lambda result: result.fun).x)
    return np.array(found)


def minimiser_path(
    fn: Objective,
    levels: Sequence[float] | np.ndarray,
    quadrature: Quadrature,
    start: Sequence[float] | np.ndarray,
    *,
    max_step: float = 0.02,
) -> np.ndarray:
    """Return where descent leads when each level starts from the minimiser of the one before.

    This is graduated optimisation without its errors: every smoothed function is minimised to the
    end, by a trust-region Newton method whose steps are too short to leap out of a valley.

    Args:
        fn: f, from shape (n,) to a scalar.
        levels: δ_1, ..., δ_M ≥ 0, in the order in which they are descended.
        quadrature: the law of the noise in n dimensions.
        start: the first point, shape (n,).
        max_step: the longest step of the descent, in the units of x.

    Returns:
        float64, shape (M + 1, n): the start and the M minimisers.

    Examples:
        >>> from clipjax.analysis import noise_quadrature
        >>> def waves(x):
        ...     return jnp.sum(x**2 + 10 - 10 * jnp.cos(2 * jnp.pi * x))
        >>> normal = noise_quadrature("gaussian")
        >>> abs(minimiser_path(waves, [0.5, 0.2, 0.0], normal, [2.9])[-1]).round(6).tolist()
        [0.0]
        >>> minimiser_path(waves, [0.0], normal, [2.9])[-1].round(3).tolist()
        [2.985]
    """
    _check_levels(levels)
    check_positive("max_step", max_step, finite=True)
    path = [np.asarray(start, float)]
    with jax.enable_x64(True):
        derivatives = [
            jax.jit(lambda x, d, make=make: make(smooth(fn, d, quadrature))(x))
            for make in (jax.value_and_grad, jax.hessian)
        ]
        for delta in np.asarray(levels, float):
            result = scipy.optimize.minimize(
                lambda x, delta=delta: _as_numpy(derivatives[0](x, delta)),
                path[-1],
                jac=True,
                hess=lambda x, delta=delta: np.asarray(derivatives[1](x, delta)),
                method="trust-exact",
                options={
                    "initial_trust_radius": max_step / 2,
                    "max_trust_radius": max_step,
                    "maxiter": 100_000,
                    "gtol": 1e-9,
                },
            )
            path.append(result.x)
    return np.array(path)


def strong_convexity_radius(
    fn: Objective,
    centre: Sequence[float] | np.ndarray,
    strong_convexity: float,
    *,
    max_radius: float,
    resolution: int = 500,
    directions: int = 32,
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
    check_count("resolution", resolution, minimum=2)
    centre = np.asarray(centre, float)
    rays = _directions(len(centre), directions)
    radii = np.linspace(0, max_radius, resolution)
    with jax.enable_x64(True):
        lowest = _lowest_curvature(fn)
        curvature = _along(lowest, centre, rays, radii)
        below = curvature < strong_convexity
        if below[:, 0].any():
            return 0.0
        if not below.any():
            return float(max_radius)
        first = below.any(axis=0).argmax()
        crossings = []
        for ray in rays[below[:, first]]:
            low, high = radii[first - 1], radii[first]
            for _ in range(50):
                middle = (low + high) / 2
                fails = lowest((centre + middle * ray)[None])[0] < strong_convexity
                low, high = (low, middle) if fails else (middle, high)
            crossings.append(low)
    return float(min(crossings))


def lowest_curvature(
    fn: Objective,
    centre: Sequence[float] | np.ndarray,
    radius: float,
    *,
    resolution: int = 500,
    directions: int = 32,
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
    centre = np.asarray(centre, float)
    rays = _directions(len(centre), directions)
    with jax.enable_x64(True):
        radii = np.linspace(0, radius, resolution)
        return float(_along(_lowest_curvature(fn), centre, rays, radii).min())


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
    deltas = _check_levels(levels, positive=True)
    both = np.stack([deltas, deltas / 2], 1).ravel()
    found = smoothed_minimisers(fn, both, quadrature, box=box, **search)
    now, halved = found[::2], found[1::2]
    radii, curvatures = [], []
    for delta, centre in zip(deltas, now, strict=True):
        smoothed = smooth(fn, delta, quadrature)
        reach = 4 * delta if max_radius is None else max_radius
        radii.append(strong_convexity_radius(smoothed, centre, strong_convexity, max_radius=reach))
        curvatures.append(lowest_curvature(smoothed, centre, 3 * delta))
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
    """
    check_positive("strong_convexity", strong_convexity, finite=True)
    deltas = _check_levels(levels, positive=True)
    if len(deltas) < 2 or not (np.diff(deltas) < 0).all():
        raise ValueError(f"levels must be at least two and fall strictly, got {levels}.")
    centre = np.asarray(minimiser, float)
    found = smoothed_minimisers(fn, deltas, quadrature, box=box, **search)
    radius = np.array(
        [
            strong_convexity_radius(
                smooth(fn, delta, quadrature), centre, strong_convexity, max_radius=max_radius
            )
            for delta in deltas
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


def _as_numpy(value_and_grad: tuple[jax.Array, jax.Array]) -> tuple[float, np.ndarray]:
    value, gradient = value_and_grad
    return float(value), np.asarray(gradient, float)


def _lowest_curvature(fn: Objective) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from points (k, n) to the smallest eigenvalues of the Hessian (k,)."""

    def one(x: jax.Array) -> jax.Array:
        return jnp.linalg.eigvalsh(jax.hessian(fn)(x))[0]

    batched = jax.jit(lambda points: jax.lax.map(one, points, batch_size=64))
    return lambda points: np.asarray(batched(jnp.asarray(points)))


def _along(
    lowest: Callable[[np.ndarray], np.ndarray],
    centre: np.ndarray,
    rays: np.ndarray,
    radii: np.ndarray,
) -> np.ndarray:
    points = centre + radii[None, :, None] * rays[:, None, :]
    return lowest(points.reshape(-1, len(centre))).reshape(len(rays), len(radii))


def _directions(dimension: int, count: int) -> np.ndarray:
    if dimension == 1:
        return np.array([[1.0], [-1.0]])
    if dimension == 2:
        angle = 2 * np.pi * np.arange(count) / count
        return np.stack([np.cos(angle), np.sin(angle)], 1)
    normal = scipy.special.ndtri(sobol_points(dimension, count))
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


def _lattice(dimension: int, count: int) -> np.ndarray:
    """Return about `count` points of [-1, 1]^n, 0 among them up to two dimensions."""
    if dimension > 2:
        return 2 * sobol_points(dimension, count) - 1
    side = 2 * round((count ** (1 / dimension) - 1) / 2) + 1
    axes = np.meshgrid(*[np.linspace(-1, 1, side)] * dimension, indexing="ij")
    return np.stack([axis.ravel() for axis in axes], 1)


def _check_levels(levels: Sequence[float] | np.ndarray, *, positive: bool = False) -> np.ndarray:
    deltas = np.asarray(levels, float)
    good = np.isfinite(deltas) & ((deltas > 0) if positive else (deltas >= 0))
    if deltas.ndim != 1 or not deltas.size or not good.all():
        sign = "positive" if positive else "not negative"
        raise ValueError(f"levels must be a list of finite numbers, {sign}, got {levels}.")
    return deltas
