r"""Implicit graduated optimisation: a method's own noise smooths the objective, less each stage.

The stages' numbers come from `schedule.py` beside this file and their lengths from `stage_plan.py`;
the noise is defined in `noise_levels.py` and measured in `gradient_variance.py`:

```python
schedule = clipjax.graduated_schedule(0.1, 128, 5, decay="geometric", batch_share=0.5)
tx = clipjax.implicit_graduated_optimization(schedule, None, 64, examples_per_stage=40 * 50_000)
tx = clipjax.measure_gradient_variance(tx, 64)
...
C = clipjax.variance_stats(opt_state).variance ** 0.5
```

**One optimizer for all stages.** The authors' code builds a new optimizer at every change, which
forgets the velocity. Here nothing is rebuilt: a stage changes the numbers that the one inner
optimizer is given, and its state, the velocity included, goes on. (The velocity is a sum of
gradients, not of steps: a smaller learning rate applies to all of it at once.)

**Growing batches out of constant ones.** The gradient of every call is that of one micro-batch;
`accumulate_gradients` makes outer steps of more and more of them. Where in the run it is, the state
knows from its counter of outer steps alone, so that a run stopped anywhere, within a stage or
within an outer step, goes on from its checkpoint to the same bits.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from clipjax.optim._checks import check_callable, check_instance, check_transformation, naming
from clipjax.optim._trees import increment, transformation
from clipjax.optim.graduated.schedule import GraduatedSchedule
from clipjax.optim.graduated.stage_plan import StagePlan, plan_stages
from clipjax.optim.wrappers.accumulation import accumulate_gradients

InnerFactory = Callable[..., optax.GradientTransformation]
"""An optimizer's factory, called with `learning_rate` (a schedule) and, if the schedule of the
noise has momentum, `momentum` (a number, which may be traced)."""


class StagedMomentumState(NamedTuple):
    """State of an inner optimizer whose momentum changes with the stage.

    Attributes:
        count: number of outer steps, int32 scalar.
        inner_state: the state of the inner optimizer, the same object through all stages.
    """

    count: jax.Array
    inner_state: optax.OptState


def implicit_graduated_optimization(
    schedule: GraduatedSchedule,
    steps_per_stage: int | Sequence[int] | None,
    micro_batch_size: int,
    *,
    inner: InnerFactory = optax.sgd,
    examples_per_stage: int | Sequence[int] | None = None,
    dataset_size: int | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Train by a graduated schedule: growing batches, falling rates, momentum kept throughout.

    In stage m each outer step takes the mean of b_m / micro_batch_size micro-batches' gradients and
    is a step of `inner` with the learning rate η_m and the momentum β_m; updates in between are
    zero. After the last stage its numbers hold on.

    The lengths of the stages: `steps_per_stage` counts outer steps; `examples_per_stage` counts
    examples, and is the one to take when runs with different batches are compared. `plan_stages`
    with the same arguments returns the plan that is followed, with all boundaries; its
    `total_micro_steps` is the number of calls of `update` in all.

    Args:
        schedule: from `graduated_schedule`. Batches that are no multiples of `micro_batch_size` go
            to the nearest one, and the learning rate makes the noise what it was.
        steps_per_stage: outer steps in a stage, one number for all or one for each; None if
            `examples_per_stage` is given.
        micro_batch_size: examples behind each gradient.
        inner: the optimizer's factory, called as `inner(learning_rate=schedule_of_η)`, with
            `momentum=β` besides if the schedule has momentum. `optax.sgd` is SGD and SHB; for NSHB,
            `lambda learning_rate, momentum: optax.chain(optax.ema(momentum, debias=False),
            optax.scale_by_learning_rate(learning_rate))`; with other arguments,
            `functools.partial(clipjax.clipped_sgd, clip_level=1.0)`. It must count every step that
            it is given: put `optax.apply_if_finite` around the whole, not inside.
        examples_per_stage: examples in a stage, instead of `steps_per_stage`.
        dataset_size: number of training examples; a batch larger than that is refused.

        Under `optax.inject_hyperparams` all arguments are static; a traced learning rate goes into
        `graduated_schedule`.

    Returns:
        An Optax transformation with state `AccumulateState`, whose `outer_step` tells the stage;
        one buffer besides those of `inner`. Updates have the dtype that `inner` gives them.

    Non-finite gradients: the mean of its outer step is non-finite, and so is what `inner` makes of
    it. `optax.apply_if_finite` around the whole skips the micro-step, and the next gradient takes
    its place: the stages keep their numbers of good ones.

    Raises:
        ValueError: as `plan_stages`; or if the schedule has momentum and `inner` takes none, or is
            `optax.sgd` while the schedule follows a formula for the normalised heavy ball.

    Examples:
        >>> from clipjax.optim.graduated.schedule import graduated_schedule
        >>> schedule = graduated_schedule(1.0, 1, 2, decay="geometric", batch_share=1.0)
        >>> schedule.batch_sizes
        (1, 2)
        >>> tx = implicit_graduated_optimization(schedule, steps_per_stage=2, micro_batch_size=1)
        >>> x = jnp.array(0.0)
        >>> state = tx.init(x)
        >>> for g in (1.0, 1.0, 2.0, 4.0, 0.0, 8.0):  # 1, 1, then the means 3 and 4
        ...     updates, state = tx.update(jnp.array(g), state, x)
        ...     x = optax.apply_updates(x, updates)
        ...     print(f"{x:.2f}", end=" ")
        -1.00 -2.00 -2.00 -5.00 -5.00 -9.00

    References:
        Sato, Iiduka, 2024 (https://arxiv.org/abs/2311.08745), Algorithm 3.
    """
    plan = plan_stages(
        schedule,
        steps_per_stage,
        micro_batch_size,
        examples_per_stage=examples_per_stage,
        dataset_size=dataset_size,
    )
    return accumulate_gradients(staged(inner, plan), plan.accumulation)


def staged(inner: InnerFactory, plan: StagePlan) -> optax.GradientTransformationExtraArgs:
    """Return the inner optimizer with the plan's learning rates and momenta, one update a step.

    Without the accumulation of `implicit_graduated_optimization`: for a training loop that makes
    the batches of `plan.schedule.batch_sizes` itself and gives their mean gradients.

    Args:
        inner: the optimizer's factory, as in `implicit_graduated_optimization`.
        plan: from `plan_stages`.

    Returns:
        An Optax transformation with the state of `inner`; if the momentum changes, that state
        within a `StagedMomentumState`.

    Non-finite gradients: the update is that of `inner`. `optax.apply_if_finite` around it skips the
    step and leaves the state as it was. The step is not counted towards its stage.

    Raises:
        ValueError: if the schedule has momentum and `inner` takes none, or is `optax.sgd` while the
            schedule follows a formula for the normalised heavy ball.

    Examples:
        >>> from clipjax.optim.graduated.schedule import graduated_schedule
        >>> schedule = graduated_schedule(1.0, 1, 2, decay="geometric", factor=0.5)
        >>> tx = staged(optax.sgd, plan_stages(schedule, 1, 1))
        >>> x = jnp.array(0.0)
        >>> state = tx.init(x)
        >>> for _ in range(3):  # rates 1, 0.5, and 0.5 from then on
        ...     updates, state = tx.update(jnp.array(1.0), state, x)
        ...     print(updates, end=" ")
        -1.0 -0.5 -0.5
    """
    check_callable("inner", inner)
    check_instance("plan", plan, StagePlan, "from clipjax.plan_stages")
    momenta = set(plan.schedule.momenta)

    def made(**momentum: Any) -> optax.GradientTransformationExtraArgs:
        with naming("inner", "learning_rate", *momentum):
            tx = inner(learning_rate=plan.learning_rate, **momentum)
        check_transformation("what inner returns", tx)
        return optax.with_extra_args_support(tx)

    if momenta == {0.0}:
        return made()
    _check_momentum(inner, plan.schedule)
    if len(momenta) == 1:
        return made(momentum=momenta.pop())

    def optimizer(count: jax.typing.ArrayLike) -> optax.GradientTransformationExtraArgs:
        return made(momentum=plan.momentum(count))

    def init(params: optax.Params) -> StagedMomentumState:
        return StagedMomentumState(jnp.zeros((), jnp.int32), optimizer(0).init(params))

    def update(updates, state: StagedMomentumState, params=None, **extra_args):
        updates, inner_state = optimizer(state.count).update(
            updates, state.inner_state, params, **extra_args
        )
        return updates, StagedMomentumState(increment(state.count), inner_state)

    return transformation(init, update)


def _check_momentum(inner: Any, schedule: GraduatedSchedule) -> None:
    parameters = inspect.signature(inner).parameters.values()
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    if not takes_any and "momentum" not in {p.name for p in parameters}:
        name = getattr(inner, "__name__", inner)
        raise ValueError(
            f"The schedule has momentum {schedule.momenta[0]}, but inner={name} takes no argument "
            "`momentum`. Plan without momentum, or wrap the factory so that it takes one."
        )
    factory = inner.func if isinstance(inner, functools.partial) else inner
    if factory is optax.sgd and schedule.kind.startswith("nshb"):
        raise ValueError(
            f"The schedule follows kind={schedule.kind!r}, the normalised heavy ball, but "
            "optax.sgd is the heavy ball, whose steps are 1/(1 − β) times as long. Pass as inner: "
            "lambda learning_rate, momentum: optax.chain(optax.ema(momentum, debias=False), "
            "optax.scale_by_learning_rate(learning_rate))."
        )
