"""Thousands of replicas in chunks: below a memory budget, over all devices, resumable.

Chunk i holds replicas [i c, (i + 1) c). Its replicas are split over the devices, all methods of one
noise are one compiled program, and what it gives is written to WORKDIR/chunks before the next one
starts. A killed run goes on with the chunks that are missing; since the chunk size is kept with
them, its numbers are bit for bit those of an uninterrupted run on as many devices.

Chunks that were damaged, or come from elsewhere, are computed again
(`experiments.setup.checked_files`).
"""

import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from clipjax import problems
from clipjax.train import mesh as meshes
from clipjax.train.files import remove_leftovers
from clipjax.train.log import ProgressLine
from experiments.high_probability.config import Config, first_point, identity
from experiments.high_probability.simulate import (
    Method,
    record_times,
    replica_keys,
    simulate,
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

MIB = 2**20


def bytes_per_replica(
    oracle: problems.Oracle, methods: Mapping[str, Method], config: Config
) -> int:
    """Return an upper bound on the memory that one replica more takes.

    Every intermediate of the traced program is counted as if all of one function body lived at
    once. XLA fuses most of them away, so the true need is some times smaller. What replicas share,
    such as the data, is not counted: two replicas are compared with three.
    """
    start = first_point(config, oracle.problem)
    times = record_times(config.steps, config.records, config.spacing)

    def total(replicas: int) -> int:
        traced = jax.make_jaxpr(lambda keys: simulate(oracle, methods, start, times, keys))
        return _bytes(traced(replica_keys(0, replicas)).jaxpr)

    return total(3) - total(2)


def _bytes(jaxpr: Any) -> int:
    total, largest = 0, 0
    for equation in jaxpr.eqns:
        for out in equation.outvars:
            total += math.prod(out.aval.shape) * getattr(out.aval.dtype, "itemsize", 8)
        inner = [
            getattr(value, "jaxpr", value)
            for parameter in equation.params.values()
            for value in (parameter if isinstance(parameter, tuple | list) else (parameter,))
            if hasattr(getattr(value, "jaxpr", value), "eqns")
        ]
        largest = max([largest, *map(_bytes, inner)])
    return total + largest


def chunk_size(config: Config, per_replica: int, devices: int) -> int:
    """Return how many replicas run at once: a multiple of the devices, in chunks of like size.

    Args:
        config: its `chunk` if not 0, else as many as fit into `memory` MiB on each device.
        per_replica: bytes that one replica needs.
        devices: how many devices share a chunk.

    Raises:
        ValueError: if not even one replica fits.

    Examples:
        >>> chunk_size(Config(replicas=1000, memory=1.0), per_replica=4096, devices=2)
        500
        >>> chunk_size(Config(replicas=1000, chunk=64), per_replica=4096, devices=8)
        64
    """
    fit = int(config.memory * MIB // per_replica)
    if fit < 1:
        raise ValueError(
            f"memory is {config.memory:g} MiB, but one replica needs up to "
            f"{per_replica / MIB:.3g} MiB; raise memory, or take fewer methods, records or examples"
        )
    most = config.chunk or fit * devices
    count = math.ceil(config.replicas / most)
    return math.ceil(math.ceil(config.replicas / count) / devices) * devices


class Chunks:
    """The chunks of one experiment, in WORKDIR/chunks.

    Args:
        workdir: the experiment's folder.
        config: the experiment; kept beside the chunks.
        mesh: the devices.
        per_replica: bytes that one replica needs.

    Raises:
        ValueError: if the folder holds chunks of another experiment, or they do not split over the
            devices there are.
    """

    def __init__(self, workdir: Path, config: Config, mesh: Mesh, per_replica: int):
        self._folder, self._config, self._mesh = workdir / "chunks", config, mesh
        path = self._folder / "plan.json"
        if jax.process_index() == 0:
            remove_leftovers(self._folder)
        if path.exists():
            self._size = self._planned(path)
        else:
            self._size = chunk_size(config, per_replica, mesh.size)
            if jax.process_index() == 0:
                plan = {"config": identity(config), "chunk": self._size, "devices": mesh.size}
                write_plan(path, plan)

    def _planned(self, path: Path) -> int:
        plan = read_plan(path, "config", "chunk")
        check_same(plan["config"], identity(self._config), path.parent, "chunks")
        size = plan["chunk"]
        if size % self._mesh.size:
            raise ValueError(
                f"{path.parent} holds chunks of {size} replicas, which do not split over "
                f"{self._mesh.size} devices; go on with {plan.get('devices')}, or delete it"
            )
        return size

    def _place(self, noise: int, chunk: int) -> bytes:
        """Return what binds a chunk to its place in this experiment."""
        place = {"noise": noise, "chunk": chunk, "size": self._size}
        return text(place | {"config": identity(self._config)})

    @property
    def size(self) -> int:
        """Return the replicas per chunk; the last chunk computes as many and keeps fewer."""
        return self._size

    def run(
        self,
        noise: str,
        oracle: problems.Oracle,
        methods: Mapping[str, Method],
        should_stop: Callable[[], bool] = lambda: False,
    ) -> tuple[dict[str, np.ndarray], dict[str, float]] | None:
        """Do the chunks of one noise that are missing.

        Returns:
            The gaps (replicas, times) by method, and seconds spent on compiling and running; None
            if `should_stop` ended it.
        """
        config, names = self._config, list(methods)
        count = math.ceil(config.replicas / self._size)
        number = config.noises.index(noise)
        paths = [self._folder / f"noise{number}_chunk{i:05d}.chunk" for i in range(count)]
        places = [self._place(number, i) for i in range(count)]
        read = {i: read_arrays(paths[i], places[i], again="computed again") for i in range(count)}
        found = {
            i: {name: arrays[str(j)] for j, name in enumerate(names)}
            for i, arrays in read.items()
            if arrays is not None
        }
        clock = {"compile_time": 0.0, "simulation_time": 0.0}
        times = jnp.asarray(record_times(config.steps, config.records, config.spacing))
        with ProgressLine(noise, config.replicas, len(found) * self._size) as line:
            program = None
            for i in (i for i in range(count) if i not in found):
                if should_stop():
                    return None
                keys = replica_keys(config.seed, self._size, i * self._size)
                if program is None:
                    began = time.monotonic()
                    with pace.telling(line.say, f"compiling {noise}"):
                        program = self._compile(oracle, methods, keys, times)
                    clock["compile_time"] = time.monotonic() - began
                    self._tell(noise, program, keys, times, count - len(found), line)
                began = time.monotonic()
                with pace.telling(line.say, f"{noise}, chunk {i + 1} of {count}"):
                    gaps = jax.device_get(program(keys, times))
                seconds = time.monotonic() - began
                clock["simulation_time"] += seconds
                kept = min(self._size, config.replicas - i * self._size)
                found[i] = {name: np.asarray(gaps[name])[:kept] for name in names}
                if jax.process_index() == 0:
                    numbered = {str(j): found[i][name] for j, name in enumerate(names)}
                    write_arrays(paths[i], places[i], numbered)
                rate = kept * config.steps / seconds
                done = sum(len(arrays[names[0]]) for arrays in found.values())
                line.update(done, f"{rate:,.0f} replica steps/s")
        whole = {name: np.concatenate([found[i][name] for i in range(count)]) for name in names}
        return whole, clock

    def _tell(
        self,
        noise: str,
        program: Callable[..., Any],
        keys: jax.Array,
        times: jax.Array,
        chunks: int,
        line: ProgressLine,
    ) -> None:
        """Say how long the chunks to do will take, if it is long; refuse what takes too long."""

        def piece(steps: int) -> None:
            jax.block_until_ready(program(keys, jnp.minimum(times, steps)))

        with pace.telling(line.say, f"{noise}, measuring how long a step takes"):
            each = pace.estimate(piece, self._config.steps)
        what = f"{noise}: {chunks} chunks of {self._size} replicas, {self._config.steps:,} steps"
        pace.check(chunks * each, what, "Take fewer steps, replicas, coordinates or methods")
        if chunks * each > 10:
            total = pace.words(chunks * each)
            line.say(f"{what}, {pace.words(each)} each, about {total} in all")

    def _compile(
        self, oracle: problems.Oracle, methods: Mapping[str, Method], *arguments: jax.Array
    ):
        start = first_point(self._config, oracle.problem)

        def program(keys: jax.Array, times: jax.Array) -> dict[str, jax.Array]:
            return simulate(oracle, methods, start, times, keys)

        shardings = meshes.split(self._mesh), meshes.replicated(self._mesh)
        return meshes.jit(program, self._mesh, shardings).lower(*arguments).compile()

    def remove(self) -> None:
        """Remove the folder, once what it held is written elsewhere."""
        if jax.process_index() == 0:
            shutil.rmtree(self._folder, ignore_errors=True)
