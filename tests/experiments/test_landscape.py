"""The loss around a small run's checkpoint, and the plane through several runs."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import landscape
from experiments.config import MLP, SGD, ClippedSSTM, Duration, Run
from experiments.setup.runs import run_one
from experiments.setup.workbench import Workbench

RUN = Run(
    task="classification",
    dataset="digits",
    model=MLP(hidden=(8,)),
    optimizer=ClippedSSTM(0.1, 1.0, 1.0),
    duration=Duration(steps=10),
    batch_size=64,
    log_every=10,
    evaluate_every=Duration(steps=10),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder, bench = tmp_path_factory.mktemp("landscape"), Workbench()
    run_one(RUN, folder / "sstm", bench)
    for rate in (0.1, 0.01):
        run_one(dataclasses.replace(RUN, optimizer=SGD(rate)), folder / f"sgd{rate}", bench)
    return folder, bench


def test_pictures_of_a_plane_a_line_and_several_runs(trained, monkeypatch, capsys):
    folder, bench = trained
    monkeypatch.setattr(landscape, "start_jax", lambda command: None)  # JAX has started here
    monkeypatch.setattr(landscape, "Workbench", lambda _: bench)
    line = ["--workdir", str(folder / "sstm"), "--points", "5", "--examples", "50"]
    line += ["--through", str(folder / "sgd0.1"), str(folder / "sgd0.01")]
    assert landscape.main(line) == 0
    assert "landscape.html" in capsys.readouterr().out
    summary = json.loads((folder / "sstm" / "landscape.json").read_text())
    arrays = np.load(folder / "sstm" / "landscape.npz")
    # The middle of the random plane and the line's end are the evaluation point itself.
    assert arrays["random/values"].shape == (5, 5)
    assert arrays["random/values"][2, 2] == pytest.approx(summary["loss"], rel=1e-5)
    assert np.interp(1, arrays["line/alphas"], arrays["line/values"]) > 0
    assert summary["points"] == ["sgd0.1", "sgd0.01", "sstm"]
    np.testing.assert_allclose(arrays["through/residuals"], 0, atol=1e-4)
    np.testing.assert_allclose(arrays["through/coordinates"][-1], 0)
    for name in ("random", "line", "through"):
        figure = folder / "sstm" / "figures" / f"landscape_{name}.png"
        assert figure.read_bytes().startswith(b"\x89PNG")
    assert "## Through several runs" in (folder / "sstm" / "landscape.md").read_text()


def test_a_method_that_does_not_average_has_no_line(trained):
    folder, bench = trained
    command = landscape.LandscapeCommand(folder / "sgd0.1", points=3, examples=20)
    summary, arrays = landscape.measure(command, bench)
    assert "line/values" not in arrays
    assert "distance" not in summary


def test_bad_input_is_named(trained, tmp_path):
    folder, bench = trained
    for changed, words in (
        ({"points": 2}, "points is 2"),
        ({"reach": 0.0}, "reach is 0.0"),
        ({"through": (tmp_path,)}, "through names one run"),
    ):
        with pytest.raises(ValueError, match=words):
            landscape.LandscapeCommand(folder, **changed)
    run_one(dataclasses.replace(RUN, model=MLP(hidden=(9,))), folder / "wide", bench)
    command = landscape.LandscapeCommand(
        folder / "sstm", through=(folder / "wide", folder / "sgd0.1"), points=3, examples=20
    )
    with pytest.raises(ValueError, match="not of MLP"):
        landscape.measure(command, bench)
