"""Run the experiment from the command line."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from experiments.growth_networks.config import Config, small
from experiments.growth_networks.experiment import load, run
from experiments.report.files import publish
from experiments.report.growth_networks import make_page
from experiments.setup.cli import (
    Command,
    explain,
    parse,
    start_jax,
    stop_on_signal,
    stopped,
    working_in,
)


@dataclass(frozen=True)
class GrowthNetworksCommand(Command):
    """Train networks whose activation is the generalised logistic curve, all folds at once."""

    small: bool = False
    """At most 2,000 examples, 20 iterations and 1.5 % of the combinations: to see that it works."""
    config: Annotated[Config, tyro.conf.arg(name="")] = field(default_factory=Config)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment, print its tables and write its page."""
    command = parse(GrowthNetworksCommand, arguments)
    start_jax(command)
    config = small(command.config) if command.small else command.config
    with working_in(command.workdir):
        data = load(config, command.data_dir)
        summary = run(config, command.workdir, data, should_stop=stop_on_signal())
        if summary is None:
            return stopped(command.workdir)
        publish(lambda: make_page(summary), command.workdir)
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
