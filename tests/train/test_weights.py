"""Micro-batches in which different numbers of things count, against the one large batch.

The networks have no BatchNorm: it normalises each micro-batch by its own moments, so its gradient
is not that of the large batch, whatever the weights.
"""

import functools

import chex
import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

import clipjax
from clipjax.tasks import Classification, Segmentation, SuperResolution
from clipjax.train import mesh as meshes
from clipjax.train.step import Program, controls, step

CONTROLS = controls(0, {"learning_rate": 0.5})
PARTS, SIZE = 4, 4


class Scores(nn.Module):
    """One dense layer: class scores of an image, or (`pixels`) `features` at each pixel."""

    features: int
    pixels: bool = False
    enlarge: int = 1

    @nn.compact
    def __call__(self, x, *, train):
        if not self.pixels:
            x = x.reshape(len(x), -1)
        x = x.repeat(self.enlarge, axis=1).repeat(self.enlarge, axis=2) if self.pixels else x
        return nn.Dense(self.features)(x)


NORMAL = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
TASKS = {
    "classification": (Classification(3, **NORMAL), Scores(3)),
    "segmentation": (Segmentation(3, **NORMAL), Scores(3, pixels=True)),
    "super_resolution": (SuperResolution(2), Scores(3, pixels=True, enlarge=2)),
}


def sgd(rates):
    return optax.sgd(rates["learning_rate"], momentum=0.9)


@functools.cache
def program(name, devices, optimizer=sgd):
    task, model = TASKS[name]
    return Program(
        model,
        task,
        optimizer,
        evaluation_params=lambda _, params: params,
        step_metrics=lambda *_: {},
        mesh=meshes.make_mesh(jax.devices()[:devices]),
    )


def examples(name, counting):
    """Return PARTS * SIZE examples of which `counting` of each SIZE count; the rest is rubbish.

    In segmentation all examples are real, and the first `counting` of each SIZE have one to six
    void pixels, the others nothing but void pixels.
    """
    rng = np.random.default_rng(0)
    total = PARTS * SIZE
    batch = {"image": rng.integers(0, 256, size=(total, 2, 3, 3), dtype=np.uint8)}
    counts = (np.arange(SIZE) < np.array(counting)[:, None]).ravel()
    if name == "classification":
        batch["label"] = rng.integers(0, 3, size=total).astype(np.int32)
    elif name == "super_resolution":
        batch["target"] = rng.integers(0, 256, size=(total, 4, 6, 3), dtype=np.uint8)
    else:
        void = rng.random((total, 6)).argsort(axis=1) < rng.integers(1, 6, size=(total, 1))
        label = rng.integers(0, 3, size=(total, 2, 3))
        batch["label"] = np.where(void.reshape(total, 2, 3) | ~counts[:, None, None], 255, label)
        counts[:] = True
    return batch | {"mask": counts.astype(np.float32)}


def after_one_step(prog, batch, parts):
    """Return the parameters before and after one step on `parts` equal parts, and its scalars."""
    micro = [
        meshes.place({k: np.split(v, parts)[i] for k, v in batch.items()}, prog.mesh)
        for i in range(parts)
    ]
    state = prog.init(CONTROLS, micro[0])
    before = jax.device_get(state.params)
    state, metrics = step(prog, state, micro, CONTROLS)
    return before, jax.device_get(state.params), jax.device_get(metrics)


@pytest.mark.parametrize("name", TASKS)
def test_micro_batches_are_one_large_batch(name):
    """Unequal ones, a partial last one, one that weighs nothing at each place; on two devices.

    Measured differences are below 1e-6; the plain mean is off by more than 1e-2.
    """
    task = TASKS[name][0]
    for counting in ((4, 4, 4, 1), (1, 3, 2, 4), (0, 4, 1, 2), (2, 0, 0, 1), (3, 1, 2, 0)):
        batch = examples(name, counting)
        before, whole, expected = after_one_step(program(name, 1), batch, 1)
        _, parts, metrics = after_one_step(program(name, 2), batch, PARTS)
        chex.assert_trees_all_close(parts, whole, rtol=1e-5, atol=1e-6)
        for key in ("loss", "gradient_norm"):
            np.testing.assert_allclose(
                metrics["scalars"][key], expected["scalars"][key], rtol=1e-5, err_msg=key
            )
        # The loss of the step is that of its statistics, too.
        measured = task.metrics(metrics["statistics"])["loss"]
        np.testing.assert_allclose(metrics["scalars"]["loss"], measured, rtol=1e-5)
        moved = [
            np.abs(a - b).max()
            for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(whole), strict=True)
        ]
        assert max(moved) > 1e-2, "the step must be large enough to tell"


@pytest.mark.parametrize("name", TASKS)
def test_where_nothing_counts_loss_and_gradient_are_zero(name):
    batch = examples(name, (0,) * PARTS)
    for parts in (1, PARTS):
        before, after, metrics = after_one_step(program(name, 1 if parts == 1 else 2), batch, parts)
        chex.assert_trees_all_equal(before, after)
        assert metrics["scalars"]["loss"] == metrics["scalars"]["gradient_norm"] == 0


@pytest.mark.parametrize("name", TASKS)
def test_weights_are_what_the_loss_is_a_mean_of(name):
    """Σ w_i loss_i over the examples is w times the loss of all, and w is Σ w_i."""
    task, _ = TASKS[name]
    batch = examples(name, (3, 1, 0, 4))
    shape = {"classification": (3,), "segmentation": (2, 3, 3), "super_resolution": (4, 6, 3)}[name]
    outputs = np.random.default_rng(1).normal(size=(PARTS * SIZE, *shape)).astype(np.float32)
    each = [
        (task.weight(one), task.loss(outputs[i : i + 1], one))
        for i in range(PARTS * SIZE)
        for one in [{k: v[i : i + 1] for k, v in batch.items()}]
    ]
    weights, losses = np.array(each, np.float64).T
    weight = task.weight(batch)
    assert (weight.dtype, weight.shape) == (np.float32, ())
    assert weight == weights.sum() > 0
    np.testing.assert_allclose(task.loss(outputs, batch), weights @ losses / weights.sum(), 1e-6)


def accumulating(rates):
    return clipjax.accumulate_gradients(sgd(rates), PARTS)


def test_methods_that_accumulate_are_given_the_weights():
    """Fed micro-batch by micro-batch, with void pixels, the step is that of one large batch."""
    name = "segmentation"
    batch = examples(name, (4, 1, 0, 2))
    _, whole, _ = after_one_step(program(name, 1), batch, 1)
    prog = program(name, 1, accumulating)
    micro = [
        meshes.place({k: np.split(v, PARTS)[i] for k, v in batch.items()}, prog.mesh)
        for i in range(PARTS)
    ]
    state = prog.init(CONTROLS, micro[0])
    for part in micro:
        state, _ = step(prog, state, [part], CONTROLS)
    chex.assert_trees_all_close(jax.device_get(state.params), whole, rtol=1e-5, atol=1e-6)


def test_equal_weights_are_the_plain_mean_to_the_bit():
    """13 labelled pixels in each micro-batch, no power of two: (g_1 + ... + g_4) / 4 exactly."""
    name = "segmentation"
    batch = examples(name, (SIZE,) * PARTS)
    labels = np.full((PARTS, SIZE * 6), 255)
    labels[:, :13] = np.random.default_rng(2).integers(0, 3, size=(PARTS, 13))
    batch["label"] = labels.reshape(PARTS * SIZE, 2, 3)
    prog = program(name, 1)
    before, after, _ = after_one_step(prog, batch, PARTS)
    micro = [{k: np.split(v, PARTS)[i] for k, v in batch.items()} for i in range(PARTS)]

    @jax.jit
    def gradient(params, part):
        def loss(params):
            outputs = prog.model.apply({"params": params}, prog.task.inputs(part), train=True)
            return prog.task.loss(outputs, part)

        return jax.grad(loss)(params)

    first, *others = [jax.device_get(gradient(before, part)) for part in micro]
    total = functools.reduce(lambda a, b: jax.tree.map(np.add, a, b), others, first)
    expected = jax.tree.map(lambda p, g: p - np.float32(0.5) * (g / np.float32(4)), before, total)
    chex.assert_trees_all_equal(after, expected)


def test_gradient_variance_of_unequal_weights():
    """N / (m - 1) · Σ w_i ‖g_i − ḡ‖² / Σ w_i in float64; what weighs nothing is left out."""
    name = "classification"
    prog, batch = program(name, 1), examples(name, (4, 1, 0, 2))
    before, _, metrics = after_one_step(prog, batch, PARTS)

    @jax.jit
    def gradient(params, part):
        def loss(params):
            outputs = prog.model.apply({"params": params}, prog.task.inputs(part), train=True)
            return prog.task.loss(outputs, part)

        return jax.grad(loss)(params)

    rows = []
    for i in (0, 1, 3):
        found = gradient(before, {k: np.split(v, PARTS)[i] for k, v in batch.items()})
        rows.append(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(found)]))
    rows, weights = np.asarray(rows, np.float64), np.array([4.0, 1.0, 2.0])
    mean = weights @ rows / 7
    deviation = weights @ np.square(rows - mean).sum(axis=1)
    # N is 7 as well: the examples that count. C² = 7 / (3 - 1) · D / 7.
    np.testing.assert_allclose(metrics["scalars"]["gradient_variance"], deviation / 2, rtol=1e-4)
