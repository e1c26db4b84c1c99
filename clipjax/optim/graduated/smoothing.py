r"""Monte-Carlo smoothing: a function averaged over noise around the point, and its gradient.

.. math::

   \hat f_\delta(x) = E\, f(x - \delta u)

for noise u of one of the laws in `DISTRIBUTIONS`. Large δ leaves the coarse shape of f and few of
its local minima; as δ falls the smoothed function turns into f. This is what graduated
optimisation descends (`clipjax.explicit_graduated_optimization`).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from clipjax.optim._checks import (
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_floating,
    check_key,
    check_positive,
    is_concrete,
)
from clipjax.optim._trees import wide_dtype

DISTRIBUTIONS = ("ball", "sphere", "gaussian", "student_t", "cauchy")
"""The laws of u. In R^d, over all the leaves of a tree together:

- ball: uniform in the unit ball; E|u|² = d/(d+2).
- sphere: uniform on the unit sphere; |u| = 1.
- gaussian: independent standard normal coordinates; E|u|² = d.
- student_t: independent coordinates of Student's t, `df` degrees of freedom; E|u_i|^p is finite
  only for p < df, so the average exists only if |f| grows more slowly than |x|^df.
- cauchy: student_t with df = 1; the average exists only if |f| grows more slowly than |x|.
"""

ESTIMATORS = ("first_order", "zeroth_order")


def smoothed_value_and_grad(
    fn: Callable[..., jax.Array],
    delta: jax.typing.ArrayLike,
    num_samples: int,
    key: jax.Array,
    *,
    distribution: str = "ball",
    df: jax.typing.ArrayLike = 3.0,
    antithetic: bool = True,
    estimator: str = "first_order",
    batch_size: int | None = None,
) -> Callable[..., tuple[jax.Array, Any]]:
    r"""Return a function x -> (estimate of f̂_δ(x), estimate of its gradient), both unbiased.

    .. math::

       \hat f_\delta(x) &= E\, f(x - \delta u) \\
       \nabla \hat f_\delta(x) &= E\, \nabla f(x - \delta u)
           && \text{first order} \\
       \nabla \hat f_\delta(x) &= \tfrac1\delta\, E\, f(x - \delta u)\, \nabla \log p(u)
           && \text{zeroth order} \\
       \nabla \hat f_\delta(x) &= -\tfrac d\delta\, E\, f(x - \delta v)\, v
           && \text{zeroth order, ball; } v \text{ uniform on the sphere}

    Like `jax.value_and_grad` it turns a function into a function. The draws are fixed by `key`:
    the same key is the same function of x (common random numbers), and an optimiser passes
    `jax.random.fold_in(key, step)` for fresh draws at every step. `delta` and `key` may be traced.

    With antithetic pairs (u and -u) the gradient of a quadratic and the value of a linear function
    have no variance at all. Where f is even about x, a pair measures one number twice: there the
    value varies as if half of the samples had been drawn, and the gradient is exactly zero.

    Args:
        fn: x, *args -> a scalar. The first-order estimator needs it absolutely continuous along
            lines and differentiable almost everywhere (any Lipschitz function); a step function
            needs the zeroth-order one.
        delta: δ > 0, the noise level, in the units of x.
        num_samples: number of points x - δu; even if antithetic. Static.
        key: a JAX random key.
        distribution: the law of u: "ball", "sphere", "gaussian", "student_t" or "cauchy" (see
            `DISTRIBUTIONS`, also for which f the heavy-tailed ones have a finite average).
        df: degrees of freedom of "student_t", positive; not read otherwise.
        antithetic: whether to use pairs u, -u.
        estimator: "first_order" differentiates `fn`; "zeroth_order" only calls it. The latter has
            d times the variance and more, does not know the sphere (its law has no density), and
            calls `fn` twice per sample for the ball: inside for the value, on the sphere for the
            gradient.
        batch_size: how many points to evaluate at a time (rounded down to whole pairs, at least
            one); None for all. Memory for `batch_size` gradients, same draws. (On a CPU the
            gradient of a convolution is slow inside the loop that this makes.)

    Returns:
        A function (x, *args, **kwargs) -> (value, gradient). x is a tree of floating-point arrays;
        the value is a scalar, float32 or wider, and the gradient has x's shapes and dtypes.

    Non-finite gradients: a point where `fn` is NaN or infinite makes the value and the gradient
    non-finite as a mean does; none is left out.

    Raises:
        ValueError: for concrete numbers out of range, an odd `num_samples` with antithetic pairs,
            an unknown name (with the nearest one), the sphere with "zeroth_order", and, when
            called, for an x that is not floating-point or an `fn` whose value is not a scalar.

    Examples:
        >>> square = lambda x: jnp.sum(x**2)
        >>> estimate = smoothed_value_and_grad(square, 0.5, 2000, jax.random.key(0))
        >>> value, gradient = estimate(jnp.array([1.0, -2.0]))
        >>> print(gradient)  # antithetic: exact for a quadratic, up to rounding
        [ 2. -4.]
        >>> print(round(float(value), 2))  # 5 + δ² d/(d+2) = 5.125
        5.13

    References:
        Hazan, Levy, Shalev-Shwartz, On graduated optimization for stochastic non-convex problems,
        2016 (https://arxiv.org/abs/1503.03712); Flaxman, Kalai, McMahan, Online convex
        optimization in the bandit setting, 2005 (https://arxiv.org/abs/cs/0408007), Lemma 2.1, for
        the gradient from values on the sphere; Sato, Iiduka
        (https://arxiv.org/abs/2311.08745) for smoothing by heavy-tailed noise.
    """
    check_callable("fn", fn)
    check_key("key", key)
    check_positive("delta", delta, finite=True)
    check_choice("distribution", distribution, DISTRIBUTIONS)
    check_choice("estimator", estimator, ESTIMATORS)
    check_positive("df", df)
    if not is_concrete(num_samples):
        raise ValueError(f"num_samples must be a whole number known now, got {num_samples!r}.")
    check_count("num_samples", num_samples, minimum=1)
    check_flag("antithetic", antithetic)
    if antithetic and num_samples % 2:
        raise ValueError(
            f"num_samples must be even, got {num_samples}: antithetic samples come in pairs. "
            f"Use {num_samples + 1}, or antithetic=False."
        )
    if batch_size is not None:
        check_count("batch_size", batch_size, minimum=1)
    zeroth_order = estimator == "zeroth_order"
    if zeroth_order and distribution == "sphere":
        raise ValueError(
            'distribution "sphere" has no density, hence no zeroth-order gradient; smooth over '
            'the "ball", whose gradient is measured on the sphere, or use estimator="first_order".'
        )
    law = "student_t" if distribution == "cauchy" else distribution
    df = 1.0 if distribution == "cauchy" else df
    draws = num_samples // 2 if antithetic else num_samples

    def value_and_grad(x: Any, *args: Any, **kwargs: Any) -> tuple[jax.Array, Any]:
        check_floating(x)
        dtype = wide_dtype(x)
        level = jnp.asarray(delta, dtype)

        def f(x: Any) -> jax.Array:
            value = jnp.asarray(fn(x, *args, **kwargs))
            if value.shape != ():
                raise ValueError(f"fn must return a scalar, got shape {value.shape}.")
            # A count has values but no gradient: `jax.value_and_grad` refuses it, as it should.
            counted = not jnp.issubdtype(value.dtype, jnp.floating) and not zeroth_order
            return value if counted else value.astype(wide_dtype(x, value))

        def moved(u: Any, sign: float) -> Any:
            return jax.tree.map(lambda x, u: (x - sign * level * u).astype(x.dtype), x, u)

        def first_order(key: jax.Array) -> tuple[jax.Array, Any]:
            u = draw_noise(key, x, law, df=df)
            signs = (1.0, -1.0) if antithetic else (1.0,)
            parts = [jax.value_and_grad(f)(moved(u, sign)) for sign in signs]
            return _mean([(value, _widen(gradient, dtype)) for value, gradient in parts])

        def from_values(key: jax.Array) -> tuple[jax.Array, Any]:
            u = draw_noise(key, x, law, df=df)
            inside = _differences(f, moved, u, antithetic)
            if law == "ball":
                size = sum(leaf.size for leaf in jax.tree.leaves(u))
                v = _scaled(u, 1 / _positive_norm(u))
                _, odd = _differences(f, moved, v, antithetic)
                weights = _scaled(v, -size / level)
            else:
                odd = inside[1]
                weights = jax.tree.map(lambda u: score(u, law, df=df) / level, u)
            return inside[0], _scaled(weights, odd.astype(dtype))

        sample = from_values if zeroth_order else first_order
        keys = jax.random.split(key, draws)
        together = draws if batch_size is None else batch_size // (2 if antithetic else 1)
        value, gradient = _average(sample, keys, max(1, together))
        return value, jax.tree.map(lambda g, x: g.astype(jnp.result_type(x)), gradient, x)

    return value_and_grad


def draw_noise(
    key: jax.Array, like: Any, distribution: str, *, df: jax.typing.ArrayLike = 3.0
) -> Any:
    """Return one draw of u over all the leaves of `like`, shaped as they, in float32 or wider.

    Ball and sphere: z/|z| is uniform on the sphere for normal z, and a radius U^(1/d) makes it
    uniform in the ball (d the number of coordinates in the whole tree). Student's t in the polar
    form of Bailey (1994), √(df (U^(-2/df) - 1)) cos(2πV), which needs no loop of gamma draws.

    Args:
        key: a JAX random key.
        like: a tree of arrays; its shapes and dtypes are read.
        distribution: "ball", "sphere", "gaussian" or "student_t".
        df: degrees of freedom of "student_t".

    Examples:
        >>> u = draw_noise(jax.random.key(0), {"a": jnp.zeros(3), "b": jnp.zeros(2)}, "sphere")
        >>> print(round(float(sum(jnp.sum(leaf**2) for leaf in u.values())), 5))
        1.0
    """
    leaves, treedef = jax.tree.flatten(like)
    dtype = wide_dtype(like)
    radius_key, *keys = jax.random.split(key, len(leaves) + 1)
    shapes = [jnp.shape(leaf) for leaf in leaves]
    if distribution == "student_t":
        return treedef.unflatten(
            [_student_t(key, shape, dtype, df) for key, shape in zip(keys, shapes, strict=True)]
        )
    normal = treedef.unflatten(
        [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]
    )
    if distribution == "gaussian":
        return normal
    radius = jnp.ones((), dtype)
    if distribution == "ball":
        size = sum(leaf.size for leaf in jax.tree.leaves(normal))
        radius = jax.random.uniform(radius_key, (), dtype) ** (1 / max(size, 1))
    return _scaled(normal, radius / _positive_norm(normal))


def score(u: jax.Array, distribution: str, *, df: jax.typing.ArrayLike = 3.0) -> jax.Array:
    """Return ∇ log p(u), coordinate by coordinate, of "gaussian" or "student_t".

    -u for the normal law, -(df + 1) u / (df + u²) for Student's t, which is bounded.

    Examples:
        >>> print(score(jnp.array([1.0, 3.0]), "student_t", df=3.0))
        [-1. -1.]
    """
    if distribution == "gaussian":
        return -u
    df = jnp.asarray(df, u.dtype)
    return -(df + 1) * u / (df + u**2)


def _student_t(
    key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype, df: jax.typing.ArrayLike
) -> jax.Array:
    # Uniforms in (0, 1] of 32 bits: jax.random.uniform may return 0 and has 23 bits in float32.
    bits = jax.random.bits(key, (2, *shape), jnp.uint32)
    u, v = (bits.astype(dtype) + 0.5) * 2.0**-32
    df = jnp.asarray(df, dtype)
    return jnp.sqrt(df * jnp.expm1(-2 / df * jnp.log(u))) * jnp.cos(2 * jnp.pi * v)


def _differences(
    f: Callable[[Any], jax.Array], moved: Callable[[Any, float], Any], u: Any, antithetic: bool
) -> tuple[jax.Array, jax.Array]:
    """Return the even and the odd part of s -> f(x - sδu) at s = 1; f itself twice if not a pair.

    The value's estimate is the even part; an odd weight of u sees the odd part only.
    """
    there = f(moved(u, 1.0))
    if not antithetic:
        return there, there
    back = f(moved(u, -1.0))
    return (there + back) / 2, (there - back) / 2


def _average(
    sample: Callable[[jax.Array], tuple[jax.Array, Any]], keys: jax.Array, together: int
) -> tuple[jax.Array, Any]:
    """Return the mean of `sample` over the keys, `together` of them at a time."""
    draws = len(keys)

    def total(keys: jax.Array) -> Any:
        return jax.tree.map(lambda leaf: jnp.sum(leaf, 0), jax.vmap(sample)(keys))

    full = draws // together
    if full <= 1 and draws % together == 0:
        summed = total(keys)
    else:
        head, tail = keys[: full * together], keys[full * together :]
        zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(total, keys))
        chunks = head.reshape(full, together, *keys.shape[1:])
        summed, _ = jax.lax.scan(
            lambda carry, keys: (jax.tree.map(jnp.add, carry, total(keys)), None), zeros, chunks
        )
        if len(tail):
            summed = jax.tree.map(jnp.add, summed, total(tail))
    return jax.tree.map(lambda leaf: leaf / draws, summed)


def _mean(parts: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *parts)


def _widen(tree: Any, dtype: jnp.dtype) -> Any:
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


def _scaled(tree: Any, factor: Any) -> Any:
    return jax.tree.map(lambda leaf: factor * leaf, tree)


def _positive_norm(tree: Any) -> jax.Array:
    """Return the norm of the whole tree, 1 where it is 0 (a single normal may be exactly 0)."""
    square = sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(tree)), jnp.zeros(()))
    return jnp.where(square > 0, jnp.sqrt(square), jnp.ones_like(square))
