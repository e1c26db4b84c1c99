"""What an optimizer's step costs by itself, in time and memory, beside its peers in the same run.

    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch numpy tqdm
    /tmp/torch/bin/pip install --no-deps torch-clip
    .venv/bin/python -m benchmarks.optimizer_step --torch-python /tmp/torch/bin/python

A step is `tx.update` and `optax.apply_updates`, jitted, parameters and state donated, on a gradient
that is clipped, at ResNet-18's parameter shapes and at 100 M parameters. Every optimizer is stepped
for the same time in each round, one after the other, so that what else the machine does falls on
all of them. On a machine that does much else the least time says more than the median.

The yardstick is a jitted, donated elementwise pass over the same shapes, which reads and writes
every parameter once: 8 bytes. A step that takes r times as long moves as much as 8r bytes a
parameter would ("B/param"). At the least, clipped SSTM moves 24 in two passes (the norm reads g;
the step reads g, x, z and writes x, z), and 32 where x and z are written by separate loops, as XLA
does on CPU.

The script is the same on an accelerator; --chain more steps between two looks at the clock there,
so that what the host does to start a step is hidden.
"""

import dataclasses
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
import tyro
from rich.console import Console
from rich.table import Table

import clipjax
from clipjax import models

ROOT = Path(__file__).parent.parent
COPY = "copy (read and write once)"
SSTM, CLIPPED_ADAM = "clipped_sstm", "optax clip, adam"
PEER_SSTM = "torch-clip ClippedSSTM"


def optimizers() -> dict[str, optax.GradientTransformation]:
    """Return ours and Optax's, each with and without clipping. The gradients' norm is above 1."""
    clip = optax.clip_by_global_norm(1.0)
    return {
        SSTM: clipjax.clipped_sstm(1e-3, 1.0, 1.0),
        "clipped_sstm, tensor_norm": clipjax.clipped_sstm(1e-3, 1.0, 1.0, clip="tensor_norm"),
        "clipped_sstm, value": clipjax.clipped_sstm(1e-3, 1.0, 1e-3, clip="value"),
        "clipped_sstm, no clipping": clipjax.clipped_sstm(1e-3, 1.0, None),
        "clipped_sgd, momentum": clipjax.clipped_sgd(1e-3, 1.0, momentum=0.9),
        "clipped_sgd, momentum, no clipping": clipjax.clipped_sgd(1e-3, None, momentum=0.9),
        "clip_by_quantile, optax sgd momentum": optax.chain(
            clipjax.clip_by_quantile(0.1), optax.sgd(1e-3, momentum=0.9)
        ),
        "clip_by_global_norm, optax adam": optax.chain(
            clipjax.clip_by_global_norm(1.0), optax.adam(1e-3)
        ),
        "optax sgd momentum": optax.sgd(1e-3, momentum=0.9),
        "optax clip, sgd momentum": optax.chain(clip, optax.sgd(1e-3, momentum=0.9)),
        "optax adam": optax.adam(1e-3),
        CLIPPED_ADAM: optax.chain(clip, optax.adam(1e-3)),
        "optax schedule_free_sgd": optax.contrib.schedule_free_sgd(1e-3),
        "optax muon": optax.contrib.muon(1e-3),
        # A median is a step with the roots of before; every tenth decomposes.
        "shampoo, roots every 10": clipjax.shampoo(1e-3, update_every=10),
    }


Size = Literal["tiny", "resnet18", "100M"]


def parameter_shapes(size: Size) -> Any:
    """Return the tree of shapes: ResNet-18's; 24 matrices 2048x2048 and 24 vectors; or a toy's."""
    if size == "resnet18":
        model = models.ResNet18(num_classes=1000)
        image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
        variables = jax.eval_shape(
            lambda key, x: model.init(key, x, train=False), jax.random.key(0), image
        )
        return variables["params"]
    count, width = (24, 2048) if size == "100M" else (2, 64)
    return [
        jax.ShapeDtypeStruct(shape, jnp.float32)
        for _ in range(count)
        for shape in ((width, width), (width,))
    ]


@dataclasses.dataclass
class Measured:
    """One row: seconds a step, and bytes kept and needed besides."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    state: int = 0
    scratch: int = 0
    clones: int = 0


def bytes_of(tree: Any) -> int:
    """Return the bytes of a tree of arrays."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(tree))


class Stepper:
    """An optimizer's step, compiled for these shapes; `measure` starts it anew."""

    def __init__(self, tx: optax.GradientTransformation | None, shapes: Any):
        self._tx, self._shapes = tx, shapes
        self.measured = Measured()

        def step(carry: Any, grads: Any) -> Any:
            if tx is None:  # the yardstick
                return jax.tree.map(lambda x: x + 1, carry)
            params, state = carry
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        carry = jax.eval_shape(self._start)
        lowered = jax.jit(step, donate_argnums=0, keep_unused=True).lower(carry, shapes)
        self._step = lowered.compile()
        analysis: Any = self._step.memory_analysis()
        self.measured.scratch = analysis.temp_size_in_bytes

    def _start(self) -> Any:
        params = jax.tree.map(lambda s: jnp.full(s.shape, 0.1, s.dtype), self._shapes)
        return params if self._tx is None else (params, self._tx.init(params))

    def measure(self, grads: Any, seconds: float, chain: int) -> None:
        """Step twice to warm up, then for some seconds, `chain` steps at a time."""
        carry = self._start()
        if self._tx is not None:
            self.measured.state = bytes_of(carry[1])
        for _ in range(2):
            carry = jax.block_until_ready(self._step(carry, grads))
        end = time.perf_counter() + seconds
        while (began := time.perf_counter()) < end:
            for _ in range(chain):
                carry = self._step(carry, grads)
            jax.block_until_ready(carry)
            self.measured.seconds.append((time.perf_counter() - began) / chain)


@contextmanager
def torch_peer(python: Path | None) -> Iterator[tuple[dict[str, Any], Callable[..., Any]]]:
    """Yield the peer's greeting and a function that sends it a request; nothing without torch."""
    if python is None:
        yield {"cases": []}, lambda **_: None
        return
    command = [str(python), str(ROOT / "benchmarks" / "torch_optimizer_step.py")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        requests, answers = process.stdin, process.stdout
        assert requests is not None
        assert answers is not None

        def answer() -> Any:
            line = answers.readline()
            if not line:
                raise RuntimeError(f"{python} ended; its message is above.")
            return json.loads(line)

        def ask(**request: Any) -> Any:
            print(json.dumps(request), file=requests, flush=True)
            return answer()

        yield answer(), ask
        requests.close()


def measure(
    size: Size, rounds: int, seconds: float, chain: int, cases: list[str], ask: Callable[..., Any]
) -> dict[str, Measured]:
    """Return what was measured of the yardstick, of ours, of Optax's and of the peer's `cases`."""
    shapes = parameter_shapes(size)
    leaves, treedef = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    draws = [
        1e-2 * jax.random.normal(key, leaf.shape, leaf.dtype)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    grads = jax.block_until_ready(jax.tree.unflatten(treedef, draws))
    steppers = {COPY: Stepper(None, shapes)}
    steppers |= {name: Stepper(tx, shapes) for name, tx in optimizers().items()}
    peers = {name: Measured() for name in cases}
    dimensions = [leaf.shape for leaf in leaves]
    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    for _ in range(rounds):
        for stepper in steppers.values():
            stepper.measure(grads, seconds, chain)
        for name, peer in peers.items():
            answer = ask(case=name, shapes=dimensions, seconds=seconds, device=device)
            peer.seconds += answer["seconds"]
            peer.state, peer.clones = answer["state"], answer["clones"]
            peer.scratch = answer["clones"] + answer["others"]
    return {name: s.measured for name, s in steppers.items()} | peers


def report(size: Size, measured: dict[str, Measured], console: Console) -> None:
    """Print the table of one size, and what it says of the aims."""
    shapes = jax.tree.leaves(parameter_shapes(size))
    count = sum(leaf.size for leaf in shapes)
    copy = min(measured[COPY].seconds)
    title = f"{size}: {count:,} parameters in {len(shapes)} tensors"
    table = Table("optimizer", title=f"{title}; copy {8e-9 * count / copy:.0f} GB/s")
    for name in ("ms", "median", "x copy", "B/param", "state", "scratch"):
        table.add_column(name, justify="right")
    for name, row in measured.items():
        least = min(row.seconds)
        table.add_row(
            name,
            f"{1e3 * least:.2f}",
            f"{1e3 * statistics.median(row.seconds):.2f}",
            f"{least / copy:.2f}",
            f"{8 * least / copy:.1f}",
            f"{row.state / count:.1f}",
            f"{row.scratch / count:.1f}",
        )
    console.print(table)
    sstm = min(measured[SSTM].seconds)
    moved = 8 * sstm / copy
    console.print(
        f"clipped_sstm: {moved:.1f} B/param, {moved / 32:.2f} x 32 (aim on CPU: 1.2), "
        f"{moved / 28:.2f} x 28 (on GPU: 1.15)"
    )
    adam = min(measured[CLIPPED_ADAM].seconds)
    console.print(f"{CLIPPED_ADAM} / clipped_sstm: {adam / sstm:.2f} (aim: above 1)")
    if PEER_SSTM in measured:
        peer = measured[PEER_SSTM]
        console.print(
            f"{PEER_SSTM} / clipped_sstm: {min(peer.seconds) / sstm:.1f} (aim on CPU: above 4); "
            f"clones: {peer.clones / count:.1f} B/param"
        )


def main(
    size: tuple[Size, ...] = ("resnet18", "100M"),
    torch_python: Path | None = None,
    rounds: int = 5,
    seconds: float = 1.0,
    chain: int = 1,
) -> None:
    """Measure and print.

    Args:
        size: parameter shapes; "tiny" only shows that the script runs.
        torch_python: a Python with torch and torch-clip; without it only ours and Optax's run.
        rounds: how often each optimizer is started anew.
        seconds: how long it is stepped each time; the least and the median of all are printed.
        chain: steps between two looks at the clock.
    """
    console = Console(width=100, highlight=False)
    with torch_peer(torch_python) as (hello, ask):
        versions = [f"jax {jax.__version__}", f"optax {optax.__version__}"]
        versions += [f"{name} {hello[name]}" for name in ("torch", "torch-clip") if name in hello]
        console.print(f"{jax.devices()[0].device_kind}; {', '.join(versions)}")
        console.print(
            f"least and median of {rounds} rounds x {seconds} s, {chain} step(s) a look, by turns\n"
            "state: bytes a parameter; scratch: those a step may need besides (torch: allocates)"
        )
        for each in size:
            report(each, measure(each, rounds, seconds, chain, hello["cases"], ask), console)


if __name__ == "__main__":
    tyro.cli(main)
