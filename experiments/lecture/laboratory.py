"""Runs experiments and keeps what they computed.

WORKDIR/NAME/plan.json says which experiment and config the folder belongs to,
WORKDIR/NAME/result.arrays holds what was computed. What is there is not computed again; a damaged
file is. Claims, figures and the page are made anew each time.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipjax.train.log import write_json
from experiments.lecture.experiment import Arrays, Claim, Experiment
from experiments.report.lecture.page import Shown, make_page
from experiments.report.page import Page
from experiments.setup import config_files, reading
from experiments.setup.checked_files import (
    check_same,
    read_arrays,
    read_plan,
    text,
    write_arrays,
    write_plan,
)
from experiments.setup.checks import shown
from experiments.setup.provenance import git_commit, versions

SECONDS = "seconds"
"""The array that says how long the computation took."""


@dataclass(frozen=True)
class Done:
    """An experiment that was computed."""

    experiment: Experiment
    config: Any
    arrays: Arrays
    seconds: float

    @property
    def claims(self) -> list[Claim]:
        """Return what is claimed, and whether it holds."""
        return self.experiment.judge(self.config, self.arrays)


def run(experiment: Experiment, config: Any, workdir: Path, data_dir: Path | None) -> Done:
    """Return an experiment's result: the one in its folder, else computed and kept there.

    Args:
        experiment: what to run.
        config: of its type.
        workdir: folders of experiments are made here.
        data_dir: prepared data sets.

    Raises:
        ValueError: the folder holds the result of another config.
    """
    folder = workdir / experiment.name
    plan = {"experiment": experiment.name, "config": config_files.to_json(config)}
    if (folder / "plan.json").exists():
        check_same(read_plan(folder / "plan.json", *plan), plan, folder, "a result")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        write_plan(folder / "plan.json", plan)
    done = _read(experiment, config, folder, plan)
    if done is None:
        began = time.perf_counter()
        arrays = experiment.compute(config, data_dir)
        seconds = time.perf_counter() - began
        write_arrays(folder / "result.arrays", text(plan), {**arrays, SECONDS: np.asarray(seconds)})
        done = Done(experiment, config, arrays, seconds)
    write_json(folder / "summary.json", summary(done))
    return done


def summary(done: Done) -> dict[str, Any]:
    """Return what summary.json says of an experiment."""
    return {
        "status": "finished",
        "name": done.experiment.name,
        "seconds": done.seconds,
        "claims": [vars(claim) for claim in done.claims],
        "config": config_files.to_json(done.config),
        "versions": versions(),
        "git_commit": git_commit(),
    }


def find_done(experiments: Iterable[Experiment], workdir: Path) -> list[Done]:
    """Return the experiments that were computed in a workdir, whatever their configs."""
    found = []
    for experiment in experiments:
        folder = workdir / experiment.name
        if not (folder / "plan.json").exists():
            continue
        plan = read_plan(folder / "plan.json", "experiment", "config")
        cure = f"delete {folder} to begin again"
        config = reading.structure(
            plan["config"], type(experiment.config), str(folder / "plan.json"), cure
        )
        if (done := _read(experiment, config, folder, plan)) is not None:
            found.append(done)
    return found


def page(done: Iterable[Done]) -> Page:
    """Return the page of experiments; call it while the figures' style is set."""
    return make_page(
        [
            Shown(
                name=one.experiment.name,
                title=one.experiment.title,
                line=one.experiment.line,
                seconds=one.seconds,
                changed=_changed(one),
                claims=[(c.says, c.measured, c.confirmed) for c in one.claims],
                parts=one.experiment.draw(one.config, one.arrays),
            )
            for one in done
        ]
    )


def _read(experiment: Experiment, config: Any, folder: Path, plan: Any) -> Done | None:
    arrays = read_arrays(folder / "result.arrays", text(plan), again="it is computed again")
    if arrays is None:
        return None
    seconds = float(arrays.pop(SECONDS))
    return Done(experiment, config, arrays, seconds)


def _changed(done: Done) -> str:
    """Return in words how the config differs from the experiment at its full size."""
    full = config_files.to_json(done.experiment.config)
    used = config_files.to_json(done.config)
    return "; ".join(
        f"{key} is {shown(used[key])} instead of {shown(full[key])}"
        for key in used
        if used[key] != full[key]
    )
