"""Objects from text: `student_t(1.5)`, `Adam = optax.adam(0.01, b2=0.9)`.

A text is a number, a string, a tuple, or a call of a known name or of anything importable by its
dotted name, with such texts as arguments. It is what a command line can say and JSON can keep, and
it is not Python: there are no operators but those of arithmetic, no subscripts, no lambdas.
"""

import ast
import operator
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from experiments.setup import config as configs

_OPERATORS: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
}


def evaluate(text: str, names: Mapping[str, Any], what: str = "name") -> Any:
    """Return the object that a text describes.

    Args:
        text: such as "weibull(0.2)" or "optax.chain(optax.clip(1.0), optax.sgd(0.1))".
        names: what bare names stand for; a bare name alone is called without arguments.
        what: what is described, for errors.

    Raises:
        ValueError: for text that cannot be read, an unknown name (with the nearest), or arguments
            that the thing called refuses.

    Examples:
        >>> evaluate("pair(1, -2.5)", {"pair": lambda a, b: (a, b)})
        (1, -2.5)
        >>> evaluate("math.hypot(3, 2 ** 2)", {})
        5.0
        >>> evaluate("apir(1)", {"pair": tuple}, "noise")
        Traceback (most recent call last):
            ...
        ValueError: noise 'apir'; did you mean 'pair'? There are: pair
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        raise ValueError(f"{what} {text!r} cannot be read: {error.msg}") from error
    if isinstance(tree, ast.Name):
        tree = ast.Call(tree, [], [])
    return _Reader(text, names, what).read(tree)


class _Reader:
    def __init__(self, text: str, names: Mapping[str, Any], what: str):
        self._text, self._names, self._what = text, names, what

    def read(self, node: ast.AST) -> Any:
        match node:
            case ast.Constant(value):
                return value
            case ast.Tuple(items) | ast.List(items):
                return tuple(self.read(item) for item in items)
            case ast.UnaryOp(op, operand) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](self.read(operand))
            case ast.BinOp(left, op, right) if type(op) in _OPERATORS:
                return _OPERATORS[type(op)](self.read(left), self.read(right))
            case ast.Name(name):
                if name not in self._names:
                    raise ValueError(f"{self._what} {name!r}; {configs.nearest(name, self._names)}")
                return self._names[name]
            case ast.Attribute():
                return self._import(ast.unparse(node))
            case ast.Call(function, arguments, keywords):
                return self._call(
                    self.read(function),
                    [self.read(argument) for argument in arguments],
                    {k.arg: self.read(k.value) for k in keywords if k.arg is not None},
                    ast.unparse(node),
                )
        raise ValueError(
            f"{self._what} {self._text!r}: {ast.unparse(node)!r} is neither a value nor a call"
        )

    def _import(self, name: str) -> Any:
        try:
            return pkgutil.resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"{self._what} {self._text!r}: {error}") from error

    def _call(self, function: Any, arguments: list, keywords: dict[str, Any], said: str) -> Any:
        try:
            return function(*arguments, **keywords)
        except TypeError as error:
            raise ValueError(f"{self._what} {said!r}: {error}") from error
