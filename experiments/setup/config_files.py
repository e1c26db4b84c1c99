"""Config files: what a Python file yields; configs as JSON, written, read and compared."""

import dataclasses
import functools
import operator
import re
import reprlib
import runpy
import traceback
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.setup import failures, reading
from experiments.setup.checks import nearest
from experiments.setup.config import (
    Duration,
    Graduated,
    Grid,
    LearningRateSchedule,
    Model,
    NoiseProbe,
    Optimizer,
    Run,
)
from experiments.setup.search import Choice, LogUniform, Search, Uniform

_TYPES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *typing.get_args(Optimizer),
        *typing.get_args(Model),
        Duration,
        LearningRateSchedule,
        Graduated,
        NoiseProbe,
        Run,
    )
}
_ANY = functools.reduce(operator.or_, _TYPES.values())
"""A config of any type; its `type` says of which."""

_IN_FILES: dict[str, type] = _TYPES | {
    kind.__name__: kind for kind in (Grid, Search, LogUniform, Uniform, Choice)
}
"""What the door has for config files."""


def load(path: str | Path, *, small: bool = False) -> Run | Grid:
    """Return the `config` that a Python file yields, or its `small` form.

    Raises:
        FileNotFoundError: no such file, with the nearest name beside it.
        ValueError: the file fails (see `run_file`) or yields no Run or Grid.
    """
    config = _yielded(path, small)
    if isinstance(config, Search):
        raise ValueError(
            f"{path} is a search; run it with python -m experiments.tune, which writes a "
            "chosen.py that experiments.compare takes"
        )
    if not isinstance(config, Run | Grid):
        raise ValueError(f"{path} yields config = {reprlib.repr(config)}; expected a Run or a Grid")
    return config


def load_search(path: str | Path, *, small: bool = False) -> Search:
    """Return the Search that a Python file yields. Raises as `load`."""
    config = _yielded(path, small)
    if isinstance(config, Run | Grid):
        kind, command = ("a grid", "compare") if isinstance(config, Grid) else ("one run", "train")
        raise ValueError(f"{path} is {kind}; run it with python -m experiments.{command}")
    if not isinstance(config, Search):
        raise ValueError(f"{path} yields config = {reprlib.repr(config)}; expected a Search")
    return config


def _yielded(path: str | Path, small: bool) -> Any:
    config = run_file(path).get("small" if small else "config")
    if small and config is None:
        raise ValueError(f"{path} has no small form: leave --small out")
    return config


def run_file(path: str | Path) -> dict[str, Any]:
    """Return the names that a Python file defines.

    Raises:
        FileNotFoundError: no such file, with the nearest name beside it.
        ValueError: what is wrong in the file, with its line; an unknown name or field with the
            nearest.
    """
    path = Path(path)
    if not path.is_file():
        names = [str(p) for p in path.parent.glob("*.py") if p.name != "__init__.py"]
        others = f"; {nearest(str(path), names)}" if names else f" ({path.absolute()})"
        raise FileNotFoundError(f"there is no config file {path}{others}")
    try:
        return runpy.run_path(str(path))
    except OSError as error:
        if error.filename == str(path):  # it cannot be read
            raise
        raise failures.ToldInFull(_what_failed(path, error)) from error
    except (Exception, SystemExit) as error:  # it is any program, and may fail in any way
        raise failures.ToldInFull(_what_failed(path, error)) from error


def _what_failed(path: Path, error: BaseException) -> str:
    """Return the file, the line and the error of a config file, without the frames around it."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        shown = (error.text or "").strip()
        return f"{_place(path, error.lineno)}: {error.msg}{f': {shown}' if shown else ''}"
    frames = traceback.extract_tb(error.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)
    said = failures.said(error)
    if isinstance(error, SystemExit):
        said = f"sys.exit({error.code!r}): a config file yields a config and does not end"
    elif isinstance(error, TypeError) and (field := _unknown_field(error)):
        said = field
    elif isinstance(error, ImportError | AttributeError) and "experiments.config" in said:
        missing = re.search(r"(?:cannot import name|has no attribute) '(\w+)'", said)
        said += f"; {nearest(missing[1], _IN_FILES)}" if missing else ""
    elif isinstance(error, SyntaxError):  # of a module that it imports
        said = f"{_place(error.filename, error.lineno)}: {error.msg}"
    elif not isinstance(error, ValueError) and said != type(error).__name__:
        # The values of ours name their field and cure; of other errors the kind says something.
        said = f"{type(error).__name__}: {said}"
    return f"{_place(path, line)}: {said}"


def _place(path: str | Path | None, line: int | None) -> str:
    return str(path) if line is None else f"{path}, line {line}"


def _unknown_field(error: TypeError) -> str | None:
    """Return a message that names the nearest field, if that is what a TypeError is about."""
    found = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if not found or found[1] not in _IN_FILES:
        return None
    kind = _IN_FILES[found[1]]
    fields = [f.name for f in dataclasses.fields(kind)]
    return f"{found[1]} has no field {found[2]!r}; {nearest(found[2], fields)}"


def to_json(config: Any) -> Any:
    """Return a config as JSON values; dataclasses carry their `type`.

    What does not count in a comparison is left out: a permission, given each time by who starts the
    program.

    Examples:
        >>> from experiments.config import SGD
        >>> to_json(SGD(0.1))["type"]
        'SGD'
        >>> from_json(to_json(SGD(0.1))) == SGD(0.1)
        True
    """
    if dataclasses.is_dataclass(config):
        values = {f.name: to_json(getattr(config, f.name)) for f in _kept(config)}
        return {"type": type(config).__name__} | values
    if isinstance(config, Mapping):
        return {name: to_json(value) for name, value in config.items()}
    return list(config) if isinstance(config, tuple) else config


def from_json(value: Any) -> Any:
    """Return the config that `to_json` wrote; fields that it lacks get their defaults.

    Raises:
        DamagedFile: an unknown type or field, with the nearest name, or a value out of range.
    """
    return reading.structure(value, _ANY, "this config", "mend it, or write it again")


def read(path: Path) -> Run:
    """Return the Run of a workdir's config.json; fields that came later get their defaults.

    Raises:
        FileNotFoundError: if there is none.
        DamagedFile: if it is not what a run writes; it names the field and how to go on.
    """
    return reading.read_json(
        path,
        Run,
        missing=f"; is {path.parent} the workdir of a run?",
        cure="delete it and train with the same config and workdir again: the file is written "
        "anew, and training goes on from the newest checkpoint",
        nan=False,
    )


def differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return field -> (old, new) of two configs, nested fields by dotted names.

    Examples:
        >>> from experiments.config import SGD
        >>> differences(SGD(0.1), SGD(0.2))
        {'learning_rate': (0.1, 0.2)}
    """
    if old == new:
        return {}
    parts: list[tuple[str, Any, Any]] = []
    if type(old) is type(new) and dataclasses.is_dataclass(old):
        parts = [(f.name, getattr(old, f.name), getattr(new, f.name)) for f in _kept(old)]
    elif isinstance(old, Mapping) and isinstance(new, Mapping) and old.keys() == new.keys():
        parts = [(name, old[name], new[name]) for name in old]
    if not parts:
        return {prefix.rstrip("."): (old, new)}
    found: dict[str, tuple[Any, Any]] = {}
    for name, was, is_now in parts:
        found |= differences(was, is_now, f"{prefix}{name}.")
    return found


def _kept(config: Any) -> list[dataclasses.Field]:
    """Return the fields that make a config what it is."""
    return [f for f in dataclasses.fields(config) if f.compare]
