"""What constructors and `init` refuse, in one place, so that every message reads alike.

Only concrete numbers are judged. A traced number (a learning rate inside a jitted training step, a
level under `jax.vmap`) has no value yet and passes.
"""

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def is_concrete(value: Any) -> bool:
    """Return whether `value` is a number whose value is known now, not a schedule or a tracer."""
    return not (value is None or callable(value) or isinstance(value, Tracer))


LARGEST_COUNT = 2**31 - 1
"""The largest count of steps, samples or examples: counters are int32."""


def _shown(value: Any) -> str:
    """Return the value for a message, cut where it is long."""
    try:
        text = str(value) if isinstance(value, np.ndarray) else repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = "a number of more than 4,300 digits"
    return text if len(text) <= 200 else text[:200] + "..."


def as_numbers(name: str, value: Any) -> np.ndarray:
    """Return a concrete value as an array; raise ValueError unless it holds real numbers only.

    Examples:
        >>> as_numbers("max_norm", "1")
        Traceback (most recent call last):
            ...
        ValueError: max_norm must be a number or a schedule, got '1'.
    """
    try:
        numbers = np.asarray(value)
    except (ValueError, TypeError, OverflowError):  # lists of lists of different lengths
        numbers = np.asarray(None)
    real = jnp.issubdtype(numbers.dtype, jnp.number)
    if not real or jnp.issubdtype(numbers.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must be a number or a schedule, got {_shown(value)}.")
    return numbers


def check_callable(name: str, value: Any) -> None:
    """Raise TypeError unless `value` can be called.

    Examples:
        >>> check_callable("fn", 1.0)
        Traceback (most recent call last):
            ...
        TypeError: fn must be a function, got 1.0.
    """
    if not callable(value):
        raise TypeError(f"{name} must be a function, got {_shown(value)}.")


def check_transformation(name: str, value: Any) -> None:
    """Raise TypeError unless `value` is an Optax transformation.

    Examples:
        >>> check_transformation("inner", 0.1)
        Traceback (most recent call last):
            ...
        TypeError: inner must be an Optax transformation such as optax.sgd(0.1), got 0.1.
    """
    if not (callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))):
        raise TypeError(
            f"{name} must be an Optax transformation such as optax.sgd(0.1), got {_shown(value)}."
        )


def check_instance(name: str, value: Any, kind: type, maker: str) -> None:
    """Raise TypeError unless `value` is of this type; `maker` says where one comes from."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be a {kind.__name__} ({maker}), got {_shown(value)}.")


def check_key(name: str, value: Any) -> None:
    """Raise TypeError unless `value` is one random key, typed or as two or more uint32."""
    dtype = getattr(value, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and value.ndim == 0
    if not (typed or (dtype == jnp.uint32 and value.ndim == 1)):
        raise TypeError(
            f"{name} must be one random key such as jax.random.key(0), got {_shown(value)}."
        )


def check_positive(
    name: str,
    value: Any,
    *,
    finite: bool = False,
    schedule: bool = False,
    arrays: bool = False,
) -> None:
    """Raise ValueError unless `value` is one positive (and, if asked, finite) number.

    Traced numbers pass. With `schedule` functions of the step pass too; with `arrays` every entry
    of an array is judged.

    Examples:
        >>> check_positive("max_norm", 1.0)
        >>> check_positive("max_norm", -1.0)
        Traceback (most recent call last):
            ...
        ValueError: max_norm must be positive, got -1.0.
    """
    if not _is_judged(name, value, "must be positive", schedule, arrays):
        return
    numbers = as_numbers(name, value)
    if not (numbers.size and np.all(numbers > 0)):
        raise ValueError(f"{name} must be positive, got {_shown(value)}.")
    if finite and not np.all(np.isfinite(numbers)):
        raise ValueError(f"{name} must be finite, got {_shown(value)}.")


def check_interval(
    name: str,
    value: Any,
    low: float,
    high: float,
    *,
    closed_low: bool = True,
    closed_high: bool = True,
    optional: bool = False,
    schedule: bool = False,
    arrays: bool = False,
) -> None:
    """Raise ValueError unless `value` is one number between `low` and `high`.

    Traced numbers pass, and None if it is `optional`. With `schedule` functions of the step pass
    too; with `arrays` every entry of an array is judged.

    Examples:
        >>> check_interval("momentum", 1.0, 0, 1, closed_high=False)
        Traceback (most recent call last):
            ...
        ValueError: momentum must lie in [0, 1), got 1.0.
        >>> check_interval("momentum", np.zeros(2), 0, 1)
        Traceback (most recent call last):
            ...
        ValueError: momentum must be one number, got an array of shape (2,).
    """
    if optional and value is None:
        return
    left, right = "[" if closed_low else "(", "]" if closed_high else ")"
    wanted = f"must lie in {left}{low}, {high}{right}"
    if not _is_judged(name, value, wanted, schedule, arrays):
        return
    numbers = as_numbers(name, value)
    above = numbers >= low if closed_low else numbers > low
    below = numbers <= high if closed_high else numbers < high
    if not (numbers.size and np.all(above & below)):
        raise ValueError(f"{name} {wanted}, got {_shown(value)}.")


def _is_judged(name: str, value: Any, wanted: str, schedule: bool, arrays: bool) -> bool:
    """Return whether the value is known now, having refused what is no number in any case."""
    if callable(value) and schedule:
        return False
    if callable(value) and not schedule:
        raise ValueError(f"{name} must be a number, not a function or schedule, got {value!r}.")
    if value is None:
        raise ValueError(f"{name} {wanted}, got None.")
    traced = isinstance(value, Tracer)
    shape = value.shape if traced else as_numbers(name, value).shape
    if shape and not arrays:
        raise ValueError(f"{name} must be one number, got an array of shape {shape}.")
    return not traced


def check_count(
    name: str,
    value: Any,
    minimum: int = 0,
    *,
    maximum: int = LARGEST_COUNT,
    optional: bool = False,
    arrays: bool = False,
) -> None:
    """Raise ValueError unless `value` is one whole number from `minimum` to `maximum`.

    Traced numbers pass, None if it is `optional`. With `arrays` every entry of an array is judged.

    Examples:
        >>> check_count("window", 0, minimum=1)
        Traceback (most recent call last):
            ...
        ValueError: window must be a whole number >= 1, got 0.
    """
    if value is None and optional:
        return
    if isinstance(value, Tracer):
        _is_judged(name, value, "", False, arrays)
        return
    try:
        number = np.asarray(value)
    except (ValueError, TypeError, OverflowError):  # lists of lists of different lengths
        number = np.asarray(None)
    whole = number.size and np.issubdtype(number.dtype, np.integer)
    if number.dtype == object and isinstance(value, int) and value > maximum:
        whole, number = True, np.asarray(np.iinfo(np.uint64).max)  # beyond NumPy's integers
    if not (whole and np.all(number >= minimum) and (arrays or not number.ndim)):
        raise ValueError(f"{name} must be a whole number >= {minimum}, got {_shown(value)}.")
    if np.any(number > maximum):
        raise ValueError(f"{name} must be at most {maximum}, got {_shown(value)}.")


def check_flag(name: str, value: Any) -> None:
    """Raise TypeError unless `value` is True or False.

    Examples:
        >>> check_flag("per_tensor", "no")
        Traceback (most recent call last):
            ...
        TypeError: per_tensor must be True or False, got 'no'.
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {_shown(value)}.")


def check_dtype(name: str, value: Any) -> None:
    """Raise TypeError unless `value` is a dtype of real floating-point numbers, or None.

    Examples:
        >>> check_dtype("mu_dtype", "int8")
        Traceback (most recent call last):
            ...
        TypeError: mu_dtype must be a floating-point dtype such as 'bfloat16', got 'int8'.
    """
    try:
        good = value is None or jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except (TypeError, ValueError):  # no dtype at all
        good = False
    if not good:
        raise TypeError(
            f"{name} must be a floating-point dtype such as 'bfloat16', got {_shown(value)}."
        )


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise ValueError, with the nearest name, unless `value` is one of `choices`.

    Examples:
        >>> check_choice("clip", "global_nrom", ["global_norm", "value"])
        Traceback (most recent call last):
            ...
        ValueError: clip must be one of 'global_norm', 'value', got 'global_nrom'. \
Did you mean 'global_norm'?
    """
    choices = list(choices)
    if isinstance(value, str) and value in choices:
        return
    nearest = difflib.get_close_matches(str(value), choices, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(
        f"{name} must be one of {', '.join(map(repr, choices))}, got {_shown(value)}.{hint}"
    )


def check_floating(params: Any, name: str = "params") -> None:
    """Raise ValueError, naming the leaf, if `params` holds anything but real floating-point arrays.

    Examples:
        >>> check_floating({"w": jnp.zeros(3), "steps": jnp.zeros(2, jnp.int32)})
        Traceback (most recent call last):
            ...
        ValueError: Parameters must be real floating-point arrays, but ['steps'] has dtype int32. \
Leave it out with optax.masked or cast it (argument params).
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        try:
            dtype = jnp.result_type(leaf)
        except (TypeError, ValueError, OverflowError):  # no array at all
            dtype = type(leaf).__name__
        if isinstance(dtype, str) or not jnp.issubdtype(dtype, jnp.floating):
            where = jax.tree_util.keystr(path) or "the only leaf"
            raise ValueError(
                f"Parameters must be real floating-point arrays, but {where} has dtype {dtype}. "
                f"Leave it out with optax.masked or cast it (argument {name})."
            )


def check_like(name: str, tree: Any, like_name: str, like: Any) -> None:
    """Raise ValueError unless two trees of arrays have the same structure and shapes.

    Examples:
        >>> check_like("mean", jnp.zeros(3), "params", jnp.zeros(2))
        Traceback (most recent call last):
            ...
        ValueError: mean must be a tree like params, with arrays of shapes (2,), got (3,).
    """
    found, expected = jax.tree.structure(tree), jax.tree.structure(like)
    if found != expected:
        raise ValueError(f"{name} must be a tree like {like_name}, {expected}, got {found}.")
    shapes, wanted = ([jnp.shape(x) for x in jax.tree.leaves(one)] for one in (tree, like))
    if shapes != wanted:
        raise ValueError(
            f"{name} must be a tree like {like_name}, with arrays of shapes "
            f"{', '.join(map(str, wanted))}, got {', '.join(map(str, shapes))}."
        )


def common_length(name: str, tree: Any, minimum: int) -> int:
    """Return the length of the leading axis that all arrays of a tree share.

    Raises:
        ValueError: if there are no arrays of numbers, their lengths differ, or one is too short.

    Examples:
        >>> common_length("examples", {"image": np.zeros((4, 8, 8)), "label": np.arange(4)}, 2)
        4
    """
    lengths = set()
    for leaf in jax.tree.leaves(tree):
        array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        if not isinstance(array, jax.Array) and array.dtype.kind not in "biufV":  # V: bfloat16
            raise ValueError(f"{name} must be arrays of numbers, got {_shown(leaf)}.")
        lengths.add(array.shape[0] if array.ndim else 0)
    if len(lengths) != 1 or min(lengths) < minimum:
        raise ValueError(
            f"{name} must be arrays of one common length, at least {minimum}, along their first "
            f"axis, got lengths {sorted(lengths)}."
        )
    return lengths.pop()


@contextlib.contextmanager
def naming(function: str, *arguments: str) -> Iterator[None]:
    """Name a user's function, and what it is given, in the TypeError or ValueError that it raises.

    Examples:
        >>> with naming("loss", "params", "examples"):
        ...     jnp.zeros(2) + jnp.zeros(3)
        Traceback (most recent call last):
            ...
        TypeError: loss failed with the given params and examples: add got incompatible shapes for \
broadcasting: (2,), (3,).
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        raise kind(
            f"{function} failed with the given {' and '.join(arguments)}: {error}"
        ) from error


def require_params(name: str, params: Any) -> Any:
    """Return `params`; raise ValueError if `update` of `name` was called without them."""
    if params is None:
        raise ValueError(
            f"{name} reads the current parameters: call tx.update(grads, state, params)."
        )
    return params
