"""What an experiment of the lecture consists of: a computation, claims about it, and pictures."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from experiments.report.page import Part

Arrays: TypeAlias = Mapping[str, np.ndarray]
"""A result: plain arrays by name. They are all that claims and pictures are made from."""


@dataclass(frozen=True)
class Claim:
    """Something that the lecture says, or theory predicts, and what was measured of it."""

    says: str
    measured: str
    """The number with its interval, and what it is compared with."""
    confirmed: bool


@dataclass(frozen=True)
class Experiment:
    """One experiment."""

    name: str
    """What the command line, the folder and the figures call it."""
    title: str
    line: str
    """What it shows."""
    seconds: float
    """How long it takes, about, on two CPU cores."""
    config: Any
    """A frozen dataclass: the experiment at its full size."""
    quick: Any
    """Likewise, cut to what takes seconds. The phenomenon is still to be seen."""
    compute: Callable[[Any, Path | None], dict[str, np.ndarray]]
    """(config, folder of prepared data sets) -> the result."""
    judge: Callable[[Any, Arrays], list[Claim]]
    """(config, result) -> what is claimed, and whether it holds."""
    draw: Callable[[Any, Arrays], tuple[Part, ...]]
    """(config, result) -> figures and tables."""
