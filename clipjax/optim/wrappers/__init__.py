"""Transformations around another one: averages, restarts, accumulation."""

from clipjax.optim.wrappers.accumulation import (
    AccumulateState,
    accumulate_gradients,
)
from clipjax.optim.wrappers.averaging import (
    AverageIteratesState,
    average_iterates,
    eval_params,
)
from clipjax.optim.wrappers.restarts import (
    RestartState,
    with_restarts,
)

__all__ = [
    "AccumulateState",
    "AverageIteratesState",
    "RestartState",
    "accumulate_gradients",
    "average_iterates",
    "eval_params",
    "with_restarts",
]
