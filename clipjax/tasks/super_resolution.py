"""Single-image super-resolution: mean squared error, PSNR, and bicubic interpolation beside."""

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
class SuperResolution:
    """A batch has `image` uint8 (batch, h, w, c), `target` uint8 (batch, s h, s w, c), `mask`.

    Inputs, targets and outputs are on the scale [0, data_range]. PSNR is that of each image, all
    its pixels and channels, on outputs clipped to that range and not rounded; then the mean.

    Attributes:
        scale: s, the factor between image and target.
        data_range: what the uint8 value 255 becomes, and the peak of the PSNR.

    Examples:
        >>> import jax.numpy as jnp
        >>> task = SuperResolution(scale=2, data_range=1.0)
        >>> batch = {"image": jnp.full((1, 2, 2, 3), 51, jnp.uint8), "mask": jnp.ones(1),
        ...          "target": jnp.full((1, 4, 4, 3), 51, jnp.uint8)}
        >>> metrics = task.metrics(task.statistics(jnp.full((1, 4, 4, 3), 0.3), batch))
        >>> round(metrics["psnr"], 3), round(metrics["bicubic_psnr"], 3)
        (20.0, 100.0)
    """

    scale: int = 4
    data_range: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a scale or a range that is not positive."""
        if self.scale < 1:
            raise ValueError(f"scale must be at least 1, got {self.scale}")
        if not self.data_range > 0:
            raise ValueError(f"data_range must be positive, got {self.data_range}")

    def inputs(self, batch: Batch) -> jax.Array:
        """Return the low-resolution images on [0, data_range], float32 (batch, h, w, c)."""
        return self._scaled(batch["image"])

    def targets(self, batch: Batch) -> jax.Array:
        """Return the high-resolution images on [0, data_range], float32 (batch, s h, s w, c).

        Raises:
            ValueError: when the target is not `scale` times the image.
        """
        batch_size, height, width, channels = batch["image"].shape
        expected = (batch_size, self.scale * height, self.scale * width, channels)
        if batch["target"].shape != expected:
            raise ValueError(
                f"targets must be {self.scale} times the images, {expected}, "
                f"got {batch['target'].shape}"
            )
        return self._scaled(batch["target"])

    def bicubic(self, batch: Batch) -> jax.Array:
        """Return the images upscaled by bicubic interpolation (Keys 1981, a = -1/2), clipped."""
        upscaled = jax.image.resize(self.inputs(batch), batch["target"].shape, "cubic")
        return jnp.clip(upscaled, 0.0, self.data_range)

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Return the mean squared error of the real examples, outputs not clipped.

        Args:
            outputs: (batch, s h, s w, c), on [0, data_range].
            batch: with `image`, `target` and `mask`.
        """
        values = losses.squared_error(outputs, self.targets(batch))
        return losses.masked_mean(values, batch["mask"])

    def statistics(self, outputs: jax.Array, batch: Batch) -> Statistics:
        """Return the sums from which `metrics` are made.

        Args:
            outputs: (batch, s h, s w, c), on [0, data_range].
            batch: with `image`, `target` and `mask`.

        Returns:
            `examples`, and the sums over examples `loss`, `psnr` and `bicubic_psnr`.
        """
        mask, targets = batch["mask"], self.targets(batch)

        def psnr_sum(images: jax.Array) -> jax.Array:
            errors = losses.squared_error(images, targets)
            psnr = metrics.peak_signal_to_noise_ratio(errors, self.data_range)
            return losses.masked_sum(psnr, mask)

        return {
            "examples": jnp.sum(mask > 0, dtype=jnp.int32),
            "loss": losses.masked_sum(losses.squared_error(outputs, targets), mask),
            "psnr": psnr_sum(jnp.clip(outputs, 0.0, self.data_range)),
            "bicubic_psnr": psnr_sum(self.bicubic(batch)),
        }

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Return `loss`, `psnr` and `bicubic_psnr` (decibels), means over the examples."""
        examples = common.positive_count(statistics["examples"], "examples")
        names = ("loss", "psnr", "bicubic_psnr")
        return {name: float(np.float64(statistics[name]) / examples) for name in names}

    def samples(self, outputs: jax.Array, batch: Batch) -> dict[str, np.ndarray]:
        """Return `lr`, `bicubic`, `prediction` and `target`, all uint8."""
        return common.real_examples(
            batch["mask"],
            lr=batch["image"],
            bicubic=common.to_uint8(self.bicubic(batch), self.data_range),
            prediction=common.to_uint8(outputs, self.data_range),
            target=batch["target"],
        )

    def _scaled(self, image: jax.Array) -> jax.Array:
        return image.astype(jnp.float32) * np.float32(self.data_range / 255.0)
