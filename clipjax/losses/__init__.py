"""Losses: of single examples and their mean, and the generalised logistic family with its rates.

`clipjax.losses.per_example` has what the tasks minimise. `clipjax.losses.growth_curve` has the
generalised logistic curve, as an activation and as a loss of the margin, and
`clipjax.losses.growth_rates` how fast gradient descent on it grows.
"""

from clipjax.losses.growth_curve import (
    generalized_logistic,
    generalized_logistic_loss,
    generalized_softmax,
    growth_constant,
)
from clipjax.losses.growth_rates import (
    growth_exponent,
    growth_exponent_is_positive,
    growth_exponent_turn,
    growth_rate,
    lambert_w,
)
from clipjax.losses.per_example import (
    masked_mean,
    masked_sum,
    softmax_cross_entropy,
    squared_error,
)

__all__ = [
    "generalized_logistic",
    "generalized_logistic_loss",
    "generalized_softmax",
    "growth_constant",
    "growth_exponent",
    "growth_exponent_is_positive",
    "growth_exponent_turn",
    "growth_rate",
    "lambert_w",
    "masked_mean",
    "masked_sum",
    "softmax_cross_entropy",
    "squared_error",
]
