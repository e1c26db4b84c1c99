"""What all commands share: one line for what goes wrong, signals, flags, the environment."""

import contextlib
import errno
import importlib
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
import warnings
from types import SimpleNamespace

import jax
import pytest

from clipjax.train import log
from clipjax.train import mesh as meshes
from experiments import (
    compare,
    evaluate,
    growth_rates,
    landscape,
    noise,
    smoothing,
    theorem_check,
    train,
)
from experiments import explicit_graduated as explicit
from experiments.growth_networks import __main__ as growth_networks
from experiments.implicit_bias import __main__ as implicit_bias
from experiments.setup import cli, config_files, failures, locks, pace, signals
from tests.experiments.cli import ROOT
from tests.faults import drive


@pytest.fixture(autouse=True)
def hooks(monkeypatch):
    """`explain` is a program's last act and leaves the hooks for dying threads silent."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.delenv("CLIPJAX_TRACEBACK", raising=False)


def test_help_names_a_line_that_can_be_run(monkeypatch, capsys):
    """`python -m` runs a file, and its path is no command."""
    called = SimpleNamespace(name="experiments.evaluate.__main__")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", called)
    with pytest.raises(SystemExit):
        evaluate.main([])
    assert "python -m experiments.evaluate --help" in capsys.readouterr().err


def failing(error):
    def main():
        raise error

    return main


# --- errors of the operating system ---------------------------------------------------------------


@pytest.mark.parametrize("number", sorted(failures.CURES))
def test_an_error_of_the_system_is_one_line_with_path_and_cure(number, capfd):
    error = OSError(number, os.strerror(number), "/some/where")
    assert cli.explain(failing(error)) == 1
    _, err = capfd.readouterr()
    assert err.startswith(f"error: /some/where: {os.strerror(number)}. {failures.CURES[number]}\n")
    assert len(err.splitlines()) == 2  # the second says how to see the traceback


FULL = (
    'RESOURCE_EXHAUSTED: Error writing "params.Dense_0.bias/0" in OCDBT database at local file '
    '"/w/checkpoints/step_10.orbax-checkpoint-tmp/d/": Failed to write 80572 bytes to file 14: No '
    "space left on device [os_error_code='28'] [source locations='file_util_posix.cc:123']"
)


def chained(cause, error):
    with contextlib.suppress(type(error)):
        raise error from cause
    return error


@pytest.mark.parametrize(
    ("error", "path"),
    [
        (ValueError(FULL), "/w/checkpoints/step_10.orbax-checkpoint-tmp/d/: "),
        (RuntimeError(FULL), "/w/checkpoints/step_10.orbax-checkpoint-tmp/d/: "),
        (RuntimeError("write failed: No space left on device; writing to /w"), ""),
        (chained(OSError(errno.ENOSPC, "No space left on device", "/w"), Exception("x")), "/w: "),
        (chained(ValueError(FULL), KeyError("step")), "/w/checkpoints/"),
    ],
)
def test_a_full_disk_is_told_whatever_the_library_makes_of_it(error, path, capfd):
    assert cli.explain(failing(error)) == 1
    _, err = capfd.readouterr()
    assert err.startswith(f"error: {path}")
    assert "No space left on device. Make room" in err
    assert "RESOURCE_EXHAUSTED" not in err


def test_memory_is_told_with_the_size_asked_for(capfd):
    said = "Unable to allocate 71.1 PiB for an array with shape (100000000, 100000000)"
    assert cli.explain(failing(MemoryError(said))) == 1
    assert f"not enough memory ({said}). Make what" in capfd.readouterr().err


def test_a_bug_keeps_its_traceback_even_if_a_file_was_looked_for_in_vain():
    error = chained(FileNotFoundError(errno.ENOENT, "No such file", "/w"), KeyError("a bug"))
    with pytest.raises(KeyError):
        cli.explain(failing(error))


def test_the_traceback_is_shown_where_it_is_asked_for(monkeypatch):
    monkeypatch.setenv("CLIPJAX_TRACEBACK", "1")
    with pytest.raises(ValueError, match="bad"):
        cli.explain(failing(ValueError("bad")))


def test_writing_without_a_path_is_told_with_the_folder(tmp_path, capfd):
    def main():
        with cli.working_in(tmp_path / "run"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as file.write does

    assert cli.explain(main) == 1
    assert capfd.readouterr().err.startswith(f"error: {tmp_path / 'run'}: No space left")


@pytest.mark.parametrize("workdir", ["file", "file/under/it", "n" * 300, "/proc/no/such"])
def test_a_workdir_that_cannot_be_is_refused_with_its_path(workdir, tmp_path, capfd):
    (tmp_path / "file").write_text("mine")
    arguments = ["--config", "configs/smoke.py", "--workdir", str(tmp_path / workdir)]
    assert cli.explain(lambda: train.main(arguments)) == 1
    _, err = capfd.readouterr()
    shown = err.removeprefix("error: ").partition(":")[0][:80]  # a long path is shortened
    assert shown
    assert str(tmp_path / workdir).startswith(shown)
    assert len(err.splitlines()) == 2
    assert (tmp_path / "file").read_text() == "mine"


TINY = """
from experiments.config import MLP, SGD, Duration, Run

config = Run("classification", "digits", MLP(hidden=(4,)), SGD(0.1), Duration(steps=6),
             batch_size=8, log_every=1, evaluate_every=Duration(steps=6),
             checkpoint_every=Duration(steps=2), calibration_batches=1, samples=0)
"""


def test_a_disk_that_fills_up_in_training_keeps_what_was_saved(tmp_path, monkeypatch, capfd):
    """The same line goes on from the last checkpoint once there is room."""
    (tmp_path / "tiny.py").write_text(TINY)
    arguments = ["--config", str(tmp_path / "tiny.py"), "--workdir", str(tmp_path / "run")]
    append = log.MetricsFile.append

    def full(self, row):
        if row["step"] == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(log.MetricsFile, "append", full)
        assert cli.explain(lambda: train.main(arguments)) == 1
    _, err = capfd.readouterr()
    assert f"error: {tmp_path / 'run'}: No space left on device. Make room" in err
    assert not (tmp_path / "run" / locks.NAME).exists()
    assert cli.explain(lambda: train.main(arguments)) == 0
    rows = log.read_jsonl(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows if row["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert '"resumed_from": 4' in (tmp_path / "run" / "summary.json").read_text()


def test_what_dying_threads_print_is_dropped_beside_an_error_and_kept_without(capfd):
    def main(code):
        thread = threading.Thread(target=failing(RuntimeError("from a thread")))
        thread.start()
        thread.join()
        if code:
            raise ValueError("the cause")
        return code

    assert cli.explain(lambda: main(0)) == 0
    assert "RuntimeError: from a thread" in capfd.readouterr().err
    assert cli.explain(lambda: main(1)) == 1
    assert capfd.readouterr().err == "error: the cause\n(CLIPJAX_TRACEBACK=1 shows where)\n"


@pytest.mark.parametrize("place", [".", "figures", "tables"])
def test_what_a_killed_run_left_half_written_is_removed(place, tmp_path):
    """Pictures and tables lie in folders of their own."""
    folder = tmp_path / place
    folder.mkdir(exist_ok=True)
    leftover, kept = folder / f".samples.npz.{'0123456789abcdef'}.tmp", folder / ".mine.tmp"
    for path in (leftover, kept):
        path.touch()
    with cli.working_in(tmp_path):
        assert not leftover.exists()
    assert kept.exists()


def test_a_reader_that_left_is_no_traceback():
    """`python -m experiments.report ... | head -1`."""
    script = "from experiments.setup.cli import explain; import sys; sys.exit(explain(lambda: 0))"
    script = script.replace("lambda: 0", "lambda: print('x' * 100_000) or 0")
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        err = process.stderr.read().decode()
        assert process.wait() == 1
    assert err.startswith("error: Broken pipe. Who read the output is gone")
    assert len(err.splitlines()) == 2


# --- signals --------------------------------------------------------------------------------------


@pytest.fixture
def heard():
    """Signals that a background job or nohup has its children ignore are heard again."""
    ignored = [s for s in signals.SIGNALS if signal.getsignal(s) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.mark.parametrize(
    ("number", "name", "code"),
    [
        (signal.SIGINT, "Ctrl-C", 130),
        (signal.SIGTERM, "SIGTERM", 75),
        (signal.SIGHUP, "SIGHUP", 75),
    ],
)
@pytest.mark.usefixtures("heard")
def test_a_signal_ends_a_command_with_one_line(number, name, code, capfd):
    before = [signal.getsignal(s) for s in signals.SIGNALS]

    def main():
        signal.raise_signal(number)
        time.sleep(60)

    assert cli.explain(main, kept="all is kept") == code
    assert capfd.readouterr().err == f"stopped by {name}; all is kept\n"
    assert [signal.getsignal(s) for s in signals.SIGNALS] == before


KEPT = {
    "theorem_check": "nothing is written before the end",
    "implicit_bias": "nothing is written before the end",
    "prepare": "nothing half-made is left",
}


@pytest.mark.parametrize("name", [*drive.COMMANDS, "demo"])
def test_every_script_tells_its_failures_and_what_a_signal_leaves(name, monkeypatch):
    """Its last lines are run; those before it, and `main`, are the business of other tests."""
    told = []
    monkeypatch.setattr(cli, "explain", lambda main, kept=cli.KEPT: told.append((main, kept)) or 7)
    # It was imported under another name as well, which runpy warns of.
    with warnings.catch_warnings(action="ignore"), pytest.raises(SystemExit) as ended:
        runpy.run_module(f"experiments.{name}", run_name="__main__")
    assert ended.value.code == 7
    ((main, kept),) = told
    assert main.__name__ == "main"
    assert KEPT.get(name, cli.KEPT) in kept


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)]
)
@pytest.mark.usefixtures("heard")
def test_a_signal_lets_a_run_save_first(number, code, tmp_path, capfd):
    steps = []

    def main():
        should_stop = cli.stop_on_signal()
        while not should_stop():
            steps.append(len(steps))
            if len(steps) == 3:
                signal.raise_signal(number)
        return cli.stopped(tmp_path)

    assert cli.explain(main) == code
    assert steps == [0, 1, 2]
    answered = "stopping after this step, to be saved; Ctrl-C again ends at once\n"
    assert capfd.readouterr().err == (
        (answered if number == signal.SIGINT else "")
        + f"stopped and saved; the same line goes on ({tmp_path})\n"
    )


@pytest.mark.usefixtures("heard")
def test_what_a_library_makes_of_ctrl_c_is_still_ctrl_c(capfd):
    def main():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt as error:
            raise RuntimeError("the callback failed") from error

    assert cli.explain(main) == 130
    assert capfd.readouterr().err.startswith("stopped by Ctrl-C; ")


# The main thread waits in C for a mutex that it holds, as it does for a compiler: no handler of
# Python's runs there.
STUCK = """
import ctypes, threading
from experiments.setup import signals
with signals.listening() as listener:
    SAVE
    mutex = ctypes.create_string_buffer(64)
    lock = ctypes.CDLL(None).pthread_mutex_lock
    lock(mutex)
    threading.Timer(0.3, lambda: print("ready", flush=True)).start()
    lock(mutex)
"""


@pytest.mark.parametrize(
    ("save", "answer"),
    [
        ("listener.save_first(several_hosts=False)", "stopping after this step, to be saved"),
        ("", "ending as soon as this is computed"),
    ],
)
def test_ctrl_c_is_answered_while_compiling_and_the_second_ends_at_once(save, answer):
    with subprocess.Popen(
        [sys.executable, "-c", STUCK.replace("SAVE", save)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # at once after the first: `timeout -s INT` does so
        assert answer in process.stderr.readline()
        time.sleep(signals.APART)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == "ended at once; what was saved before is kept\n"
    assert process.returncode == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_while_importing_is_one_line(number, code):
    with subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "experiments.theorem_check", "--workdir", "w"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        # The list of imports tells when our handler is in place, and that much is still to come.
        for module in ("experiments.setup.signals", "numpy"):
            while module not in process.stderr.readline():
                assert process.poll() is None
        process.send_signal(number)
        lines = process.stderr.read().splitlines()
    assert process.returncode == code
    said = [line for line in lines if not line.startswith("import time:")]
    assert said == [f"stopped by {signal.Signals(number).name} at the start; nothing had begun"]


COMPUTES = {
    "evaluate": "evaluate_run",
    "noise": "measure",
    "landscape": "measure",
    **dict.fromkeys(("growth_rates", "implicit_bias", "smoothing", "explicit_graduated"), "run"),
}


@pytest.mark.parametrize(("name", "compute"), COMPUTES.items())
def test_a_command_that_computes_for_long_says_so(name, compute, tmp_path, monkeypatch, capfd):
    """The others have a line of progress."""

    def long(*_, **__):
        time.sleep(0.2)
        raise ValueError("enough")

    module = importlib.import_module(drive.COMMANDS[name])
    monkeypatch.setattr(module, "start_jax", lambda command: None)  # JAX has started here
    monkeypatch.setattr(module, compute, long)
    monkeypatch.setitem(pace.telling.__wrapped__.__kwdefaults__, "every", 0.02)
    with pytest.raises(ValueError, match="enough"):
        module.main(["--workdir", str(tmp_path / "w")])
    assert "so far" in capfd.readouterr().err


# --- flags ----------------------------------------------------------------------------------------

COMMANDS = [
    compare.CompareCommand,
    evaluate.EvaluateCommand,
    explicit.ExplicitGraduatedCommand,
    growth_networks.GrowthNetworksCommand,
    growth_rates.GrowthRatesCommand,
    implicit_bias.ImplicitBiasCommand,
    landscape.LandscapeCommand,
    noise.NoiseCommand,
    smoothing.SmoothingCommand,
    theorem_check.TheoremCommand,
]


@pytest.mark.parametrize("flag", ["--workdir", "--data-dir"])
@pytest.mark.parametrize("command", COMMANDS)
def test_an_empty_path_is_refused_by_its_flag(command, flag, capsys):
    arguments = ["--workdir", "w", flag, ""]
    with pytest.raises(SystemExit) as ended:
        cli.parse(command, arguments)
    assert ended.value.code == 2
    assert flag in capsys.readouterr().err


def test_the_current_folder_can_be_asked_for():
    command = cli.parse(cli.Command, ["--workdir", ".", "--data-dir", "None"])
    assert str(command.workdir) == "."
    assert command.data_dir is None


@pytest.mark.parametrize("text", [str(2**63), str(-(2**63) - 1), "9" * 5000, "1.5", "x", ""])
@pytest.mark.parametrize("flag", ["--seed", "--iterations"])
def test_integers_beyond_64_bits_are_refused_by_their_flag(flag, text, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.parse(theorem_check.TheoremCommand, ["--workdir", "w", flag, text])
    assert ended.value.code == 2
    assert flag in capsys.readouterr().err


def test_integers_of_64_bits_are_taken():
    arguments = ["--workdir", "w", "--seed", str(2**63 - 1), "--iterations", "10", "1_000"]
    command = cli.parse(theorem_check.TheoremCommand, arguments)
    assert (command.seed, command.iterations) == (2**63 - 1, (10, 1000))


# --- the environment ------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ["--xla_no_such_flag=1", "--xla_dump_hlo_as_text=perhaps", "x"])
def test_bad_xla_flags_are_refused_before_xla_aborts(flags):
    with pytest.raises(ValueError, match=r"which XLA refuses: (Unknown|Couldn't|Could not)"):
        cli.check_xla_flags(flags)


@pytest.mark.parametrize("text", ["x", "0", "-1", "1.5", "1e3", " "])
def test_a_bad_heartbeat_is_refused(text, monkeypatch):
    monkeypatch.setenv("CLIPJAX_HEARTBEAT_SECONDS", text)
    with pytest.raises(ValueError, match=r"CLIPJAX_HEARTBEAT_SECONDS is .*; expected seconds"):
        cli.heartbeat()


@pytest.mark.parametrize(
    ("address", "count", "index", "name"),
    [
        ("", "", "", "JAX_COORDINATOR_ADDRESS"),
        ("no_port", "2", "0", "JAX_COORDINATOR_ADDRESS"),
        ("host:", "2", "0", "JAX_COORDINATOR_ADDRESS"),
        ("host:99999", "2", "0", "JAX_COORDINATOR_ADDRESS"),
        (":1234", "2", "0", "JAX_COORDINATOR_ADDRESS"),
        ("host:1234", "two", "0", "JAX_NUM_PROCESSES"),
        ("host:1234", "0", "0", "JAX_NUM_PROCESSES"),
        ("host:1234", "2", "-1", "JAX_PROCESS_ID"),
        ("host:1234", "2", "2", "JAX_PROCESS_ID"),
        ("host:1234", "2", "1.0", "JAX_PROCESS_ID"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused_by_the_variable(
    address, count, index, name, monkeypatch
):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", address)
    monkeypatch.setenv("JAX_NUM_PROCESSES", count)
    monkeypatch.setenv("JAX_PROCESS_ID", index)
    with pytest.raises(ValueError, match=f"{name} is '.*'; expected"):
        meshes.initialize("auto")


def test_a_second_run_in_a_process_finds_jax_started(monkeypatch):
    jax.devices()
    meshes.initialize("auto")
    assert jax.process_count() == 1
    # In a cluster it would train alone where several were meant.
    for name, value in (("JOB_ID", "1"), ("STEP_NODELIST", "a"), ("NTASKS", "2"), ("PROCID", "0")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_LOCALID", "0")
    with pytest.raises(ValueError, match=r"belongs to a cluster .* but JAX has started alone"):
        meshes.initialize("auto")


@pytest.fixture
def failed(monkeypatch):
    """What is told to the other hosts: (reason, exit code)."""
    told = []
    monkeypatch.setattr(cli.hosts, "fail_together", lambda *said: told.append(said))
    return told


@pytest.mark.usefixtures("heard")
def test_a_failure_on_one_host_is_told_to_the_others(failed):
    """Those wait for it in every step; what they do then, `tests/train/test_hosts.py` shows."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/run")
    assert cli.explain(failing(full)) == 1
    assert cli.explain(lambda: signal.raise_signal(signal.SIGINT) or 0, kept="all is kept") == 130
    (reason, code), stopped = failed
    assert reason.startswith("/run: No space left on device. Make room")
    assert code == 1
    assert stopped == ("stopped by Ctrl-C; all is kept", 130)


def test_a_bug_on_one_host_ends_the_others(failed, monkeypatch, capfd):
    monkeypatch.setattr(cli.hosts, "several", lambda: True)
    with pytest.raises(KeyError):
        cli.explain(failing(KeyError("a bug")))
    assert failed == [("KeyError: 'a bug'",)]
    assert "Traceback" in capfd.readouterr().err  # before the process ends


def test_hosts_are_watched_as_soon_as_they_have_met(monkeypatch):
    """And XLA's flags are tried before, since XLA aborts by bad ones as soon as it starts."""
    jax.devices()  # it has started, and does not read the variable again
    monkeypatch.setenv("CLIPJAX_HEARTBEAT_SECONDS", "7")
    monkeypatch.setenv("XLA_FLAGS", "--flags")
    done = []
    monkeypatch.setattr(cli, "check_xla_flags", done.append)
    monkeypatch.setattr(meshes, "initialize", lambda *_, **given: done.append(given))
    monkeypatch.setattr(cli.hosts, "watch", lambda seconds: done.append(f"watched for {seconds}"))
    cli.start_jax(cli.Command(ROOT))
    assert done == ["--flags", {"heartbeat_timeout_seconds": 7}, "watched for 7"]


# --- config files ---------------------------------------------------------------------------------

BAD_CONFIGS = {
    "syntax": ("x = 1\nconfig = Run(\n", r", line 2: '\(' was never closed: config = Run\("),
    "name": ("\nconfig = Runn()\n", ", line 2: NameError: name 'Runn' is not defined"),
    "import": ("import no_such_module\n", ", line 1: ModuleNotFoundError: No module named"),
    "from": (
        "from experiments.config import SDG\n",
        ", line 1: cannot import name 'SDG'.*did you mean 'SGD'",
    ),
    "exception": ("def f():\n    1 / 0\n\nf()\n", ", line 2: ZeroDivisionError: division by zero"),
    "silent": ("raise AssertionError\n", ", line 1: AssertionError$"),
    "value": ("\nconfig = int('x')\n", ", line 2: invalid literal for int"),
    "missing argument": (
        "from experiments.config import SGD\nSGD()\n",
        r", line 2: TypeError: SGD.__init__\(\) missing 1 required positional argument",
    ),
    "unknown field": (
        "from experiments.config import SGD\nSGD(learning_rat=1)\n",
        ", line 2: SGD has no field 'learning_rat'.*did you mean 'learning_rate'",
    ),
    "no bytes": ("config = 1\0\n", "null bytes"),
    "not UTF-8": (b"config = '\xff\xfe'\n", "utf-8"),
    "recursion": ("def f():\n    f()\nf()\n", ", line 2: RecursionError: maximum recursion depth"),
    "exit": ("import sys\nsys.exit(0)\n", r", line 2: sys.exit\(0\): a config file yields"),
    "file": ("open('/no/such')\n", ", line 1: FileNotFoundError: .*/no/such"),
    "nothing": ("x = 1\n", "yields config = None; expected a Run or a Grid"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_the_error_of_a_config_file_is_told_with_file_and_line(case, tmp_path, capfd):
    text, message = BAD_CONFIGS[case]
    path = tmp_path / "bad.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=f"^{path}.*{message}"):
        config_files.load(path)
    arguments = ["--config", str(path), "--workdir", str(tmp_path / "run")]
    assert cli.explain(lambda: train.main(arguments)) == 1
    assert "Traceback" not in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_line_of_a_config_file_is_told_where_a_module_fails_that_it_imports(
    tmp_path, monkeypatch
):
    (tmp_path / "half.py").write_text("x = (\n")
    (tmp_path / "bad.py").write_text("\nimport half\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"bad.py, line 2: .*half.py, line 1: '\(' was never"):
        config_files.load(tmp_path / "bad.py")
