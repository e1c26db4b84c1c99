"""The loop: order of events, resume to the bit, stop, divergence."""

import dataclasses
import json
import time

import chex
import jax
import numpy as np
import pytest

from clipjax.train import mesh as meshes
from clipjax.train.checkpoint import Checkpoints, Position
from clipjax.train.log import read_jsonl
from clipjax.train.loop import NonFiniteLoss, Plan, Stage, evaluate, evaluation_point, train
from clipjax.train.probe import Probe
from clipjax.train.state import digest
from clipjax.train.step import controls, step
from tests.train.toys import Net, Points, program

PLAN = Plan(steps=12, log_every=2, evaluate_every=5, checkpoint_every=4)
CONTROLS = controls(0, {"learning_rate": 0.05})


@pytest.fixture(scope="module")
def prog():
    return program(jax.devices()[:2])


def go(workdir, prog, *, data=None, plan=PLAN, **options):
    workdir.mkdir(exist_ok=True)
    with Checkpoints(workdir / "checkpoints", Position(0, 16)) as checkpoints:
        return train(
            prog,
            data or Points(),
            CONTROLS,
            plan,
            workdir=workdir,
            checkpoints=checkpoints,
            **options,
        )


def steady(rows):
    """Return the rows without what is a matter of time."""
    times = ("input_wait", "images_per_second", "seconds")
    return [{k: v for k, v in row.items() if k not in times} for row in rows]


def test_rows_come_when_planned(tmp_path, prog):
    outcome = go(tmp_path, prog)
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert [r["step"] for r in rows if r["split"] == "train"] == [2, 4, 6, 8, 10, 12]
    assert [r["step"] for r in rows if r["split"] == "evaluation"] == [5, 10, 12]
    assert all(r["examples"] == 16 * r["step"] for r in rows)
    assert {"loss", "gradient_norm", "learning_rate", "input_wait", "images_per_second"} <= set(
        rows[0]
    )
    assert rows[-1]["loss"] == pytest.approx(outcome.metrics["loss"], rel=1e-6)
    assert 0 <= outcome.input_wait <= 1


def test_evaluation_counts_each_example_once(prog):
    """20 examples in batches of 16: the mean over the 20, computed here in float64."""
    data = Points()
    state = prog.init(CONTROLS, meshes.place(next(data.calibration(1)), prog.mesh))
    point = evaluation_point(prog, state, data, 3)
    metrics = evaluate(prog, *point, data)
    params, model_state = jax.device_get(point)
    squares = [
        (np.float64(prog.model.apply({"params": params, **model_state}, x, train=False)) - y) ** 2
        for batch in data.evaluation()
        for x, y, mask in zip(batch["image"], batch["label"], batch["mask"], strict=True)
        if mask
        for x in [x[None]]
    ]
    assert len(squares) == 20
    assert metrics["loss"] == pytest.approx(np.mean(squares), rel=1e-5)


def test_evaluation_leaves_training_untouched(tmp_path, prog):
    often = go(tmp_path / "often", prog, plan=Plan(12, 2, 1, 4))
    never = go(tmp_path / "never", prog, plan=Plan(12, 2, 12, 4))
    chex.assert_trees_all_equal(often.state, never.state)


@pytest.mark.parametrize("stop_after", [1, 4, 5, 6, 11])
def test_stopped_and_resumed_is_bit_equal(tmp_path, prog, stop_after):
    """Also where an evaluation (5) or the probe (6) is due at the step that was the last one."""
    whole = go(tmp_path / "whole", prog, probe=noted({}))
    asked = iter(range(1, 100))
    stopped = go(
        tmp_path / "parts",
        prog,
        probe=noted({}),
        should_stop=lambda: next(asked) >= stop_after,
    )
    assert stopped.stopped
    assert int(stopped.state.step) == stop_after
    resumed = go(tmp_path / "parts", prog, probe=noted({}))
    assert resumed.start == stop_after
    assert digest(resumed.state) == digest(whole.state)
    rows = [steady(read_jsonl(tmp_path / name / "metrics.jsonl")) for name in ("whole", "parts")]
    assert rows[0] == rows[1]


class Killed(Exception):
    """Stands for a kill: leaves the loop without any of its endings."""


def test_killed_after_a_checkpoint_is_bit_equal(tmp_path, prog):
    whole = go(tmp_path / "whole", prog)

    asked = iter(range(1, 100))

    def kill_at_step_7():
        if next(asked) == 7:
            raise Killed
        return False

    with pytest.raises(Killed):
        go(tmp_path / "parts", prog, should_stop=kill_at_step_7)
    with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
        file.write('{"split": "train", "st')  # cut short by the kill
    resumed = go(tmp_path / "parts", prog)
    assert resumed.start == 4
    assert digest(resumed.state) == digest(whole.state)
    rows = [steady(read_jsonl(tmp_path / name / "metrics.jsonl")) for name in ("whole", "parts")]
    assert rows[0] == rows[1]


def test_more_steps_go_on_from_the_end(tmp_path, prog):
    plan = Plan(16, 2, 5, 4)
    whole = go(tmp_path / "whole", prog, plan=plan)
    go(tmp_path / "parts", prog)
    longer = go(tmp_path / "parts", prog, plan=plan)
    assert longer.start == 12
    assert digest(longer.state) == digest(whole.state)


def test_called_again_at_the_end_evaluates_without_training(tmp_path, prog):
    first, again = go(tmp_path, prog), go(tmp_path, prog)
    assert again.start == 12
    assert again.metrics == first.metrics


def test_a_non_finite_loss_ends_the_run_with_the_reason(tmp_path, prog):
    with pytest.raises(NonFiniteLoss, match=r"nan at step 7 .*learning_rate.* of step 4, is good"):
        go(tmp_path, prog, data=Points(poison=6))
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    assert all(np.isfinite(row["loss"]) for row in rows)
    assert "NaN" not in json.dumps(rows)
    # What is saved is from before.
    assert go(tmp_path, prog).start == 4


def test_a_batch_that_does_not_split_is_refused(tmp_path, prog):
    with pytest.raises(ValueError, match=r"batch of 15 .* 2 devices; .* such as 16"):
        go(tmp_path, prog, data=Points(batch_size=15))
    assert not (tmp_path / "metrics.jsonl").exists()


GROWING = (Stage(0, 1), Stage(4, 2), Stage(6, 4))
"""Micro-batches 0 to 3 one by one, 4 to 7 in pairs, then 8 to 11 and 12 to 15 in fours."""


def test_growing_batches_take_the_stream_in_order(tmp_path):
    """Eight steps equal those of `step` on groups cut from the stream by hand."""
    plan = Plan(8, 1, 4, 100, stages=GROWING)
    prog = program(jax.devices()[:2])
    outcome = go(tmp_path, prog, plan=plan)
    batches = [
        meshes.place(b, prog.mesh) for b, _ in zip(Points().train(0), range(16), strict=False)
    ]
    groups = [batches[i : i + 1] for i in range(4)] + [batches[4:6], batches[6:8]]
    groups += [batches[8:12], batches[12:16]]
    state = prog.init(CONTROLS, meshes.place(next(Points().calibration(1)), prog.mesh))
    for group in groups:
        state, _ = step(prog, state, group, CONTROLS)
    chex.assert_trees_all_equal(outcome.state.params, state.params)
    rows = read_jsonl(tmp_path / "metrics.jsonl")
    trained = [row for row in rows if row["split"] == "train"]
    # Logged each 16 examples: every step; evaluated each 64: after 4, 8, 12 and 16 micro-batches.
    assert [row["examples"] // 16 for row in trained] == [1, 2, 3, 4, 6, 8, 12, 16]
    assert [row["batch_size"] // 16 for row in trained] == [1, 1, 1, 1, 2, 2, 4, 4]
    assert [r["examples"] for r in rows if r["split"] == "evaluation"] == [64, 128, 192, 256]


@pytest.mark.parametrize("ragged", [False, True])
def test_one_large_batch_takes_the_same_steps(tmp_path, ragged):
    """Without BatchNorm or dropout, to rounding; and it compiles once a stage.

    Also where different numbers of examples count, none in one micro-batch.
    """
    data = Points(ragged=ragged)
    prog = program(jax.devices()[:1], model=Net(batch_norm=False))
    whole = program(jax.devices()[:1], model=Net(batch_norm=False))
    plan = Plan(8, 1, 4, 100, GROWING)
    first = go(tmp_path / "a", prog, data=data, plan=plan)
    second = go(
        tmp_path / "b", whole, data=data, plan=dataclasses.replace(plan, whole_batches=True)
    )
    chex.assert_trees_all_close(first.state.params, second.state.params, rtol=1e-4, atol=1e-6)
    losses = [
        [row["loss"] for row in read_jsonl(tmp_path / name / "metrics.jsonl")] for name in "ab"
    ]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert whole.train_step._cache_size() == 3
    assert whole.accumulate._cache_size() == 0


@pytest.mark.parametrize("stop_after", [5, 7])
def test_growing_batches_resume_within_a_stage_to_the_bit(tmp_path, stop_after):
    prog, plan = program(jax.devices()[:1]), Plan(8, 1, 8, 100, stages=GROWING)
    whole = go(tmp_path / "a", prog, plan=plan)
    calls = iter(range(1, 9))
    go(tmp_path / "b", prog, plan=plan, should_stop=lambda: next(calls) == stop_after)
    resumed = go(tmp_path / "b", prog, plan=plan)
    assert resumed.start == stop_after
    chex.assert_trees_all_equal(resumed.state, whole.state)
    assert steady(read_jsonl(tmp_path / "a" / "metrics.jsonl")) == steady(
        read_jsonl(tmp_path / "b" / "metrics.jsonl")
    )


@pytest.mark.parametrize("stages", [(), (Stage(1, 1),), (Stage(0, 1), Stage(0, 2)), (Stage(0, 0),)])
def test_stages_that_are_none_are_refused(stages):
    with pytest.raises(ValueError, match=r"stages start at|no micro-batches"):
        Plan(8, 1, 4, 100, stages=stages)


def test_models_without_batch_norm_train_too(tmp_path):
    plain = program(jax.devices()[:1], model=Net(batch_norm=False))
    assert np.isfinite(go(tmp_path, plain).metrics["loss"])


def noted(states):
    """Return a probe that keeps the digests of what it is shown, by step."""

    def measure(state):
        states[int(state.step)] = digest(state)
        time.sleep(0.001)
        return {"step_seen": state.step, "heavy": np.inf}

    return Probe("noise", 3, measure)


def test_a_probe_has_rows_of_its_own_and_leaves_training_untouched(tmp_path, prog):
    seen = {}
    without = go(tmp_path / "without", prog)
    outcome = go(tmp_path / "with", prog, probe=noted(seen))
    chex.assert_trees_all_equal(outcome.state, without.state)
    assert seen[12] == digest(without.state)  # the last step is a multiple of 3
    found = read_jsonl(tmp_path / "with" / "metrics.jsonl")
    rows = [row for row in found if row["split"] == "noise"]
    assert [(row["step"], row["examples"], row["step_seen"]) for row in rows] == [
        (step, 16 * step, step) for step in (3, 6, 9, 12)
    ]
    assert {row["heavy"] for row in rows} == {"inf"}  # as JSON can hold it
    kept = [row for row in found if row["split"] != "noise"]
    assert steady(kept) == steady(read_jsonl(tmp_path / "without" / "metrics.jsonl"))
    assert outcome.probe_times == tuple(row["seconds"] for row in rows)
    assert 0 < outcome.probe_share < 1
    assert (without.probe_times, without.probe_share) == ((), 0)


def test_a_killed_run_has_each_row_of_its_probe_once(tmp_path, prog):
    """Killed at step 7, after the row of step 6 and the checkpoint of step 4."""
    whole = go(tmp_path / "whole", prog, probe=noted({}))
    asked = iter(range(1, 100))

    def kill_at_step_7():
        if next(asked) == 7:
            raise Killed
        return False

    with pytest.raises(Killed):
        go(tmp_path / "parts", prog, probe=noted({}), should_stop=kill_at_step_7)
    before = read_jsonl(tmp_path / "parts" / "metrics.jsonl")
    assert [row["step"] for row in before if row["split"] == "noise"] == [3, 6]
    resumed = go(tmp_path / "parts", prog, probe=noted({}))
    assert resumed.start == 4
    assert digest(resumed.state) == digest(whole.state)
    rows = [steady(read_jsonl(tmp_path / name / "metrics.jsonl")) for name in ("whole", "parts")]
    assert rows[0] == rows[1]


def test_the_probe_of_a_run_that_diverges_does_not_hide_why(tmp_path, prog):
    def measure(state):
        raise AssertionError("asked about a state after a loss that is NaN")

    with pytest.raises(NonFiniteLoss, match="nan at step 7"):
        go(tmp_path, prog, data=Points(poison=6), probe=Probe("noise", 7, measure))
