"""What a sample says, how noisy gradients are, and how smoothed an objective is.

Quantiles far in the tail with intervals; how heavy a tail is, beside a Gaussian control; norms of
gradient noise; averages over noise without random numbers; checks of the conditions under which
graduated optimisation is proved to work; the separator of largest margin, and how far weights are
from it; weight decay beside growing steps. Losses over planes are in `clipjax.analysis.landscape`.
"""

from clipjax.analysis.exponential_rates import RateComparison, compare_exponential_rates
from clipjax.analysis.gradient_noise import (
    GradientNoise,
    gradient_noise,
    mean_gradient,
    minibatch_noise,
)
from clipjax.analysis.margins import (
    HardMargin,
    direction_error,
    hard_margin_separator,
    margin_gap,
)
from clipjax.analysis.minimisers import minimiser_path, smoothed_minimisers
from clipjax.analysis.nice_bounds import (
    alignment_probability,
    alignment_probability_uniform_angle,
    alignment_threshold,
    arrival_level,
    d_bounds,
    gamma_lower_bound,
    sufficient_level,
)
from clipjax.analysis.performance_profiles import (
    benchmark_score,
    performance_profile,
    performance_ratios,
    workload_times,
)
from clipjax.analysis.quadrature import Quadrature, noise_quadrature, smooth
from clipjax.analysis.quantiles import Quantiles, bootstrap_ranks, quantiles
from clipjax.analysis.sigma_nice import (
    NewSigmaNice,
    SigmaNice,
    check_new_sigma_nice,
    check_sigma_nice,
    lowest_curvature,
    strong_convexity_radius,
)
from clipjax.analysis.tail_index import (
    HillCurve,
    block_tail_index,
    hill_curve,
    hill_tail_index,
    median_block_tail_index,
)
from clipjax.analysis.tails import (
    Curve,
    Outliers,
    gaussian_control,
    moments,
    normal_quantiles,
    outlier_ratios,
    survival,
)

__all__ = [
    "Curve",
    "GradientNoise",
    "HardMargin",
    "HillCurve",
    "NewSigmaNice",
    "Outliers",
    "Quadrature",
    "Quantiles",
    "RateComparison",
    "SigmaNice",
    "alignment_probability",
    "alignment_probability_uniform_angle",
    "alignment_threshold",
    "arrival_level",
    "benchmark_score",
    "block_tail_index",
    "bootstrap_ranks",
    "check_new_sigma_nice",
    "check_sigma_nice",
    "compare_exponential_rates",
    "d_bounds",
    "direction_error",
    "gamma_lower_bound",
    "gaussian_control",
    "gradient_noise",
    "hard_margin_separator",
    "hill_curve",
    "hill_tail_index",
    "lowest_curvature",
    "margin_gap",
    "mean_gradient",
    "median_block_tail_index",
    "minibatch_noise",
    "minimiser_path",
    "moments",
    "noise_quadrature",
    "normal_quantiles",
    "outlier_ratios",
    "performance_profile",
    "performance_ratios",
    "quantiles",
    "smooth",
    "smoothed_minimisers",
    "strong_convexity_radius",
    "sufficient_level",
    "survival",
    "workload_times",
]
