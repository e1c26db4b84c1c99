"""What losses refuse, in one place: arguments that hold no numbers, and numbers out of range.

Only concrete numbers are judged. A traced number (a rate under `jax.vmap` or `jax.grad`) has no
value yet and passes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike


def as_arrays(minimum: int = 0, **arguments: jax.Array) -> list[jax.Array]:
    """Return the arguments as arrays; raise TypeError unless each holds numbers.

    Args:
        minimum: the number of axes that each needs at least.
        **arguments: arrays by the name of the argument.
    """
    found = []
    for name, value in arguments.items():
        dtype = getattr(value, "dtype", None)
        if isinstance(value, bool | int | float):
            value = jnp.asarray(float(value) if abs(value) < 1e38 else jnp.inf)
        elif dtype is None or not any(
            jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.bool_)
        ):
            raise TypeError(f"{name} must be an array of numbers, got {type(value).__name__}")
        if jnp.ndim(value) < minimum:
            raise ValueError(
                f"{name} must have {minimum} axes or more, got shape {jnp.shape(value)}"
            )
        found.append(value)
    return found


def check_same_shapes(**arguments: jax.Array) -> None:
    """Raise ValueError unless the arguments, by their names, have one shape."""
    shapes = {name: jnp.shape(value) for name, value in arguments.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"the shapes of {shapes} differ; expected one")


def real(name: str, value: ArrayLike) -> np.ndarray | jax.Array:
    """Return real numbers as an array: a traced or JAX array as it is, all else as NumPy's.

    Raises:
        ValueError: if the value holds anything but real numbers within the range of float64.

    Examples:
        >>> real("rate", 2)
        array(2.)
        >>> real("rate", "fast")
        Traceback (most recent call last):
            ...
        ValueError: rate must be a number or an array of real numbers, got 'fast'.
    """
    if not isinstance(value, jax.Array):
        try:
            found = np.asarray(value)
            if found.dtype.kind in "biu" or isinstance(value, int):  # large ones are objects
                return found.astype(np.float64)
            if not jnp.issubdtype(found.dtype, jnp.floating):
                raise TypeError
            return found
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(
                f"{name} must be a number or an array of real numbers, got {shown(value)}."
            ) from error
    if jnp.issubdtype(value.dtype, jnp.complexfloating) or not (
        jnp.issubdtype(value.dtype, jnp.number) or value.dtype == jnp.bool_
    ):
        raise ValueError(f"{name} must be real numbers, got an array of {value.dtype}.")
    return value


def known(value: Any) -> np.ndarray | None:
    """Return a concrete array as NumPy's float64; None for a traced one."""
    return None if isinstance(value, Tracer) else np.asarray(value, np.float64)


def require(good: Any, inequality: str, **arguments: Any) -> None:
    """Raise ValueError, with the inequality and the arguments, unless all of `good` holds.

    Examples:
        >>> require(1.0 < 0.5, "lower < upper", lower=1.0, upper=0.5)
        Traceback (most recent call last):
            ...
        ValueError: lower < upper must hold, got lower=1.0, upper=0.5.
    """
    if not np.all(good):
        given = ", ".join(f"{name}={shown(value)}" for name, value in arguments.items())
        raise ValueError(f"{inequality} must hold, got {given}.")


def check_broadcast(**arguments: Any) -> None:
    """Raise ValueError, naming the arguments, unless their shapes broadcast to one."""
    shapes = {name: np.shape(value) for name, value in arguments.items()}
    try:
        np.broadcast_shapes(*shapes.values())
    except ValueError as error:
        said = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"shapes must broadcast, got {said}.") from error


def computing_dtype(value: Any) -> Any:
    """Return the dtype to compute in: float64 for float64, float32 for all else.

    Examples:
        >>> import jax.numpy as jnp
        >>> computing_dtype(jnp.ones(2, jnp.bfloat16)) == jnp.float32
        True
    """
    return jnp.float64 if jax.dtypes.canonicalize_dtype(value.dtype) == jnp.float64 else jnp.float32


def rounded(value: np.ndarray, dtype: Any) -> np.ndarray:
    """Return a NumPy array in this dtype; what is too large for it becomes infinite."""
    with np.errstate(over="ignore", under="ignore"):
        return value.astype(dtype)


def cast(value: Any, dtype: Any) -> jax.Array:
    """Return a JAX array of this dtype; what is too large for it becomes infinite."""
    return jnp.asarray(rounded(value, dtype) if isinstance(value, np.ndarray) else value, dtype)


def shown(value: Any) -> str:
    """Return a value for a message, cut where it is long."""
    if isinstance(value, np.ndarray | jax.Array) and not np.ndim(value):
        value = np.asarray(value).item()
    try:
        text = repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        text = "a number of more than 4,300 digits"
    return text if len(text) <= 200 else text[:200] + "..."
