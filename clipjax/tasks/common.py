"""What the tasks share: normalisation of images, checks, and the choice of real examples."""

import reprlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_whole(name: str, value: Any, minimum: int) -> None:
    """Raise ValueError unless a value is a whole number from `minimum` on that fits int32."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not minimum <= value < 2**31:
        raise ValueError(
            f"{name} must be a whole number from {minimum} to {2**31 - 1}, "
            f"got {reprlib.repr(value)}"
        )


def check_num_classes(num_classes: int) -> None:
    """Raise ValueError unless there are at least two classes."""
    check_whole("num_classes", num_classes, 2)


def check_normalization(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raise ValueError unless mean and std are finite, one a channel, and every std positive."""
    for name, values in (("mean", mean), ("std", std)):
        listed = isinstance(values, tuple | list | np.ndarray) and np.ndim(values) == 1
        if not listed or not all(_is_finite(value) for value in values):
            raise ValueError(
                f"{name} must be a tuple of finite numbers, got {reprlib.repr(values)}"
            )
    if len(mean) != len(std):
        raise ValueError(
            f"mean and std must have one entry per channel, got {len(mean)} and {len(std)}"
        )
    if not all(value > 0 for value in std):
        raise ValueError(f"std must be positive in every channel, got {tuple(std)}")


def _is_finite(value: Any) -> bool:
    number = isinstance(value, int | float | np.integer | np.floating)
    return number and not isinstance(value, bool) and bool(abs(value) < np.inf)


def check_positive(name: str, value: Any) -> None:
    """Raise ValueError unless a value is a positive, finite number."""
    if not _is_finite(value) or not value > 0:
        raise ValueError(f"{name} must be positive and finite, got {reprlib.repr(value)}")


def normalize(image: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Return (image / 255 - mean) / std.

    Args:
        image: (batch, height, width, channels), uint8.
        mean: of each channel, on the scale [0, 1].
        std: of each channel, on the scale [0, 1].

    Returns:
        The same shape, float32.

    Raises:
        ValueError: when the image's channels are not those of the mean.

    Examples:
        >>> import jax.numpy as jnp
        >>> normalize(jnp.full((1, 1, 1, 1), 255, jnp.uint8), (0.5,), (0.25,)).item()
        2.0
    """
    if image.shape[-1] != len(mean):
        raise ValueError(
            f"images have {image.shape[-1]} channels, but mean and std have {len(mean)}; "
            "give the task one mean and std per channel"
        )
    # One multiplication and one addition per value, whatever the constants.
    scale = 1.0 / (255.0 * np.asarray(std, np.float64))
    offset = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)
    scaled = image.astype(jnp.float32) * jnp.asarray(scale, jnp.float32)
    return scaled + jnp.asarray(offset, jnp.float32)


def positive_count(count: Any, what: str) -> float:
    """Return the count as float64; ValueError when there is nothing to average over."""
    value = float(np.float64(count))
    if not value > 0:
        raise ValueError(
            f"the statistics hold no {what} (count {value}); sum them over at least one batch "
            "with a real example before asking for metrics"
        )
    return value


def real_examples(mask: jax.Array, **arrays: jax.Array) -> dict[str, np.ndarray]:
    """Fetch the arrays to the host, their padded examples left out.

    Args:
        mask: (batch,), positive for real examples.
        **arrays: each (batch, ...).
    """
    real = np.asarray(mask) > 0
    return {name: np.asarray(array)[real] for name, array in arrays.items()}


def to_uint8(values: jax.Array, data_range: float) -> jax.Array:
    """Return images as uint8: clip to [0, data_range], scale to 255 and round to nearest."""
    scaled = jnp.clip(values / data_range, 0.0, 1.0) * 255.0
    return jnp.round(scaled).astype(jnp.uint8)
