"""Image classification: cross-entropy, top-1 and top-5 accuracy."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clipjax import losses, metrics
from clipjax.tasks import common
from clipjax.typing import Batch, Statistics


@dataclasses.dataclass(frozen=True)
class Classification:
    """A batch has `image` uint8 (batch, height, width, channels), `label` int32 (batch,), `mask`.

    Attributes:
        num_classes: number of classes; labels are 0 ... num_classes - 1.
        mean: mean of each channel, in the image's unit divided by 255.
        std: standard deviation of each channel, in the same unit.

    Examples:
        >>> import jax.numpy as jnp
        >>> task = Classification(num_classes=3, mean=(0.5,), std=(0.25,))
        >>> batch = {"image": jnp.full((2, 1, 1, 1), 255, jnp.uint8),
        ...          "label": jnp.array([2, 0]), "mask": jnp.array([1.0, 0.0])}
        >>> task.inputs(batch).ravel().tolist()
        [2.0, 2.0]
        >>> logits = jnp.array([[0.0, 0.0, 9.0], [0.0, 0.0, 9.0]])
        >>> task.metrics(task.statistics(logits, batch))["top1"]
        1.0
    """

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a number of classes below 2 and channels that cannot be normalised."""
        common.check_num_classes(self.num_classes)
        common.check_normalization(self.mean, self.std)

    def inputs(self, batch: Batch) -> jax.Array:
        """Return (image / 255 - mean) / std, float32 (batch, height, width, channels)."""
        return common.normalize(batch["image"], self.mean, self.std)

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Return the mean cross-entropy of the real examples.

        Args:
            outputs: logits (batch, num_classes).
            batch: with `label` and `mask`.
        """
        values = losses.softmax_cross_entropy(outputs, batch["label"])
        return losses.masked_mean(values, batch["mask"])

    def weight(self, batch: Batch) -> jax.Array:
        """Return the number of examples that are real, float32: what `loss` is the mean of."""
        return jnp.sum(batch["mask"], dtype=jnp.float32)

    def statistics(self, outputs: jax.Array, batch: Batch) -> Statistics:
        """Return the sums from which `metrics` are made.

        Args:
            outputs: logits (batch, num_classes).
            batch: with `label` and `mask`.

        Returns:
            `examples`, `loss` (sum), `top1`, `top5` (numbers right), `class_counts`
            (num_classes,).
        """
        labels, mask = batch["label"], batch["mask"]
        real = mask > 0

        def count(correct: jax.Array) -> jax.Array:
            return jnp.sum(correct & real, dtype=jnp.int32)

        classes = labels[:, None] == jnp.arange(self.num_classes)
        return {
            "examples": jnp.sum(real, dtype=jnp.int32),
            "loss": losses.masked_sum(losses.softmax_cross_entropy(outputs, labels), mask),
            "top1": count(metrics.top_k_correct(outputs, labels, 1)),
            "top5": count(metrics.top_k_correct(outputs, labels, 5)),
            "class_counts": jnp.sum(classes & real[:, None], axis=0, dtype=jnp.int32),
        }

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Return `loss`, `top1`, `top5` and `majority_top1` (always the commonest class)."""
        examples = common.positive_count(statistics["examples"], "examples")
        return {
            "loss": float(np.float64(statistics["loss"]) / examples),
            "top1": float(np.float64(statistics["top1"]) / examples),
            "top5": float(np.float64(statistics["top5"]) / examples),
            "majority_top1": float(np.max(statistics["class_counts"]) / examples),
        }

    def samples(self, outputs: jax.Array, batch: Batch) -> dict[str, np.ndarray]:
        """Return `image` uint8, `label`, `prediction` int32 and `probability` of the latter."""
        probability = jax.nn.softmax(outputs.astype(jnp.float32), axis=-1)
        return common.real_examples(
            batch["mask"],
            image=batch["image"],
            label=batch["label"],
            prediction=jnp.argmax(outputs, axis=-1).astype(jnp.int32),
            probability=jnp.max(probability, axis=-1),
        )
