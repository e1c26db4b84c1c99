"""Search for good values of every method, with one budget for all.

    python -m experiments.tune --config configs/demo_tuning.py --workdir runs/demo_tuning

The config file yields a Search (`experiments.setup.search`, which also says what is fair). Trials
are scored on a part of the training split; the test split is never read. Written are

    WORKDIR/trials/TASK/METHOD.007/seed100/   a trial, a run like any other
    WORKDIR/chosen.json                       every trial's values and score, and which were chosen
    WORKDIR/chosen.py                         a config for experiments.compare: other seeds, test

All trials of a method are one after another in one process, so that those which differ in learning
rate, clip level, smoothness and seed alone share a compilation. Killed at any moment, the same line
goes on. More --trials later keep those that are done.
"""

import dataclasses
import math
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

import jax
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipjax import data as datasets
from clipjax.train.files import replacing
from clipjax.train.log import write_json
from experiments import compare
from experiments.setup import build, config_files, inputs, reading
from experiments.setup import chosen as chosen_files
from experiments.setup import config as configs
from experiments.setup.checks import nearest
from experiments.setup.chosen import ChosenFile, MethodRecord
from experiments.setup.cli import (
    Command,
    explain,
    parse,
    start_jax,
    stop_on_signal,
    stopped,
    working_in,
)
from experiments.setup.halving import Measured, Rung, successive_halving
from experiments.setup.labels import in_terminal, plain
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


def check_data(search: Search, bench: Workbench) -> None:
    """Refuse data of which nothing would be left to score trials on, before anything is trained.

    Raises:
        ValueError: the data set or the split is not there, the held-out part is empty, or the
            training split is the one that scores are reported on.
    """
    for key, run in search.runs.items():
        sizes = datasets.splits(run.dataset, bench.data_dir)
        count = sizes.get(run.train_split, 0)
        if count and round(count * (1 - search.holdout)) in (0, count):
            raise ValueError(
                f"Search.holdout is {search.holdout:g}, but {run.train_split!r} of {run.dataset!r} "
                f"has {count} examples: a part of it would be empty. Give another holdout"
            )
        own = run.evaluation_dataset in (None, run.dataset)
        if (
            own
            and run.evaluation_split is None
            and inputs.held_out(sizes, run.dataset) == (run.train_split)
        ):
            raise ValueError(
                f"{key!r} is trained on {run.train_split!r}, the very split that its scores are "
                "reported on; give another train_split or evaluation_split"
            )
        bench.sources(search.trial_runs(key)[0])


def run_search(
    search: Search,
    workdir: Path,
    bench: Workbench,
    *,
    only: Sequence[str] = (),
    keep_checkpoints: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = print,
) -> ChosenFile | None:
    """Do every trial that is not done yet; write chosen.json and chosen.py.

    Args:
        search: what to search.
        workdir: where.
        bench: what runs share.
        only: words; runs whose key contains one of them are searched. What was found for the
            others before is kept.
        keep_checkpoints: keep those of trials that are over.
        should_stop: asked between two steps.
        say: prints a line.

    Returns:
        What chosen.json holds; None if stopped.

    Raises:
        ValueError: values do not go together, or as `check_data` and `Job.run`.
    """
    selected = compare.select(configs.Grid(search.runs), only).runs
    for key in search.runs:
        search.trial_runs(key)
    check_data(search, bench)
    methods, began = {}, time.monotonic()
    for number, key in enumerate(selected, 1):
        job = Job(search, key, workdir / TRIALS, bench, should_stop=should_stop, say=say)
        method = job.run()
        if method is None:
            return None
        methods[key] = method
        if not keep_checkpoints and jax.process_index() == 0:
            _remove_checkpoints(job)
        left = (time.monotonic() - began) / number * (len(selected) - number)
        say(f"{plain(key)}: {_best(method)};  about {left:.0f} s left")
    for key in search.runs:
        if key not in selected:
            method = Job(search, key, workdir / TRIALS, bench, train=False).run()
            methods |= {} if method is None else {key: method}
    found: ChosenFile = {
        "holdout": search.holdout,
        "sequence": search.sequence,
        "sequence_seed": search.sequence_seed,
        "methods": {key: methods[key] for key in search.runs if key in methods},
        "not_searched": [key for key in search.runs if key not in methods],
    }
    if jax.process_index() == 0:
        write_chosen(found, workdir)
    return found


def _remove_checkpoints(job: Job) -> None:
    """Remove the checkpoints of trials that are over: of a large network they fill a disk.

    A trial that is wanted again after all is trained from its start, to the same values.
    """
    for number in range(job.search.trials):
        for seed in job.search.seeds:
            folder = job.folder / f"{job.key}.{number:03d}" / f"seed{seed}" / "checkpoints"
            if folder.exists():
                shutil.rmtree(folder)


def write_chosen(found: ChosenFile, workdir: Path) -> None:
    """Write chosen.json and, where anything was chosen, chosen.py."""
    write_json(workdir / "chosen.json", found)
    text = chosen_files.config_text(found)
    if text is None:
        (workdir / "chosen.py").unlink(missing_ok=True)
        return
    with replacing(workdir / "chosen.py") as file:
        file.write(text.encode())


def _best(method: MethodRecord) -> str:
    """Return what was chosen, in a line."""
    count = len(method["trials"])
    if method["chosen"] is None:
        return f"all of {count} trials diverged"
    best = method["trials"][method["chosen"]]
    values = ", ".join(chosen_files.write(best["values"]))
    return f"{values}   {method['metric']} {best['score']:.4f}"


def table(found: ChosenFile) -> Table:
    """Return a terminal table: what was chosen for each run, and its neighbours.

    Neighbours are the trials with the next lower and next higher value of the first number that was
    searched, usually the learning rate; other values differ, too. Those that were stopped early
    have no score that could be compared.
    """
    shown = Table(box=None)
    for name in ("run", "chosen", "score", "next lower", "next higher"):
        shown.add_column(name, no_wrap=True)
    for key, method in found["methods"].items():
        lost = sum(trial["status"] == "diverged" for trial in method["trials"])
        said = [f"{lost} of {len(method['trials'])} diverged"] if lost else []
        if method["chosen"] is None:
            shown.add_row(in_terminal(key), "nothing", said[0], "–", "–")
            continue
        best = method["trials"][method["chosen"]]
        shown.add_row(
            in_terminal(key),
            _lines(chosen_files.write(best["values"])),
            _lines([f"{method['metric']} {best['score']:.4f}", *said]),
            *map(_write_neighbour, chosen_files.neighbours(method)),
        )
    return shown


def _lines(lines: Sequence[str]) -> Text:
    return Text("\n").join(map(in_terminal, lines))


def _write_neighbour(pair: chosen_files.Neighbour) -> str:
    if pair is None:
        return "–"
    value, trial = pair
    finished = trial["status"] == "finished" and trial["score"] is not None
    return f"{value:g}: {trial['score']:.4f}" if finished else f"{value:g}: {trial['status']}"


def remarks(found: ChosenFile) -> list[str]:
    """Return what a user should know of a search: nothing chosen, or values at an edge."""
    said = []
    for key, method in found["methods"].items():
        if method["chosen"] is None:
            said.append(
                f"{plain(key)}: nothing chosen, every trial that was left diverged; search it in "
                "another space, such as lower learning rates"
            )
        for path, side in chosen_files.at_the_edge(method).items():
            said.append(
                f"{plain(key)}: the chosen {path} is the {side} that was tried; a wider space may "
                "hold better values"
            )
    return said


@dataclass(frozen=True)
class TuneCommand(Command):
    """Search for good values; called again, do what is missing."""

    config: Path = Path("configs/demo_tuning.py")
    """A file that yields a Search."""
    small: bool = False
    """The file's small form."""
    only: tuple[str, ...] = ()
    """Words; runs whose key (task/method) contains one of them."""
    trials: int | None = None
    """Instead of the search's."""
    keep_checkpoints: bool = False
    """Keep the checkpoints of trials that are over."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Search from the command line; 1 where nothing could be chosen for a run."""
    command = parse(TuneCommand, arguments)
    search = config_files.load_search(command.config, small=command.small)
    if command.trials is not None:
        search = dataclasses.replace(search, trials=command.trials)
    start_jax(command)
    bench = Workbench(command.data_dir)
    with working_in(command.workdir):
        found = run_search(
            search,
            command.workdir,
            bench,
            only=command.only,
            keep_checkpoints=command.keep_checkpoints,
            should_stop=stop_on_signal(),
        )
    if found is None:
        return stopped(command.workdir)
    if jax.process_index() == 0:
        Console().print(table(found))
        for line in remarks(found):
            print(line, file=sys.stderr)
        written = (command.workdir / name for name in ("chosen.json", "chosen.py"))
        for path in written:
            if path.exists():
                print(plain(path))
    return int(any(method["chosen"] is None for method in found["methods"].values()))


if __name__ == "__main__":
    sys.exit(explain(main))
