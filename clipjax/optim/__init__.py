"""Update rules: ordinary Optax transformations that need jax and optax and nothing else."""

from clipjax.optim import theory
from clipjax.optim.accumulation import AccumulateState, accumulate_gradients
from clipjax.optim.adaptive_norm_clipping import AdaptiveNormClipState, clip_by_adaptive_norm
from clipjax.optim.averaging import AverageIteratesState, average_iterates, eval_params
from clipjax.optim.clipped_adaptive import (
    ACClipState,
    MomentsState,
    acclip,
    clipped_adagrad,
    clipped_adam,
)
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
from clipjax.optim.gradient_variance import (
    GradientVarianceState,
    VarianceStats,
    measure_gradient_variance,
    per_example_variance,
    variance_stats,
)
from clipjax.optim.graduated import (
    StagedMomentumState,
    implicit_graduated_optimization,
    staged,
)
from clipjax.optim.graduated_schedule import GraduatedSchedule, graduated_schedule
from clipjax.optim.noise_levels import (
    noise_level,
    solve_batch_size,
    solve_learning_rate,
    solve_momentum,
)
from clipjax.optim.quantile_clipping import QuantileClipState, clip_by_quantile
from clipjax.optim.random_clipping import RandomClipState, clip_with_probability
from clipjax.optim.restarts import RestartState, with_restarts
from clipjax.optim.similar_triangles import (
    ClippedSSTMState,
    SimilarTrianglesState,
    clipped_sstm,
    scale_by_similar_triangles,
    sstm_step_size,
)
from clipjax.optim.smoothing import smoothed_value_and_grad
from clipjax.optim.stage_plan import StagePlan, plan_stages
from clipjax.optim.zscore_clipping import ZScoreClipState, clip_by_zscore

__all__ = [
    "ACClipState",
    "AccumulateState",
    "AdaptiveNormClipState",
    "AverageIteratesState",
    "ClipState",
    "ClipStats",
    "ClippedSSTMState",
    "ExplicitGraduatedResult",
    "GradientVarianceState",
    "GraduatedSchedule",
    "HazanSchedule",
    "MomentsState",
    "QuantileClipState",
    "RandomClipState",
    "RestartState",
    "SimilarTrianglesState",
    "StagePlan",
    "StagedMomentumState",
    "VarianceStats",
    "ZScoreClipState",
    "acclip",
    "accumulate_gradients",
    "average_iterates",
    "clip_by_adaptive_norm",
    "clip_by_global_norm",
    "clip_by_quantile",
    "clip_by_tensor_norm",
    "clip_by_value",
    "clip_by_zscore",
    "clip_stats",
    "clip_with_probability",
    "clipped_adagrad",
    "clipped_adam",
    "clipped_sgd",
    "clipped_sstm",
    "eval_params",
    "explicit_graduated_optimization",
    "graduated_schedule",
    "hazan_schedule",
    "implicit_graduated_optimization",
    "measure_gradient_variance",
    "noise_level",
    "normalize_by_global_norm",
    "per_example_variance",
    "plan_stages",
    "scale_by_similar_triangles",
    "smoothed_value_and_grad",
    "smoothing_levels",
    "solve_batch_size",
    "solve_learning_rate",
    "solve_momentum",
    "sstm_step_size",
    "staged",
    "theory",
    "variance_stats",
    "with_restarts",
]
