"""Twenty kills of one run of each task, full disks, signals, two at once: `make test-faults`."""

import signal
import subprocess
import time

import pytest

from experiments.setup import locks
from tests.experiments import cli

CONFIGS = {
    "classification": ("configs/smoke.py", "--duration.steps", 60, "--log-every", 5),
    "segmentation": ("configs/smoke_segmentation.py",),
    "super_resolution": ("configs/smoke_super_resolution.py",),
}


@pytest.mark.faults
@pytest.mark.parametrize("task", CONFIGS)
def test_twenty_kills_leave_the_result_bit_equal(tmp_path, task):
    env = cli.environment(tmp_path / "cache")
    arguments = ("--config", *CONFIGS[task])
    reference = tmp_path / "reference"
    cli.run("train", *arguments, "--workdir", reference, env=env)
    resumed = cli.drill(arguments, tmp_path / "drill", reference, kills=20, seed=1, env=env)
    assert any(resumed)  # some kills came after a checkpoint


TINY = """
from experiments.config import MLP, SGD, Duration, Grid, Run

config = Run("classification", "digits", MLP(hidden=(400,)), SGD(0.1), Duration(steps=STEPS),
             batch_size=64, log_every=5, evaluate_every=Duration(steps=20),
             checkpoint_every=Duration(steps=10))
"""
GRID = "config = Grid({'classification/sgd': config}, seeds=(0,))\n"
TAILS = (
    *("--noises", "student_t", "--methods", "clipped_sgd", "--levels", 0.5, 0.99),
    *("--steps", 500, "--records", 10, "--replicas", 1000, "--chunk", 50),
)


@pytest.fixture
def tiny(tmp_path):
    """Configs of a run of 40 steps, of a long one and of a grid."""
    (tmp_path / "run.py").write_text(TINY.replace("STEPS", "40"))
    (tmp_path / "long.py").write_text(TINY.replace("STEPS", "100_000"))
    (tmp_path / "grid.py").write_text(TINY.replace("STEPS", "40") + GRID)
    return tmp_path


@pytest.fixture
def small_disk(tmp_path):
    """Return a function that mounts a disk of a size, or changes its size, and returns its path."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def make(options):
        options = f"remount,{options}" if mounted else options
        tried = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
        )
        if tried.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {tried.stderr.strip()}")
        mounted.append(options)
        return folder

    yield make
    if mounted:
        subprocess.run(["umount", folder], check=True)


def refused(module, *arguments, env):
    """Run a command that must end with exit code 1 and one line; return the line."""
    _, err = cli.run(module, *arguments, env=env, expect=1)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    return lines[0]


@pytest.mark.faults
@pytest.mark.parametrize(
    "disk", ["size=8k", "size=32k", "size=200k", "size=400k", "nr_inodes=5", "nr_inodes=40"]
)
def test_a_full_disk_is_one_line_and_the_same_line_goes_on(tiny, small_disk, disk):
    env = cli.environment(tiny / "cache")
    arguments = ("--config", tiny / "run.py", "--workdir")
    cli.run("train", *arguments, tiny / "reference", env=env)
    workdir = small_disk(disk) / "run"
    line = refused("train", *arguments, workdir, env=env)
    assert str(workdir) in line
    assert "No space left on device. Make room" in line
    small_disk("size=64m,nr_inodes=10000")
    cli.run("train", *arguments, workdir, env=env)
    expected = cli.summary(tiny / "reference")["params_digest"]
    assert cli.summary(workdir)["params_digest"] == expected


@pytest.mark.faults
@pytest.mark.parametrize("module", ["compare", "high_probability", "prepare"])
@pytest.mark.parametrize("disk", ["size=8k", "size=60k", "nr_inodes=4"])
def test_a_full_disk_is_one_line_in_other_commands(tiny, small_disk, module, disk):
    env = cli.environment(tiny / "cache")
    folder = small_disk(disk) / "there"
    arguments = {
        "compare": ("--config", tiny / "grid.py", "--workdir", folder),
        "high_probability": (*TAILS, "--workdir", folder),
        "prepare": ("--dataset", "digits", "--data-dir", folder),
    }[module]
    line = refused(module, *arguments, env=env)
    assert str(folder) in line
    assert "No space left on device" in line
    small_disk("size=64m,nr_inodes=10000")
    cli.run(module, *arguments, env=env)


@pytest.mark.faults
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)]
)
def test_a_signal_at_any_moment_is_one_line_and_the_exit_code(tiny, number, code):
    """While importing, starting, compiling and training."""
    env = cli.environment(tiny / "cache")
    for delay in (0.3, 1, 2, 3, 4, 6, 10):
        process = cli.start("train", "--config", tiny / "long.py", "--workdir", tiny / "w", env=env)
        time.sleep(delay)
        process.send_signal(number)
        _, err = process.communicate(timeout=120)
        assert process.returncode == code, (delay, err)
        assert "stopped" in err.splitlines()[-1], (delay, err)
        assert "Traceback" not in err
        assert not (tiny / "w" / locks.NAME).exists()


@pytest.mark.faults
def test_a_second_run_in_a_workdir_is_refused_until_the_first_ends(tiny):
    env = cli.environment(tiny / "cache")
    arguments = ("--config", tiny / "long.py", "--workdir", tiny / "w")
    first = cli.start("train", *arguments, env=env)
    assert cli.kill_at(first, tiny / "w", 3, 0.0, signal.SIGCONT)  # it is at work
    for module, more in (("train", arguments), ("evaluate", ("--workdir", tiny / "w", "--write"))):
        assert f"in use by process {first.pid} on" in refused(module, *more, env=env)
    first.kill()
    first.communicate()
    again = cli.start("train", *arguments, env=env)
    assert cli.kill_at(again, tiny / "w", cli.rows_written(tiny / "w") + 3, 0.0, signal.SIGINT)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 130, err
