"""Learning-rate schedules: written-out values, what needs which field, what depends on how long."""

import dataclasses

import numpy as np
import pytest

from experiments.setup import build, config_files
from experiments.setup.config import Duration, LearningRateSchedule
from experiments.setup.runs import check_resumable
from experiments.setup.schedules import schedule_shape
from tests.experiments.test_config import make_run

RAMP = [0.25, 0.5, 0.75, 1.0]
"""Of four warm-up steps."""


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        # Twelve steps after the warm-up, t = 0..11.
        (LearningRateSchedule("step", factor=0.5, every=5), [1] * 5 + [0.5] * 5 + [0.25] * 2),
        (
            LearningRateSchedule("step", factor=0.1, milestones=(2, 3, 9)),
            [1, 1, 0.1] + [0.01] * 6 + [0.001] * 3,
        ),
        # Falls by 4 in 2 steps, so by 2 in one.
        (
            LearningRateSchedule("exponential", factor=0.25, every=2),
            [2.0**-t for t in range(12)],
        ),
        # With four warm-up steps the rate is as 2/sqrt(t + 4): at t = 5 it is 2/3.
        (
            LearningRateSchedule("inverse_sqrt"),
            [2 / (t + 4) ** 0.5 for t in range(12)],
        ),
        # A third of 12 steps are 4: 1 at their first, then 3/4, 2/4, 1/4; it would be 0 at the end.
        (LearningRateSchedule("wsd", decay_share=1 / 3), [1.0] * 9 + [0.75, 0.5, 0.25]),
        # 0.3 of 12 are 3.6, rounded 4 as well.
        (LearningRateSchedule("wsd", decay_share=0.3), [1.0] * 9 + [0.75, 0.5, 0.25]),
    ],
    ids=lambda value: value.kind if isinstance(value, LearningRateSchedule) else "",
)
def test_schedules_are_their_formulas(schedule, after):
    schedule = dataclasses.replace(schedule, warmup_steps=4)
    shape = schedule_shape(schedule, steps=16)
    np.testing.assert_allclose([shape(k) for k in range(16)], RAMP + after, rtol=2e-6)
    assert config_files.from_json(config_files.to_json(schedule)) == schedule


def test_inverse_square_root_without_warm_up_starts_at_one():
    """1/sqrt(k + 1), the rate of the lecture's theorem."""
    shape = schedule_shape(LearningRateSchedule("inverse_sqrt"), steps=9)
    assert [float(shape(k)) for k in (0, 3, 8)] == pytest.approx([1, 1 / 2, 1 / 3])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "step"}, "kind 'step': .*factor is None; expected a number, such as 0.1"),
        (
            {"kind": "step", "factor": 0.1},
            r"every is None and .*milestones is \(\); expected exactly one of",
        ),
        (
            {"kind": "step", "factor": 0.1, "every": 3, "milestones": (2,)},
            r"every is 3 and .*milestones is \(2,\); expected exactly one",
        ),
        ({"kind": "step", "factor": 0.1, "milestones": (3, 2)}, r"\(3, 2\); .*larger than the one"),
        ({"kind": "exponential", "factor": 0.1}, "every is None; expected the steps"),
        ({"kind": "wsd"}, "decay_share is None; expected a share"),
        ({"kind": "cosine", "factor": 0.1}, "factor is 0.1, but the kind is 'cosine'; .* for step"),
        ({"every": 3}, "every is 3, but the kind is 'constant'"),
        ({"decay_share": 0.1}, "decay_share is 0.1, .* expected it for wsd alone"),
        ({"kind": "exponentail"}, "did you mean 'exponential'"),
    ],
)
def test_wrong_schedules_say_what_is_missing(fields, message):
    with pytest.raises(ValueError, match=message):
        LearningRateSchedule(**fields)


@pytest.mark.parametrize(
    ("schedule", "longer_is_another"),
    [
        (LearningRateSchedule(warmup_steps=3), False),
        (LearningRateSchedule("step", factor=0.5, every=5), False),
        (LearningRateSchedule("exponential", factor=0.5, every=5), False),
        (LearningRateSchedule("inverse_sqrt"), False),
        (LearningRateSchedule("linear"), True),
        (LearningRateSchedule("cosine"), True),
        (LearningRateSchedule("wsd", decay_share=0.2), True),
    ],
    ids=lambda value: value.kind if isinstance(value, LearningRateSchedule) else "",
)
def test_a_run_may_be_prolonged_where_its_rates_stay_what_they_were(
    schedule, longer_is_another, tmp_path
):
    run = make_run(schedule=schedule)
    longer = dataclasses.replace(run, duration=Duration(steps=20))
    keys = [build.program_key(one, num_train=100) for one in (run, longer)]
    assert (keys[0] != keys[1]) == longer_is_another
    if longer_is_another:
        with pytest.raises(ValueError, match=r"duration\.steps was 10, is 20"):
            check_resumable(run, longer, tmp_path)
    else:
        check_resumable(run, longer, tmp_path)
