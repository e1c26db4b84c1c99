"""What a run left in its folder, read back and checked: one reader, one kind of error.

JSON becomes what a type hint says: dataclasses (an object's `type` names the class, so that a union
of dataclasses is told apart), TypedDicts, mappings, lists, and numbers and text, which are held to
the limits of their annotation (`experiments.setup.checks`). Whatever does not fit is a
`DamagedFile`, which names the file, the field and how to go on.

The walk over the types is cattrs's. It builds plain dataclasses, one of several by a tag, calls
their `__post_init__`, tells unknown from missing fields and keeps the path to each fault. msgspec
was tried first: it is faster, which does not matter for files of a few kilobytes, but refuses a
union of two dataclasses ("may not contain more than one dataclass"): it would have asked for its
own Struct in place of the dataclasses that Tyro, `dataclasses.replace` and the configs use.
"""

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, TypeVar

import cattrs
from cattrs import errors
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn, override, typeddicts
from cattrs.v import transform_error

from clipjax.train.log import read_jsonl
from experiments.setup.checks import OneOf, find_fault, nearest, shown
from experiments.setup.config import Model

T = TypeVar("T")

Number = float | Literal["inf", "-inf", "nan"] | None
"""A number in a file of results; JSON has no infinity, so some are text, or null."""

RUN_AGAIN = "run the same experiment again, which does what is missing"


class DamagedFile(ValueError):
    """A file that a run left is not as the run wrote it: says which, where, and how to go on."""


class NetworkConfig(TypedDict):
    """What they take from its model."""

    type: Annotated[str, OneOf(tuple(kind.__name__ for kind in typing.get_args(Model)))]


class OptimizerConfig(TypedDict):
    """What they take from its optimizer."""

    learning_rate: NotRequired[float]
    momentum: NotRequired[float | None]
    clip: NotRequired[str]
    clip_level: NotRequired[float | None]
    smoothness: NotRequired[float]
    text: NotRequired[str]
    rates: NotRequired[dict[str, float]]
    label: NotRequired[str | None]


class RunConfig(TypedDict):
    """What readers of a summary take from its `config`; it holds all fields of a Run."""

    model: NetworkConfig
    optimizer: OptimizerConfig
    batch_size: int
    train_split: NotRequired[str]
    evaluation_dataset: NotRequired[str | None]
    evaluation_split: NotRequired[str | None]
    pretrained: NotRequired[str | None]
    graduated: NotRequired[dict[str, Any] | None]


class DivergedSummary(TypedDict):
    """summary.json of a run that diverged: it does not know how far it would have come."""

    status: Literal["finished", "diverged"]
    reason: NotRequired[str | None]
    task: Literal["classification", "segmentation", "super_resolution"]
    dataset: str
    seed: int
    metrics: dict[str, Number]
    config: RunConfig
    wall_time: float
    method: str
    num_train: int
    class_names: NotRequired[list[str]]
    images_per_second: NotRequired[float]
    input_wait: NotRequired[float]
    compile_time: NotRequired[float]
    device: NotRequired[str]
    versions: NotRequired[dict[str, str]]
    git_commit: NotRequired[str | None]


class Summary(DivergedSummary):
    """summary.json of a run that finished."""

    steps: int
    examples: int
    num_params: int


NOT_FINITE = "the evaluation loss is not finite"
"""Why a run diverged whose summary does not say."""


def diverged(summary: Mapping[str, Any]) -> bool:
    """Return whether a run diverged, by its summary.json.

    Earlier versions called a run finished whose last evaluation gave no finite loss.
    """
    loss = summary["metrics"].get("loss", 0.0)
    return summary["status"] == "diverged" or loss is None or not math.isfinite(float(loss))


class Row(TypedDict):
    """A row of metrics.jsonl; beside these it holds numbers by name."""

    split: str
    step: int
    examples: int


def read_json(path: Path, kind: type[T], *, missing: str, cure: str, nan: bool = True) -> T:
    """Return what a JSON file holds, as a `kind`.

    Args:
        path: the file.
        kind: a dataclass or TypedDict.
        missing: what it means that there is no such file, and how to go on.
        cure: how to go on where it is damaged.
        nan: whether NaN and Infinity may stand in it, which are no JSON but Python writes them.

    Raises:
        FileNotFoundError: if there is none.
        DamagedFile: if it is a folder, no JSON, or does not hold a `kind`.
    """
    options: dict[str, Any] = {} if nan else {"parse_constant": _refuse_constant}
    try:
        value = json.loads(path.read_text(encoding="utf-8"), **options)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing{missing}") from None
    except IsADirectoryError:
        raise DamagedFile(f"{path} is a folder, not a file; {cure}") from None
    except (ValueError, RecursionError) as error:  # no JSON, no text, too many digits or brackets
        raise DamagedFile(f"{path} is damaged ({error}); {cure}") from error
    return structure(value, kind, str(path), cure)


def read_summary(path: Path) -> Summary:
    """Return summary.json of a run; what only a finished run has may be asked of these alone.

    Raises:
        FileNotFoundError: if there is none.
        DamagedFile: if it is not what a run writes.
    """
    cure = f"delete it and {RUN_AGAIN}"
    missing = f", so this run has not ended; {RUN_AGAIN}"
    found = read_json(path, DivergedSummary, missing=missing, cure=cure)
    if found["status"] == "finished":
        structure(found, Summary, str(path), cure)
    return typing.cast(Summary, found)


def read_rows(path: Path, *, cure: str) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl; a last row that was cut short is left out, and a warning.

    Raises:
        FileNotFoundError: if there is none.
        DamagedFile: if another row is no JSON, or not a row; file and line are named.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; {cure}")
    try:
        rows = read_jsonl(path)
    except IsADirectoryError:
        raise DamagedFile(f"{path} is a folder, not a file; {cure}") from None
    except ValueError as error:
        raise DamagedFile(f"{error}; {cure}") from error
    for line, row in enumerate(rows, 1):
        structure(row, Row, f"{path}, line {line},", cure)
        for name in row.keys() - Row.__annotations__:
            if (fault := find_fault(row[name], Number, name)) is not None:
                raise DamagedFile(f"{path}, line {line}, is damaged: {fault}; {cure}")
    return rows


def structure(value: Any, kind: Any, name: str, cure: str) -> Any:
    """Return JSON values as a `kind`.

    Args:
        value: what `json.loads` gave.
        kind: a dataclass, a TypedDict or a union of dataclasses.
        name: of the file, for the error.
        cure: how to go on, for the error.

    Raises:
        DamagedFile: if a field is missing, unknown or not of its type.
    """
    try:
        return _converter().structure(value, kind)
    except (errors.ClassValidationError, errors.IterableValidationError, ValueError) as error:
        faults = [_place(line) for line in transform_error(error, "", _say)]
    # Of the whole it is said that "it is [1]", not that " is [1]".
    faults = [
        ("it" if not where and said[:1] == " " else where, said if where else said.lstrip("."))
        for where, said in faults
    ]
    lacks = ", ".join(where for where, said in faults if said == _MISSING)
    found = [f"lacks {lacks}"] if lacks else []
    found += [
        f"{where}{said}" if said[:1] in (" ", "[", ".") else f"{where}: {said}".removeprefix(": ")
        for where, said in faults
        if said != _MISSING
    ][:3]
    first = "" if lacks else "is damaged: "
    raise DamagedFile(f"{name} {first}{'; '.join(found)}; {cure}")


_MISSING = "is missing"
_PLAIN = (int, float, str, bool)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number that a config may hold")


def _place(line: str) -> tuple[str, str]:
    """Return the path and the text of a line of `transform_error`."""
    said, _, where = line.rpartition(" @ ")
    return where.removeprefix("."), said


def _say(error: BaseException, _: Any) -> str:
    """Return what is wrong, for `transform_error`."""
    if isinstance(error, errors.ForbiddenExtraKeysError):
        fields = [f.name for f in dataclasses.fields(error.cl) if f.compare]
        unknown = sorted(error.extra_fields)
        return "; ".join(
            f"{error.cl.__name__} has no field {name!r}; {nearest(name, fields)}"
            for name in unknown
        )
    return _MISSING if isinstance(error, KeyError) else str(error)


@functools.cache
def _converter() -> cattrs.Converter:
    """Return cattrs's converter with strict leaves, tuples from lists, and `type` as the tag.

    Of its own accord cattrs would make 3 of "3", and a list of any text.
    """
    made = cattrs.Converter()
    for fits, json_type, words, factory in (
        (lambda hint: typing.get_origin(hint) is list, list, "a list", list_structure_factory),
        (
            lambda hint: typing.get_origin(hint) in (dict, Mapping),
            dict,
            "an object",
            mapping_structure_factory,
        ),
        (typing.is_typeddict, dict, "an object", typeddicts.make_dict_structure_fn),
        (_is_tagged, dict, "an object", _tagged),
    ):
        made.register_structure_hook_factory(fits, _only(json_type, words, factory))
    made.register_structure_hook_factory(_is_leaf, _leaf)
    for kind in _PLAIN:  # of these its own hooks would come first
        made.register_structure_hook(kind, _leaf(kind))
    return made


def _only(json_type: type, words: str, factory: Callable) -> Callable:
    """Return a hook factory whose hooks refuse all but one type of JSON."""

    def make(hint: Any, converter: cattrs.Converter) -> Callable:
        inner = factory(hint, converter)

        def hook(value: Any, asked: Any) -> Any:
            if value is None and types.NoneType in typing.get_args(hint):
                return None
            if not isinstance(value, json_type):
                raise ValueError(f" is {shown(value)}; expected {words}")
            return inner(value, asked)

        return hook

    return make


def _is_tagged(hint: Any) -> bool:
    """Return whether a type is a dataclass, one of several, or None besides."""
    return all(dataclasses.is_dataclass(kind) for kind in _members(hint))


def _tagged(hint: Any, converter: cattrs.Converter) -> Callable:
    kinds = {kind.__name__: kind for kind in _members(hint)}
    make = {name: _of_fields(kind, converter) for name, kind in kinds.items()}

    def hook(value: dict[str, Any], _: Any) -> Any:
        tag = value.get("type")
        if not isinstance(tag, str) or tag not in kinds:
            raise ValueError(f".type is {shown(tag)}; {nearest(str(tag), kinds)}")
        return make[tag]({k: v for k, v in value.items() if k != "type"}, kinds[tag])

    return hook


def _of_fields(kind: Any, converter: cattrs.Converter) -> Callable:
    """Return cattrs's hook for a dataclass, without what is a permission: no file gives one."""
    left_out: dict[str, Any] = {
        f.name: override(omit=True) for f in dataclasses.fields(kind) if not f.compare
    }
    return make_dict_structure_fn(kind, converter, _cattrs_forbid_extra_keys=True, **left_out)


def _is_leaf(hint: Any) -> bool:
    """Return whether a type is that of a number, a text, or a tuple of these."""
    if typing.get_origin(hint) is typing.Annotated:
        return _is_leaf(hint.__origin__)
    if typing.get_origin(hint) is tuple:
        return _is_leaf(typing.get_args(hint)[0])
    return all(kind in _PLAIN or typing.get_origin(kind) is Literal for kind in _members(hint))


def _leaf(hint: Any) -> Callable:
    bare = hint.__origin__ if typing.get_origin(hint) is typing.Annotated else hint

    def hook(value: Any, _: Any) -> Any:
        if typing.get_origin(bare) is tuple and isinstance(value, list):
            value = tuple(value)
        if (fault := find_fault(value, hint, "")) is not None:
            raise ValueError(fault)
        return value

    return hook


def _members(hint: Any) -> list[Any]:
    """Return what a union is of, without None; of another type this itself."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    found = typing.get_args(hint) if union else (hint,)
    bare = [
        kind.__origin__ if typing.get_origin(kind) is typing.Annotated else kind for kind in found
    ]
    return [kind for kind in bare if kind is not types.NoneType]
