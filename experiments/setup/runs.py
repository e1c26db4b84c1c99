"""One run in its workdir: begun, gone on with, or left as it is where it is finished."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from clipjax.train import mesh as meshes
from clipjax.train.checkpoint import Checkpoints, Position, check_path
from clipjax.train.log import finite_or_null, scalars, write_json
from clipjax.train.loop import NonFiniteLoss, Outcome, train
from clipjax.train.state import digest
from experiments.setup import build, config_files, reading, samples
from experiments.setup import config as configs
from experiments.setup.cli import working_in
from experiments.setup.labels import plain
from experiments.setup.noise_probe import make_probe
from experiments.setup.provenance import git_commit, versions
from experiments.setup.workbench import Workbench

FREE_TO_CHANGE = (
    "duration",
    "log_every",
    "evaluate_every",
    "checkpoint_every",
    "evaluation_batch_size",
    "samples",
    "noise",
    "input_threads",
    "input_workers",
    "optimizer.label",
)
"""Fields that a resumed run may change: they leave the trajectory as it is."""


def check_resumable(old: configs.Run, new: configs.Run, workdir: Path) -> None:
    """Refuse to go on with another config in the same workdir.

    Raises:
        ValueError: naming each differing field, its old and its new value.
    """
    found = config_files.differences(old, new)
    free = FREE_TO_CHANGE
    if new.needs_duration:
        free = tuple(name for name in free if name != "duration")
    refused = {
        name: pair
        for name, pair in found.items()
        if name not in free and name.split(".")[0] not in free
    }
    if refused:
        listed = "; ".join(f"{k} was {a!r}, is {b!r}" for k, (a, b) in refused.items())
        raise ValueError(
            f"{workdir} holds a run of another config: {listed}. Use another --workdir, or the "
            f"old values. (These may change: {', '.join(free)}.)"
        )


def finished(workdir: Path, run: configs.Run) -> dict[str, Any] | None:
    """Return the summary of a run that is done already, with this very config.

    Raises:
        DamagedFile: its summary.json is not what a run writes.
    """
    path = workdir / "summary.json"
    if not path.exists():
        return None
    summary = reading.read_summary(path)
    return {**summary} if config_files.from_json(summary["config"]) == run else None


def run_one(
    run: configs.Run,
    workdir: Path,
    bench: Workbench,
    *,
    name: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Train a run in its workdir, from its newest checkpoint on if it has one.

    A run that has ended already, with this very config, is left as it is: one that finished, and
    one that diverged, since it would diverge again.

    Returns:
        What summary.json holds, be its `status` finished or diverged; None if `should_stop` ended
        the run (it is saved and can go on).

    Raises:
        ValueError: bad config, the workdir is another run's, or another process works on it;
            nothing has been written then.
    """
    check_path(workdir)
    with working_in(workdir):
        return _run_one(run, workdir, bench, name or workdir.name, should_stop)


def _run_one(
    run: configs.Run,
    workdir: Path,
    bench: Workbench,
    name: str,
    should_stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """Do `run_one` with the workdir's lock held."""
    done = finished(workdir, run)
    if done is not None:
        return done
    began = time.monotonic()
    build.check_text(run, bench.allow)
    resuming = (workdir / "config.json").exists()
    if resuming:
        check_resumable(config_files.read(workdir / "config.json"), run, workdir)
    elif (workdir / "checkpoints").exists():
        raise ValueError(f"{workdir} has checkpoints but no config.json: use another --workdir")
    data = build.make_data(run, bench.sources(run), bench.mesh)
    program, plan = bench.program(run), build.plan(run, data.num_train)
    meshes.check_divisible(data.batch_size, bench.mesh)
    example = meshes.place(next(data.calibration(1, **meshes.process())), bench.mesh)
    build.check_training(run, program, example, data.num_train, bench.allow)
    if jax.process_index() == 0:
        write_json(workdir / "config.json", config_files.to_json(run))
    position = Position(data_seed=run.seed, batch_size=run.batch_size)
    summary = {
        "status": "finished",
        "reason": None,
        "name": name,
        "task": run.task,
        "dataset": run.dataset,
        "num_train": data.num_train,
        "method": run.optimizer.name,
        "seed": run.seed,
        "device": meshes.describe(),
        "config": config_files.to_json(run),
        "class_names": list(bench.sources(run)[0].class_names),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    try:
        with Checkpoints(workdir / "checkpoints", position) as checkpoints:
            outcome = train(
                program,
                data,
                build.make_controls(run),
                plan,
                workdir=workdir,
                checkpoints=checkpoints,
                name=name,
                should_stop=should_stop,
                probe=make_probe(run, program, data),
            )
    except NonFiniteLoss as error:
        summary |= {"status": "diverged", "reason": str(error), "metrics": {}}
        summary["wall_time"] = round(time.monotonic() - began, 3)
        _write(workdir, summary)
        return summary
    if outcome.stopped:
        return None
    summary |= _results(outcome, plan.consumed(plan.steps) * data.batch_size)
    if run.noise.every is not None:
        summary["noise_probe"] = {
            "times": len(outcome.probe_times),
            "first_seconds": outcome.probe_times[0] if outcome.probe_times else 0.0,
            "seconds": round(sum(outcome.probe_times), 3),
            "share": round(outcome.probe_share, 4),
        }
    assert outcome.point is not None  # the run came to its end
    samples.write(program, outcome.point, data, run.samples, workdir / "figures" / "samples.npz")
    summary["wall_time"] = round(time.monotonic() - began, 3)
    _write(workdir, summary)
    return summary


def what_now(summary: dict[str, Any], workdir: Path) -> str:
    """Return why a run diverged and what can be done about it, with the flags to do it."""
    advice = _lower(summary["config"]["optimizer"])
    reason = summary.get("reason") or reading.NOT_FINITE
    here = plain(workdir)
    return (
        f"{plain(summary['name'])} diverged: {reason}. The same config diverges again, so this "
        f"workdir is left as it is. {advice[0]} a workdir of its own, as with --workdir "
        f"{here}_lower {advice[1]}; in a grid change the config file, delete "
        f"{here}, and the same line does what is missing"
    )


def _lower(optimizer: dict[str, Any]) -> tuple[str, str]:
    """Return what might help, and the flag to try it with."""
    if (rate := optimizer.get("learning_rate")) is not None:
        return "A lower rate needs", f"--optimizer.learning-rate {rate / 3:.3g}"
    if (rate := optimizer["rates"].get("lr")) is not None:
        return "A lower rate needs", f"--rates.lr {rate / 3:.3g}"
    return "Other values need", "--optimizer TEXT"


def _results(outcome: Outcome, examples: int) -> dict[str, Any]:
    return {
        "steps": int(outcome.state.step),
        "examples": examples,
        "metrics": finite_or_null(scalars(outcome.metrics)),
        "resumed_from": outcome.start,
        "images_per_second": round(outcome.images_per_second, 1),
        "input_wait": round(outcome.input_wait, 4),
        "compile_time": round(outcome.compile_time, 3),
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(outcome.state.params)),
        "params_digest": digest(outcome.state.params),
    }


def _write(workdir: Path, summary: dict[str, Any]) -> None:
    if jax.process_index() == 0:
        write_json(workdir / "summary.json", summary)
