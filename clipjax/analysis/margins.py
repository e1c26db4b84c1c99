"""The separator of largest margin, and how far a linear model is from its direction.

Gradient descent on a separable set drives the weights to infinity, and their direction to that of
the hard-margin separator ŵ, although nobody asks for it: the implicit bias. With labels y_i = ±1,

    ŵ = argmin { |w|² : y_i wᵀx_i >= 1 for all i },      margin γ̂ = 1/|ŵ|

The separator goes through the origin, as the limit of gradient descent on a model without intercept
does. For one with an intercept append a column of ones to x: its weight counts in the norm then, in
the separator as in gradient descent.

References:
    Soudry et al., The implicit bias of gradient descent on separable data, JMLR 19, 2018,
    https://arxiv.org/abs/1710.10345.
"""

from typing import NamedTuple

import numpy as np
import scipy.optimize

from clipjax.optim._checks import as_numbers

TOLERANCE = 1e-8
"""How far the conditions of Karush, Kuhn and Tucker may be off, relative to their terms."""

LEAST_MARGIN = 1e-6
"""Least margin, as a share of the largest |x_ij|, that counts as separable in float64.

The nearest point of the hull of the y_i x_i is found with an error of about 1e-16 of the largest;
weights divide by the margin, multipliers by its square.
"""

LARGEST = 1e150
"""Largest |x_ij|: margins and multipliers, which have units of x and 1/x², stay finite."""


class HardMargin(NamedTuple):
    """The separator of largest margin.

    Attributes:
        weights: ŵ, (n,), float64; the least margin y_i ŵᵀx_i is 1.
        margin: γ̂ = 1/|ŵ|, the least distance of an example to the plane ŵᵀx = 0, in units of x.
        multipliers: α_i >= 0, (m,), with ŵ = Σ_i α_i y_i x_i.
        support: indices i of the support vectors with α_i > 0, rising. Others may have margin 1 too
            where the multipliers are not unique.
    """

    weights: np.ndarray
    margin: float
    multipliers: np.ndarray
    support: np.ndarray


def hard_margin_separator(x: np.ndarray, labels: np.ndarray) -> HardMargin:
    """Return the hard-margin separator of a separable set.

        ŵ = argmin { |w|² : y_i wᵀx_i >= 1 }

    It is the point of the convex hull of the y_i x_i nearest to 0, divided by its squared norm. The
    nearest point is a problem of non-negative least squares (Lawson and Hanson's least distance
    programming), which an active set solves exactly. Then the conditions of Karush, Kuhn and Tucker
    are checked: y_i ŵᵀx_i >= 1, α_i >= 0, α_i (y_i ŵᵀx_i - 1) = 0, ŵ = Σ_i α_i y_i x_i.

    Args:
        x: (m, n), real and finite, one example a row.
        labels: (m,), two different numbers; the smaller one is the class -1.

    Returns:
        A `HardMargin`, float64.

    Raises:
        ValueError: for other shapes, numbers that are not finite, labels that are not two classes,
            and for a set that no plane through 0 separates with a margin above `LEAST_MARGIN` times
            the largest |x_ij|. In this case the message names examples, at most n + 1, that cannot
            be separated even without the others: a combination Σ u_i y_i x_i with u_i > 0 is 0.

    Examples:
        >>> x = np.array([[2.0, 1.0], [1.0, 2.0], [-4.0, -3.0]])
        >>> found = hard_margin_separator(x, np.array([1, 1, 0]))
        >>> found.weights.round(6).tolist(), round(found.margin, 6), found.support.tolist()
        ([0.333333, 0.333333], 2.12132, [0, 1])
        >>> hard_margin_separator(np.array([[1.0], [3.0], [-2.0]]), np.array([1, 0, 0]))
        Traceback (most recent call last):
            ...
        ValueError: labels: no plane through 0 separates the classes of x; examples 0, 1 cannot be \
separated. A column of ones in x adds an intercept.

    References:
        Lawson, Hanson, Solving Least Squares Problems, 1974, chapter 23 (RECALLED); Soudry et al.
        2018, (4) (the separator).
    """
    signed, signs = _signed(x, labels)
    scale = np.abs(signed).max()
    if scale < 1 / LARGEST:
        raise ValueError(f"x must have a number of at least {1 / LARGEST:.0e}, got {scale:.0e}.")
    points = signed / scale
    # min |Σ u_i z_i|² + (Σ u_i - 1)²: u is 1/(1 + γ²) times the weights of the nearest point.
    rows = np.vstack([points.T, np.ones(len(points))])
    aim = np.append(np.zeros(points.shape[1]), 1.0)
    try:
        u, _ = scipy.optimize.nnls(rows, aim, maxiter=30 * len(points))
    except RuntimeError as error:
        raise ValueError(f"x: the search for its separator did not end: {error}.") from error
    support = np.flatnonzero(u > 0)
    nearest = points.T @ u / u.sum()
    if not (points @ nearest).min() > LEAST_MARGIN * np.linalg.norm(nearest):
        raise _inseparable(support, signs)
    weights, multipliers = _polished(points, support)
    _check_optimal(points, weights, multipliers)
    weights, multipliers = weights / scale, multipliers / scale**2
    return HardMargin(weights, float(1 / np.linalg.norm(weights)), multipliers, support)


def direction_error(params: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return how far the directions of weights are from that of a separator.

        | θ/|θ| - ŵ/|ŵ| |,     which is 2 sin(angle / 2), from 0 to 2

    Gradient descent on a loss with an exponential tail has O(1/ln t) after t steps (Soudry et al.).

    Args:
        params: θ, (..., n), real; lengths do not matter.
        weights: ŵ, (n,), such as `hard_margin_separator(...).weights`.

    Returns:
        (...), float64; NaN for θ = 0, which has no direction, and where θ is not finite.

    Raises:
        ValueError: for shapes that do not match, or weights without a direction.

    Examples:
        >>> direction_error(np.array([[0.0, 5.0], [3.0, 4.0]]), np.array([0.0, 1.0])).round(4)
        array([0.    , 0.6325])
    """
    theta, separator = _params(params), _vector("weights", weights)
    _check_columns("params", theta, "weights", separator)
    return np.linalg.norm(_unit(theta) - _unit(separator), axis=-1)


def margin_gap(
    params: np.ndarray, x: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Return by how much the margins of weights fall short of the largest margin.

        γ̂ - min_i y_i θᵀx_i/|θ|,     γ̂ = min_i y_i ŵᵀx_i/|ŵ|

    It exceeds γ̂ where θ does not separate the classes.

    Args:
        params: θ, (..., n), real; lengths do not matter.
        x: (m, n), as of `hard_margin_separator`.
        labels: (m,), as of `hard_margin_separator`.
        weights: ŵ, (n,), such as `hard_margin_separator(x, labels).weights`.

    Returns:
        (...), float64, in units of x; NaN for θ = 0, which has no margin, and where θ is not
        finite.

    Raises:
        ValueError: for shapes that do not match, weights without a direction, or as
            `hard_margin_separator` for x and labels, which need not be separable.

    Examples:
        >>> x, labels = np.array([[2.0, 0.0], [-3.0, 1.0]]), np.array([1, 0])
        >>> weights = hard_margin_separator(x, labels).weights
        >>> margin_gap(np.array([[1.0, 0.0], [3.0, 4.0]]), x, labels, weights).round(6)
        array([0., 1.])
    """
    signed, _ = _signed(x, labels)
    theta, separator = _params(params), _vector("weights", weights)
    _check_columns("params", theta, "weights", separator)
    _check_columns("x", signed, "weights", separator)
    return (signed @ _unit(separator)).min() - (_unit(theta) @ signed.T).min(axis=-1)


def _polished(points: np.ndarray, support: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ŵ and α (m,) from the support vectors alone: Z ŵ = 1, Zᵀα = ŵ."""
    chosen = points[support]
    # Rows of Z are independent: those of (Z, 1) are, by the active set, and 1 = Z ŵ lies in Z.
    weights = np.linalg.lstsq(chosen, np.ones(len(support)))[0]
    multipliers = np.zeros(len(points))
    multipliers[support] = np.linalg.lstsq(chosen.T, weights)[0]
    return weights, multipliers


def _check_optimal(points: np.ndarray, weights: np.ndarray, multipliers: np.ndarray) -> None:
    """Raise ValueError unless the conditions of Karush, Kuhn and Tucker hold to `TOLERANCE`."""
    margins = points @ weights
    conditions = {
        "the least margin": 1 - margins.min(),
        "a multiplier's sign": -multipliers.min() / multipliers.max(),
        "complementarity": np.max(multipliers * np.abs(margins - 1)) / multipliers.max(),
        "stationarity": np.linalg.norm(points.T @ multipliers - weights) / np.linalg.norm(weights),
    }
    name, worst = max(conditions.items(), key=lambda item: item[1])
    if not worst <= TOLERANCE:
        raise ValueError(
            f"x: its separator is not optimal, {name} is off by {worst:.1e}, {TOLERANCE:.0e} is "
            "allowed. Two examples may be too close, or columns differ too much in size: scale x."
        )


def _inseparable(support: np.ndarray, signs: np.ndarray) -> ValueError:
    shown = ", ".join(map(str, support[:20]))
    if len(support) > 20:
        shown += f", ... ({len(support)} in all)"
    if len(support) == 1:
        said = f"example {shown} is 0, or nearly"
    elif len(set(signs[support])) == 1:
        said = f"examples {shown}, of one class, lie around 0"
    else:
        said = f"examples {shown} cannot be separated"
    return ValueError(
        f"labels: no plane through 0 separates the classes of x; {said}. A column of ones in x "
        "adds an intercept."
    )


def _signed(x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return y_i x_i (m, n) and y_i, each -1 or +1; raise ValueError for what is no such set."""
    features = as_numbers("x", x).astype(np.float64)
    if features.ndim != 2 or not features.size:
        raise ValueError(f"x must have the shape (m, n), without a 0, got {features.shape}.")
    if not np.isfinite(features).all():
        row = int(np.argmin(np.isfinite(features).all(axis=1)))
        raise ValueError(f"x must be finite, its row {row} is not.")
    if np.abs(features).max() > LARGEST:
        raise ValueError(f"x must not exceed {LARGEST:.0e}, got {np.abs(features).max():.0e}.")
    given = labels.astype(np.int8) if getattr(labels, "dtype", None) == np.bool_ else labels
    classes = as_numbers("labels", given)
    if classes.shape != features.shape[:1]:
        raise ValueError(
            f"labels must have the shape ({len(features)},), one for each row of x, got "
            f"{classes.shape}."
        )
    found = np.unique(classes)
    if len(found) != 2 or not np.isfinite(found).all():
        shown = ", ".join(f"{label:g}" for label in found[:5]) + (", ..." if len(found) > 5 else "")
        raise ValueError(f"labels must be two classes, two different numbers, got {shown}.")
    signs = np.where(classes == found[1], 1.0, -1.0)
    return signs[:, None] * features, signs


def _params(params: np.ndarray) -> np.ndarray:
    theta = as_numbers("params", params).astype(np.float64)
    if not theta.ndim:
        raise ValueError(f"params must have the shape (..., n), got the number {theta}.")
    return theta


def _vector(name: str, value: np.ndarray) -> np.ndarray:
    vector = as_numbers(name, value).astype(np.float64)
    if vector.ndim != 1 or not np.isfinite(vector).all() or not vector.any():
        raise ValueError(f"{name} must be a finite vector, not 0, got {vector}.")
    return vector


def _check_columns(name: str, array: np.ndarray, like: str, vector: np.ndarray) -> None:
    if array.shape[-1] != len(vector):
        raise ValueError(
            f"{name} must have {len(vector)} columns, as many as {like}, got {array.shape[-1]}."
        )


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors (..., n) divided by their lengths, which may be as large as 1e308."""
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = vectors / largest
        return scaled / np.linalg.norm(scaled, axis=-1, keepdims=True)
