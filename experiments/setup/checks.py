"""What a dataclass's field may hold, stated in its annotation and checked when the object is made.

    learning_rate: Annotated[float, Range(0, 1, open_low=True)]

`check_fields(self)` in `__post_init__` judges each field by its annotation: first the type (a
bool is no number, a whole number is also a number, text is neither), then what `Annotated` adds.
The same judgement is passed on values that are read from files (`experiments.setup.reading`).
"""

import dataclasses
import difflib
import functools
import reprlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; an open end is itself left out, and NaN is never inside.

    Examples:
        >>> 1 in Range(0, 1), 1 in Range(0, 1, open_high=True), float("nan") in Range(0, 1)
        (True, False, False)
        >>> print(Range(0, 1, open_low=True))
        above 0, up to 1
    """

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False
    words: str = ""
    """What a message says instead of the two ends."""

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        if self.words:
            return self.words
        low = f"above {self.low}" if self.open_low else f"from {self.low}"
        return f"{low}, below {self.high}" if self.open_high else f"{low}, up to {self.high}"


@dataclasses.dataclass(frozen=True)
class Such:
    """The values that pass a test; `words` say which these are."""

    words: str
    test: Callable[[Any], bool]

    def __contains__(self, value: Any) -> bool:
        return self.test(value)

    def __str__(self) -> str:
        return self.words


@dataclasses.dataclass(frozen=True)
class OneOf:
    """The names that are known, where these are not fixed in the annotation."""

    names: tuple[str, ...]

    def __contains__(self, value: str) -> bool:
        return value in self.names

    def __str__(self) -> str:
        return f"that is one of {', '.join(self.names)}"


FLOAT32 = 3.4028234e38
"""The largest number that float32 holds."""
SMALLEST_FLOAT32 = 1.1754944e-38
"""The smallest positive number that float32 holds at full precision; computations lose less."""
INT32 = 2**31 - 1
"""The largest number of an int32, in which JAX and Optax count steps."""

POSITIVE = Range(SMALLEST_FLOAT32, FLOAT32, words="that is positive and finite in float32")
NOT_NEGATIVE = Range(0, FLOAT32, words="that is 0 or more and finite in float32")
SHARE = Range(0, 1)
DECAY = Range(0, 1, open_high=True)
"""A factor of a moving average, such as momentum."""
COUNT = Range(1, INT32)
COUNT_OR_ZERO = Range(0, INT32)
SEED = Range(0, 2**32 - 1)
ONE_OR_MORE = Such("(at least one)", lambda entries: len(entries) > 0)
NOT_EMPTY = Such("that is not empty and has no NUL", lambda text: bool(text.strip("\0 \t\n")))


def check_fields(owner: Any) -> None:
    """Raise ValueError for the first field of a dataclass that holds what it must not.

    Examples:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Wave:
        ...     height: typing.Annotated[float, Range(0, 2)]
        >>> check_fields(Wave(3.0))
        Traceback (most recent call last):
            ...
        ValueError: Wave.height is 3.0; expected a number from 0, up to 2
    """
    hints = _hints(type(owner))
    for field in dataclasses.fields(owner):
        value, where = getattr(owner, field.name), f"{type(owner).__name__}.{field.name}"
        if (fault := find_fault(value, hints[field.name], where)) is not None:
            raise ValueError(fault)


def find_fault(value: Any, hint: Any, where: str) -> str | None:
    """Return which part of a value its type does not allow, and what is expected; None for none.

    Examples:
        >>> find_fault((1, True), tuple[int, ...], "MLP.hidden")
        'MLP.hidden[1] is True; expected a whole number'
        >>> find_fault(1, float | None, "SGD.momentum")
    """
    base, limits = _split(hint)
    if typing.get_origin(base) is tuple and isinstance(value, tuple):
        parts = [(v, typing.get_args(base)[0], f"{where}[{i}]") for i, v in enumerate(value)]
    elif typing.get_origin(base) in (Mapping, dict) and isinstance(value, Mapping):
        key, inner = typing.get_args(base)
        parts = [(k, key, f"a key of {where}") for k in value]
        parts += [(v, inner, f"{where}[{k!r}]") for k, v in value.items()]
    else:
        parts = []
        if not _is_of(value, base):
            return _fault(value, hint, where)
    for part in parts:
        if (fault := find_fault(*part)) is not None:
            return fault
    if not all(value in limit for limit in limits):
        return _fault(value, hint, where)
    return None


def describe(hint: Any) -> str:
    """Return in words what a type allows.

    Examples:
        >>> describe(typing.Annotated[int, Range(1, 8)] | None)
        'a whole number from 1, up to 8, or None'
        >>> describe(tuple[int, ...]), describe(typing.Literal["a", "b"])
        ('a tuple, each entry a whole number', "'a' or 'b'")
    """
    base, limits = _split(hint)
    origin, arguments = typing.get_origin(base), typing.get_args(base)
    if origin in (typing.Union, types.UnionType):
        *first, last = map(describe, arguments)
        said = f"{', '.join(first)}, or {last}"
    elif origin is typing.Literal:
        *first, last = map(repr, arguments)
        said = f"{', '.join(first)} or {last}" if first else last
    elif origin is tuple:
        said = f"a tuple, each entry {describe(arguments[0])}"
    elif origin in (Mapping, dict):
        said = f"a mapping, each entry {describe(arguments[1])}"
    else:
        said = _NAMES.get(base) or getattr(base, "__name__", str(base))
    return " ".join([said, *map(str, limits)])


def nearest(name: str, names: Iterable[str]) -> str:
    """Return 'did you mean ...?' and the list of what there is.

    Examples:
        >>> nearest("clipped_sdg", ["adam", "clipped_sgd"])
        "did you mean 'clipped_sgd'? There are: adam, clipped_sgd"
        >>> nearest("spline", ["adam", "clipped_sgd"])
        'there are: adam, clipped_sgd'
    """
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    there = f"here are: {', '.join(names)}" if names else "here are none"
    return f"did you mean {close[0]!r}? T{there}" if close else f"t{there}"


def read_pair(flag: str, text: str, form: str, names: Iterable[str], kind: str) -> tuple[str, str]:
    """Return the two names of a flag's NAME=NAME.

    Args:
        flag: such as "--variants".
        text: what was given.
        form: what was expected, such as "BASE=VARIANT".
        names: those that there are.
        kind: what they are the names of.

    Raises:
        ValueError: it is no pair, or one of the names is unknown.

    Examples:
        >>> read_pair("--pairs", "adam=clip_adam", "BASE=METHOD", ["adam", "clip_adam"], "method")
        ('adam', 'clip_adam')
    """
    first, equals, second = text.partition("=")
    if not equals:
        raise ValueError(f"{flag} {shown(text)} is no pair; expected {form}")
    for name in (first, second):
        if name not in names:
            raise ValueError(f"{flag} {text}: no {kind} is called {name!r}; {nearest(name, names)}")
    return first, second


def shown(value: Any) -> str:
    """Return a value for a message, long ones cut.

    Examples:
        >>> shown(10**5000)
        'an integer of 16610 bits'
    """
    if isinstance(value, int) and value.bit_length() > 500:  # Python refuses to write these out
        return f"an integer of {value.bit_length()} bits"
    return _SHORT.repr(value)


_NAMES = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "text",
    types.NoneType: "None",
}
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _split(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return a type without `Annotated`, and the limits that this adds."""
    if typing.get_origin(hint) is not typing.Annotated:
        return hint, ()
    limits = [limit for limit in hint.__metadata__ if isinstance(limit, Range | Such | OneOf)]
    return hint.__origin__, tuple(limits)


def _is_of(value: Any, base: Any) -> bool:
    origin, arguments = typing.get_origin(base), typing.get_args(base)
    if origin in (typing.Union, types.UnionType):
        return any(find_fault(value, argument, "") is None for argument in arguments)
    if origin is typing.Literal:
        return any(type(value) is type(choice) and value == choice for choice in arguments)
    if base in (int, float):
        numbers = int if base is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    if base in (Any, Path):  # a path is judged where it is opened; Tyro puts a placeholder there
        return True
    return isinstance(value, origin or base)


def _fault(value: Any, hint: Any, where: str) -> str:
    said = f"{where} is {shown(value)}; expected {describe(hint)}"
    known = _choices(hint) if isinstance(value, str) else []
    close = difflib.get_close_matches(str(value), known, n=1, cutoff=0.5)
    return f"{said}; did you mean {close[0]!r}?" if close else said


def _choices(hint: Any) -> list[str]:
    """Return the names that a type offers: of a Literal, of classes."""
    base, limits = _split(hint)
    arguments = typing.get_args(base)
    if names := [name for limit in limits if isinstance(limit, OneOf) for name in limit.names]:
        return names
    if typing.get_origin(base) is typing.Literal:
        return [choice for choice in arguments if isinstance(choice, str)]
    if typing.get_origin(base) in (typing.Union, types.UnionType):
        return [choice for argument in arguments for choice in _choices(argument)]
    return [] if base in _NAMES else [getattr(base, "__name__", "")]
