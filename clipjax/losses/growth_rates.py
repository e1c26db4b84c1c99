"""How fast gradient descent on the generalised logistic loss grows: f, its turn, and its inverse.

For linearly separable data the iterates are θ_t = g_t θ̂ + ρ_t, θ̂ the direction of the largest
margin, ρ_t bounded, and the direction's error is O(1/g_t). With the exponent of the derivative,
numbered as in the paper,

    (12)  f(t; c, r) = rt - c e^{-rt},     t* = ln(-c)/r  where f' = 0 (c < 0),   f(t*) = 1 + ln(-c)
    (19)  g_t(c, r) = f^{-1}(ln t) = (ln t + W_0(c/t))/r

W_0 being the principal real branch of Lambert's function.

**What it means.** g_t = ln t/r + W_0(c/t)/r -> ln t/r: for every c and r the rate is logarithmic in
the end. 1/g_t crosses 1/√t and 1/t at some t, and near them only is it like them. r stands for the
step size (see `generalized_logistic_loss`), and c changes a constant.

**Status.** (14) and (19) are VERIFIED in part: the paper's text names f, f^{-1} and W_0. The
displayed formulas are lost in the copy that was read and DERIVED here: the inverse is exact, and
nine of the ten numbers of the paper's Table 1 are roots of g_t = √t and g_t = t. The tenth, 4.714,
is none; 4.714e-05 is (`python -m experiments.growth_rates`). The table takes c = 1, 3, 10 where
`growth_constant` is at most 0: the paper uses two signs. All functions here take either. The
condition that the paper prints for f > 0 has the wrong direction: see
`growth_exponent_is_positive`.

References:
    Kulikovskikh, Reducing computational costs in deep learning on almost linearly separable
    training data, Computer Optics 44(2), 2020, 282-289, https://doi.org/10.18287/2412-6179-CO-645.
    Soudry et al., The implicit bias of gradient descent on separable data, JMLR 19, 2018,
    https://arxiv.org/abs/1710.10345.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from clipjax.losses._checks import (
    cast,
    check_broadcast,
    computing_dtype,
    known,
    real,
    require,
    rounded,
)

INVERSE_E = 0.36787944117144233
"""1/e, rounded to float64."""

_REST = {"float32": -9.149755188170102e-09, "float64": -1.2428753672788363e-17}
"""1/e less its rounded value, by dtype: 1 + ex is to be exact near the branch point."""

_BRANCH = (
    -1.0,
    1.0,
    -1 / 3,
    11 / 72,
    -43 / 540,
    769 / 17280,
    -221 / 8505,
    680863 / 43545600,
    -1963 / 204120,
    226287557 / 37623398400,
)
"""W_0 as a series in p = √(2(1 + ex)) around the branch point (Corless et al. 1996, (4.22))."""

NEAR = 0.03
"""Up to this p the series is exact to 1e-16 (its next term is 0.004 p^10)."""

STEPS = 4
"""Of Halley's method; the first guess is within 0.1, and each step cubes the error."""


def growth_exponent(t: ArrayLike, c: ArrayLike, r: ArrayLike = 1.0) -> jax.Array:
    """Return f(t; c, r) = rt - c e^{-rt}, the exponent of the Gompertz curve's derivative (11).

    It rises everywhere for c >= 0, and from t* = ln(-c)/r on for c < 0.

    Args:
        t: (...), real.
        c: any sign; -c > 0 is what a curve has (`growth_constant`). c and r broadcast with t.
        r: r > 0.

    Returns:
        The shape of t, c and r together, float32 or float64. Beyond their range it is infinite.

    Raises:
        ValueError: for c that is not finite, or unless 0 < r < inf. Traced ones are not judged.

    Examples:
        >>> print(growth_exponent(0.0, -2.0))
        2.0

    References:
        Kulikovskikh 2020, (12) (DERIVED).
    """
    t, c, r = _arguments(t, c, r)
    decay = jnp.exp(-r * t)
    # 0 times infinity: without c the exponent is rt.
    return r * t - c * jnp.where((c == 0) & jnp.isinf(decay), 0, decay)


def growth_exponent_turn(c: ArrayLike, r: ArrayLike = 1.0) -> jax.Array:
    """Return t* = ln(-c)/r, from which on f rises, for c < 0; f(t*) = 1 + ln(-c).

    t* > 0 for c < -1, and t* > 1 for c < -e^r.

    Args:
        c: c < 0.
        r: r > 0; it broadcasts with c.

    Returns:
        float32, or float64 for float64.

    Raises:
        ValueError: unless c < 0 and 0 < r < inf. Traced numbers are not judged.

    Examples:
        >>> print(growth_exponent_turn(-1.0, 2.0))
        0.0

    References:
        Kulikovskikh 2020, section 3 (VERIFIED that t* > 0 and t* > 1 there; f(t*) DERIVED).
    """
    found = real("c", c)
    if (number := known(found)) is not None:
        require(number < 0, "c < 0", c=found)
    _, c, r = _arguments(0.0, c, r)
    return jnp.log(-c) / r


def growth_exponent_is_positive(t: ArrayLike, c: ArrayLike, r: ArrayLike = 1.0) -> jax.Array:
    """Return whether f(t; c, r) > 0.

        c < -1/e        f > 0 for every t, since f(t*) = 1 + ln(-c) > 0
        -1/e <= c < 0   f > 0 for t > W_0(c)/r and for t < W_{-1}(c)/r, both negative
        c >= 0          f > 0 for t > W_0(c)/r

    So f(t*) > 0 asks for c < -1/e. The paper prints "c > -exp(-1)", the other direction.

    Args:
        t: (...), real.
        c: any sign.
        r: r > 0.

    Returns:
        The shape of t, c and r together, bool.

    Raises:
        ValueError: for c that is not finite, or unless 0 < r < inf. Traced ones are not judged.

    Examples:
        >>> growth_exponent_is_positive(0.5, [-0.4, 0.0, 1.0]).tolist()  # W_0(1) = 0.567
        [True, True, False]

    References:
        Kulikovskikh 2020, section 3 (the printed condition VERIFIED, the cases DERIVED).
    """
    return growth_exponent(t, c, r) > 0


def growth_rate(t: ArrayLike, c: ArrayLike, r: ArrayLike = 1.0) -> jax.Array:
    """Return g_t(c, r) = (ln t + W_0(c/t))/r, the larger solution g of f(g; c, r) = ln t.

    Gradient descent with step size η on the Gompertz loss of one example x = 1 is at
    θ_t ≈ g_T(c, r), T = η (b - a) |c| r² t, for c < 0. That is asymptotic; the inverse is exact.

    Args:
        t: (...), t > 0, and t >= e|c| where c < 0: W_0(c/t) is real for c/t >= -1/e only.
        c: any sign. c and r broadcast with t.
        r: r > 0.

    Returns:
        The shape of t, c and r together, float32 or float64; NaN for a traced t out of range.

    Raises:
        ValueError: for t below its domain or r out of range, with the inequality.

    Examples:
        >>> print(growth_rate(1.0, 1.0))  # W_0(1)
        0.56714...
        >>> growth_rate(2.0, -1.0)
        Traceback (most recent call last):
            ...
        ValueError: t >= e |c| where c < 0 must hold, got t=2.0, c=-1.0.

    References:
        Kulikovskikh 2020, (19) (DERIVED; that it is f^{-1} with W_0 VERIFIED; θ_t DERIVED).
    """
    times, constants = real("t", t), real("c", c)
    moment, constant = known(times), known(constants)
    if moment is not None:
        require(moment > 0, "t > 0", t=times)
    t, c, r = _arguments(t, c, r)
    # Where t = e|c|, c/t may be rounded to a bit below -1/e, where W_0 has no value.
    slack = 1 + 4 * float(jnp.finfo(t.dtype).eps)
    if moment is not None and constant is not None:
        good = (constant >= 0) | (moment * slack * INVERSE_E >= -constant)
        require(good, "t >= e |c| where c < 0", t=times, c=constants)
    x = c / t
    edge = -jnp.asarray(INVERSE_E, x.dtype)
    return (jnp.log(t) + lambert_w(jnp.where((x < edge) & (x >= slack * edge), edge, x))) / r


def lambert_w(x: ArrayLike) -> jax.Array:
    """Return W_0(x), the principal real branch of Lambert's function: W e^W = x, W >= -1.

    Four steps of Halley's method, the series at the branch point -1/e near it. Under `jit`, `vmap`
    and `grad` (W' = e^{-W}/(1 + W)); `scipy.special.lambertw` is what it is tested against.

    Args:
        x: (...), x >= -1/e.

    Returns:
        (...), float32, or float64 for float64; NaN for x < -1/e.

    Raises:
        ValueError: if x holds no real numbers.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(lambert_w(jnp.array([0.0, jnp.e])))
        [0. 1.]

    References:
        Corless et al., On the Lambert W function, Advances in Computational Mathematics 5, 1996
        (RECALLED; tested against scipy).
    """
    found = real("x", x)
    return _lambert_w(cast(found, computing_dtype(found)))


@jax.custom_jvp
def _lambert_w(x: jax.Array) -> jax.Array:
    high = jnp.asarray(INVERSE_E, x.dtype)
    above = (x + high) + _REST[x.dtype.name]  # x + 1/e without the rounding of 1/e
    p = jnp.sqrt(jnp.maximum(2 * np.e * above, 0))
    series = jnp.zeros_like(x)
    for term in reversed(_BRANCH):
        series = series * p + term
    log = jnp.log1p(jnp.maximum(x, 0))
    guess = log * (1 - jnp.log1p(log) / (2 + log))
    near = p < NEAR
    w = jnp.where(
        near, 0, jnp.where(x < 0, _BRANCH[0] + p * (1 + p * (-1 / 3 + p * 11 / 72)), guess)
    )
    start = jnp.where(near | ~jnp.isfinite(x), 0, x)  # a point where the steps are harmless
    for _ in range(STEPS):
        residual = w - start * jnp.exp(-w)
        w = w - residual / (w + 1 - (w + 2) * residual / (2 * w + 2))
    w = jnp.where(near, series, w)
    w = jnp.where(jnp.isposinf(x), jnp.inf, w)
    # `above` is the exact distance up to one rounding: what is rounded to -1/e counts as on it.
    return jnp.where((x < -high) | jnp.isnan(x), jnp.nan, w)


@_lambert_w.defjvp
def _derivative(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[Any, Any]:
    (x,), (change,) = primals, tangents
    w = _lambert_w(x)
    return w, change * jnp.exp(-w) / (1 + w)


def _arguments(t: ArrayLike, c: ArrayLike, r: ArrayLike) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return t, c and r in the dtype of the computation; judge those that are known."""
    times, constants, rates = real("t", t), real("c", c), real("r", r)
    check_broadcast(t=times, c=constants, r=rates)
    # Python's numbers take the dtype of the arrays beside them, and the widest if there are none.
    arrays = [x for x, given in ((times, t), (constants, c), (rates, r)) if not _is_scalar(given)]
    dtype = jnp.result_type(*map(computing_dtype, arrays or (times,)))
    if (constant := known(constants)) is not None:
        held = rounded(constant, dtype)
        require(np.isfinite(held), f"-inf < c < inf in {dtype}", c=constants)
    if (rate := known(rates)) is not None:
        held = rounded(rate, dtype)
        require((held > 0) & np.isfinite(held), f"0 < r < inf in {dtype}", r=rates)
    return cast(times, dtype), cast(constants, dtype), cast(rates, dtype)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, bool | int | float)
