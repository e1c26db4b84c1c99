"""Run the experiment scripts as a user would: in processes of their own."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]


def environment(cache, **extra):
    """Return the environment of a script: one device, its own compile cache and data."""
    kept = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "NPROC")}
    return kept | {"CLIPJAX_CACHE_DIR": str(cache), "PYTHONWARNINGS": "default"} | extra


def start(module, *arguments, env):
    """Start `python -m experiments.MODULE ARGUMENTS` and return the process."""
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{module}", *map(str, arguments)],
        cwd=ROOT,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(module, *arguments, env, expect=0):
    """Run a script to its end and return (stdout, stderr)."""
    process = start(module, *arguments, env=env)
    out, err = process.communicate(timeout=280)
    assert process.returncode == expect, f"exit {process.returncode}\n{out}\n{err}"
    return out, err


def summary(workdir):
    """Return what summary.json of a workdir holds."""
    return json.loads((workdir / "summary.json").read_text())


def rows_written(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_at(process, workdir, rows, delay, kind=signal.SIGKILL):
    """Send a signal `delay` s after metrics.jsonl has `rows` rows; False if it ended first."""
    deadline = time.monotonic() + 240
    while rows_written(workdir) < rows and process.poll() is None:
        assert time.monotonic() < deadline, "the run writes no rows"
        time.sleep(0.005)
    time.sleep(delay)
    if process.poll() is not None:
        return False
    process.send_signal(kind)
    return True


def drill(arguments, workdir, reference, *, kills, seed, env):
    """Kill a run `kills` times at random moments, resume it each time, compare the digests.

    Moments are uniform over the time that the rest of the run takes, start-up included. A run that
    ends before its kill is begun anew, so every kill counts.

    Args:
        arguments: of experiments.train, without --workdir.
        workdir: made for the drill.
        reference: the workdir of the uninterrupted run.
        kills: how many times.
        seed: of the random moments.
        env: environment of the processes.

    Returns:
        The steps that the runs went on from after a kill.
    """
    rng = np.random.default_rng(seed)
    expected = summary(reference)["params_digest"]
    began = time.monotonic()
    run("train", *arguments, "--workdir", workdir / "uninterrupted", env=env)
    duration = time.monotonic() - began
    assert summary(workdir / "uninterrupted")["params_digest"] == expected
    done, attempt, resumed = 0, 0, []
    while done < kills:
        folder = workdir / f"attempt{attempt}"
        attempt += 1
        while done < kills:
            process = start("train", *arguments, "--workdir", folder, env=env)
            if not kill_at(process, folder, 0, rng.uniform(0.2, 1.0) * duration):
                out, err = process.communicate()
                assert process.returncode == 0, f"exit {process.returncode}\n{out}\n{err}"
                break
            process.communicate()
            done += 1
        run("train", *arguments, "--workdir", folder, env=env)
        assert summary(folder)["params_digest"] == expected
        resumed.append(summary(folder)["resumed_from"])
    return resumed
