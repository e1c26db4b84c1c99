"""Config files: what a Python file yields; configs as JSON, written, read and compared."""

import dataclasses
import functools
import operator
import re
import runpy
import traceback
import typing
from pathlib import Path
from typing import Any

from experiments.setup import reading
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


def load(path: str | Path, *, small: bool = False) -> Run | Grid:
    """Return the `config` that a Python file yields, or its `small` form.

    Raises:
        FileNotFoundError: no such file, with the nearest name beside it.
        ValueError: the file yields no Run or Grid, or names an unknown field, with the nearest.
    """
    path = Path(path)
    yielded = run_file(path)
    config = yielded.get("small" if small else "config")
    if small and config is None:
        raise ValueError(f"{path} has no small form: leave --small out")
    if not isinstance(config, Run | Grid):
        raise ValueError(f"{path} yields config = {config!r}; expected a Run or a Grid")
    return config


class ConfigFileError(ValueError):
    """A config file has an error of its own: says which, and in which line."""


def run_file(path: Path) -> dict[str, Any]:
    """Return the names that a config file, which is Python, defines.

    Raises:
        FileNotFoundError: no such file, with the nearest name beside it.
        ConfigFileError: the file is no Python, or raises an error, of whatever kind.
    """
    if not path.is_file():
        names = [str(p) for p in path.parent.glob("[!_]*.py")]
        raise FileNotFoundError(f"no config file {path}; {nearest(str(path), names)}")
    try:
        return runpy.run_path(str(path))
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise ConfigFileError(f"{path}{line}: {error.msg}") from error
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(path)]
        line = f", line {lines[-1]}" if lines else ""
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise ConfigFileError(f"{path}{line}: {_misspelt(error) or f'{kind}{error}'}") from error


def _misspelt(error: BaseException) -> str | None:
    """Return what an error says, with the nearest name, where a name of ours is misspelt."""
    types = {**_TYPES, "Grid": Grid}
    field = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error))
    if field and field[1] in types:
        fields = [f.name for f in dataclasses.fields(types[field[1]])]
        return f"{field[1]} has no field {field[2]!r}; {nearest(field[2], fields)}"
    name = re.search(r"(?:cannot import name|has no attribute) '(\w+)'", str(error))
    if name and "experiments.config" in str(error):
        return f"{error}; {nearest(name[1], types)}"
    return None


def to_json(config: Any) -> Any:
    """Return a config as JSON values; dataclasses carry their `type`.

    Examples:
        >>> from experiments.config import SGD
        >>> to_json(SGD(0.1))["type"]
        'SGD'
        >>> from_json(to_json(SGD(0.1))) == SGD(0.1)
        True
    """
    if dataclasses.is_dataclass(config):
        values = {f.name: to_json(getattr(config, f.name)) for f in dataclasses.fields(config)}
        return {"type": type(config).__name__} | values
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
    if type(old) is not type(new) or not dataclasses.is_dataclass(old):
        return {} if old == new else {prefix.rstrip("."): (old, new)}
    found: dict[str, tuple[Any, Any]] = {}
    for f in dataclasses.fields(old):
        found |= differences(getattr(old, f.name), getattr(new, f.name), f"{prefix}{f.name}.")
    return found
