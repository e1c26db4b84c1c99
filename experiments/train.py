"""Train one run: `python -m experiments.train --config configs/smoke.py --workdir runs/smoke`.

Kill it at any moment; the same line goes on from the newest checkpoint, to bit-identical results.
"""

import argparse
import dataclasses
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import jax
import tyro

from clipjax.train.loop import NonFiniteLoss
from experiments.setup import config as configs
from experiments.setup import config_files, rule_flags
from experiments.setup.cli import (
    Command,
    explain,
    parse,
    program,
    start_jax,
    stop_on_signal,
    stopped,
)
from experiments.setup.labels import plain
from experiments.setup.reading import diverged
from experiments.setup.runs import run_one, what_now
from experiments.setup.workbench import Workbench


@dataclasses.dataclass(frozen=True)
class TrainCommand(Command):
    """Train one run. The config file chooses types, the flags change numbers."""

    config: Path = Path("configs/smoke.py")
    """A file that yields a Run."""
    small: bool = False
    """The file's small form: embedded data and a narrow network, minutes on a CPU."""
    optimizer: str | None = None
    """Instead of the file's, any Optax transformation as a text, as "adamw(lr, weight_decay=wd)";
    --rates.lr 3e-4 and so on are its values."""
    allow_import: tuple[str, ...] = ()
    """Packages whose names the text may say beside clipjax, optax, jax.numpy and math."""
    run: Annotated[configs.Run, tyro.conf.arg(name="")] = tyro.MISSING
    """The run, flag by flag; defaults are the file's."""


def parse_train(arguments: Sequence[str]) -> TrainCommand:
    """Return the command line of this script: the config file with the flags applied."""
    first = argparse.ArgumentParser(program(), add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path, default=TrainCommand.config)
    first.add_argument("--small", action="store_true")
    first.add_argument("--optimizer")
    known = first.parse_known_args(arguments)[0]
    path = known.config
    run = config_files.load(path, small=known.small)
    if not isinstance(run, configs.Run):
        raise ValueError(f"{path} is a grid; run it with python -m experiments.compare")
    run = rule_flags.apply(run, known.optimizer, rule_flags.rates_given(arguments))
    kind, defaults = rule_flags.with_flags(TrainCommand, run)
    arguments = rule_flags.in_short(arguments)
    return parse(kind, arguments, config=path, run=run, **defaults)


def one_line(metrics: Mapping[str, float | None]) -> str:
    """Return metrics as a line.

    Those of single classes, which may be many, are left out, and those that are not finite.

    Examples:
        >>> one_line({"mean_iou": 0.5, "iou_3": 0.25, "share_3": 0.1, "top5": 1.0})
        'mean_iou 0.5  top5 1'
    """
    single = re.compile(r"(iou|share)_\d+")
    shown = {k: v for k, v in metrics.items() if v is not None and not single.fullmatch(k)}
    return "  ".join(f"{k} {v:.4g}" for k, v in shown.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Train one run from the command line."""
    command = parse_train(sys.argv[1:] if arguments is None else arguments)
    start_jax(command)
    bench = Workbench(command.data_dir, command.allow_import)
    summary = run_one(command.run, command.workdir, bench, should_stop=stop_on_signal())
    if summary is None:
        return stopped(command.workdir)
    if diverged(summary):
        raise NonFiniteLoss(what_now(summary, command.workdir))
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
        print(plain(command.workdir / "summary.json"))
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
