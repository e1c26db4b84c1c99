r"""Where to evaluate: the point that a method answers with, from its state alone.

Some methods take gradients at one point and answer with another. SSTM's parameters are its query
points x, its answer is y; clipped-SGD's theorem is about the mean of its iterates.
`eval_params(opt_state, params)` returns the answer for any of them, from the optimizer's state
alone, at any depth of chains and wrappers:

```python
tx = clipjax.average_iterates(clipjax.clipped_sgd(0.1, 1.0), start=1000)
...
accuracy = evaluate(clipjax.eval_params(opt_state, params))
```

A state says where by a method `evaluation_point()`, so that a method of yours takes part as well.
Optax's `contrib.schedule_free` does. (`optax.ema` averages updates, not parameters: it has no such
point.)
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from clipjax.optim._trees import describe, find_states, state_names


class EvaluationPoint(NamedTuple):
    """Where a method is to be evaluated, leaf by leaf.

    Attributes:
        stored: a buffer of the state, a tree like the parameters; masked where the method has none.
        point: (parameter, its part of the buffer) -> the point, of any floating dtype.
    """

    stored: optax.Params
    point: Callable[[jax.Array, jax.Array], jax.Array]


@runtime_checkable
class HasEvaluationPoint(Protocol):
    """A state (a NamedTuple) whose method is evaluated elsewhere than at the parameters."""

    def evaluation_point(self) -> EvaluationPoint:
        """Return the buffer and the rule that lead from the parameters to the point."""
        ...


def _schedule_free_point(state: optax.contrib.ScheduleFreeState) -> EvaluationPoint:
    """Return x = (y − (1 − b1) z) / b1: y are the parameters, x is the average."""

    def point(y: jax.Array, z: jax.Array) -> jax.Array:
        return (y - (1 - state.b1) * z) / state.b1

    return EvaluationPoint(state.z, point)


def eval_params(opt_state: optax.OptState, params: optax.Params) -> optax.Params:
    r"""Return the point at which a method is to be evaluated.

    y^N = (x − θz)/(1 − θ) for `clipped_sstm` and `scale_by_similar_triangles` (x itself where
    θ = 1: at the start, and after a restart); the average for `average_iterates`, and for Optax's
    `contrib.schedule_free`, (y − (1 − b1) z) / b1. Parameters that no such state covers, being
    masked out or in a group that does not average, are returned as they are. Works under `jit`, and
    under `vmap` over both arguments.

    Args:
        opt_state: the state of an optimizer, in which such states lie at any depth; several may,
            if they belong to disjoint groups of parameters (`optax.masked`, `optax.partition`).
        params: the current parameters.

    Returns:
        A tree like `params`, with its dtypes.

    Raises:
        ValueError: if there is no such state, or two of them cover one leaf; the states are named.

    Examples:
        >>> import jax.numpy as jnp
        >>> from clipjax import clipped_sstm
        >>> tx = clipped_sstm(learning_rate=1.0, smoothness=1.0, clip_level=None)
        >>> x = jnp.array([4.0])
        >>> state = tx.init(x)
        >>> for _ in range(2):
        ...     updates, state = tx.update(jnp.array([1.0]), state, x)
        ...     x = optax.apply_updates(x, updates)
        >>> print(eval_params(state, x))  # z = 4, 3, 1.5 and α = 1, 1.5: y = (1·3 + 1.5·1.5)/2.5
        [2.1]
    """
    states = _states(opt_state)
    if not states:
        raise ValueError(
            "eval_params found no method that keeps an evaluation point (clipped_sstm, "
            "scale_by_similar_triangles, average_iterates, optax.contrib.schedule_free) in "
            "opt_state, which holds: "
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


def has_evaluation_point(opt_state: optax.OptState) -> bool:
    """Return whether a state holds a method that `eval_params` finds.

    Args:
        opt_state: the state of an optimizer, or its shapes.

    Examples:
        >>> import jax.numpy as jnp
        >>> from clipjax import average_iterates
        >>> sgd = optax.sgd(0.1)
        >>> has_evaluation_point(sgd.init(jnp.ones(2)))
        False
        >>> has_evaluation_point(average_iterates(sgd).init(jnp.ones(2)))
        True
    """
    return bool(_states(opt_state))


def _states(opt_state: optax.OptState) -> list[tuple[str, Any]]:
    return find_states(opt_state, (HasEvaluationPoint, optax.contrib.ScheduleFreeState))


_NOT_COVERED = object()


def _answers(state: Any, params: optax.Params) -> list[Any]:
    """Return the answer for each leaf of `params`, or _NOT_COVERED where the state's is masked."""
    own = isinstance(state, HasEvaluationPoint)
    there = state.evaluation_point() if own else _schedule_free_point(state)

    def masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    def cover(stored: Any, x: Any) -> Any:  # a masked node may stand for a whole subtree
        if masked(stored):
            return jax.tree.map(lambda _: _NOT_COVERED, x)
        if jnp.shape(stored) != jnp.shape(x) or not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(
                f"params must be those of the optimizer: expected an array of shape "
                f"{jnp.shape(stored)}, got shape {jnp.shape(x)} of {x.dtype}."
            )
        return there.point(x, stored)

    try:
        answers = jax.tree.map(cover, there.stored, params, is_leaf=masked)
    except (ValueError, TypeError) as error:
        if str(error).startswith("params must"):
            raise
        raise ValueError(f"params must be a tree like that of the optimizer: {error}") from error
    return jax.tree.leaves(answers)
