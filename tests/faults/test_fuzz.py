"""Wrong inputs by the hundred: each is refused in words, and nothing is left half-written.

`make fuzz` tries 1,000 of them, FUZZ_SEED says which; `make test` tries 200.
"""

import collections
import contextlib
import importlib
import itertools
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest

from experiments.setup.cli import explain
from tests.faults.generate import cases

ROOT = Path(__file__).parents[2]
CONFIG = """
from experiments.config import MLP, SGD, Duration, Run
config = Run(
    task="classification", dataset="digits", model=MLP(hidden=(4,)), optimizer=SGD(0.1),
    duration=Duration(steps=4), batch_size=64, evaluate_every=Duration(steps=2),
    checkpoint_every=Duration(steps=2), samples=2, calibration_batches=1,
)
"""
MODULES = {
    "report": "experiments.report.write",
    "high_probability": "experiments.high_probability.__main__",
}


def run(command, arguments):
    """Run a command in this process; return its exit code and all that it printed."""
    main = importlib.import_module(MODULES.get(command, f"experiments.{command}")).main
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="backslashreplace") as said:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            try:
                code = explain(lambda: main(list(arguments)))
            except SystemExit as stopped:
                code = stopped.code
        said.seek(0)
        return code, said.read()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder with a finished run, and the prepared data that it was trained on."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "config.py").write_text(CONFIG)
    data = folder / "DATA"
    code, said = run("prepare", ("--dataset", "digits", "--data-dir", str(data)))
    assert code == 0, said
    line = ("--config", str(folder / "config.py"), "--workdir", str(folder / "RUN"))
    code, said = run("train", (*line, "--data-dir", str(data)))
    assert code == 0, said
    return folder


def snapshot(folder):
    """Return the bytes of each file below a folder."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fault(case, base, folder):
    """Run a case in a folder; return what was wrong with how it went, or None."""
    for name in ("RUN", "DATA"):
        if name in " ".join(case.arguments):
            shutil.copytree(base / name, folder / name)
    shutil.copy(base / "config.py", folder)
    (folder / "configs").symlink_to(ROOT / "configs")
    case.prepare(folder)
    before = snapshot(folder)
    here = Path.cwd()
    os.chdir(folder)
    try:
        code, said = run(case.command, case.arguments)
    except Exception as error:  # what explain hands on is a fault of ours
        return f"{type(error).__name__}: {error}"
    finally:
        os.chdir(here)
    if code not in (0, 1, 2, 75, 130):
        return f"exit code {code}"
    if "Traceback" in said:
        return "a traceback"
    if code == 0 and case.must_refuse:
        return "exit code 0"
    if code == 1 and "error: " not in said:
        return f"no error in words: {said[-200:]!r}"
    after = snapshot(folder)
    left = [p for p in after if p.suffix == ".tmp" or ".tmp." in p.name or p.name == "lock.json"]
    if left:
        return f"left behind: {left}"
    if case.must_refuse and {p: after.get(p) for p in before} != before:
        return "files that were there have changed"
    return None


def fuzz(base, folder, seed, count):
    """Try cases; return how many there were of each kind, and the faults."""
    kinds, faults, began = collections.Counter(), [], time.monotonic()
    for number, case in enumerate(itertools.islice(cases(seed), count)):
        place = folder / str(number)
        place.mkdir()
        kinds[case.kind] += 1
        if found := fault(case, base, place):
            faults.append(f"case {number} of seed {seed}, {case}: {found}")
        shutil.rmtree(place, ignore_errors=True)
    print(f"{dict(kinds)}, {len(faults)} faults, {time.monotonic() - began:.0f} s")
    return faults


# A damaged checkpoint is stepped over with a warning; reads that fail die unheard in Orbax.
pytestmark = [
    pytest.mark.filterwarnings("ignore:checkpoint of step:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*its last row was cut short:UserWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.mark.parametrize("part", range(4))
def test_fifty_wrong_inputs_are_refused_in_words(base, tmp_path, part):
    faults = fuzz(base, tmp_path, part, 50)
    assert not faults, "\n".join(faults)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_a_thousand_wrong_inputs_are_refused_in_words(base, tmp_path):
    faults = fuzz(base, tmp_path, int(os.environ.get("FUZZ_SEED", "100")), 1000)
    assert not faults, "\n".join(faults)
