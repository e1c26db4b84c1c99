r"""Shampoo: AdaGrad with a matrix for each side of a weight matrix.

Full-matrix AdaGrad of an m x n matrix would keep mn x mn numbers. Shampoo keeps an m x m matrix L
of the rows and an n x n matrix R of the columns, and divides by a root of their Kronecker product.

**Roots.** L^{-e} is formed from the eigendecomposition of L in float32 or wider. Eigenvalues below
ε λ_max are taken for ε λ_max: that far down float32 sees rounding only. ε is relative, so L^{-1/4}
scales exactly with the loss. In between refreshes the last roots are used.

**Which matrices.** A matrix as it is. Of a tensor with more axes all but the last are merged: a
convolution's kernel (height, width, in, out) is a matrix of height·width·in rows. A dimension
larger than `block_size` is cut into equal blocks, each with an L and R of its own (zeros fill up
the last). Vectors, scalars and matrices with one row or column have a diagonal only, as in AdaGrad.

**Grafting** (Anil et al. 2020, Agarwal et al. 2020). Shampoo's direction is given the length that
the step of another method has, tensor by tensor, so that the learning rate of that method can be
kept. Vectors take the step of the grafted method itself.

| `grafting` | length of the step of a matrix, step of a vector                              |
|------------|-------------------------------------------------------------------------------|
| "none"     | Shampoo's own length; vectors g / √v, v the mean (or sum) of g² with `decay`  |
| "sgd"      | g                                                                             |
| "adagrad"  | g / √v, v the sum of g²                                                       |
| "rmsprop"  | g / √v, v the mean of g² with `decay`                                         |

**Large gradients.** The square of a number above 1.8e19 is infinite in float32. A matrix whose norm
is above a quarter of that is shortened to it first (of a vector, each coordinate above it is cut).
With the exponent 1/4 this leaves the step as it is where the roots are refreshed.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax.optim._checks import (
    check_choice,
    check_count,
    check_flag,
    check_floating,
    check_interval,
    check_positive,
    is_concrete,
)
from clipjax.optim._trees import increment, transformation, wide_dtype
from clipjax.optim.clipping.norms import scaled_norm, shorten
from clipjax.optim.methods._blocks import (
    Blocks,
    BySize,
    by_size,
    by_tensor,
    cut,
    flat,
    identities,
    unflat,
)
from clipjax.optim.methods.clipped_adaptive import bounded, largest_to_square, mix
from clipjax.optim.methods.clipped_sgd import descend, heavy_ball
from clipjax.typing import ScalarOrSchedule

GRAFTING = ("none", "sgd", "adagrad", "rmsprop")
"""From which method the length of a step is taken."""

_EXACT = jax.lax.Precision.HIGHEST  # a GPU would multiply float32 with ten bits


class ShampooState(NamedTuple):
    """State of `scale_by_shampoo`.

    Attributes:
        count: number of steps so far; int32 scalar.
        diagonal: v, a tree like the parameters in float32 or wider; () with grafting "sgd".
        statistics: every L and R, one after another, those of smaller blocks first; (numbers,).
        roots: L^{-e} and R^{-e} of the last refresh likewise; () if every step refreshes them.
    """

    count: jax.Array
    diagonal: Any
    statistics: jax.Array
    roots: Any


class _Rule(NamedTuple):
    """The options of Shampoo."""

    decay: jax.typing.ArrayLike | None
    eps: jax.typing.ArrayLike
    exponent: jax.typing.ArrayLike
    block_size: int
    update_every: int
    grafting: str
    bias_correction: bool
    initial: jax.typing.ArrayLike

    def plan(self, leaves: list[Any]) -> list[Blocks | None]:
        """Return how each tensor is cut, None for those that have a diagonal only."""
        return [cut(jnp.shape(leaf), self.block_size) for leaf in leaves]

    @property
    def diagonal_decay(self) -> jax.typing.ArrayLike | None:
        """β of v, None for a sum."""
        return None if self.grafting == "adagrad" else self.decay

    def corrected(
        self, mean: jax.Array, decay: jax.typing.ArrayLike | None, count: jax.Array
    ) -> jax.Array:
        """Return a running mean without its bias to its start at 0."""
        if decay is None or not self.bias_correction:
            return mean
        return mean / (1 - jnp.asarray(decay, mean.dtype) ** count)


def _one_by_one(matrices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Decompose a batch without LAPACK's batches, of which two at once wait for one another.

    On two cores, jaxlib 0.10.2, a step that decomposes matrices of two sizes never ended: each
    batch takes threads of XLA's pool and waits there for tasks that need the same threads.
    """
    return jax.lax.map(lambda matrix: tuple(jnp.linalg.eigh(matrix)), matrices)


def inverse_root(
    matrices: jax.Array, exponent: jax.typing.ArrayLike, eps: jax.typing.ArrayLike
) -> jax.Array:
    """Return A^{-e} of each symmetric A ⪰ 0, its eigenvalues λ taken for max(λ, ε λ_max).

    Args:
        matrices: A, (number, n, n), float32 or wider.
        exponent: e > 0.
        eps: ε > 0.

    Returns:
        An array like `matrices`. 0 where A is 0; NaN, whole, where an entry of A is not finite.

    Examples:
        >>> A = jnp.diag(jnp.array([16.0, 0.0]))
        >>> print(inverse_root(A[None], 0.25, 1.0 / 16**3)[0])  # λ = 16 and 16/16³
        [[0.5 0. ]
         [0.  4. ]]
    """
    dtype, size = matrices.dtype, matrices.shape[-1]
    exponent, eps = jnp.asarray(exponent, dtype), jnp.asarray(eps, dtype)
    # LAPACK is not asked about NaN: some versions loop, some answer with numbers.
    finite = jnp.all(jnp.isfinite(matrices), axis=(-2, -1), keepdims=True)
    values, vectors = jax.lax.platform_dependent(
        jnp.where(finite, matrices, jnp.eye(size, dtype=dtype)),
        cpu=_one_by_one,
        default=lambda batch: tuple(jnp.linalg.eigh(batch)),
    )
    largest = values[..., -1:]
    zero = largest < jnp.finfo(dtype).tiny
    largest = jnp.where(zero, 1, largest)
    powers = jnp.maximum(values / largest, eps) ** -exponent * largest**-exponent
    powers = jnp.where(zero, 0, powers)
    root = jnp.einsum("nij,nj,nkj->nik", vectors, powers, vectors, precision=_EXACT)
    return jnp.where(finite, root, jnp.nan)


def _over_root(g: jax.Array, v: jax.Array) -> jax.Array:
    """Return g / √v; 0 where v is 0, NaN where it overflowed: a quotient of 0 would stand still."""
    zero = v == 0
    root = jnp.sqrt(jnp.where(zero, 1, jnp.where(jnp.isinf(v), jnp.nan, v)))
    return jnp.where(zero, 0, g.astype(v.dtype) / root)


def _with_length(direction: jax.Array, step: jax.Array) -> jax.Array:
    """Return the direction with the Euclidean norm of the step."""
    norm, length = scaled_norm(direction).norm(), scaled_norm(step).norm()
    return direction * jnp.where(norm == 0, 0, length / jnp.where(norm == 0, 1, norm))


def _shortened(g: jax.Array, dtype: Any) -> jax.Array:
    """Return a matrix whose squared norm is a number of `dtype`; NaN, whole, if g is not finite."""
    wide = g.astype(jnp.result_type(g, dtype))
    norm = scaled_norm(wide)
    # A quarter: A + Aᵀ, which `eigh` forms, is a number as well.
    limit = min(largest_to_square(dtype) / 4, float(jnp.finfo(norm.scale.dtype).max))
    (shortened,) = jax.tree.leaves(shorten(wide, norm, jnp.asarray(limit, norm.scale.dtype)))
    return shortened.astype(dtype)


def _gram(blocks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return GGᵀ and GᵀG of each block."""
    left = jnp.einsum("nij,nkj->nik", blocks, blocks, precision=_EXACT)
    return left, jnp.einsum("nij,nik->njk", blocks, blocks, precision=_EXACT)


def _scale_by_shampoo(rule: _Rule) -> optax.GradientTransformationExtraArgs:
    def init(params: optax.Params) -> ShampooState:
        check_floating(params)
        dtype = wide_dtype(params)
        plan = [blocks for blocks in rule.plan(jax.tree.leaves(params)) if blocks]

        def start(x: jax.Array) -> jax.Array:
            initial = jnp.array(rule.initial, wide_dtype(x), copy=True)  # buffers can be donated
            return jnp.full_like(x, initial, wide_dtype(x))

        diagonal = () if rule.grafting == "sgd" else jax.tree.map(start, params)
        roots = () if rule.update_every == 1 else identities(plan, 1, dtype)
        statistics = identities(plan, rule.initial, dtype)
        return ShampooState(jnp.zeros((), jnp.int32), diagonal, statistics, roots)

    def new_diagonal(v: jax.Array, g: jax.Array) -> jax.Array:
        return mix(v, jnp.square(bounded(g, v.dtype).astype(v.dtype)), rule.diagonal_decay)

    def update(updates, state: ShampooState, params=None, **extra_args):
        del params, extra_args
        count = increment(state.count)
        leaves, treedef = jax.tree.flatten(updates)
        plan, dtype = rule.plan(leaves), state.statistics.dtype
        diagonal, steps = (), [g.astype(wide_dtype(g)) for g in leaves]
        if rule.grafting != "sgd":
            diagonal = jax.tree.map(new_diagonal, state.diagonal, updates)
            steps = [
                _over_root(bounded(g, v.dtype), rule.corrected(v, rule.diagonal_decay, count))
                for g, v in zip(leaves, treedef.flatten_up_to(diagonal), strict=True)
            ]

        pairs = zip(leaves, plan, strict=True)
        matrices = [(b, b.split(_shortened(g, dtype))) for g, b in pairs if b]
        cuts = [b for b, _ in matrices]
        grams = by_size([_gram(g) for _, g in matrices])
        old = unflat(state.statistics, cuts)
        statistics = {size: mix(old[size], gram, rule.decay) for size, gram in grams.items()}

        def refresh() -> BySize:
            corrected = {n: rule.corrected(a, rule.decay, count) for n, a in statistics.items()}
            return {n: inverse_root(a, rule.exponent, rule.eps) for n, a in corrected.items()}

        if rule.update_every == 1:
            roots = refresh()
        else:
            last = unflat(state.roots, cuts)
            roots = jax.lax.cond(state.count % rule.update_every == 0, refresh, lambda: last)
        sides = iter(by_tensor(roots, cuts))
        blocks = iter(matrices)
        directions = []
        for g, step, cut_up in zip(leaves, steps, plan, strict=True):
            direction = step
            if cut_up:
                (left, right), (_, matrix) = next(sides), next(blocks)
                product = jnp.einsum("nij,njk,nkl->nil", left, matrix, right, precision=_EXACT)
                direction = cut_up.join(product)
                if rule.grafting != "none":
                    direction = _with_length(direction, step)
            directions.append(direction.astype(g.dtype))
        kept = () if rule.update_every == 1 else flat(roots, dtype)
        new_state = ShampooState(count, diagonal, flat(statistics, dtype), kept)
        return jax.tree.unflatten(treedef, directions), new_state

    return transformation(init, update)


def scale_by_shampoo(
    decay: jax.typing.ArrayLike | None = 0.99,
    *,
    eps: jax.typing.ArrayLike = 1e-6,
    exponent: jax.typing.ArrayLike = 0.25,
    block_size: int = 128,
    update_every: int = 1,
    grafting: str = "rmsprop",
    bias_correction: bool = True,
    initial_accumulator_value: jax.typing.ArrayLike = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Multiply the gradient of each matrix by inverse roots of its two second moments.

    .. math:: L \leftarrow \beta L + (1-\beta) G G^\top, \quad
       R \leftarrow \beta R + (1-\beta) G^\top G, \quad
       D = L^{-e} G R^{-e}

    With `decay=None` the moments are the sums L + GGᵀ and R + GᵀG of Gupta et al.; vectors and
    scalars have the diagonal form, g / √v. The lecture's form is `grafting="none"`,
    `bias_correction=False` and e = 1/4.

    Args:
        decay: β in [0, 1); None for sums.
        eps: ε in (0, 1]; eigenvalues are taken for at least ε λ_max.
        exponent: e in (0, 1]; 1/4 is Shampoo's, 1/2 that of later work (Morwani et al. 2024).
        block_size: largest dimension of a block, at least 1; static.
        update_every: the roots are refreshed in steps 0, n, 2n, ...; the moments in every step.
            Static.
        grafting: "none", "sgd", "adagrad" or "rmsprop": whose length a step has.
        bias_correction: whether running means are divided by 1 − β^t.
        initial_accumulator_value: L_0 = R_0 = this times the identity, and v_0.

    Returns:
        An Optax transformation with state `ShampooState`. Directions have the sign and the dtype of
        the gradients. For an m x n block the state holds m² + n² numbers, twice that if
        `update_every` > 1, besides v.

    Non-finite gradients: the update is NaN in that tensor if it is a matrix, in that coordinate if
    not, and so it is for good: L, R and v keep it. With `update_every` > 1 the steps up to the next
    refresh use the old roots and may be numbers; from then on they are NaN. A sum v that overflows
    gives NaN too. `optax.apply_if_finite` around it skips the step and leaves the state as it was.

    Raises:
        ValueError: for concrete numbers out of range; an unknown `grafting` (with the nearest);
            "rmsprop" without a decay; a bias correction with an initial value, which it would blow
            up; or parameters that are not real floating-point arrays.

    Examples:
        >>> tx = scale_by_shampoo(0.0, grafting="none")  # the first step is UVᵀ of G = UΣVᵀ
        >>> g = jnp.array([[0.0, 2.0], [8.0, 0.0]])
        >>> print(tx.update(g, tx.init(g))[0].round(4))
        [[0. 1.]
         [1. 0.]]

    References:
        Gupta, Koren, Singer, Shampoo, 2018 (https://arxiv.org/abs/1802.09568), Algorithm 1; Anil et
        al., Scalable second order optimization for deep learning, 2020
        (https://arxiv.org/abs/2002.09018): blocks, grafting, stale roots; Morwani et al., 2024
        (https://arxiv.org/abs/2406.17748). The formulas are those of the lecture (VERIFIED there);
        what the papers add is RECALLED.
    """
    check_interval("decay", decay, 0, 1, closed_high=False, optional=True)
    check_interval("eps", eps, 0, 1, closed_low=False)
    check_interval("exponent", exponent, 0, 1, closed_low=False)
    check_count("block_size", block_size, minimum=1)
    check_count("update_every", update_every, minimum=1)
    check_choice("grafting", grafting, GRAFTING)
    check_flag("bias_correction", bias_correction)
    name, initial = "initial_accumulator_value", initial_accumulator_value
    check_interval(name, initial, 0, jnp.inf, closed_high=False)
    if grafting == "rmsprop" and decay is None:
        raise ValueError('grafting="rmsprop" needs a decay, got None. Take "adagrad" with sums.')
    if decay is not None and bias_correction and is_concrete(initial) and initial:
        raise ValueError(
            "bias_correction=True is for moments that start at 0, got initial_accumulator_value="
            f"{initial}. Set bias_correction=False."
        )
    rule = _Rule(decay, eps, exponent, block_size, update_every, grafting, bias_correction, initial)
    return _scale_by_shampoo(rule)


def shampoo(
    learning_rate: ScalarOrSchedule,
    decay: jax.typing.ArrayLike | None = 0.99,
    *,
    momentum: jax.typing.ArrayLike | None = None,
    nesterov: bool = False,
    eps: jax.typing.ArrayLike = 1e-6,
    exponent: jax.typing.ArrayLike = 0.25,
    block_size: int = 128,
    update_every: int = 1,
    grafting: str = "rmsprop",
    bias_correction: bool = True,
    initial_accumulator_value: jax.typing.ArrayLike = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""Shampoo: second moments of rows and columns, and momentum after them.

    .. math:: D = L^{-e} G R^{-e}, \quad v \leftarrow \mu v + D, \quad W \leftarrow W - \eta v

    L, R and all options but these three are those of `scale_by_shampoo`. Clipping goes before it,
    `optax.chain(clip_by_quantile(0.9), shampoo(1e-3))`, so that spikes stay out of the moments.

    Args:
        learning_rate: η > 0; a number, a traced scalar, or a schedule η(step).
        decay: β in [0, 1); None for sums.
        momentum: μ in [0, 1); None keeps no velocity.
        nesterov: whether the step looks ahead, D + μv.
        eps: ε in (0, 1], relative.
        exponent: e in (0, 1].
        block_size: largest dimension of a block; static.
        update_every: steps between two refreshes of the roots; static. Decompositions are the cost
            of Shampoo: 10 to 100 for networks.
        grafting: "none", "sgd", "adagrad" or "rmsprop".
        bias_correction: whether running means are divided by 1 − β^t.
        initial_accumulator_value: L_0 = R_0 = this times the identity, and v_0.

    Returns:
        An Optax transformation. Updates have the dtype of the gradients.

    Non-finite gradients: the update is NaN in that tensor if it is a matrix, in that coordinate if
    not, then and (from the next refresh of the roots on) in every later step. Momentum keeps it as
    well. `optax.apply_if_finite` around it skips the step and leaves the state as it was.

    Raises:
        ValueError: as `scale_by_shampoo`; for a learning rate or a momentum out of range, or
            `nesterov` without momentum.

    Examples:
        >>> tx = shampoo(0.5, grafting="sgd")  # SGD's length, Shampoo's direction
        >>> g = jnp.array([[3.0, 0.0], [0.0, 4.0]])
        >>> print(tx.update(g, tx.init(g), g)[0].round(4) + 0)  # 0.5 · 5 · I/√2
        [[-1.7678  0.    ]
         [ 0.     -1.7678]]

    References:
        Those of `scale_by_shampoo`.
    """
    check_positive("learning_rate", learning_rate, finite=True, schedule=True)
    check_interval("momentum", momentum, 0, 1, closed_high=False, optional=True)
    check_flag("nesterov", nesterov)
    if nesterov and momentum is None:
        raise ValueError("nesterov=True needs a momentum, got momentum=None.")
    core = scale_by_shampoo(
        decay,
        eps=eps,
        exponent=exponent,
        block_size=block_size,
        update_every=update_every,
        grafting=grafting,
        bias_correction=bias_correction,
        initial_accumulator_value=initial_accumulator_value,
    )
    velocity = (
        optax.identity()
        if momentum is None
        else heavy_ball(momentum, nesterov, before_clipping=False)
    )
    return optax.chain(core, velocity, descend(learning_rate))
