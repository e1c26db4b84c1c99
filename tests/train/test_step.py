"""The training step: against a written-out one, over devices, accumulated, compiled once."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clipjax.models import FCN32s
from clipjax.tasks import Segmentation
from clipjax.train import mesh as meshes
from clipjax.train.step import Program, controls, step
from tests.train.toys import Net, Points, Regression, program

CONTROLS = {"learning_rate": 0.05}


def run(prog, data, steps, *, accumulation=1, rates=CONTROLS, seed=0):
    """Return the final state and the losses of `steps` steps."""
    control = controls(seed, rates)
    state = prog.init(control, meshes.place(next(data.calibration(1)), prog.mesh))
    losses = []
    for _, batch in zip(range(steps), data.train(0), strict=False):
        parts = {k: np.split(v, accumulation) for k, v in batch.items()}
        micro = [
            meshes.place({k: v[i] for k, v in parts.items()}, prog.mesh)
            for i in range(accumulation)
        ]
        state, metrics = step(prog, state, micro, control)
        losses.append(metrics["scalars"]["loss"])
    return state, np.asarray(losses)


def test_equals_the_written_out_loop():
    """Gradient of the mean loss, BatchNorm in training mode, momentum: all by hand."""
    data, model = Points(), Net(dropout=0.5)
    state, losses = run(program(jax.devices()[:1], model=model), data, 5)

    first = next(data.calibration(1))
    variables = model.init(jax.random.key(0), first["image"][:1], train=False)
    params, stats = variables["params"], variables["batch_stats"]
    trace = jax.tree.map(jnp.zeros_like, params)
    expected = []
    for number, batch in zip(range(5), data.train(0), strict=False):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), number), 0)

        def loss(params, batch=batch, stats=stats, key=key):
            y, updated = model.apply(
                {"params": params, "batch_stats": stats},
                batch["image"],
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            return jnp.mean((y - batch["label"]) ** 2), updated["batch_stats"]

        (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        trace = jax.tree.map(lambda t, g: 0.9 * t + g, trace, gradient)
        params = jax.tree.map(lambda p, t: p - 0.05 * t, params, trace)
        expected.append(value)
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    chex.assert_trees_all_close(state.params, params, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(state.model_state["batch_stats"], stats, rtol=1e-4, atol=1e-6)
    assert int(state.step) == 5


def test_eight_devices_train_as_one_does():
    """50 steps, float32: the same losses to rtol 1e-5 (sums in another order, nothing else)."""
    one, eight = (run(program(jax.devices()[:n]), Points(), 50)[1] for n in (1, 8))
    np.testing.assert_allclose(eight, one, rtol=1e-5)


def test_eight_devices_train_as_one_does_in_float64():
    with jax.enable_x64(True):
        data, model = Points(dtype="float64"), Net(param_dtype=jnp.float64)
        one, eight = (run(program(jax.devices()[:n], model=model), data, 50)[1] for n in (1, 8))
    assert one.dtype == np.float64
    np.testing.assert_allclose(eight, one, rtol=1e-12)


def test_same_devices_are_bit_equal():
    states = [run(program(jax.devices()), Points(), 5)[0] for _ in range(2)]
    chex.assert_trees_all_equal(*states)


@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_equals_one_large_batch(accumulation):
    """Without BatchNorm and dropout the mean of equal parts' gradients is the whole's gradient."""
    with jax.enable_x64(True):
        data = Points(dtype="float64")
        model = Net(batch_norm=False, param_dtype=jnp.float64)
        prog = program(jax.devices()[:2], model=model)
        whole, losses = run(prog, data, 6)
        parts, parts_losses = run(prog, data, 6, accumulation=accumulation)
    chex.assert_trees_all_close(parts.params, whole.params, rtol=1e-12)
    np.testing.assert_allclose(parts_losses, losses, rtol=1e-12)


def test_accumulated_batch_norm_sees_the_parts_in_turn():
    data = Points()
    state, _ = run(program(jax.devices()[:1]), data, 1, accumulation=2)
    first = next(data.train(0))
    model = Net()
    variables = model.init(jax.random.key(0), first["image"][:1], train=False)
    stats = variables["batch_stats"]
    for part in np.split(first["image"], 2):
        _, updated = model.apply(
            {"params": variables["params"], "batch_stats": stats},
            part,
            train=True,
            mutable=["batch_stats"],
        )
        stats = updated["batch_stats"]
    chex.assert_trees_all_close(state.model_state["batch_stats"], stats, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_compiles_once_for_all_seeds_and_rates(accumulation):
    prog, data = program(jax.devices()), Points(batch_size=16)
    for seed, rate in ((0, 0.05), (1, 0.01)):
        run(prog, data, 4, accumulation=accumulation, rates={"learning_rate": rate}, seed=seed)
    used = [prog.train_step] if accumulation == 1 else [prog.apply_accumulated]
    # The first micro-batch starts the sums and the others add to them: two programs, no more.
    assert prog.init.func._cache_size() == 1
    assert [fn._cache_size() for fn in used] == [1]
    assert prog.accumulate._cache_size() == (0 if accumulation == 1 else 2)


def test_seed_and_rates_change_the_run():
    prog, data = program(jax.devices()[:1]), Points()
    base, other_seed, other_rate = (
        run(prog, data, 2, rates={"learning_rate": rate}, seed=seed)[1]
        for seed, rate in ((0, 0.05), (1, 0.05), (0, 0.01))
    )
    assert base[0] != other_seed[0]
    assert base[0] == other_rate[0]
    assert base[1] != other_rate[1]


def test_logs_the_gradient_norm():
    data = Points()
    prog = program(jax.devices()[:1], model=Net(batch_norm=False))
    control = controls(0, CONTROLS)
    batch = next(data.train(0))
    placed = meshes.place(batch, prog.mesh)
    state = prog.init(control, placed)
    params = jax.tree.map(jnp.copy, state.params)
    _, metrics = step(prog, state, [placed], control)

    def loss(params):
        y = prog.model.apply({"params": params}, batch["image"], train=True)
        return Regression().loss(y, batch)

    expected = optax.tree.norm(jax.grad(loss)(params))
    np.testing.assert_allclose(metrics["scalars"]["gradient_norm"], expected, rtol=1e-5)


def test_gradient_variance_from_micro_batches():
    """Equal to b times the unbiased sample variance of the micro-batches' gradients, in float64."""
    data, prog = Points(), program(jax.devices()[:1], model=Net(batch_norm=False))
    control = controls(0, CONTROLS)
    state = prog.init(control, meshes.place(next(data.calibration(1)), prog.mesh))
    micro = [meshes.place(b, prog.mesh) for b, _ in zip(data.train(0), range(5), strict=False)]

    def loss(params, batch):
        outputs = prog.model.apply({"params": params}, batch["image"], train=False)
        return prog.task.loss(outputs, batch)

    gradients = [
        np.concatenate(
            [np.ravel(leaf) for leaf in jax.tree.leaves(jax.grad(loss)(state.params, b))]
        )
        for b in micro
    ]
    _, metrics = step(prog, state, micro, control)
    expected = 16 * np.sum(np.var(np.asarray(gradients, np.float64), axis=0, ddof=1))
    np.testing.assert_allclose(metrics["scalars"]["gradient_variance"], expected, rtol=1e-4)


def test_scores_do_not_depend_on_padding():
    """A 5 x 6 picture is evaluated padded to 8 x 12 with rubbish, and as it is."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, size=(1, 8, 12, 3), dtype=np.uint8)
    label = np.full((1, 8, 12), 255)
    label[:, :5, :6] = rng.integers(0, 3, size=(1, 5, 6))
    padded = {"image": image, "label": label, "mask": np.ones(1, np.float32)}
    alone = padded | {"image": image[:, :5, :6], "label": label[:, :5, :6]}
    prog = Program(
        FCN32s(3, width=2, fc_width=4, fc_kernel=3, pool_stages=1, block_sizes=(1,)),
        Segmentation(3, (0.5,) * 3, (0.25,) * 3),
        lambda rates: optax.sgd(rates["learning_rate"]),
        evaluation_params=lambda _, params: params,
        step_metrics=lambda *_: {},
        mesh=meshes.make_mesh(jax.devices()[:1]),
    )
    state = prog.init(controls(0, CONTROLS), meshes.place(alone, prog.mesh))
    # The score starts at zero, where all pictures are alike.
    params = jax.tree.map(lambda p: p + rng.normal(size=p.shape).astype(np.float32), state.params)
    with_size = meshes.place(padded | {"size": np.int32([[5, 6]])}, prog.mesh)
    found = prog.evaluate(params, state.model_state, with_size)
    expected = prog.evaluate(params, state.model_state, meshes.place(alone, prog.mesh))
    np.testing.assert_array_equal(found["confusion"], expected["confusion"])
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-5)
