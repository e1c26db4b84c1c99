"""Evaluation of a finished run again, kept in its folder where asked."""

import json

import jax
import numpy as np
import pytest

from clipjax.train import mesh as meshes
from clipjax.train.loop import evaluation_point
from experiments.evaluate import evaluate_run, restore
from experiments.setup import build, samples
from experiments.setup import config as configs
from experiments.setup.runs import run_one
from experiments.setup.workbench import Workbench
from tests.experiments.test_config import make_run


@pytest.fixture(scope="module")
def bench():
    found = Workbench()
    found.mesh = meshes.make_mesh(jax.devices()[:1])
    return found


@pytest.fixture
def trained(tmp_path, bench):
    """A run whose summary and samples are those of a program that measured less."""
    run = make_run(
        model=configs.MLP(hidden=(8,)),
        duration=configs.Duration(steps=2),
        evaluate_every=configs.Duration(steps=2),
        checkpoint_every=configs.Duration(steps=2),
        calibration_batches=1,
        samples=3,
    )
    full = run_one(run, tmp_path, bench)
    old = {k: v for k, v in full.items() if k != "class_names"} | {"metrics": {"loss": 9.0}}
    (tmp_path / "summary.json").write_text(json.dumps(old))
    (tmp_path / "figures" / "samples.npz").unlink()
    return tmp_path, full, old


def written(workdir):
    return json.loads((workdir / "summary.json").read_text())


def test_what_is_measured_again_is_kept_where_asked(trained, bench):
    workdir, full, old = trained
    measured = evaluate_run(workdir, bench)
    assert measured == {"step": 2} | full["metrics"]
    assert written(workdir) == old
    assert evaluate_run(workdir, bench, write=True) == measured
    assert written(workdir) == full
    with np.load(workdir / "figures" / "samples.npz") as samples:
        assert len(samples["prediction"]) == 3


def test_pictures_are_made_at_the_point_that_is_evaluated(tmp_path, bench):
    """Not at the query point of a method that averages; by the run, and by evaluation again."""
    run = make_run(
        model=configs.MLP(hidden=(8,)),
        optimizer=configs.ClippedSSTM(1.0, 1.0, 1.0),
        duration=configs.Duration(steps=4),
        calibration_batches=1,
        samples=3,
    )
    run_one(run, tmp_path, bench)
    _, state = restore(tmp_path, bench)
    program, data = bench.program(run), build.make_data(run, bench.sources(run), bench.mesh)
    point = evaluation_point(program, state, data, 1)

    def probabilities(params):
        found = samples.examples(program, (params, point[1]), data, 3)
        return np.array([example["probability"] for example in found])

    for again in (False, True):
        if again:
            (tmp_path / "figures" / "samples.npz").unlink()
            evaluate_run(tmp_path, bench, write=True)
        with np.load(tmp_path / "figures" / "samples.npz") as arrays:
            np.testing.assert_array_equal(arrays["probability"], probabilities(point[0]))
    assert np.abs(probabilities(point[0]) - probabilities(state.params)).max() > 1e-3


def test_only_a_finished_run_is_written_to(trained, bench):
    workdir, full, _ = trained
    diverged = full | {"status": "diverged"}
    (workdir / "summary.json").write_text(json.dumps(diverged))
    with pytest.raises(ValueError, match="leave out --write, or train with the same config"):
        evaluate_run(workdir, bench, write=True)
    (workdir / "summary.json").write_text(json.dumps(full | {"steps": 4}))
    with pytest.raises(ValueError, match="of step 2, its summary of step 4: train it to its end"):
        evaluate_run(workdir, bench, write=True)
    for other in ({"dataset": "digits"}, {"split": "train"}):
        with pytest.raises(ValueError, match="on its own held-out examples"):
            evaluate_run(workdir, bench, **other, write=True)
    (workdir / "summary.json").unlink()
    with pytest.raises(ValueError, match="leave out --write, or train with the same config"):
        evaluate_run(workdir, bench, write=True)
    assert {path.name for path in workdir.iterdir()} >= {"config.json", "checkpoints"}
    assert not (workdir / "figures" / "samples.npz").exists()
