"""How soon runs reach a score on held-out examples: steps, examples and seconds.

A run reaches its task's target at its first evaluation whose score is at least the target; what
lies between two evaluations is not seen. Nothing here draws.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clipjax import analysis
from experiments.report.results import METRICS, Grid, Group, Metric, RunResult, number
from experiments.setup.checks import nearest, shown

UNITS = ("steps", "examples", "seconds")
MAX_RATIO = 4.0
"""A time above so many times the fastest counts as not reached in profiles, as in AlgoPerf."""


@dataclass(frozen=True)
class Target:
    """A score to reach.

    Attributes:
        name: of the metric in metrics.jsonl, the first of its kind of task; more is better.
        metric: how it is written.
        value: the score; inf where no run has any.
        given: whether it was set by the user, not found from the runs.
    """

    name: str
    metric: Metric
    value: float
    given: bool

    @property
    def title(self) -> str:
        """Return the target in words.

        Examples:
            >>> Target("top1", Metric("top-1 accuracy", "%", 100, 2), 0.95, True).title
            'top-1 accuracy of 95.00 %'
        """
        value = self.metric.write(self.value) if math.isfinite(self.value) else "–"
        return f"{self.metric.label} of {value} {self.metric.unit}".strip()


def read_targets(pairs: Sequence[str], grid: Grid) -> dict[str, float]:
    """Return task's folder -> target of TASK=VALUE pairs.

    A task is named by its folder or by its title on the page; values are as in metrics.jsonl.

    Raises:
        ValueError: a pair is none, names no task or a task twice, or its value is no finite number.
    """
    titles = {task: next(iter(groups.values())).title for task, groups in grid.items()}
    found: dict[str, float] = {}
    for pair in pairs:
        name, equals, text = pair.rpartition("=")
        if not equals:
            raise ValueError(f"--targets {shown(pair)} is no pair; expected TASK=VALUE")
        tasks = [task for task, title in titles.items() if name in (task, title)]
        if not tasks:
            raise ValueError(
                f"--targets {pair}: no task is called {name!r}; "
                + nearest(name, {*titles, *titles.values()})
            )
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"--targets {pair}: {text!r} is no score; expected a finite number")
        if twice := [task for task in tasks if task in found]:
            raise ValueError(f"--targets {pair}: the task {twice[0]!r} has a target already")
        found |= dict.fromkeys(tasks, value)
    return found


def targets(grid: Grid, given: Mapping[str, float]) -> dict[str, Target]:
    """Return the target of each task: the one given, or what half of its runs reach.

    The second is the best score that at least half of the task's runs have at some evaluation,
    diverged runs among them. Such a target depends on the runs that it judges.
    """
    found = {}
    for task, groups in grid.items():
        runs = [run for group in groups.values() for run in group.runs]
        name, metric = next(iter(METRICS[runs[0].summary["task"]].items()))
        value = given.get(task)
        if value is None:
            best = sorted((_best(run, name) for run in runs), reverse=True)
            value = best[math.ceil(len(best) / 2) - 1]
            value = value if math.isfinite(value) else math.inf
        found[task] = Target(name, metric, value, task in given)
    return found


def _best(run: RunResult, name: str) -> float:
    values = run.curve("evaluation", name)[1]
    return float(np.max(values[np.isfinite(values)], initial=-math.inf))


def reached(run: RunResult, target: Target) -> dict[str, float]:
    """Return when a run first reaches the target, by unit; inf where it never does.

    Seconds are the examples up to then, divided by the images per second that the run had measured
    by then: compilation and time before an interruption are left out, evaluations are in. NaN where
    no row says how fast the run was.
    """
    for row in run.rows:
        value = number(row.get(target.name)) if row["split"] == "evaluation" else math.nan
        if math.isfinite(value) and value >= target.value:
            examples = float(row["examples"])
            seconds = examples / _rate(run, row["step"])
            return dict(zip(UNITS, (float(row["step"]), examples, seconds), strict=True))
    return dict.fromkeys(UNITS, math.inf)


def _rate(run: RunResult, step: int) -> float:
    """Return the images per second measured up to a step; NaN where nothing tells."""
    rates = [
        number(row.get("images_per_second"))
        for row in run.rows
        if row["split"] == "train" and row["step"] <= step
    ]
    known = [rate for rate in rates if math.isfinite(rate) and rate > 0]
    return known[-1] if known else math.nan


def medians(group: Group, target: Target) -> dict[str, float]:
    """Return the median over a method's seeds of each unit; inf for not reached, NaN for unknown.

    The median of an even number of seeds is infinite if one of the middle two is.
    """
    times = [reached(run, target) for run in group.runs]
    found = {}
    for unit in UNITS:
        values = np.array([time[unit] for time in times])
        unknown = np.isnan(values).any() or (values <= 0).any()
        found[unit] = math.nan if unknown else analysis.workload_times(values[None, None]).item()
    return found


def ratios(grid: Grid, found: Mapping[str, Target], unit: str) -> np.ndarray | None:
    """Return the ratios of all methods' times to the fastest, (methods, tasks); inf: not reached.

    Tasks are the workloads, seeds the studies, each of one trial. A method that has no runs on a
    task does not reach its target.

    Returns:
        None where the times of a method are not known.
    """
    times = unit_times(grid, found, unit)
    return None if times is None else analysis.performance_ratios(times, max_ratio=MAX_RATIO)


def scores(grid: Grid, found: Mapping[str, Target], unit: str) -> np.ndarray | None:
    """Return the AlgoPerf score of each method, (methods,); None as of `ratios`."""
    times = unit_times(grid, found, unit)
    return None if times is None else analysis.benchmark_score(times, max_ratio=MAX_RATIO)


def unit_times(grid: Grid, found: Mapping[str, Target], unit: str) -> np.ndarray | None:
    """Return the medians of all methods, (methods, tasks), inf: not reached; None as `ratios`."""
    times = np.full((len(methods(grid)), len(grid)), np.inf)
    for i, method in enumerate(methods(grid)):
        for j, (task, groups) in enumerate(grid.items()):
            if method in groups:
                times[i, j] = medians(groups[method], found[task])[unit]
    return None if np.isnan(times).any() else times


def methods(grid: Grid) -> list[str]:
    """Return the names of all methods, in the grid's order."""
    return list(dict.fromkeys(method for groups in grid.values() for method in groups))
