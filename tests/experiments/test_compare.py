"""experiments.compare: every run once, one compilation for all seeds and rates, resumable."""

import dataclasses
import json
import os
import shutil

import jax
import jax.numpy as jnp
import pytest

from experiments import compare
from experiments.setup import config as configs
from experiments.setup import locks
from experiments.setup.runs import run_one
from experiments.setup.workbench import Workbench

RUN = configs.Run(
    task="classification",
    dataset="digits",
    model=configs.MLP(),
    optimizer=configs.SGD(0.1),
    duration=configs.Duration(steps=12),
    batch_size=64,
    evaluate_every=configs.Duration(steps=6),
    checkpoint_every=configs.Duration(steps=6),
)
GRID = configs.Grid(
    {
        "classification/sgd": RUN,
        "classification/sgd_fast": dataclasses.replace(RUN, optimizer=configs.SGD(0.2)),
        "classification/clipped_sgd": dataclasses.replace(
            RUN, optimizer=configs.ClippedSGD(0.1, 1.0)
        ),
        "classification/diverges": dataclasses.replace(RUN, optimizer=configs.SGD(1e30)),
    },
    seeds=(0, 1),
)


@pytest.fixture(scope="module")
def bench():
    return Workbench()


@pytest.fixture(scope="module")
def done(tmp_path_factory, bench):
    """The finished grid: (workdir, summaries, lines said)."""
    workdir, lines = tmp_path_factory.mktemp("grid"), []
    return workdir, compare.run_grid(GRID, workdir, bench, say=lines.append), lines


def test_every_run_has_its_own_workdir(done):
    workdir, summaries, lines = done
    found = sorted(str(p.parent.relative_to(workdir)) for p in workdir.rglob("summary.json"))
    assert found == sorted(f"{key}/seed{seed}" for key in GRID.runs for seed in (0, 1))
    assert len(summaries) == len(lines) == 8
    assert [s["seed"] for s in summaries[:2]] == [0, 1]
    assert summaries[0]["params_digest"] != summaries[1]["params_digest"]
    assert summaries[0]["params_digest"] != summaries[2]["params_digest"]


def test_a_diverged_run_is_one_of_the_results(done):
    _, summaries, lines = done
    assert [s["status"] for s in summaries] == ["finished"] * 6 + ["diverged"] * 2
    assert "the loss is" in summaries[-1]["reason"]
    assert "diverged" in lines[-1]


def test_one_compilation_for_each_method(done, bench):
    """Three optimizer settings of two methods, two seeds each: two programs, compiled once."""
    programs = list(bench._programs.values())
    assert len(programs) == 2
    for program in programs:
        assert program.train_step._cache_size() == 1
        assert program.init.func._cache_size() == 1
        assert program.evaluate._cache_size() == 1


def test_a_run_in_a_grid_equals_the_run_alone(done, tmp_path):
    """Sharing a program changes nothing: the same digest as from a program of its own."""
    _, summaries, _ = done
    alone = configs.Grid({"classification/sgd_fast": GRID.runs["classification/sgd_fast"]}, (1,))
    (summary,) = compare.run_grid(alone, tmp_path, Workbench(), say=lambda _: None)
    assert summary["params_digest"] == summaries[3]["params_digest"]


def test_called_again_it_does_what_is_missing(done, bench, tmp_path):
    workdir, summaries, _ = done
    copy = tmp_path / "grid"
    shutil.copytree(workdir, copy)
    shutil.rmtree(copy / "classification/sgd/seed1")
    lines = []
    again = compare.run_grid(GRID, copy, bench, say=lines.append)
    assert len(lines) == 1
    assert "classification/sgd/seed1" in lines[0]
    digests = [[s.get("params_digest") for s in result] for result in (summaries, again)]
    assert digests[0] == digests[1]


def test_a_grid_stops_and_goes_on(done, bench, tmp_path):
    _, summaries, _ = done
    grid = configs.Grid({"classification/sgd": RUN}, seeds=(0, 1))
    asked = iter(range(100))
    stop = compare.run_grid(
        grid, tmp_path, bench, should_stop=lambda: next(asked) >= 15, say=lambda _: None
    )
    assert stop is None
    again = compare.run_grid(grid, tmp_path, bench, say=lambda _: None)
    assert [s["params_digest"] for s in again] == [s["params_digest"] for s in summaries[:2]]


def test_another_config_in_a_run_folder_is_refused(done, bench):
    workdir, _, _ = done
    other = dataclasses.replace(RUN, batch_size=32)
    with pytest.raises(ValueError, match="batch_size was 64, is 32"):
        compare.run_grid(configs.Grid({"classification/sgd": other}, (0,)), workdir, bench)


def test_a_damaged_summary_is_named(done, bench, tmp_path):
    folder = tmp_path / "classification/sgd/seed0"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text('{"status": "fin')
    with pytest.raises(ValueError, match=r"summary.json is damaged"):
        compare.run_grid(configs.Grid({"classification/sgd": RUN}, (0,)), tmp_path, bench)


def test_only_selects_and_names_the_nearest():
    assert list(compare.select(GRID, ["clipped"]).runs) == ["classification/clipped_sgd"]
    with pytest.raises(ValueError, match="did you mean 'clipped_sgd'"):
        compare.select(GRID, ["cliped_sgd"])


def test_the_command_line_refuses_a_single_run(tmp_path):
    with pytest.raises(ValueError, match=r"is one run; run it with python -m experiments.train"):
        compare.main(["--config", "configs/smoke.py", "--workdir", str(tmp_path)])


def test_summaries_are_json(done):
    workdir, summaries, _ = done
    path = workdir / "classification/sgd/seed0/summary.json"
    assert json.loads(path.read_text()) == summaries[0]


ONE_STEP = dataclasses.replace(RUN, duration=configs.Duration(steps=1))


def test_an_update_that_is_not_finite_is_divergence_and_never_saved(tmp_path, bench, monkeypatch):
    program = bench.program(ONE_STEP)
    # The step's loss is finite; then its parameters are not.
    step = program.train_step

    def spoiled(state, *rest):
        state, metrics = step(state, *rest)
        lost = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)
        return state._replace(params=lost), metrics

    monkeypatch.setitem(program.__dict__, "train_step", spoiled)
    told = run_one(ONE_STEP, tmp_path / "run", bench)
    assert "NaN or infinite after step 1, though its loss" in told["reason"]
    text = (tmp_path / "run" / "summary.json").read_text()
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert summary == told
    assert (summary["status"], summary["metrics"]) == ("diverged", {})
    assert not list((tmp_path / "run" / "checkpoints").glob("step_*"))
    monkeypatch.undo()
    # The same run comes to the same at once.
    assert run_one(ONE_STEP, tmp_path / "run", bench) == summary


def test_two_runs_of_one_grid_do_not_mix(tmp_path, bench):
    held = tmp_path / "classification" / "sgd" / "seed0"
    told = pytest.raises(locks.Held, match=f"{os.getpid()}")
    with locks.hold(held), told:  # a process may not even disturb itself
        compare.run_grid(GRID, tmp_path, bench, say=lambda _: None)
    assert not list(tmp_path.rglob("config.json"))
