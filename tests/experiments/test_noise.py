"""The noise of a small run, measured from its checkpoint."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import noise
from experiments.config import MLP, SGD, Duration, Run
from experiments.evaluate import restore
from experiments.report.noise import write_noise
from experiments.train import Workbench, run_one

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
    examples = noise.training_examples(run, bench, 70)
    loss = noise.example_loss(run, bench, state.model_state)
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


def test_bad_input_is_named(tmp_path):
    with pytest.raises(ValueError, match="examples is 3"):
        noise.NoiseCommand(tmp_path, examples=3)
    with pytest.raises(ValueError, match="chunk is 0"):
        noise.NoiseCommand(tmp_path, chunk=0)
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        noise.measure(noise.NoiseCommand(tmp_path), Workbench())
