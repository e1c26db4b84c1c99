"""Large batches put together, or added up from micro-batches: images/s of both, in one run.

    .venv/bin/python -m benchmarks.growing_batches

A graduated run takes a batch of k micro-batches either as k gradients that are added up (the
default: compiled once, and the variance C² comes with it) or as one batch of k times the size
(`Graduated(whole_batches=True)`: compiled once for each size). Both from the host's arrays to the
updated parameters, as in the training loop; alternating, the fastest of several repeats.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.timing import seconds
from clipjax import models, tasks
from clipjax.train import mesh as meshes
from clipjax.train.step import Program, controls, step

CASES: dict[str, tuple[Any, tuple[int, ...], int]] = {
    # name: (model, image, classes)
    "MLP 784-128-10": (models.MLP(10, hidden=(128,)), (28, 28, 1), 10),
    "ResNet-18, width 8, 8x8": (models.ResNet18(10, width=8, stem="small"), (8, 8, 1), 10),
    "ResNet, width 16, 32x32": (
        models.ResNet18(100, width=16, stage_sizes=(1, 1, 1)),
        (32, 32, 3),
        100,
    ),
}


def stepper(name: str, micro_batch: int, parts: int, whole: bool) -> Callable[[], None]:
    """Return a function that takes one step on `parts` micro-batches, in one of the two forms."""
    model, image, classes = CASES[name]
    rng = np.random.default_rng(0)
    batches = [
        {
            "image": rng.integers(0, 256, (micro_batch, *image), dtype=np.uint8),
            "label": rng.integers(0, classes, micro_batch).astype(np.int32),
            "mask": np.ones(micro_batch, np.float32),
        }
        for _ in range(parts)
    ]
    mesh, channels = meshes.make_mesh(), image[-1]
    program = Program(
        model=model,
        task=tasks.Classification(classes, (0.5,) * channels, (0.25,) * channels),
        optimizer=lambda rates: optax.with_extra_args_support(optax.sgd(rates["learning_rate"])),
        evaluation_params=lambda _, params: params,
        step_metrics=lambda *_: {},
        mesh=mesh,
    )
    given = controls(0, {"learning_rate": 0.01})
    state = program.init(given, meshes.place(batches[0], mesh))

    def run() -> None:
        nonlocal state
        group = batches
        if whole:
            group = [{key: np.concatenate([part[key] for part in group]) for key in group[0]}]
        state, metrics = step(program, state, [meshes.place(b, mesh) for b in group], given)
        jax.block_until_ready((state, metrics))

    return run


def main(
    names: tuple[str, ...] = tuple(CASES),
    micro_batch: int = 32,
    parts: tuple[int, ...] = (2, 4, 16),
    repeats: int = 30,
) -> None:
    """Measure and print.

    Args:
        names: networks.
        micro_batch: examples in a micro-batch.
        parts: micro-batches in a batch.
        repeats: of each measurement.
    """
    table = Table(title=f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    table.add_column("network")
    for column in ("batch", "added up", "whole", "whole / added up"):
        table.add_column(column, justify="right")
    for name in names:
        for count in parts:
            runs = [stepper(name, micro_batch, count, whole) for whole in (False, True)]
            added, whole = seconds(runs, repeats)
            examples = micro_batch * count
            table.add_row(
                name,
                f"{count} x {micro_batch}",
                f"{examples / added:,.0f}/s",
                f"{examples / whole:,.0f}/s",
                f"{added / whole:.2f}",
            )
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
