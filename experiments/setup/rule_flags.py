"""The flags of a `Rule`: `--optimizer "adamw(lr, b1=beta)" --rates.lr 3e-4 --rates.beta 0.95`.

Which values there are depends on the text. So the arguments are read twice: first these flags, by
which the run is changed; then all of them, by Tyro, for a command that has a flag for each value.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import tyro

from experiments.setup.config import Run
from experiments.setup.rules import Rule

T = TypeVar("T")

_RATE = re.compile(r"--(?:optimizer\.)?rates\.([^=\s]+)(?:=(.*))?", re.DOTALL)


def rates_given(arguments: Sequence[str]) -> dict[str, float]:
    """Return the values that `--rates.NAME VALUE` gives.

    Raises:
        ValueError: a value is missing or no number.

    Examples:
        >>> rates_given(["--rates.lr", "3e-4", "--rates.weight-decay=0.1", "--seed", "1"])
        {'lr': 0.0003, 'weight_decay': 0.1}
    """
    found = {}
    for place, argument in enumerate(arguments):
        if not (flag := _RATE.fullmatch(argument)):
            continue
        name = flag[1].replace("-", "_")
        text = flag[2] if flag[2] is not None else " ".join(arguments[place + 1 : place + 2])
        try:
            found[name] = float(text)
        except ValueError as error:
            raise ValueError(f"--rates.{name} is {text!r}; expected a number") from error
    return found


def in_short(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with `--optimizer.rates.lr` written `--rates.lr`."""
    return [re.sub(r"^--optimizer\.rates\.", "--rates.", argument) for argument in arguments]


def apply(run: Run, text: str | None, rates: dict[str, float]) -> Run:
    """Return the run with the optimizer of a text, or with other values for its own.

    Raises:
        ValueError: values for an optimizer that is no `Rule`, or for names that it does not use.
    """
    if text is not None:
        return dataclasses.replace(run, optimizer=Rule(text, rates))
    if not rates:
        return run
    if not isinstance(run.optimizer, Rule):
        raise ValueError(
            f"--rates.{next(iter(rates))} is for an optimizer given as a text, and the file's is "
            f"{type(run.optimizer).__name__}: say --optimizer TEXT as well, or "
            "--optimizer.learning-rate"
        )
    known = dict(run.optimizer.rates)
    return dataclasses.replace(
        run, optimizer=dataclasses.replace(run.optimizer, rates=known | rates)
    )


def with_flags(command: type[T], run: Run) -> tuple[type[T], dict[str, Any]]:
    """Return a command's dataclass with a flag for each value of the run's `Rule`, and defaults."""
    if not isinstance(run.optimizer, Rule):
        return command, {}
    flags = [
        (name, Annotated[float, tyro.conf.arg(help=f"The value of {name} in the text.")])
        for name in run.optimizer.rates
    ]
    rates: Any = dataclasses.make_dataclass("Rates", flags, frozen=True)
    rates.__doc__ = "Values that the optimizer's text names."
    kind: Any = dataclasses.make_dataclass(
        command.__name__, [("rates", rates)], bases=(command,), frozen=True, kw_only=True
    )
    kind.__doc__ = command.__doc__
    values = {name: float(value) for name, value in run.optimizer.rates.items()}
    return kind, {"rates": rates(**values)}
