r"""Where to evaluate: the averaged point of a method, and averages for methods that have none.

Some methods take gradients at one point and answer with another. SSTM's parameters are its query
points x, its answer is y; clipped-SGD's theorem is about the mean of its iterates.
`eval_params(opt_state, params)` returns the answer for any of them, from the optimizer's state
alone, at any depth of chains and wrappers:

```python
tx = clipjax.average_iterates(clipjax.clipped_sgd(0.1, 1.0), start=1000)
...
accuracy = evaluate(clipjax.eval_params(opt_state, params))
```
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax.optim._checks import (
    check_count,
    check_floating,
    check_interval,
    check_transformation,
    require_params,
)
from clipjax.optim._trees import (
    describe,
    find_states,
    increment,
    state_names,
    transformation,
    wide_dtype,
)
from clipjax.optim.methods.similar_triangles import SimilarTrianglesState, averaging_weight


class AverageIteratesState(NamedTuple):
    """State of `average_iterates`.

    Attributes:
        count: number of updates so far, N; int32 scalar.
        averaged: number of iterates in the mean; int32 scalar.
        mean: the average; a tree like the parameters, in float32 or wider.
        inner_state: the state of the wrapped transformation.
    """

    count: jax.Array
    averaged: jax.Array
    mean: optax.Params
    inner_state: optax.OptState


def average_iterates(
    inner: optax.GradientTransformation,
    *,
    start: int = 0,
    decay: jax.typing.ArrayLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Keep an average of the iterates x^k at which `inner` is given gradients.

    .. math::

       \bar x = \frac{1}{N - s} \sum_{k=s}^{N-1} x^k
       \qquad\text{or, with a decay } \beta,\qquad
       \bar x \leftarrow \beta \bar x + (1 - \beta) x^k,\quad \bar x = x^s \text{ at first},

    where N is the number of updates. The updates are those of `inner`; `clipjax.eval_params`
    returns the average (before step s, the parameters). As in the theorems the last point x^N,
    where no gradient has been taken yet, is left out. The iterates averaged are the parameters that
    `update` is given, so whatever else moves them, in a chain or by hand, is included.

    The mean is formed as x̄ + (x − x̄)/n, in float32 or wider, and costs one buffer.

    Args:
        inner: the transformation whose updates move the parameters.
        start: s, number of the first iterate averaged, from 0; static under
            `optax.inject_hyperparams`.
        decay: β in [0, 1); None for the uniform mean.

    Returns:
        An Optax transformation with state `AverageIteratesState`.

    Non-finite gradients: the update is that of `inner`. Parameters that became non-finite enter the
    average, which stays so. `optax.apply_if_finite` around the whole skips the step: the iterate is
    averaged once, not twice.

    Raises:
        ValueError: for a negative `start`, a concrete `decay` outside [0, 1), parameters that are
            not real floating-point arrays, or `update` without parameters.

    Examples:
        >>> tx = average_iterates(optax.sgd(1.0))
        >>> x = jnp.array(0.0)
        >>> state = tx.init(x)
        >>> for _ in range(4):  # x = 0, 1, 2, 3
        ...     updates, state = tx.update(jnp.array(-1.0), state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> print(x, eval_params(state, x))
        4.0 1.5

    References:
        Polyak, Juditsky, Acceleration of stochastic approximation by averaging, 1992;
        Gorbunov, Danilova, Gasnikov, 2020 (https://arxiv.org/abs/2005.10785), the x̄^N of the
        theorem on clipped-SGD.
    """
    check_transformation("inner", inner)
    check_count("start", start)
    check_interval("decay", decay, 0, 1, closed_high=False, optional=True)
    inner = optax.with_extra_args_support(inner)

    def init(params: optax.Params) -> AverageIteratesState:
        check_floating(params)
        # Buffers of their own throughout: parameters and state can both be donated.
        count, averaged = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        mean = jax.tree.map(lambda x: jnp.array(x, wide_dtype(x), copy=True), params)
        return AverageIteratesState(count, averaged, mean, inner.init(params))

    def update(updates, state: AverageIteratesState, params=None, **extra_args):
        params = require_params("average_iterates", params)
        included = state.count >= start
        averaged = jnp.where(included, increment(state.averaged), state.averaged)

        def mix(mean: jax.Array, x: jax.Array) -> jax.Array:
            weight = 1 / jnp.maximum(averaged, 1).astype(mean.dtype)
            if decay is not None:
                weight = jnp.where(averaged <= 1, 1, 1 - jnp.asarray(decay, mean.dtype))
            mixed = mean + weight * (x.astype(mean.dtype) - mean)
            return jnp.where(included, mixed, mean)

        mean = jax.tree.map(mix, state.mean, params)
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra_args)
        count = increment(state.count)
        return updates, AverageIteratesState(count, averaged, mean, inner_state)

    return transformation(init, update)


def _similar_triangles_answer(
    state: SimilarTrianglesState,
) -> tuple[optax.Params, Callable[[jax.Array, jax.Array], jax.Array]]:
    theta = averaging_weight(state)
    # y = (x − θz) / (1 − θ); where θ = 1 nothing but x itself is known of y.
    known = theta < 1
    pull = jnp.where(known, theta / jnp.where(known, 1 - theta, 1), 0)

    def answer(x: jax.Array, z: jax.Array) -> jax.Array:
        dtype = wide_dtype(x)
        x, z = x.astype(dtype), z.astype(dtype)
        return x + pull.astype(dtype) * (x - z)

    return state.z, answer


def _average_answer(
    state: AverageIteratesState,
) -> tuple[optax.Params, Callable[[jax.Array, jax.Array], jax.Array]]:
    def answer(x: jax.Array, mean: jax.Array) -> jax.Array:
        return jnp.where(state.averaged > 0, mean, x.astype(mean.dtype))

    return state.mean, answer


def eval_params(opt_state: optax.OptState, params: optax.Params) -> optax.Params:
    r"""Return the point at which a method is to be evaluated.

    y^N = (x − θz)/(1 − θ) for `clipped_sstm` and `scale_by_similar_triangles` (x itself where
    θ = 1: at the start, and after a restart); the average for `average_iterates`. Parameters that
    no such state covers, being masked out or in a group that does not average, are returned as they
    are. Works under `jit`, and under `vmap` over both arguments.

    Args:
        opt_state: the state of an optimizer, in which such states lie at any depth; several may,
            if they belong to disjoint groups of parameters (`optax.masked`, `optax.partition`).
        params: the current parameters.

    Returns:
        A tree like `params`, with its dtypes.

    Raises:
        ValueError: if there is no such state, or two of them cover one leaf; the states are named.

    Examples:
        >>> from clipjax.optim.methods.similar_triangles import clipped_sstm
        >>> tx = clipped_sstm(learning_rate=1.0, smoothness=1.0, clip_level=None)
        >>> x = jnp.array([4.0])
        >>> state = tx.init(x)
        >>> for _ in range(2):
        ...     updates, state = tx.update(jnp.array([1.0]), state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> print(eval_params(state, x))  # z = 4, 3, 1.5 and α = 1, 1.5: y = (1·3 + 1.5·1.5)/2.5
        [2.1]
    """
    states = find_states(opt_state, (SimilarTrianglesState, AverageIteratesState))
    if not states:
        raise ValueError(
            "eval_params found no method that keeps an evaluation point (clipped_sstm, "
            "scale_by_similar_triangles, average_iterates) in this optimizer state, which holds: "
            f"{state_names(opt_state)}. Evaluate such a method at its parameters."
        )
    if not all(hasattr(leaf, "dtype") for leaf in jax.tree.leaves(params)):
        raise TypeError(f"params must be a tree of arrays, got {type(params).__name__}.")
    leaves, treedef = jax.tree.flatten(params)
    if params is None or (
        isinstance(params, list) and not params
    ):  # a masked group may hold no array, but is a tree
        raise ValueError(f"params must hold the parameters, got {params!r}.")
    owners: list[int | None] = [None] * len(leaves)
    for number, (_, state) in enumerate(states):
        for leaf, answer in enumerate(_answers(state, params)):
            if answer is _NOT_COVERED:
                continue
            other = owners[leaf]
            if other is not None:
                clash = describe([states[other], states[number]])
                raise ValueError(f"eval_params found two states that cover one parameter: {clash}.")
            owners[leaf] = number
            leaves[leaf] = answer.astype(leaves[leaf].dtype)
    return jax.tree.unflatten(treedef, leaves)


_NOT_COVERED = object()


def _answers(
    state: SimilarTrianglesState | AverageIteratesState, params: optax.Params
) -> list[Any]:
    """Return the answer for each leaf of `params`, or _NOT_COVERED where the state's is masked."""
    if isinstance(state, AverageIteratesState):
        buffer, answer = _average_answer(state)
    else:
        buffer, answer = _similar_triangles_answer(state)

    def masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    def cover(stored: Any, x: Any) -> Any:  # a masked node may stand for a whole subtree
        if masked(stored):
            return jax.tree.map(lambda _: _NOT_COVERED, x)
        return answer(x, stored)

    return jax.tree.leaves(jax.tree.map(cover, buffer, params, is_leaf=masked))
