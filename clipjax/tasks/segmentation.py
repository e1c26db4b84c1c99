"""Semantic segmentation: cross-entropy per pixel, mean intersection over union."""

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
class Segmentation:
    """A batch has `image` uint8 (batch, h, w, channels), `label` int (batch, h, w), `mask`.

    Attributes:
        num_classes: number of classes, the background included.
        mean: mean of each channel, in the image's unit divided by 255.
        std: standard deviation of each channel, in the same unit.
        void_label: label of the pixels that count neither in loss nor in metrics.

    Examples:
        >>> import jax.numpy as jnp
        >>> task = Segmentation(num_classes=2, mean=(0.5,), std=(0.25,))
        >>> batch = {"image": jnp.zeros((1, 1, 3, 1), jnp.uint8),
        ...          "label": jnp.array([[[0, 1, 255]]]), "mask": jnp.ones(1)}
        >>> logits = jnp.array([[[[5.0, 0.0], [5.0, 0.0], [0.0, 5.0]]]])
        >>> metrics = task.metrics(task.statistics(logits, batch))
        >>> metrics["pixel_accuracy"], metrics["mean_iou"]
        (0.5, 0.25)
    """

    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    void_label: int = 255

    def __post_init__(self) -> None:
        """Refuse too few classes, a void label among them, unusable channels."""
        common.check_num_classes(self.num_classes)
        common.check_normalization(self.mean, self.std)
        common.check_whole("void_label", self.void_label, -(2**31))
        if 0 <= self.void_label < self.num_classes:
            raise ValueError(
                f"void_label must lie outside the {self.num_classes} classes, got {self.void_label}"
            )

    def inputs(self, batch: Batch) -> jax.Array:
        """Return (image / 255 - mean) / std, float32 (batch, height, width, channels)."""
        return common.normalize(batch["image"], self.mean, self.std)

    def _counts(self, batch: Batch) -> jax.Array:
        """Return whether each pixel counts, bool (batch, h, w)."""
        return (batch["label"] != self.void_label) & (batch["mask"][:, None, None] > 0)

    def _pixel_losses(self, outputs: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        """Return each pixel's cross-entropy and whether it counts, both (batch, h, w)."""
        counts = self._counts(batch)
        values = losses.softmax_cross_entropy(outputs, jnp.where(counts, batch["label"], 0))
        return values, counts

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Return the mean cross-entropy over the labelled pixels of the real examples.

        Args:
            outputs: logits (batch, height, width, num_classes).
            batch: with `label` and `mask`.
        """
        return losses.masked_mean(*self._pixel_losses(outputs, batch))

    def weight(self, batch: Batch) -> jax.Array:
        """Return the number of labelled pixels of the real examples, float32."""
        return jnp.sum(self._counts(batch), dtype=jnp.float32)

    def statistics(self, outputs: jax.Array, batch: Batch) -> Statistics:
        """Return the sums from which `metrics` are made.

        Args:
            outputs: logits (batch, height, width, num_classes).
            batch: with `label` and `mask`.

        Returns:
            `examples`, `pixels` (labelled ones), `loss` (sum over these pixels), `confusion`
            (num_classes, num_classes), truth by row.
        """
        values, counts = self._pixel_losses(outputs, batch)
        batch_size = outputs.shape[0]
        label = jnp.where(counts, batch["label"], self.num_classes)
        return {
            "examples": jnp.sum(batch["mask"] > 0, dtype=jnp.int32),
            "pixels": jnp.sum(counts, dtype=jnp.int32),
            "loss": losses.masked_sum(values, counts),
            "confusion": metrics.confusion_matrix(
                label.reshape(batch_size, -1),
                jnp.argmax(outputs, axis=-1).reshape(batch_size, -1),
                batch["mask"],
                self.num_classes,
            ),
        }

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Return means over all pixels, and each class's part in them.

        Everything comes from the one confusion matrix of the whole set.

        Returns:
            `loss`, `mean_iou`, `pixel_accuracy`; `majority_mean_iou`, `majority_pixel_accuracy`:
            those of predicting the commonest class everywhere. For each class k that is in the
            truth or predicted, `iou_k` (as `iou_3`): its intersection over union, whose mean over
            these classes is `mean_iou`; and `share_k`: its share of the labelled pixels. Other
            classes have no entries, since 0 / 0 is no score.
        """
        pixels = common.positive_count(statistics["pixels"], "labelled pixels")
        confusion = np.asarray(statistics["confusion"])
        majority = metrics.majority_confusion(confusion)
        measured = {
            "loss": float(np.float64(statistics["loss"]) / pixels),
            "mean_iou": metrics.mean_intersection_over_union(confusion),
            "pixel_accuracy": float(np.trace(confusion) / pixels),
            "majority_mean_iou": metrics.mean_intersection_over_union(majority),
            "majority_pixel_accuracy": float(np.trace(majority) / pixels),
        }
        shares = confusion.sum(axis=1) / pixels
        for k, iou in enumerate(metrics.intersection_over_union(confusion)):
            if not np.isnan(iou):
                measured |= {f"iou_{k}": float(iou), f"share_{k}": float(shares[k])}
        return measured

    def samples(self, outputs: jax.Array, batch: Batch) -> dict[str, np.ndarray]:
        """Return `image` uint8, `label` and `prediction` int32 (batch, height, width).

        With `size` where the batch has it: the rows and columns of each that are no padding.
        """
        return common.real_examples(
            batch["mask"],
            **{key: batch[key] for key in ("size",) if key in batch},
            image=batch["image"],
            label=batch["label"].astype(jnp.int32),
            prediction=jnp.argmax(outputs, axis=-1).astype(jnp.int32),
        )
