"""ResNet-18, with the ImageNet stem and with the stem for small images.

The layout is torchvision's (explicit padding, no biases before batch normalisation, names with
`_` where torch writes `.`), so that its weights map onto ours leaf by leaf.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from clipjax.models._checks import check_choice, check_count, check_counts, check_dtype, check_share
from clipjax.models.initializers import he_normal_fan_out, uniform_fan_in
from clipjax.models.pooling import max_pool

STEMS = ("imagenet", "small")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: relu(BN(conv(relu(BN(conv(x))))) + shortcut(x)).

    The shortcut is the identity, or a strided 1x1 convolution with batch normalisation where the
    shape changes (option B of He et al. 2016).

    Attributes:
        features: channels of both convolutions.
        stride: stride of the first convolution and of the shortcut.
        bn_momentum: share of the old running statistics kept at each step.
        zero_init_last_bn: start the last scale at 0, so that the block starts as its shortcut.
        dtype: dtype of the computation; parameters and statistics are float32.
    """

    features: int
    stride: int = 1
    bn_momentum: float = 0.9
    zero_init_last_bn: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map (batch, h, w, c) to (batch, ceil(h / stride), ceil(w / stride), features)."""

        def conv(features: int, kernel: int, stride: int, name: str) -> nn.Conv:
            return nn.Conv(
                features,
                (kernel, kernel),
                strides=stride,
                padding=kernel // 2,
                use_bias=False,
                kernel_init=he_normal_fan_out,
                dtype=self.dtype,
                name=name,
            )

        def norm(name: str, scale_init: Any = nn.initializers.ones) -> nn.BatchNorm:
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=self.bn_momentum,
                dtype=self.dtype,
                scale_init=scale_init,
                name=name,
            )

        last = nn.initializers.zeros if self.zero_init_last_bn else nn.initializers.ones
        y = conv(self.features, 3, self.stride, "conv1")(x)
        y = nn.relu(norm("bn1")(y))
        y = conv(self.features, 3, 1, "conv2")(y)
        y = norm("bn2", last)(y)
        if x.shape[-1] != self.features or self.stride != 1:
            x = conv(self.features, 1, self.stride, "downsample_conv")(x)
            x = norm("downsample_bn")(x)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """ResNet-18 of He et al. 2016, "Deep residual learning for image recognition", table 1.

    Stage i (from 0) has `stage_sizes[i]` basic blocks of `width * 2**i` channels; each but the
    first begins by halving height and width. Global average pooling and a linear layer end it.

    Attributes:
        num_classes: number of logits.
        width: channels of the first stage (64 as published).
        stem: "imagenet" (7x7 convolution with stride 2, then 3x3 max pooling with stride 2) or
            "small" (3x3 convolution with stride 1, no pooling; He et al. 2016, section 4.2).
        stage_sizes: blocks in each stage, (2, 2, 2, 2) as published.
        bn_momentum: share of the old running statistics kept at each step (1 - torch's momentum).
        zero_init_last_bn: start each block as its shortcut (Goyal et al. 2017, section 5.1).
        dtype: dtype of the computation; parameters and statistics are float32, logits too.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model = ResNet18(num_classes=10, width=8, stem="small", stage_sizes=(1, 1))
        >>> image = jnp.zeros((4, 8, 8, 1))
        >>> variables = jax.eval_shape(lambda k: model.init(k, image, train=False),
        ...                            jax.random.key(0))
        >>> sorted(variables["params"])
        ['bn1', 'conv1', 'fc', 'layer1_0', 'layer2_0']
    """

    num_classes: int
    width: int = 64
    stem: str = "imagenet"
    stage_sizes: Sequence[int] = (2, 2, 2, 2)
    bn_momentum: float = 0.9
    zero_init_last_bn: bool = False
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Refuse an unknown stem with the nearest name."""
        for name in ("num_classes", "width"):
            check_count(name, getattr(self, name))
        check_counts("stage_sizes", self.stage_sizes)
        check_share("bn_momentum", self.bn_momentum)
        check_dtype("dtype", self.dtype)
        check_choice("stem", self.stem, STEMS)
        self.stage_sizes = tuple(self.stage_sizes)  # hashable: jit takes modules as static
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Return the logits.

        Args:
            x: (batch, height, width, channels), normalised.
            train: use the batch's moments (and update the running ones) instead of the running
                ones.

        Returns:
            Logits (batch, num_classes), float32.
        """
        imagenet = self.stem == "imagenet"
        x = nn.Conv(
            self.width,
            (7, 7) if imagenet else (3, 3),
            strides=2 if imagenet else 1,
            padding=3 if imagenet else 1,
            use_bias=False,
            kernel_init=he_normal_fan_out,
            dtype=self.dtype,
            name="conv1",
        )(x)
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=self.bn_momentum,
            dtype=self.dtype,
            name="bn1",
        )(x)
        x = nn.relu(x)
        if imagenet:
            x = max_pool(x, 3)
        for stage, blocks in enumerate(self.stage_sizes):
            for block in range(blocks):
                x = BasicBlock(
                    self.width * 2**stage,
                    stride=2 if stage > 0 and block == 0 else 1,
                    bn_momentum=self.bn_momentum,
                    zero_init_last_bn=self.zero_init_last_bn,
                    dtype=self.dtype,
                    name=f"layer{stage + 1}_{block}",
                )(x, train=train)
        x = jnp.mean(x, axis=(1, 2))
        x = nn.Dense(self.num_classes, kernel_init=uniform_fan_in, dtype=self.dtype, name="fc")(x)
        return x.astype(jnp.float32)
