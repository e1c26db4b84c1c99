"""What ends a command is said in one line: errors of the system, signals, config files."""

import errno
import os
import signal
import subprocess
import sys
import time

import jax
import pytest

from clipjax.train import mesh as meshes
from experiments import train
from experiments.setup import cli, config_files
from experiments.setup.cli import explain
from tests.experiments.cli import ROOT, environment, start


def ended_by(error, capsys):
    """Return exit code and stderr of a command that ends by an error."""

    def main():
        raise error

    code = explain(main)
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.ENOSPC, "No space left on device; make room, then start the same line again"),
        (errno.EACCES, "Permission denied; use a folder that you may read and write"),
        (errno.EROFS, "Read-only file system; use a folder that can be written to"),
        (errno.ENAMETOOLONG, "File name too long; use a shorter name"),
        (errno.ENOTDIR, "Not a directory; a part of this path is a file"),
    ],
)
def test_an_error_of_the_system_is_one_line_with_path_and_cure(number, cure, capsys):
    code, err = ended_by(OSError(number, os.strerror(number), "/runs/x"), capsys)
    assert code == 1
    assert err.splitlines()[0].startswith(f"error: /runs/x: {cure}")
    assert "Traceback" not in err


def test_a_full_disk_is_told_from_the_text_of_other_packages_errors(capsys):
    error = ValueError("UNKNOWN: [No space left on device] writing '/runs/x/d/0'")
    _, err = ended_by(error, capsys)
    assert err.startswith("error: /runs/x/d/0: No space left on device; make room")


def test_no_memory_is_one_line(capsys):
    _, err = ended_by(
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes."), capsys
    )
    assert err.startswith("error: out of memory (RESOURCE_EXHAUSTED: Out of memory allocating 99")


def test_a_fault_of_ours_keeps_its_traceback(capsys):
    with pytest.raises(AssertionError, match="ours"):
        ended_by(AssertionError("ours"), capsys)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)]
)
def test_a_signal_ends_a_command_in_one_line_that_says_what_is_kept(number, code, capsys):
    def main():
        os.kill(os.getpid(), number)
        time.sleep(5)
        raise AssertionError("not stopped")

    before = signal.getsignal(number)
    assert explain(main, kept="nothing was written") == code
    assert signal.getsignal(number) == before
    err = capsys.readouterr().err
    assert err.startswith("stopped by ")
    assert "nothing was written" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)]
)
def test_a_run_is_asked_to_save_and_stop(number, code):
    def main():
        stop = cli.stop_on_signals()
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
        return stop.exit_code

    assert explain(main) == code


def test_a_second_ctrl_c_ends_at_once(capsys):
    def main():
        stop = cli.stop_on_signals()
        os.kill(os.getpid(), signal.SIGINT)
        assert stop()
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not stopped")

    assert explain(main) == 130
    assert "once more ends at once" in capsys.readouterr().err


def test_ctrl_c_while_python_imports_is_one_line(tmp_path):
    process = start("train", "--workdir", tmp_path / "run", env=environment(tmp_path))
    time.sleep(0.5)  # JAX alone takes longer
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("config = (\n", "line 1: '(' was never closed"),
        ("\nimport no_such_module\n", "line 2: ModuleNotFoundError: No module named"),
        ("x = 1\nconfig = 1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        (
            "from experiments.config import SGD\nconfig = SGD(2, 3, 4, 5, 6, 7)\n",
            "line 2: TypeError",
        ),
        ("config = '\0'\n", "null bytes"),
        ("def f():\n    return f()\nconfig = f()\n", "line 2: RecursionError"),
        ("raise SystemExit(3)\n", "line 1: SystemExit: 3"),
    ],
)
@pytest.mark.parametrize("load", [config_files.load, None], ids=["run", "high_probability"])
def test_an_error_of_a_config_file_is_named_with_its_line(tmp_path, text, said, load):
    from experiments.high_probability.__main__ import load as load_high_probability

    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(config_files.ConfigFileError) as found:
        (load or load_high_probability)(path)
    message = str(found.value)
    assert message.startswith(str(path))
    assert said in message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("flag", ["--workdir", "--data-dir"])
@pytest.mark.parametrize("module", ["train", "evaluate", "compare", "noise", "report"])
def test_an_empty_folder_name_is_refused(module, flag, tmp_path, monkeypatch, capsys):
    if (module, flag) == ("report", "--data-dir"):
        pytest.skip("the report reads no data")
    monkeypatch.chdir(tmp_path)
    arguments = [flag, ""] if flag == "--workdir" else ["--workdir", "w", flag, ""]
    if module in ("train", "compare"):
        arguments += ["--config", str(ROOT / "configs" / "smoke.py")]
        arguments[-1] = arguments[-1] if module == "train" else str(ROOT / "configs" / "demo.py")
    command = __import__(f"experiments.{module}", fromlist=["main"])
    main = (
        command.main
        if module != "report"
        else __import__("experiments.report.write", fromlist=["main"]).main
    )
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    said = capsys.readouterr()
    assert "names no folder" in said.err + said.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"JAX_COORDINATOR_ADDRESS": "nowhere"}, "JAX_COORDINATOR_ADDRESS is 'nowhere'"),
        ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES is 'two'"),
        ({"JAX_PROCESS_ID": "2"}, "an id from 0 to one less"),
        ({"CLIPJAX_HEARTBEAT_SECONDS": "soon"}, "CLIPJAX_HEARTBEAT_SECONDS is 'soon'"),
        ({"XLA_FLAGS": "xla_dump_to=/x"}, "XLA_FLAGS has 'xla_dump_to=/x'"),
        (
            {"XLA_FLAGS": "--xla_force_host_platform_device_count=many"},
            "expected a number of devices",
        ),
    ],
)
def test_environment_variables_that_cannot_be_read_are_named(variables, said, monkeypatch):
    if any(name.startswith("JAX") for name in variables):
        good = {"JAX_COORDINATOR_ADDRESS": "localhost:1", "JAX_NUM_PROCESSES": "2"}
        variables = good | {"JAX_PROCESS_ID": "0"} | variables
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
    with pytest.raises(ValueError, match=said):
        cli.start_jax(cli.Command(ROOT))


def test_the_hosts_are_looked_for_again_without_harm_once_jax_is_in_use():
    jax.block_until_ready(jax.numpy.zeros(1))
    meshes.initialize("auto")
    meshes.initialize("auto")
    assert jax.process_count() == 1


def test_a_workdir_that_is_a_file_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    arguments = ["--config", str(ROOT / "configs/smoke.py"), "--distributed", "off"]
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        code = explain(lambda workdir=workdir: train.main([*arguments, "--workdir", str(workdir)]))
        err = capsys.readouterr().err
        assert code == 1
        assert f"error: {tmp_path / 'file'}" in err
        assert "Traceback" not in err


@pytest.mark.faults
def test_a_full_disk_is_said_and_the_same_line_goes_on(tmp_path):
    """A run in 1 MiB of memory disk; with room again it ends as one that always had room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = ["-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if subprocess.run(["mount", *size], capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    line = [sys.executable, "-m", "experiments.train", "--config", "configs/smoke.py"]
    line += ["--duration.steps", "30", "--checkpoint-every.epochs", "None"]
    line += ["--checkpoint-every.steps", "5", "--workdir", str(disk / "run")]
    env = environment(tmp_path)
    try:
        (disk / "ballast").write_bytes(bytes(900_000))
        full = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert full.returncode == 1, full.stderr
        assert "No space left on device; make room" in full.stderr
        assert "Traceback" not in full.stderr
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        ended = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
    finally:
        subprocess.run(["umount", str(disk)], check=True)
