"""What a step costs where there is nothing to compute: 10 parameters, in a scan and in a loop.

    .venv/bin/python -m benchmarks.dispatch

f(x) = |x|²/2 on 10 parameters, so that the gradient is x. Under `lax.scan` a step costs what the
compiled optimizer costs; in a Python loop, one call of a jitted, donated step each, it costs what
JAX takes to start a program with that many arrays of state. Every optimizer is timed once a round,
one after the other; the fastest round counts.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro
from rich.console import Console
from rich.table import Table

import clipjax

YARDSTICK = "optax clip, sgd momentum"


def optimizers() -> dict[str, optax.GradientTransformation]:
    """Return ours and Optax's; the gradient's norm is above the level at first, below later."""
    clip = optax.clip_by_global_norm(1.0)
    return {
        YARDSTICK: optax.chain(clip, optax.sgd(1e-3, momentum=0.9)),
        "optax sgd momentum": optax.sgd(1e-3, momentum=0.9),
        "optax adam": optax.adam(1e-3),
        "optax clip, adam": optax.chain(clip, optax.adam(1e-3)),
        "clipped_sgd, momentum": clipjax.clipped_sgd(1e-3, 1.0, momentum=0.9),
        "clipped_sgd, momentum, no clipping": clipjax.clipped_sgd(1e-3, None, momentum=0.9),
        "clipped_sstm": clipjax.clipped_sstm(1e-3, 1.0, 1.0),
        "clipped_sstm, no clipping": clipjax.clipped_sstm(1e-3, 1.0, None),
        "clip_by_quantile, optax sgd momentum": optax.chain(
            clipjax.clip_by_quantile(0.9, window=100), optax.sgd(1e-3, momentum=0.9)
        ),
        "clip_by_zscore, optax sgd momentum": optax.chain(
            clipjax.clip_by_zscore(), optax.sgd(1e-3, momentum=0.9)
        ),
    }


def runners(
    tx: optax.GradientTransformation, scanned: int, looped: int
) -> tuple[Callable[[], float], Callable[[], float], int]:
    """Return functions that time `scanned` steps in a scan and `looped` in a loop, and the arrays.

    The functions return steps a second; the number is that of the arrays in parameters and state.
    """

    def step(carry: Any) -> Any:
        params, state = carry
        updates, state = tx.update(params, state, params)
        return optax.apply_updates(params, updates), state

    def start() -> Any:
        params = jnp.linspace(-3.0, 3.0, 10)
        return params, tx.init(params)

    @jax.jit
    def scan(carry: Any) -> Any:
        return jax.lax.scan(lambda c, _: (step(c), None), carry, length=scanned)[0]

    jitted = jax.jit(step, donate_argnums=0)

    def in_scan() -> float:
        carry = jax.block_until_ready(start())
        began = time.perf_counter()
        jax.block_until_ready(scan(carry))
        return scanned / (time.perf_counter() - began)

    def in_loop() -> float:
        carry = jax.block_until_ready(start())
        began = time.perf_counter()
        for _ in range(looped):
            carry = jitted(carry)
        jax.block_until_ready(carry)
        return looped / (time.perf_counter() - began)

    return in_scan, in_loop, len(jax.tree.leaves(start()))


def main(scanned: int = 100_000, looped: int = 2_000, rounds: int = 9) -> None:
    """Measure and print.

    Args:
        scanned: steps in a scan.
        looped: steps in a Python loop.
        rounds: how often each is timed, after once to compile.
    """
    measured = {name: runners(tx, scanned, looped) for name, tx in optimizers().items()}
    speeds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in measured}
    for _ in range(rounds + 1):
        for name, (in_scan, in_loop, _) in measured.items():
            speeds[name][0].append(in_scan())
            speeds[name][1].append(in_loop())
    best = {name: (max(scan[1:]), max(loop[1:])) for name, (scan, loop) in speeds.items()}
    device = jax.devices()[0].device_kind
    table = Table("optimizer", title=f"steps/s, 10 parameters; {device}, jax {jax.__version__}")
    for column in ("arrays", "in lax.scan", "ratio", "in a loop", "ratio"):
        table.add_column(column, justify="right")
    for name, (scan, loop) in best.items():
        ratios = scan / best[YARDSTICK][0], loop / best[YARDSTICK][1]
        table.add_row(
            name,
            str(measured[name][2]),
            f"{scan:,.0f}",
            f"{ratios[0]:.2f}",
            f"{loop:,.0f}",
            f"{ratios[1]:.2f}",
        )
    console = Console(width=100, highlight=False)
    console.print(table)
    console.print(f"fastest of {rounds} rounds; ratios to {YARDSTICK}, from this run")


if __name__ == "__main__":
    tyro.cli(main)
