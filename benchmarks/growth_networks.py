"""Network steps per second of 784-10-10-10: all at once, one at a time, and in a Python loop.

    .venv/bin/python -m benchmarks.growth_networks
    .venv/bin/python -m benchmarks.growth_networks --whole-epoch    # minutes
    .venv/bin/python -m benchmarks.growth_networks --whole-run      # a quarter of an hour

A network step is one step of SGD on a batch of 25 for one network. "All at once" is the program of
`experiments.growth_networks` over 5 folds x 75 combinations (the search) and 5 folds x 2 (default
and best); "one at a time" is the same compiled program for a single network, "Python loop" a
compiled step of a single network that Python calls for each batch. Images are made up, in MNIST's
numbers: 60,000 of 28 x 28, of which 48,000 are trained on, 1,920 batches an epoch. Compilation is
left out. Sides alternate; the fastest repeat counts.

The last column says how long the source's experiment takes at that pace: one epoch of the 375, a
thousand of the 10. The evaluations between are not in it; with --whole-epoch the search's epoch is
run from beginning to end, with the order of its batches and its evaluation, and with --whole-run so
are the thousand epochs.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.timing import seconds
from experiments.growth_networks import Arm
from experiments.growth_networks.config import rate_table, settings
from experiments.growth_networks.networks import Setting, sgd_step
from experiments.growth_networks.simulate import (
    Data,
    Groups,
    advance,
    epoch_order,
    evaluate,
    make_groups,
    start,
)
from experiments.setup import pace

SIZES = (784, 10, 10, 10)
BATCH = 25
CASES = {"search: 5 folds x 75": (75, 1), "comparison: 5 folds x 2": (2, 1000)}
"""Networks a fold, and the epochs that they are trained."""


@dataclass(frozen=True)
class Options:
    """What to time."""

    examples: int = 60_000
    """For training and validation."""
    steps: int = 100
    """Steps of all networks at once that are timed."""
    single_steps: int = 2000
    """Steps of a single network, compiled as a whole or in a Python loop."""
    repeats: int = 3
    """The fastest counts."""
    whole_epoch: bool = False
    """Also train the 375 networks for one epoch, and evaluate them."""
    whole_run: bool = False
    """Also train the 10 networks for their 1,000 epochs, and evaluate them after each."""


def made_up(options: Options) -> Data:
    """Return noise in the shape of MNIST."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (options.examples, SIZES[0]), np.uint8)
    return Data(images, draw.integers(0, 10, options.examples, np.int32), options.examples, 10)


class Side:
    """Some networks on some folds, ready to make steps with the program of the experiment."""

    def __init__(self, data: Data, groups: Groups, networks: int):
        arms = [Arm("", 0.01, 0.001 * i, 1 - 0.001 * i, 1 + 0.01 * i) for i in range(networks)]
        self.settings = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), settings(arms))
        self.rates = jnp.asarray(rate_table(arms, 1), jnp.float32)
        self.params = start(groups, self.settings, SIZES)
        self.images, self.labels = jnp.asarray(data.images), jnp.asarray(data.labels)
        self.groups, self.order = groups, epoch_order(groups, 0)
        self.count = len(groups.keys) * networks
        self.per_epoch = self.order.shape[1] // BATCH

    def make(self, steps: int) -> None:
        """Make some steps and wait for them."""
        for first in range(0, steps, self.per_epoch):
            last = min(steps - first, self.per_epoch)
            self.params = advance(
                self.params,
                self.settings,
                self.rates,
                self.images,
                self.labels,
                self.order,
                0,
                last,
                0,
                0,
                batch_size=BATCH,
            )
        jax.block_until_ready(self.params)

    def whole_epochs(self, count: int) -> float:
        """Return the seconds of epochs with their order and evaluation, compiled before."""
        self.make(1)
        member = self.groups.member
        arguments = self.settings, self.rates[0], self.images, self.labels, member
        jax.block_until_ready(evaluate(self.params, *arguments))
        began = time.perf_counter()
        for epoch in range(1, count + 1):
            self.order = epoch_order(self.groups, epoch)
            self.make(self.per_epoch)
            jax.block_until_ready(evaluate(self.params, *arguments))
        return time.perf_counter() - began


def python_loop(side: Side, keep: Callable = lambda params: None) -> Callable[[int], None]:
    """Return a function that makes steps of the first network of a side, one call a step.

    Args:
        side: whose weights it begins with.
        keep: gets the weights at the end.
    """
    params = jax.tree.map(lambda leaf: leaf[0, 0], side.params)
    setting = Setting(*(value[0] for value in side.settings))
    images, labels = np.asarray(side.images), np.asarray(side.labels)
    order, rate = np.asarray(side.order)[0], side.rates[0, 0]

    @jax.jit
    def step(params, images, labels):
        return sgd_step(params, setting, rate, images.astype(jnp.float32) / 255, labels)

    def make(steps: int) -> None:
        found = params
        for number in range(steps):
            place = number % side.per_epoch * BATCH
            rows = order[place : place + BATCH]
            found = step(found, images[rows], labels[rows])
        keep(jax.block_until_ready(found))

    return make


def main(options: Options) -> None:
    """Time the three sides and print the table."""
    data = made_up(options)
    folds = make_groups(data, (0,), 5)
    one = Side(data, jax.tree.map(lambda leaf: leaf[:1], folds), 1)
    loop = python_loop(one)
    many = [Side(data, folds, networks) for networks, _ in CASES.values()]
    runs = [
        *(lambda side=side: side.make(options.steps) for side in many),
        lambda: one.make(options.single_steps),
        lambda: loop(options.single_steps),
    ]
    *together, single, looped = seconds(runs, options.repeats)
    alone, python = options.single_steps / single, options.single_steps / looped
    table = Table(title=f"network steps per second, jax {jax.__version__}")
    columns = (
        "networks",
        "all at once",
        "one at a time",
        "ratio",
        "Python loop",
        "ratio",
        "epochs",
    )
    for name in columns:
        table.add_column(name, justify="left" if name == "networks" else "right")
    for (name, (_, epochs)), side, spent in zip(CASES.items(), many, together, strict=True):
        rate = side.count * options.steps / spent
        cells = [f"{rate:,.0f}", f"{alone:,.0f}", f"{rate / alone:.1f}"]
        cells += [f"{python:,.0f}", f"{rate / python:.1f}"]
        total = epochs * side.per_epoch * spent / options.steps
        table.add_row(name, *cells, f"{epochs:,} in {pace.words(total)}")
    Console(width=120).print(table)
    if options.whole_epoch:
        spent = many[0].whole_epochs(1)
        print(f"one epoch of {many[0].count} networks with its evaluation: {pace.words(spent)}")
    if options.whole_run:
        *_, (_, epochs) = CASES.values()
        spent = many[-1].whole_epochs(epochs)
        print(
            f"{epochs:,} epochs of {many[-1].count} networks with their evaluations: "
            f"{pace.words(spent)}"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
