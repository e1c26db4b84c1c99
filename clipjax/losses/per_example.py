"""Losses as one value per example, and their mean over the real examples of a batch.

A partial last batch is padded and carries a mask, so every reduction here is a sum of numerators
over a count. All arithmetic is float32, whatever the model computed in.
"""

import jax
import jax.numpy as jnp
import optax

from clipjax.losses._checks import as_arrays, check_same_shapes


def masked_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Return sum_i w_i v_i / sum_i w_i, and 0 when no weight is positive.

    A value under zero weight has no influence, be it NaN or infinite, and no gradient flows to it.

    Args:
        values: (...), float.
        weights: (...), non-negative, same shape as `values`.

    Returns:
        A float32 scalar.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(masked_mean(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1.0, 1.0, 0.0])))
        2.0
    """
    values, weights = as_arrays(values=values, weights=weights)
    total = jnp.sum(weights, dtype=jnp.float32)
    return masked_sum(values, weights) / jnp.where(total > 0, total, 1.0)


def masked_sum(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Return sum_i w_i v_i over positive weights, a float32 scalar.

    Args:
        values: (...), float.
        weights: (...), non-negative, same shape as `values`.

    Examples:
        >>> import jax.numpy as jnp
        >>> float(masked_sum(jnp.array([1.0, 3.0, jnp.nan]), jnp.array([1.0, 0.5, 0.0])))
        2.5
    """
    values, weights = as_arrays(values=values, weights=weights)
    check_same_shapes(values=values, weights=weights)
    values = jnp.where(weights > 0, values, 0).astype(jnp.float32)
    return jnp.sum(values * weights)


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the cross-entropy of each example: log sum_j exp(logits_j) - logits_label.

    Args:
        logits: (..., num_classes), float.
        labels: (...), integer, in [0, num_classes).

    Returns:
        (...), float32, in nats.

    Examples:
        >>> import jax.numpy as jnp
        >>> softmax_cross_entropy(jnp.zeros((2, 10)), jnp.array([3, 4])).round(4).tolist()
        [2.302..., 2.302...]
    """
    (logits,) = as_arrays(1, logits=logits)
    (labels,) = as_arrays(labels=labels)
    if logits.shape[:-1] != labels.shape or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"logits of shape {logits.shape} and labels of shape {labels.shape}, {labels.dtype}; "
            "expected (..., num_classes) and (...), integer"
        )
    return optax.losses.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), labels
    )


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the mean squared error of each example, over its pixels and channels.

    Args:
        predictions: (batch, ...), float.
        targets: (batch, ...), float, same shape.

    Returns:
        (batch,), float32.

    Examples:
        >>> import jax.numpy as jnp
        >>> squared_error(jnp.zeros((2, 4, 4, 3)), jnp.ones((2, 4, 4, 3))).tolist()
        [1.0, 1.0]
    """
    predictions, targets = as_arrays(1, predictions=predictions, targets=targets)
    check_same_shapes(predictions=predictions, targets=targets)
    difference = predictions.astype(jnp.float32) - targets.astype(jnp.float32)
    return jnp.mean(jnp.square(difference), axis=tuple(range(1, difference.ndim)))
