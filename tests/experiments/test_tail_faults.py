"""`kill -9` of the high-probability experiment in a process of its own, and the same line again."""

import signal
import time

import numpy as np
import pytest

from tests.experiments import cli

# Twenty chunks, some tenths of a second each.
LINE = (
    *("--noises", "student_t", "--methods", "clipped_sgd", "--levels", 0.5, 0.99),
    *("--steps", 3000, "--records", 10, "--replicas", 1000, "--chunk", 50),
)


def written(workdir):
    return sorted(path.name for path in workdir.glob("chunks/noise*.chunk"))


# Three processes. In one process: test_high_probability_lab, test_a_killed_run_goes_on_...
@pytest.mark.faults
def test_killed_and_started_again_is_bit_equal(tmp_path):
    env = cli.environment(tmp_path / "cache")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    cli.run("high_probability", *LINE, "--workdir", whole, env=env)
    process = cli.start("high_probability", *LINE, "--workdir", cut, env=env)
    deadline = time.monotonic() + 240
    while len(written(cut)) < 3 and process.poll() is None:
        assert time.monotonic() < deadline, "the run writes no chunks"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL  # it had not ended before
    assert 3 <= len(written(cut)) < 20
    assert not (cut / "summary.json").exists()
    out, _ = cli.run("high_probability", *LINE, "--workdir", cut, env=env)
    assert "report.html" in out
    first, second = (np.load(folder / "curves.npz") for folder in (whole, cut))
    assert set(first) == set(second)
    for name in first:
        assert first[name].tobytes() == second[name].tobytes(), name
    assert cli.summary(whole)["results"] == cli.summary(cut)["results"]
    assert not (cut / "chunks").exists()
