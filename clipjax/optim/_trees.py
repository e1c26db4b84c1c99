"""Small questions about trees: in which dtype to add up, and where a state lies."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax

S = TypeVar("S")


def wide_dtype(*trees: Any) -> jnp.dtype:
    """Return the dtype to compute scalars in: float32, or float64 if any leaf is float64.

    Examples:
        >>> wide_dtype({"w": jnp.zeros(2, jnp.bfloat16)}).name
        'float32'
    """
    double = jnp.dtype(jnp.float64)
    any_double = any(jnp.result_type(leaf) == double for leaf in jax.tree.leaves(trees))
    return double if any_double else jnp.dtype(jnp.float32)


def map_pair(fn: Callable[..., tuple[Any, Any]], *trees: Any) -> tuple[Any, Any]:
    """Map a function with two results over the leaves, and return the two trees of results.

    A tree without leaves, as an empty group of `optax.partition` has, gives two such trees.

    Examples:
        >>> map_pair(divmod, {"a": 7, "b": 9}, {"a": 2, "b": 5})
        ({'a': 3, 'b': 1}, {'a': 1, 'b': 4})
    """
    leaves, treedef = jax.tree.flatten(trees[0])
    others = [treedef.flatten_up_to(tree) for tree in trees[1:]]
    pairs = [fn(*column) for column in zip(leaves, *others, strict=True)]
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    return jax.tree.unflatten(treedef, first), jax.tree.unflatten(treedef, second)


def find_states(opt_state: Any, kinds: type[S] | tuple[type[S], ...]) -> list[tuple[str, S]]:
    """Return every state of the given NamedTuple type(s) in `opt_state`, outermost first.

    States nested inside a found state are found too.

    Args:
        opt_state: any tree of states: of a chain, of a wrapper, of masked or partitioned groups.
        kinds: the NamedTuple type(s) looked for.

    Returns:
        Pairs of the path within `opt_state` (such as `[0].inner_state`) and the state there.

    Examples:
        >>> import optax
        >>> state = optax.chain(optax.trace(0.9), optax.scale(-1.0)).init(jnp.zeros(2))
        >>> [path for path, _ in find_states(state, optax.TraceState)]
        ['[0]']
    """
    return _find(opt_state, kinds, "")


def _find(tree: Any, kinds: Any, prefix: str) -> list[tuple[str, Any]]:
    found = []
    nodes = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda node: isinstance(node, kinds))
    for path, node in nodes:
        if isinstance(node, kinds):
            here = prefix + jax.tree_util.keystr(path)
            found.append((here, node))
            for name, child in zip(node._fields, node, strict=True):
                found += _find(child, kinds, f"{here}.{name}")
    return found


def increment(count: jax.Array) -> jax.Array:
    """Return count + 1, which stays at the largest int32 instead of turning negative."""
    return jnp.asarray(optax.safe_increment(count))


def describe(states: list[tuple[str, Any]]) -> str:
    """Return the names and places of found states for an error message.

    Examples:
        >>> import optax
        >>> describe([("[0]", optax.TraceState(jnp.zeros(2)))])
        'TraceState at opt_state[0]'
    """
    return ", ".join(f"{type(state).__name__} at opt_state{path}" for path, state in states)


def state_names(opt_state: Any) -> str:
    """Return the names of the NamedTuple states in `opt_state`, for an error message.

    Examples:
        >>> import optax
        >>> state_names(optax.chain(optax.trace(0.9), optax.identity()).init(jnp.zeros(2)))
        'TraceState, EmptyState'
    """
    names: dict[str, None] = {}

    def visit(node: Any) -> None:
        if isinstance(node, tuple | list):
            if hasattr(node, "_fields"):
                names[type(node).__name__] = None
            for child in node:
                visit(child)
        elif isinstance(node, dict):
            for child in node.values():
                visit(child)

    visit(opt_state)
    return ", ".join(names) or "no NamedTuple states"


def transformation(
    init: Callable[..., Any], update: Callable[..., Any]
) -> optax.GradientTransformationExtraArgs:
    """Return the Optax transformation of the two functions.

    Optax's protocol types every state as "any tree"; functions that name the type of their own
    state, as ours do, match it at run time but not for a type checker.
    """
    return optax.GradientTransformationExtraArgs(init, update)
