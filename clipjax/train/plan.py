"""When what happens in a run, and how many micro-batches its steps take.

What is due when is counted in examples, so runs with growing batches are evaluated at the same
points as runs with constant ones, and the position in the data is a function of the step still.
"""

from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple


class Stage(NamedTuple):
    """A stretch of training in which every step takes equally many micro-batches."""

    start: int
    """Number of its first step, from 0."""
    micro_batches: int
    """Micro-batches in each of its steps."""


@dataclass(frozen=True)
class Plan:
    """When what happens, in optimizer steps of the first stage: so many examples."""

    steps: int
    """Optimizer steps in all, of whatever stages."""
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    stages: tuple[Stage, ...] = (Stage(0, 1),)
    """In order, the first from step 0 on."""
    whole_batches: bool = False
    """Whether a step's micro-batches are put together into one large batch, for accelerators that
    want them large: compiled once a stage. Otherwise gradients are added up."""
    calibration_batches: int = 20
    """Training batches that BatchNorm statistics are recomputed from at each evaluation."""

    def __post_init__(self):
        starts = [stage.start for stage in self.stages]
        if starts[:1] != [0] or sorted(set(starts)) != starts:
            raise ValueError(f"stages start at {starts}; expected 0 and increasing numbers")
        if any(stage.micro_batches < 1 for stage in self.stages):
            raise ValueError(f"a stage has no micro-batches: {self.stages}")

    def stage(self, step: int) -> Stage:
        """Return the stage that a step, counted from 0, belongs to."""
        return self.stages[bisect_right(self.stages, step, key=lambda stage: stage.start) - 1]

    def consumed(self, steps: int) -> int:
        """Return the number of micro-batches in the first `steps` steps.

        Examples:
            >>> plan = Plan(10, 1, 1, 1, stages=(Stage(0, 1), Stage(4, 2), Stage(6, 4)))
            >>> [plan.consumed(steps) for steps in (0, 4, 5, 7)]
            [0, 4, 6, 12]
        """
        ends = [stage.start for stage in self.stages[1:]] + [steps]
        return sum(
            max(0, min(end, steps) - stage.start) * stage.micro_batches
            for stage, end in zip(self.stages, ends, strict=True)
        )

    def due(self, every: int, now: int) -> bool:
        """Return whether step number `now`, from 1, passes a multiple of `every`.

        Examples:
            >>> plan = Plan(10, 1, 1, 1, stages=(Stage(0, 2), Stage(4, 3)))
            >>> [now for now in range(1, 10) if plan.due(2, now)]  # every 4 micro-batches
            [2, 4, 6, 7, 8]
        """
        period = every * self.stages[0].micro_batches
        return self.consumed(now) // period > self.consumed(now - 1) // period
