"""Gradient clipping and graduated optimisation as Optax transformations.

Everything here is an ordinary Optax transformation, or a function of one's state:

```python
tx = optax.chain(clipjax.clip_by_tensor_norm(1.0), optax.adamw(1e-3))
tx = clipjax.clipped_sstm(learning_rate=0.01, smoothness=10.0, clip_level=1.0)
...
print(clipjax.clip_stats(opt_state).fraction)           # share of clipped steps
loss(clipjax.eval_params(opt_state, params))            # at the method's evaluation point
```

Importing clipjax loads jax and optax only.
"""

from clipjax.optim import (
    AdaptiveNormClipState,
    AverageIteratesState,
    ClippedSSTMState,
    ClipState,
    ClipStats,
    ExplicitGraduatedResult,
    HazanSchedule,
    QuantileClipState,
    RandomClipState,
    SimilarTrianglesState,
    ZScoreClipState,
    average_iterates,
    clip_by_adaptive_norm,
    clip_by_global_norm,
    clip_by_quantile,
    clip_by_tensor_norm,
    clip_by_value,
    clip_by_zscore,
    clip_stats,
    clip_with_probability,
    clipped_sgd,
    clipped_sstm,
    eval_params,
    explicit_graduated_optimization,
    hazan_schedule,
    normalize_by_global_norm,
    scale_by_similar_triangles,
    smoothed_value_and_grad,
    smoothing_levels,
    sstm_step_size,
)

__version__ = "0.1.0"

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
    "__version__",
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
