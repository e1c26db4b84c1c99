"""Twenty kills of one run of each task: `make test-faults`."""

import pytest

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
