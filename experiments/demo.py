"""The main job on embedded real data: `make demo`.

Four methods x three tasks x three seeds, and the heavy-tail picture, then one page that shows them:
runs/demo/report.html. Called again, it does what is missing.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from experiments import high_probability, report
from experiments.compare import load_grid, run_grid
from experiments.setup.cli import (
    Command,
    explain,
    parse,
    start_jax,
    stop_on_signal,
    stopped,
    working_in,
)
from experiments.setup.labels import plain
from experiments.setup.workbench import Workbench

CONFIG = Path(__file__).parent.parent / "configs" / "demo.py"


@dataclass(frozen=True)
class DemoCommand(Command):
    """Do the main job on embedded real data, and write one page that shows it."""

    config: Path = CONFIG
    """The grid to run."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the whole demo."""
    command = parse(DemoCommand, arguments)
    began = time.monotonic()
    grid = load_grid(command.config)
    start_jax(command)
    bench = Workbench(command.data_dir)
    with working_in(command.workdir):
        print("1/3  three vision tasks, four methods, three seeds", flush=True)
        if run_grid(grid, command.workdir, bench, should_stop=stop_on_signal()) is None:
            return stopped(command.workdir)
        print("2/3  heavy-tailed noise, 2,000 replicas at once", flush=True)
        tails = command.workdir / "high_probability"
        stop = stop_on_signal()
        if high_probability.run(high_probability.Config(), tails, should_stop=stop) is None:
            return stopped(command.workdir)
        print("3/3  the report", flush=True)
        page = report.write_report(command.workdir)
        report.show(command.workdir, Console())
    print(f"\nThe demo took {time.monotonic() - began:.0f} s. Open {plain(page)}")
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
