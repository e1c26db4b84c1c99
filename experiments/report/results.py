"""What a grid's folder holds, read and aggregated over seeds.

    GRID/TASK/METHOD/seedK/{summary.json, metrics.jsonl, figures/samples.npz}

Nothing here draws or writes.
"""

import math
import re
import statistics
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.report.page import Cell
from experiments.setup import reading, samples
from experiments.setup.reading import RUN_AGAIN, DamagedFile, Summary

HIGH_PROBABILITY = "high_probability"
"""The folder of the heavy-tail experiment, which is no run."""

BASELINES = {"majority": "commonest class", "bicubic": "bicubic interpolation"}
"""Metrics called PREFIX_NAME say what metric NAME is without learning; how each is called."""


@dataclass(frozen=True)
class Metric:
    """How a metric is written: its name, its unit, a factor, digits behind the point."""

    label: str
    unit: str = ""
    factor: float = 1.0
    digits: int = 3

    def write(self, value: float) -> str:
        """Return the value without its unit.

        Examples:
            >>> Metric("top-1 accuracy", "%", 100, 2).write(0.97123)
            '97.12'
        """
        return f"{self.factor * value:.{self.digits}f}"

    def write_score(self, score: "Score") -> str:
        """Return mean and spread without the unit.

        Examples:
            >>> Metric("PSNR", "dB", digits=1).write_score(Score(30.0, 0.25, 3))
            '30.0 ± 0.2'
        """
        spread = "" if score.spread is None else f" ± {self.write(score.spread)}"
        return self.write(score.mean) + spread

    def cell(self, score: "Score | None", note: str = "", best: bool = False) -> Cell:
        """Return mean and spread for a table; "–" where there is no score.

        Examples:
            >>> Metric("top-1", "%", 100, 1).cell(Score(0.5, 0.25, 3))
            Cell(text='50.0 ± 25.0', note='', best=False, value=50.0, spread=25.0)
        """
        if score is None:
            return Cell("–", note)
        spread = None if score.spread is None else self.factor * score.spread
        return Cell(self.write_score(score), note, best, self.factor * score.mean, spread)

    @property
    def title(self) -> str:
        """Return name and unit, for axes and tables."""
        return f"{self.label} ({self.unit})" if self.unit else self.label


METRICS: dict[str, dict[str, Metric]] = {
    "classification": {
        "top1": Metric("top-1 accuracy", "%", 100, 2),
        "top5": Metric("top-5 accuracy", "%", 100, 2),
        "loss": Metric("cross-entropy", "nats"),
    },
    "segmentation": {
        "mean_iou": Metric("mean IoU"),
        "pixel_accuracy": Metric("pixel accuracy", "%", 100, 2),
        "loss": Metric("cross-entropy", "nats per pixel"),
    },
    "super_resolution": {
        "psnr": Metric("PSNR", "dB", digits=2),
        "loss": Metric("mean squared error", "1e-3, range 1", 1000, 2),
    },
}
"""The metrics shown for each kind of task, the one it is judged by first."""

AS_IN_PAPERS = {
    "psnr_rgb": Metric("PSNR of RGB", "dB", digits=2),
    "psnr_y": Metric("PSNR of Y", "dB", digits=2),
    "ssim_y": Metric("SSIM of Y", digits=4),
}
"""Of super-resolution; only evaluation has them, of colour pictures that are large enough."""


@dataclass(frozen=True)
class RunResult:
    """One run: a task's folder, a method's folder and a seed.

    Attributes:
        folder: the run's workdir.
        summary: its summary.json.
        rows: its metrics.jsonl.
    """

    folder: Path
    summary: Summary
    rows: Sequence[Mapping[str, Any]]

    @property
    def key(self) -> tuple[str, str]:
        """Return the names of the task's and of the method's folder."""
        return self.folder.parent.parent.name, self.folder.parent.name

    @property
    def seed(self) -> int:
        """Return the seed."""
        return int(self.summary["seed"])

    @property
    def diverged(self) -> bool:
        """Return whether training ended in a loss or in parameters that were not finite."""
        return reading.diverged(self.summary)

    def curve(self, split: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Return examples seen and values of a metric, both (points,)."""
        rows = [row for row in self.rows if row["split"] == split and metric in row]
        return (
            np.array([row["examples"] for row in rows], float),
            np.array([number(row[metric]) for row in rows], float),
        )

    def samples(self) -> dict[str, Sequence[np.ndarray]] | None:
        """Return what figures/samples.npz holds, by example; None where the run has none."""
        path = self.folder / "figures" / "samples.npz"
        if not path.exists():
            return None
        return samples.unpadded(read_arrays(path))


@dataclass(frozen=True)
class Score:
    """A final metric over the seeds of one method.

    Attributes:
        mean: over the runs that finished.
        spread: their sample standard deviation; None for a single run.
        count: how many they are.
    """

    mean: float
    spread: float | None
    count: int


@dataclass(frozen=True)
class Group:
    """All seeds of one method on one task, by seed."""

    task: str
    method: str
    runs: tuple[RunResult, ...]

    @property
    def kind(self) -> str:
        """Return classification, segmentation or super_resolution."""
        return self.runs[0].summary["task"]

    @property
    def title(self) -> str:
        """Return the task's folder, or its dataset where the folder only says the kind of task."""
        return self.runs[0].summary["dataset"] if self.task == self.kind else self.task

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return the names of the data set's classes by label; none where runs do not tell."""
        return tuple(self.runs[0].summary.get("class_names", ()))

    @property
    def finished(self) -> list[RunResult]:
        """Return the runs that did not diverge."""
        return [run for run in self.runs if not run.diverged]

    @property
    def diverged(self) -> int:
        """Return how many runs diverged."""
        return len(self.runs) - len(self.finished)

    def score(self, metric: str) -> Score | None:
        """Return mean and spread of a final metric.

        None where no run finished with it; and where one is not finite, since a mean over the
        others would be another's. Of pictures too small for a window, similarities are NaN.
        """
        metrics = [run.summary["metrics"] for run in self.finished]
        values = [number(m[metric]) for m in metrics if metric in m]
        if not values or not all(map(math.isfinite, values)):
            return None
        spread = statistics.stdev(values) if len(values) > 1 else None
        return Score(statistics.fmean(values), spread, len(values))

    def mean(self, entry: str) -> float | None:
        """Return the mean of a number in the summaries of the finished runs."""
        values = [float(run.summary[entry]) for run in self.finished if entry in run.summary]
        return statistics.fmean(values) if values else None


Grid = dict[str, dict[str, Group]]
"""Task's folder -> method's folder -> runs."""


def read_grid(workdir: Path, order: Sequence[str] = ()) -> Grid:
    """Read every run below a grid's folder.

    Args:
        workdir: the grid's folder.
        order: names of tasks and methods that come first, in this order; the rest follow by name.

    Raises:
        FileNotFoundError: if there is no such folder, or all that is wrong are missing files.
        DamagedFile: if files are damaged; both name every such file and what to do.
    """
    if not workdir.is_dir():
        raise FileNotFoundError(
            f"no folder {workdir}; run python -m experiments.compare --workdir {workdir} first"
        )
    runs: dict[tuple[str, str], list[RunResult]] = {}
    faults: list[DamagedFile | FileNotFoundError] = []
    for folder in sorted(workdir.glob("*/*/seed*")):
        if folder.is_dir() and re.fullmatch(r"seed\d+", folder.name):
            try:
                run = read_run(folder)
            except (DamagedFile, FileNotFoundError) as fault:
                faults.append(fault)
            else:
                runs.setdefault(run.key, []).append(run)
    if faults:
        damaged = any(isinstance(fault, DamagedFile) for fault in faults)
        raise (DamagedFile if damaged else FileNotFoundError)("\n".join(map(str, faults)))

    def place(name: str) -> tuple[int, str]:
        return (order.index(name) if name in order else len(order), name)

    grid: Grid = {}
    for task, method in sorted(runs, key=lambda key: (place(key[0]), place(key[1]))):
        found = sorted(runs[task, method], key=lambda run: run.seed)
        grid.setdefault(task, {})[method] = Group(task, method, tuple(found))
    return grid


def read_run(folder: Path) -> RunResult:
    """Read one run's summary.json and metrics.jsonl. Raises as `read_grid`."""
    summary = reading.read_summary(folder / "summary.json")
    cure = f"delete {folder} and run it again"
    return RunResult(folder, summary, reading.read_rows(folder / "metrics.jsonl", cure=cure))


def number(value: reading.Number) -> float:
    """Return a number of a file of results; NaN for null.

    Examples:
        >>> number(0.5), number("inf"), number(None)
        (0.5, inf, nan)
    """
    return math.nan if value is None else float(value)


_NOT_AN_ARCHIVE = (
    *(ValueError, EOFError, KeyError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)
"""What numpy and zipfile raise for bytes that are not theirs, cut, or changed."""


def read_arrays(path: Path, needed: Iterable[str] = (), cure: str = "") -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file.

    Raises:
        FileNotFoundError: if there is none.
        DamagedFile: if it is damaged, or lacks an array that is needed; both name it.
    """
    cure = cure or f"delete {path.parent} and {RUN_AGAIN}"
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            if not isinstance(arrays, np.lib.npyio.NpzFile):
                raise ValueError("one array, not several by name")
            found = dict(arrays)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; {cure}") from None
    except IsADirectoryError:
        raise DamagedFile(f"{path} is a folder, not a file; {cure}") from None
    except _NOT_AN_ARCHIVE as error:
        raise DamagedFile(f"{path} is damaged ({error}); {cure}") from error
    if missing := [name for name in needed if name not in found]:
        raise DamagedFile(f"{path} lacks {', '.join(missing)}; {cure}")
    return found


def baselines(groups: Mapping[str, Group], metric: str) -> dict[str, float]:
    """Return what `metric` is without learning, by the name of the baseline.

    Every finished run measured it on the same examples, so the first one's value is taken; one
    that is not finite was not measured.
    """
    found: dict[str, float] = {}
    for group in groups.values():
        for run in group.finished:
            for prefix, label in BASELINES.items():
                value = number(run.summary["metrics"].get(f"{prefix}_{metric}"))
                if math.isfinite(value):
                    commonest = commonest_class(group) if prefix == "majority" else None
                    found.setdefault(f"all {commonest}" if commonest else label, value)
    return found


def class_metric(group: Group, name: str) -> dict[int, Score]:
    """Return the score of a metric of single classes, `NAME_3`, by class."""
    keys = {key for run in group.finished for key in run.summary["metrics"]}
    found = (re.fullmatch(rf"{name}_(\d+)", key) for key in keys)
    scores = {int(match[1]): group.score(match[0]) for match in found if match}
    return {k: score for k, score in sorted(scores.items()) if score is not None}


def commonest_class(group: Group) -> str | None:
    """Return the name of the class with most pixels in the truth; None where runs do not tell."""
    shares = class_metric(group, "share")
    return class_name(group, max(shares, key=lambda k: shares[k].mean)) if shares else None


def class_name(group: Group, k: int) -> str:
    """Return the name of class k, or its number where it has none."""
    return group.class_names[k] if k < len(group.class_names) else f"class {k}"


def best(groups: Mapping[str, Group], name: str, metric: Metric) -> set[str]:
    """Return the methods with the best mean among those none of whose runs diverged.

    A mean over the seeds that survived says nothing about a method that ruins some of them. Means
    are compared as they are written, so that equal numbers in a table are marked alike. No method
    is the best where all are equal, or where none has more than a score of zero.

    Args:
        groups: the methods.
        name: of the metric in the summaries; of a "loss" the smallest is the best.
        metric: how it is written.
    """
    scores = {m: group.score(name) for m, group in groups.items() if not group.diverged}
    means = {m: float(metric.write(score.mean)) for m, score in scores.items() if score is not None}
    if not means:
        return set()
    target = min(means.values()) if name == "loss" else max(means.values())
    found = {m for m, mean in means.items() if mean == target}
    nothing = name != "loss" and target == 0
    return set() if nothing or len(found) == len(groups) else found


def ranked(groups: Mapping[str, Group], name: str = "") -> dict[str, Group]:
    """Return the methods by their mean of a metric, the best first.

    Behind those whose runs all finished come those of which some diverged, by the mean of the
    others, and behind these the ones without a score. Equal ones keep their order.

    Args:
        groups: the methods of one task.
        name: the metric; by default the one that the task is judged by first.
    """
    name = name or next(iter(METRICS[next(iter(groups.values())).kind]))
    sign = 1 if name == "loss" else -1

    def place(method: str) -> tuple[bool, bool, float]:
        score = groups[method].score(name)
        mean = 0.0 if score is None else sign * score.mean
        return score is None, groups[method].diverged > 0, mean

    return {method: groups[method] for method in sorted(groups, key=place)}


@dataclass(frozen=True)
class Band:
    """A curve over seeds: mean, smallest and largest value, each (points,)."""

    examples: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def band(runs: Sequence[RunResult], split: str, metric: str, max_points: int) -> Band | None:
    """Return a metric's curve over runs, at the examples where each run has a value.

    Args:
        runs: runs of one method that finished.
        split: train or evaluation.
        metric: the metric's name in metrics.jsonl.
        max_points: rows are averaged in up to this many bins of consecutive rows, which makes
            minibatch losses readable.

    Returns:
        None where no run has the metric.
    """
    curves = [dict(zip(*run.curve(split, metric), strict=True)) for run in runs]
    shared = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    if not shared:
        return None
    values = np.array([[curve[at] for at in shared] for curve in curves])
    width = math.ceil(len(shared) / max_points)
    starts = np.arange(0, len(shared), width)
    sizes = np.diff(starts, append=len(shared))
    values = np.add.reduceat(values, starts, axis=1) / sizes
    examples = np.add.reduceat(np.array(shared, float), starts) / sizes
    return Band(examples, values.mean(0), values.min(0), values.max(0))


def runs(grid: Grid) -> list[RunResult]:
    """Return all runs of a grid, in its order."""
    return [run for groups in grid.values() for group in groups.values() for run in group.runs]


def methods(grid: Grid) -> list[str]:
    """Return the methods of all tasks, in the order in which they first come."""
    return list(dict.fromkeys(method for groups in grid.values() for method in groups))
