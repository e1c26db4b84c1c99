"""Learning-rate schedules: a run's rate times a factor of the step."""

import jax.numpy as jnp
import optax

from experiments.setup.config import LearningRateSchedule


def schedule_shape(schedule: LearningRateSchedule, steps: int) -> optax.Schedule:
    """Return the learning rate's factor in [0, 1] as a function of the step from 0.

    With w warm-up steps it is (k + 1)/w for k < w; after that, with t = k − w and T = steps − w,

        constant      1
        linear        1 − t/T
        cosine        (1 + cos(π t/T))/2
        step          factor^⌊t/every⌋, or factor^(number of milestones ≤ t)
        exponential   factor^(t/every)
        inverse_sqrt  √(s/(t + s)), s = max(w, 1)
        wsd           1, and in the last D = decay_share · T steps 1 − (t − (T − D))/D

    Args:
        schedule: the config's.
        steps: how many the run has.

    Examples:
        >>> shape = schedule_shape(LearningRateSchedule("linear", warmup_steps=2), steps=6)
        >>> [float(shape(k)) for k in range(6)]
        [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    warmup = schedule.warmup_steps
    decay = _decay(schedule, max(steps - warmup, 1))
    if not warmup:
        return decay
    # The first step already moves: a rate of exactly 0 would waste a batch.
    ramp = optax.linear_schedule(1 / warmup, 1.0, max(warmup - 1, 1))
    return optax.join_schedules([ramp, decay], [warmup])


def _decay(schedule: LearningRateSchedule, steps: int) -> optax.Schedule:
    """Return the factor as a function of the step after the warm-up, of which there are `steps`."""
    match schedule.kind:
        case "constant":
            return optax.constant_schedule(1.0)
        case "cosine":
            return optax.cosine_decay_schedule(1.0, steps)
        case "linear":
            return optax.linear_schedule(1.0, 0.0, steps)
        case "step" if schedule.milestones:
            assert schedule.factor is not None  # checked with the config
            falls = dict.fromkeys(schedule.milestones, schedule.factor)
            return optax.piecewise_constant_schedule(1.0, falls)
        case "step" | "exponential":
            assert schedule.every is not None
            assert schedule.factor is not None
            staircase = schedule.kind == "step"
            return optax.exponential_decay(1.0, schedule.every, schedule.factor, 0, staircase)
        case "inverse_sqrt":
            scale = max(schedule.warmup_steps, 1)
            return lambda count: jnp.sqrt(scale / (scale + jnp.asarray(count, float)))
        case "wsd":
            assert schedule.decay_share is not None
            length = max(1, round(schedule.decay_share * steps))
            stable, fall = optax.constant_schedule(1.0), optax.linear_schedule(1.0, 0.0, length)
            return optax.join_schedules([stable, fall], [steps - length])
