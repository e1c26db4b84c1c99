"""How long the stages of graduated optimisation last, and what holds in which step.

A `GraduatedSchedule` has the numbers of each stage; a `StagePlan` adds boundaries, counted in outer
steps, in micro-batches and in examples, and gives rate, batch and momentum as functions of the
step: of a host's integer, or of a traced one.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import jax
import jax.numpy as jnp

from clipjax.optim._checks import check_count, check_instance
from clipjax.optim.graduated.schedule import GraduatedSchedule, check_dataset


@dataclass(frozen=True)
class StagePlan:
    """A schedule and how long its stages last; boundaries in steps, micro-batches and examples.

    After the last stage its numbers hold on: training may go on as long as it likes.

    Attributes:
        schedule: the numbers of each stage, every batch a multiple of `micro_batch_size`.
        steps: outer steps (steps of the optimizer) in each stage.
        micro_batch_size: examples in one micro-batch.
        accumulations: micro-batches in one outer step, by stage.
        step_ends: number of outer steps by the end of each stage.
        micro_step_ends: number of micro-batches by then.
        example_ends: number of examples by then.
    """

    schedule: GraduatedSchedule
    steps: tuple[int, ...]
    micro_batch_size: int
    accumulations: tuple[int, ...] = field(init=False)
    step_ends: tuple[int, ...] = field(init=False)
    micro_step_ends: tuple[int, ...] = field(init=False)
    example_ends: tuple[int, ...] = field(init=False)

    def __post_init__(self):
        check_instance("schedule", self.schedule, GraduatedSchedule, "from graduated_schedule")
        check_count("micro_batch_size", self.micro_batch_size, minimum=1)
        if not isinstance(self.steps, Sequence):
            raise TypeError(f"steps must be one number for each stage, got {self.steps!r}.")
        batches = self.schedule.batch_sizes
        if any(batch % self.micro_batch_size for batch in batches):
            raise ValueError(
                f"Every batch must be a multiple of micro_batch_size={self.micro_batch_size}, got "
                f"{batches}. Take schedule.in_multiples_of({self.micro_batch_size}), or "
                "plan_stages."
            )
        if len(self.steps) != len(batches):
            raise ValueError(
                f"steps_per_stage needs one number for each of the {len(batches)} stages, got "
                f"{len(self.steps)}."
            )
        for steps in self.steps:
            check_count("steps_per_stage", steps, minimum=1)
        parts = tuple(batch // self.micro_batch_size for batch in batches)
        micro_steps = [n * k for n, k in zip(self.steps, parts, strict=True)]
        for name, value in (
            ("accumulations", parts),
            ("step_ends", tuple(accumulate(self.steps))),
            ("micro_step_ends", tuple(accumulate(micro_steps))),
            ("example_ends", tuple(self.micro_batch_size * n for n in accumulate(micro_steps))),
        ):
            object.__setattr__(self, name, value)

    @property
    def total_steps(self) -> int:
        """Outer steps of all stages."""
        return self.step_ends[-1]

    @property
    def total_micro_steps(self) -> int:
        """Micro-batches of all stages."""
        return self.micro_step_ends[-1]

    @property
    def total_examples(self) -> int:
        """Examples of all stages: what runs with different batches are compared by."""
        return self.example_ends[-1]

    def stage_at_step(self, step: int) -> int:
        """Return the stage, from 0, of outer step number `step`, from 0."""
        return bisect_right(self.step_ends[:-1], step)

    def stage_at_micro_step(self, micro_step: int) -> int:
        """Return the stage, from 0, of micro-batch number `micro_step`, from 0."""
        return bisect_right(self.micro_step_ends[:-1], micro_step)

    def stage_at_example(self, example: int) -> int:
        """Return the stage, from 0, in which example number `example`, from 0, is seen."""
        return bisect_right(self.example_ends[:-1], example)

    def examples_at_step(self, step: int) -> int:
        """Return the number of examples seen in the first `step` outer steps."""
        stage = self.stage_at_step(step)
        before = (0, *self.step_ends)[stage]
        return (0, *self.example_ends)[stage] + (step - before) * self.schedule.batch_sizes[stage]

    def step_at_examples(self, examples: int) -> int:
        """Return the number of outer steps after which at least `examples` have been seen."""
        stage = min(bisect_left(self.example_ends, examples), len(self.steps) - 1)
        left = examples - (0, *self.example_ends)[stage]
        return (0, *self.step_ends)[stage] + max(0, -(-left // self.schedule.batch_sizes[stage]))

    def learning_rate(self, step: jax.typing.ArrayLike) -> jax.Array:
        """Return η of outer step `step`, which may be traced: an Optax schedule."""
        return jnp.asarray(self.schedule.learning_rates, float)[self._stage(step)]

    def accumulation(self, step: jax.typing.ArrayLike) -> jax.Array:
        """Return the micro-batches in outer step `step`, which may be traced; int32."""
        return jnp.asarray(self.accumulations, jnp.int32)[self._stage(step)]

    def momentum(self, step: jax.typing.ArrayLike) -> jax.Array:
        """Return β of outer step `step`, which may be traced; weakly typed, as a Python number."""
        value: Any = self.schedule.momenta[-1]
        stages = list(zip(self.step_ends, self.schedule.momenta, strict=True))[:-1]
        for end, beta in reversed(stages):
            value = jnp.where(jnp.asarray(step) < end, beta, value)
        return value

    def _stage(self, step: jax.typing.ArrayLike) -> jax.Array:
        ends = jnp.asarray(self.step_ends[:-1], jnp.int32)
        return jnp.searchsorted(ends, jnp.asarray(step), side="right")


def plan_stages(
    schedule: GraduatedSchedule,
    steps_per_stage: int | Sequence[int] | None,
    micro_batch_size: int,
    *,
    examples_per_stage: int | Sequence[int] | None = None,
    dataset_size: int | None = None,
) -> StagePlan:
    """Return how long each stage lasts, in outer steps, micro-batches and examples.

    Runs with different batch sizes compare fairly over the same *examples*, so give
    `examples_per_stage` (some epochs of the data, say) to compare "lr", "batch" and "hybrid". A
    stage is a whole number of outer steps; what one stage is too long or too short, the next makes
    good, so that each ends within half a batch of its budget.

    Args:
        schedule: the numbers of each stage. Batches become multiples of `micro_batch_size`, by
            `GraduatedSchedule.in_multiples_of`.
        steps_per_stage: outer steps in a stage, one number for all or one for each; None if
            `examples_per_stage` is given.
        micro_batch_size: examples in one micro-batch.
        examples_per_stage: examples in a stage, one number for all or one for each.
        dataset_size: number of training examples; a batch larger than that is refused.

    Raises:
        ValueError: unless exactly one of the two lengths is given; for a stage shorter than one
            outer step, a micro-batch larger than a batch, or a batch larger than the data set.

    Examples:
        >>> from clipjax.optim.graduated.schedule import graduated_schedule
        >>> schedule = graduated_schedule(0.1, 32, 3, decay="geometric", batch_share=1.0)
        >>> plan = plan_stages(schedule, None, 32, examples_per_stage=1000)
        >>> plan.steps, plan.accumulations, plan.example_ends
        ((31, 16, 8), (1, 2, 4), (992, 2016, 3040))
    """
    if (steps_per_stage is None) == (examples_per_stage is None):
        raise ValueError(
            "Give either steps_per_stage or examples_per_stage, got "
            f"{steps_per_stage} and {examples_per_stage}."
        )
    check_instance("schedule", schedule, GraduatedSchedule, "from graduated_schedule")
    schedule = schedule.in_multiples_of(micro_batch_size)
    check_dataset(schedule.batch_sizes, dataset_size)
    if steps_per_stage is not None:
        steps = _per_stage(steps_per_stage, schedule.num_stages)
        return StagePlan(schedule, steps, micro_batch_size)
    budgets = _per_stage(examples_per_stage, schedule.num_stages)
    if len(budgets) != schedule.num_stages:
        raise ValueError(
            f"examples_per_stage needs one number for each of the {schedule.num_stages} stages, "
            f"got {len(budgets)}."
        )
    for budget in budgets:
        check_count("examples_per_stage", budget, minimum=1, maximum=2**53)
    counts, seen = [], 0
    for stage, (budget, end) in enumerate(zip(budgets, accumulate(budgets), strict=True)):
        batch = schedule.batch_sizes[stage]
        if budget < batch:
            raise ValueError(
                f"Stage {stage + 1} has {budget} examples, less than one outer step of {batch}. "
                "Make the stages longer, or lower max_batch_size."
            )
        counts.append(max(1, round((end - seen) / batch)))
        seen += counts[-1] * batch
    return StagePlan(schedule, tuple(counts), micro_batch_size)


def _per_stage(length: Any, num_stages: int) -> tuple[int, ...]:
    return tuple(length) if isinstance(length, Sequence) else (length,) * num_stages
