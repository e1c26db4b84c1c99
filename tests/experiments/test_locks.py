"""Two processes on one folder: the second is told who works there; a dead one's lock is taken."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from experiments.setup import locks

HOLDER = """
import pathlib, sys, time
from experiments.setup import locks
with locks.hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_process_is_told_who_holds_the_folder(tmp_path, holder):
    with (
        pytest.raises(
            locks.Held, match=f"{tmp_path} is in use by process {holder.pid} on host .* since"
        ),
        locks.hold(tmp_path),
    ):
        pass
    assert (tmp_path / ".lock").exists()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path, holder):
    holder.kill()
    holder.wait()
    with locks.hold(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["process"] == os.getpid()
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize(("age", "free"), [(1.0, False), (locks.SILENCE + 1, True)])
def test_a_lock_of_another_host_counts_until_it_is_silent(tmp_path, age, free):
    # Another host's kernel holds its lock: here there is only the file that it wrote.
    about = {"host": "elsewhere", "process": 7, "since": "2026-01-01 00:00:00"}
    (tmp_path / ".lock").write_text(json.dumps(about))
    then = time.time() - age
    os.utime(tmp_path / ".lock", (then, then))
    if free:
        with locks.hold(tmp_path):
            found = json.loads((tmp_path / ".lock").read_text())
        assert found["host"] == socket.gethostname()
    else:
        with pytest.raises(locks.Held, match="process 7 on host elsewhere"), locks.hold(tmp_path):
            pass
        assert json.loads((tmp_path / ".lock").read_text()) == about


def test_a_holder_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "RENEWED", 0.01)
    with locks.hold(tmp_path):
        os.utime(tmp_path / ".lock", (0, 0))
        deadline = time.monotonic() + 10
        while (tmp_path / ".lock").stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - (tmp_path / ".lock").stat().st_mtime < 60


def test_a_folder_in_which_nothing_was_written_is_removed_again(tmp_path):
    with locks.hold(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / ".lock").exists()
    assert list(tmp_path.iterdir()) == []
    with locks.hold(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["kept"]


def test_what_a_killed_holder_left_half_written_is_removed(tmp_path):
    (tmp_path / ".summary.json.0123456789abcdef.tmp").touch()
    (tmp_path / "summary.json").touch()
    with locks.hold(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "other").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"), locks.hold(tmp_path):
        pass
    assert (tmp_path / "other").read_text() == "precious"
