"""Metrics as sums over examples, exact on partial batches.

On the device: counts (int32, so that they are exact beyond the 2^24 of float32) and per-example
values. On the host: the metric from the counts, in float64.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def _check_numbers(minimum: int, **arguments: jax.Array | np.ndarray) -> None:
    """Raise TypeError or ValueError unless each is an array of numbers with enough axes."""
    for name, value in arguments.items():
        dtype = getattr(value, "dtype", None)
        if dtype is None or not any(
            jnp.issubdtype(dtype, kind) for kind in (jnp.number, jnp.bool_)
        ):
            raise TypeError(f"{name} must be an array of numbers, got {type(value).__name__}")
        if jnp.ndim(value) < minimum:
            raise ValueError(f"{name} must have {minimum} axes or more, got {jnp.shape(value)}")


def _check_whole(name: str, value: int, minimum: int, maximum: int) -> None:
    if not isinstance(value, int | np.integer) or not minimum <= value <= maximum:
        raise ValueError(f"{name} must be a whole number from {minimum} to {maximum}")


def _check_range(data_range: float) -> None:
    if isinstance(data_range, Tracer):
        return
    if not isinstance(data_range, int | float | np.number) or not 0 < data_range < 1e18:
        raise ValueError("data_range must be one positive number below 1e18")


def _check_square(confusion: np.ndarray) -> None:
    _check_numbers(2, confusion=confusion)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"confusion of shape {confusion.shape}; expected (classes, classes)")


def top_k_correct(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Return whether each label is among its k largest logits (ties: the lower class first).

    Args:
        logits: (batch, num_classes), float.
        labels: (batch,), integer.
        k: how many guesses; at least num_classes makes every guess right.

    Returns:
        (batch,), bool.

    Examples:
        >>> import jax.numpy as jnp
        >>> logits = jnp.array([[0.1, 0.7, 0.2], [0.1, 0.7, 0.2]])
        >>> top_k_correct(logits, jnp.array([2, 0]), k=2).tolist()
        [True, False]
    """
    _check_numbers(2, logits=logits)
    _check_numbers(1, labels=labels)
    _check_whole("k", k, 1, 2**31 - 1)
    if labels.shape != logits.shape[:-1]:
        raise ValueError(f"labels {labels.shape} do not fit logits {logits.shape}")
    _, guesses = jax.lax.top_k(logits, min(k, logits.shape[-1]))
    return jnp.any(guesses == labels[:, None], axis=-1)


def confusion_matrix(
    labels: jax.Array, predictions: jax.Array, weights: jax.Array, num_classes: int
) -> jax.Array:
    """Count the pixels of each (truth, prediction) pair; entry [i, j] has truth i, prediction j.

    Computed image by image as a product of one-hot matrices, which is fast on every device
    (a scatter-add is not, on accelerators). Within an image the counts are float32, exact up to
    2^24 = 4096^2 pixels; the sum over images is int32, exact up to 2^31 pixels. Sum over
    batches on the host, in int64.

    Args:
        labels: (batch, pixels), integer; labels outside [0, num_classes) are left out.
        predictions: (batch, pixels), integer, in [0, num_classes).
        weights: (batch,), 1 for the images that count, 0 for the others.
        num_classes: number of classes.

    Returns:
        (num_classes, num_classes), int32.

    Examples:
        >>> import jax.numpy as jnp
        >>> truth, guess = jnp.array([[0, 1, 1, 255]]), jnp.array([[0, 1, 0, 0]])
        >>> confusion_matrix(truth, guess, jnp.ones(1), num_classes=2).tolist()
        [[1, 0], [1, 1]]
    """
    _check_numbers(2, labels=labels, predictions=predictions)
    _check_numbers(1, weights=weights)
    _check_whole("num_classes", num_classes, 1, 2**15)
    if labels.shape != predictions.shape or weights.shape != labels.shape[:1]:
        raise ValueError(
            f"labels {labels.shape}, predictions {predictions.shape}, weights {weights.shape}; "
            "expected (batch, pixels) twice and (batch,)"
        )
    truth = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    guess = jax.nn.one_hot(predictions, num_classes, dtype=jnp.float32)
    counts = jnp.einsum("bni,bnj->bij", truth, guess, preferred_element_type=jnp.float32)
    return jnp.sum(jnp.where(weights[:, None, None] > 0, counts, 0).astype(jnp.int32), axis=0)


def intersection_over_union(confusion: np.ndarray) -> np.ndarray:
    """Return each class's intersection over union: n_cc / (n_c. + n_.c - n_cc).

    Everingham et al. 2015, "The PASCAL visual object classes challenge: a retrospective",
    section 4.2.3.

    Args:
        confusion: (num_classes, num_classes), counts, truth by row.

    Returns:
        (num_classes,), float64; NaN for a class neither in the truth nor predicted.

    Examples:
        >>> intersection_over_union(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]])).round(3).tolist()
        [0.75, 0.667, nan]
    """
    _check_square(confusion)
    confusion = np.asarray(confusion, np.float64)
    intersection = np.diagonal(confusion)
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return np.divide(intersection, union, out=np.full(len(union), np.nan), where=union > 0)


def mean_intersection_over_union(confusion: np.ndarray) -> float:
    """Return the mean of the classes' intersection over union (mIoU).

    Classes neither in the truth nor predicted are left out of the mean; a class predicted but
    absent from the truth counts as 0. NaN when nothing was counted.

    Args:
        confusion: (num_classes, num_classes), counts over the whole set, truth by row.

    Examples:
        >>> mean_intersection_over_union(np.array([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
        0.708...
    """
    iou = intersection_over_union(confusion)
    present = ~np.isnan(iou)
    return float(iou[present].mean()) if present.any() else float("nan")


def majority_confusion(confusion: np.ndarray) -> np.ndarray:
    """Return the confusion matrix of always predicting the commonest class of the truth.

    The baseline that a classifier of unbalanced classes (such as background) must beat.

    Args:
        confusion: (num_classes, num_classes), counts, truth by row.

    Examples:
        >>> majority_confusion(np.array([[3, 1], [1, 1]])).tolist()
        [[4, 0], [2, 0]]
    """
    _check_square(confusion)
    truth = np.asarray(confusion).sum(axis=1)
    majority = np.zeros_like(confusion)
    majority[:, np.argmax(truth)] = truth
    return majority


def peak_signal_to_noise_ratio(squared_errors: jax.Array, data_range: float) -> jax.Array:
    """Return each image's PSNR in decibels: 10 log10(data_range^2 / MSE), at most 100 dB.

    The cap (an MSE of 1e-10 data_range^2, far below the rounding to 8 bits, 59 dB) keeps a
    perfectly predicted image, such as a black one, from making a mean over images infinite.

    Args:
        squared_errors: (batch,), each image's mean squared error.
        data_range: difference of the largest and the smallest possible value.

    Returns:
        (batch,), float32.

    Examples:
        >>> import jax.numpy as jnp
        >>> peak_signal_to_noise_ratio(jnp.array([0.01, 0.0]), data_range=1.0).tolist()
        [20.0, 100.0]
    """
    _check_numbers(0, squared_errors=squared_errors)
    _check_range(data_range)
    relative = jnp.maximum(squared_errors.astype(jnp.float32) / data_range**2, 1e-10)
    return -10.0 * jnp.log10(relative)


def luma(images: jax.Array) -> jax.Array:
    """Return the Y of Y'CbCr as MATLAB's `rgb2ycbcr` and super-resolution papers: BT.601.

    Y = (16 + 65.481 R + 128.553 G + 24.966 B) / 255, for R, G, B in [0, 1].

    Args:
        images: (..., 3), float, in [0, 1].

    Returns:
        (...), float32, in [16 / 255, 235 / 255].

    Examples:
        >>> import jax.numpy as jnp
        >>> [round(255 * float(y), 2) for y in luma(jnp.array([[0.0] * 3, [1.0] * 3]))]
        [16.0, 235.0]
    """
    _check_numbers(1, images=images)
    if images.shape[-1] != 3:
        raise ValueError(f"images of shape {images.shape}; expected (..., 3)")
    weights = jnp.array([65.481, 128.553, 24.966], jnp.float32) / 255
    # Elementwise: a product of matrices may round to bfloat16 on accelerators.
    return jnp.sum(images.astype(jnp.float32) * weights, axis=-1) + 16 / 255


def inner_mean(values: jax.Array, sizes: jax.Array, margin: int) -> jax.Array:
    """Return the mean of each image over its real pixels, a border left out.

    Args:
        values: (batch, height, width).
        sizes: (batch, 2), integer, the rows and columns from the top left that are real.
        margin: pixels left out at each side of these.

    Returns:
        (batch,), float32; NaN for images of which nothing is left.

    Examples:
        >>> import jax.numpy as jnp
        >>> inner_mean(jnp.arange(16.0).reshape(1, 4, 4), jnp.array([[4, 3]]), margin=1).tolist()
        [7.0]
    """
    _check_numbers(3, values=values)
    _check_numbers(2, sizes=sizes)
    _check_whole("margin", margin, 0, 2**20)
    if sizes.shape != (values.shape[0], 2):
        raise ValueError(f"sizes of shape {sizes.shape}; expected ({values.shape[0]}, 2)")

    def inside(axis: int) -> jax.Array:
        places = jnp.arange(values.shape[axis])
        return (places >= margin) & (places < sizes[:, axis - 1, None] - margin)

    counts = inside(1)[:, :, None] & inside(2)[:, None, :]
    total = jnp.sum(jnp.where(counts, values, 0).astype(jnp.float32), axis=(1, 2))
    return total / jnp.sum(counts, axis=(1, 2), dtype=jnp.float32)


def _total(terms: Iterable[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.add, terms)


SSIM_WINDOW = 11
"""Side of the window of `structural_similarity_map`."""


def structural_similarity_map(a: jax.Array, b: jax.Array, data_range: float) -> jax.Array:
    """Return the structural similarity (SSIM) of two images around each pixel.

        (2 mu_a mu_b + C1) (2 s_ab + C2) / ((mu_a^2 + mu_b^2 + C1) (s_a^2 + s_b^2 + C2))

    Means, variances and covariance under a Gaussian window of 11 pixels and standard deviation
    1.5; C1 = (0.01 L)^2, C2 = (0.03 L)^2. The window must lie inside: the result is smaller.

    Wang, Bovik, Sheikh & Simoncelli 2004, "Image quality assessment: from error visibility to
    structural similarity", eqs. 13 to 16.

    Args:
        a: (batch, height, width), one channel.
        b: the same shape.
        data_range: L, the difference of the largest and the smallest possible value.

    Returns:
        (batch, height - 10, width - 10), float32.

    Examples:
        >>> import jax.numpy as jnp
        >>> image = jnp.linspace(0, 1, 144).reshape(1, 12, 12)
        >>> structural_similarity_map(image, image, 1.0).round(3).tolist()
        [[[1.0, 1.0], [1.0, 1.0]]]
    """
    _check_numbers(3, a=a, b=b)
    _check_range(data_range)
    if a.shape != b.shape:
        raise ValueError(f"a of shape {a.shape} and b of shape {b.shape}; expected one shape")
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window = (window / window.sum()).astype(np.float32)
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)

    def blur(x: jax.Array) -> jax.Array:
        rows, columns = (n - SSIM_WINDOW + 1 for n in x.shape[1:])
        x = _total(weight * x[:, i : i + rows] for i, weight in enumerate(window))
        return _total(weight * x[:, :, i : i + columns] for i, weight in enumerate(window))

    mean_a, mean_b = blur(a), blur(b)
    # Of the differences from a mean: squares of the values themselves would cancel more.
    shift = jnp.mean(b, axis=(1, 2), keepdims=True)
    var_a = blur((a - shift) ** 2) - (mean_a - shift) ** 2
    var_b = blur((b - shift) ** 2) - (mean_b - shift) ** 2
    covariance = blur((a - shift) * (b - shift)) - (mean_a - shift) * (mean_b - shift)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return numerator / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
