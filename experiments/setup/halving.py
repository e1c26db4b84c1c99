"""Successive halving: trials that are bad early are not trained on.

With n trials, R rungs, reduction eta and a full length of s steps, rung r = 0, ..., R - 1 trains
n_r = max(1, floor(n / eta^r)) trials up to s_r = ceil(s / eta^(R - 1 - r)) steps. The best of a
rung are trained on in the next. This is the inner loop of Hyperband (Li, Jamieson, DeSalvo,
Rostamizadeh and Talwalkar, JMLR 18, 2018, algorithm 1), counted down from the longest length. One
rung trains every trial to its end.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Rung:
    """A stage: so many trials are trained up to so many steps."""

    trials: int
    steps: int


@dataclass(frozen=True)
class Measured:
    """What a trial came to at the end of a rung.

    Attributes:
        score: larger is better; None where the trial diverged.
        loss: decides between equal scores; None where the trial diverged.
    """

    score: float | None
    loss: float | None

    @property
    def diverged(self) -> bool:
        """Return whether there is no score."""
        return self.score is None


@dataclass(frozen=True)
class Trial:
    """How far a trial came, and what it came to there.

    Attributes:
        number: from 0.
        steps: of the last rung that it took part in.
        status: whether it was trained to its end, stopped at a rung, or diverged.
        measured: at these steps.
    """

    number: int
    steps: int
    status: Literal["finished", "stopped", "diverged"]
    measured: Measured


Measure = Callable[[Sequence[int], Rung], Sequence[Measured] | None]
"""(numbers of the trials, rung) -> what they came to; None where it was told to stop."""


def make_rungs(trials: int, steps: int, *, rungs: int, reduction: int) -> list[Rung]:
    """Return the rungs of a search.

    Args:
        trials: how many begin.
        steps: of the last rung.
        rungs: how many there are.
        reduction: how many times as long the next rung is, and which share goes on.

    Raises:
        ValueError: two rungs would end at the same step.

    Examples:
        >>> make_rungs(10, 100, rungs=3, reduction=3)
        [Rung(trials=10, steps=12), Rung(trials=3, steps=34), Rung(trials=1, steps=100)]
    """
    found = [
        Rung(max(1, trials // reduction**r), math.ceil(steps / reduction ** (rungs - 1 - r)))
        for r in range(rungs)
    ]
    ends = [rung.steps for rung in found]
    if len(set(ends)) < len(ends):
        raise ValueError(
            f"{steps} steps in {rungs} rungs with a reduction of {reduction}: they would end at "
            f"{ends}; make Search.rungs smaller or the duration longer"
        )
    return found


def best_first(found: dict[int, Measured]) -> list[int]:
    """Return the trials that did not diverge: by score, then by loss, then by number.

    Examples:
        >>> made = {0: Measured(0.5, 2.0), 1: Measured(None, None), 2: Measured(0.5, 1.0)}
        >>> best_first(made)
        [2, 0]
    """

    def place(number: int) -> tuple[float, float, int]:
        measured = found[number]
        assert measured.score is not None
        loss = math.inf if measured.loss is None else measured.loss
        return -measured.score, loss, number

    return sorted((number for number in found if not found[number].diverged), key=place)


def successive_halving(
    rungs: Sequence[Rung], measure: Measure
) -> tuple[list[Trial], int | None] | None:
    """Run a search.

    Args:
        rungs: what `make_rungs` returned.
        measure: trains trials up to the end of a rung.

    Returns:
        All trials by number, and the best of the last rung, or None where none came so far. None
        if `measure` was told to stop.
    """
    trials: dict[int, Trial] = {}
    alive = list(range(rungs[0].trials))
    for rung, following in zip(rungs, [*rungs[1:], None], strict=True):
        measured = measure(alive, rung) if alive else []
        if measured is None:
            return None
        found = dict(zip(alive, measured, strict=True))
        ranked = best_first(found)
        end: Literal["finished", "stopped"] = "stopped" if following else "finished"
        for number, value in found.items():
            status = "diverged" if value.diverged else end
            trials[number] = Trial(number, rung.steps, status, value)
        # In the order of their numbers, as they are done when nothing stops them.
        alive = sorted(ranked[: following.trials]) if following else ranked
    return [trials[number] for number in sorted(trials)], alive[0] if alive else None
