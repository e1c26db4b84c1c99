"""A loss along a line or over a plane in parameter space: pictures of where a method went.

Directions are random, or lead through given points (checkpoints). Random directions are scaled
filter by filter, so that a step of 1 changes every filter by its own length: without that, a
network whose weights are large looks flat and one whose weights are small looks steep, though
ReLU networks with BatchNorm compute the same after rescaling (Li et al. 2018).
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class Plane(NamedTuple):
    """A loss over a plane.

    Attributes:
        alphas: coordinates along the first direction, (rows,).
        betas: coordinates along the second, (columns,).
        values: the loss at point + α first + β second, (rows, columns).
    """

    alphas: np.ndarray
    betas: np.ndarray
    values: np.ndarray


def random_direction(params: Any, key: jax.Array, *, normalise: str = "filter") -> Any:
    """Return a random direction, a tree like `params`.

    Args:
        params: the point; its leaves with two axes or more are taken as kernels whose last axis is
            the output (Flax's order), others (biases, scales) as one vector.
        key: the randomness.
        normalise: "filter" gives each filter (the slice of a kernel at one output) the norm that
            the point's filter has, and leaves biases and scales out (zero), as Li et al.;
            "tensor" gives each leaf the point's norm; "none" leaves normal numbers.

    Raises:
        ValueError: for another `normalise`.

    Examples:
        >>> params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]]), "bias": jnp.ones(2)}
        >>> direction = random_direction(params, jax.random.key(0))
        >>> jnp.linalg.norm(direction["kernel"], axis=0).round(4).tolist()
        [5.0, 2.0]
        >>> direction["bias"].tolist()
        [0.0, 0.0]

    References:
        Li, Xu, Taylor, Studer, Goldstein, Visualizing the loss landscape of neural nets, 2018
        (https://arxiv.org/abs/1712.09913), section 4.
    """
    if normalise not in ("filter", "tensor", "none"):
        raise ValueError(f"normalise is {normalise!r}; expected 'filter', 'tensor' or 'none'")
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))

    def direction(leaf: jax.Array, key: jax.Array) -> jax.Array:
        leaf = jnp.asarray(leaf)
        noise = jax.random.normal(key, leaf.shape, leaf.dtype)
        if normalise == "none":
            return noise
        if normalise == "filter" and leaf.ndim < 2:
            return jnp.zeros_like(leaf)
        axes = tuple(range(leaf.ndim - 1)) if normalise == "filter" else None
        size, wanted = (jnp.sqrt(jnp.sum(x**2, axis=axes, keepdims=True)) for x in (noise, leaf))
        return noise * wanted / jnp.where(size > 0, size, 1)

    return jax.tree.unflatten(
        treedef, [direction(*pair) for pair in zip(leaves, keys, strict=True)]
    )


def line(
    loss: Callable[[Any], jax.Array],
    point: Any,
    direction: Any,
    alphas: Sequence[float] | np.ndarray,
    *,
    chunk: int = 16,
    stacked: bool = False,
) -> np.ndarray:
    """Return the loss at point + α direction for every α, (points,).

    Args:
        loss: parameters -> scalar; traceable. See `stacked`.
        point: parameters.
        direction: a tree like `point`.
        alphas: coordinates.
        chunk: points evaluated at once by `vmap`; each needs a copy of the parameters.
        stacked: as in `plane`.

    Examples:
        >>> line(lambda x: jnp.sum(x**2), jnp.ones(2), jnp.array([1.0, 0.0]), [-1, 0, 1]).tolist()
        [1.0, 2.0, 5.0]
    """
    alphas = np.asarray(alphas, float)
    zero = jax.tree.map(jnp.zeros_like, direction)
    found = plane(loss, point, direction, zero, alphas, [0.0], chunk=chunk, stacked=stacked)
    return found.values[:, 0]


def plane(
    loss: Callable[[Any], jax.Array],
    point: Any,
    first: Any,
    second: Any,
    alphas: Sequence[float] | np.ndarray,
    betas: Sequence[float] | np.ndarray,
    *,
    chunk: int = 16,
    stacked: bool = False,
) -> Plane:
    """Return the loss at point + α first + β second for every α and β.

    Args:
        loss: parameters -> scalar; traceable. See `stacked`.
        point: parameters.
        first: a tree like `point`.
        second: a tree like `point`.
        alphas: coordinates along the first direction, at least one.
        betas: coordinates along the second, at least one.
        chunk: points evaluated at once by `vmap`; each needs a copy of the parameters.
        stacked: whether `loss` takes `chunk` points at once instead, each leaf (chunk, ...), and
            returns (chunk,). It is called outside of `jit`: for a loss that goes through data, as
            one that measures BatchNorm's statistics at each point.

    Raises:
        ValueError: for no coordinates, a chunk below 1, directions unlike the point, or a stacked
            loss that does not return a value for each point.

    Examples:
        >>> e = jnp.eye(2)
        >>> plane(lambda x: x[0] - x[1], jnp.zeros(2), e[0], e[1], [0, 1], [0, 1]).values.tolist()
        [[0.0, -1.0], [1.0, 0.0]]
        >>> def many(points):
        ...     return points[:, 0] - points[:, 1]
        >>> plane(many, jnp.zeros(2), e[0], e[1], [0, 1], [0, 1], stacked=True).values.tolist()
        [[0.0, -1.0], [1.0, 0.0]]
    """
    alphas, betas = np.asarray(alphas, float), np.asarray(betas, float)
    if alphas.ndim != 1 or betas.ndim != 1 or not (alphas.size and betas.size):
        raise ValueError(
            f"coordinates of shapes {alphas.shape}, {betas.shape}; expected (n,), n > 0"
        )
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; it must be at least 1")
    for direction in (first, second):
        _check_like(point, direction)

    def at(where: jax.Array, point: Any, first: Any, second: Any) -> Any:
        return jax.tree.map(
            lambda x, a, b: x + where[0].astype(x.dtype) * a + where[1].astype(x.dtype) * b,
            point,
            first,
            second,
        )

    def value(where: jax.Array, *directions: Any) -> jax.Array:
        return loss(at(where, *directions))

    each = jax.jit(jax.vmap(at if stacked else value, in_axes=(0, None, None, None)))

    def values(where: jax.Array, *directions: Any) -> jax.Array:
        found = each(where, *directions)
        if not stacked:
            return found
        several = loss(found)
        if jnp.shape(several) != where.shape[:1]:
            raise ValueError(
                f"a stacked loss returned shape {jnp.shape(several)} for {len(where)} points; "
                f"expected ({len(where)},), a value for each"
            )
        return several

    grid = np.stack(np.meshgrid(alphas, betas, indexing="ij"), axis=-1).reshape(-1, 2)
    size = min(chunk, len(grid))
    found = []
    for start in range(0, len(grid), size):
        part = grid[np.minimum(np.arange(start, start + size), len(grid) - 1)]
        kept = min(size, len(grid) - start)
        found.append(np.asarray(values(jnp.asarray(part), point, first, second))[:kept])
    return Plane(alphas, betas, np.concatenate(found).reshape(len(alphas), len(betas)))


class PlaneThrough(NamedTuple):
    """A plane through points, with orthonormal directions.

    Attributes:
        point: the origin.
        first: a direction of length 1.
        second: one of length 1 orthogonal to it.
        coordinates: the points in the plane, (points, 2); those off the plane are projected.
        residuals: their distances from the plane, (points,).
    """

    point: Any
    first: Any
    second: Any
    coordinates: np.ndarray
    residuals: np.ndarray


def plane_through(points: Sequence[Any]) -> PlaneThrough:
    """Return the plane that best holds some points, the last of which is its origin.

    With three points it is the plane through them; with more, that of the two principal directions
    of their offsets from the last one (Li et al. 2018, section 7).

    Args:
        points: trees alike, three or more, not all on one line.

    Raises:
        ValueError: for fewer than three points, or points on a line.

    Examples:
        >>> found = plane_through([jnp.array([0.0, 0, 5]), jnp.array([2.0, 0, 5]), jnp.zeros(3)])
        >>> bool(np.abs(found.residuals).max() < 1e-5)
        True
    """
    if len(points) < 3:
        raise ValueError(f"{len(points)} points; a plane needs at least three")
    for point in points:
        _check_like(points[-1], point)
    flat = np.stack(
        [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(p)]) for p in points]
    )
    offsets = flat.astype(float)[:-1] - flat[-1]
    # Principal directions of the offsets, from their small Gram matrix.
    squares, vectors = np.linalg.eigh(offsets @ offsets.T)
    if squares[-2] <= 1e-12 * squares[-1]:
        raise ValueError("the points lie on a line; a plane needs three that do not")
    directions = (vectors[:, [-1, -2]] / np.sqrt(squares[[-1, -2]])).T @ offsets
    coordinates = offsets @ directions.T
    residuals = np.linalg.norm(offsets - coordinates @ directions, axis=1)
    first, second = (_unflatten(direction, points[-1]) for direction in directions)
    origin = np.zeros((1, 2))
    return PlaneThrough(
        points[-1],
        first,
        second,
        np.concatenate([coordinates, origin]),
        np.append(residuals, 0.0),
    )


def _unflatten(flat: np.ndarray, like: Any) -> Any:
    leaves, treedef = jax.tree.flatten(like)
    ends = np.cumsum([np.size(leaf) for leaf in leaves])[:-1]
    parts = np.split(flat, ends)
    shaped = [
        jnp.asarray(part.reshape(np.shape(leaf)), jnp.asarray(leaf).dtype)
        for part, leaf in zip(parts, leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, shaped)


def _check_like(point: Any, direction: Any) -> None:
    shapes = [jax.tree.map(jnp.shape, tree) for tree in (point, direction)]
    if jax.tree.structure(point) != jax.tree.structure(direction) or shapes[0] != shapes[1]:
        raise ValueError(
            f"a direction of shapes {shapes[1]}; expected those of the point, {shapes[0]}"
        )


def path_length(points: Sequence[Any]) -> float:
    """Return the length of the polygon through points: how far a method went.

    Examples:
        >>> path_length([jnp.zeros(2), jnp.array([3.0, 4.0]), jnp.array([3.0, 0.0])])
        9.0
    """
    steps = itertools.pairwise(points)
    return float(sum(optax.tree.norm(optax.tree.sub(b, a)) for a, b in steps))
