"""Graduated runs: which noise level was planned, which was measured, and what that gained.

    delta = eta C / sqrt(b)            (SGD; with momentum, its stationary form)

C² is measured in each logged step, from how much the gradients of micro-batches differ. The plan
is delta_m = level_m * delta_1 for the stages m = 1, ..., M, where delta_1 is what the same run
measured in its first stage: planned and measured agree there by construction. They agree later as
far as C does not change, which the theory takes for granted.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

import clipjax
from experiments.report.page import Cell, Table, Text
from experiments.report.results import METRICS, Grid, Group, Metric, RunResult
from experiments.report.style import look
from experiments.setup import build, config_files
from experiments.setup import config as configs

VARIANCE = "gradient_variance"
"""The entry of metrics.jsonl that holds C²; runs without micro-batches have none."""


@dataclass(frozen=True)
class Noise:
    """The noise level along one run.

    Attributes:
        ends: examples seen by the end of each stage, (stages,).
        levels: planned delta as a multiple of the first stage's, (stages,).
        delta: measured, the root of the mean of delta² over each stretch, (stages, parts).
        gradient_std: measured C, in the same way, (stages, parts).
    """

    ends: np.ndarray
    levels: np.ndarray
    delta: np.ndarray
    gradient_std: np.ndarray

    @property
    def first(self) -> float:
        """Return delta_1: over the first stage as a whole."""
        return root_mean_square(self.delta[0])

    @property
    def planned(self) -> np.ndarray:
        """Return level_m * delta_1, (stages,)."""
        return self.levels * self.first

    @property
    def starts(self) -> np.ndarray:
        """Return examples seen by the start of each stage, (stages,)."""
        return np.array([0, *self.ends[:-1]])

    @property
    def middles(self) -> np.ndarray:
        """Return examples seen by the middle of each stretch, (stages, parts)."""
        parts = self.delta.shape[1]
        share = (np.arange(parts) + 0.5) / parts
        return self.starts[:, None] + share * (self.ends - self.starts)[:, None]


def root_mean_square(values: np.ndarray) -> float:
    """Return the root of the mean square of the values that are there.

    Examples:
        >>> root_mean_square(np.array([1.0, 7.0, np.nan]))
        5.0
    """
    return float(np.sqrt(np.nanmean(np.square(values))))


def noise(run: RunResult, parts: int = 1) -> Noise:
    """Return a run's planned and measured noise, each stage cut into `parts` equal stretches.

    A stretch in which nothing was logged is NaN.
    """
    config = cast(configs.Run, config_files.from_json(run.summary["config"]))
    plan = build.stage_plan(config, run.summary["num_train"])
    ends = np.array(plan.example_ends)
    examples, variance = run.curve("train", VARIANCE)
    rates, batches = (run.curve("train", name)[1] for name in ("learning_rate", "batch_size"))
    # A row is of the step that ends at its examples; its batch lies in one stage.
    stages = np.searchsorted(ends, examples)
    starts = np.array([0, *ends[:-1]])
    position = (examples - batches / 2 - starts[stages]) / (ends - starts)[stages]
    stretches = np.minimum((position * parts).astype(int), parts - 1)
    momenta = np.array(plan.schedule.momenta)[stages]
    unit = clipjax.noise_level(rates, batches, 1.0, momentum=momenta, kind="shb_stationary")
    squares = {"delta": unit**2 * variance, "gradient_std": variance}
    found = {name: np.full((len(ends), parts), np.nan) for name in squares}
    for stage in range(len(ends)):
        for part in range(parts):
            here = (stages == stage) & (stretches == part)
            for name, values in squares.items():
                if here.any():
                    found[name][stage, part] = math.sqrt(values[here].mean())
    return Noise(ends, np.array(plan.schedule.levels), **found)


def select(grid: Grid) -> Grid:
    """Return the part of a grid that is graduated runs whose noise was measured."""

    def measured(group: Group) -> bool:
        return any(
            run.summary["config"].get("graduated") and any(VARIANCE in row for row in run.rows)
            for run in group.finished
        )

    kept = {
        task: {method: group for method, group in groups.items() if measured(group)}
        for task, groups in grid.items()
    }
    return {task: groups for task, groups in kept.items() if groups}


def constant(groups: Mapping[str, Group]) -> Group | None:
    """Return the method whose noise level is planned not to fall; None where there is none."""
    for group in groups.values():
        if set(noise(group.finished[0]).levels) == {1.0}:
            return group
    return None


# -- Tables ---------------------------------------------------------------------------------------


def section_text() -> Text:
    """Say how the numbers came about."""
    return Text(
        "The noise level δ = ηC/√b by which SGD smooths what it minimises is planned to fall from "
        "stage to stage, by the learning rate η, the batch b or both. C², the variance of one "
        "example's gradient, is measured in training from the micro-batches; δ of the first stage "
        "as measured in each run is where its plan starts. A gain is a difference of means over "
        "seeds; it is called a tie where it does not exceed √(s₁² + s₂²), the standard deviations "
        "of the two over seeds taken together."
    )


def tables(grid: Grid) -> list[Table]:
    """Return two tables for each task: what was gained, and how C changed."""
    return [
        table
        for groups in grid.values()
        for table in (outcome_table(groups), variance_table(groups))
    ]


def outcome_table(groups: Mapping[str, Group]) -> Table:
    """Return each method's score, what it gains on constant noise, and delta at the end."""
    first = next(iter(groups.values()))
    name, metric = next(iter(METRICS[first.kind].items()))
    base = constant(groups)
    rows = []
    for method, group in groups.items():
        found = [noise(run) for run in group.finished]
        steps = {int(run.summary["steps"]) for run in group.finished}
        score = group.score(name)
        spread = "" if score is None or score.spread is None else f" ± {metric.write(score.spread)}"
        rows.append(
            (
                Cell(look(method, groups).label),
                Cell("–" if score is None else metric.write(score.mean) + spread),
                Cell("" if base in (None, group) else gain(group, base, name, metric)),
                Cell(" to ".join(f"{n:,}" for n in sorted({min(steps), max(steps)}))),
                Cell(f"{found[0].levels[-1]:.3f}"),
                Cell(mean_and_spread([one.delta[-1, 0] / one.first for one in found], 3)),
            )
        )
    title = f"{first.title}: accuracy and noise" if name == "top1" else f"{first.title}: noise"
    return Table(
        title=title,
        header=(
            "method",
            metric.title,
            "gain on constant",
            "steps",
            "last δ/δ₁ planned",
            "measured",
        ),
        rows=tuple(rows),
        caption=f"Mean ± sample standard deviation over {len(first.finished)} seeds.",
    )


def variance_table(groups: Mapping[str, Group]) -> Table:
    """Return C by stage, means over seeds."""
    first = next(iter(groups.values()))
    rows = []
    for method, group in groups.items():
        values = np.array([noise(run).gradient_std[:, 0] for run in group.finished])
        cells = [Cell(f"{value:.3g}") for value in values.mean(axis=0)]
        ratio = mean_and_spread(list(values[:, -1] / values[:, 0]), 2)
        rows.append((Cell(look(method, groups).label), *cells, Cell(ratio)))
    stages = max(len(row) for row in rows) - 2
    rows = [(*row[:-1], *[Cell("–")] * (stages + 2 - len(row)), row[-1]) for row in rows]
    return Table(
        title=f"{first.title}: C by stage",
        header=("method", *(f"stage {m + 1}" for m in range(stages)), "last / first"),
        rows=tuple(rows),
        caption="Measured standard deviation of one example's gradient, mean over seeds; planned "
        "and measured δ part by these ratios.",
    )


def gain(group: Group, base: Group, name: str, metric: Metric) -> str:
    """Return the difference of two mean scores, and whether it is within the seeds' spread."""
    ours, theirs = group.score(name), base.score(name)
    if ours is None or theirs is None:
        return "–"
    difference = ours.mean - theirs.mean
    said = f"{metric.factor * difference:+.{metric.digits}f}"
    if ours.spread is None or theirs.spread is None:
        return said
    return said + (" (tie)" if abs(difference) <= math.hypot(ours.spread, theirs.spread) else "")


def mean_and_spread(values: Sequence[float], digits: int) -> str:
    """Return mean ± sample standard deviation.

    Examples:
        >>> mean_and_spread([1.0, 2.0, 3.0], 2), mean_and_spread([1.0], 2)
        ('2.00 ± 1.00', '1.00')
    """
    said = f"{statistics.fmean(values):.{digits}f}"
    return said + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")
