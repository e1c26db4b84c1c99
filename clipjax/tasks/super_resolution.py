"""Single-image super-resolution: mean squared error, PSNR, and bicubic interpolation beside."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clipjax import losses, metrics
from clipjax._extent import resize_cubic
from clipjax.tasks import common
from clipjax.typing import Batch, Statistics


@dataclasses.dataclass(frozen=True)
class SuperResolution:
    """A batch has `image` uint8 (batch, h, w, c), `target` uint8 (batch, s h, s w, c), `mask`.

    Inputs, targets and outputs are on the scale [0, data_range]. The metrics are means over images:

    - `psnr`: all pixels and channels, on outputs clipped to that range and not rounded;
    - `psnr_rgb`, `psnr_y`, `ssim_y`: as papers report them, on outputs rounded to 8 bits, without
      the `scale` pixels at each border; Y is that of BT.601, SSIM's windows lie inside.

    The latter are for evaluation: they need `size` int32 (batch, 2), which is how much of each
    image is real (the rest is padding and counts nowhere). They are NaN for targets that are too
    small for a border, or a border and a window of 11 pixels.

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
        """Refuse a scale that is no positive whole number, and a range that is not positive."""
        common.check_whole("scale", self.scale, 1)
        common.check_positive("data_range", self.data_range)

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
        """Return the images upscaled by bicubic interpolation (Keys 1981, a = -1/2), clipped.

        What `size` says is padding has no part in it.
        """
        upscaled = resize_cubic(self.inputs(batch), batch["target"].shape, batch.get("size"))
        return jnp.clip(upscaled, 0.0, self.data_range)

    def loss(self, outputs: jax.Array, batch: Batch) -> jax.Array:
        """Return the mean squared error of the real examples, outputs not clipped.

        Args:
            outputs: (batch, s h, s w, c), on [0, data_range].
            batch: with `image`, `target` and `mask`.
        """
        values = losses.squared_error(outputs, self.targets(batch))
        return losses.masked_mean(values, batch["mask"])

    def weight(self, batch: Batch) -> jax.Array:
        """Return the number of images that are real, float32: what `loss` is the mean of."""
        return jnp.sum(batch["mask"], dtype=jnp.float32)

    def statistics(self, outputs: jax.Array, batch: Batch) -> Statistics:
        """Return the sums from which `metrics` are made.

        Args:
            outputs: (batch, s h, s w, c), on [0, data_range].
            batch: with `image`, `target` and `mask`; in evaluation with `size`.

        Returns:
            `examples`, and sums over examples: `loss`, `psnr` and `bicubic_psnr`; with `size` and
            colour also `psnr_rgb`, `psnr_y`, `ssim_y`, and these of bicubic interpolation.
        """
        targets, bicubic = self.targets(batch), self.bicubic(batch)
        clipped = jnp.clip(outputs, 0.0, self.data_range)
        values = {
            "loss": self._squared_error(outputs, targets, batch),
            "psnr": self._psnr(self._squared_error(clipped, targets, batch)),
            "bicubic_psnr": self._psnr(self._squared_error(bicubic, targets, batch)),
        }
        if "size" in batch and targets.shape[-1] == 3:
            values |= self._as_in_papers(clipped, targets, batch)
            beside = self._as_in_papers(bicubic, targets, batch)
            values |= {f"bicubic_{name}": value for name, value in beside.items()}
        sums = {name: losses.masked_sum(value, batch["mask"]) for name, value in values.items()}
        return {"examples": jnp.sum(batch["mask"] > 0, dtype=jnp.int32), **sums}

    def metrics(self, statistics: Mapping[str, Any]) -> dict[str, float]:
        """Return the means over the examples: `loss`, decibels, and similarities in [-1, 1]."""
        examples = common.positive_count(statistics["examples"], "examples")
        names = [name for name in statistics if name != "examples"]
        return {name: float(np.float64(statistics[name]) / examples) for name in names}

    def _squared_error(self, images: jax.Array, targets: jax.Array, batch: Batch) -> jax.Array:
        if "size" not in batch:
            return losses.squared_error(images, targets)
        errors = jnp.mean(jnp.square(images.astype(jnp.float32) - targets), axis=-1)
        return metrics.inner_mean(errors, self.scale * batch["size"], 0)

    def _psnr(self, errors: jax.Array) -> jax.Array:
        return metrics.peak_signal_to_noise_ratio(errors, self.data_range)

    def _as_in_papers(
        self, images: jax.Array, targets: jax.Array, batch: Batch
    ) -> dict[str, jax.Array]:
        """Return PSNR of colours and of Y, and SSIM of Y, of each image (see the class)."""
        sizes = self.scale * batch["size"]
        rounded = common.to_uint8(images, self.data_range).astype(jnp.float32) / 255
        truth = targets / self.data_range
        a, b = metrics.luma(rounded), metrics.luma(truth)

        def psnr(errors: jax.Array) -> jax.Array:
            return metrics.peak_signal_to_noise_ratio(
                metrics.inner_mean(errors, sizes, self.scale), 1.0
            )

        found = {
            "psnr_rgb": psnr(jnp.mean(jnp.square(rounded - truth), axis=-1)),
            "psnr_y": psnr(jnp.square(a - b)),
        }
        if min(targets.shape[1:3]) < metrics.SSIM_WINDOW:
            return found | {"ssim_y": jnp.full(len(targets), jnp.nan)}
        similarity = metrics.structural_similarity_map(a, b, 1.0)
        windows = sizes - metrics.SSIM_WINDOW + 1
        return found | {"ssim_y": metrics.inner_mean(similarity, windows, self.scale)}

    def samples(self, outputs: jax.Array, batch: Batch) -> dict[str, np.ndarray]:
        """Return `lr`, `bicubic`, `prediction` and `target`, all uint8.

        With `size` where the batch has it: the rows and columns of each `lr` that are no padding.
        """
        return common.real_examples(
            batch["mask"],
            **{key: batch[key] for key in ("size",) if key in batch},
            lr=batch["image"],
            bicubic=common.to_uint8(self.bicubic(batch), self.data_range),
            prediction=common.to_uint8(outputs, self.data_range),
            target=batch["target"],
        )

    def _scaled(self, image: jax.Array) -> jax.Array:
        return image.astype(jnp.float32) * np.float32(self.data_range / 255.0)
