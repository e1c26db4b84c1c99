"""Keep docs/api.md true: `python -m experiments.report.docs` (`make docs`).

The page is written by hand but for two things that would rot: the signature below the heading of
each public name is what `inspect.signature` says, and the pictures are drawn from what the library
does. To describe a new public name, add its heading, a level-3 one that is nothing but the name
in backticks, and what is to be said of it; the signature comes by itself.
"""

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import clipjax
from clipjax import analysis, losses
from experiments.report.clippings import FIGURES, figure

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
HEADING = re.compile(r"^### `([\w.]+)`$", re.MULTILINE)
_BLOCK = re.compile(
    r"^(### `([\w.]+)`\n)(?:\n```python\n(?!>>>).*?\n```\n)?", re.MULTILINE | re.DOTALL
)


def public_objects() -> dict[str, Any]:
    """Return everything public by its name after `clipjax.`; of a module, what it exports.

    `clipjax.losses` and `clipjax.analysis` are no attributes of clipjax until they are imported,
    and belong here all the same.

    Examples:
        >>> public_objects()["clip_stats"] is clipjax.clip_stats
        True
    """
    objects: dict[str, Any] = {}
    for name in clipjax.__all__:
        value = getattr(clipjax, name)
        if isinstance(value, ModuleType):
            objects |= {f"{name}.{part}": getattr(value, part) for part in value.__all__}
        else:
            objects[name] = value
    for name, module in (("losses", losses), ("analysis", analysis)):
        objects |= {f"{name}.{part}": getattr(module, part) for part in module.__all__}
    return objects


def signature(name: str, value: Any) -> str:
    """Return the call of a public name as Python would write it, without annotations.

    Examples:
        >>> print(signature("clip_by_quantile", clipjax.clip_by_quantile))
        clip_by_quantile(quantile, window=1000, *, per_tensor=False)
        >>> print(signature("__version__", "1.0"))
        __version__: str
    """
    if not callable(value):
        return f"{name}: {type(value).__name__}"
    parameters = [
        parameter.replace(annotation=parameter.empty, default=_Default.of(parameter.default))
        for parameter in inspect.signature(value).parameters.values()
    ]
    line = _double_quoted(f"{name}{inspect.Signature(parameters)}")
    if len(line) <= 100:
        return line
    parts: list[str] = []
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parts:
            parts.append("*")
        parts.append(_double_quoted(str(parameter)))
    return f"{name}(\n" + "".join(f"    {part},\n" for part in parts) + ")"


def _double_quoted(code: str) -> str:
    """Return the strings in a signature as the formatter writes them."""
    return code.replace("'", '"')


class _Default:
    """A default value that prints as its name if it is a function or a class."""

    def __init__(self, value: Any):
        self.value = value

    @classmethod
    def of(cls, value: Any) -> Any:
        return value if value is inspect.Parameter.empty else cls(value)

    def __repr__(self) -> str:
        if callable(self.value) and hasattr(self.value, "__name__"):
            return f"{self.value.__module__.split('.')[0]}.{self.value.__name__}"
        return repr(self.value)


def render(page: str) -> str:
    """Return the page with the signature of each public name below its heading.

    Raises:
        ValueError: for a heading that is no public name.
    """
    objects = public_objects()

    def block(match: re.Match[str]) -> str:
        heading, name = match.groups()
        if name not in objects:
            raise ValueError(f"{PAGE.name} describes {name}, which is no public name of clipjax.")
        return f"{heading}\n```python\n{signature(name, objects[name])}\n```\n"

    return _BLOCK.sub(block, page)


def main() -> None:
    """Write the signatures into the page, and the pictures beside it."""
    PAGE.write_text(render(PAGE.read_text()))
    for name in FIGURES:
        (PAGE.parent / f"{name}.png").write_bytes(figure(name))
    print(f"{PAGE.name}: {len(HEADING.findall(PAGE.read_text()))} names, {len(FIGURES)} pictures")


if __name__ == "__main__":
    main()
