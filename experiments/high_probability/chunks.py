"""Thousands of replicas in chunks: below a memory budget, over all devices, resumable.

Chunk i holds replicas [i c, (i + 1) c). Its replicas are split over the devices, all methods of one
noise are one compiled program, and what it gives is written to WORKDIR/chunks before the next one
starts. A killed run goes on with the chunks that are missing; since the chunk size is kept with
them, its numbers are bit for bit those of an uninterrupted run on as many devices.
"""

import json
import math
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from clipjax import problems
from clipjax.train import mesh as meshes
from clipjax.train.log import ProgressLine, write_json
from experiments.high_probability.config import Config, first_point
from experiments.high_probability.simulate import (
    Method,
    record_times,
    replica_keys,
    simulate,
)
from experiments.setup import config_files

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
        if path.exists():
            self._size = self._planned(path)
        else:
            self._size = chunk_size(config, per_replica, mesh.size)
            if jax.process_index() == 0:
                plan = {"config": config_files.to_json(config), "chunk": self._size}
                write_json(path, plan | {"devices": mesh.size})

    def _planned(self, path: Path) -> int:
        try:
            plan = json.loads(path.read_text(encoding="utf-8"))
            size, old = int(plan["chunk"]), plan["config"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); delete {path.parent}") from error
        new = config_files.to_json(self._config)
        found = [k for k in {**old, **new} if old.get(k) != new.get(k)]
        if found:
            listed = "; ".join(f"{k} was {old.get(k)!r}, is {new.get(k)!r}" for k in found)
            raise ValueError(
                f"{path.parent} holds chunks of another config: {listed}. Use another --workdir, "
                "the old values, or delete that folder"
            )
        if size % self._mesh.size:
            raise ValueError(
                f"{path.parent} holds chunks of {size} replicas, which do not split over "
                f"{self._mesh.size} devices; go on with {plan.get('devices')}, or delete it"
            )
        return size

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
        config = self._config
        names = list(methods)
        count = math.ceil(config.replicas / self._size)
        number = config.noises.index(noise)
        paths = [self._folder / f"noise{number}_chunk{i:05d}.npz" for i in range(count)]
        found = {i: arrays for i, path in enumerate(paths) if (arrays := _read(path, names))}
        clock = {"compile_time": 0.0, "simulation_time": 0.0}
        with ProgressLine(noise, config.replicas, len(found) * self._size) as line:
            program = None
            for i in (i for i in range(count) if i not in found):
                if should_stop():
                    return None
                keys = replica_keys(config.seed, self._size, i * self._size)
                if program is None:
                    began = time.monotonic()
                    program = self._compile(oracle, methods, keys)
                    clock["compile_time"] = time.monotonic() - began
                began = time.monotonic()
                gaps = jax.device_get(program(keys))
                seconds = time.monotonic() - began
                clock["simulation_time"] += seconds
                kept = min(self._size, config.replicas - i * self._size)
                found[i] = {name: np.asarray(gaps[name])[:kept] for name in names}
                if jax.process_index() == 0:
                    write_npz(paths[i], {str(j): found[i][name] for j, name in enumerate(names)})
                rate = kept * config.steps / seconds
                done = sum(len(arrays[names[0]]) for arrays in found.values())
                line.update(done, f"{rate:,.0f} replica steps/s")
        whole = {name: np.concatenate([found[i][name] for i in range(count)]) for name in names}
        return whole, clock

    def _compile(self, oracle: problems.Oracle, methods: Mapping[str, Method], keys: jax.Array):
        config = self._config
        start = first_point(config, oracle.problem)
        times = record_times(config.steps, config.records, config.spacing)

        def program(keys: jax.Array) -> dict[str, jax.Array]:
            return simulate(oracle, methods, start, times, keys)

        return meshes.jit(program, self._mesh, (meshes.split(self._mesh),)).lower(keys).compile()

    def remove(self) -> None:
        """Remove the folder, once what it held is written elsewhere."""
        if jax.process_index() == 0:
            shutil.rmtree(self._folder, ignore_errors=True)


def _read(path: Path, names: list[str]) -> dict[str, np.ndarray] | None:
    """Return a chunk's gaps by method; None where it is missing or damaged, to be done again."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            return {name: arrays[str(j)] for j, name in enumerate(names)}
    except (FileNotFoundError, ValueError, EOFError, KeyError, OSError, zipfile.BadZipFile):
        return None


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays so that a reader sees the old file or the new one, never half of either."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez_compressed(temporary, **arrays)
    os.replace(temporary, path)
