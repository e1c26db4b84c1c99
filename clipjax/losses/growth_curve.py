"""The generalised logistic curve (Richards, Gompertz, logistic) as an activation and as a loss.

With a = `lower`, b = `upper`, r = `rate`, q = `shape`, P_0 = `start`, numbered as in the paper:

    (7)   l(t) = a + (b - a) / [1 + Q e^{-rt}]^{1/q},   Q = e^{-qc} - 1
    (9)   l(t) = a + (b - a) exp(c e^{-rt})             the limit q -> 0, Gompertz's curve
    (10)  l(t) = a + (b - a) / (1 + e^{-rt})            q = 1 and the symmetric start
          c(a, b) = ln((P_0 + a) / (b - a)) <= 0,       l(0) = a + (P_0 + a)

The curve solves l' = (r/q) (l - a) [1 - ((l - a)/(b - a))^q]. In the limit q -> 0 the derivative is

    (11)  |l'(t)| = (b - a) |c| r exp(-f(t; c, r)),     (12)  f(t; c, r) = rt - c e^{-rt}

with f = `growth_exponent`. It is `jax.grad` that computes it, of any order.

**Status.** VERIFIED, read in the paper's text: the ODE, the ranges of a, b, P_0, r and q, and that
q = 1 with P_0 = (b - 3a)/2 gives (10). The displayed formulas are lost in the copy that was read,
so (7), (9), (11) and (12) are DERIVED: (7) is the only solution of the ODE that satisfies what the
text says. The activations are VERIFIED in the author's code (`BioSigmoid`, `BioSoftmax`).

**Range.** 0 <= a < b <= 1, 0 <= P_0 <= b - 2a (which says Q >= 0), r > 0, q > 0, and q = 0 for the
limit. Two additions: P_0 + a > 0, since a curve that starts at its lower asymptote has no c, and no
condition on P_0 where the start is the symmetric one, for which Q = 2^q - 1 > 0 in any case.

**Numbers.** Computed in float32 (float64 for float64) and stable for any t, also under `jax.grad`.
No power of Q is formed. With h = -ln((l - a)/(b - a)),

    h = softplus(z)/q,  z = ln Q - rt,                      where q|c| or Q e^{-rt} is large
    h = w e^{-rt} ln(1 + y)/y,  w = Q/q,  y = Q e^{-rt},    where both are small, down to q = 0

and the two quotients w = |c| (e^x - 1)/x, x = q|c|, and ln(1 + y)/y are series in x and y. So q may
be a traced number that goes to 0: value and derivatives (that by q as well) have no jump.

References:
    Kulikovskikh, Reducing computational costs in deep learning on almost linearly separable
    training data, Computer Optics 44(2), 2020, 282-289, https://doi.org/10.18287/2412-6179-CO-645.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from clipjax.losses._checks import (
    as_arrays,
    cast,
    check_broadcast,
    computing_dtype,
    known,
    real,
    require,
    rounded,
)

TERMS = 17
"""Of both series: (1/9)^17 = 6e-17 for ln(1 + y)/y at y = 1, less for the other."""


def generalized_logistic(
    t: ArrayLike,
    lower: ArrayLike = 0.0,
    upper: ArrayLike = 1.0,
    rate: ArrayLike = 1.0,
    shape: ArrayLike = 1.0,
    start: ArrayLike | None = None,
) -> jax.Array:
    """Return the generalised logistic curve (7), for q = 0 Gompertz's (9).

        l(t) = a + (b - a) / [1 + Q e^{-rt}]^{1/q},   Q = ((b - a)/(P_0 + a))^q - 1

    It rises from a to b, and l(0) - a = P_0 + a. The defaults are the sigmoid. As an activation
    with q = 1 it is the author's `BioSigmoid`, a + (b - a) σ(rt): where a Flax model takes a
    function, write `functools.partial(generalized_logistic, lower=0.1, rate=2.0)`.

    Args:
        t: (...), real.
        lower: a, the asymptote at -∞; 0 <= a < b. All five broadcast with t.
        upper: b, the asymptote at +∞; a < b <= 1.
        rate: r > 0.
        shape: q > 0, or 0 for the limit. Less than 1: the curve leaves a faster than it nears b.
        start: P_0, 0 <= P_0 <= b - 2a and P_0 + a > 0. None: (b - 3a)/2, halfway at t = 0.

    Returns:
        The shape of t and the parameters together; t's dtype, float32 for whole numbers.

    Raises:
        ValueError: for parameters out of range, with the inequality. Traced ones are not judged.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> t = jnp.array([-1e4, 0.0, 1.0, 1e4])
        >>> print(generalized_logistic(t))
        [0.        0.5       0.7310586 1.       ]
        >>> print(generalized_logistic(t, lower=0.1, upper=0.9, shape=0.0, start=0.2))
        [0.1        0.4        0.65767...  0.9       ]
        >>> print(jax.grad(generalized_logistic)(0.0, shape=0.0))  # (11): |c| e^c with c = -ln 2
        0.34657...

    References:
        Kulikovskikh 2020, (7), (9), (10) (DERIVED; see the head of
        `clipjax.losses.growth_curve`). `BioSigmoid` VERIFIED in the author's notebook.
    """
    curve = _curve(real("t", t), "t", lower, upper, rate, shape, start)
    return (curve.lower + curve.span * jnp.exp(-curve.depth)).astype(curve.dtype)


def generalized_logistic_loss(
    margin: ArrayLike,
    lower: ArrayLike = 0.0,
    upper: ArrayLike = 1.0,
    rate: ArrayLike = 1.0,
    shape: ArrayLike = 1.0,
    start: ArrayLike | None = None,
) -> jax.Array:
    """Return the loss of a margin, the curve's companion that falls from b - a to 0.

        ℓ(m) = b - l(m) = (b - a) (1 - [1 + Q e^{-rm}]^{-1/q})

    Smooth, strictly decreasing, non-negative, with an exponential tail: ℓ(m) ≈ (b - a) w e^{-rm},
    w = (e^{-qc} - 1)/q, which is |c| for q = 0. With q = 1 it is (b - a) σ(-rm). The tail keeps its
    relative accuracy; b - l(m) in floating point would be 0 beyond m = 17/r. It is bounded, hence
    not convex: its gradient vanishes for very negative margins, too.

    r is no more than a choice of units, L_r(θ) = L_1(rθ): gradient descent with step size η on L_r
    is that with step size ηr² on L_1, its iterates divided by r.

    Args:
        margin: (...), real, y θᵀx of each example.
        lower: as of `generalized_logistic`, like all that follow.
        upper: b.
        rate: r.
        shape: q.
        start: P_0.

    Returns:
        (...), float32, or float64 for float64 margins: losses are not rounded to half precision.

    Raises:
        ValueError: for parameters out of range, with the inequality. Traced ones are not judged.

    Examples:
        >>> import jax.numpy as jnp
        >>> print(generalized_logistic_loss(jnp.array([-1e4, 0.0, 50.0])))
        [1.0...e+00 5.0...e-01 1.9287...e-22]

    References:
        Kulikovskikh 2020 (DERIVED: that l' < 0 for all t, which the text asks for, holds of b - l
        and not of l. The paper's experiments use (10) as an activation, with cross-entropy).
    """
    curve = _curve(real("margin", margin), "margin", lower, upper, rate, shape, start)
    return -curve.span * jnp.expm1(-curve.depth)


def generalized_softmax(
    logits: jax.Array,
    lower: ArrayLike = 0.0,
    upper: ArrayLike = 1.0,
    rate: ArrayLike = 1.0,
    *,
    axis: int = -1,
    normalize: bool = False,
) -> jax.Array:
    """Return the softmax form of (10), the author's `BioSoftmax`.

        p_j = a + (b - a) softmax(r x)_j,   Σ_j p_j = n a + (b - a) for n classes

    The outputs sum to one only if a = 0 and b = 1. `normalize` divides by their sum, which makes
    them probabilities; the author's code does not. (The sum is a constant, so the cross-entropy has
    the same gradient by the logits either way.)

    Args:
        logits: (..., n, ...), real.
        lower: a, 0 <= a < b; one number, like the others.
        upper: b, a < b <= 1.
        rate: r > 0.
        axis: of the classes.
        normalize: whether to divide by the sum.

    Returns:
        The shape and dtype of `logits`, float32 for whole numbers.

    Raises:
        ValueError: for parameters out of range, with the inequality, or logits without that axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> logits = jnp.array([0.0, 0.0, jnp.log(2.0)])
        >>> print(generalized_softmax(logits, 0.1, 0.9).round(3))
        [0.3 0.3 0.5]
        >>> print(generalized_softmax(logits, 0.1, 0.9, normalize=True).sum().round(3))
        1.0

    References:
        VERIFIED in the notebook of Kulikovskikh 2020 (`BioSoftmax`); `normalize` is ours.
    """
    (logits,) = as_arrays(1, logits=logits)
    x = real("logits", logits)
    if not isinstance(axis, int) or not -x.ndim <= axis < x.ndim:
        raise ValueError(f"axis must be one of logits with shape {x.shape}, got {axis!r}.")
    if not isinstance(normalize, bool):
        raise ValueError(f"normalize must be True or False, got {normalize!r}.")
    dtype = computing_dtype(x)
    a, b, r, _, _ = _parameters(dtype, lower, upper, rate, 1.0, None)
    for name, value in (("lower", a), ("upper", b), ("rate", r)):
        if value.ndim:
            raise ValueError(f"{name} must be one number, got an array of shape {value.shape}.")
    p = a + (b - a) * jax.nn.softmax(r * cast(x, dtype), axis=axis)
    if normalize:
        p = p / (x.shape[axis] * a + (b - a))
    return p.astype(_output_dtype(x))


def growth_constant(
    lower: ArrayLike = 0.0, upper: ArrayLike = 1.0, start: ArrayLike | None = None
) -> jax.Array:
    """Return c(a, b) = ln((P_0 + a)/(b - a)), the constant of (9), (11) and (12); at most 0.

    Args:
        lower: a, as of `generalized_logistic`.
        upper: b.
        start: P_0. None: the symmetric one, for which c = -ln 2.

    Returns:
        float32, or float64 if that is enabled.

    Raises:
        ValueError: for parameters out of range, with the inequality. Traced ones are not judged.

    Examples:
        >>> print(growth_constant(0.1, 0.9, start=0.3))
        -0.69314...

    References:
        Kulikovskikh 2020, (9) (DERIVED). The paper's Table 1 and Figure 1 take c = 1, 3 and 10,
        which no a, b and P_0 of its own range give.
    """
    dtype = jax.dtypes.canonicalize_dtype(np.float64)
    return -_parameters(dtype, lower, upper, 1.0, 1.0, start)[4]


class _Curve(NamedTuple):
    """The curve at some points: l = lower + span e^{-depth}; t's dtype."""

    lower: jax.Array
    span: jax.Array
    depth: jax.Array
    dtype: jnp.dtype


def _curve(
    t: np.ndarray | jax.Array,
    name: str,
    lower: ArrayLike,
    upper: ArrayLike,
    rate: ArrayLike,
    shape: ArrayLike,
    start: ArrayLike | None,
) -> _Curve:
    """Check and convert the arguments; return the curve at t."""
    dtype = computing_dtype(t)
    a, b, r, q, k = _parameters(dtype, lower, upper, rate, shape, start)
    check_broadcast(**{name: t}, lower=a, upper=b, rate=r, shape=q, start=k)
    rising = r * cast(t, dtype)
    # The symmetric logistic curve needs no series: σ(rt) costs a third, and is what is used most.
    simple = start is None and isinstance(shape, int | float) and shape == 1
    depth = jax.nn.softplus(-rising) if simple else _depth(rising, q, k)
    return _Curve(a, b - a, depth, _output_dtype(t))


def _depth(rising: jax.Array, q: jax.Array, k: jax.Array) -> jax.Array:
    """Return h = ln(1 + Q e^{-rt})/q, Q = e^{qk} - 1, from rt, q >= 0 and k = -c >= 0.

    Each branch sees numbers of its own side only, so that neither its value nor its derivatives
    are infinite or NaN where the other one counts.
    """
    tiny = jnp.finfo(rising.dtype).eps
    # Beyond e^{-rt} = 1/eps² the curve is at its lower asymptote to the last bit, if q is small: k
    # is 0 or at least eps/2, as the logarithm of a rounded number, and so h >= 1/(2 eps).
    factor = jnp.exp(jnp.minimum(-rising, -2 * math.log(tiny)))
    x = q * k
    small = (x <= 0.5) & (jnp.expm1(jnp.minimum(x, 0.5)) * factor <= 1)

    x_small = jnp.where(small, x, 0)
    w = k * _expm1_over(x_small)
    grown = w * jnp.where(small, factor, 0)
    h_small = grown * _log1p_over(jnp.where(small, q, 0) * grown)

    # Where q is below 5e-4 on this side, h is at least ln 2/q > 1386 and e^{-h} is 0, also in
    # float64: any larger q will do, and 1/q² cannot overflow.
    q_large = jnp.where(small, 1, jnp.maximum(q, 5e-4))
    x_large = jnp.where(small, 1, q_large * k)
    log_q = x_large + jnp.log(-jnp.expm1(-x_large))
    h_large = jax.nn.softplus(log_q - rising) / q_large
    return jnp.where(small, h_small, h_large)


def _expm1_over(x: jax.Array) -> jax.Array:
    """Return (e^x - 1)/x = Σ x^n/(n + 1)!, for 0 <= x <= 1/2."""
    total = jnp.zeros_like(x)
    for n in reversed(range(TERMS)):
        total = total * x + 1 / math.factorial(n + 1)
    return total


def _log1p_over(y: jax.Array) -> jax.Array:
    """Return ln(1 + y)/y = (2/(2 + y)) Σ v^{2n}/(2n + 1), v = y/(2 + y), for 0 <= y <= 1."""
    square = jnp.square(y / (2 + y))
    total = jnp.zeros_like(y)
    for n in reversed(range(TERMS)):
        total = total * square + 1 / (2 * n + 1)
    return 2 / (2 + y) * total


def _parameters(
    dtype: jnp.dtype,
    lower: ArrayLike,
    upper: ArrayLike,
    rate: ArrayLike,
    shape: ArrayLike,
    start: ArrayLike | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return a, b, r, q and k = -c as arrays of the dtype; judge those that are known."""
    a, b = real("lower", lower), real("upper", upper)
    r, q = real("rate", rate), real("shape", shape)
    check_broadcast(lower=a, upper=b, start=0.0 if start is None else real("start", start))
    _check_asymptotes(known(a), known(b))
    for name, symbol, value, sign in (("rate", "0 <", r, np.greater), ("shape", "0 <=", q, None)):
        if (number := known(value)) is not None:
            # In the dtype of the computation: 1e-50 is 0 in float32, and 1e50 infinite.
            held = rounded(number, dtype)
            good = (sign or np.greater_equal)(held, 0) & np.isfinite(held)
            require(good, f"{symbol} {name} < inf in {jnp.dtype(dtype)}", **{name: value})
    a, b, r, q = (cast(value, dtype) for value in (a, b, r, q))
    if start is None:
        return a, b, r, q, jnp.asarray(math.log(2), dtype)
    p = real("start", start)
    _check_start(known(p), known(real("lower", lower)), known(real("upper", upper)), dtype)
    share = (cast(p, dtype) + a) / (b - a)
    # Rounding may put a start of b - 2a a bit above its bound.
    return a, b, r, q, -jnp.log(jnp.where(share > 1, 1, share))


def _check_asymptotes(a: np.ndarray | None, b: np.ndarray | None) -> None:
    if a is not None and b is not None:
        good = (a >= 0) & (a < b) & (b <= 1)
        require(good, "0 <= lower < upper <= 1", lower=a, upper=b)
    elif a is not None:
        require((a >= 0) & (a < 1), "0 <= lower < 1", lower=a)
    elif b is not None:
        require((b > 0) & (b <= 1), "0 < upper <= 1", upper=b)


def _check_start(
    p: np.ndarray | None, a: np.ndarray | None, b: np.ndarray | None, dtype: jnp.dtype
) -> None:
    if p is None:
        return
    require(p >= 0, "0 <= start", start=p)
    if a is not None:
        require(p + a > 0, "start + lower > 0", start=p, lower=a)
    if a is not None and b is not None:
        room = b - 2 * a + 4 * float(jnp.finfo(dtype).eps)
        require(p <= room, "0 <= start <= upper - 2 lower", start=p, lower=a, upper=b)
    else:
        require(p <= 1, "start <= 1", start=p)


def _output_dtype(t: np.ndarray | jax.Array) -> jnp.dtype:
    """Return the dtype of a curve: that of its argument, or the one it was computed in."""
    dtype = jax.dtypes.canonicalize_dtype(t.dtype)
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.dtype(computing_dtype(t))
