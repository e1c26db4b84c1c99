"""A search in its folder: every run's trials one after another, then what was chosen."""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from clipjax import data as datasets
from clipjax.train.files import replacing
from clipjax.train.log import write_json
from experiments import compare
from experiments.setup import chosen as chosen_files
from experiments.setup import config as configs
from experiments.setup import inputs
from experiments.setup.chosen import ChosenFile
from experiments.setup.labels import plain
from experiments.setup.search import Search
from experiments.setup.workbench import Workbench
from experiments.tune.tables import in_one_line
from experiments.tune.trials import TRIALS, Job


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
        say(f"{plain(key)}: {in_one_line(method)};  about {left:.0f} s left")
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
