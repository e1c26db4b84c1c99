"""Something measured along the way, every so often, that leaves training as it is."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from clipjax.train.log import scalars
from clipjax.train.state import TrainState


@dataclass(frozen=True)
class Probe:
    """What is measured, and when.

    Attributes:
        split: the `split` of its rows in metrics.jsonl.
        every: how often, in optimizer steps of the first stage, as in `Plan`.
        measure: the state after a step -> numbers. It must keep no reference to the state, whose
            buffers the next step takes over. Called on every host.

    Examples:
        >>> probe = Probe("size", 10, lambda state: {"steps": state.step + 1})
        >>> row = probe.row(TrainState(jax.numpy.int32(9), {}, (), {}), 9, 90)
        >>> {name: row[name] for name in ("split", "step", "examples", "steps")}
        {'split': 'size', 'step': 9, 'examples': 90, 'steps': 10.0}
    """

    split: str
    every: int
    measure: Callable[[TrainState], Mapping[str, Any]]

    def row(self, state: TrainState, step: int, examples: int) -> dict[str, Any]:
        """Return a row of metrics.jsonl: the numbers and the `seconds` they took.

        JSON has no infinity, so what is not finite is written as text, such as "inf".
        """
        jax.block_until_ready(state)  # the step's time is not the probe's
        began = time.monotonic()
        found = scalars(self.measure(state))
        seconds = round(time.monotonic() - began, 4)
        head = {"split": self.split, "step": step, "examples": examples}
        shown = {name: v if math.isfinite(v) else str(v) for name, v in found.items()}
        return head | shown | {"seconds": seconds}
