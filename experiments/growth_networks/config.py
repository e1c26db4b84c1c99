"""What the experiment is: its numbers, its candidates, and what is compared in the end."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np

from experiments.growth_networks.networks import Setting, following_rate
from experiments.setup.checks import ONE_OR_MORE, POSITIVE, SEED, Range, Such, check_fields

LOWER = tuple(np.linspace(0, 0.15, 10).tolist())
UPPER = tuple(np.linspace(0.85, 1, 10).tolist())
RATE = tuple(np.linspace(0.5, 5.1, 5).tolist())
"""The values of a, b and r of which the source draws: 500 combinations (the author's notebook)."""

MARKS = (1, 100, 1000)
"""The iterations of which the source states the gain in accuracy."""

Reading: TypeAlias = Literal["epochs", "steps"]
Control: TypeAlias = Literal["tuned", "step", "rate", "schedule"]
UNLIKE = Such("(no two alike)", lambda entries: len(set(entries)) == len(entries))


@dataclass(frozen=True)
class Config:
    """The experiment."""

    # --- data ---
    dataset: Literal["mnist", "fashion_mnist", "digits"] = "mnist"
    """Prepared by experiments.prepare; "digits" is embedded (1,437 images of 8 x 8)."""
    examples: Annotated[int, Range(0, 10**6)] = 0
    """At most so many of its training examples, drawn once; 0: all."""
    folds: Annotated[int, Range(2, 100)] = 5
    """Of the cross-validation."""

    # --- network and training ---
    hidden: Annotated[tuple[Annotated[int, Range(1, 1000)], ...], ONE_OR_MORE] = (10, 10)
    """Units of each hidden layer."""
    learning_rate: Annotated[float, POSITIVE] = 0.01
    """Of SGD. The source states none; this is the default of Keras, which the author uses."""
    batch: Annotated[int, Range(1, 10**6)] = 25
    """n_batches of the source."""
    batch_is: Literal["size", "number"] = "size"
    """What that counts: examples of a batch, as in the author's notebook, or batches of an epoch,
    as the text can be read, too."""
    readings: Annotated[tuple[Reading, ...], ONE_OR_MORE, UNLIKE] = ("epochs", "steps")
    """What an iteration is; the source does not say."""
    iterations: Annotated[int, Range(1, 100_000)] = 1000
    """Of the comparison."""
    seeds: Annotated[tuple[Annotated[int, SEED], ...], ONE_OR_MORE, UNLIKE] = (0, 1, 2)
    """Of folds, weights and batches of the comparison."""
    records: Annotated[int, Range(2, 10_000)] = 50
    """Iterations that are evaluated, evenly spaced in their logarithm; 1, 100 and 1,000 besides."""

    # --- search ---
    share: Annotated[float, Range(0, 1, open_low=True)] = 0.15
    """Of the 500 combinations that are drawn."""
    search_iterations: Annotated[int, Range(1, 1000)] = 1
    """After which they are judged by their mean validation accuracy over the folds."""
    search_seed: Annotated[int, SEED] = 1000
    """Of the draws, and of folds, weights and batches of the search."""

    # --- controls ---
    controls: Annotated[tuple[Control, ...], UNLIKE] = ("tuned", "step", "rate", "schedule")
    """What is compared besides the default and the best combination; see `Arm`."""
    lowest_rate: Annotated[float, POSITIVE] = 1e-3
    """Of the learning rates for "tuned", drawn evenly in their logarithm."""
    highest_rate: Annotated[float, POSITIVE] = 10.0
    """The largest."""
    constant: Annotated[float, Range(0.01, 100)] = 3.0
    """c of "schedule"."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.lowest_rate >= self.highest_rate:
            raise ValueError(
                f"Config.lowest_rate is {self.lowest_rate}; expected a number below highest_rate, "
                f"which is {self.highest_rate}"
            )


def small(config: Config) -> Config:
    """Return the same on at most 2,000 examples and 20 iterations, with a tenth of the draws.

    Examples:
        >>> small(Config(iterations=5)).iterations, small(Config()).examples
        (5, 2000)
    """
    examples = min(config.examples or 2000, 2000)
    share = min(config.share, 0.015)
    iterations = min(config.iterations, 20)
    return dataclasses.replace(config, examples=examples, iterations=iterations, share=share)


@dataclass(frozen=True)
class Arm:
    """One of the networks that are compared.

    - "default": a = 0, b = 1, r = 1, the sigmoid and softmax.
    - "best": the combination that the search chose.
    - "tuned": the default with the learning rate that the same search chose, from as many draws.
    - "step": the default with learning rate ηr², r that of the best: the step size alone.
    - "rate": (0, 1, r). It is "step" from initial weights r times as large, exactly.
    - "schedule": (0, 1, r_j) with c and r re-optimised at each iteration; see `following_rate`.

    Attributes:
        name: as above.
        learning_rate: η.
        lower: a.
        upper: b.
        rate: r.
        follow: c of a rate that follows √j in place of r; None for a constant one.
        scale: a factor on the initial weights.
    """

    name: str
    learning_rate: float
    lower: float = 0.0
    upper: float = 1.0
    rate: float = 1.0
    follow: float | None = None
    scale: float = 1.0

    @property
    def loss_range(self) -> tuple[float, float]:
        """Return between which numbers the loss of an example lies; the second may be infinite.

        Examples:
            >>> Arm("best", 0.01, lower=0.1, upper=0.9).loss_range  # S = 10a + b - a = 1.8
            (0.693..., 2.890...)
        """
        total = 10 * self.lower + self.upper - self.lower
        return math.log(total / self.upper), math.log(total / self.lower) if self.lower else np.inf


def candidates(config: Config) -> list[Arm]:
    """Return what is searched: combinations (a, b, r), and as many learning rates of the default.

    Examples:
        >>> drawn = candidates(Config())
        >>> len(drawn), sum(arm.name == "combination" for arm in drawn)
        (150, 75)
    """
    draw = np.random.default_rng(config.search_seed)
    grid = [(a, b, r) for a in LOWER for b in UPPER for r in RATE]
    count = max(1, round(config.share * len(grid)))
    chosen = sorted(draw.choice(len(grid), count, replace=False))
    rates = np.exp(draw.uniform(math.log(config.lowest_rate), math.log(config.highest_rate), count))
    found = [Arm("combination", config.learning_rate, *grid[i]) for i in chosen]
    if "tuned" in config.controls:
        found += [Arm("learning rate", rate) for rate in sorted(rates.tolist())]
    return found


def arms(config: Config, best: Arm, tuned: Arm | None) -> list[Arm]:
    """Return what is compared.

    Args:
        config: the experiment.
        best: the combination that the search chose.
        tuned: the learning rate that it chose; None without that control.
    """
    default, rate = config.learning_rate, best.rate
    controls = {
        "tuned": tuned and dataclasses.replace(tuned, name="tuned"),
        "step": Arm("step", default * rate**2),
        "rate": Arm("rate", default, rate=rate),
        "schedule": Arm("schedule", default, follow=config.constant),
    }
    wanted = [arm for name in config.controls if (arm := controls[name]) is not None]
    return [Arm("default", default), dataclasses.replace(best, name="best"), *wanted]


def settings(compared: Sequence[Arm]) -> Setting:
    """Return the arms as arrays (arms,)."""

    def of(name: str) -> np.ndarray:
        return np.array([getattr(arm, name) for arm in compared])

    return Setting(of("learning_rate"), of("lower"), of("upper"), of("scale"))


def rate_table(compared: Sequence[Arm], iterations: int) -> np.ndarray:
    """Return r of each arm at each iteration, (iterations, arms)."""
    columns = [
        np.full(iterations, arm.rate)
        if arm.follow is None
        else following_rate(np.arange(1, iterations + 1), arm.follow)
        for arm in compared
    ]
    return np.stack(columns, axis=1)


def record_times(iterations: int, records: int) -> list[int]:
    """Return the iterations that are evaluated: `MARKS`, the last, and some between.

    Examples:
        >>> record_times(200, 4)
        [1, 6, 34, 100, 200]
    """
    spaced = np.rint(np.geomspace(1, iterations, records)).astype(int).tolist()
    return sorted({*spaced, *(mark for mark in MARKS if mark <= iterations)})


def batch_size(config: Config, train: int) -> int:
    """Return the examples of a batch.

    Args:
        config: the experiment.
        train: training examples of a fold.

    Raises:
        ValueError: if there are fewer of them than the batch needs.
    """
    if config.batch > train:
        raise ValueError(
            f"batch is {config.batch}; expected at most the {train} training examples of a fold"
        )
    return config.batch if config.batch_is == "size" else train // config.batch


def identity(config: Config, **more: Any) -> dict[str, Any]:
    """Return what a run's saved state belongs to, as JSON values."""
    return {"config": dataclasses.asdict(config), **more}
