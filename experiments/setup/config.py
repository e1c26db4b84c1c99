"""What an experiment is: frozen dataclasses, checked when made.

A config file is Python and yields `config = Run(...)` (or `Grid(...)` for `experiments.compare`).
The file chooses types (which model, which optimizer); command-line flags change numbers. Optimizer
dataclasses mirror the signatures of the factories they stand for, field by field, so what is
written in a config is what the factory receives.

A field's annotation states its type and its range, which `check_fields` holds every value to.
Ranges end where float32 and int32 end, in which training computes and counts, or where no network
and no run could be: a mistyped zero more is told at once, instead of by a machine without memory.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from experiments.setup.checks import (
    INT32,
    ONE_OR_MORE,
    Range,
    Such,
    check_fields,
    nearest,
)
from experiments.setup.fields import (
    Count,
    Depth,
    Seed,
    Share,
    Text,
    Workers,
)
from experiments.setup.methods import (
    CONSTANT_RATE,
    RATES,
    SGD,
    Adam,
    ClippedSGD,
    ClippedSSTM,
    LearningRateSchedule,
    Optimizer,
)
from experiments.setup.networks import MLP, FCN32s, Model, ResNet18, SRResNet
from experiments.setup.rules import Rule

__all__ = [
    "MLP",
    "RATES",
    "RUN_FOLDER",
    "SGD",
    "Adam",
    "ClippedSGD",
    "ClippedSSTM",
    "Duration",
    "FCN32s",
    "Graduated",
    "Grid",
    "LearningRateSchedule",
    "Model",
    "NoiseProbe",
    "Optimizer",
    "ResNet18",
    "Rule",
    "Run",
    "SRResNet",
    "nearest",
]

_AT_LEAST_4_OR_0 = Such("that is 0, or at least 4", lambda count: count == 0 or count >= 4)


@dataclass(frozen=True)
class Duration:
    """A length of training: exactly one of steps, epochs or examples.

    Examples:
        >>> Duration(epochs=2).in_steps(batch_size=64, num_train=1437)
        45
    """

    steps: Count | None = None
    epochs: Annotated[float, Range(0, 1e9, open_low=True)] | None = None
    examples: Annotated[int, Range(1, 2**53)] | None = None

    def __post_init__(self):
        check_fields(self)
        given = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        if len(given) != 1:
            raise ValueError(
                f"a duration of {given or 'nothing'}; expected exactly one of steps, epochs, "
                "examples (a flag that replaces the file's unit sets the other to None)"
            )

    def in_steps(self, batch_size: int, num_train: int) -> int:
        """Return the number of optimizer steps, rounded up, at least 1."""
        if self.steps is not None:
            return self.steps
        steps = max(1, math.ceil(self.in_examples(num_train) / batch_size))
        if steps > INT32:
            raise ValueError(f"{self} is {steps} steps; expected at most {INT32}: train for less")
        return steps

    def in_examples(self, num_train: int) -> float:
        """Return the number of examples, of a duration in epochs or examples."""
        examples = self.examples if self.epochs is None else self.epochs * num_train
        assert examples is not None  # exactly one of the three is given
        return examples


@dataclass(frozen=True)
class Graduated:
    """A noise level that falls from stage to stage: `clipjax.graduated_schedule` for a run.

    Stages see equally many examples. The run's learning rate, batch size and momentum are those of
    the first stage.
    """

    num_stages: Depth
    decay: Literal["polynomial", "geometric", "cosine", "exponential", "constant"] = "polynomial"
    power: Annotated[float, Range(0, 1, open_low=True)] = 0.9
    """Of the polynomial decay."""
    factor: Annotated[float, Range(0, 1, open_low=True)] | None = None
    """Of the geometric decay."""
    batch_share: Share = 0.0
    """How much of the decay is done by larger batches; the rest by the learning rate."""
    momentum_share: Share = 0.0
    """How much of it by less momentum."""
    max_batch_size: Count | None = None
    whole_batches: bool = False
    """Whether a step takes its batch at once (compiled once a stage) or adds up gradients."""

    def __post_init__(self):
        check_fields(self)
        if self.factor is not None and self.decay != "geometric":
            raise ValueError(
                f"Graduated.factor is {self.factor}, but the decay is {self.decay!r}; leave the "
                "factor out, or make the decay 'geometric'"
            )
        if self.batch_share + self.momentum_share > 1:
            raise ValueError(
                f"Graduated.batch_share is {self.batch_share} and momentum_share "
                f"{self.momentum_share}; expected shares that sum to 1 at most"
            )


@dataclass(frozen=True)
class NoiseProbe:
    """How heavy the gradient noise is, measured while training: rows of the split "noise".

    Each time costs 2 `examples` + `batches` · batch_size gradients; training is not changed by it.
    """

    every: Count | None = None
    """Optimizer steps of the first stage; None never measures."""
    examples: Annotated[int, Range(4, INT32)] = 256
    """Training examples whose gradients are formed; f is their mean."""
    batches: Annotated[int, Range(0, INT32), _AT_LEAST_4_OR_0] = 0
    """Minibatches of the run's batch size to measure as well; 0, or at least 4."""
    chunk: Count = 16
    """Gradients in memory at once."""

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Run:
    """One training run. `python -m experiments.train --help` lists these as flags."""

    # What is learnt from what
    task: Literal["classification", "segmentation", "super_resolution"]
    dataset: Text
    """A name known to `clipjax.data`."""
    model: Model
    optimizer: Optimizer

    # How long, in what portions
    duration: Duration
    batch_size: Count
    """Examples in one optimizer step of the first stage, over all devices and micro-batches."""
    accumulation: Count = 1
    """Micro-batches that one optimizer step is split into."""
    schedule: LearningRateSchedule = CONSTANT_RATE
    graduated: Graduated | None = None
    """Growing batches and a falling learning rate, in stages; instead of a `schedule`."""
    augment: bool = True
    """Augment the training images as usual for the task."""
    crop: Annotated[int, Range(1, 2**16)] | None = None
    """Side of the training crops where pictures differ in size; None takes the task's usual one."""
    train_split: Text = "train"
    evaluation_dataset: Text | None = None
    """Evaluate on examples of this data set: Set5 for a network trained on DIV2K."""
    evaluation_split: Text | None = None
    """None takes the first there is of test, validation, val."""
    pretrained: Text | None = None
    """A file with ImageNet weights of VGG-16 to start from (npz, safetensors, h5)."""
    pretrained_require: Literal["trunk", "all"] = "trunk"
    """'trunk' lets fc6 and fc7 start at random where the file has none or they do not fit."""
    seed: Seed = 0
    """Initial parameters, order of the data, augmentation and dropout are functions of it."""

    # What is written when
    log_every: Count = 10
    """Optimizer steps."""
    evaluate_every: Duration = Duration(epochs=1)
    checkpoint_every: Duration = Duration(epochs=1)
    evaluation_batch_size: Count = 100
    calibration_batches: Count = 20
    """Training batches that BatchNorm statistics are recomputed from at the evaluation point."""
    samples: Annotated[int, Range(0, 10_000)] = 6
    """Evaluation examples whose predictions are kept for pictures."""
    noise: NoiseProbe = NoiseProbe()
    """Gradient noise, measured on the way."""

    # How input is made ahead, for pictures that are not kept in memory; it does not change them
    input_threads: Annotated[int, Range(1, 1024)] = 2
    input_workers: Workers = 0
    """Processes that make training batches; 0 leaves it to the threads, which usually do."""

    def __post_init__(self):
        check_fields(self)
        if self.pretrained is not None and not isinstance(self.model, FCN32s):
            raise ValueError(
                f"pretrained weights are VGG-16's, for FCN32s; the model is "
                f"{type(self.model).__name__}"
            )
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"a batch_size of {self.batch_size} does not split into {self.accumulation} "
                "accumulation steps; expected a multiple"
            )
        self._check_rule()
        if self.graduated is not None:
            if self.duration.steps is not None:
                raise ValueError(
                    "a graduated run counts examples, since steps grow: give its duration in "
                    f"epochs or examples, not in steps ({self.duration.steps})"
                )
            if self.schedule != CONSTANT_RATE:
                raise ValueError(
                    f"a graduated run has its own learning rates, got schedule={self.schedule}; "
                    "leave the schedule out"
                )

    @property
    def needs_duration(self) -> bool:
        """Whether training depends on how long it is to last; a resumed run then keeps that."""
        rule = self.optimizer
        counts = isinstance(rule, Rule) and rule.uses("steps")
        return self.schedule.needs_duration or self.graduated is not None or counts

    def _check_rule(self) -> None:
        """Refuse what moves a learning rate that a rule does not name."""
        rule = self.optimizer
        if not isinstance(rule, Rule):
            return
        moved = self.schedule != CONSTANT_RATE or self.graduated is not None
        if moved and "lr" not in rule.rates:
            what = "schedule" if self.graduated is None else "graduated"
            raise ValueError(
                f"Run.{what} moves the learning rate lr, which the optimizer {rule.text!r} does "
                f"not name; expected lr in its text, or no {what}"
            )
        if self.graduated is None:
            return
        if self.graduated.momentum_share:
            raise ValueError(
                f"Graduated.momentum_share is {self.graduated.momentum_share}, and the optimizer "
                f"is the text {rule.text!r}, whose momentum is its own; expected 0, or ClippedSGD"
            )
        if rule.uses("micro_batches"):
            raise ValueError(
                f"the optimizer {rule.text!r} names micro_batches, whose number grows in a "
                "graduated run; expected a text without it"
            )


RUN_FOLDER = Such(
    "like 'task/method', a folder for each run: letters, digits and . _ = + -",
    lambda key: bool(re.fullmatch(r"(?!\.+/)[\w.=+-]{1,200}/(?!\.+$)[\w.=+-]{1,200}", key)),
)


@dataclass(frozen=True)
class Grid:
    """Runs to compare, each with every seed; keys are folders, 'task/method'."""

    runs: Annotated[Mapping[Annotated[str, RUN_FOLDER], Run], ONE_OR_MORE]
    seeds: Annotated[tuple[Seed, ...], ONE_OR_MORE] = (0, 1, 2)

    def __post_init__(self):
        check_fields(self)
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"Grid.seeds is {self.seeds}; expected distinct seeds")
