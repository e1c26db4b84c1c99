"""Update rules: ordinary Optax transformations that need jax and optax and nothing else."""

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
from clipjax.optim.similar_triangles import (
    ClippedSSTMState,
    SimilarTrianglesState,
    clipped_sstm,
    scale_by_similar_triangles,
    sstm_step_size,
)

__all__ = [
    "AverageIteratesState",
    "ClipState",
    "ClipStats",
    "ClippedSSTMState",
    "SimilarTrianglesState",
    "average_iterates",
    "clip_by_global_norm",
    "clip_by_tensor_norm",
    "clip_by_value",
    "clip_stats",
    "clipped_sgd",
    "clipped_sstm",
    "eval_params",
    "normalize_by_global_norm",
    "scale_by_similar_triangles",
    "sstm_step_size",
]
