"""Transformations that shorten gradients: to a level, a quantile, a z-score or at random."""

from clipjax.optim.clipping.adaptive_norm import (
    AdaptiveNormClipState,
    clip_by_adaptive_norm,
)
from clipjax.optim.clipping.norms import (
    ClipState,
    ClipStats,
    clip_by_global_norm,
    clip_by_tensor_norm,
    clip_by_value,
    clip_stats,
    normalize_by_global_norm,
)
from clipjax.optim.clipping.quantile import (
    QuantileClipState,
    clip_by_quantile,
)
from clipjax.optim.clipping.random import (
    RandomClipState,
    clip_with_probability,
)
from clipjax.optim.clipping.zscore import (
    ZScoreClipState,
    clip_by_zscore,
)

__all__ = [
    "AdaptiveNormClipState",
    "ClipState",
    "ClipStats",
    "QuantileClipState",
    "RandomClipState",
    "ZScoreClipState",
    "clip_by_adaptive_norm",
    "clip_by_global_norm",
    "clip_by_quantile",
    "clip_by_tensor_norm",
    "clip_by_value",
    "clip_by_zscore",
    "clip_stats",
    "clip_with_probability",
    "normalize_by_global_norm",
]
