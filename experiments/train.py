"""Train one run: `python -m experiments.train --config configs/smoke.py --workdir runs/smoke`.

Kill it at any moment; the same line goes on from the newest checkpoint, to bit-identical results.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax
import tyro

from clipjax.train import mesh as meshes
from clipjax.train.checkpoint import Checkpoints, Position
from clipjax.train.log import scalars, write_json
from clipjax.train.loop import NonFiniteLoss, Outcome, train
from clipjax.train.state import digest
from clipjax.train.step import Program
from experiments import build, samples
from experiments import config as configs
from experiments.noise_probe import make_probe

T = TypeVar("T")

EXIT_STOPPED = 75
"""EX_TEMPFAIL: stopped by SIGTERM after saving; the same line goes on."""

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
)
"""Fields that a resumed run may change: they leave the trajectory as it is."""


class Workbench:
    """What runs in one process share: devices, decoded data and compiled programs."""

    def __init__(self, data_dir: Path | None = None):
        self.mesh = meshes.make_mesh()
        self._data_dir = data_dir
        self._sources: dict[Any, build.Sources] = {}
        self._programs: dict[Any, Program] = {}

    def sources(self, run: configs.Run) -> build.Sources:
        """Return the records of a run's splits, loaded once."""
        key = run.dataset, run.train_split, run.evaluation_dataset, run.evaluation_split
        if key not in self._sources:
            self._sources[key] = build.load_sources(run, self._data_dir)
        return self._sources[key]

    def program(self, run: configs.Run) -> Program:
        """Return a run's compiled functions, shared by runs that differ in seed and rates alone."""
        sources = self.sources(run)
        key = build.program_key(run, len(sources[0]))
        if key not in self._programs:
            self._programs[key] = build.make_program(run, sources, self.mesh)
        return self._programs[key]


def check_resumable(old: configs.Run, new: configs.Run, workdir: Path) -> None:
    """Refuse to go on with another config in the same workdir.

    Raises:
        ValueError: naming each differing field, its old and its new value.
    """
    found = configs.differences(old, new)
    free = FREE_TO_CHANGE
    if new.schedule.kind != "constant" or new.graduated is not None:
        # These are spread over the whole duration.
        free = tuple(name for name in free if name != "duration")
    refused = {name: pair for name, pair in found.items() if name.split(".")[0] not in free}
    if refused:
        listed = "; ".join(f"{k} was {a!r}, is {b!r}" for k, (a, b) in refused.items())
        raise ValueError(
            f"{workdir} holds a run of another config: {listed}. Use another --workdir, or the "
            f"old values. (These may change: {', '.join(free)}.)"
        )


def finished(workdir: Path, run: configs.Run) -> dict[str, Any] | None:
    """Return the summary of a run that is done already, with this very config."""
    path = workdir / "summary.json"
    if not path.exists():
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it to run again") from error
    return summary if configs.from_json(summary["config"]) == run else None


def run_one(
    run: configs.Run,
    workdir: Path,
    bench: Workbench,
    *,
    name: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Train a run in its workdir, from its newest checkpoint on if it has one.

    A run that is finished already is left as it is.

    Returns:
        What summary.json holds; None if `should_stop` ended it (it is saved and can go on).

    Raises:
        ValueError: bad config, or the workdir is another run's; nothing has been written then.
        NonFiniteLoss: the run diverged; summary.json says so.
    """
    done = finished(workdir, run)
    if done is not None and done["status"] == "finished":
        return done
    began = time.monotonic()
    resuming = (workdir / "config.json").exists()
    if resuming:
        check_resumable(configs.read(workdir / "config.json"), run, workdir)
    elif (workdir / "checkpoints").exists():
        raise ValueError(f"{workdir} has checkpoints but no config.json: use another --workdir")
    data = build.make_data(run, bench.sources(run), bench.mesh)
    program, plan = bench.program(run), build.plan(run, data.num_train)
    meshes.check_divisible(data.batch_size, bench.mesh)
    if jax.process_index() == 0:
        write_json(workdir / "config.json", configs.to_json(run))
    position = Position(data_seed=run.seed, batch_size=run.batch_size)
    summary = {
        "status": "finished",
        "reason": None,
        "name": name or workdir.name,
        "task": run.task,
        "dataset": run.dataset,
        "num_train": data.num_train,
        "method": run.optimizer.name,
        "seed": run.seed,
        "device": meshes.describe(),
        "config": configs.to_json(run),
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
                name=name or workdir.name,
                should_stop=should_stop,
                probe=make_probe(run, program, data),
            )
    except NonFiniteLoss as error:
        summary |= {"status": "diverged", "reason": str(error), "metrics": {}}
        _write(workdir, summary | {"wall_time": time.monotonic() - began})
        raise
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


def _results(outcome: Outcome, examples: int) -> dict[str, Any]:
    return {
        "steps": int(outcome.state.step),
        "examples": examples,
        "metrics": scalars(outcome.metrics),
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


def one_line(metrics: Mapping[str, float]) -> str:
    """Return metrics as a line; those of single classes, which may be many, are left out.

    Examples:
        >>> one_line({"mean_iou": 0.5, "iou_3": 0.25, "share_3": 0.1, "top5": 1.0})
        'mean_iou 0.5  top5 1'
    """
    single = re.compile(r"(iou|share)_\d+")
    return "  ".join(f"{k} {v:.4g}" for k, v in metrics.items() if not single.fullmatch(k))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers."""
    names = ("clipjax", "jax", "jaxlib", "optax", "flax", "orbax-checkpoint", "grain", "numpy")
    return {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in names}


def git_commit() -> str | None:
    """Return the checkout's commit, with '+' if files differ from it; None outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def enable_compilation_cache() -> None:
    """Keep compiled programs in $CLIPJAX_CACHE_DIR/xla (default ~/.cache/clipjax/xla)."""
    root = os.environ.get("CLIPJAX_CACHE_DIR") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "clipjax"
    )
    jax.config.update("jax_compilation_cache_dir", str(Path(root, "xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def stop_on_sigterm() -> Callable[[], bool]:
    """Return a function that tells whether SIGTERM came. With several hosts JAX listens itself."""
    came = threading.Event()
    if jax.process_count() == 1:
        signal.signal(signal.SIGTERM, lambda *_: came.set())
    return came.is_set


@dataclasses.dataclass(frozen=True)
class Command:
    """Where to work. Shared by all scripts."""

    workdir: Path
    """Where results go."""
    data_dir: Path | None = None
    """Prepared datasets; the user's cache by default."""
    distributed: Literal["auto", "off"] = "auto"
    """'auto' joins the other hosts of a pod or cluster."""


@dataclasses.dataclass(frozen=True)
class TrainCommand(Command):
    """Train one run. The config file chooses types, the flags change numbers."""

    config: Path = Path("configs/smoke.py")
    """A file that yields a Run."""
    small: bool = False
    """The file's small form: embedded data and a narrow network, minutes on a CPU."""
    run: Annotated[configs.Run, tyro.conf.arg(name="")] = tyro.MISSING
    """The run, flag by flag; defaults are the file's."""


def parse(kind: type[T], arguments: Sequence[str] | None, **defaults: Any) -> T:
    """Return the command line of a script; `defaults` stand in for flags that are not given."""
    return tyro.cli(
        kind,
        default=kind(**({"workdir": tyro.MISSING} | defaults)),
        args=arguments,
        config=(tyro.conf.AvoidSubcommands,),
    )


def parse_train(arguments: Sequence[str]) -> TrainCommand:
    """Return the command line of this script: the config file with the flags applied."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path, default=TrainCommand.config)
    first.add_argument("--small", action="store_true")
    known = first.parse_known_args(arguments)[0]
    path = known.config
    run = configs.load(path, small=known.small)
    if not isinstance(run, configs.Run):
        raise ValueError(f"{path} is a grid; run it with python -m experiments.compare")
    return parse(TrainCommand, arguments, config=path, run=run)


def start_jax(command: Command) -> None:
    """Join the other hosts, then point JAX to the compile cache; before any other use of JAX."""
    heartbeat = int(os.environ.get("CLIPJAX_HEARTBEAT_SECONDS", "100"))
    meshes.initialize(command.distributed, heartbeat_timeout_seconds=heartbeat)
    enable_compilation_cache()


def explain(main: Callable[[], int]) -> int:
    """Run a main function; errors that name their cure are printed without a traceback."""
    try:
        return main()
    except (ValueError, FileNotFoundError, NonFiniteLoss) as error:
        if os.environ.get("CLIPJAX_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        print("(CLIPJAX_TRACEBACK=1 shows where)", file=sys.stderr)
        return 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one run from the command line."""
    command = parse_train(sys.argv[1:] if arguments is None else arguments)
    start_jax(command)
    bench = Workbench(command.data_dir)
    summary = run_one(command.run, command.workdir, bench, should_stop=stop_on_sigterm())
    if summary is None:
        print(f"stopped and saved; the same line goes on ({command.workdir})", file=sys.stderr)
        return EXIT_STOPPED
    if jax.process_index() == 0:
        shown = one_line(summary["metrics"])
        print(f"{summary['steps']} steps in {summary['wall_time']:.1f} s  {shown}")
        if "noise_probe" in summary:
            cost = summary["noise_probe"]
            print(
                f"noise probe: {cost['times']} times, {cost['seconds']:.1f} s, of which "
                f"{cost['first_seconds']:.1f} s the first; {cost['share']:.1%} of training's time"
            )
        print(f"params_digest {summary['params_digest']}")
        print(f"{command.workdir / 'summary.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
