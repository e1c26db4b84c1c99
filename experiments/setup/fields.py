"""Types of configs' fields, each with its range (see `experiments.setup.checks`)."""

from typing import Annotated, Literal, TypeAlias

from experiments.setup.checks import (
    COUNT,
    COUNT_OR_ZERO,
    DECAY,
    NOT_EMPTY,
    POSITIVE,
    SEED,
    SHARE,
    Range,
)

Dtype: TypeAlias = Literal["float32", "bfloat16"]
"""What a network computes in; parameters, statistics, outputs and iterates stay float32."""

StateDtype: TypeAlias = Literal["float32", "bfloat16", "float16"]
"""What an optimizer's buffers are kept in."""

ClipKind: TypeAlias = Literal["global_norm", "tensor_norm", "value"]

Rate: TypeAlias = Annotated[float, POSITIVE]
Momentum: TypeAlias = Annotated[float, DECAY]
Count: TypeAlias = Annotated[int, COUNT]
CountOrZero: TypeAlias = Annotated[int, COUNT_OR_ZERO]
Share: TypeAlias = Annotated[float, SHARE]
Text: TypeAlias = Annotated[str, NOT_EMPTY]
Seed: TypeAlias = Annotated[int, SEED]
Width: TypeAlias = Annotated[int, Range(1, 2**20)]
"""Features of a layer."""
Depth: TypeAlias = Annotated[int, Range(1, 1000)]
"""Layers or blocks."""
Workers: TypeAlias = Annotated[int, Range(0, 1024)]
