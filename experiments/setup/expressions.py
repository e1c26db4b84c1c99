"""Objects from text: `student_t(1.5)`, `Adam = optax.adam(0.01, b2=0.9)`.

A text is a number, a string, a tuple, or a call of a known name or of a dotted name, with such
texts as arguments. It is what a command line can say and JSON can keep, and it is not Python: there
are no operators but those of arithmetic on numbers, no subscripts, no lambdas, and a dotted name
must be one that `allowed_names` lets pass.

A text can neither run for long by itself nor fill the memory: whole numbers have at most
`LARGEST_BITS` bits, and an array that it asks `jax.numpy` for at most `LARGEST_ARRAY` entries.
"""

import ast
import math
import numbers
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from experiments.setup import config as configs
from experiments.setup.allowed_names import defined_in, resolve

LONGEST = 100_000
"""Characters of a text."""
LARGEST_BITS = 1024
"""Bits of a whole number; the largest float64 is below 2^1024 as well."""
LARGEST_ARRAY = 10**8
"""Entries of an array that a text makes."""

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}


def evaluate(
    text: str,
    names: Mapping[str, Any],
    what: str = "name",
    allow: Sequence[str] = (),
    unknown: Callable[[str], str] | None = None,
) -> Any:
    """Return the object that a text describes.

    Args:
        text: such as "weibull(0.2)" or "optax.chain(optax.clip(1.0), optax.sgd(0.1))".
        names: what bare names stand for; a bare name alone is called without arguments.
        what: what is described, for errors.
        allow: packages whose names may be said beside `allowed_names.PACKAGES`.
        unknown: an unknown name -> what to say of it; by default the nearest name and all names.

    Raises:
        ValueError: for text that cannot be read, an unknown name (with the nearest), a dotted name
            that is not allowed, or whatever the thing called raises.

    Examples:
        >>> evaluate("pair(1, -2.5)", {"pair": lambda a, b: (a, b)})
        (1, -2.5)
        >>> evaluate("math.hypot(3, 2 ** 2)", {})
        5.0
        >>> evaluate("apir(1)", {"pair": tuple}, "noise")
        Traceback (most recent call last):
            ...
        ValueError: there is no noise 'apir'; did you mean 'pair'? There are: pair
    """
    shown = text if len(text) <= 200 else f"{text[:200]}..."
    if len(text) > LONGEST:
        raise ValueError(f"{what} {shown!r} has {len(text)} characters; expected {LONGEST} at most")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        if isinstance(tree, ast.Name):
            tree = ast.Call(tree, [], [])
        say = unknown or (lambda name: configs.nearest(name, names))
        return _Reader(shown, names, what, allow, say).read(tree)
    except SyntaxError as error:
        raise ValueError(f"{what} {shown!r} cannot be read: {error.msg}") from error
    except (RecursionError, MemoryError) as error:  # the parser says MemoryError for the same
        raise ValueError(f"{what} {shown!r} cannot be read: nested too deeply") from error


class Moving:
    """A number that moves with the step: a function of it, with which a text can compute."""

    def __init__(self, at: Callable[[Any], Any]):
        self._at = at

    def __call__(self, count: Any) -> Any:
        """Return the number at a step."""
        return self._at(count)


class _Reader:
    def __init__(
        self,
        text: str,
        names: Mapping[str, Any],
        what: str,
        allow: Sequence[str],
        unknown: Callable[[str], str],
    ):
        self._text, self._names, self._what, self._allow = text, names, what, allow
        self._unknown = unknown

    def read(self, node: ast.AST) -> Any:
        match node:
            case ast.Constant(int() | float() | str() | None as value):
                return self._number(value)
            case ast.Tuple(items) | ast.List(items):
                return tuple(self.read(item) for item in items)
            case ast.UnaryOp(op, operand) if type(op) in _OPERATORS:
                return self._compute(op, self.read(operand))
            case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
                return self._compute(op, self.read(left), self.read(right))
            case ast.Name(name):
                if name not in self._names:
                    raise ValueError(f"there is no {self._what} {name!r}; {self._unknown(name)}")
                return self._names[name]
            case ast.Attribute():
                return self._dotted(node)
            case ast.Call(function, arguments, keywords):
                if any(k.arg is None for k in keywords):
                    raise self._error("** is not part of the language")
                return self._call(
                    self.read(function),
                    [self.read(argument) for argument in arguments],
                    {k.arg: self.read(k.value) for k in keywords if k.arg is not None},
                    ast.unparse(node),
                )
        raise self._error(f"{ast.unparse(node)!r} is neither a value nor a call")

    def _error(self, words: str) -> ValueError:
        return ValueError(f"{self._what} {self._text!r}: {words}")

    def _dotted(self, node: ast.Attribute) -> Any:
        parts, root = [node.attr], node.value
        while isinstance(root, ast.Attribute):
            parts.append(root.attr)
            root = root.value
        if not isinstance(root, ast.Name):
            raise self._error(f"{ast.unparse(node)!r}: only modules have parts that can be named")
        try:
            return resolve(".".join([root.id, *reversed(parts)]), self._allow)
        except ValueError as error:
            raise self._error(str(error)) from error

    def _compute(self, op: ast.AST, *operands: Any) -> Any:
        """Return the result of arithmetic on numbers and arrays."""
        if any(isinstance(operand, Moving) for operand in operands):
            return Moving(
                lambda count: self._compute(
                    op, *(x(count) if isinstance(x, Moving) else x for x in operands)
                )
            )
        for operand in operands:
            if not isinstance(operand, numbers.Real | jax.Array):
                raise self._error(f"arithmetic is for numbers, not for {operand!r}")
        if isinstance(op, ast.Pow) and all(isinstance(x, int) for x in operands):
            base, power = operands
            if abs(base) > 1 and power * abs(base).bit_length() > LARGEST_BITS:
                raise self._error(f"{base} ** {power} has too many digits")
        try:
            result = _OPERATORS[type(op)](*operands)
        except (ArithmeticError, TypeError) as error:
            raise self._error(str(error)) from error
        if isinstance(result, complex):
            raise self._error(f"{result} is not a real number")
        return self._number(result)

    def _number(self, value: Any) -> Any:
        if isinstance(value, int) and value.bit_length() > LARGEST_BITS:
            raise self._error("a whole number has too many digits")
        return value

    def _call(self, function: Any, arguments: list, keywords: dict[str, Any], said: str) -> Any:
        try:
            if str(defined_in(function)).startswith("jax.numpy"):
                _check_size(function, arguments, keywords)
            return self._number(function(*arguments, **keywords))
        except Exception as error:  # it is called as the text says, and may raise anything
            words = str(error) or type(error).__name__
            raise ValueError(f"{self._what} {said!r}: {words}") from error


def _check_size(function: Any, arguments: list, keywords: dict[str, Any]) -> None:
    """Raise ValueError for a call of jax.numpy whose result would be too large to make."""
    shapes = jax.eval_shape(lambda: function(*arguments, **keywords))
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
    if size > LARGEST_ARRAY:
        raise ValueError(f"it would have {size:.3g} entries; expected {LARGEST_ARRAY:.0e} at most")
