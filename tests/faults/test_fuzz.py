"""Wrong inputs by the hundred: each is refused in words, or done; nothing is half-written.

`make test` takes the first 200 cases, `make fuzz` the 1,000 after them: FUZZ=5000 asks for more,
FUZZ_SEED=7 for others. A failure names its case; `python -m tests.faults.drive SEED NUMBER` shows
it alone.
"""

import dataclasses
import gc
import importlib
import os
import random
import shutil
import warnings

import pytest

from tests.faults import command_lines, damaged_files, drive, generate, material
from tests.faults.cases import Case, Damage

SEED = int(os.environ.get("FUZZ_SEED", "0"))
LONG = int(os.environ.get("FUZZ", "1000"))
SHORT = 200
BLOCK = 50

# Our own time limit takes the alarm that pytest's would use.
pytestmark = pytest.mark.timeout(600, method="thread")


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """What cases damage, made once."""
    folder = tmp_path_factory.mktemp("material")
    material.make(folder)
    return folder


def run_block(seed, first, last, tmp_path, made):
    failures = []
    for number in range(first, last):
        case = generate.make(seed, number)
        outcome = drive.run(case, tmp_path / str(number), made)
        failures += [f"{seed} {number} ({case.kind}): {fault}" for fault in outcome.faults]
        shutil.rmtree(tmp_path / str(number))
    with warnings.catch_warnings(action="ignore"):
        gc.collect()  # files that failing libraries left open complain here, and of nothing of ours
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("first", range(0, SHORT, BLOCK))
def test_wrong_inputs_end_in_words(first, tmp_path, made):
    run_block(0, first, first + BLOCK, tmp_path, made)


@pytest.mark.faults
@pytest.mark.parametrize("first", range(SHORT, SHORT + LONG, BLOCK))
def test_many_wrong_inputs_end_in_words(first, tmp_path, made):
    run_block(SEED, first, min(first + BLOCK, SHORT + LONG), tmp_path, made)


def test_cases_are_functions_of_their_numbers():
    first = [case for case, _ in zip(generate.generate(3), range(300), strict=False)]
    assert first == [generate.make(3, number) for number in range(300)]
    assert first != [generate.make(4, number) for number in range(300)]
    assert {case.command for case in first} == drive.COMMANDS.keys()


@pytest.mark.parametrize("command", ["evaluate", "prepare", "report"])
def test_what_cases_begin_from_is_right(command, tmp_path, made):
    """Without this, a command that refuses everything would pass."""
    arguments, needs = command_lines.LINES[command]
    case = Case("whole", command, arguments, needs, must_refuse=False)
    assert drive.run(case, tmp_path / "case", made).faults == ()


@pytest.mark.faults
@pytest.mark.parametrize("command", drive.COMMANDS)
def test_what_all_cases_begin_from_is_right(command, tmp_path, made):
    test_what_cases_begin_from_is_right(command, tmp_path, made)


KINDS = ("run_json", "checkpoint", "grid", "search", "tail", "prepared", "raw")


@pytest.mark.faults
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_damaged_was_whole(kind, tmp_path, made):
    draw, seen = random.Random(0), {}
    for _ in range(30):
        case = getattr(damaged_files, kind)(draw)
        seen[case.command, case.arguments] = case
    for number, case in enumerate(seen.values()):
        whole = dataclasses.replace(case, damages=(), must_refuse=False, names="")
        assert drive.run(whole, tmp_path / str(number), made).faults == (), case


@pytest.mark.parametrize(
    "command",
    [
        *("theorem_check", "growth_rates", "growth_networks", "implicit_bias"),
        *("smoothing", "explicit_graduated"),
    ],
)
def test_nothing_is_computed_where_nothing_can_be_written(command, tmp_path, made, monkeypatch):
    module = importlib.import_module(drive.COMMANDS[command])
    compute = "check" if command == "theorem_check" else "run"
    monkeypatch.setattr(module, compute, lambda *_: pytest.fail("it is computed"))
    arguments, needs = command_lines.LINES[command]
    line = (*command_lines.without(arguments, "--workdir"), "--workdir", "a_file/run")
    case = Case("a file", command, line, needs, (command_lines.FILE,), True, "Not a directory")
    assert drive.run(case, tmp_path / "case", made).faults == ()


@pytest.mark.parametrize("path", ["$\\alpha", "caf\udce9"])
def test_a_run_begins_in_no_folder_that_its_checkpoints_would_miss(path, tmp_path, made):
    line = ("--config", "tiny.py", "--workdir", path)
    case = Case("path", "train", line, ("configs",), must_refuse=True, names="checkpoints")
    assert drive.run(case, tmp_path / "case", made).faults == ()


# -- The judge ------------------------------------------------------------------------------------


def crash(_):
    raise KeyError("absent")


def leave(text, code=1, name="new", said=""):
    """Return a command that writes a file, prints to stderr and ends."""

    def main(_):
        import pathlib
        import sys

        pathlib.Path(name).write_text(text)
        print(said, file=sys.stderr)
        return code

    return main


SAID = "error: its words"
STUBS = {
    "a traceback": (crash, "traceback: KeyError"),
    "a refused input that is done": (leave("", 0), "ended with 0 and must be refused"),
    "an error without words": (leave("", name="kept.json"), "no line says what is wrong"),
    "words that name nothing": (leave("", said=SAID), "'kept' is not named"),
    "a printed traceback": (
        leave("", said="Traceback (most recent call last):"),
        "a traceback is printed",
    ),
    "another exit code": (leave("", 3), "exit code 3"),
    "a file that was there": (leave("2", said=SAID, name="kept.json"), "'kept.json' changed"),
    "a file of a refused command": (leave("2", said=SAID), "'new' was written"),
    "a temporary file": (leave("", said=SAID, name="x.tmp"), "'x.tmp' is left behind"),
    "half a file": (leave("{", 0, name="new.json"), "'new.json' is half-written"),
    "silence": (lambda _: [None for _ in iter(int, 1)], "not done after"),
}


@pytest.mark.parametrize(("main", "fault"), STUBS.values(), ids=STUBS)
def test_the_judge_sees(main, fault, tmp_path, made, monkeypatch):
    monkeypatch.setattr(drive, "SECONDS", 0.2)
    kept = Damage("kept.json", "write", b"1")
    case = Case("stub", "report", (), (), (kept,), must_refuse=True, names="kept")
    found = drive.run(case, tmp_path / "case", made, main).faults
    assert any(one.startswith(fault) for one in found), found


@pytest.mark.parametrize(
    ("how", "expected"),
    {
        "cut": b'[{"a"',
        "empty": b"",
        "flip": b'[{"a"{ 1}, 2]',
        "drop": b'[{"a": 1}]',
        "retype": b'[{"a": 1}, null]',
    }.items(),
)
def test_damage(how, expected, tmp_path):
    # Of 13 bytes, at .4 is byte 5, ":" (0x3a ^ 0x41 is "{"); of 3 places, at .7 is the last, "2".
    (tmp_path / "a.json").write_bytes(b'[{"a": 1}, 2]')
    at = 0.4 if how in ("cut", "flip") else 0.7
    drive.apply(Damage("*.json", how, at=at), tmp_path)
    assert (tmp_path / "a.json").read_bytes() == expected
