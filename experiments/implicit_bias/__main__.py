"""Run the experiment from the command line."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from experiments.implicit_bias.run import Config, quick, run
from experiments.setup import pace
from experiments.setup.cli import Command, explain, parse, start_jax, working_in


@dataclass(frozen=True)
class ImplicitBiasCommand(Command):
    """Follow the directions of linear models to the separator of largest margin."""

    quick: bool = False
    """Cut all numbers to what takes seconds."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line."""
    command = parse(ImplicitBiasCommand, arguments)
    start_jax(command)
    with working_in(command.workdir), pace.aloud("implicit bias"):
        config = quick(command.config) if command.quick else command.config
        run(config, command.workdir, command.data_dir)
    return 0


if __name__ == "__main__":
    sys.exit(explain(main, kept="nothing is written before the end; the same line begins again"))
