"""Two processes of one run: when one fails both end, and both say why."""

import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
HEARTBEAT = 10

PROCESS = """
import os, sys
import jax, numpy as np
from jax.experimental import multihost_utils
from clipjax.train import hosts

index, address, failing, how = sys.argv[1:]
jax.distributed.initialize(address, 2, int(index), heartbeat_timeout_seconds=10)
hosts.watch(10)
try:
    for step in range(20):
        multihost_utils.broadcast_one_to_all(np.ones(3))
        if step == 10 and index == failing:
            if how == "kill":
                os.kill(os.getpid(), 9)
            if how == "raise":
                raise OSError(28, "No space left on device", "/run")
            raise KeyboardInterrupt
except BaseException as error:
    hosts.fail_together(f"{type(error).__name__}: {error}", 130 if how == "interrupt" else 1)
    raise
print("came to its end")
"""


def two_processes(failing, how):
    """Return (exit codes, last lines of stderr, outputs, seconds) of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "NPROC")}
    began = time.monotonic()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(index), address, str(failing), how],
            cwd=ROOT,
            env=kept | {"JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    said = [process.communicate(timeout=120) for process in processes]
    seconds = time.monotonic() - began
    lasts = [(err.splitlines() or [""])[-1] for _, err in said]
    return [p.returncode for p in processes], lasts, [out for out, _ in said], seconds


def test_an_exception_on_one_host_ends_both_with_its_reason():
    codes, lasts, _, _ = two_processes(1, "raise")
    assert codes == [1, 1]
    assert (
        lasts[0]
        == "error: process 1 of 2 failed: OSError: [Errno 28] No space left on device: '/run'"
    )
    assert lasts[1] == "error: OSError: [Errno 28] No space left on device: '/run'"


@pytest.mark.faults
def test_hosts_that_come_to_their_end_say_nothing():
    codes, lasts, outs, _ = two_processes(2, "raise")
    assert codes == [0, 0]
    assert all(out.endswith("came to its end\n") for out in outs)  # JAX prints lines of its own
    assert not any(line.startswith("error") for line in lasts)


@pytest.mark.faults
@pytest.mark.parametrize("failing", [0, 1])
def test_ctrl_c_on_one_host_ends_both(failing):
    codes, lasts, _, _ = two_processes(failing, "interrupt")
    assert codes[failing] == 130
    assert codes[1 - failing] == 1
    assert lasts[1 - failing].startswith(f"error: process {failing} of 2 failed: KeyboardInterrupt")


@pytest.mark.faults
def test_an_exception_on_the_first_host_is_heard_by_the_other():
    codes, lasts, _, _ = two_processes(0, "raise")
    assert codes == [1, 1]
    assert lasts[1].startswith("error: process 0 of 2 failed: OSError")


@pytest.mark.faults
@pytest.mark.parametrize("failing", [0, 1])
def test_a_killed_host_is_named_by_the_other_within_the_heartbeat(failing):
    codes, lasts, _, seconds = two_processes(failing, "kill")
    assert codes[failing] == -9
    assert codes[1 - failing] != 0
    assert f"process {failing}" in lasts[1 - failing]
    assert "Start the same line again" in lasts[1 - failing]
    assert "was killed" in lasts[failing]
    # Start-up takes some seconds on a busy machine; the drill would wait 100 s by default.
    assert seconds < HEARTBEAT + 40
