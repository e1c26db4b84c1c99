"""What a sample of runs says, and how smoothed an objective is.

Quantiles far in the tail with intervals; averages over noise without random numbers; checks of the
conditions under which graduated optimisation is proved to work.
"""

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

__all__ = [
    "NewSigmaNice",
    "Quadrature",
    "Quantiles",
    "SigmaNice",
    "alignment_probability",
    "alignment_probability_uniform_angle",
    "alignment_threshold",
    "arrival_level",
    "bootstrap_ranks",
    "check_new_sigma_nice",
    "check_sigma_nice",
    "d_bounds",
    "gamma_lower_bound",
    "lowest_curvature",
    "minimiser_path",
    "noise_quadrature",
    "quantiles",
    "smooth",
    "smoothed_minimisers",
    "strong_convexity_radius",
    "sufficient_level",
]
