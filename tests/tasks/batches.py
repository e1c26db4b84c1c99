"""A set of examples cut into batches of which the last is padded with rubbish and masked."""

import inspect

import jax
import numpy as np

from clipjax.typing import Task


def padded(outputs, arrays, batch_size):
    """Yield (outputs, batch); the padding has outputs NaN and copies of the first examples."""
    total = len(outputs)
    for start in range(0, total, batch_size):
        index = np.arange(start, start + batch_size)
        real = index < total
        index = np.where(real, index, 0)
        mask = real.astype(np.float32)
        part = outputs[index].astype(np.float32)
        part[~real] = np.nan
        yield part, {name: value[index] for name, value in arrays.items()} | {"mask": mask}


def measure(task, outputs, arrays, batch_size=8):
    """Return the metrics over padded batches, summed as training sums them."""
    statistics = jax.jit(task.statistics)
    parts = [jax.device_get(statistics(*part)) for part in padded(outputs, arrays, batch_size)]
    sums = jax.tree.map(lambda *leaves: np.sum(np.stack(leaves), 0, dtype=np.float64), *parts)
    return task.metrics(sums)


def assert_implements_task(task):
    """Every method of the protocol is there, with its parameters and annotations."""
    methods = [name for name in vars(Task) if not name.startswith("_")]
    assert sorted(methods) == ["inputs", "loss", "metrics", "samples", "statistics", "weight"]
    for name in methods:
        expected = inspect.signature(getattr(Task, name))
        assert inspect.signature(getattr(type(task), name)) == expected, name


def assert_integer_counts(statistics, names):
    """Counts are int32: a float32 one is inexact beyond 2^24."""
    assert {str(statistics[name].dtype) for name in names} == {"int32"}
