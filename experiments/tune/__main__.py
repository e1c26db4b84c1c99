"""Search from the command line."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
from rich.console import Console

from experiments.setup import config_files
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
from experiments.tune.run import run_search
from experiments.tune.tables import remarks, table


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
    allow_import: tuple[str, ...] = ()
    """Packages whose names the run's optimizer may say, where it is a text."""
    keep_checkpoints: bool = False
    """Keep the checkpoints of trials that are over."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Search from the command line; 1 where nothing could be chosen for a run."""
    command = parse(TuneCommand, arguments)
    search = config_files.load_search(command.config, small=command.small)
    if command.trials is not None:
        search = dataclasses.replace(search, trials=command.trials)
    start_jax(command)
    bench = Workbench(command.data_dir, command.allow_import)
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
