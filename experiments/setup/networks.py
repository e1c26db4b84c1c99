"""The networks. Fields are the Flax module's; the number of classes comes from the data."""

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

from experiments.setup.checks import (
    DECAY,
    Range,
    Such,
    check_fields,
)
from experiments.setup.fields import (
    Depth,
    Dtype,
    Width,
)

_STAGES = Such("(1 to 8 of them)", lambda sizes: 1 <= len(sizes) <= 8)
_ODD = Such("and odd, so that a kernel has a middle", lambda size: size % 2 == 1)
_POWER_OF_TWO = Such("that is 2, 4, 8 or 16", lambda scale: scale in (2, 4, 8, 16))


@dataclass(frozen=True)
class MLP:
    """A multi-layer perceptron on flattened images; for tests."""

    hidden: Annotated[tuple[Width, ...], Such("(100 at most)", lambda sizes: len(sizes) <= 100)] = (
        64,
    )
    dtype: Dtype = "float32"

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class ResNet18:
    """ResNet-18 (He et al. 2016)."""

    width: Width = 64
    stem: Literal["imagenet", "small"] = "imagenet"
    stage_sizes: Annotated[tuple[Depth, ...], _STAGES] = (2, 2, 2, 2)
    zero_init_last_bn: bool = False
    dtype: Dtype = "float32"

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class FCN32s:
    """FCN (Long et al. 2015) on a VGG-16 trunk; `pool_stages=5` is FCN-32s."""

    width: Width = 64
    fc_width: Width = 4096
    fc_kernel: Annotated[int, Range(1, 99)] = 7
    pool_stages: Annotated[int, Range(1, 8)] = 5
    block_sizes: Annotated[tuple[Depth, ...], _STAGES] = (2, 2, 3, 3, 3)
    dropout: Annotated[float, DECAY] = 0.5
    batch_norm: bool = False
    dtype: Dtype = "float32"

    def __post_init__(self):
        check_fields(self)
        if self.pool_stages > len(self.block_sizes):
            raise ValueError(
                f"FCN32s.pool_stages is {self.pool_stages}; expected at most the number of "
                f"block_sizes, {len(self.block_sizes)}"
            )


@dataclass(frozen=True)
class SRResNet:
    """SRResNet (Ledig et al. 2017)."""

    scale: Annotated[int, _POWER_OF_TWO] = 4
    num_blocks: Depth = 16
    channels: Width = 64
    kernel_size: Annotated[int, Range(1, 99), _ODD] = 9
    global_skip: Literal["bicubic"] | None = None
    dtype: Dtype = "float32"

    def __post_init__(self):
        check_fields(self)


Model: TypeAlias = MLP | ResNet18 | FCN32s | SRResNet
