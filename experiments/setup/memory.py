"""How much memory there is, and a clear refusal of what cannot fit into it."""

import math
import os
from typing import Any

import jax

from clipjax.train.step import Controls, Program
from clipjax.typing import Batch

GIB = 2**30


def available() -> int:
    """Return the bytes of memory of one device: of an accelerator its own, else the machine's."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def check_fits(needed: int, what: str, cure: str) -> None:
    """Raise ValueError if something is larger than the memory.

    Args:
        needed: bytes, at least.
        what: what needs them.
        cure: what to do.

    Examples:
        >>> check_fits(2**60, "the curve", "take fewer points")
        Traceback (most recent call last):
            ...
        ValueError: the curve: at least 1.07e+09 GiB, of ... GiB that this machine has; take fewer
        points
    """
    there = available()
    if needed > there:
        raise ValueError(
            f"{what}: at least {needed / GIB:.3g} GiB, of {there / GIB:.3g} GiB that this machine "
            f"has; {cure}"
        )


def size(tree: Any) -> int:
    """Return the bytes of the arrays of a tree, or of their shapes.

    Examples:
        >>> size({"w": jax.ShapeDtypeStruct((3, 4), "float32")})
        48
    """
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "shape")]
    return sum(math.prod(leaf.shape) * getattr(leaf.dtype, "itemsize", 8) for leaf in leaves)


def check_training(program: Program, controls: Controls, batch: Batch) -> None:
    """Raise ValueError if a network, its gradient and its optimizer's state cannot fit.

    Only shapes are computed, so the check takes as long for a large network as for a small one.
    What the layers' outputs take is not counted.
    """
    state = jax.eval_shape(program.init, controls, batch)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))
    check_fits(
        size(state) + size(state.params),
        f"a network of {params:,} parameters, with its gradient and its optimizer's state",
        "make the model smaller (its width, or hidden)",
    )
