"""What a search for good values is: which runs, which values, how much may be spent on each.

    Search(
        runs={"digits/sgd": run, "digits/adam": other},
        space={"*": {"optimizer.learning_rate": LogUniform(1e-4, 1.0)}},
        trials=16,
    )

Trial k of a run takes point k of a scrambled Sobol or Halton sequence (Sobol 1967, Halton 1960;
scrambled as by Owen 1998), one coordinate u in [0, 1) per value:

    LogUniform   low (high / low)^u
    Uniform      low + (high - low) u
    Choice       options[floor(n u)]

Such points cover a box more evenly than independent draws, and the first n of them do not depend on
how many follow: more trials later keep those that are done.

What makes a search fair. Every run gets equally many trials, of equal length, stopped early by one
rule; all trials of all methods start from the same seeds, so that they see the same initial
parameters and batches. Scores are taken on a part of the training split that is not trained on
(`validating`); the test split is never read. Runs whose spaces have equally many values get the
same points. What the search cannot make fair is the width of the spaces, which are the user's.
"""

import dataclasses
import fnmatch
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from experiments.setup.checks import FLOAT32, ONE_OR_MORE, Range, check_fields, nearest, shown
from experiments.setup.config import RUN_FOLDER, LearningRateSchedule, NoiseProbe, Run
from experiments.setup.fields import Rate, Seed, Text
from experiments.setup.halving import Rung, make_rungs

Value: TypeAlias = float | int | str | bool | None
"""What a field is set to."""

Values: TypeAlias = Mapping[str, Value]
"""Field path -> value."""

Finite: TypeAlias = Annotated[float, Range(-FLOAT32, FLOAT32, words="that is finite in float32")]

NOT_SEARCHED = (
    *("task", "dataset", "train_split", "evaluation_dataset", "evaluation_split"),
    *("seed", "duration"),
)
"""Fields of a Run that say what is compared, and for how long; they are not searched."""

DIGITS = 4
"""Significant digits of a value, so that tables show what was run."""


@dataclass(frozen=True)
class LogUniform:
    """A number whose logarithm is spread evenly from log(low) to log(high).

    Examples:
        >>> [LogUniform(0.01, 1.0).at(share) for share in (0.0, 0.5, 0.75)]
        [0.01, 0.1, 0.3162]
    """

    low: Rate
    high: Rate

    def __post_init__(self):
        check_fields(self)
        _check_ends(self)

    @property
    def ends(self) -> tuple[Value, ...]:
        """Return values that are valid only if all are."""
        return self.low, self.high

    def at(self, share: float) -> float:
        """Return the value below which a share of them lies."""
        ratio = math.log(self.high) - math.log(self.low)
        return _rounded(math.exp(math.log(self.low) + ratio * share), self.low, self.high)


@dataclass(frozen=True)
class Uniform:
    """A number spread evenly from low to high.

    Examples:
        >>> Uniform(0.5, 0.9).at(0.25)
        0.6
    """

    low: Finite
    high: Finite

    def __post_init__(self):
        check_fields(self)
        _check_ends(self)

    @property
    def ends(self) -> tuple[Value, ...]:
        """Return values that are valid only if all are."""
        return self.low, self.high

    def at(self, share: float) -> float:
        """Return the value below which a share of them lies."""
        return _rounded(self.low + (self.high - self.low) * share, self.low, self.high)


@dataclass(frozen=True, init=False, repr=False)
class Choice:
    """One of several values, each equally often.

    Examples:
        >>> Choice("value", "global_norm").at(0.5)
        'global_norm'
    """

    options: tuple[Value, ...]

    def __init__(self, *options: Value):
        object.__setattr__(self, "options", options)
        check_fields(self)
        if len(options) < 2 or any(option in options[:i] for i, option in enumerate(options)):
            raise ValueError(f"{self} offers no choice; expected at least two values, all distinct")

    def __repr__(self) -> str:
        return f"Choice({', '.join(map(repr, self.options))})"

    @property
    def ends(self) -> tuple[Value, ...]:
        """Return values that are valid only if all are."""
        return self.options

    def at(self, share: float) -> Value:
        """Return the value below which a share of them lies."""
        return self.options[int(share * len(self.options))]


Distribution: TypeAlias = LogUniform | Uniform | Choice

Space: TypeAlias = Annotated[Mapping[str, Distribution], ONE_OR_MORE]
"""Field path -> how its value is drawn."""


def _check_ends(drawn: LogUniform | Uniform) -> None:
    if not drawn.low < drawn.high:
        raise ValueError(f"{drawn} is empty; expected low below high")


def _rounded(value: float, low: float, high: float) -> float:
    return min(max(float(f"{value:.{DIGITS}g}"), low), high)


@dataclass(frozen=True)
class Search:
    """Values to be found for runs, with the same budget for each (see the top of this file)."""

    runs: Annotated[Mapping[Annotated[str, RUN_FOLDER], Run], ONE_OR_MORE]
    """'task/method' -> the run; what the space names is replaced in it."""
    space: Annotated[Mapping[str, Space], ONE_OR_MORE]
    """'task/method', or a pattern such as '*' or '*/adam' -> field path -> distribution.

    Field paths are those of the command line's flags: 'optimizer.learning_rate'. Where several
    patterns fit a run, their values are put together; of two for one path the later counts.
    """
    trials: Annotated[int, Range(1, 10_000)]
    """Of each run."""
    seeds: Annotated[tuple[Seed, ...], ONE_OR_MORE] = (100,)
    """Each trial is run with each; its score is the mean."""
    holdout: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.1
    """The share of the training split that trials are scored on instead of trained on."""
    metric: Text | None = None
    """What trials are judged by; None takes the task's own (top-1, mean IoU, PSNR). Larger is
    better, but for 'loss'. The lower loss decides a tie, then the lower trial number."""
    rungs: Annotated[int, Range(1, 10)] = 1
    """Stages of successive halving (`experiments.setup.halving`); 1 trains all to their end."""
    reduction: Annotated[int, Range(2, 100)] = 3
    """From rung to rung a trial is trained this many times as long, and 1 in so many goes on."""
    sequence: Literal["sobol", "halton"] = "sobol"
    sequence_seed: Seed = 0
    """Of the scrambling."""

    def __post_init__(self):
        check_fields(self)
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"Search.seeds is {self.seeds}; expected distinct seeds")
        for pattern in self.space:
            if not fnmatch.filter(self.runs, pattern):
                raise ValueError(
                    f"Search.space has {pattern!r}, which fits no run; "
                    f"{nearest(pattern, self.runs)}"
                )
        for key, run in self.runs.items():
            _check_space(key, run, self.space_of(key))
            validating(run, self.holdout)
            if self.rungs > 1 and (run.schedule.kind != "constant" or run.graduated is not None):
                raise ValueError(
                    f"Search.rungs is {self.rungs}, but the learning rate of {key!r} is spread "
                    "over the whole run, which cannot be continued: make rungs 1, or the schedule "
                    f"{LearningRateSchedule()}"
                )

    def space_of(self, key: str) -> dict[str, Distribution]:
        """Return field path -> distribution of a run."""
        found: dict[str, Distribution] = {}
        for pattern, space in self.space.items():
            if fnmatch.fnmatchcase(key, pattern):
                found |= space
        return found

    def values(self, key: str) -> list[dict[str, Value]]:
        """Return the values of each trial of a run."""
        space = self.space_of(key)
        return [
            {
                path: drawn.at(share)
                for (path, drawn), share in zip(space.items(), point, strict=True)
            }
            for point in self.points(len(space))
        ]

    def points(self, dimension: int) -> list[list[float]]:
        """Return the first points of the sequence, (trials, dimension) in [0, 1)."""
        from scipy.stats import qmc  # takes a second

        if self.sequence == "halton":
            return qmc.Halton(dimension, rng=self.sequence_seed).random(self.trials).tolist()
        # Sobol points come in powers of two; what is beyond the last trial is left out.
        power = (self.trials - 1).bit_length()
        made = qmc.Sobol(dimension, rng=self.sequence_seed).random_base2(power)
        return made[: self.trials].tolist()

    def trial_runs(self, key: str) -> list[Run]:
        """Return the run of each trial, scored on the held-out part of its training split.

        Raises:
            ValueError: values do not go together, such as a batch that does not split.
        """
        base = validating(self.runs[key], self.holdout)
        found = []
        for number, values in enumerate(self.values(key)):
            try:
                found.append(with_values(base, values))
            except ValueError as error:
                raise ValueError(f"trial {number} of {key!r} takes {values}: {error}") from error
        return found

    def stages(self, key: str, steps: int) -> list[Rung]:
        """Return the rungs of a run that is `steps` long in full.

        Raises:
            ValueError: two rungs would end at the same step.
        """
        try:
            return make_rungs(self.trials, steps, rungs=self.rungs, reduction=self.reduction)
        except ValueError as error:
            raise ValueError(f"{key!r} has {error}") from error


def validating(run: Run, holdout: float) -> Run:
    """Return a run that is trained on the first part of its training split and scored on the rest.

    The cut is at a share of the stored order, so it is the same for every method, seed and
    computer. Data sets are stored in the order of a hash of their records' names, so the rest is a
    random sample; where a data set takes several crops of one photograph (photos_x4), some of them
    lie on either side. Pictures and measurements of noise are left out: nobody looks at them.

    Raises:
        ValueError: the training split is a part already, or is the split that is evaluated on.

    Examples:
        >>> from experiments.config import MLP, SGD, Duration
        >>> run = Run("classification", "digits", MLP(), SGD(0.1), Duration(epochs=1), 64)
        >>> cut = validating(run, 0.1)
        >>> cut.train_split, cut.evaluation_split
        ('train[:90%]', 'train[90%:]')
    """
    split = run.train_split
    if any(letter in split for letter in "[+") or split == "all":
        raise ValueError(
            f"Run.train_split is {split!r}; a search cuts its validation examples from a whole "
            "split, expected a name such as 'train'"
        )
    if split == run.evaluation_split and run.evaluation_dataset in (None, run.dataset):
        raise ValueError(
            f"Run.train_split and evaluation_split are both {split!r}: a search never reads the "
            "examples that scores are reported on; give another train_split"
        )
    percent = f"{100 * (1 - holdout):.10g}%"
    return dataclasses.replace(
        run,
        train_split=f"{split}[:{percent}]",
        evaluation_dataset=None,
        evaluation_split=f"{split}[{percent}:]",
        samples=0,
        noise=NoiseProbe(),
    )


def with_values(run: Run, values: Values) -> Run:
    """Return a run with fields replaced by their paths.

    Raises:
        ValueError: there is no such field, with the nearest name, or the value is out of its range.

    Examples:
        >>> from experiments.config import MLP, SGD, Duration
        >>> run = Run("classification", "digits", MLP(), SGD(0.1), Duration(epochs=1), 64)
        >>> with_values(run, {"optimizer.learning_rate": 0.5, "batch_size": 32}).optimizer
        SGD(learning_rate=0.5, momentum=None, nesterov=False, accumulator_dtype=None)
    """
    for path, value in values.items():
        run = _replaced(run, path, value)
    return run


def _replaced(owner: Any, path: str, value: Value) -> Any:
    """Return a dataclass or mapping with one field, of itself or further inside, replaced."""
    name, _, rest = path.partition(".")
    if isinstance(owner, Mapping):
        fields = dict(owner)
    elif dataclasses.is_dataclass(owner):
        fields = {f.name: getattr(owner, f.name) for f in dataclasses.fields(owner)}
    else:
        raise ValueError(f"{shown(owner)} has no fields, so none called {name!r}")
    if name not in fields:
        kind = "the mapping" if isinstance(owner, Mapping) else type(owner).__name__
        raise ValueError(f"{kind} has no field {name!r}; {nearest(name, fields)}")
    if not rest and dataclasses.is_dataclass(fields[name]):
        inner = [f.name for f in dataclasses.fields(fields[name])]
        raise ValueError(f"{name!r} is no single value; name one in it: {', '.join(inner)}")
    fresh = _replaced(fields[name], rest, value) if rest else value
    if isinstance(owner, Mapping):
        return {**fields, name: fresh}
    return dataclasses.replace(typing.cast(Any, owner), **{name: fresh})


def _check_space(key: str, run: Run, space: Mapping[str, Distribution]) -> None:
    """Refuse paths that lead nowhere, and distributions that reach beyond a field's range."""
    if not space:
        raise ValueError(f"Search.space names no values for {key!r}; add a pattern that fits it")
    for path, drawn in space.items():
        where = f"Search.space, {path!r} of {key!r}"
        if path.partition(".")[0] in NOT_SEARCHED:
            raise ValueError(
                f"{where}: this field says what is compared and for how long, and is not searched"
            )
        for value in drawn.ends:
            try:
                with_values(run, {path: value})
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
