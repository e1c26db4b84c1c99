"""The optimizers that have a dataclass, and the schedule of their rates; all others are a `Rule`.

Fields and defaults are those of the factory that a dataclass stands for.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from experiments.setup.checks import (
    NOT_NEGATIVE,
    Range,
    Such,
    check_fields,
)
from experiments.setup.fields import (
    ClipKind,
    Count,
    CountOrZero,
    Momentum,
    Rate,
    Share,
    StateDtype,
)
from experiments.setup.rules import Rule


@dataclass(frozen=True)
class SGD:
    """The factory `optax.sgd`."""

    learning_rate: Rate
    momentum: Momentum | None = None
    nesterov: bool = False
    accumulator_dtype: StateDtype | None = None

    name: ClassVar[str] = "sgd"

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Adam:
    """The factory `optax.adam`."""

    learning_rate: Rate
    b1: Momentum = 0.9
    b2: Momentum = 0.999
    eps: Annotated[float, NOT_NEGATIVE] = 1e-8
    eps_root: Annotated[float, NOT_NEGATIVE] = 0.0
    mu_dtype: StateDtype | None = None
    nesterov: bool = False

    name: ClassVar[str] = "adam"

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class ClippedSGD:
    """The factory `clipjax.clipped_sgd`."""

    learning_rate: Rate
    clip_level: Rate | None
    clip: ClipKind = "global_norm"
    momentum: Momentum | None = None
    nesterov: bool = False
    clip_after_momentum: bool = False

    name: ClassVar[str] = "clipped_sgd"

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class ClippedSSTM:
    """The factory `clipjax.clipped_sstm`."""

    learning_rate: Rate
    smoothness: Rate
    clip_level: Rate | None
    clip: ClipKind = "global_norm"
    holder_exponent: Share = 1.0
    step_offset: Count = 2
    max_averaging_ratio: Annotated[float, Range(0, 1, open_low=True)] = 1.0
    clip_start: CountOrZero | None = None

    name: ClassVar[str] = "clipped_sstm"

    def __post_init__(self):
        check_fields(self)


Optimizer: TypeAlias = SGD | Adam | ClippedSGD | ClippedSSTM | Rule

RATES = ("learning_rate", "clip_level", "smoothness")
"""The optimizer fields that are values at run time: runs that differ in these alone (and in the
seed) share one compiled program. Those of a `Rule` are in its `rates`."""


_INCREASING = Such(
    "(each larger than the one before)", lambda steps: list(steps) == sorted(set(steps))
)
_USED_BY: dict[str, tuple[str, ...]] = {
    "factor": ("step", "exponential"),
    "every": ("step", "exponential"),
    "milestones": ("step",),
    "decay_share": ("wsd",),
}
"""Which kinds of schedule use a field."""


@dataclass(frozen=True)
class LearningRateSchedule:
    """How the learning rate moves: a warm-up, then what `kind` says; steps count from its end.

    `setup.schedules` has the formulas. The values that a kind needs are None for all others.
    """

    kind: Literal["constant", "cosine", "linear", "step", "exponential", "inverse_sqrt", "wsd"] = (
        "constant"
    )
    """`cosine` and `linear` fall to 0 at the run's end, `wsd` stays and then falls to 0."""
    warmup_steps: CountOrZero = 0
    factor: Annotated[float, Range(0, 1, open_low=True)] | None = None
    """Of step and exponential: what the rate is multiplied by, each `every` steps."""
    every: Count | None = None
    """Of step and exponential."""
    milestones: Annotated[tuple[Count, ...], _INCREASING] = ()
    """Of step, instead of `every`: the steps at which the rate falls."""
    decay_share: Annotated[float, Range(0, 1, open_low=True)] | None = None
    """Of wsd (warm-up, stable, decay): the share of the steps in which the rate falls."""

    def __post_init__(self):
        check_fields(self)
        for name, kinds in _USED_BY.items():
            if getattr(self, name) not in (None, ()) and self.kind not in kinds:
                raise ValueError(
                    f"LearningRateSchedule.{name} is {getattr(self, name)}, but the kind is "
                    f"{self.kind!r}; expected it for {' and '.join(kinds)} alone"
                )
        missing = None
        if self.kind in _USED_BY["factor"] and self.factor is None:
            missing = "factor is None; expected a number, such as 0.1"
        elif self.kind == "exponential" and self.every is None:
            missing = "every is None; expected the steps in which the rate falls by the factor"
        elif self.kind == "step" and (self.every is None) == (not self.milestones):
            missing = (
                f"every is {self.every} and LearningRateSchedule.milestones is "
                f"{self.milestones}; expected exactly one of the two"
            )
        elif self.kind == "wsd" and self.decay_share is None:
            missing = "decay_share is None; expected a share of the steps, such as 0.2"
        if missing:
            raise ValueError(f"a schedule of kind {self.kind!r}: LearningRateSchedule.{missing}")

    @property
    def needs_duration(self) -> bool:
        """Whether it is spread over the whole run, so that a longer one has other rates."""
        return self.kind in ("cosine", "linear", "wsd")


CONSTANT_RATE = LearningRateSchedule()
