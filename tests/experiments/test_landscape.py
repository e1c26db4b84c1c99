"""The loss around a small run's checkpoint, and the plane through several runs."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clipjax
from clipjax.train import batch_stats
from clipjax.train import mesh as meshes
from clipjax.train.loop import evaluation_point
from clipjax.train.step import controls, step
from experiments import landscape
from experiments.config import MLP, SGD, ClippedSSTM, Duration, Run
from experiments.report.landscape import make_page as page
from experiments.report.landscape import write_landscape
from experiments.report.page import to_markdown
from experiments.setup.runs import run_one
from experiments.setup.workbench import Workbench
from tests.train.toys import Points, program

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
    monkeypatch.setattr(landscape, "Workbench", lambda *_: bench)
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
    text = (folder / "sstm" / "landscape.md").read_text()
    assert "## Through several runs" in text
    assert f"| sgd0.1 | {summary['losses'][0]:.3g} |" in text
    assert "BatchNorm" not in text
    del summary["losses"]
    (folder / "sstm" / "landscape.json").write_text(json.dumps(summary))
    with pytest.raises(ValueError, match=r"landscape\.json is damaged: .* a loss for each point"):
        write_landscape(folder / "sstm")


def test_a_method_that_does_not_average_has_no_line(trained):
    folder, bench = trained
    command = landscape.LandscapeCommand(folder / "sgd0.1", points=3, examples=20)
    summary, arrays = landscape.measure(command, bench)
    assert "line/values" not in arrays
    assert "distance" not in summary


def test_all_examples_are_used_where_there_are_fewer_than_asked(trained):
    folder, bench = trained
    command = landscape.LandscapeCommand(folder / "sgd0.1", points=3, examples=2000)
    summary, arrays = landscape.measure(command, bench)
    assert (summary["examples"], summary["examples_asked"]) == (1437, 2000)  # 22 batches and 29
    made = page(summary, arrays)
    assert "1,437 training examples (all there are; 2,000 were asked for)" in made.lead


# -- Networks with BatchNorm ----------------------------------------------------------------------


def toy_state(prog, data, rate, steps=30):
    rates = controls(0, {"learning_rate": rate})
    state = prog.init(rates, meshes.place(next(data.calibration(1)), prog.mesh))
    for batch, _ in zip(data.train(0), range(steps), strict=False):
        state, _ = step(prog, state, [meshes.place(batch, prog.mesh)], rates)
    return state


@pytest.fixture(scope="module")
def normalised():
    """Three runs of a network with BatchNorm, by a method that averages: states by name."""
    data, mesh = Points(), jax.devices()[:1]
    prog = dataclasses.replace(
        program(mesh, optimizer=lambda r: clipjax.clipped_sstm(r["learning_rate"], 1.0, 1.0)),
        evaluation_params=clipjax.eval_params,
    )
    return prog, data, {f"rate{r}": toy_state(prog, data, r) for r in (0.3, 0.1, 0.02)}


@pytest.fixture
def measured(normalised, monkeypatch, tmp_path):
    """What the command measures of the three runs, six batches being what `evaluate` takes."""
    prog, data, states = normalised
    bench = SimpleNamespace(program=lambda _: prog, sources=lambda _: None, mesh=prog.mesh)
    run = SimpleNamespace(model="toy", dataset="points")
    monkeypatch.setattr(landscape, "restore", lambda path, _: (run, states[path.name]))
    monkeypatch.setattr(landscape.build, "make_data", lambda *_: data)
    command = landscape.LandscapeCommand(
        tmp_path / "rate0.3",
        through=(tmp_path / "rate0.1", tmp_path / "rate0.02"),
        points=4,
        chunk=3,
        examples=20,
        calibration_batches=6,
    )
    return command, *landscape.measure(command, bench)


def as_evaluated(prog, params, model_state, examples):
    """Return the loss of examples as `evaluate` would have it."""
    batch = {name: jnp.asarray(value) for name, value in examples.items()}
    outputs = prog.model.apply({"params": params, **model_state}, batch["image"], train=False)
    return float(prog.task.loss(outputs, batch))


def test_a_checkpoint_in_the_plane_has_the_loss_that_evaluate_gives_it(normalised, measured):
    """Each run's own statistics are recomputed there by `evaluation_point`, on the same batches."""
    prog, data, states = normalised
    command, summary, arrays = measured
    examples = landscape.training_examples(data, command.examples)
    batches = list(data.calibration(6))
    assert summary["points"] == ["rate0.1", "rate0.02", "rate0.3"]
    points = [evaluation_point(prog, states[name], data, 6) for name in summary["points"]]
    expected = [as_evaluated(prog, *point, examples) for point in points]
    np.testing.assert_allclose(summary["losses"], expected, rtol=1e-5)
    assert summary["loss"] == summary["losses"][-1]
    # The plane itself, at the coordinates of the checkpoints.
    state = states["rate0.3"].model_state
    loss = landscape.set_loss(prog, state, examples, batches, chunk=3)
    plane = landscape.landscape.plane_through([params for params, _ in points])
    for (alpha, beta), value in zip(arrays["through/coordinates"], expected, strict=True):
        found = loss.plane(plane.point, plane.first, plane.second, [alpha], [beta]).values[0, 0]
        assert found == pytest.approx(value, rel=1e-4)
    # With the statistics of the first run's training they would be others.
    wrong = [as_evaluated(prog, params, state, examples) for params, _ in points]
    assert np.all(np.abs(np.array(wrong) / expected - 1) > 1e-3)


def test_the_page_says_where_the_statistics_come_from(measured):
    _, summary, arrays = measured
    text = to_markdown(page(summary, arrays))
    assert "from the first 6 of the training batches of 16 that evaluation takes" in text
    assert f"| rate0.02 | {summary['losses'][1]:.3g} |" in text


def test_the_line_ends_in_the_losses_of_its_two_points(normalised, measured):
    prog, data, states = normalised
    command, summary, arrays = measured
    examples = landscape.training_examples(data, command.examples)
    state = states["rate0.3"]
    query = landscape.recompute_batch_stats(
        prog.model, state.params, state.model_state, data.calibration(6), prog.task
    )
    assert arrays["line/alphas"].tolist() == [-1, 0, 1, 2]
    np.testing.assert_allclose(
        arrays["line/values"][1:3],
        [as_evaluated(prog, state.params, query, examples), summary["loss"]],
        rtol=1e-5,
    )


def test_the_statistics_come_from_as_many_batches_as_hold_the_examples(normalised):
    _, data, states = normalised
    state = states["rate0.3"].model_state
    for examples, asked, batches in ((20, None, 2), (10**6, None, 10), (20, 1, 1), (16, None, 1)):
        found = landscape.calibration_batches(state, data, examples, asked)
        assert len(found) == batches  # of 16, from 160 examples
    assert landscape.calibration_batches({}, data, 20) == []


def test_a_network_is_compiled_once_for_all_points(normalised, measured):
    """One compilation measures statistics at checkpoints, on the line and on both planes."""
    prog, data, states = normalised
    before = batch_stats._add_batch._cache_size()
    examples = landscape.training_examples(data, 20)
    state = states["rate0.3"]
    loss = landscape.set_loss(prog, state.model_state, examples, list(data.calibration(6)), 3)
    loss.at(state.params)
    direction = jax.tree.map(jnp.ones_like, state.params)
    loss.line(state.params, direction, np.linspace(0, 1, 7))
    loss.plane(state.params, direction, direction, np.linspace(0, 1, 5), np.linspace(0, 1, 5))
    assert batch_stats._add_batch._cache_size() == before  # `measured` has compiled it


def test_bad_input_is_named(trained, tmp_path):
    folder, bench = trained
    for changed, words in (
        ({"points": 2}, "points is 2"),
        ({"reach": 0.0}, "reach is 0.0"),
        ({"calibration_batches": 0}, "calibration_batches is 0"),
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
