"""What measuring C² in training costs, as a share of the micro-step, in one run.

    .venv/bin/python -m benchmarks.gradient_variance

A micro-step is the gradient of one micro-batch and the call of
`accumulate_gradients(optax.sgd(..., momentum=0.9), 4)`, compiled as one function, with and without
`measure_gradient_variance` around it; four of them are one outer step. Alternating, the minimum of
several repeats.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.table import Table

import clipjax
from benchmarks.timing import seconds
from clipjax import models

EVERY = 4


def outer_step(
    model: nn.Module, batch: tuple[jax.Array, jax.Array], measure: bool
) -> tuple[Callable[[], None], int]:
    """Return a function that takes one outer step, and the number of parameters."""
    images, labels = batch
    tx: Any = clipjax.accumulate_gradients(optax.sgd(0.01, momentum=0.9), EVERY)
    if measure:
        tx = clipjax.measure_gradient_variance(tx, len(images))
    variables = model.init(jax.random.key(0), images, train=False)

    def loss(params):
        variables_now = {**variables, "params": params}
        logits, _ = model.apply(variables_now, images, train=True, mutable=["batch_stats"])
        losses = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(losses)

    def micro_step(params, state):
        updates, state = tx.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(micro_step, donate_argnums=(0, 1))
    carry = (jax.tree.map(jnp.copy, variables["params"]), tx.init(variables["params"]))
    size = sum(leaf.size for leaf in jax.tree.leaves(carry[0]))

    def run() -> None:
        nonlocal carry
        for _ in range(EVERY):
            carry = compiled(*carry)
        jax.block_until_ready(carry)

    return run, size


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    cases = (
        ("ResNet-18, width 8, digits 8x8", models.ResNet18(10, width=8, stem="small"), 8, 64, 40),
        ("MLP 784-2048-2048-10", models.MLP(10, hidden=(2048, 2048)), 28, 64, 40),
        ("MLP 784-2048-2048-10", models.MLP(10, hidden=(2048, 2048)), 28, 512, 10),
    )
    table = Table(title=f"jax {jax.__version__}, {jax.devices()[0].device_kind}")
    for column in ("network", "micro-batch", "parameters", "micro-step", "C² adds"):
        table.add_column(column)
    for name, model, side, batch_size, repeats in cases:
        images = jnp.asarray(rng.normal(size=(batch_size, side, side, 1)), jnp.float32)
        batch = images, jnp.asarray(rng.integers(0, 10, batch_size))
        (plain, size), (measured, _) = (outer_step(model, batch, m) for m in (False, True))
        without, with_it = seconds([plain, measured], repeats)
        table.add_row(
            name,
            str(batch_size),
            f"{size:,}",
            f"{1e3 * without / EVERY:.2f} ms",
            f"{100 * (with_it / without - 1):.1f} %",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
