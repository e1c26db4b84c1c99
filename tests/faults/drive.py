"""Runs a case and judges what came of it: `python -m tests.faults.drive SEED NUMBER` shows one."""

import contextlib
import importlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.setup.cli import explain
from experiments.setup.failures import said
from tests.faults.cases import Case, Damage

COMMANDS = {
    "train": "experiments.train",
    "evaluate": "experiments.evaluate",
    "compare": "experiments.compare",
    "tune": "experiments.tune.__main__",
    "high_probability": "experiments.high_probability.__main__",
    "theorem_check": "experiments.theorem_check",
    "noise": "experiments.noise",
    "landscape": "experiments.landscape",
    "growth_rates": "experiments.growth_rates",
    "implicit_bias": "experiments.implicit_bias.__main__",
    "growth_networks": "experiments.growth_networks.__main__",
    "smoothing": "experiments.smoothing",
    "explicit_graduated": "experiments.explicit_graduated",
    "prepare": "experiments.prepare",
    "report": "experiments.report.write",
    "profiles": "experiments.profiles",
}
"""Where the `main` of each command is."""

EXIT_CODES = {0, 1, 2, 75, 130}
SECONDS = 60
"""After which a case counts as hanging; a tiny run on a busy machine takes some."""

OWN = {
    "train": r"(new|run)/(checkpoints/.*|metrics\.jsonl|config\.json|\.lock)",
    "compare": r"new/.*",
    "tune": r"(new|search)/.*",
    "high_probability": r"(chunks_of|tail)/(chunks/.*|\.lock)",
    "growth_networks": r"new/(state/.*|\.lock)",
    "prepare": r"(data|new)/.*",
    # Damaged checkpoints are moved aside by whoever meets them.
    **dict.fromkeys(("evaluate", "noise", "landscape"), r"run/checkpoints/.*"),
}
"""Files that a command may change although it ends with an error: what it keeps to go on with."""

LOCKS = r"(.*/)?\.[^/]*lock"
TEMPORARY = r"(.*/)?([^/]*\.tmp|\.[^/]*\.npz|[^/]*\.preparing|[^/]*orbax-checkpoint-tmp[^/]*)(/.*)?"


class TooLong(BaseException):
    """A case took longer than `SECONDS`."""


@dataclass(frozen=True)
class Outcome:
    """What a case did: how it ended, what it printed, and what is wrong with that."""

    code: int
    output: str
    seconds: float
    faults: tuple[str, ...]


def run(case: Case, folder: Path, material: Path, main: Callable | None = None) -> Outcome:
    """Run a case in a new folder and judge it.

    Args:
        case: what to run.
        folder: made here.
        material: what `tests.faults.material.make` made.
        main: in place of the command's.
    """
    folder.mkdir()
    for name in case.needs:
        shutil.copytree(material / name, folder, dirs_exist_ok=True, symlinks=True)
    for damage in case.damages:
        apply(damage, folder)
    before = contents(folder)
    began = time.monotonic()
    main = main or importlib.import_module(COMMANDS[case.command]).main
    code, output, broken = call(main, case.arguments, folder)
    seconds = time.monotonic() - began
    faults = [*broken, *judge(case, code, output), *_judge_files(case, code, folder, before)]
    return Outcome(code, output, seconds, tuple(faults))


def call(main: Callable, arguments: Sequence[str], folder: Path) -> tuple[int, str, list[str]]:
    """Call a command's `main` as its script does; return (exit code, output, what escaped)."""
    broken: list[str] = []
    code = 0
    with contextlib.ExitStack() as stack:
        spoken = [stack.enter_context(tempfile.TemporaryFile("w+", errors="strict"))]
        # As Python opens them: stdout fails on what UTF-8 cannot write, stderr writes it escaped.
        spoken += [stack.enter_context(tempfile.TemporaryFile("w+", errors="backslashreplace"))]
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(spoken[0]),
            contextlib.redirect_stderr(spoken[1]),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            try:
                with _time_limit():
                    code = explain(lambda: main(list(arguments)))
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            except TooLong:
                broken.append(f"not done after {SECONDS} s")
            except BaseException as error:  # what a user would see as a traceback
                code = 1
                frames = [
                    f for f in traceback.extract_tb(error.__traceback__) if "tests" not in f[0]
                ]
                where = f"{Path(frames[-1][0]).name}:{frames[-1][1]}" if frames else "?"
                broken.append(f"traceback: {type(error).__name__}: {said(error):.200} ({where})")
                del error
        for stream in spoken:
            stream.flush()
            stream.seek(0)
        output = "".join(stream.read() for stream in spoken)
    return code, output, broken


@contextlib.contextmanager
def _time_limit() -> Iterator[None]:
    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1.0)  # again, where a library swallowed the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def judge(case: Case, code: int, output: str) -> Iterator[str]:
    """Yield what is wrong with an exit code and what was printed."""
    if code not in EXIT_CODES:
        yield f"exit code {code}"
    if "Traceback (most recent call last)" in output:
        yield "a traceback is printed"
    if case.must_refuse and code == 0:
        yield "ended with 0 and must be refused"
    if case.must_refuse is False and code != 0:
        yield "refused, and is right"
    if code in (1, 2):
        told = re.search(r"^(\S+: )?error: .", output, re.MULTILINE)  # argparse names its program
        boxed = "For full helptext" in output
        checked = case.command == "theorem_check" and "report.html" in output  # a bound is broken
        if not (told or boxed or checked):
            yield "no line says what is wrong"
        elif case.names and _bare(case.names) not in _bare(output):
            yield f"{case.names!r} is not named"


def _bare(text: str) -> str:
    """Return letters and digits alone: boxes wrap their lines, flags have - for _."""
    return re.sub(r"[\W_]", "", text).lower()


def _judge_files(
    case: Case, code: int, folder: Path, before: dict[str, bytes | None]
) -> Iterator[str]:
    """Yield what is wrong with the files that are there now."""
    after = contents(folder)
    own = OWN.get(case.command, r"$.")
    for name in sorted(before.keys() | after.keys()):
        if re.fullmatch(TEMPORARY, name, re.DOTALL) and name not in before:
            yield f"{name!r} is left behind"
        elif code == 0 or re.fullmatch(rf"{own}|{LOCKS}", name, re.DOTALL):
            continue
        elif name not in after:
            yield f"{name!r} is gone, though the command failed"
        elif name in before and before[name] != after[name]:
            yield f"{name!r} changed, though the command failed"
        elif name not in before and after[name] is not None and case.must_refuse:
            yield f"{name!r} was written, though the command failed"
    kept = set(before.values())  # what was damaged already may be moved aside
    for name, content in after.items():
        if content not in kept | {None} and name not in before and not _whole(folder / name):
            yield f"{name!r} is half-written"


def _whole(path: Path) -> bool:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(), parse_constant=_refuse)
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                _ = [arrays[name] for name in arrays.files]
    except Exception:  # whatever the reader says, it cannot be read
        return False
    return True


def _refuse(name: str):
    raise ValueError(name)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Return what is in a folder: name -> bytes of a file, None for folders and all else."""
    found: dict[str, bytes | None] = {}
    for root, folders, files in os.walk(folder):
        for name in folders + files:
            path = Path(root, name)
            regular = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(folder))] = path.read_bytes() if regular else None
    return found


# -- Damage ---------------------------------------------------------------------------------------


def apply(damage: Damage, folder: Path) -> None:
    """Damage a file of a folder.

    Raises:
        LookupError: no file fits the pattern, so that the case would try nothing.
    """
    if damage.how == "write" and "*" not in damage.file:
        (folder / damage.file).parent.mkdir(parents=True, exist_ok=True)
        (folder / damage.file).write_bytes(damage.content)
        return
    fitting = sorted(p for p in folder.glob(damage.file) if p.is_file() and not p.is_symlink())
    if "*" not in damage.file:
        fitting = [folder / damage.file]
    if not fitting:
        raise LookupError(f"nothing in {folder} fits {damage.file}")
    path = fitting[int(damage.pick * len(fitting))]
    old = path.read_bytes() if path.exists() else b""
    where = int(damage.at * len(old))
    path.unlink(missing_ok=True)
    if damage.how == "folder":
        path.mkdir()
    elif damage.how == "loop":
        path.symlink_to(path.name)
    elif damage.how != "missing":
        path.write_bytes(_damaged(damage, old, where))


def _damaged(damage: Damage, old: bytes, where: int) -> bytes:
    if damage.how == "cut":
        return old[:where]
    if damage.how == "flip":
        return old[:where] + bytes([b ^ 0x41 for b in old[where : where + 1]]) + old[where + 1 :]
    if damage.how in ("drop", "retype"):
        lines = old.decode().splitlines() if damage.file.endswith("jsonl") else [old.decode()]
        number = int(damage.pick * len(lines))
        lines[number] = json.dumps(_edited(json.loads(lines[number]), damage))
        return "\n".join(lines).encode()
    return damage.content  # of "empty": nothing


def _edited(value: object, damage: Damage) -> object:
    """Return a JSON value with one entry at any depth dropped or replaced."""
    places = list(_places(value))
    owner, key = places[int(damage.at * len(places))]
    if damage.how == "drop":
        del owner[key]
    else:
        owner[key] = damage.value
    return value


def _places(value: object) -> Iterator[tuple]:
    entries = value.items() if isinstance(value, dict) else ()
    entries = enumerate(value) if isinstance(value, list) else entries
    for key, inner in entries:
        yield value, key
        yield from _places(inner)


def _main(arguments: Sequence[str]) -> None:
    """Run case NUMBER of a SEED, or those up to another number; print what is wrong."""
    from tests.faults import generate, material

    seed, first, *last = map(int, arguments)
    with tempfile.TemporaryDirectory() as root:
        material.make(Path(root, "material"))
        for number in range(first, last[0] if last else first + 1):
            case = generate.make(seed, number)
            outcome = run(case, Path(root, str(number)), Path(root, "material"))
            if outcome.faults or not last:
                print(outcome.output[-2000:], case, *outcome.faults, sep="\n")
            seconds = f"{outcome.seconds:.2f} s"
            faults = "; ".join(outcome.faults)
            print(seed, number, case.kind, case.command, outcome.code, seconds, faults, sep=" | ")
            sys.stdout.flush()
            shutil.rmtree(Path(root, str(number)))


if __name__ == "__main__":
    _main(sys.argv[1:])
