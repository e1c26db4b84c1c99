"""Minimisers of smoothed functions of few coordinates: global ones, and where descent leads.

Computed in float64 with fixed quadrature points (`noise_quadrature`), so without random numbers.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage
import scipy.optimize

from clipjax.analysis.quadrature import Quadrature, smooth, sobol_points
from clipjax.optim._checks import (
    as_numbers,
    check_callable,
    check_count,
    check_instance,
    check_positive,
)

Objective = Callable[[jax.Array], jax.Array]

STILL = 1e-9
"""A descent has ended when its next step is no longer than this."""


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

    The best local minima of a grid are refined with L-BFGS-B, and the best result is taken; of
    equally good ones (as an even function has) the one nearest to the previous level's minimiser.
    A minimum narrower than the grid's spacing can be missed.

    Args:
        fn: f, from shape (n,) to a scalar, defined around the box too.
        levels: δ ≥ 0, shape (levels,); 0 is f itself.
        quadrature: the law of the noise in n dimensions (`noise_quadrature`).
        box: half of the box's side.
        grid: about how many points to try; a lattice for n ≤ 2, Sobol points for more.
        starts: how many of them to refine: the lowest that no neighbour undercuts (n ≤ 2).

    Returns:
        float64, shape (levels, n).

    Raises:
        ValueError: if the smoothed function has no finite value in the box.

    Examples:
        >>> from clipjax.analysis import noise_quadrature
        >>> def tilted(x):  # two wells; the right one is deeper, the left one wider
        ...     return -jnp.sum(1.2 * jnp.exp(-(((x - 2) / 0.3) ** 2)) + jnp.exp(-((x + 1) ** 2)))
        >>> found = smoothed_minimisers(tilted, [1.0, 0.01], noise_quadrature("ball"), box=4.0)
        >>> found[:, 0].round(1).tolist()
        [-1.0, 2.0]
    """
    check_callable("fn", fn)
    check_instance("quadrature", quadrature, Quadrature, "from noise_quadrature")
    check_levels(levels)
    check_positive("box", box, finite=True)
    check_count("grid", grid, minimum=2, maximum=2**24)
    check_count("starts", starts, minimum=1)
    dimension = quadrature.points.shape[1]
    lattice = box * _lattice(dimension, grid)
    bounds = [(-box, box)] * dimension
    found = []
    with jax.enable_x64(True):
        values = jax.jit(jax.vmap(lambda x, d: smooth(fn, d, quadrature)(x), (0, None)))
        value_and_grad = jax.jit(lambda x, d: jax.value_and_grad(smooth(fn, d, quadrature))(x))
        for delta in np.asarray(levels, float):
            results = [
                scipy.optimize.minimize(
                    lambda x, delta=delta: _as_numpy(value_and_grad(x, delta)),
                    start,
                    jac=True,
                    method="L-BFGS-B",
                    bounds=bounds,
                    options={"ftol": 1e-15, "gtol": 1e-10},
                )
                for start in lattice[_lowest(np.asarray(values(lattice, delta)), dimension, starts)]
            ]
            results = [result for result in results if np.isfinite(result.fun)]
            if not results:
                raise ValueError(
                    f"fn smoothed at level {delta:g} has no finite value in the box of {box:g}, or "
                    "the descent from each leads where it has none."
                )
            least = min(result.fun for result in results)
            ties = [r.x for r in results if r.fun <= least + 1e-10 * (1 + abs(least))]
            previous = found[-1] if found else ties[0]
            found.append(min(ties, key=lambda x, to=previous: float(np.linalg.norm(x - to))))
    return np.array(found)


def minimiser_path(
    fn: Objective,
    levels: Sequence[float] | np.ndarray,
    quadrature: Quadrature,
    start: Sequence[float] | np.ndarray,
    *,
    max_step: float = 0.02,
    max_steps: int = 20_000,
) -> np.ndarray:
    """Return where descent leads when each level starts from the minimiser of the one before.

    This is graduated optimisation without its errors: every smoothed function is minimised to the
    end. Steps are Newton's with the Hessian's eigenvalues made positive, x - |H|⁻¹ g, which lead
    downhill everywhere, and are too short to leap out of a valley. A point that comes to rest on a
    crest (when the minimum it sat in has turned into one) is pushed off.

    Args:
        fn: f, from shape (n,) to a scalar.
        levels: δ_1, ..., δ_M ≥ 0, in the order in which they are descended.
        quadrature: the law of the noise in n dimensions.
        start: the first point, shape (n,).
        max_step: the longest step of the descent, in the units of x.
        max_steps: how many steps a level may take.

    Returns:
        float64, shape (M + 1, n): the start and the M local minimisers; NaN from the level on at
        which a derivative on the way is not finite.

    Raises:
        RuntimeError: if a descent takes more than `max_steps` steps.

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
    check_callable("fn", fn)
    check_instance("quadrature", quadrature, Quadrature, "from noise_quadrature")
    check_levels(levels)
    check_positive("max_step", max_step, finite=True)
    check_count("max_steps", max_steps, minimum=1)
    check_point("start", start)

    def descend(x: jax.Array, delta: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        smoothed = smooth(fn, delta, quadrature)

        def newton(x: jax.Array) -> jax.Array:
            eigenvalues, vectors = jnp.linalg.eigh(jax.hessian(smoothed)(x))
            along = vectors.T @ jax.grad(smoothed)(x)
            step = vectors @ (along / jnp.maximum(jnp.abs(eigenvalues), 1e-12))
            size = jnp.linalg.norm(step)
            on_crest = (size <= STILL) & (eigenvalues[0] < -1e-9 * jnp.abs(eigenvalues[-1]) - 1e-9)
            step = step * jnp.minimum(1, max_step / jnp.maximum(size, 1e-300))
            return jnp.where(on_crest, max_step * vectors[:, 0], step)

        def unfinished(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            _, step, count = carry
            return (jnp.linalg.norm(step) > STILL) & (count < max_steps)

        def move(carry: tuple[jax.Array, jax.Array, jax.Array]):
            x, step, count = carry
            x = x - step
            return x, newton(x), count + 1

        x, step, count = jax.lax.while_loop(unfinished, move, (x, newton(x), jnp.int32(0)))
        # A step that is NaN ends the loop, too, and then this point is no minimiser.
        x = jnp.where(jnp.all(jnp.isfinite(step)), x, jnp.nan)
        return x, (x, count)

    with jax.enable_x64(True):
        first = jnp.asarray(start, float)
        deltas = jnp.asarray(levels, float)
        _, (path, counts) = jax.jit(lambda x, d: jax.lax.scan(descend, x, d))(first, deltas)
        path, counts = np.asarray(path), np.asarray(counts)
    if (counts >= max_steps).any():
        stuck = np.asarray(levels)[counts >= max_steps][0]
        raise RuntimeError(
            f"the descent at level {stuck:g} did not end in {max_steps} steps; allow more "
            "(max_steps) or, if it goes to and fro, use a smaller max_step."
        )
    return np.concatenate([np.asarray(start, float)[None], path])


def _as_numpy(value_and_grad: tuple[jax.Array, jax.Array]) -> tuple[float, np.ndarray]:
    value, gradient = value_and_grad
    return float(value), np.asarray(gradient, float)


def _lattice(dimension: int, count: int) -> np.ndarray:
    """Return about `count` points of [-1, 1]^n, 0 among them up to two dimensions."""
    if dimension > 2:
        return 2 * sobol_points(dimension, count) - 1
    side = 2 * round((count ** (1 / dimension) - 1) / 2) + 1
    axes = np.meshgrid(*[np.linspace(-1, 1, side)] * dimension, indexing="ij")
    return np.stack([axis.ravel() for axis in axes], 1)


def _lowest(values: np.ndarray, dimension: int, count: int) -> np.ndarray:
    """Return the indices of the `count` lowest values undercut by no neighbour (n ≤ 2)."""
    if dimension <= 2:
        table = values.reshape((round(values.size ** (1 / dimension)),) * dimension)
        valley = scipy.ndimage.minimum_filter(table, size=3, mode="nearest") == table
        values = np.where(valley.ravel(), values, np.inf)
    order = np.argsort(values, kind="stable")[:count]
    return order[np.isfinite(values[order])]


def check_point(name: str, point: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return a point in float64; raise ValueError unless it is a list of finite numbers."""
    numbers = as_numbers(name, point).astype(float)
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise ValueError(f"{name} must be a list of finite numbers, got {point}.")
    return numbers


def check_levels(levels: Sequence[float] | np.ndarray, *, positive: bool = False) -> np.ndarray:
    """Return the levels in float64; raise ValueError unless finite, not negative (or positive)."""
    deltas = as_numbers("levels", levels).astype(float)
    good = np.isfinite(deltas) & ((deltas > 0) if positive else (deltas >= 0))
    if deltas.ndim != 1 or not deltas.size or not good.all():
        sign = "positive" if positive else "not negative"
        raise ValueError(f"levels must be a list of finite numbers, {sign}, got {levels}.")
    return deltas
