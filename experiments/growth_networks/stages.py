"""A training run of many networks that can be killed at any moment: its state lies in one file.

WORKDIR/state/NAME.state holds the weights of all networks, how many steps they have seen, and what
was measured on the way. It is written whole, a few times a minute and when the run is stopped. A
file that was damaged, or comes from elsewhere, is not read, and the stage begins again
(`experiments.setup.checked_files`).

Where a run is cut changes no number: the batches are a function of (seed, fold, epoch), and one
program does any number of steps.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from clipjax.train.files import remove_leftovers
from clipjax.train.log import ProgressLine
from experiments.growth_networks.config import Arm, Reading, rate_table, settings
from experiments.growth_networks.networks import Params
from experiments.growth_networks.simulate import (
    Data,
    Groups,
    advance,
    epoch_order,
    evaluate,
    start,
)
from experiments.setup import pace
from experiments.setup.checked_files import (
    check_same,
    read_arrays,
    read_plan,
    text,
    write_arrays,
    write_plan,
)

SAVE_SECONDS = 20.0
"""Between two writings of the state."""
PIECE_SECONDS = 2.0
"""About how long the program runs before it is asked whether to stop."""


@dataclass(frozen=True)
class Stage:
    """What is trained.

    Attributes:
        name: of its file.
        arms: the networks of each group.
        groups: folds of seeds.
        reading: what an iteration is.
        times: iterations that are evaluated, the last one the last.
        hidden: units of the hidden layers.
        batch_size: examples of a batch.
    """

    name: str
    arms: Sequence[Arm]
    groups: Groups
    reading: Reading
    times: Sequence[int]
    hidden: tuple[int, ...]
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """Return the batches of an epoch; a rest too small for a batch is left out of it."""
        return self.groups.train.shape[1] // self.batch_size

    def step_of(self, iteration: int) -> int:
        """Return the number of steps after an iteration."""
        return iteration * (self.steps_per_epoch if self.reading == "epochs" else 1)


@dataclass(frozen=True)
class State:
    """Where a stage is: steps done, weights, what was measured (times, ...), seconds it took."""

    step: int
    params: Params
    measured: list[np.ndarray]
    seconds: float


class Folder:
    """The states of one experiment, in WORKDIR/state.

    Args:
        workdir: the experiment's folder.
        identity: the experiment, as JSON values; kept beside the states.

    Raises:
        ValueError: if the folder holds states of another one.
    """

    def __init__(self, workdir: Path, identity: Mapping[str, Any]):
        self.path = workdir / "state"
        self._identity = json.loads(json.dumps(identity))
        remove_leftovers(self.path)
        plan = self.path / "plan.json"
        if plan.exists():
            check_same(read_plan(plan, "identity")["identity"], self._identity, self.path, "states")
        else:
            write_plan(plan, {"identity": self._identity})

    def _file(self, stage: Stage) -> Path:
        return self.path / f"{stage.name}.state"

    def _place(self, stage: Stage) -> bytes:
        arms = [vars(arm) for arm in stage.arms]
        return text({**self._identity, "stage": stage.name, "arms": arms})

    def write(self, stage: Stage, state: State) -> None:
        """Write a stage's state; the weights only if there is something left to do."""
        done = len(state.measured) == len(stage.times)
        leaves = [] if done else jax.tree.leaves(state.params)
        arrays: dict[str, Any] = {f"leaf{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
        arrays |= {"measured": np.array(state.measured), "step": state.step}
        arrays["seconds"] = state.seconds
        write_arrays(self._file(stage), self._place(stage), arrays, compressed=False)

    def read(self, stage: Stage) -> State | None:
        """Return a stage's state; None where there is none, or it is damaged, which is said."""
        arrays = read_arrays(self._file(stage), self._place(stage), again="begun again")
        if arrays is None:
            return None
        leaves = [jnp.asarray(arrays[f"leaf{i}"]) for i in range(len(arrays) - 3)]
        params = tuple(zip(leaves[::2], leaves[1::2], strict=True))
        measured = list(arrays["measured"])
        return State(int(arrays["step"]), params, measured, float(arrays["seconds"]))


def run(
    stage: Stage,
    data: Data,
    folder: Folder,
    should_stop: Callable[[], bool] = lambda: False,
) -> State | None:
    """Train a stage to its end, from where its file says it is.

    Args:
        stage: what is trained.
        data: on what.
        folder: where its state lies.
        should_stop: asked every few seconds.

    Returns:
        Its last state, whose `measured` has for each of its times an array
        (splits, 2, groups, arms) as of `simulate.evaluate`; None if stopped.
    """
    total = stage.step_of(stage.times[-1])
    state = folder.read(stage)
    if state is not None and len(state.measured) == len(stage.times):
        return state
    sizes = (data.images.shape[1], *stage.hidden, data.classes)
    if state is None:
        state = State(0, start(stage.groups, settings(stage.arms), sizes), [], 0.0)
    machine = _Machine(stage, data)
    networks = len(stage.arms) * len(stage.groups.keys)
    saved = time.monotonic()
    with ProgressLine(stage.name, total, state.step) as line:
        while len(state.measured) < len(stage.times):
            with pace.telling(line.say, f"{stage.name}, {networks} networks"):
                state, rate = machine.go_on(state)
            done = len(state.measured) == len(stage.times)
            line.update(state.step, f"{rate:,.0f} network steps/s")
            stop = not done and should_stop()
            if done or stop or time.monotonic() - saved > SAVE_SECONDS:
                folder.write(stage, state)
                saved = time.monotonic()
            if stop:
                return None
    return state


class _Machine:
    """The compiled programs of a stage with their data, and the order of the present epoch."""

    def __init__(self, stage: Stage, data: Data):
        self._stage = stage
        self._images, self._labels = jnp.asarray(data.images), jnp.asarray(data.labels)
        dtype = jnp.zeros(()).dtype
        table = rate_table(stage.arms, stage.times[-1])
        self._rates = jnp.asarray(table, dtype)
        self._settings = jax.tree.map(lambda x: jnp.asarray(x, dtype), settings(stage.arms))
        self._epoch, self._order = -1, jnp.zeros(0)
        self._piece = 1

    def go_on(self, state: State) -> tuple[State, float]:
        """Return the state some steps later, evaluated where it should be, and the pace."""
        stage, began = self._stage, time.monotonic()
        epoch, first = divmod(state.step, stage.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(stage.groups, epoch)
        record = stage.step_of(stage.times[len(state.measured)])
        last = min(first + self._piece, stage.steps_per_epoch, first + record - state.step)
        in_steps = stage.reading == "steps"
        params = advance(
            state.params,
            self._settings,
            self._rates,
            self._images,
            self._labels,
            self._order,
            first,
            last,
            state.step if in_steps else epoch,
            int(in_steps),
            batch_size=stage.batch_size,
        )
        jax.block_until_ready(params)
        spent = time.monotonic() - began
        count = last - first
        self._piece = int(min(max(1, count * PIECE_SECONDS / spent), 4 * self._piece))
        step, measured = state.step + count, state.measured
        if step == record:
            measured = [*measured, self._measure(params, stage.times[len(measured)])]
        networks = len(stage.arms) * len(stage.groups.keys)
        seconds = state.seconds + time.monotonic() - began
        return State(step, params, measured, seconds), networks * count / spent

    def _measure(self, params: Params, iteration: int) -> np.ndarray:
        rate = self._rates[iteration - 1]
        member = self._stage.groups.member
        found = evaluate(params, self._settings, rate, self._images, self._labels, member)
        return np.asarray(found)
