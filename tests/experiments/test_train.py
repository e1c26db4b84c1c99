"""experiments.train and .evaluate from the command line: kill, stop, resume, refuse, two hosts."""

import json
import signal
import socket

import numpy as np
import pytest

from clipjax.train.log import read_jsonl
from experiments import train
from experiments.setup.cli import explain
from tests.experiments import cli

# Short enough for a test, long enough for several checkpoints: rows at 5, 10, ..., 40.
NUMBERS = (
    *("--duration.steps", 40, "--log-every", 5),
    *("--checkpoint-every.steps", 10, "--evaluate-every.steps", 20),
)

# A quarter of ResNet-18's blocks: most of the time of these tests is compilation.
SHALLOW = """
import dataclasses
from configs.smoke import config
from experiments.config import ResNet18

model = ResNet18(width=8, stem="small", stage_sizes=(1, 1))
config = dataclasses.replace(config, model=model)
"""


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """Arguments of experiments.train."""
    path = tmp_path_factory.mktemp("config") / "shallow.py"
    path.write_text(SHALLOW)
    return "--config", path, *NUMBERS


@pytest.fixture(scope="module")
def env(tmp_path_factory):
    """One compile cache for all processes of this file."""
    return cli.environment(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def reference(tmp_path_factory, env, line):
    """The uninterrupted run."""
    workdir = tmp_path_factory.mktemp("reference") / "run"
    cli.run("train", *line, "--workdir", workdir, env=env)
    return workdir


def test_leaves_the_layout_that_is_promised(reference):
    summary = cli.summary(reference)
    assert {p.name for p in reference.iterdir()} == {
        *("config.json", "metrics.jsonl", "checkpoints", "summary.json", "figures")
    }
    assert summary["status"] == "finished"
    assert summary["steps"] == 40
    assert summary["examples"] == 40 * 64
    assert len(summary["params_digest"]) == 64
    assert summary["versions"]["jax"]
    samples = np.load(reference / "figures" / "samples.npz")
    assert samples["prediction"].shape == (6,)
    rows = read_jsonl(reference / "metrics.jsonl")
    train = [row for row in rows if row["split"] == "train"]
    assert {
        *("loss", "top1", "gradient_norm", "clipped_fraction", "learning_rate", "input_wait")
    } <= set(train[0])
    assert train[-1]["loss"] < train[0]["loss"]


def test_evaluate_gives_what_training_gave(reference, env):
    out, _ = cli.run("evaluate", "--workdir", reference, env=env)
    measured = json.loads(out)
    assert measured.pop("step") == 40
    assert measured == cli.summary(reference)["metrics"]


def test_called_again_a_finished_run_is_left_as_it_is(reference, env, line):
    before = (reference / "summary.json").read_bytes()
    out, _ = cli.run("train", *line, "--workdir", reference, env=env)
    assert cli.summary(reference)["params_digest"] in out
    assert (reference / "summary.json").read_bytes() == before


def test_killed_twice_and_resumed_is_bit_equal(tmp_path, reference, env, line):
    cli.drill(line, tmp_path, reference, kills=2, seed=0, env=env)


def test_sigterm_saves_and_exits_with_75(tmp_path, reference, env, line):
    process = cli.start("train", *line, "--workdir", tmp_path, env=env)
    assert cli.kill_at(process, tmp_path, 1, 0.0, signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert "the same line goes on" in err
    assert not (tmp_path / "summary.json").exists()
    cli.run("train", *line, "--workdir", tmp_path, env=env)
    resumed = cli.summary(tmp_path)
    assert resumed["resumed_from"] > 0
    assert resumed["params_digest"] == cli.summary(reference)["params_digest"]


SMOOTH = """
import dataclasses
from configs.smoke import config
from experiments.config import MLP

slow = dataclasses.replace(config.optimizer, learning_rate=0.01)
config = dataclasses.replace(config, model=MLP(), optimizer=slow)
"""


def test_two_hosts_train_as_one(tmp_path, env):
    """Two processes on loopback: the losses of one process, to rtol 1e-5, over all 40 steps.

    They stop at half-way and go on, and make up for an evaluation that was left out there.

    With a network without BatchNorm. The rounding of sums in another order decides on which side
    of its kink some ReLU falls; BatchNorm in a narrow ResNet makes of one such event, within a few
    steps, another run (seen between 1 and 2 devices at steps 6, 17 and 28 of three settings; until
    then the losses agreed to 2e-7).
    """
    (tmp_path / "smooth.py").write_text(SMOOTH)
    arguments = ("--config", tmp_path / "smooth.py", *NUMBERS)
    two, one = tmp_path / "two", tmp_path / "one"
    cli.run("train", *arguments, "--workdir", one, env=env)

    def on_two_hosts(*flags):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        processes = [
            cli.start(
                *("train", *arguments, *flags, "--workdir", two),
                env=env
                | {
                    "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                    "JAX_NUM_PROCESSES": "2",
                    "JAX_PROCESS_ID": str(index),
                    "CLIPJAX_HEARTBEAT_SECONDS": "10",
                },
            )
            for index in range(2)
        ]
        outputs = [process.communicate(timeout=280) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], outputs

    on_two_hosts("--duration.steps", 20)
    # As if SIGTERM had come at that step: only the first host knows that a row is missing.
    path = two / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert '"evaluation"' in lines[-1]
    path.write_text("".join(lines[:-1]))
    on_two_hosts()
    assert cli.summary(one)["device"] == "1 x cpu"
    assert cli.summary(two)["device"] == "2 x cpu on 2 hosts"
    rows = [read_jsonl(folder / "metrics.jsonl") for folder in (one, two)]
    assert len(rows[0]) == 10
    for expected, row in zip(*rows, strict=True):
        assert (row["split"], row["step"]) == (expected["split"], expected["step"])
        np.testing.assert_allclose(row["loss"], expected["loss"], rtol=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--optimizer.smoothness", "0.5"), "optimizer.smoothness was 10.0, is 0.5"),
        (("--seed", "1", "--batch-size", "32"), "batch_size was 64, is 32"),
    ],
)
def test_the_workdir_of_another_config_is_refused(reference, env, line, flags, message):
    before = (reference / "config.json").read_bytes()
    _, err = cli.run("train", *line, *flags, "--workdir", reference, env=env, expect=1)
    assert message in err
    assert (reference / "config.json").read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--dataset", "digit"), "did you mean 'digits'"),
        (("--batch-size", "-3"), "Run.batch_size is -3"),
        (("--optimizer.learning-rat", "1"), "--optimizer.learning-rate"),
        (("--config", "configs/smok.py"), "did you mean 'configs/smoke.py'"),
        (("--task", "segmentation"), "made for classification, not for segmentation"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(tmp_path, monkeypatch, capsys, flags, message):
    """In this process, without what JAX and the signals keep for good."""
    monkeypatch.chdir(cli.ROOT)
    monkeypatch.setattr(train, "start_jax", lambda _: None)
    monkeypatch.setattr(train, "stop_on_signal", lambda: lambda: False)
    workdir = tmp_path / "run"
    line = ("--config", "configs/smoke.py", *NUMBERS, *flags, "--workdir", workdir)
    arguments = [str(word) for word in line]
    try:
        code = explain(lambda: train.main(arguments))
    except SystemExit as end:  # flags that cannot be read
        code = end.code
    assert code in (1, 2)
    printed = capsys.readouterr()
    assert message in printed.out + printed.err
    assert not workdir.exists()
