"""One run at a time in a folder, whoever the other one is and however it ended."""

import errno
import fcntl
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import pytest

from clipjax import _locks as machinery
from experiments import landscape, noise
from experiments.setup import locks, signals
from tests.experiments.cli import ROOT
from tests.faults import command_lines, drive, material


def leave(folder: Path, *, age: float = 0.0, **changes) -> Path:
    """Write the lock of a holder that does not hold the machinery's lock (any more)."""
    folder.mkdir(exist_ok=True)
    path = folder / locks.NAME
    path.write_text(json.dumps(machinery._holder() | changes))
    os.utime(path, (time.time() - age,) * 2)
    return path


def take(folder: Path) -> None:
    with locks.hold(folder):
        assert json.loads((folder / locks.NAME).read_text())["pid"] == os.getpid()
    assert not (folder / locks.NAME).exists()


def test_the_second_is_refused_and_told_who_holds_it(tmp_path):
    with locks.hold(tmp_path):
        since = json.loads((tmp_path / locks.NAME).read_text())["since"]
        with pytest.raises(locks.Held) as refused, locks.hold(tmp_path):
            pass
    message = str(refused.value)
    for part in (tmp_path, f"process {os.getpid()}", os.uname().nodename, since, "--workdir"):
        assert str(part) in message
    take(tmp_path)


def test_it_is_let_go_when_the_run_fails(tmp_path):
    with pytest.raises(KeyError), locks.hold(tmp_path):
        raise KeyError
    take(tmp_path)


def test_folders_that_were_made_for_it_alone_are_removed(tmp_path):
    with locks.hold(tmp_path / "a" / "b"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locks.hold(tmp_path / "a" / "b"):
        (tmp_path / "a" / "mine").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "mine"]


def test_a_grid_and_its_runs_are_held_side_by_side(tmp_path):
    with locks.hold(tmp_path), locks.hold(tmp_path / "task" / "sgd" / "seed0"):
        pass


def test_left_behind_on_this_machine_it_is_taken_over_at_once(tmp_path):
    leave(tmp_path)
    take(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": "a"}', '{"host":1,"pid":"x","token":2}'])
def test_a_lock_file_without_a_holder_is_nobodys(tmp_path, text):
    (tmp_path / locks.NAME).write_text(text)
    take(tmp_path)


def test_from_another_machine_it_is_respected_while_there_are_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(machinery, "SETTLE", 0.0)
    leave(tmp_path, host="other", boot="another", pid=7, age=machinery.SILENCE - 10)
    with pytest.raises(locks.Held, match=r"process 7 on other since .* sign of life is 140 s old"):
        take(tmp_path)
    leave(tmp_path, host="other", boot="another", pid=7, age=machinery.SILENCE + 1)
    take(tmp_path)


def test_of_two_machines_that_take_it_over_one_gives_way(tmp_path, monkeypatch):
    path = leave(tmp_path, host="gone", boot="another", age=1000)
    third = machinery._holder() | {"host": "third", "boot": "x", "pid": 3}
    monkeypatch.setattr(machinery.time, "sleep", lambda _: path.write_text(json.dumps(third)))
    with pytest.raises(locks.Held, match="process 3 on third"):
        take(tmp_path)


def test_signs_of_life_are_given(tmp_path, monkeypatch):
    monkeypatch.setattr(machinery, "BEAT", 0.01)
    with locks.hold(tmp_path):
        path = tmp_path / locks.NAME
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def test_a_holder_that_was_halted_too_long_ends_when_it_wakes(tmp_path, monkeypatch):
    ended, said = threading.Event(), []

    def end_at_once(text, code):
        said.append((text, code))
        ended.set()

    monkeypatch.setattr(machinery, "BEAT", 0.01)
    monkeypatch.setattr(signals, "end_at_once", end_at_once)
    with locks.hold(tmp_path):
        leave(tmp_path, host="other", boot="another", pid=7)
        assert ended.wait(10)
    assert said[0][1] == 1
    assert "was taken over by process 7 on other" in said[0][0]
    assert json.loads((tmp_path / locks.NAME).read_text())["pid"] == 7  # left to whom it belongs


def test_who_waits_says_so_once_and_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(machinery, "PATIENCE", 0.05)
    monkeypatch.setattr(machinery, "POLL", 0.01)
    path, said, told = tmp_path / "a.lock", [], threading.Event()

    def waiting(by):
        said.append(by)
        told.set()

    def first():
        with machinery.hold(path, "it is held", "Wait"):
            begun.set()
            assert told.wait(60)
            time.sleep(0.2)  # many more tries, and no more words

    begun = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(60)
    with machinery.hold(path, "it is held", "Wait", waiting=waiting):
        assert not thread.is_alive() or thread.join(60) is None
    assert len(said) == 1
    assert said[0].startswith(f"it is held by process {os.getpid()} on {os.uname().nodename} since")
    with machinery.hold(path, "it is held", "Wait", waiting=waiting):
        pass  # free: nothing is said
    assert len(said) == 1


def test_a_file_system_without_flock_is_judged_by_the_process(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        locks.hold(tmp_path),
        pytest.raises(locks.Held, match=f"process {os.getpid()}"),
        locks.hold(tmp_path),
    ):
        pass
    leave(tmp_path, process_started="1")  # the number was another process's then
    take(tmp_path)
    leave(tmp_path, pid=2**22 + 1)  # above the largest process number
    take(tmp_path)


def test_of_several_hosts_the_first_holds_it_for_all(tmp_path, monkeypatch):
    with locks.hold(tmp_path), monkeypatch.context() as patch:
        patch.setattr(jax, "process_index", lambda: 1)
        with locks.hold(tmp_path):
            pass


def test_a_link_is_not_written_through(tmp_path):
    (tmp_path / "target").write_text("mine")
    (tmp_path / locks.NAME).symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        take(tmp_path)
    assert (tmp_path / "target").read_text() == "mine"


@pytest.mark.parametrize("module", [landscape, noise])
def test_what_writes_beside_a_run_waits_for_its_end(tmp_path, monkeypatch, module):
    monkeypatch.setattr(module, "start_jax", lambda command: None)  # JAX has started here
    with locks.hold(tmp_path), pytest.raises(locks.Held, match="in use by process"):
        module.main(["--workdir", str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=r"a/typo/config\.json"):
        module.main(["--workdir", str(tmp_path / "a/typo")])
    assert list(tmp_path.iterdir()) == []


WORKERS = sorted(command_lines.LINES.keys() - {"prepare", "report"})


@pytest.mark.parametrize("name", WORKERS)
def test_every_command_that_works_in_a_folder_holds_it(tmp_path, monkeypatch, name):
    """None of them computes or writes where another one is at work; `prepare` has its own lock."""
    monkeypatch.chdir(tmp_path)
    for file, more in (("tiny", "config = run"), ("tiny_search", material.SEARCH)):
        Path(f"{file}.py").write_text(f"{material.TINY}\n{more}\n")
    grid = "config = Grid({'digits/sgd': run}, seeds=(0,))"
    Path("tiny_grid.py").write_text(f"{material.TINY}\n{grid}\n")
    Path("times.csv").write_text(material.TIMES)
    arguments = command_lines.without(command_lines.LINES[name][0], "--workdir")
    arguments += ("--workdir", "held", *(["--write"] if name == "evaluate" else []))
    main = importlib.import_module(drive.COMMANDS[name]).main
    with locks.hold(tmp_path / "held"), pytest.raises(locks.Held, match="held is in use"):
        main(list(arguments))
    assert not (tmp_path / "held").exists()


HOLDER = """
import sys, time
from pathlib import Path
from experiments.setup import locks
with locks.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_holder_is_followed_at_once(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(locks.Held, match=f"process {process.pid} on "):
            take(tmp_path)
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / locks.NAME).exists()
    take(tmp_path)
