"""Which dotted names a text may say, such as `optax.adam`; everything else is refused.

A text comes from a command line, and may have been copied from anywhere. So a name is looked up in
a stated set of packages (`PACKAGES`). Others are allowed by whoever starts the program:

- `--allow-import my_package` on the command line, or `allow_import=("my_package",)` (of a `Rule`:
  `allow=...`) in a config file, which is a Python program already;
- an installed package that registers itself: `[project.entry-points."clipjax.allow"]` in its
  pyproject.toml, with a line such as `mine = "my_package"`.

A run's JSON files allow nothing: what was allowed is not written there.

The rule. A name begins with an allowed package. Every part is public (no `_x`). Each part but the
last is a module, and each module belongs to that same package, so `optax.contrib` is found and the
`os` that a module imports is not. The last part is a function, a class or a value that is *defined*
in an allowed package, so the `system` that a module imported from `os` is not found either. Nothing
is read from classes, functions or results. Of the packages in `PACKAGES`, what reads or writes
files is left out.
"""

import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np

ENTRY_POINTS = "clipjax.allow"
"""The group in which an installed package registers itself."""

PACKAGES = ("clipjax", "jax.numpy", "math", "numpy", "optax")
"""What may be named without asking; of numpy only the constants."""

_ROOMS = ("optim", "problems", "analysis", "losses", "metrics")
"""Of clipjax; the others read and write files."""

_LEFT_OUT = {
    # They read or write files, or change how arrays are printed.
    *(f"jax.numpy.{name}" for name in ("fromfile", "load", "save", "savez", "set_printoptions")),
    # Whole numbers without end from short texts.
    *(f"math.{name}" for name in ("comb", "factorial", "perm")),
}

_VALUES = (bool, int, float, complex, str, tuple, type(None), np.ndarray, np.generic, jax.Array)


def resolve(name: str, allow: Sequence[str] = ()) -> Any:
    """Return the function, class or value of a dotted name.

    Args:
        name: such as "optax.adam".
        allow: packages allowed beside `PACKAGES` and the registered ones.

    Raises:
        ValueError: the name is not allowed, or there is no such thing.

    Examples:
        >>> resolve("math.hypot")(3, 4)
        5.0
        >>> resolve("numpy.pi")
        3.141592653589793
        >>> resolve("os.system")
        Traceback (most recent call last):
            ...
        ValueError: 'os.system' may not be named: 'os' is none of clipjax, jax.numpy, math, numpy,
        optax. If you trust it: --allow-import os (in a config file allow_import=("os",), in a Rule
        allow=("os",))
    """
    parts = name.split(".")
    for other in allow:
        check_package(other)
    private = [part for part in parts if part.startswith("_")]
    if private:
        raise ValueError(f"{name!r} may not be named: {private[0]!r} is private")
    package = _package(name, allow)
    if package is None:
        registered = _registered()
        known = (*PACKAGES, *allow, *registered)
        package = _package(name, registered)
        if package is None:
            raise ValueError(
                f"{name!r} may not be named: {parts[0]!r} is none of {', '.join(known)}. "
                f"{_cure(parts[0])}"
            )
        allow = (*allow, *registered)
    found: Any = _module(package)
    for part in parts[package.count(".") + 1 :]:
        found = _step(found, part, name, package, allow)
    return _checked(found, name, package, allow)


def check_package(name: str) -> None:
    """Raise ValueError unless a name can be that of a package, such as "my_package.problems"."""
    parts = name.split(".") if isinstance(name, str) else []
    if not parts or not all(part.isidentifier() and not part.startswith("_") for part in parts):
        raise ValueError(
            f"allow_import has {name!r}; expected the public name of a package, such as my_package"
        )


def _package(name: str, allow: Sequence[str], known: Sequence[str] = PACKAGES) -> str | None:
    """Return the allowed package that a name lies in, the longest; None where there is none."""
    within = [p for p in (*known, *allow) if name == p or name.startswith(f"{p}.")]
    return max(within, key=len, default=None)


def _registered() -> tuple[str, ...]:
    return tuple(e.module for e in importlib.metadata.entry_points(group=ENTRY_POINTS))


def _cure(package: str) -> str:
    return (
        f'If you trust it: --allow-import {package} (in a config file allow_import=("{package}",), '
        f'in a Rule allow=("{package}",))'
    )


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # importing runs the module, which may raise anything
        raise ValueError(f"{name!r} cannot be imported: {error!r}") from error


def _step(found: Any, part: str, name: str, package: str, allow: Sequence[str]) -> Any:
    if not isinstance(found, ModuleType):
        raise ValueError(f"{name!r} may not be named: only a module has parts, {part!r} is of none")
    path = f"{found.__name__}.{part}"
    if not hasattr(found, part):
        # A submodule that nobody has imported yet, or nothing.
        if not _open(path, allow) or importlib.util.find_spec(path) is None:
            near = difflib.get_close_matches(part, vars(found), n=1, cutoff=0.5)
            meant = f"; did you mean {near[0]!r}?" if near and not near[0].startswith("_") else ""
            raise ValueError(f"{found.__name__} has no {part!r}{meant}")
        return _module(path)
    value = getattr(found, part)
    if isinstance(value, ModuleType) and not (
        _package(value.__name__, (package,), ()) and _open(value.__name__, allow)
    ):
        raise ValueError(
            f"{name!r} may not be named: it leads to {value.__name__!r}, which is not allowed"
        )
    return value


def _open(module: str, allow: Sequence[str]) -> bool:
    """Return whether names may lead through a module: it is public, and of an allowed package."""
    if any(part.startswith("_") for part in module.split(".")):
        return False
    if _package(module, allow, ()) is not None:
        return True
    root, *rest = module.split(".")
    if root == "clipjax":
        return not rest or rest[0] in _ROOMS
    return _package(module, ()) is not None and root not in ("numpy", "math")


def _checked(found: Any, name: str, package: str, allow: Sequence[str]) -> Any:
    """Return what was found if it may be used."""
    if isinstance(found, ModuleType):
        raise ValueError(f"{name!r} is a module; expected a function, a class or a value in one")
    if package == "numpy" and "numpy" not in allow and not isinstance(found, float):
        raise ValueError(f"{name!r} may not be named: of numpy only constants, such as numpy.pi")
    origin = defined_in(found)
    path = f"{origin}.{getattr(found, '__name__', '')}"
    if path in _LEFT_OUT and _package(path, allow, ()) is None:
        raise ValueError(f"{name!r} may not be named: {path} is left out of what texts may say")
    if origin is None and isinstance(found, _VALUES):
        return found
    if origin is None:
        raise ValueError(f"{name!r} may not be named: it is a {type(found).__name__}, not a value")
    if _package(origin, allow, [p for p in PACKAGES if p != "numpy"]) is None:
        raise ValueError(
            f"{name!r} may not be named: it is defined in {origin!r}, which is not allowed. "
            f"{_cure(origin.split('.')[0])}"
        )
    return found


def defined_in(value: Any) -> str | None:
    """Return the module that defines a function or class, or the class of an object.

    Examples:
        >>> import math
        >>> defined_in(functools.partial(math.hypot, 1)), defined_in(1.0)
        ('math', None)
    """
    while isinstance(value, functools.partial):
        value = value.func
    return getattr(value, "__module__", None)
