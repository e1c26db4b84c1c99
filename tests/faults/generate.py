"""Wrong inputs by number: command lines, paths, config files, files of runs, prepared and raw data.

`generate(seed)` yields cases without end. Case n is a function of (seed, n) alone, so a failure's
two numbers are enough to see it again: `python -m tests.faults.drive SEED NUMBER`.
"""

import itertools
import random
from collections.abc import Callable, Iterator

from tests.faults import command_lines, config_files, damaged_files
from tests.faults.cases import Case

KINDS: dict[Callable[[random.Random], Case], int] = {
    command_lines.wrong_flag: 30,
    command_lines.wrong_path: 12,
    command_lines.wrong_text: 10,
    config_files.broken_config: 12,
    config_files.wrong_config: 8,
    config_files.wrong_config_path: 4,
    config_files.wrong_search: 5,
    damaged_files.run_json: 12,
    damaged_files.checkpoint: 4,
    damaged_files.grid: 4,
    damaged_files.search: 4,
    damaged_files.tail: 6,
    damaged_files.prepared: 8,
    damaged_files.raw: 14,
    damaged_files.dataset: 5,
    damaged_files.rows: 6,
}
"""How to make a case of each kind, and how often that is done."""


def generate(seed: int) -> Iterator[Case]:
    """Yield cases without end."""
    return (make(seed, number) for number in itertools.count())


def make(seed: int, number: int) -> Case:
    """Return case `number` of a seed."""
    draw = random.Random(f"{seed}/{number}")
    kinds, weights = zip(*KINDS.items(), strict=True)
    return draw.choices(kinds, weights)[0](draw)
