"""Transformations around another one: averages, restarts, accumulation."""

from clipjax.optim.wrappers.accumulation import (
    AccumulateState,
    accumulate_gradients,
)
from clipjax.optim.wrappers.averaging import (
    AverageIteratesState,
    average_iterates,
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
    "with_restarts",
]
