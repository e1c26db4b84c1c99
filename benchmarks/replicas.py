"""Replicas x steps per second: vmap inside scan, a Python loop in JAX, and PyTorch's torch-clip.

    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch numpy tqdm
    /tmp/torch/bin/pip install --no-deps torch-clip
    .venv/bin/python -m benchmarks.replicas --torch-python /tmp/torch/bin/python

f(x) = 1/2 |x|² in 20 dimensions under Student's t(1.5) noise. Ours draws its noise as it goes, in
one compiled program over all replicas; the others run one replica, their noise drawn beforehand and
not counted. Compilation is left out of all three. Sides alternate; the fastest repeat counts.
"""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import tyro
from rich.console import Console
from rich.table import Table

import clipjax
from clipjax import problems
from experiments.high_probability import Method, replica_keys, simulate

HERE = Path(__file__).parent
METHODS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "clipped-SGD": lambda: clipjax.clipped_sgd(0.01, 10.0),
    "clipped-SSTM": lambda: clipjax.clipped_sstm(1e-3, 1.0, 0.1, step_offset=1),
}


@dataclass(frozen=True)
class Options:
    """What to time."""

    torch_python: Path | None = None
    """A Python with torch and torch-clip; without it that side is left out, and said so."""
    dimension: int = 20
    """Coordinates."""
    steps: int = 2000
    """Stochastic gradients per replica."""
    replicas: int = 2000
    """Replicas at once, for our side."""
    repeats: int = 3
    """The fastest counts."""


def ours(method: str, options: Options) -> Callable[[], float]:
    """Return a function that times all replicas and gives replica steps per second."""
    quadratic = problems.Quadratic((1.0,) * options.dimension)
    oracle = problems.AdditiveNoise(quadratic, problems.StudentT(1.5))
    methods = {method: Method(method, lambda _: METHODS[method]())}
    start = jnp.ones(options.dimension)
    keys = replica_keys(0, options.replicas)
    program = jax.jit(lambda keys: simulate(oracle, methods, start, [0, options.steps], keys))
    program = program.lower(keys).compile()

    def once() -> float:
        began = time.perf_counter()
        jax.block_until_ready(program(keys))
        return options.replicas * options.steps / (time.perf_counter() - began)

    return once


def python_loop(method: str, options: Options) -> Callable[[], float]:
    """Return the same for one replica, a compiled step in a Python loop."""
    tx = METHODS[method]()
    draw = problems.StudentT(1.5).sample
    noise = list(draw(jax.random.key(0), (options.steps, options.dimension), jnp.float32))

    @jax.jit
    def step(x, state, draw):
        updates, state = tx.update(x + draw, state, x)
        return optax.apply_updates(x, updates), state

    x0 = jnp.ones(options.dimension)
    jax.block_until_ready(step(x0, tx.init(x0), noise[0]))

    def once() -> float:
        x, state = x0, tx.init(x0)
        began = time.perf_counter()
        for draw in noise:
            x, state = step(x, state, draw)
        jax.block_until_ready(x)
        return options.steps / (time.perf_counter() - began)

    return once


def torch_loop(method: str, options: Options) -> tuple[float, str]:
    """Return the same for torch-clip, and PyTorch's version."""
    sizes = map(str, (options.dimension, options.steps, 1))
    line = [str(options.torch_python), str(HERE / "torch_replicas.py"), method, *sizes]
    found = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    return options.steps / min(found["seconds"]), found["version"]


def main() -> None:
    """Time both methods on all sides and print the table."""
    options = tyro.cli(Options)
    table = Table(title=f"replica steps per second, jax {jax.__version__}")
    columns = ("method", "ours", "Python loop, jax", "ratio", "torch-clip", "ratio")
    for name in columns:
        table.add_column(name, justify="left" if name == "method" else "right")
    for method in METHODS:
        fast, slow = ours(method, options), python_loop(method, options)
        rates: list[list[float]] = [[], [], []]
        version = ""
        for _ in range(options.repeats):
            rates[0].append(fast())
            rates[1].append(slow())
            if options.torch_python is not None:
                rate, version = torch_loop(method, options)
                rates[2].append(rate)
        best, loop = max(rates[0]), max(rates[1])
        cells = [f"{best:,.0f}", f"{loop:,.0f}", f"{best / loop:,.0f}"]
        if rates[2]:
            cells += [f"{max(rates[2]):,.0f}", f"{best / max(rates[2]):,.0f}"]
            table.caption = f"torch {version}, torch-clip; {options.replicas:,} replicas at once"
        else:
            cells += ["not run", "–"]
        table.add_row(method, *cells)
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
