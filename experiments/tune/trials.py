"""The trials of one run: trained rung by rung, or read where they are there already."""

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import jax

from clipjax.train.log import write_json
from experiments import compare
from experiments.setup import build, config_files, reading
from experiments.setup import chosen as chosen_files
from experiments.setup import config as configs
from experiments.setup.checks import nearest
from experiments.setup.chosen import MethodRecord
from experiments.setup.halving import Measured, Rung, successive_halving
from experiments.setup.runs import check_resumable, finished
from experiments.setup.search import Search
from experiments.setup.workbench import Workbench

TRIALS = "trials"
"""The folder of the trials; reports of a grid do not look into it."""

RUNGS = "rungs.json"
"""In a trial's folder, steps -> what it came to there: its summary.json is of the last rung."""


class Entry(TypedDict):
    """What a trial with one seed came to at the end of a rung."""

    status: Literal["finished", "diverged"]
    metrics: dict[str, reading.Number]


class RungsFile(TypedDict):
    """rungs.json."""

    at: dict[str, Entry]


@dataclass(frozen=True)
class Job:
    """The search for one run's values, and where it is done.

    Attributes:
        search: what to search.
        key: 'task/method'.
        folder: of all trials.
        bench: what runs share.
        train: whether to train what is missing; else it is only read what is there.
        should_stop: asked between two steps.
        say: prints a line.
    """

    search: Search
    key: str
    folder: Path
    bench: Workbench
    train: bool = True
    should_stop: Callable[[], bool] = lambda: False
    say: Callable[[str], None] = print

    def run(self) -> MethodRecord | None:
        """Return what was found; None where it was told to stop, or may not train what is missing.

        Raises:
            ValueError: trials in the folder are of another search, or lack the metric.
        """
        runs = self.search.trial_runs(self.key)
        metric = self.search.metric or compare.PRIMARY[runs[0].task]
        num_train = len(self.bench.sources(runs[0])[0])
        rungs = self.search.stages(self.key, build.plan(runs[0], num_train).steps)

        def measure(numbers: Sequence[int], rung: Rung) -> list[Measured] | None:
            chosen = {f"{self.key}.{number:03d}": runs[number] for number in numbers}
            if rung != rungs[-1]:
                short = configs.Duration(steps=rung.steps)
                chosen = {k: dataclasses.replace(run, duration=short) for k, run in chosen.items()}
            entries = self._entries(configs.Grid(chosen, self.search.seeds), rung, rungs)
            if entries is None:
                return None
            return [
                _measured([entries[f"{k}/seed{seed}"] for seed in self.search.seeds], metric)
                for k in chosen
            ]

        found = successive_halving(rungs, measure)
        if found is None:
            return None
        return chosen_files.record(self.search, self.key, metric, rungs, *found)

    def _entries(
        self, grid: configs.Grid, rung: Rung, rungs: Sequence[Rung]
    ) -> dict[str, Entry] | None:
        """Return folder -> what each run of a rung came to; train what has not come so far."""
        runs = compare.expand(grid)
        known = {f: self._known(self.folder / f, run, rung) for f, run in runs.items()}
        missing = {folder.rpartition("/")[0] for folder, entry in known.items() if entry is None}
        if missing and not self.train:
            return None
        if missing:
            left = {key: run for key, run in grid.runs.items() if key in missing}
            stage = f"rung {rungs.index(rung) + 1} of {len(rungs)} " if len(rungs) > 1 else ""
            summaries = compare.run_grid(
                dataclasses.replace(grid, runs=left),
                self.folder,
                self.bench,
                should_stop=self.should_stop,
                say=lambda line: self.say(f"{stage}{line}"),
            )
            if summaries is None:
                return None
            trained = compare.expand(dataclasses.replace(grid, runs=left))
            known |= dict(zip(trained, map(_entry, summaries), strict=True))
        entries = {folder: entry for folder, entry in known.items() if entry is not None}
        if rung != rungs[-1]:
            self._keep(entries, rung)
        return entries

    def _known(self, folder: Path, run: configs.Run, rung: Rung) -> Entry | None:
        """Return what a run came to at the end of a rung; None where it has not come so far."""
        if not (folder / "config.json").exists():
            return None
        before = config_files.read(folder / "config.json")
        check_resumable(before, run, folder)
        entry = _read_rungs(folder).get(str(rung.steps))
        if entry is not None:
            return entry
        num_train = len(self.bench.sources(run)[0])
        if build.plan(before, num_train).steps > rung.steps:
            raise ValueError(
                f"{folder} was trained for more than {rung.steps} steps, in a search of other "
                "rungs or durations: use another --workdir, or the old ones"
            )
        summary = finished(folder, run)
        return None if summary is None else _entry(summary)

    def _keep(self, entries: Mapping[str, Entry], rung: Rung) -> None:
        """Write what runs came to where they may be trained on, which writes summaries anew."""
        for name, entry in entries.items():
            before = _read_rungs(self.folder / name)
            after = {**before, str(rung.steps): entry}
            if after != before and self.train and jax.process_index() == 0:
                write_json(self.folder / name / RUNGS, {"at": after})


def _read_rungs(folder: Path) -> dict[str, Entry]:
    path = folder / RUNGS
    if not path.exists():
        return {}
    cure = f"delete {folder} and run the same line again"
    return reading.read_json(path, RungsFile, missing="", cure=cure, nan=False)["at"]


def _entry(summary: Mapping) -> Entry:
    if reading.diverged(summary):
        return {"status": "diverged", "metrics": {}}
    return {"status": "finished", "metrics": dict(summary["metrics"])}


def _measured(entries: Sequence[Entry], metric: str) -> Measured:
    """Return the mean over seeds; a trial of which one seed diverged has diverged.

    Raises:
        ValueError: there is no such metric.
    """
    scores, losses = [], []
    for entry in entries:
        if entry["status"] == "diverged":
            return Measured(None, None)
        if metric not in entry["metrics"]:
            raise ValueError(
                f"Search.metric is {metric!r}, which no evaluation measures; "
                f"{nearest(metric, entry['metrics'])}"
            )
        scores.append(entry["metrics"][metric])
        losses.append(entry["metrics"]["loss"])
    if not all(value is not None and math.isfinite(float(value)) for value in scores + losses):
        return Measured(None, None)
    score = statistics.fmean(map(float, scores))
    better = -score if metric in chosen_files.LESS_IS_BETTER else score
    return Measured(better, statistics.fmean(map(float, losses)))
