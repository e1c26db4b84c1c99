"""The noise of a small run, measured from its checkpoint and while it trains."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from clipjax import analysis
from clipjax.train import mesh as meshes
from clipjax.train.log import read_jsonl
from clipjax.train.step import controls, step
from experiments import noise
from experiments.config import MLP, SGD, Duration, NoiseProbe, Run
from experiments.evaluate import restore
from experiments.report.noise import write_noise
from experiments.setup import build, noise_probe
from experiments.setup.config_files import from_json, to_json
from experiments.setup.runs import check_resumable, run_one
from experiments.setup.workbench import Workbench
from tests.train.toys import Points, program

RUN = Run(
    task="classification",
    dataset="digits",
    model=MLP(hidden=(8,)),
    optimizer=SGD(0.1),
    duration=Duration(steps=10),
    batch_size=64,
    log_every=10,
    evaluate_every=Duration(steps=10),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir, bench = tmp_path_factory.mktemp("noise"), Workbench()
    run_one(RUN, workdir, bench)
    return workdir, bench


def test_norms_are_those_of_single_gradients(trained):
    workdir, bench = trained
    command = noise.NoiseCommand(workdir, examples=70, batches=8, chunk=16)
    summary, arrays = noise.measure(command, bench)
    assert (summary["step"], summary["examples"], summary["batch_size"]) == (10, 70, 64)
    run, state = restore(workdir, bench)
    data = build.make_data(run, bench.sources(run), bench.mesh)
    examples = noise_probe.training_examples(data, 70)
    loss = Partial(noise_probe.example_loss(bench.program(run)), state.model_state)
    one = jax.jit(jax.grad(loss))
    gradients = [
        np.concatenate([np.ravel(g) for g in jax.tree.leaves(one(state.params, example))])
        for example in ({k: jnp.asarray(v[i]) for k, v in examples.items()} for i in range(70))
    ]
    mean = np.mean(gradients, axis=0)
    np.testing.assert_allclose(
        arrays["example_noise"], np.linalg.norm(gradients - mean, axis=1), rtol=1e-4
    )
    assert arrays["minibatch_noise"].shape == (8,)
    found = summary["noise"]["single examples"]
    assert found["values"] == 70
    assert found["sample"]["mean"] == pytest.approx(arrays["example_noise"].mean())
    assert found["control"]["std"] == pytest.approx(found["sample"]["std"])


def test_the_command_writes_a_page_with_its_figures(trained, monkeypatch, capsys):
    workdir, _ = trained
    monkeypatch.setattr(noise, "start_jax", lambda command: None)  # JAX has started here
    line = ["--workdir", str(workdir), "--examples", "80", "--batches", "30"]
    assert noise.main(line) == 0
    assert "noise.html" in capsys.readouterr().out
    text = (workdir / "noise.md").read_text()
    assert "## Single examples" in text
    assert "## Minibatches of 64" in text
    assert "assume a stable law" in text
    for name in ("noise_example", "noise_minibatch"):
        assert (workdir / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((workdir / "noise.json").read_text(), parse_constant=pytest.fail)
    shown = found["noise"]["single examples"]["sample"]["skewness"]
    assert f"| skewness | {shown:.3g} |" in text
    (workdir / "noise.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"noise\.npz is damaged"):
        write_noise(workdir)


def test_no_example_is_left_out_where_the_last_batch_is_partial(trained):
    """Of 1437 digits in batches of 64, the last 29 are in no full batch."""
    workdir, bench = trained
    run, _ = restore(workdir, bench)
    data = build.make_data(run, bench.sources(run), bench.mesh)
    every = noise_probe.training_examples(data, 10_000)
    assert {len(values) for values in every.values()} == {1437}
    expected = np.bincount([data.training[i]["label"] for i in range(1437)])
    np.testing.assert_array_equal(np.bincount(every["label"]), expected)
    first = noise_probe.training_examples(data, 100)
    batches = list(data.calibration(2))
    for name, values in first.items():
        np.testing.assert_array_equal(values, every[name][:100])
        np.testing.assert_array_equal(
            values, np.concatenate([batch[name] for batch in batches])[:100]
        )


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="examples is 3"):
        noise.NoiseCommand(tmp_path, examples=3)
    with pytest.raises(ValueError, match="chunk is 0"):
        noise.NoiseCommand(tmp_path, chunk=0)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        noise.measure(noise.NoiseCommand(tmp_path), Workbench())


# -- While it trains ------------------------------------------------------------------------------


def test_a_live_run_has_the_parameters_of_one_without(trained, tmp_path):
    workdir, bench = trained
    run = dataclasses.replace(RUN, noise=NoiseProbe(5, examples=40, batches=8))
    summary = run_one(run, tmp_path / "live", bench)
    plain = json.loads((workdir / "summary.json").read_text())
    assert summary["params_digest"] == plain["params_digest"]
    assert summary["metrics"] == plain["metrics"]
    rows = [r for r in read_jsonl(tmp_path / "live" / "metrics.jsonl") if r["split"] == "noise"]
    assert [(row["step"], row["examples"], row["values"]) for row in rows] == [
        (5, 320, 40),
        (10, 640, 40),
    ]
    cost = summary["noise_probe"]
    assert (cost["times"], cost["first_seconds"]) == (2, rows[0]["seconds"])
    assert cost["seconds"] == pytest.approx(sum(row["seconds"] for row in rows), abs=1e-3)
    assert 0 < cost["share"] < 1
    assert "noise_probe" not in plain


def test_a_live_row_says_what_the_checkpoint_says(trained, tmp_path):
    """At step 10, from 70 examples and 8 minibatches: `experiments.noise` and the row agree."""
    workdir, bench = trained
    run = dataclasses.replace(RUN, noise=NoiseProbe(10, examples=70, batches=8))
    run_one(run, tmp_path / "live", bench)
    (row,) = [r for r in read_jsonl(tmp_path / "live" / "metrics.jsonl") if r["split"] == "noise"]
    found, _ = noise.measure(noise.NoiseCommand(workdir, examples=70, batches=8), bench)
    assert row["mean_gradient_norm"] == pytest.approx(found["mean_gradient_norm"], rel=1e-5)
    for prefix, title in (("example", "single examples"), ("minibatch", "minibatches of 64")):
        numbers = found["noise"][title]
        for name, value in numbers["sample"].items():
            assert row[f"{prefix}_{name}"] == _close(value), name
        for name in noise_probe.OF_CONTROL:
            assert row[f"{prefix}_control_{name}"] == _close(numbers["control"][name]), name


def _close(value):
    """Float32 norms summed over other devices: 1e-4, also of skewness and kurtosis near 0."""
    return value if value == "inf" else pytest.approx(value, rel=1e-3, abs=1e-4)


def test_batch_norm_is_frozen_at_the_statistics_of_the_point():
    """Gradients of one example each, BatchNorm written out with the point's own mean and variance.

    Two batches of 16 hold the 30 examples; their pooled moments are those of 32 inputs.
    """
    data, prog = Points(), program(jax.devices()[:2])
    rates = controls(0, {"learning_rate": 0.05})
    state = prog.init(rates, meshes.place(next(data.calibration(1)), prog.mesh))
    for batch, _ in zip(data.train(0), range(5), strict=False):
        state, _ = step(prog, state, [meshes.place(batch, prog.mesh)], rates)
    run = dataclasses.replace(RUN, noise=NoiseProbe(1, examples=30, chunk=7))
    row = noise_probe.make_probe(run, prog, data).measure(state)
    params, running = jax.device_get((state.params, state.model_state["batch_stats"]))
    images = np.concatenate([batch["image"] for batch in data.calibration(2)]).astype(float)
    hidden = images @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    mean, var = hidden.mean(0), hidden.var(0)
    assert np.abs(running["BatchNorm_0"]["mean"] - mean).max() > 0.01  # they lag behind

    def loss(p, x, y):
        hidden = x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"]
        hidden = (hidden - mean) / jnp.sqrt(var + 1e-5)
        hidden = hidden * p["BatchNorm_0"]["scale"] + p["BatchNorm_0"]["bias"]
        out = jax.nn.relu(hidden) @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]
        return (out[0] - y) ** 2

    examples = noise_probe.training_examples(data, 30)
    gradients = np.array(
        [
            np.concatenate([np.ravel(g) for g in jax.tree.leaves(jax.grad(loss)(params, x, y))])
            for x, y in zip(examples["image"], examples["label"], strict=True)
        ]
    )
    norms = np.linalg.norm(gradients - gradients.mean(0), axis=1)
    assert row["values"] == 30
    assert row["example_mean"] == pytest.approx(norms.mean(), rel=1e-4)
    assert row["example_std"] == pytest.approx(norms.std(), rel=1e-4)
    assert row["example_rho_mild"] == pytest.approx(analysis.outlier_ratios(norms).mild)


def test_a_probe_compiles_once():
    """The second measurement, of another state, takes what the first compiled."""
    data, prog = Points(), program(jax.devices()[:1])
    rates = controls(0, {"learning_rate": 0.05})
    batch = meshes.place(next(data.train(0)), prog.mesh)
    state = prog.init(rates, batch)
    run = dataclasses.replace(RUN, noise=NoiseProbe(1, examples=16, batches=4))
    probe = noise_probe.make_probe(run, prog, data)
    first = probe.measure(state)
    state, _ = step(prog, state, [batch], rates)
    with jax.no_tracing():
        second = probe.measure(state)
    assert first["example_mean"] != second["example_mean"]


def test_noise_without_a_tail_does_not_end_the_run():
    for values, names in (
        (np.zeros(40), {"e_mean", "e_std"}),
        (np.r_[np.zeros(38), 1.0, 2.0], {"e_mean", "e_std"}),
        (np.r_[np.ones(39), np.nan], {"e_not_finite"}),
    ):
        assert set(noise_probe.live_numbers(values, "e", 0)) == names
    whole = noise_probe.live_numbers(np.random.default_rng(0).pareto(1.5, 400), "e", 0)
    assert whole["e_rho_mild"] > 5 > 2 > whole["e_control_rho_mild"]
    assert whole["e_hill_tail_index"] < whole["e_control_hill_tail_index"]


def test_the_live_probe_is_set_by_the_config(tmp_path):
    asked = dataclasses.replace(RUN, noise=NoiseProbe(every=50))
    assert from_json(to_json(asked)) == asked
    old = to_json(RUN)
    del old["noise"]  # a folder from before there was a probe
    assert from_json(old) == RUN
    check_resumable(RUN, asked, tmp_path)  # it may be switched on in a run that goes on
    for changed, words in (
        ({"every": 0}, "NoiseProbe.every is 0"),
        ({"examples": 3}, "NoiseProbe.examples is 3"),
        ({"batches": 2}, "NoiseProbe.batches is 2; expected .* 0, or at least 4"),
    ):
        with pytest.raises(ValueError, match=words):
            NoiseProbe(**changed)
