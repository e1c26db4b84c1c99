"""`Rule`: any Optax transformation as a text with named values, for configs and command lines.

    Rule("chain(clip_by_quantile(0.9), adamw(lr, weight_decay=wd, mask=kernels))", lr=1e-3, wd=0.05)

The language is that of `experiments.setup.expressions`. Here stands what can be judged from the
text alone; `experiments.setup.rule_building` makes the transformation.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from experiments.setup.checks import FLOAT32, NOT_EMPTY, Range, Such, check_fields, shown

KNOWN = {
    "kernels": "the mask of the parameters with two axes or more: no biases, no norms' parameters",
    "steps": "how many steps the optimizer does in the run",
    "micro_batches": "how many micro-batches a step's gradient is the mean of",
    "key": "a random key, a function of the run's seed",
}
"""Names that a text may use without giving them a value."""

_FINITE = Range(-FLOAT32, FLOAT32, words="that is finite in float32")
_NAME = Such(
    "that is a name such as lr, and none that has a meaning already "
    f"({', '.join((*KNOWN, 'seed'))})",
    lambda name: name.isidentifier() and name.isascii() and name not in (*KNOWN, "seed"),
)


class Values(Mapping[str, float]):
    """Named numbers, frozen: they can be compared and hashed, as a config's parts must be.

    Examples:
        >>> Values({"lr": 0.1, "wd": 1}) == Values({"wd": 1, "lr": 0.1}), Values({"lr": 0.1})
        (True, {'lr': 0.1})
    """

    def __init__(self, values: Mapping[str, float]):
        self._values = dict(values)

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return hash(frozenset(self._values.items()))

    def __repr__(self) -> str:
        return repr(self._values)


@dataclass(frozen=True, init=False)
class Rule:
    """An Optax transformation as a text, and the values that it names.

    Bare names are those of clipjax, else of optax, else of optax.contrib; dotted names are those
    that `experiments.setup.allowed_names` lets pass. Values are numbers at run time: runs that
    differ in them (and in the seed) alone share a compiled program. `lr` follows the run's
    schedule. `kernels`, `steps`, `micro_batches` and `key` are known without a value: see `KNOWN`.

    Examples:
        >>> rule = Rule("adamw(lr, weight_decay=wd, mask=kernels)", lr=1e-3, wd=0.05)
        >>> rule.rates["wd"], rule.name
        (0.05, 'adamw(lr, weight_decay=wd, mask=kernels)')
        >>> Rule("adamw(lr)", lr=1e-3, wd=0.05)
        Traceback (most recent call last):
            ...
        ValueError: Rule.rates gives wd a value, which the text 'adamw(lr)' does not use; expected
        values for its names alone
    """

    text: Annotated[str, NOT_EMPTY]
    rates: Mapping[Annotated[str, _NAME], Annotated[float, _FINITE]]
    """Named values at run time."""
    allow: tuple[Annotated[str, NOT_EMPTY], ...] = field(default=(), compare=False)
    """Packages that the text may name beside the usual; a permission, which no JSON file keeps."""
    label: Annotated[str, NOT_EMPTY] | None = None
    """What pages show instead of the text."""

    def __init__(
        self,
        text: str,
        rates: Mapping[str, float] | None = None,
        allow: tuple[str, ...] = (),
        label: str | None = None,
        **named: float,
    ):
        """Take values by keyword, or as a mapping (`rates`), or both."""
        given: Any = {} if rates is None else rates
        if isinstance(given, Mapping):
            given = Values({**given, **named})
        for name, value in (
            ("text", text), ("rates", given), ("allow", allow), ("label", label)
        ):  # fmt: skip
            object.__setattr__(self, name, value)
        check_fields(self)
        names = names_in(text)
        called = sorted(self.rates.keys() & names.called)
        if called:
            raise ValueError(
                f"Rule.rates gives {called[0]} a value, and the text {text!r} calls it as a "
                "function; expected another name for the value"
            )
        unused = sorted(self.rates.keys() - names.used)
        if unused:
            raise ValueError(
                f"Rule.rates gives {', '.join(unused)} a value, which the text {text!r} does not "
                "use; expected values for its names alone"
            )

    @property
    def name(self) -> str:
        """What a run with it is called."""
        return self.label or self.text

    def uses(self, name: str) -> bool:
        """Return whether the text says a name."""
        return name in names_in(self.text).used


@dataclass(frozen=True)
class Names:
    """The bare names of a text: as values, and as functions that are called."""

    used: frozenset[str]
    called: frozenset[str]


def names_in(text: str) -> Names:
    """Return the bare names of a text.

    Raises:
        ValueError: the text cannot be read.

    Examples:
        >>> sorted(names_in("chain(clip(level), optax.sgd(lr))").used)
        ['level', 'lr']
    """
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        why = error.msg if isinstance(error, SyntaxError) else "nested too deeply"
        raise ValueError(
            f"Rule.text is {shown(text)}; expected a call such as adamw(lr), and it cannot be "
            f"read: {why}"
        ) from error
    called = {node.func.id for node in _calls(tree) if isinstance(node.func, ast.Name)}
    functions = {id(node.func) for node in _calls(tree)}
    modules = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and id(node) not in functions | modules
    }
    return Names(frozenset(used), frozenset(called))


def _calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
