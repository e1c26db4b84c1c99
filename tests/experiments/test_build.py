"""From config to objects: moments, schedules, what is shared, what is refused."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax.data import load
from clipjax.train import mesh as meshes
from clipjax.train.loop import Stage
from experiments.setup import build
from experiments.setup import config as configs
from experiments.setup.runs import run_one
from experiments.setup.workbench import Workbench
from tests.experiments.test_config import make_run


def test_moments_of_digits_are_those_of_the_training_images():
    pixels = load("digits", "train").in_memory()["image"] / 255
    (mean,), (std,) = build.MOMENTS["digits"]
    assert pixels.mean() == pytest.approx(mean, abs=5e-4)
    assert pixels.std() == pytest.approx(std, abs=5e-4)


def test_evaluation_batches_are_rounded_up_to_the_devices():
    run = make_run(evaluation_batch_size=100)
    data = build.make_data(run, build.load_sources(run, None), meshes.make_mesh())
    assert data.evaluation_batch_size == 104
    assert sum(batch["mask"].sum() for batch in data.evaluation()) == 360


@pytest.mark.parametrize("task", ["segmentation", "super_resolution"])
def test_a_task_that_does_not_suit_the_dataset_is_refused(task):
    with pytest.raises(ValueError, match=f"made for classification, not for {task}"):
        build.make_task(make_run(task=task), load("digits", "train"))


def test_runs_that_differ_in_seed_and_rates_share_a_program():
    run = make_run(optimizer=configs.ClippedSSTM(0.1, 10.0, 1.0))

    def key(**changes):
        return build.program_key(dataclasses.replace(run, **changes), num_train=1437)

    other = configs.ClippedSSTM(0.2, 5.0, 3.0)
    assert key(seed=5, optimizer=other, duration=configs.Duration(steps=7)) == key()
    assert key(optimizer=configs.ClippedSSTM(0.1, 10.0, None)) != key()
    assert key(optimizer=configs.ClippedSSTM(0.1, 10.0, 1.0, step_offset=1)) != key()
    assert key(model=configs.MLP()) != key()
    cosine = configs.LearningRateSchedule("cosine")
    longer = configs.Duration(steps=20)
    assert key(schedule=cosine) != key(schedule=cosine, duration=longer)


@pytest.mark.parametrize("kind", ["constant", "cosine", "linear"])
def test_schedules_warm_up_and_end(kind):
    shape = build.schedule_shape(configs.LearningRateSchedule(kind, warmup_steps=4), steps=24)
    values = np.array([shape(k) for k in range(24)])
    # Warm-up: 1/4, 2/4, 3/4, 4/4; then 20 steps of decay from 1.
    np.testing.assert_allclose(values[:5], [0.25, 0.5, 0.75, 1.0, 1.0])
    k = np.arange(20)
    expected = {
        "constant": np.ones(20),
        "linear": 1 - k / 20,
        "cosine": (1 + np.cos(np.pi * k / 20)) / 2,
    }[kind]
    np.testing.assert_allclose(values[4:], expected, atol=1e-6)


@pytest.mark.parametrize(
    "optimizer",
    [
        configs.SGD(0.1, momentum=0.9),
        configs.Adam(0.01),
        configs.ClippedSGD(0.1, 0.5, momentum=0.9),
        configs.ClippedSSTM(0.1, 2.0, 0.5),
    ],
    ids=lambda o: o.name,
)
@pytest.mark.parametrize("kind", ["constant", "linear"])
def test_traced_rates_give_the_factory_trajectory(optimizer, kind):
    """Built inside jit from traced rates, as training does, or once from numbers: the same."""
    shape = None
    arguments = {f.name: getattr(optimizer, f.name) for f in dataclasses.fields(optimizer)}
    if kind == "linear":
        shape = build.schedule_shape(configs.LearningRateSchedule("linear"), steps=6)
        arguments["learning_rate"] = lambda k: optimizer.learning_rate * shape(k)
    plain = build.FACTORIES[type(optimizer)](**arguments)
    make = build.make_optimizer(optimizer, shape)
    rates = {k: jnp.float32(v) for k, v in build.rates(optimizer).items()}
    params = {"w": jnp.array([1.0, -2.0, 3.0])}
    state = plain.init(params), jax.jit(lambda r, p: make(r).init(p))(rates, params)
    update = jax.jit(lambda r, g, s, p: make(r).update(g, s, p))
    for step in range(6):
        gradient = jax.tree.map(lambda p, k=step: p * (1 + k), params)
        updates, plain_state = plain.update(gradient, state[0], params)
        traced_updates, traced_state = update(rates, gradient, state[1], params)
        chex.assert_trees_all_close(traced_updates, updates, rtol=1e-5, atol=1e-7)
        state = plain_state, traced_state
        params = jax.tree.map(jnp.add, params, updates)


def test_step_metrics_report_the_scheduled_rate_and_the_clipping():
    optimizer = configs.ClippedSGD(0.1, 0.5)
    shape = build.schedule_shape(configs.LearningRateSchedule("linear"), steps=4)
    rates = {k: jnp.float32(v) for k, v in build.rates(optimizer).items()}
    tx = build.make_optimizer(optimizer, shape)(rates)
    params = jnp.zeros(2)
    state = tx.init(params)
    metrics = build.make_step_metrics(optimizer, shape)
    for step, gradient in enumerate(([0.3, 0.0], [3.0, 4.0])):
        _, state = tx.update(jnp.array(gradient), state, params)
        logged = metrics(state, rates, step)
    # Step 1 of 4: rate 0.1 * 3/4. One of two gradients was longer than 0.5.
    assert logged["learning_rate"] == pytest.approx(0.075)
    assert logged["clip_level"] == pytest.approx(0.5)
    assert logged["clipped_fraction"] == pytest.approx(0.5)


def test_averaging_methods_are_evaluated_at_their_average():
    run = make_run(model=configs.MLP(), optimizer=configs.ClippedSSTM(0.1, 10.0, 1.0))
    sources, mesh = build.load_sources(run, None), meshes.make_mesh(jax.devices()[:1])
    program = build.make_program(run, sources, mesh)
    params = {"w": jnp.ones(2)}
    state = program.optimizer({k: jnp.float32(v) for k, v in build.rates(run.optimizer).items()})
    state = state.init(params)
    moved = {"w": jnp.array([2.0, 3.0])}
    chex.assert_trees_all_equal(
        program.evaluation_params(state, moved), clipjax.eval_params(state, moved)
    )
    plain = build.make_program(make_run(model=configs.MLP()), sources, mesh)
    assert plain.evaluation_params(optax.sgd(0.1).init(params), params) is params


def graduated_run(**changes):
    """Noise by 1/√2 a stage of 320 examples, all by the batch: 16, 32, 64, in parts of 8."""
    values = {
        "optimizer": configs.SGD(0.1, momentum=0.5),
        "duration": configs.Duration(examples=960),
        "batch_size": 16,
        "accumulation": 2,
        "graduated": configs.Graduated(3, decay="geometric", factor=0.5**0.5, batch_share=1.0),
    }
    return make_run(**{**values, **changes})


def test_stages_of_a_graduated_run():
    """320 examples are 20 steps of 16, 10 of 32 and 5 of 64: 2, 4 and 8 micro-batches a step."""
    run = graduated_run()
    plan = build.plan(run, 1437)
    assert plan.steps == 35
    assert plan.stages == (Stage(0, 2), Stage(20, 4), Stage(30, 8))
    assert plan.consumed(35) * 8 == 960
    data = build.make_data(run, build.load_sources(run, None), meshes.make_mesh())
    assert data.batch_size == 8


@pytest.mark.parametrize("momentum_share", [0.0, 0.4])
def test_a_graduated_runs_optimizer_takes_the_steps_of_the_transformation(momentum_share):
    """The loop feeds means of growing batches, the transformation makes them of micro-batches."""
    graduated = configs.Graduated(
        3, decay="geometric", factor=0.5, batch_share=0.5, momentum_share=momentum_share
    )
    run = graduated_run(
        graduated=graduated,
        optimizer=configs.ClippedSGD(0.1, 1.0, momentum=0.9),
        duration=configs.Duration(examples=288),
    )
    plan = build.plan(run, 1437)
    rng = np.random.default_rng(0)
    micro = iter(jnp.asarray(rng.normal(size=(plan.consumed(plan.steps), 3)), jnp.float32))
    inner = build.make_graduated_optimizer(run, 1437)({"learning_rate": 0.1, "clip_level": 1.0})
    whole = clipjax.implicit_graduated_optimization(
        clipjax.graduated_schedule(
            0.1,
            16,
            3,
            decay="geometric",
            factor=0.5,
            batch_share=0.5,
            momentum_share=momentum_share,
            momentum=0.9,
        ),
        None,
        8,
        examples_per_stage=96,
        inner=functools.partial(clipjax.clipped_sgd, clip_level=1.0),
    )
    x = y = jnp.zeros(3)
    state, other = inner.init(x), whole.init(y)
    step_inner, step_whole = jax.jit(inner.update), jax.jit(whole.update)
    for step in range(plan.steps):
        group = [next(micro) for _ in range(plan.stage(step).micro_batches)]
        updates, state = step_inner(sum(group) / len(group), state, x)
        x = optax.apply_updates(x, updates)
        for g in group:
            updates, other = step_whole(g, other, y)
            y = optax.apply_updates(y, updates)
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
    assert plan.steps > 10


def test_runs_of_different_stages_do_not_share_a_program():
    def key(**changes):
        return build.program_key(graduated_run(**changes), num_train=1437)

    assert key(seed=5, optimizer=configs.SGD(0.3, momentum=0.5)) == key()
    assert key(duration=configs.Duration(examples=2000)) != key()
    assert key(batch_size=32) != key()
    assert key(graduated=configs.Graduated(3)) != key()


def test_a_batch_that_outgrows_the_data_is_refused():
    fast = configs.Graduated(4, decay="geometric", batch_share=1.0, factor=0.2)
    run = graduated_run(graduated=fast)  # 16, 400, 10,000, ...
    with pytest.raises(ValueError, match="1437"):
        build.plan(run, 1437)


def test_a_network_larger_than_the_memory_is_refused_before_anything_is_written(tmp_path):
    run = make_run(model=configs.MLP(hidden=(2**20, 2**20)))
    with pytest.raises(ValueError, match="GiB that this machine has; make the model smaller"):
        run_one(run, tmp_path / "run", Workbench())
    assert list(tmp_path.iterdir()) == []
