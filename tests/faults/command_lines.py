"""Wrong command lines: flags, values, paths; and the commands' smallest lines."""

import dataclasses
import random
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.compare import CompareCommand
from experiments.evaluate import EvaluateCommand
from experiments.explicit_graduated import ExplicitGraduatedCommand
from experiments.growth_networks.__main__ import GrowthNetworksCommand
from experiments.growth_networks.config import Config as GrowthNetworks
from experiments.growth_rates import GrowthRatesCommand
from experiments.high_probability.__main__ import HighProbabilityCommand
from experiments.high_probability.config import Config as HighProbability
from experiments.implicit_bias.__main__ import ImplicitBiasCommand
from experiments.implicit_bias.run import Config as ImplicitBias
from experiments.landscape import LandscapeCommand
from experiments.noise import NoiseCommand
from experiments.prepare import PrepareCommand
from experiments.profiles import ProfilesCommand
from experiments.report.write import ReportCommand
from experiments.smoothing import SmoothingCommand
from experiments.theorem_check import TheoremCommand
from experiments.train import TrainCommand
from experiments.tune.__main__ import TuneCommand
from tests.faults import material
from tests.faults.cases import Case, Damage


def _line(text: str, *needs: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(text.split()), needs


LINES = {
    # command: arguments that make it as small as it can be, and what they need
    "train": _line("--config tiny.py --workdir new", "configs"),
    "compare": _line("--config tiny_grid.py --workdir new", "configs"),
    "tune": _line("--config tiny_search.py --workdir new", "configs"),
    "evaluate": _line("--workdir run", "run"),
    "noise": _line("--workdir run --examples 8 --batches 4 --chunk 4", "run"),
    "landscape": _line("--workdir run --examples 8 --points 3", "run"),
    "high_probability": (("--workdir", "new", *material.TAIL), ()),
    "theorem_check": _line(
        "--workdir new --theorems clipped_sgd --iterations 10 --failure-probabilities 0.5 "
        "--dimension 2 --replicas 4"
    ),
    "growth_rates": _line("--workdir new --constants 3 --rates 1 --scan 100 --resolution 3"),
    "implicit_bias": _line("--workdir new --plane points --methods gd --steps 10 --digits --files"),
    "growth_networks": _line(
        "--workdir new --dataset digits --examples 10 --folds 2 --batch 2 --hidden 2 --seeds 0 "
        "--readings steps --iterations 2 --share 0.002 --controls step"
    ),
    "smoothing": _line("--workdir new --functions drop_wave --stages 2 --points 8 --resolution 3"),
    "explicit_graduated": _line(
        "--workdir new --functions sphere --dimension 2 --stages 2 --steps-per-stage 1 "
        "--num-samples 2 --seeds 1"
    ),
    "prepare": _line("--dataset digits --data-dir data"),
    "report": _line("--workdir grid", "grid"),
    "profiles": _line("--times times.csv --variants wmt=wmt_glu --workdir new", "times"),
}

DEFAULTS: dict[str, tuple[type, dict[str, Any]]] = {
    "train": (TrainCommand, {"run": material.tiny_run()}),
    "compare": (CompareCommand, {}),
    "tune": (TuneCommand, {}),
    "evaluate": (EvaluateCommand, {}),
    "noise": (NoiseCommand, {}),
    "landscape": (LandscapeCommand, {}),
    "high_probability": (HighProbabilityCommand, {"experiment": HighProbability()}),
    "theorem_check": (TheoremCommand, {}),
    "growth_rates": (GrowthRatesCommand, {}),
    "implicit_bias": (ImplicitBiasCommand, {"config": ImplicitBias()}),
    "growth_networks": (GrowthNetworksCommand, {"config": GrowthNetworks()}),
    "smoothing": (SmoothingCommand, {}),
    "explicit_graduated": (ExplicitGraduatedCommand, {}),
    "prepare": (PrepareCommand, {}),
    "report": (ReportCommand, {}),
    "profiles": (ProfilesCommand, {}),
}
"""The dataclass of each command's flags, and the values of fields that have no default."""


def flags(command: str) -> dict[str, Any]:
    """Return flag -> type of all flags of a command, those of nested dataclasses among them."""
    kind, values = DEFAULTS[command]
    return dict(_flags(kind, values))


def _flags(kind: type, values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        value = values.get(field.name, field.default)
        if dataclasses.is_dataclass(value):
            here = "" if field.name in ("run", "experiment", "config") else f"{field.name}."
            inner = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            yield from _flags(type(value), inner, prefix + here)
        elif not any(dataclasses.is_dataclass(part) for part in typing.get_args(hint)):
            yield f"--{prefix}{field.name}".replace("_", "-"), hint


NO_NUMBER = ("x", "", " ", "1,5", "0x10", "1e", "--", "None?", "ten", "1/2", "[1]", "\udcff", "🙂")
NO_INTEGER = (*NO_NUMBER, "1.5", "nan", "inf", "1e3", "9" * 5000, str(2**63), str(-(2**70)))
ODD_NUMBERS = ("nan", "inf", "-inf", "-1", "0", "1e308", "1e39", "-0.0", "1e-320")
ODD_INTEGERS = ("-1", str(2**31), str(2**32), str(2**63 - 1), str(-(2**63)), "+0", "-2_0")
ODD_TEXTS = ("", " ", "nonsense", "../x", "[/oops]", "$\\x$", "\udcff", "a\nb", "x" * 300, "🙂")


def _is(hint: Any, kind: type) -> bool:
    base = hint.__origin__ if typing.get_origin(hint) is typing.Annotated else hint
    union = typing.get_origin(base) in (typing.Union, types.UnionType)
    return any(_is(part, kind) for part in typing.get_args(base)) if union else base is kind


def wrong_value(draw: random.Random, hint: Any) -> tuple[list[str], bool | None]:
    """Return words that stand behind a flag, and whether they must be refused."""
    if _is(hint, bool):
        return [draw.choice(["maybe", "1", "true"])], True  # a flag that takes no value
    if _is(hint, int):
        sure = draw.random() < 0.6
        return [draw.choice(NO_INTEGER if sure else ODD_INTEGERS)], sure or None
    if _is(hint, float):
        sure = draw.random() < 0.6
        return [draw.choice(NO_NUMBER if sure else ODD_NUMBERS)], sure or None
    if _is(hint, Path):
        return [draw.choice(["", " "])], True
    if typing.get_origin(hint) is typing.Literal or "Literal" in str(hint):
        return [draw.choice(ODD_TEXTS)], True
    if "tuple[int" in str(hint) or "tuple[float" in str(hint) or "Width" in str(hint):
        return draw.choice([["x"], ["1", "x"], [""], ["1,2"]]), True
    return [draw.choice(ODD_TEXTS)], None


def wrong_flag(draw: random.Random) -> Case:
    """Return a command with one flag that is not there, has no value, or a wrong one."""
    command = draw.choice(list(LINES))
    arguments, needs = LINES[command]
    known = flags(command)
    flag = draw.choice([f for f in known if not f.startswith("--duration")])
    how = draw.choice(["value"] * 6 + ["unknown", "no value", "more", "misspelt"])
    if how == "value":
        words, refused = wrong_value(draw, known[flag])
        line = (*without(arguments, flag), flag, *words)
    elif how == "unknown":
        line, refused, flag = (*arguments, "--nonsense", "1"), True, "--nonsense"
    elif how == "misspelt":
        flag = flag[:-1] + draw.choice("0123456789")
        line, refused = (*arguments, flag, "1"), True
    elif how == "more":
        line, refused, flag = (*arguments, "more"), True, ""
    else:
        takes_none = _is(known[flag], bool) or "tuple" in str(known[flag])
        line, refused = (*without(arguments, flag), flag), None if takes_none else True
    if _is(known.get(flag), bool) or refused is None:
        flag = ""
    return Case("flags", command, line, needs, must_refuse=refused, names=flag.lstrip("-"))


def without(arguments: tuple[str, ...], flag: str) -> tuple[str, ...]:
    """Return the arguments without a flag and its values."""
    found: list[str] = []
    inside = False
    for word in arguments:
        inside = word == flag or (inside and not word.startswith("--"))
        found += [] if inside else [word]
    return tuple(found)


# -- Paths ----------------------------------------------------------------------------------------

FILE = Damage("a_file", "write", b"not a folder\n")
PATHS: dict[str, tuple[str, tuple[Damage, ...]]] = {
    "empty": ("", ()),
    "a file": ("a_file", (FILE,)),
    "under a file": ("a_file/run", (FILE,)),
    "a long name": ("x" * 300, ()),
    "a long path": ("/".join(["x" * 200] * 30), ()),
    "a link to itself": ("loop", (Damage("loop", "loop"),)),
    "no real folder": ("/proc/1/nothing", ()),
    "a device": ("/dev/null", ()),
}
ODD_PATHS = ("caf\udce9", "two\nlines", "[/oops]", "$\\alpha", "-dash", "🙂", "a b", "new/../newer")


def wrong_path(draw: random.Random) -> Case:
    """Return a command whose --workdir or --data-dir cannot be a folder, or has an odd name."""
    command = draw.choice(list(LINES))
    arguments, needs = LINES[command]
    flag = "--data-dir" if command == "prepare" else "--workdir"
    if draw.random() < 0.8:
        name = draw.choice(list(PATHS))
        path, damages = PATHS[name]
        line = (*without(arguments, flag), f"{flag}={path}")
        return Case(f"path: {name}", command, line, needs, damages, True)
    path = draw.choice(ODD_PATHS)
    line = (*without(arguments, flag), f"{flag}={path}")
    return Case("path: odd", command, line, needs)


# -- The laboratory's texts -----------------------------------------------------------------------

TEXTS = {
    "--methods": (
        *("nonsense", "sgd(", "", " ", "A = ", "= sgd", "A = B = sgd", "sgd sgd", "A == sgd"),
        *("A = os.system('touch new')", "A = __import__('os').system('touch new')"),
        *("A = optax.sgd(1/0)", "A = optax.sgd('x')", "A = optax.sgd(0.1).__class__"),
        *("A = optax.sgd(0.1, 0.1, True, 1, 2, 3)", "A = optax.nothing(1)"),
        *("A = clipjax.clipped_sgd(0.1)", "A = clipjax.clipped_sgd(-1, 1)", "A = lambda: 1"),
        *("A = open('new', 'w')", "A = [c for c in ().__class__.__bases__]", "A = exec('1')"),
        *("A = optax.sgd(" + "(" * 300 + "1" + ")" * 300 + ")", "A = optax.sgd(9**9**9)"),
        *(
            "A = optax._src.base.os.getcwd()",
            "A = clipjax.data.os.getcwd()",
            "A = optax.sgd",
            "A = 3",
        ),
        *("A = jax.numpy.load('x')", "A = subprocess.run('ls')", "A = builtins.eval('1')"),
        *("A = clipjax.clip_by_global_norm(-1.0)", "1 + "),
        *("A = optax.sgd(0.1) if True else 1", "A = jax.numpy.zeros(10**12)", "A = optax"),
    ),
    "--noises": (
        *("nonsense", "", "normal(", "student_t(0)", "student_t(-1)", "student_t(nan)"),
        *("minibatch(5)", "minibatch", "os.getcwd", "normal('x')", "student_t(1, 2, 3, 4)"),
        *("stable(3)", "burr(1)", "pareto(0)", "weibull()", "7", "standardised(normal, 1)"),
    ),
    "--problem": (
        *("nonsense", "", "quadratic(", "quadratic(-1)", "quadratic('x')", "rosenbrock(0)"),
        *(
            "rosenbrock(1e9)",
            "logistic_regression",
            "logistic_regression(3)",
            "7",
            "quadratic(nan)",
        ),
        *("logistic_regression('/')", "rosenbrock(1, 2, 3, 4, 5)", "quadratic(1, 2)(3)"),
        *("clipjax.problems.Ackley(-1)", "clipjax.problems.nothing", "os.getcwd()", "normal"),
    ),
    "--levels": ("0", "1", "2", "nan", "-1", "x"),
    "--reference": ("nonsense", " "),
}


def wrong_text(draw: random.Random) -> Case:
    """Return an experiment with a text that names no method, noise, problem or level."""
    flag = draw.choice(["--methods"] * 3 + list(TEXTS))
    text = draw.choice(TEXTS[flag])
    line = (*without(LINES["high_probability"][0], flag), f"{flag}={text}")
    return Case(f"text: {flag}", "high_probability", line, must_refuse=True)
