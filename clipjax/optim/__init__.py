"""Update rules: ordinary Optax transformations that need jax and optax and nothing else."""

from clipjax.optim.adaptive_clipping import (
    AdaptiveNormClipState,
    QuantileClipState,
    RandomClipState,
    ZScoreClipState,
    clip_by_adaptive_norm,
    clip_by_quantile,
    clip_by_zscore,
    clip_with_probability,
)
from clipjax.optim.averaging import AverageIteratesState, average_iterates, eval_params
from clipjax.optim.clipped_sgd import clipped_sgd
from clipjax.optim.clipping import (
    ClipState,
    ClipStats,
    clip_by_global_norm,
    clip_by_tensor_norm,
    clip_by_value,
    clip_stats,
    normalize_by_global_norm,
)
from clipjax.optim.explicit_graduated import (
    ExplicitGraduatedResult,
    HazanSchedule,
    explicit_graduated_optimization,
    hazan_schedule,
    smoothing_levels,
)
from clipjax.optim.similar_triangles import (
    ClippedSSTMState,
    SimilarTrianglesState,
    clipped_sstm,
    scale_by_similar_triangles,
    sstm_step_size,
)
from clipjax.optim.smoothing import smoothed_value_and_grad

__all__ = [
    "AdaptiveNormClipState",
    "AverageIteratesState",
    "ClipState",
    "ClipStats",
    "ClippedSSTMState",
    "ExplicitGraduatedResult",
    "HazanSchedule",
    "QuantileClipState",
    "RandomClipState",
    "SimilarTrianglesState",
    "ZScoreClipState",
    "average_iterates",
    "clip_by_adaptive_norm",
    "clip_by_global_norm",
    "clip_by_quantile",
    "clip_by_tensor_norm",
    "clip_by_value",
    "clip_by_zscore",
    "clip_stats",
    "clip_with_probability",
    "clipped_sgd",
    "clipped_sstm",
    "eval_params",
    "explicit_graduated_optimization",
    "hazan_schedule",
    "normalize_by_global_norm",
    "scale_by_similar_triangles",
    "smoothed_value_and_grad",
    "smoothing_levels",
    "sstm_step_size",
]
