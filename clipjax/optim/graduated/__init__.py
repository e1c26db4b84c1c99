"""Graduated optimisation: noise levels, schedules over them, the implicit and explicit methods."""

from clipjax.optim.graduated.explicit import (
    ExplicitGraduatedResult,
    HazanSchedule,
    explicit_graduated_optimization,
    hazan_schedule,
    smoothing_levels,
)
from clipjax.optim.graduated.gradient_variance import (
    GradientVarianceState,
    VarianceStats,
    measure_gradient_variance,
    per_example_variance,
    variance_stats,
)
from clipjax.optim.graduated.implicit import (
    StagedMomentumState,
    implicit_graduated_optimization,
    staged,
)
from clipjax.optim.graduated.noise_levels import (
    noise_level,
    solve_batch_size,
    solve_learning_rate,
    solve_momentum,
)
from clipjax.optim.graduated.schedule import (
    GraduatedSchedule,
    graduated_schedule,
)
from clipjax.optim.graduated.smoothing import (
    smoothed_value_and_grad,
)
from clipjax.optim.graduated.stage_plan import (
    StagePlan,
    plan_stages,
)

__all__ = [
    "ExplicitGraduatedResult",
    "GradientVarianceState",
    "GraduatedSchedule",
    "HazanSchedule",
    "StagePlan",
    "StagedMomentumState",
    "VarianceStats",
    "explicit_graduated_optimization",
    "graduated_schedule",
    "hazan_schedule",
    "implicit_graduated_optimization",
    "measure_gradient_variance",
    "noise_level",
    "per_example_variance",
    "plan_stages",
    "smoothed_value_and_grad",
    "smoothing_levels",
    "solve_batch_size",
    "solve_learning_rate",
    "solve_momentum",
    "staged",
    "variance_stats",
]
