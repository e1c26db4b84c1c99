"""Estimates of the constants that theorems ask for, from gradients: L, and σ of a moment.

All are pure functions of trees of arrays, and work under `jit` and `vmap`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from clipjax.optim._checks import (
    check_callable,
    check_count,
    check_floating,
    check_interval,
    check_key,
    check_like,
    naming,
)
from clipjax.optim._trees import wide_dtype
from clipjax.optim.clipping.norms import scaled_norm


def estimate_smoothness(
    fn: Callable[[optax.Params], jax.Array],
    params: optax.Params,
    key: jax.Array,
    *,
    steps: int = 100,
) -> jax.Array:
    r"""Estimate ‖∇²f(x)‖₂, the smoothness at one point, by power iteration.

    .. math::

       v \leftarrow \nabla^2 f(x)\, v / \|v\|, \qquad \hat L = \|\nabla^2 f(x)\, v\| / \|v\|

    Each step costs a Hessian-vector product, about two gradients.

    **Bias.** Never above ‖∇²f(x)‖₂, rounding aside, and rising in every step. With n parameters
    and eigenvalues |λ_1| > |λ_2| ≥ ... it is short by a factor 1 − O(n (λ_2/λ_1)^{2 steps}).
    And L of the theorems is the supremum over all x: take the largest estimate over the points that
    matter, or a bound that holds everywhere. (`optax.power_iteration` returns the Rayleigh
    quotient, which is far off where −λ_1 is an eigenvalue too, as it may be off the convex world.)

    Args:
        fn: f, a twice differentiable function of the parameters alone (batch closed over).
        params: x, a tree of floating-point arrays.
        key: random key of the starting direction; the same key gives the same estimate.
        steps: number of Hessian-vector products.

    Returns:
        A scalar, float32 or wider; 0 where the Hessian is zero, NaN where it is not finite or its
        norm exceeds the largest float.

    Raises:
        ValueError: for `steps` below 1 or parameters that are not real floating-point arrays.

    Examples:
        >>> def f(x):
        ...     return x[0] ** 2 + 3 * x[1] ** 2
        >>> print(f"{estimate_smoothness(f, jnp.zeros(2), jax.random.key(0)):.4f}")
        6.0000
    """
    check_callable("fn", fn)
    check_key("key", key)
    check_count("steps", steps, minimum=1)
    check_floating(params)
    params = jax.tree.map(jnp.asarray, params)
    gradient = jax.grad(fn)

    def scaled(tree: optax.Params, norm: jax.Array) -> optax.Params:
        # A norm beyond the largest float would leave a direction of zeros, and an estimate of 0.
        safe = jnp.where(norm == 0, 1, jnp.where(jnp.isinf(norm), jnp.nan, norm))
        return jax.tree.map(lambda leaf: (leaf.astype(safe.dtype) / safe).astype(leaf.dtype), tree)

    def step(direction: optax.Params, _: None) -> tuple[optax.Params, jax.Array]:
        _, image = jax.jvp(gradient, (params,), (direction,))
        norm = scaled_norm(image).norm()
        return scaled(image, norm), norm

    start = optax.tree.random_like(key, params)
    start = scaled(start, scaled_norm(start).norm())
    with naming("fn", "params"):
        _, norms = jax.lax.scan(step, start, length=steps)
    return norms[-1]


def estimate_smoothness_from_gradients(points: optax.Params, gradients: optax.Updates) -> jax.Array:
    r"""Estimate L from the gradients along a trajectory.

    .. math:: \hat L = \max_k \|g_{k+1} - g_k\| / \|x_{k+1} - x_k\|

    **Bias.** Never above L, and as far below as the trajectory misses the directions and places of
    the largest curvature. That is for exact gradients, or for those of one draw ξ (then of its L).
    The noise of independent draws adds to every difference: with short steps the estimate measures
    √2 σ/‖x_{k+1} − x_k‖ and has nothing to say about L.

    Args:
        points: x_0, ..., x_{n-1}, n ≥ 2, stacked along the leading axis of every leaf.
        gradients: the gradients there, stacked alike.

    Returns:
        A scalar, float32 or wider. Pairs of equal points are left out; 0 if all are. NaN if a point
        is not finite, or a gradient of points that differ.

    Raises:
        ValueError: if there are fewer than two points.

    Examples:
        >>> x = jnp.array([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
        >>> print(estimate_smoothness_from_gradients(x, x * jnp.array([2.0, 6.0])))
        6.0
    """
    check_floating(points, "points")
    check_floating(gradients, "gradients")
    points, gradients = jax.tree.map(jnp.asarray, (points, gradients))
    _count("points", points, 2)
    check_like("gradients", gradients, "points", points)

    def lengths_of_steps(tree: optax.Params) -> jax.Array:
        dtype = wide_dtype(tree)
        steps = jax.tree.map(lambda leaf: jnp.diff(leaf.astype(dtype), axis=0), tree)
        return jax.vmap(lambda step: scaled_norm(step).norm())(steps)

    moved, changed = lengths_of_steps(points), lengths_of_steps(gradients)
    return jnp.max(jnp.where(moved == 0, 0, changed / jnp.where(moved == 0, 1, moved)))


def estimate_noise_scale(
    gradients: optax.Updates,
    *,
    moment: jax.typing.ArrayLike = 2.0,
    mean: optax.Updates | None = None,
) -> jax.Array:
    r"""Estimate σ of E‖∇f(x, ξ) − ∇f(x)‖^α ≤ σ^α from n stochastic gradients at one point.

    .. math::

       \hat\sigma^\alpha = \frac{1}{n - 1} \sum_{i=1}^n \|g_i - \bar g\|^\alpha, \qquad
       \bar g = \frac{1}{n} \sum_i g_i

    With the exact gradient as `mean` it takes the place of ḡ, and n that of n − 1.

    **Bias.** σ̂² is unbiased for α = 2, and so is σ̂^α for every α where `mean` is given; the root σ̂
    itself is below σ on average, by about σ Var(σ̂^α)/σ^{2α} (α − 1)/(2α²), which is O(1/n). For
    α < 2 and ḡ the bias of σ̂^α is O(1/n) for noise of finite variance, and O(n^{1−p}) if its tail
    index is p in (α, 2). Under a tail index of α or less there is no σ: the estimate grows with n
    without limit. The theorems ask for the supremum over x; this is the σ of one point.

    For means of b gradients multiply by √b (α = 2).

    Args:
        gradients: g_1, ..., g_n, stacked along the leading axis of every leaf; independent draws.
        moment: α in (1, 2].
        mean: ∇f(x), if it is known; a tree like one gradient.

    Returns:
        A scalar, float32 or wider.

    Raises:
        ValueError: for a concrete `moment` outside (1, 2], or fewer than two gradients (one, if
            `mean` is given).

    Examples:
        >>> g = jnp.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
        >>> print(f"{estimate_noise_scale(g) ** 2:.4f}")  # (1 + 1 + 4 + 4)/3
        3.3333
        >>> print(f"{estimate_noise_scale(g, mean=jnp.zeros(2)) ** 2:.4f}")
        2.5000
    """
    check_interval("moment", moment, 1, 2, closed_low=False)
    check_floating(gradients, "gradients")
    gradients = jax.tree.map(jnp.asarray, gradients)
    count = _count("gradients", gradients, 2 if mean is None else 1)
    if mean is not None:
        check_floating(mean, "mean")
        mean = jax.tree.map(jnp.asarray, mean)
        one = jax.eval_shape(lambda tree: jax.tree.map(lambda leaf: leaf[0], tree), gradients)
        check_like("mean", mean, "one of the gradients", one)
    dtype = wide_dtype(gradients)
    wide = jax.tree.map(lambda leaf: leaf.astype(dtype), gradients)
    centre = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), wide) if mean is None else mean
    noise = jax.tree.map(lambda leaf, c: leaf - c.astype(dtype), wide, centre)
    norms = jax.vmap(lambda one: scaled_norm(one).norm())(noise)
    largest = jnp.max(norms)
    scale = jnp.where(largest > 0, largest, 1)  # powers of the ratios do not overflow
    alpha = jnp.asarray(moment, dtype)
    total = jnp.sum((norms / scale) ** alpha) / (count - 1 if mean is None else count)
    return scale * total ** (1 / alpha)


def _count(name: str, stacked: optax.Params, minimum: int) -> int:
    """Return the length of the leading axis that all leaves share."""
    lengths = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves(stacked)}
    if len(lengths) != 1 or min(lengths) < minimum:
        raise ValueError(
            f"{name} must be stacked along one leading axis, at least {minimum} of them, got "
            f"leaves with leading axes {sorted(lengths)}."
        )
    return lengths.pop()
