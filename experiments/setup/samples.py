"""Held-out examples kept for pictures: figures/samples.npz of a run.

One array per key of what the task's `samples` returns, leading axis the example. Of large pictures
the middle is kept. Where they differ in size, all are continued by zeros to the largest, and `size`
(examples, 2) says how many rows and columns of each `image` (or `lr`) are real; `unpadded` takes
the rest away.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from clipjax.train import mesh as meshes
from clipjax.train.step import Program
from clipjax.typing import Data
from experiments.setup.checked_files import write_npz

SIDE = 512
"""Of a larger picture, so many rows and columns in its middle are kept."""

Example = dict[str, np.ndarray]


def write(program: Program, point: tuple[Any, Any], data: Data, count: int, path: Path) -> None:
    """Write what a model makes of the first evaluation examples; all hosts must call this.

    Args:
        program: the run's functions.
        point: parameters and BatchNorm's statistics.
        data: where the examples come from.
        count: how many to keep; nothing is written for 0.
        path: the file.
    """
    if count < 1:
        return
    kept = examples(program, point, data, count)
    if jax.process_index() == 0:
        write_npz(path, stack(list(map(middle, kept))))


def examples(program: Program, point: tuple[Any, Any], data: Data, count: int) -> list[Example]:
    """Return the task's samples of the first evaluation examples, as many batches as it takes."""
    from jax.experimental import multihost_utils

    found: list[Example] = []
    for host_batch in data.evaluation(**meshes.process()):
        batch = meshes.place(host_batch, program.mesh)
        outputs = jax.device_get(program.predict(*point, batch))
        whole = multihost_utils.process_allgather(batch, tiled=True)
        real = np.flatnonzero(whole["mask"] > 0)[: count - len(found)]
        part = {key: value[real] for key, value in whole.items()}
        arrays = program.task.samples(outputs[real], part)
        found += [{key: value[i] for key, value in arrays.items()} for i in range(len(real))]
        if len(found) == count:
            break
    return found


def middle(example: Example, side: int = SIDE) -> Example:
    """Return an example without padding, of larger pictures the `side` pixels in the middle.

    Examples:
        >>> lr, hr = np.arange(5).reshape(1, 5), np.arange(10).repeat(2).reshape(2, 10)
        >>> cut = middle({"lr": lr, "target": hr, "size": np.array([1, 4])}, side=4)
        >>> cut["lr"].tolist(), cut["target"].shape
        ([[1, 2]], (2, 4))
    """
    example = dict(example)
    pictures = [key for key, value in example.items() if value.ndim >= 2]
    if not pictures:
        return example
    base = example["lr" if "lr" in example else "image"].shape[:2]
    size = example.pop("size", np.array(base))
    scales = {key: example[key].shape[0] // base[0] for key in pictures}
    kept = np.minimum(size, side // max(scales.values()))
    start = (size - kept) // 2
    for key, scale in scales.items():
        rows, columns = (
            slice(scale * a, scale * (a + n)) for a, n in zip(start, kept, strict=True)
        )
        example[key] = example[key][rows, columns]
    return example


def stack(kept: Sequence[Example]) -> Example:
    """Return one array per key; with `size` where pictures differ in it.

    Examples:
        >>> stacked = stack([{"image": np.ones((1, 2))}, {"image": np.ones((2, 1))}])
        >>> stacked["image"].tolist(), stacked["size"].tolist()
        ([[[1.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [1.0, 0.0]]], [[1, 2], [2, 1]])
    """
    stacked: Example = {}
    for key in kept[0]:
        values = [example[key] for example in kept]
        shapes = [value.shape for value in values]
        if len(set(shapes)) > 1:
            full = np.max(shapes, axis=0)
            values = [
                np.pad(v, [(0, n - m) for n, m in zip(full, v.shape, strict=True)]) for v in values
            ]
            if key in ("image", "lr"):
                stacked["size"] = np.array(shapes, np.int32)[:, :2]
        stacked[key] = np.stack(values)
    return stacked


def unpadded(arrays: Mapping[str, np.ndarray]) -> dict[str, Sequence[np.ndarray]]:
    """Return the arrays example by example, each picture of its real size: undoes `stack`.

    Examples:
        >>> shapes = [(1, 2), (2, 1)]
        >>> found = unpadded(stack([{"image": np.ones(shape)} for shape in shapes]))
        >>> [image.shape for image in found["image"]]
        [(1, 2), (2, 1)]
    """
    arrays = dict(arrays)
    sizes = arrays.pop("size", None)
    if sizes is None:
        return {key: list(values) for key, values in arrays.items()}
    base = arrays["lr" if "lr" in arrays else "image"].shape[1]
    found: dict[str, Sequence[np.ndarray]] = {}
    for key, values in arrays.items():
        scale = values.shape[1] // base if values.ndim >= 3 else 1
        found[key] = [
            value[: scale * rows, : scale * columns] if value.ndim >= 2 else value
            for value, (rows, columns) in zip(values, sizes, strict=True)
        ]
    return found
