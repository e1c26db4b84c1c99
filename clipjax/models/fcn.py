"""FCN-32s on a VGG-16 trunk, for segmentation of images of any size."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from clipjax._extent import cut
from clipjax.models._checks import LARGEST, check_count, check_counts, check_dtype, check_share
from clipjax.models.initializers import bilinear, he_normal_fan_out
from clipjax.models.pooling import max_pool

SIZES = ("num_classes", "width", "fc_width", "fc_kernel")
"""Attributes that are whole numbers of at least 1, where a network has them."""


def check_pool_stages(pool_stages: int, block_sizes: Sequence[int]) -> None:
    """Raise ValueError unless the trunk has that many blocks."""
    check_counts("block_sizes", block_sizes)
    check_count("pool_stages", pool_stages, -LARGEST)
    if not 1 <= pool_stages <= len(block_sizes):
        raise ValueError(
            f"pool_stages must be 1 ... {len(block_sizes)} (the trunk's block_sizes), "
            f"got {pool_stages}"
        )


class VGG16Features(nn.Module):
    """The convolutional trunk of VGG-16: blocks of 3x3 convolutions, each ended by max pooling.

    Simonyan & Zisserman 2015, "Very deep convolutional networks", table 1, column D. Convolutions
    are named `block1_conv1`, `block1_conv2`, `block2_conv1`, ... as in Keras. Pooling rounds sizes
    up (as Caffe does), so that no pixel is dropped: after s stages ceil(size / 2^s) is left.

    Attributes:
        width: channels of the first block; they double at each of the next three.
        pool_stages: how many of the blocks are used, 1 ... len(block_sizes).
        block_sizes: convolutions in each block, (2, 2, 3, 3, 3) as published.
        batch_norm: normalise after every convolution (VGG-16-BN), for training from scratch.
        bn_momentum: share of the old running statistics kept at each step.
        dtype: dtype of the computation; parameters and statistics are float32.
    """

    width: int = 64
    pool_stages: int = 5
    block_sizes: Sequence[int] = (2, 2, 3, 3, 3)
    batch_norm: bool = False
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Refuse a number of stages that the trunk does not have."""
        check_pool_stages(self.pool_stages, self.block_sizes)
        for name in SIZES:
            check_count(name, getattr(self, name, 1))
        check_share("dropout", getattr(self, "dropout", 0.0))
        check_share("bn_momentum", self.bn_momentum)
        check_dtype("dtype", self.dtype)
        self.block_sizes = tuple(self.block_sizes)  # hashable: jit takes modules as static
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, size: jax.Array | None = None) -> jax.Array:
        """Map (batch, h, w, c) to (batch, ceil(h / 2^s), ceil(w / 2^s), channels).

        With `size`, as in `FCN32s`, the result is zero where there is nothing but padding.
        """
        x = cut(x, size)
        for block, convs in enumerate(self.block_sizes[: self.pool_stages], start=1):
            for conv in range(1, convs + 1):
                x = nn.Conv(
                    self.width * 2 ** min(block - 1, 3),
                    (3, 3),
                    padding=1,
                    kernel_init=he_normal_fan_out,
                    dtype=self.dtype,
                    name=f"block{block}_conv{conv}",
                )(x)
                if self.batch_norm:
                    x = nn.BatchNorm(
                        use_running_average=not train,
                        momentum=self.bn_momentum,
                        dtype=self.dtype,
                        name=f"block{block}_bn{conv}",
                    )(x)
                x = cut(nn.relu(x), size, 0.5 ** (block - 1))
            # Zeros beyond the picture change no maximum: nothing is below zero.
            x = max_pool(x, 2)
        return x


def conv_transpose(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Upsample by a transposed convolution of stride s = k / 2, cropped to s times the input.

    out[s m + r - s / 2] = x[m] K[r] + x[m - 1] K[r + s], r = 0 ... s - 1, along each axis: every
    2x2 neighbourhood of the input times one matrix gives the s^2 pixels of a cell, which are then
    rearranged. The same numbers as a convolution of the s-fold dilated input; but that is s^2
    times the work where the zeros are multiplied too, and as one matrix product its gradient for
    the kernel is fast as well.

    Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?".

    Args:
        x: (batch, h, w, c).
        kernel: (2 s, 2 s, c, features), s even.

    Returns:
        (batch, s h, s w, features), dtype of `x`.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> kernel = jax.random.normal(jax.random.key(0), (4, 4, 3, 5))
        >>> conv_transpose(jnp.ones((1, 6, 7, 3)), kernel).shape
        (1, 12, 14, 5)
    """
    batch, height, width, channels = x.shape
    stride, features = kernel.shape[0] // 2, kernel.shape[3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # Halves of the kernel along each axis: 0 meets x[m], 1 meets x[m - 1].
    halves = [(i, j) for i in (0, 1) for j in (0, 1)]
    neighbours = jnp.concatenate(
        [padded[:, 1 - i : height + 2 - i, 1 - j : width + 2 - j] for i, j in halves], axis=-1
    )
    matrix = kernel.astype(x.dtype).reshape(2, stride, 2, stride, channels, features)
    matrix = matrix.transpose(0, 2, 4, 1, 3, 5)
    y = neighbours @ matrix.reshape(4 * channels, stride * stride * features)
    y = y.reshape(batch, height + 1, width + 1, stride, stride, features)
    y = y.transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(batch, stride * (height + 1), stride * (width + 1), features)
    margin = stride // 2
    return y[:, margin : margin + stride * height, margin : margin + stride * width]


class FCN32s(nn.Module):
    """FCN-32s: VGG-16, its fully connected layers as convolutions, a score, and upsampling.

    Long, Shelhamer & Darrell 2015, "Fully convolutional networks for semantic segmentation",
    section 4. Where the original pads the image by 100 pixels and crops, every convolution here
    is padded to keep its size ("same"), so the output fits the input without a crop of borders.
    The upsampling is a learned transposed convolution with kernel 2^(s+1) and stride 2^s that
    starts as bilinear interpolation.

    With `pool_stages=s` below 5 the trunk is VGG-16's first s blocks and the upsampling 2^s: the
    finer, cheaper form for small images.

    Attributes:
        num_classes: number of classes scored at each pixel.
        width: channels of the trunk's first block (64 as published).
        fc_width: channels of fc6 and fc7 (4096 as published).
        fc_kernel: size of fc6's kernel (7 as published).
        pool_stages: blocks of the trunk, each of which halves the size (5 as published).
        block_sizes: convolutions in each block of the trunk.
        dropout: share of fc6's and fc7's outputs dropped in training (0.5 as published); a
            positive one needs `rngs={"dropout": key}`.
        batch_norm: normalise after each convolution of trunk, fc6 and fc7 (VGG-16-BN), for
            training from scratch.
        bn_momentum: share of the old running statistics kept at each step.
        dtype: dtype of the computation; parameters, statistics and logits are float32.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model = FCN32s(num_classes=11, width=4, fc_width=16, pool_stages=3, fc_kernel=3)
        >>> image = jnp.zeros((2, 50, 64, 3))
        >>> logits, variables = jax.eval_shape(
        ...     lambda k: model.init_with_output(k, image, train=False), jax.random.key(0))
        >>> logits.shape
        (2, 50, 64, 11)
        >>> sorted(variables["params"])
        ['fc6', 'fc7', 'score', 'upscore', 'vgg16']
    """

    num_classes: int
    width: int = 64
    fc_width: int = 4096
    fc_kernel: int = 7
    pool_stages: int = 5
    block_sizes: Sequence[int] = (2, 2, 3, 3, 3)
    dropout: float = 0.5
    batch_norm: bool = False
    bn_momentum: float = 0.9
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Refuse a number of stages that the trunk does not have."""
        check_pool_stages(self.pool_stages, self.block_sizes)
        for name in SIZES:
            check_count(name, getattr(self, name, 1))
        check_share("dropout", getattr(self, "dropout", 0.0))
        check_share("bn_momentum", self.bn_momentum)
        check_dtype("dtype", self.dtype)
        self.block_sizes = tuple(self.block_sizes)  # hashable: jit takes modules as static
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, size: jax.Array | None = None) -> jax.Array:
        """Return the scores of each pixel.

        Args:
            x: (batch, height, width, channels), normalised; any height and width.
            train: use the batch's moments, and dropout.
            size: int (batch, 2), how many rows and columns of each picture are no padding, for
                evaluation: the scores there are those of the picture without padding. None where
                all are. (The batch's moments, in training, would include the padding.)

        Returns:
            Logits (batch, height, width, num_classes), float32.
        """
        height, width = x.shape[1:3]
        x = VGG16Features(
            width=self.width,
            pool_stages=self.pool_stages,
            block_sizes=self.block_sizes,
            batch_norm=self.batch_norm,
            bn_momentum=self.bn_momentum,
            dtype=self.dtype,
            name="vgg16",
        )(x, train=train, size=size)
        for name, kernel in (("fc6", self.fc_kernel), ("fc7", 1)):
            x = nn.Conv(
                self.fc_width,
                (kernel, kernel),
                padding="SAME",
                kernel_init=he_normal_fan_out,
                dtype=self.dtype,
                name=name,
            )(x)
            if self.batch_norm:
                x = nn.BatchNorm(
                    use_running_average=not train,
                    momentum=self.bn_momentum,
                    dtype=self.dtype,
                    name=f"{name}_bn",
                )(x)
            x = nn.relu(x)
            x = nn.Dropout(self.dropout, deterministic=not train, name=f"{name}_dropout")(x)
        # The score starts at zero, as in the authors' code: uniform predictions, loss log(classes).
        x = nn.Conv(
            self.num_classes,
            (1, 1),
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="score",
        )(x)
        x = cut(x, size, 0.5**self.pool_stages)
        x = BilinearConvTranspose(self.num_classes, 2**self.pool_stages, name="upscore")(x)
        return x[:, :height, :width].astype(jnp.float32)


class BilinearConvTranspose(nn.Module):
    """A transposed convolution without bias that starts as bilinear upsampling.

    Attributes:
        features: channels of input and output.
        stride: factor of the upsampling; the kernel's size is twice that.
    """

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (batch, h, w, features) to (batch, stride h, stride w, features)."""
        shape = (2 * self.stride, 2 * self.stride, self.features, self.features)
        kernel = self.param("kernel", bilinear, shape, jnp.float32)
        return conv_transpose(x, kernel)
