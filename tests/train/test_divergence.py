"""A run that diverges without a bad training loss: found before it is saved, measured or ended."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clipjax.train import mesh as meshes
from clipjax.train.checkpoint import Checkpoints, Position
from clipjax.train.log import MetricsFile, finite_or_null, read_jsonl, write_json
from clipjax.train.loop import NonFiniteLoss, Plan, train
from clipjax.train.probe import Probe
from clipjax.train.step import Program, controls
from tests.train.toys import Net, Points, Regression

PLAN = Plan(steps=12, log_every=2, evaluate_every=5, checkpoint_every=4)


def optimizer(rates):
    """SGD whose update number `at`, from 1, is multiplied by `factor`.

    The state is (steps done, a number that is `memory` from step `at` on).
    """

    def init(params):
        return jnp.int32(0), jnp.float32(0)

    def update(gradients, state, params=None):
        step = state[0] + 1
        scale = jnp.where(step == rates["at"], rates["factor"], 1) * rates["learning_rate"]
        memory = jnp.where(step >= rates["at"], rates["memory"], 0)
        return jax.tree.map(lambda g: -scale * g, gradients), (step, memory)

    return optax.GradientTransformation(init, update)


@pytest.fixture(scope="module")
def prog():
    """One program for all tests: what goes wrong, and when, are rates."""
    return Program(
        model=Net(batch_norm=False),
        task=Regression(),
        optimizer=optimizer,
        evaluation_params=lambda state, params: jax.tree.map(lambda x: x + state[1], params),
        step_metrics=lambda state, rates, step: {"level": jnp.inf},
        mesh=meshes.make_mesh(jax.devices()[:1]),
    )


def go(workdir, prog, at=0, factor=1.0, memory=0.0, **options):
    workdir.mkdir(exist_ok=True)
    rates = {"learning_rate": 0.05, "at": at, "factor": factor, "memory": memory}
    with Checkpoints(workdir / "checkpoints", Position(0, 16)) as checkpoints:
        return train(
            prog,
            Points(),
            controls(0, rates),
            PLAN,
            workdir=workdir,
            checkpoints=checkpoints,
            **options,
        )


def saved(workdir):
    return sorted(int(p.name.removeprefix("step_")) for p in (workdir / "checkpoints").iterdir())


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_a_last_step_that_ruins_the_parameters_is_no_end(tmp_path, prog, factor):
    """The loss of step 12 is of the parameters before it, and finite."""
    with pytest.raises(NonFiniteLoss, match=r"parameters .* after step 12, .* of step 8, is good"):
        go(tmp_path, prog, at=12, factor=factor)
    assert saved(tmp_path) == [4, 8]
    assert read_jsonl(tmp_path / "metrics.jsonl")[-1]["step"] == 12  # the training's row only
    assert [
        row["step"] for row in read_jsonl(tmp_path / "metrics.jsonl") if row["split"] != "train"
    ] == [5, 10]


def test_what_is_not_finite_is_never_saved(tmp_path, prog):
    """Step 8 is saved; its own loss is finite, and only that of step 9 would show the fault."""
    for _ in range(2):  # the second one goes on from step 4, and comes to the same
        with pytest.raises(NonFiniteLoss, match=r"after step 8, .* of step 4, is good"):
            go(tmp_path, prog, at=8, factor=np.nan)
        assert saved(tmp_path) == [4]
    outcome = go(tmp_path, prog)  # with rates that do no harm it comes to its end
    assert outcome.start == 4
    assert np.isfinite(outcome.metrics["loss"])


def test_without_a_checkpoint_none_is_promised(tmp_path, prog):
    with pytest.raises(NonFiniteLoss, match=r"after step 4, .* No checkpoint was saved$"):
        go(tmp_path, prog, at=4, factor=np.nan)
    assert saved(tmp_path) == []


def test_the_evaluation_point_counts_where_the_query_point_is_finite(tmp_path, prog):
    with pytest.raises(NonFiniteLoss, match=r"parameters .* after step 8"):
        go(tmp_path, prog, at=6, memory=np.nan)
    assert saved(tmp_path) == [4]


def test_finite_parameters_with_an_evaluation_loss_that_is_not(tmp_path, prog):
    """Updates of 1e25 make parameters of about 1e24: finite, but their square is none in float32.

    A network of two layers multiplies two of them, and the loss squares the product.
    """
    with pytest.raises(NonFiniteLoss, match=r"the evaluation loss is (inf|nan) after step 12"):
        go(tmp_path, prog, at=12, factor=1e25)
    assert saved(tmp_path) == [4, 8]


@pytest.mark.parametrize("moment", ["momentum", "second moment"])
def test_moments_that_are_not_finite_are_not_saved_with_finite_parameters(tmp_path, moment):
    """At step 4 one gradient is 1e30, whose square is infinite in float32.

    Adam then divides by the infinite root: its update is 0 there for ever. A momentum that keeps
    infinity for a step, as one that is decayed after it is used, shows in the next loss only.
    """

    def lagging():
        """Gradient descent that uses the momentum of the step before."""

        def init(params):
            return jax.tree.map(jnp.zeros_like, params), jnp.inf  # a level that is none yet

        def update(gradients, state, params=None):
            return jax.tree.map(lambda m: -0.001 * m, state[0]), (gradients, jnp.inf)

        return optax.GradientTransformation(init, update)

    def blown_up(rates):
        inner = lagging() if moment == "momentum" else optax.adam(0.001)
        size = jnp.inf if moment == "momentum" else 1e30

        def init(params):
            return jnp.int32(0), inner.init(params)

        def update(gradients, state, params=None):
            scale = jnp.where(state[0] == 3, size, 1)
            gradients = jax.tree.map(lambda g: jnp.where(g == 0, 0, scale * g), gradients)
            updates, new = inner.update(gradients, state[1], params)
            return updates, (state[0] + 1, new)

        return optax.GradientTransformation(init, update)

    program = Program(
        model=Net(batch_norm=False),
        task=Regression(),
        optimizer=blown_up,
        evaluation_params=lambda state, params: params,
        step_metrics=lambda state, rates, step: {},
        mesh=meshes.make_mesh(jax.devices()[:1]),
    )
    with pytest.raises(NonFiniteLoss, match=r"the optimizer's state .* after step 4, though") as e:
        go(tmp_path, program)
    assert "No checkpoint was saved" in str(e.value)
    assert saved(tmp_path) == []


def test_a_stop_saves_nothing_that_is_not_finite(tmp_path, prog):
    asked = iter(range(1, 20))
    with pytest.raises(NonFiniteLoss, match="after step 7"):
        go(tmp_path, prog, at=7, factor=np.nan, should_stop=lambda: next(asked) == 7)
    assert saved(tmp_path) == [4]


def test_a_probe_is_not_shown_what_is_not_finite(tmp_path, prog):
    def measure(state):
        raise AssertionError("asked about a state that is not finite")

    with pytest.raises(NonFiniteLoss, match="after step 7"):
        go(tmp_path, prog, at=7, factor=np.nan, probe=Probe("noise", 7, measure))


def strict(text):
    """Read JSON as other languages do: NaN and Infinity are no numbers."""

    def refuse(name):
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_rows_are_json_whatever_a_method_reports(tmp_path, prog):
    """`level` is infinite at every step, as a threshold may be before its first estimate."""
    go(tmp_path, prog)
    rows = [strict(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {row["level"] for row in rows if row["split"] == "train"} == {None}


def test_json_files_hold_null_for_what_is_not_finite(tmp_path):
    value = {"a": [1.0, np.inf, {"b": (np.float64("nan"), "inf")}], "c": np.float64(2)}
    write_json(tmp_path / "a.json", value)
    found = strict((tmp_path / "a.json").read_text())
    assert found == finite_or_null(value) == {"a": [1.0, None, {"b": [None, "inf"]}], "c": 2.0}


def test_rows_of_earlier_versions_become_json_when_a_run_goes_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "split": "train", "loss": NaN, "level": Infinity}\n')
    with MetricsFile(path, step=1):
        pass
    assert strict(path.read_text()) == {"step": 1, "split": "train", "loss": None, "level": None}
