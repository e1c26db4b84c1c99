"""SRResNet, for single-image super-resolution."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from clipjax._extent import cut, resize_cubic
from clipjax.models._checks import LARGEST, check_choice, check_count, check_dtype, check_share
from clipjax.models.initializers import he_normal_fan_in

GLOBAL_SKIPS = (None, "bicubic")


def pixel_shuffle(x: jax.Array, factor: int) -> jax.Array:
    """Rearrange channels into space: out[h r + i, w r + j, c] = x[h, w, c r^2 + i r + j].

    Shi et al. 2016, "Real-time single image and video super-resolution using an efficient
    sub-pixel convolutional neural network", eq. 4; the order of channels is torch's.

    Args:
        x: (batch, h, w, c r^2).
        factor: r.

    Returns:
        (batch, h r, w r, c).

    Examples:
        >>> import jax.numpy as jnp
        >>> pixel_shuffle(jnp.arange(4).reshape(1, 1, 1, 4), 2)[0, :, :, 0].tolist()
        [[0, 1], [2, 3]]
    """
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, channels // factor**2, factor, factor)
    x = x.transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(batch, height * factor, width * factor, channels // factor**2)


class ResidualBlock(nn.Module):
    """x + BN(conv(PReLU(BN(conv(x))))), 3x3 convolutions without biases.

    Attributes:
        features: channels.
        bn_momentum: share of the old running statistics kept at each step.
        dtype: dtype of the computation; parameters and statistics are float32.
    """

    features: int
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, size: jax.Array | None = None) -> jax.Array:
        """Map (batch, h, w, features) to the same shape, zero beyond `size` (as in `SRResNet`)."""
        y = x
        for number in (1, 2):
            y = nn.Conv(
                self.features,
                (3, 3),
                padding=1,
                use_bias=False,
                kernel_init=he_normal_fan_in,
                dtype=self.dtype,
                name=f"conv{number}",
            )(y)
            y = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.bn_momentum,
                dtype=self.dtype,
                name=f"bn{number}",
            )(y)
            if number == 1:
                y = cut(prelu("prelu")(y), size)
        return cut(x + y, size)


def prelu(name: str) -> nn.PReLU:
    """Return a PReLU with one slope for all channels that starts at 0.25 (He et al. 2015)."""
    return nn.PReLU(negative_slope_init=0.25, name=name)


class SRResNet(nn.Module):
    """SRResNet of Ledig et al. 2017, "Photo-realistic single image super-resolution", figure 4.

    A 9x9 convolution and PReLU; `num_blocks` residual blocks, a 3x3 convolution and batch
    normalisation, all bridged by a sum; log2(scale) stages of 3x3 convolution, pixel shuffle and
    PReLU, each doubling height and width; a 9x9 convolution to the colours.

    Attributes:
        scale: factor of the upscaling, a power of two.
        num_blocks: residual blocks (16 as published).
        channels: channels of every layer but the last (64 as published).
        out_channels: colours of the output.
        kernel_size: size of the first and of the last kernel (9 as published).
        global_skip: None as published; "bicubic" adds the bicubically upscaled input to the
            output and starts the last convolution at zero, so that training starts from bicubic
            interpolation (the residual learning of Kim et al. 2016, VDSR).
        bn_momentum: share of the old running statistics kept at each step.
        dtype: dtype of the computation; parameters, statistics and output are float32.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model = SRResNet(num_blocks=1, channels=4, global_skip="bicubic")
        >>> lr = jax.random.uniform(jax.random.key(0), (1, 6, 5, 3))
        >>> variables = model.init(jax.random.key(1), lr, train=False)
        >>> hr = model.apply(variables, lr, train=False)
        >>> hr.shape, bool((hr == jax.image.resize(lr, (1, 24, 20, 3), "cubic")).all())
        ((1, 24, 20, 3), True)
    """

    scale: int = 4
    num_blocks: int = 16
    channels: int = 64
    out_channels: int = 3
    kernel_size: int = 9
    global_skip: str | None = None
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Refuse scales that no number of doublings reaches, and unknown skips."""
        check_count("num_blocks", self.num_blocks, 0)
        for name in ("channels", "out_channels", "kernel_size"):
            check_count(name, getattr(self, name))
        check_share("bn_momentum", self.bn_momentum)
        check_dtype("dtype", self.dtype)
        check_count("scale", self.scale, -LARGEST)
        if self.scale < 2 or self.scale & (self.scale - 1):
            raise ValueError(f"scale must be a power of two (2, 4, 8, ...), got {self.scale}")
        check_choice("global_skip", self.global_skip, GLOBAL_SKIPS)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, size: jax.Array | None = None) -> jax.Array:
        """Return the upscaled images.

        Args:
            x: (batch, height, width, out_channels), on the scale of the targets.
            train: use the batch's moments (and update the running ones) instead of the running
                ones.
            size: int (batch, 2), how many rows and columns of each image are no padding, for
                evaluation: there the result is that of the image without padding. None where all
                are. (The batch's moments, in training, would include the padding.)

        Returns:
            (batch, scale height, scale width, out_channels), float32, not clipped.

        Raises:
            ValueError: when the images, which `global_skip` adds to the output, have not its
                number of channels.
        """
        skip = self.global_skip is not None
        if skip and x.shape[-1] != self.out_channels:
            raise ValueError(
                f"global_skip={self.global_skip!r} adds the input to the output: give images of "
                f"out_channels={self.out_channels} channels, got {x.shape[-1]}"
            )

        def conv(features: int, size: int, name: str, **kwargs: Any) -> nn.Conv:
            kwargs = {"kernel_init": he_normal_fan_in} | kwargs
            return nn.Conv(
                features, (size, size), padding="SAME", dtype=self.dtype, name=name, **kwargs
            )

        low = x
        x = conv(self.channels, self.kernel_size, "conv_in")(cut(x, size))
        x = trunk = cut(prelu("prelu_in")(x), size)
        for block in range(self.num_blocks):
            x = ResidualBlock(
                self.channels,
                bn_momentum=self.bn_momentum,
                dtype=self.dtype,
                name=f"block{block + 1}",
            )(x, train=train, size=size)
        x = conv(self.channels, 3, "conv_mid", use_bias=False)(x)
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=self.bn_momentum,
            dtype=self.dtype,
            name="bn_mid",
        )(x)
        x = cut(x + trunk, size)
        for stage in range(1, int(math.log2(self.scale)) + 1):
            x = conv(4 * self.channels, 3, f"upsample{stage}_conv")(x)
            x = cut(prelu(f"upsample{stage}_prelu")(pixel_shuffle(x, 2)), size, 2**stage)
        last_init = nn.initializers.zeros if skip else he_normal_fan_in
        x = conv(self.out_channels, self.kernel_size, "conv_out", kernel_init=last_init)(x)
        x = x.astype(jnp.float32)
        if skip:
            low = low.astype(jnp.float32)
            x = x + resize_cubic(low, x.shape, size)
        return x
