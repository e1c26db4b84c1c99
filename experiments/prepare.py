"""Prepare a data set: `python -m experiments.prepare --dataset cifar100`.

Raw files are downloaded where their source is public, or taken from --raw-dir; without either it
says which file to put where. What is prepared already is left as it is, and it says so; killed
half-way, nothing is left that looks complete. While another process prepares the same set, it ends
and names that one.
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
from experiments.setup.cli import REGISTRY, explain, program
from experiments.setup.labels import plain

SHOWN = 10
"""Lines that are printed of skipped.txt and turned.txt."""


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
    with REGISTRY:
        command = tyro.cli(PrepareCommand, prog=program(), args=arguments)
    with contextlib.ExitStack() as stack:
        # Bound to a copy of stderr: while TFDS prepares, its own bars are silenced.
        stream = stack.enter_context(os.fdopen(os.dup(sys.stderr.fileno()), "w"))
        console = Console(file=stream)

        def progress(items: Sequence[Any], what: str) -> Iterator[Any]:
            yield from track(items, what, console=console)

        already = data.is_prepared(command.dataset, command.data_dir)
        prepared = data.prepare(
            command.dataset,
            command.data_dir,
            raw_dir=command.raw_dir,
            skip_damaged=command.skip_damaged,
            verify=command.verify,
            progress=progress,
            wait=False,
        )
    counts = data.splits(command.dataset, command.data_dir)
    print(plain(prepared))
    if already:
        unused = f"; {plain(command.raw_dir)} was not looked at" if command.raw_dir else ""
        print(f"was there already{unused}. Delete that folder to have it prepared again")
    print(", ".join(f"{split} {count}" for split, count in counts.items()))
    _show_list(
        prepared / "turned.txt", "pictures and masks turned upright, as their EXIF data asks"
    )
    _show_list(prepared / "skipped.txt", "examples left out")
    return 0


def _show_list(file: Path, what: str) -> None:
    if file.exists():
        lines = file.read_text(encoding="utf-8").splitlines()
        print(f"{len(lines)} {what} ({plain(file)}):", *map(plain, lines[:SHOWN]), sep="\n  ")


if __name__ == "__main__":
    kept = "nothing half-made is left; the same line begins again, with what is downloaded already"
    sys.exit(explain(main, kept=kept))
