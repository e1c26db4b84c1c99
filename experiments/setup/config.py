"""What an experiment is: frozen dataclasses, checked when made.

A config file is Python and yields `config = Run(...)` (or `Grid(...)` for `experiments.compare`).
The file chooses types (which model, which optimizer); command-line flags change numbers. Optimizer
dataclasses mirror the signatures of the factories they stand for, field by field, so what is
written in a config is what the factory receives.
"""

import dataclasses
import difflib
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

Dtype: TypeAlias = Literal["float32", "bfloat16"]
"""What a network computes in; parameters, statistics, outputs and iterates stay float32."""

ClipKind: TypeAlias = Literal["global_norm", "tensor_norm", "value"]


def nearest(name: str, names: typing.Iterable[str]) -> str:
    """Return '; did you mean ...?' or the list of what there is.

    Examples:
        >>> nearest("clipped_sdg", ["adam", "clipped_sgd"])
        "did you mean 'clipped_sgd'? There are: adam, clipped_sgd"
    """
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    there = f"There are: {', '.join(names)}"
    return f"did you mean {close[0]!r}? {there}" if close else there


def _positive(owner: Any, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is None:
            continue
        if not (isinstance(value, int | float) and math.isfinite(value) and value > 0):
            raise ValueError(
                f"{type(owner).__name__}.{name} is {value!r}; expected a positive, finite number"
            )


# -- Optimizers: fields and defaults are those of the factory ------------------------------------


@dataclass(frozen=True)
class SGD:
    """The factory `optax.sgd`."""

    learning_rate: float
    momentum: float | None = None
    nesterov: bool = False
    accumulator_dtype: str | None = None

    name: ClassVar[str] = "sgd"

    def __post_init__(self):
        _positive(self, "learning_rate")


@dataclass(frozen=True)
class Adam:
    """The factory `optax.adam`."""

    learning_rate: float
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 0.0
    mu_dtype: str | None = None
    nesterov: bool = False

    name: ClassVar[str] = "adam"

    def __post_init__(self):
        _positive(self, "learning_rate")


@dataclass(frozen=True)
class ClippedSGD:
    """The factory `clipjax.clipped_sgd`."""

    learning_rate: float
    clip_level: float | None
    clip: ClipKind = "global_norm"
    momentum: float | None = None
    nesterov: bool = False
    clip_after_momentum: bool = False

    name: ClassVar[str] = "clipped_sgd"

    def __post_init__(self):
        _positive(self, "learning_rate", "clip_level")


@dataclass(frozen=True)
class ClippedSSTM:
    """The factory `clipjax.clipped_sstm`."""

    learning_rate: float
    smoothness: float
    clip_level: float | None
    clip: ClipKind = "global_norm"
    holder_exponent: float = 1.0
    step_offset: int = 2
    max_averaging_ratio: float = 1.0
    clip_start: int | None = None

    name: ClassVar[str] = "clipped_sstm"

    def __post_init__(self):
        _positive(self, "learning_rate", "smoothness", "clip_level")


Optimizer: TypeAlias = SGD | Adam | ClippedSGD | ClippedSSTM

RATES = ("learning_rate", "clip_level", "smoothness")
"""The optimizer fields that are values at run time: runs that differ in these alone (and in the
seed) share one compiled program."""


# -- Models: fields are the Flax module's, the number of classes comes from the data --------------


@dataclass(frozen=True)
class MLP:
    """A multi-layer perceptron on flattened images; for tests."""

    hidden: tuple[int, ...] = (64,)
    dtype: Dtype = "float32"


@dataclass(frozen=True)
class ResNet18:
    """ResNet-18 (He et al. 2016)."""

    width: int = 64
    stem: Literal["imagenet", "small"] = "imagenet"
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    zero_init_last_bn: bool = False
    dtype: Dtype = "float32"

    def __post_init__(self):
        _positive(self, "width")


@dataclass(frozen=True)
class FCN32s:
    """FCN (Long et al. 2015) on a VGG-16 trunk; `pool_stages=5` is FCN-32s."""

    width: int = 64
    fc_width: int = 4096
    fc_kernel: int = 7
    pool_stages: int = 5
    block_sizes: tuple[int, ...] = (2, 2, 3, 3, 3)
    dropout: float = 0.5
    batch_norm: bool = False
    dtype: Dtype = "float32"

    def __post_init__(self):
        _positive(self, "width", "fc_width", "fc_kernel", "pool_stages")


@dataclass(frozen=True)
class SRResNet:
    """SRResNet (Ledig et al. 2017)."""

    scale: int = 4
    num_blocks: int = 16
    channels: int = 64
    kernel_size: int = 9
    global_skip: Literal["bicubic"] | None = None
    dtype: Dtype = "float32"

    def __post_init__(self):
        _positive(self, "scale", "num_blocks", "channels")


Model: TypeAlias = MLP | ResNet18 | FCN32s | SRResNet


# -- Runs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Duration:
    """A length of training: exactly one of steps, epochs or examples.

    Examples:
        >>> Duration(epochs=2).in_steps(batch_size=64, num_train=1437)
        45
    """

    steps: int | None = None
    epochs: float | None = None
    examples: int | None = None

    def __post_init__(self):
        given = {k: v for k, v in dataclasses.asdict(self).items() if v is not None}
        if len(given) != 1:
            raise ValueError(
                f"a duration of {given or 'nothing'}; expected exactly one of steps, epochs, "
                "examples (a flag that replaces the file's unit sets the other to None)"
            )
        _positive(self, "steps", "epochs", "examples")

    def in_steps(self, batch_size: int, num_train: int) -> int:
        """Return the number of optimizer steps, rounded up, at least 1."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil(self.in_examples(num_train) / batch_size))

    def in_examples(self, num_train: int) -> float:
        """Return the number of examples, of a duration in epochs or examples."""
        examples = self.examples if self.epochs is None else self.epochs * num_train
        assert examples is not None  # exactly one of the three is given
        return examples


@dataclass(frozen=True)
class LearningRateSchedule:
    """How the learning rate moves: warm-up from 0, then constant or decay to 0 at the end."""

    kind: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: int = 0

    def __post_init__(self):
        kinds = ("constant", "cosine", "linear")
        if self.kind not in kinds:
            raise ValueError(f"schedule kind {self.kind!r}; {nearest(self.kind, kinds)}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps is {self.warmup_steps}; expected 0 or more")


@dataclass(frozen=True)
class Graduated:
    """A noise level that falls from stage to stage: `clipjax.graduated_schedule` for a run.

    Stages see equally many examples. The run's learning rate, batch size and momentum are those of
    the first stage.
    """

    num_stages: int
    decay: Literal["polynomial", "geometric", "cosine", "exponential", "constant"] = "polynomial"
    power: float = 0.9
    """Of the polynomial decay."""
    factor: float | None = None
    """Of the geometric decay."""
    batch_share: float = 0.0
    """How much of the decay is done by larger batches; the rest by the learning rate."""
    momentum_share: float = 0.0
    """How much of it by less momentum."""
    max_batch_size: int | None = None
    whole_batches: bool = False
    """Whether a step takes its batch at once (compiled once a stage) or adds up gradients."""

    def __post_init__(self):
        _positive(self, "num_stages", "power", "factor", "max_batch_size")
        decays = ("polynomial", "geometric", "cosine", "exponential", "constant")
        if self.decay not in decays:
            raise ValueError(f"decay {self.decay!r}; {nearest(self.decay, decays)}")


@dataclass(frozen=True)
class NoiseProbe:
    """How heavy the gradient noise is, measured while training: rows of the split "noise".

    Each time costs 2 `examples` + `batches` · batch_size gradients; training is not changed by it.
    """

    every: int | None = None
    """Optimizer steps of the first stage; None never measures."""
    examples: int = 256
    """Training examples whose gradients are formed; f is their mean."""
    batches: int = 0
    """Minibatches of the run's batch size to measure as well; 0, or at least 4."""
    chunk: int = 16
    """Gradients in memory at once."""

    def __post_init__(self):
        _positive(self, "every", "chunk")
        if self.examples < 4:
            raise ValueError(f"NoiseProbe.examples is {self.examples}; expected at least 4")
        if self.batches < 4 and self.batches != 0:
            raise ValueError(f"NoiseProbe.batches is {self.batches}; expected 0, or at least 4")


@dataclass(frozen=True)
class Run:
    """One training run. `python -m experiments.train --help` lists these as flags."""

    # What is learnt from what
    task: Literal["classification", "segmentation", "super_resolution"]
    dataset: str
    """A name known to `clipjax.data`."""
    model: Model
    optimizer: Optimizer

    # How long, in what portions
    duration: Duration
    batch_size: int
    """Examples in one optimizer step of the first stage, over all devices and micro-batches."""
    accumulation: int = 1
    """Micro-batches that one optimizer step is split into."""
    schedule: LearningRateSchedule = LearningRateSchedule()
    graduated: Graduated | None = None
    """Growing batches and a falling learning rate, in stages; instead of a `schedule`."""
    augment: bool = True
    """Augment the training images as usual for the task."""
    crop: int | None = None
    """Side of the training crops where pictures differ in size; None takes the task's usual one."""
    train_split: str = "train"
    evaluation_dataset: str | None = None
    """Evaluate on examples of this data set: Set5 for a network trained on DIV2K."""
    evaluation_split: str | None = None
    """None takes the first there is of test, validation, val."""
    pretrained: str | None = None
    """A file with ImageNet weights of VGG-16 to start from (npz, safetensors, h5)."""
    pretrained_require: Literal["trunk", "all"] = "trunk"
    """'trunk' lets fc6 and fc7 start at random where the file has none or they do not fit."""
    seed: int = 0
    """Initial parameters, order of the data, augmentation and dropout are functions of it."""

    # What is written when
    log_every: int = 10
    """Optimizer steps."""
    evaluate_every: Duration = Duration(epochs=1)
    checkpoint_every: Duration = Duration(epochs=1)
    evaluation_batch_size: int = 100
    calibration_batches: int = 20
    """Training batches that BatchNorm statistics are recomputed from at the evaluation point."""
    samples: int = 6
    """Evaluation examples whose predictions are kept for pictures."""
    noise: NoiseProbe = NoiseProbe()
    """Gradient noise, measured on the way."""

    # How input is made ahead, for pictures that are not kept in memory; it does not change them
    input_threads: int = 2
    input_workers: int = 0
    """Processes that make training batches; 0 leaves it to the threads, which usually do."""

    def __post_init__(self):
        tasks = ("classification", "segmentation", "super_resolution")
        if self.task not in tasks:
            raise ValueError(f"task {self.task!r}; {nearest(self.task, tasks)}")
        for name, kinds in (("model", Model), ("optimizer", Optimizer)):
            value = getattr(self, name)
            if not isinstance(value, typing.get_args(kinds)):
                given = value if isinstance(value, str) else type(value).__name__
                names = [kind.__name__ for kind in typing.get_args(kinds)]
                raise ValueError(f"{name} {given!r}; {nearest(given, names)}")
        _positive(self, "batch_size", "accumulation", "log_every", "evaluation_batch_size")
        _positive(self, "calibration_batches", "crop", "input_threads")
        if self.input_workers < 0:
            raise ValueError(f"input_workers is {self.input_workers}; expected 0 or more")
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
        if self.graduated is not None:
            if self.duration.steps is not None:
                raise ValueError(
                    "a graduated run counts examples, since steps grow: give its duration in "
                    f"epochs or examples, not in steps ({self.duration.steps})"
                )
            if self.schedule != LearningRateSchedule():
                raise ValueError(
                    f"a graduated run has its own learning rates, got schedule={self.schedule}; "
                    "leave the schedule out"
                )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; expected 0 <= seed < 2**32")


@dataclass(frozen=True)
class Grid:
    """Runs to compare, each with every seed; keys are folders, 'task/method'."""

    runs: Mapping[str, Run]
    seeds: tuple[int, ...] = (0, 1, 2)

    def __post_init__(self):
        if not self.runs or not self.seeds:
            raise ValueError("a grid needs at least one run and one seed")
        for key in self.runs:
            if not re.fullmatch(r"[\w.=+-]+/[\w.=+-]+", key):
                raise ValueError(f"grid key {key!r}; expected 'task/method', a folder of each run")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {self.seeds} repeat; expected distinct seeds")
