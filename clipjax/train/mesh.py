"""Devices and hosts: the only module that knows of meshes, shardings and distributed start-up.

Data parallelism by `jit` over one mesh axis: parameters are replicated, batches are split along
their leading axis, and XLA inserts the sums. Losses and BatchNorm statistics are those of the
global batch, so 1 and 8 devices train the same network.
"""

import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from clipjax.typing import Batch, HostBatch

AXIS = "data"


def initialize(
    distributed: Literal["auto", "off"] = "auto", *, heartbeat_timeout_seconds: int = 100
) -> None:
    """Join the other hosts, if there are any. Call before anything else touches JAX.

    With "auto" the cluster is found by JAX (TPU pods, Slurm, Open MPI, Kubernetes) or named by
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; where there is neither, the
    program runs on its own.

    Args:
        distributed: "auto" or "off".
        heartbeat_timeout_seconds: how long the others wait for a silent host before they give up.

    Raises:
        ValueError: an unknown mode; only some of the three variables are set, or to what they
            cannot be; JAX has started alone in a process of a cluster.
    """
    if distributed not in ("auto", "off"):
        raise ValueError(f"distributed is {distributed!r}; expected 'auto' or 'off'")
    if distributed == "off" or jax.distributed.is_initialized():
        return
    address, count, index = _named_cluster() or (None, None, None)
    try:
        jax.distributed.initialize(
            address, count, index, heartbeat_timeout_seconds=heartbeat_timeout_seconds
        )
    except ValueError as error:
        # What JAX says where it finds no cluster; any other complaint is the user's to see.
        if "coordinator_address should be defined" not in str(error):
            raise
    except RuntimeError as error:
        # JAX looks whether it has started before it looks for a cluster: a second run in a process.
        if "must be called before" not in str(error):
            raise
        if cluster := address or _found_cluster():
            raise ValueError(
                f"this process belongs to a cluster ({cluster}) but JAX has started alone in it: "
                "start a new process, or stay alone with distributed 'off' (--distributed off)"
            ) from error


def _named_cluster() -> tuple[str, int, int] | None:
    """Return address, number of processes and place in them, if the environment sets them.

    Raises:
        ValueError: only some are set, or one cannot be what it is.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    if os.environ.get(names[0]) == "":  # JAX itself would take it for an address
        raise ValueError(f"{names[0]} is ''; expected HOST:PORT, or unset the variable")
    given = {name: os.environ[name] for name in names if os.environ.get(name)}
    if not given:
        return None
    if len(given) < len(names):
        raise ValueError(
            f"{sorted(given)} set but {sorted(set(names) - set(given))} not; a run over several "
            "hosts needs all three (or none, where the cluster is found by itself)"
        )
    address, count, index = (given[name] for name in names)
    port = re.fullmatch(r"\S+:([0-9]{1,5})", address)
    if not port or not 0 < int(port[1]) < 2**16:
        raise ValueError(
            f"JAX_COORDINATOR_ADDRESS is {address!r}; expected HOST:PORT, such as 10.0.0.1:1234"
        )
    if not re.fullmatch("[1-9][0-9]{0,6}", count):
        raise ValueError(f"JAX_NUM_PROCESSES is {count!r}; expected a whole number from 1 on")
    if not re.fullmatch("[0-9]{1,7}", index) or int(index) >= int(count):
        raise ValueError(
            f"JAX_PROCESS_ID is {index!r}; expected a whole number from 0 to {int(count) - 1}, "
            f"below JAX_NUM_PROCESSES"
        )
    return address, int(count), int(index)


def _found_cluster() -> str | None:
    """Return the kind of cluster that JAX would find by itself, None where it finds none."""
    from jax._src.clusters import ClusterEnv  # there is no public way to ask

    kinds = (kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method)
    return next((kind.__name__ for kind in kinds if kind.is_env_present()), None)


def make_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Return a one-axis mesh over all devices of all hosts (or the ones given).

    Examples:
        >>> dict(make_mesh(jax.devices()[:1]).shape)
        {'data': 1}
    """
    devices = jax.devices() if devices is None else devices
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of parameters: a full copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """Return the sharding of batches: the leading axis split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def place(batch: HostBatch, mesh: Mesh) -> Batch:
    """Place this process's share of a batch on its devices, as one global array per key."""
    sharding = split(mesh)
    return {
        key: jax.make_array_from_process_local_data(sharding, value) for key, value in batch.items()
    }


def jit(
    fn: Callable[..., Any], mesh: Mesh, in_shardings: Any, *, donate_argnums: tuple[int, ...] = ()
) -> Callable[..., Any]:
    """Compile `fn` over the mesh with replicated results (states, metrics, statistics)."""
    return jax.jit(
        fn,
        in_shardings=in_shardings,
        out_shardings=replicated(mesh),
        donate_argnums=donate_argnums,
    )


def check_divisible(batch_size: int, mesh: Mesh) -> None:
    """Refuse a (micro-)batch that does not split evenly.

    Raises:
        ValueError: `batch_size` is no multiple of the number of devices.
    """
    if batch_size % mesh.size:
        near = max(1, round(batch_size / mesh.size)) * mesh.size
        raise ValueError(
            f"a batch of {batch_size} (of one accumulation step) does not split over {mesh.size} "
            f"devices; use a multiple of {mesh.size}, such as {near}"
        )


def process() -> dict[str, int]:
    """Return this process's place among the hosts, as keyword arguments for `Data`."""
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}


def stop_agreed(stop: bool, step: int) -> bool:
    """Return whether all hosts stop after this step; one that was told to stop tells the others.

    Alone this is `stop`. With several hosts every one must leave the loop at the same step, or
    the rest would wait for ever in a collective.
    """
    if jax.process_count() == 1:
        return stop
    from jax.experimental import multihost_utils

    return bool(multihost_utils.reached_preemption_sync_point(step))


def told_by_first(flags: Sequence[bool]) -> list[bool]:
    """Return the first host's flags on all hosts; only it reads and writes a run's rows."""
    if jax.process_count() == 1:
        return list(flags)
    from jax.experimental import multihost_utils

    return multihost_utils.broadcast_one_to_all(np.array(flags, np.int32)).astype(bool).tolist()


def any_host(flag: bool) -> bool:
    """Return on all hosts whether the flag is set on one of them; all wait for each other."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.array(flag, np.int32))))


def describe() -> str:
    """Return the devices in words, such as '2 x cpu' or '8 x TPU v5e on 2 hosts'."""
    kinds, counts = np.unique([d.device_kind for d in jax.devices()], return_counts=True)
    words = ", ".join(f"{count} x {kind}" for kind, count in zip(kinds, counts, strict=True))
    hosts = jax.process_count()
    return words if hosts == 1 else f"{words} on {hosts} hosts"
