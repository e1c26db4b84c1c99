"""Wrong inputs for the commands, drawn from a seed: flags, config files, damaged files, texts.

A `Case` is a command line, with what to write or damage before it is run in its folder. "RUN" and
"DATA" in an argument stand for copies of a finished run and of the prepared data that it was
trained on.
"""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

NUMBERS = ("-1", "nan", "inf", "1e400", "text", "", "99999999999999999999", "1.5.2", "None", "[1]")
CONFIGS = (
    "config = (",
    "import no_such_module",
    "config = 1 / 0",
    "config = None",
    "x = 3",
    "config = '\\0'\0",
    "def f():\n    return f()\nconfig = f()",
    "raise SystemExit(0)",
    "from experiments.config import SDG",
    "from experiments.config import SGD\nconfig = SGD(learning_rat=1)",
    "from experiments.config import SGD\nconfig = SGD(-1)",
    "from experiments.config import *\nconfig = Run(1, 2, 3, 4, 5, 6)",
    "from experiments.config import Grid\nconfig = Grid({})",
    "from experiments.config import Grid\nconfig = Grid({'../x/y': 1})",
    "while True\n    pass",
    "config = open('/no/such/file').read()",
    "assert False, 'no'",
    "config = {}['missing']",
)
TEXTS = (
    "A = os.system('touch X')",
    "A = optax.sgd(1/0)",
    "A = optax.sgd('x')",
    "A = optax.no_such(1)",
    "A = optax._src.base.os.getcwd()",
    "A = clipjax.data.os.getcwd()",
    "A = (",
    "A = 9**9**9",
    "A = lambda: 1",
    "A = __import__('os')",
    "A = jax.numpy.load('x')",
    "A = optax.sgd",
    "A = 3",
    "no_such_method",
    "A = subprocess.run('ls')",
    "A = optax.sgd(0.1).__class__",
    "A = builtins.eval('1')",
    "A = clipjax.clip_by_global_norm(-1.0)",
)
NOISES = (
    "no_such(1)",
    "student_t(0)",
    "student_t(nan)",
    "os.getcwd",
    "weibull(-1)",
    "minibatch(5)",
    "normal(",
    "stable(3)",
    "burr()",
    "1 + ",
)
PROBLEMS = (
    "logistic_regression('/')",
    "logistic_regression('/no/such')",
    "rosenbrock(1, 2, 3, 4, 5)",
    "no_such",
    "quadratic(-1)",
    "quadratic(nan)",
    "quadratic('a')",
)
JSONS = ("", "{", "[]", "null", "3", '"text"', "{}", '{"type": "Nothing"}', "NaN", "[" * 5000)


@dataclass(frozen=True)
class Case:
    """One wrong input."""

    kind: str
    command: str
    """The module in `experiments`."""
    arguments: tuple[str, ...]
    must_refuse: bool
    """Whether exit code 0 would be wrong; damage to a file may also be harmless."""
    prepare: Callable[[Path], None] = field(default=lambda folder: None, repr=False)
    """What is written or damaged in the case's folder."""


def cases(seed: int) -> Iterator[Case]:
    """Yield cases without end; the same for the same seed."""
    rng = random.Random(seed)
    kinds = (_flags, _flags, _config, _config, _text, _text, _path, _run_file, _raw, _data)
    while True:
        yield rng.choice(kinds)(rng)


def _flags(rng: random.Random) -> Case:
    command, flags = rng.choice(
        [
            ("train", ("--batch-size", "--duration.steps", "--optimizer.learning-rate", "--seed")),
            ("train", ("--model.no-such", "--optimizer.momentum", "--augment", "--crop")),
            ("evaluate", ("--no-such", "--splitt")),
            ("compare", ("--seeds", "--onyl")),
            ("high_probability", ("--replicas", "--steps", "--learning-rate", "--start", "--seed")),
            ("theorem_check", ("--replicas", "--dimension", "--noise-scale", "--moment")),
            ("noise", ("--examples", "--chunk")),
            ("landscape", ("--points", "--reach", "--examples")),
            ("smoothing", ("--samples", "--no-such")),
            ("explicit_graduated", ("--steps", "--no-such")),
            ("prepare", ("--no-such", "--verify")),
        ]
    )
    value = rng.choice([number for number in NUMBERS if number != "None"])
    where = ("--dataset", "digits") if command == "prepare" else ("--workdir", "work")
    config = ("--config", "configs/demo.py") if command == "compare" else ()
    return Case("flags", command, (*where, *config, rng.choice(flags), value), True)


def _config(rng: random.Random) -> Case:
    text = rng.choice(CONFIGS)
    lines = rng.choice(["", "import math\n", "# a comment\n\n"]) + text + "\n"
    command = rng.choice(["train", "compare", "high_probability"])

    def prepare(folder: Path) -> None:
        (folder / "mine.py").write_text(lines)

    return Case("config", command, ("--config", "mine.py", "--workdir", "work"), True, prepare)


def _text(rng: random.Random) -> Case:
    flag, texts = rng.choice([("methods", TEXTS), ("noises", NOISES), ("problem", PROBLEMS)])
    text = rng.choice(texts)
    # Ten coordinates and few replicas: what is not refused ends soon, and that is a fault.
    tiny = ("--replicas", "4", "--steps", "4", "--records", "2")
    line = ("--workdir", "work", f"--{flag}", text, *tiny)
    return Case("text", "high_probability", line, True)


def _path(rng: random.Random) -> Case:
    command = rng.choice(["train", "compare", "high_probability", "evaluate", "report", "noise"])
    workdir = rng.choice(["", "file", "file/below", "x" * 300, "a/" * 3000 + "b", "with\0nul"])
    config = ("--config", "configs/demo.py") if command == "compare" else ()
    tiny = ("--replicas", "4", "--steps", "4") if command == "high_probability" else ()

    def prepare(folder: Path) -> None:
        (folder / "file").touch()

    return Case("path", command, ("--workdir", workdir, *config, *tiny), True, prepare)


def damage(path: Path, rng: random.Random) -> None:
    """Cut, empty, flip, replace or remove a file."""
    content = path.read_bytes()
    how = rng.choice(["cut", "empty", "flip", "json", "folder", "remove", "garbage"])
    if how == "flip" and content:
        place = rng.randrange(len(content))
        flipped = content[place] ^ (1 << rng.randrange(8))
        path.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
    elif how == "json":
        path.write_text(rng.choice(JSONS))
    elif how == "folder":
        path.unlink()
        path.mkdir()
    elif how == "remove":
        path.unlink()
    elif how == "garbage":
        path.write_bytes(rng.randbytes(64))
    else:
        path.write_bytes(content[: len(content) // 2 if how == "cut" else 0])


def _run_file(rng: random.Random) -> Case:
    command = rng.choice(["evaluate", "report", "train", "noise"])
    number, seed = rng.random(), rng.random()

    def prepare(folder: Path) -> None:
        files = sorted(p for p in (folder / "RUN").rglob("*") if p.is_file())
        damage(files[int(number * len(files))], random.Random(seed))

    data = () if command == "report" else ("--data-dir", "DATA")
    config = ("--config", "RUN/../config.py") if command == "train" else ()
    return Case("run file", command, ("--workdir", "RUN", *data, *config), False, prepare)


def _data(rng: random.Random) -> Case:
    number, seed = rng.random(), rng.random()

    def prepare(folder: Path) -> None:
        files = sorted(p for p in (folder / "DATA").rglob("*") if p.is_file())
        damage(files[int(number * len(files))], random.Random(seed))

    return Case("data", "evaluate", ("--workdir", "RUN", "--data-dir", "DATA"), False, prepare)


def _raw(rng: random.Random) -> Case:
    name = rng.choice(
        ["image_folder/x", "segmentation_folder/x", "super_resolution_folder/x", "cifar10", "mnist"]
    )
    files = rng.sample(["train.txt", "train/a/1.png", "test/a/1.jpg", "x.zip", "val.txt"], 2)
    junk = rng.randbytes(40)

    def prepare(folder: Path) -> None:
        for file in files:
            path = folder / "raw" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(junk)
        (folder / "raw" / "notes.json").write_text(json.dumps(name))

    odd = rng.choice([name, name, "no_such", "a/b/c", "digits/..", "", "../x", "sp ace", "digits@"])
    line = ("--dataset", odd, "--raw-dir", "raw", "--data-dir", "prepared")
    return Case("raw data", "prepare", line, True, prepare)
