"""Prepare a data set: `python -m experiments.prepare --dataset cifar100`.

Raw files are downloaded where their source is public, or taken from --raw-dir; without either it
says which file to put where. What is prepared already is left as it is; killed half-way, nothing
is left that looks complete.
"""

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import track

from clipjax import data
from experiments.setup.cli import explain

SHOWN = 10
"""Left-out examples that are printed; skipped.txt has all."""


@dataclass(frozen=True)
class PrepareCommand:
    """Prepare a data set into ArrayRecord, once."""

    dataset: str
    """A name known to clipjax.data; image_folder/NAME, segmentation_folder/NAME and
    super_resolution_folder/NAME for data of your own."""
    raw_dir: Path | None = None
    """The folder of the raw files; downloaded where left out and the source is public."""
    data_dir: Path | None = None
    """Prepared datasets; the user's cache by default."""
    skip_damaged: bool = False
    """Leave out examples that cannot be used, name and count them."""
    verify: bool = True
    """Compare known archives with their published SHA-256."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepare one data set from the command line."""
    command = tyro.cli(PrepareCommand, args=arguments)
    with contextlib.ExitStack() as stack:
        # Bound to a copy of stderr: while TFDS prepares, its own bars are silenced.
        stream = stack.enter_context(os.fdopen(os.dup(sys.stderr.fileno()), "w"))
        console = Console(file=stream)

        def progress(items: Sequence[Any], what: str) -> Iterator[Any]:
            yield from track(items, what, console=console)

        folder = data.prepare(
            command.dataset,
            command.data_dir,
            raw_dir=command.raw_dir,
            skip_damaged=command.skip_damaged,
            verify=command.verify,
            progress=progress,
        )
    counts = data.splits(command.dataset, command.data_dir)
    print(folder)
    print(", ".join(f"{split} {count}" for split, count in counts.items()))
    skipped = folder / "skipped.txt"
    if skipped.exists():
        lines = skipped.read_text(encoding="utf-8").splitlines()
        print(f"{len(lines)} examples left out ({skipped}):", *lines[:SHOWN], sep="\n  ")
    return 0


if __name__ == "__main__":
    kept = "nothing half-made is left; the same line begins again, with what is downloaded already"
    sys.exit(explain(main, kept=kept))
