"""Run the experiment from the command line."""

import argparse
import reprlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax
import tyro
from rich.console import Console

from experiments.high_probability.config import Config
from experiments.high_probability.run import run, tables
from experiments.setup import config_files
from experiments.setup.cli import (
    Command,
    explain,
    parse,
    program,
    start_jax,
    stop_on_signal,
    stopped,
    working_in,
)
from experiments.setup.labels import plain


@dataclass(frozen=True)
class HighProbabilityCommand(Command):
    """Follow the quantiles of f(x) - f* over thousands of replicas."""

    config: Path | None = None
    """A file that yields a Config of this experiment; flags change its values."""
    experiment: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)
    """The experiment, flag by flag."""


def load(path: Path) -> Config:
    """Return the `config` that a Python file yields.

    Raises:
        FileNotFoundError: no such file, with the nearest name beside it.
        ValueError: the file fails or yields something else.
    """
    config = config_files.run_file(path).get("config")
    if not isinstance(config, Config):
        raise ValueError(
            f"{path} yields config = {reprlib.repr(config)}; expected an "
            "experiments.high_probability.Config"
        )
    return config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment, print its tables and write its page."""
    from experiments.report import write_report

    arguments = sys.argv[1:] if arguments is None else arguments
    first = argparse.ArgumentParser(program(), add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    first.add_argument("--distributed", default=Command.distributed)
    early = first.parse_known_args(arguments)[0]
    # Before a config is made: it checks its methods by building them, which uses JAX.
    start_jax(Command(Path(), distributed=early.distributed))
    given = (
        {} if early.config is None else {"config": early.config, "experiment": load(early.config)}
    )
    command = parse(HighProbabilityCommand, arguments, **given)
    with working_in(command.workdir):
        summary = run(command.experiment, command.workdir, should_stop=stop_on_signal())
        if summary is None:
            return stopped(command.workdir)
        if jax.process_index() == 0:
            Console().print(*tables(summary), sep="\n")
            print(plain(write_report(command.workdir)))
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
