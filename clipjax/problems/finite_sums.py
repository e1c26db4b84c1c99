"""Finite sums over examples: logistic regression, and regression with a power of the residual.

    f(x) = 1/m Σ_i φ(a_i·x, b_i)

L, f* and x* are computed from the data, in float64, when they are first asked for; nothing is typed
in. The rows a_i may be a dense array or a SciPy sparse matrix, which is kept as padded lists of
(column, value) so that a batch of rows is one gather.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse

from clipjax.problems._checks import LARGEST, check_number
from clipjax.problems.protocols import Problem

Matrix = np.ndarray | scipy.sparse.csr_array


LARGEST_GRAM = 2**31
"""Bytes that the Gram matrix or Hessian of a problem may take: 16,384 columns."""


class FiniteSum(Problem, Protocol):
    """A problem that is a mean over examples."""

    @property
    def num_examples(self) -> int:
        """Return m."""
        ...

    def value_on(self, x: jax.Array, examples: jax.Array) -> jax.Array:
        """Return the mean of f_i(x) over the examples with these indices, shape (batch,)."""
        ...


class SparseRows(NamedTuple):
    """Rows as padded lists, both (m, longest row); the padding is value 0 in column 0."""

    columns: np.ndarray
    values: np.ndarray


def sparse_rows(matrix: Any) -> SparseRows:
    """Return the rows of a SciPy sparse matrix as padded lists.

    Examples:
        >>> import scipy.sparse
        >>> rows = sparse_rows(scipy.sparse.csr_array([[0.0, 5.0, 0.0], [1.0, 0.0, 2.0]]))
        >>> rows.columns.tolist(), rows.values.tolist()
        ([[1, 0], [0, 2]], [[5.0, 0.0], [1.0, 2.0]])
    """
    matrix = scipy.sparse.csr_array(matrix)
    lengths = np.diff(matrix.indptr)
    shape = (matrix.shape[0], max(1, int(lengths.max(initial=0))))
    columns, values = np.zeros(shape, np.int32), np.zeros(shape)
    row = np.repeat(np.arange(shape[0]), lengths)
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], lengths)
    columns[row, place], values[row, place] = matrix.indices, matrix.data
    return SparseRows(columns, values)


def products(
    rows: np.ndarray | SparseRows, x: jax.Array, examples: jax.Array | None = None
) -> jax.Array:
    """Return a_i·x for all rows, or for the rows with these indices."""

    def pick(array: np.ndarray) -> jax.Array:
        whole = jnp.asarray(array)
        return whole if examples is None else whole[examples]

    if isinstance(rows, SparseRows):
        return jnp.sum(pick(rows.values).astype(x.dtype) * x[pick(rows.columns)], axis=-1)
    return pick(rows).astype(x.dtype) @ x


@dataclass(frozen=True, eq=False)
class LogisticRegression:
    """Logistic regression without intercept, f(x) = 1/m Σ_i ln(1 + exp(-b_i a_i·x)) + ridge/2 |x|².

        L = σ_max(A)² / (4m) + ridge,   μ = ridge

    Where a column occurs with one label only, or a plane separates the classes, best weights lie at
    infinity and f* is not attained; `minimum` is then f* to rounding and `minimiser` a point that
    reaches it to rounding.

    Args:
        features: the rows a_i, (m, n), dense or sparse, finite.
        labels: b_i, (m,), each -1 or +1.
        ridge: the weight of the squared norm, not negative.

    Raises:
        ValueError: for shapes that do not match, values that are not finite, other labels, a
            negative ridge.

    Examples:
        >>> problem = LogisticRegression(np.array([[1.0], [1.0], [1.0]]), np.array([1, 1, -1]))
        >>> round(problem.smoothness, 9)  # 3 / (4 * 3)
        0.25
        >>> round(problem.minimiser[0], 6)  # two of three are positive: ln 2
        0.693147
    """

    features: Any
    labels: np.ndarray
    ridge: float = 0.0

    def __post_init__(self) -> None:
        _check_data(self.features, "labels", self.labels)
        other = np.setdiff1d(self.labels, [-1, 1])
        if len(other):
            raise ValueError(f"label {other[0]}; labels of a logistic regression are -1 and +1")
        check_number("ridge", self.ridge)
        if not 0 <= self.ridge <= LARGEST:
            raise ValueError(
                f"ridge is {self.ridge}; it must be finite and not negative, at most {LARGEST}"
            )

    @property
    def num_examples(self) -> int:
        """Return m."""
        return self.features.shape[0]

    @property
    def dimension(self) -> int:
        """Return n."""
        return self.features.shape[1]

    @cached_property
    def _largest(self) -> float:
        return largest_singular_value(_thin(self.features))

    @property
    def smoothness(self) -> float:
        """Return L = σ_max(A)² / (4m) + ridge."""
        return self._largest**2 / (4 * self.num_examples) + self.ridge

    @property
    def strong_convexity(self) -> float:
        """Return ridge: far from the origin the logistic loss has no curvature of its own."""
        return self.ridge

    @cached_property
    def _solution(self) -> tuple[float, np.ndarray]:
        signed = _scale_rows(_thin(self.features), self.labels)
        count = self.num_examples

        def derivatives(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            margins = signed @ x
            # 1 - sigmoid(margin), without overflow
            miss = np.exp(-np.logaddexp(0, margins))
            value = np.logaddexp(0, -margins).mean() + 0.5 * self.ridge * x @ x
            gradient = -(signed.T @ miss) / count + self.ridge * x
            hessian = _gram(signed, miss * (1 - miss)) / count + self.ridge * np.eye(len(x))
            return value, gradient, hessian

        return newton(derivatives, np.zeros(self.dimension))

    @property
    def minimum(self) -> float:
        """Return f*, by Newton's method in float64."""
        return self._solution[0]

    @property
    def minimiser(self) -> tuple[float, ...]:
        """Return x*, by Newton's method in float64."""
        return tuple(self._solution[1].tolist())

    @cached_property
    def _rows(self) -> np.ndarray | SparseRows:
        return _device_rows(self.features)

    def _value(self, x: jax.Array, examples: jax.Array | None) -> jax.Array:
        labels = jnp.asarray(self.labels, x.dtype)
        labels = labels if examples is None else labels[examples]
        losses = jax.nn.softplus(-labels * products(self._rows, x, examples))
        return jnp.mean(losses) + 0.5 * self.ridge * jnp.sum(x**2)

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        return self._value(x, None)

    def value_on(self, x: jax.Array, examples: jax.Array) -> jax.Array:
        """Return the mean of f_i(x) over the examples with these indices."""
        return self._value(x, examples)


@dataclass(frozen=True, eq=False)
class PowerRegression:
    """Regression with a power of the residual, f(x) = 1/m Σ_i |a_i·x - b_i|^(1 + ν), 0 < ν ≤ 1.

    The gradient is Hölder continuous of exponent ν: |∇f(x) - ∇f(y)| ≤ M |x - y|^ν, where

        M = (1 + ν) 2^(1-ν) 1/m Σ_i |a_i|^(1+ν)

    serves, since |φ'(r) - φ'(s)| ≤ (1 + ν) 2^(1-ν) |r - s|^ν for φ(r) = |r|^(1+ν). For ν < 1 no
    Lipschitz constant exists and far away the curvature vanishes: L = inf, μ = 0.

    Args:
        features: the rows a_i, (m, n), dense or sparse, finite.
        targets: b_i, (m,), finite.
        exponent: ν in (0, 1].

    Raises:
        ValueError: for shapes that do not match, values that are not finite, an exponent outside
            (0, 1].

    Examples:
        >>> problem = PowerRegression(np.eye(2), np.array([1.0, -2.0]), exponent=0.5)
        >>> round(problem.minimum, 9), np.round(problem.minimiser, 9).tolist()
        (0.0, [1.0, -2.0])
    """

    features: Any
    targets: np.ndarray
    exponent: float

    def __post_init__(self) -> None:
        _check_data(self.features, "targets", self.targets)
        check_number("exponent", self.exponent)
        if not 0 < self.exponent <= 1:
            raise ValueError(f"exponent is {self.exponent}; it must lie in (0, 1]")

    @property
    def num_examples(self) -> int:
        """Return m."""
        return self.features.shape[0]

    @property
    def dimension(self) -> int:
        """Return n."""
        return self.features.shape[1]

    @cached_property
    def _curvatures(self) -> np.ndarray:
        """Return the eigenvalues of the Hessian for ν = 1, ascending."""
        gram = _gram(self.features, np.ones(self.num_examples))
        return np.maximum(np.linalg.eigvalsh(gram), 0) * 2 / self.num_examples

    @property
    def smoothness(self) -> float:
        """Return L = 2 σ_max(A)² / m for ν = 1, else inf."""
        return math.inf if self.exponent < 1 else float(self._curvatures[-1])

    @property
    def strong_convexity(self) -> float:
        """Return μ = 2 σ_min(A)² / m for ν = 1, else 0."""
        return 0.0 if self.exponent < 1 else float(self._curvatures[0])

    @cached_property
    def holder_constant(self) -> float:
        """Return M, which serves as Hölder constant (the smallest one may be smaller)."""
        norms = np.sqrt(_squared_norms(self.features))
        power = 1 + self.exponent
        return float(power * 2 ** (1 - self.exponent) * np.mean(norms**power))

    @cached_property
    def _solution(self) -> tuple[float, np.ndarray]:
        power, count = 1 + self.exponent, self.num_examples
        start = _least_squares(self.features, self.targets)

        def derivatives(x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
            residual = self.features @ x - self.targets
            size = np.abs(residual)
            gradient = self.features.T @ (power * size**self.exponent * np.sign(residual)) / count
            # φ'' is infinite at 0; a residual is taken as no smaller than rounding leaves it.
            floor = 1e-10 * max(1.0, float(size.max()))
            curvature = power * self.exponent * np.maximum(size, floor) ** (self.exponent - 1)
            hessian = _gram(self.features, curvature) / count
            return float(np.mean(size**power)), gradient, hessian

        return newton(derivatives, start)

    @property
    def minimum(self) -> float:
        """Return f*, by Newton's method in float64."""
        return self._solution[0]

    @property
    def minimiser(self) -> tuple[float, ...]:
        """Return x*, by Newton's method in float64."""
        return tuple(self._solution[1].tolist())

    @cached_property
    def _rows(self) -> np.ndarray | SparseRows:
        return _device_rows(self.features)

    def _value(self, x: jax.Array, examples: jax.Array | None) -> jax.Array:
        targets = jnp.asarray(self.targets, x.dtype)
        targets = targets if examples is None else targets[examples]
        return jnp.mean(power_loss(products(self._rows, x, examples) - targets, self.exponent))

    def value(self, x: jax.Array) -> jax.Array:
        """Return f(x) for `x` of shape (n,)."""
        return self._value(x, None)

    def value_on(self, x: jax.Array, examples: jax.Array) -> jax.Array:
        """Return the mean of f_i(x) over the examples with these indices."""
        return self._value(x, examples)


def power_loss(residual: jax.Array, exponent: float) -> jax.Array:
    """Return |r|^(1 + ν), whose derivative at 0 is 0 here as it is in mathematics.

    Examples:
        >>> float(jax.grad(power_loss)(0.0, 0.5)), float(jax.grad(power_loss)(-4.0, 0.5))
        (0.0, -3.0)
    """
    size = jnp.abs(residual)
    # Asked whether it is 0, not whether it is positive: NaN is neither, and must stay NaN.
    safe = jnp.where(size == 0, 1, size)
    return jnp.where(size == 0, 0, safe ** (1 + exponent))


def newton(
    derivatives: Callable[[np.ndarray], tuple[float, np.ndarray, np.ndarray]], start: np.ndarray
) -> tuple[float, np.ndarray]:
    """Minimise a convex function by Newton's method with backtracking, in float64.

    Steps are solved in coordinates of unit curvature, which makes unscaled features harmless. It
    ends where half the squared Newton decrement, the decrease that the quadratic model still
    promises, is below rounding (1e-15 of 1 + |f|).

    Args:
        derivatives: x -> value, gradient (n,), Hessian (n, n).
        start: the first point, (n,).

    Returns:
        The smallest value and its point.

    Raises:
        ValueError: if it has not ended after 500 steps.
    """
    x = np.asarray(start, np.float64)
    value, gradient, hessian = derivatives(x)
    for _ in range(500):
        step = _newton_step(gradient, hessian)
        promised = -0.5 * float(gradient @ step)
        if promised <= 1e-15 * (1 + abs(value)):
            return float(value), x
        size = 1.0
        while size > 1e-12:
            new = derivatives(x + size * step)
            if new[0] <= value - 1e-4 * size * promised:
                break
            size /= 2
        else:  # no decrease that float64 can show
            return float(value), x
        x = x + size * step
        value, gradient, hessian = new
    raise ValueError(
        f"no minimiser found in 500 Newton steps; at |x| = {np.linalg.norm(x):.3g} the value is "
        f"{value:.6g} and still falls. Has the function a minimiser?"
    )


def _newton_step(gradient: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    scale = np.sqrt(np.diag(hessian))
    scale = np.where(scale > 0, scale, 1.0)
    scaled = hessian / np.outer(scale, scale)
    # Columns that never occur or repeat one another make it singular: they then stay as they are.
    scaled[np.diag_indices_from(scaled)] += 1e-12
    return -scipy.linalg.solve(scaled, gradient / scale, assume_a="pos") / scale


def largest_singular_value(matrix: Any) -> float:
    """Return σ_max of a dense or sparse matrix, from the smaller of its two Gram matrices."""
    small = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    if small.shape[1] > 3000:
        return float(scipy.sparse.linalg.svds(matrix, k=1, return_singular_vectors=False)[0])
    return math.sqrt(float(np.linalg.eigvalsh(_gram(small, np.ones(small.shape[0])))[-1]))


def _gram(matrix: Any, weights: np.ndarray) -> np.ndarray:
    """Return Σ_i w_i a_i a_iᵀ, dense; refused, before anything is made, where it is too large."""
    count = matrix.shape[1]
    if 8 * count**2 > LARGEST_GRAM:
        raise ValueError(
            f"a matrix of {count:,} x {count:,} numbers takes {8 * count**2 / 2**30:,.1f} GiB, at "
            f"most {LARGEST_GRAM / 2**30:.0f} GiB are made. Newton's method needs it for the best "
            f"value of a problem with {count:,} columns: leave columns out"
        )
    if scipy.sparse.issparse(matrix):
        return (matrix.T @ _scale_rows(matrix, weights)).toarray()
    return matrix.T @ (matrix * weights[:, None])


def _thin(matrix: Any) -> Any:
    """Return a matrix that is mostly zeros as a sparse one, which its Gram matrices come from."""
    if scipy.sparse.issparse(matrix) or np.count_nonzero(matrix) > 0.2 * matrix.size:
        return matrix
    return scipy.sparse.csr_array(matrix)


def _scale_rows(matrix: Any, weights: np.ndarray) -> Any:
    if scipy.sparse.issparse(matrix):
        return scipy.sparse.csr_array(scipy.sparse.diags_array(np.asarray(weights, float)) @ matrix)
    return matrix * np.asarray(weights, float)[:, None]


def _squared_norms(matrix: Any) -> np.ndarray:
    if scipy.sparse.issparse(matrix):
        return np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel()
    return np.sum(matrix**2, axis=1)


def _least_squares(matrix: Any, targets: np.ndarray) -> np.ndarray:
    dense = matrix.toarray() if scipy.sparse.issparse(matrix) else matrix
    return np.linalg.lstsq(dense, targets)[0]


def _device_rows(matrix: Any) -> np.ndarray | SparseRows:
    return sparse_rows(matrix) if scipy.sparse.issparse(matrix) else matrix


def _check_data(features: Any, name: str, responses: np.ndarray) -> None:
    for argument, array in (("features", features), (name, responses)):
        if not isinstance(array, np.ndarray | jax.Array) and not scipy.sparse.issparse(array):
            raise TypeError(f"{argument} must be an array, got {type(array).__name__}")
        if not (np.issubdtype(array.dtype, np.number) and np.isrealobj(array)):
            raise ValueError(f"{argument} must hold real numbers, got dtype {array.dtype}")
    if features.ndim != 2 or responses.shape != (features.shape[0],):
        raise ValueError(
            f"features of shape {features.shape} and {responses.shape} responses ({name}); "
            "expected (m, n) and (m,)"
        )
    if 0 in features.shape:
        raise ValueError(f"features of shape {features.shape} are empty")
    values = features.data if scipy.sparse.issparse(features) else features
    if not (np.isfinite(values).all() and np.isfinite(responses).all()):
        raise ValueError("features and responses must be finite")
