"""chosen.json, what a search found, and how a config file takes its values from it.

A config stays data: it names the file, and says which runs the values are for.

    TUNED = Path(__file__).parents[1] / "results" / "demo_tuning.json"
    config = Grid(with_chosen(RUNS, TUNED), seeds=(0, 1, 2))
"""

import itertools
import operator
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypedDict

from experiments.setup import config_files, reading
from experiments.setup.checks import INT32, Range, nearest
from experiments.setup.config import Run
from experiments.setup.halving import Trial
from experiments.setup.search import Search, Value, with_values

Number = Annotated[float, Range(float("-inf"), float("inf"))]


LESS_IS_BETTER = ("loss",)
"""Of all metrics; they are minimised."""


class TrialRecord(TypedDict):
    """A trial: its values, how far it came and what it came to."""

    trial: int
    values: dict[str, Value]
    steps: int
    status: Literal["finished", "stopped", "diverged"]
    score: Number | None
    loss: Number | None


class RungRecord(TypedDict):
    """A rung: so many trials, up to so many steps."""

    trials: int
    steps: int


class MethodRecord(TypedDict):
    """The search for one run's values."""

    task: Literal["classification", "segmentation", "super_resolution"]
    metric: str
    train_split: str
    validation_split: str
    seeds: list[int]
    run: dict[str, Any]
    space: dict[str, dict[str, Any]]
    rungs: list[RungRecord]
    chosen: Annotated[int, Range(0, INT32)] | None
    trials: list[TrialRecord]


class ChosenFile(TypedDict):
    """chosen.json."""

    holdout: float
    sequence: str
    sequence_seed: int
    methods: dict[str, MethodRecord]
    not_searched: list[str]


Neighbour: TypeAlias = tuple[float, TrialRecord] | None
"""A value, and the trial that had it."""


def record(
    search: Search,
    key: str,
    metric: str,
    rungs: Sequence[Any],
    trials: Sequence[Trial],
    chosen: int | None,
) -> MethodRecord:
    """Return what chosen.json says of one run."""
    tried = search.trial_runs(key)[0]
    assert tried.evaluation_split is not None  # the held-out part
    values = search.values(key)
    sign = -1 if metric in LESS_IS_BETTER else 1
    return {
        "task": tried.task,
        "metric": metric,
        "train_split": tried.train_split,
        "validation_split": tried.evaluation_split,
        "seeds": list(search.seeds),
        "run": config_files.to_json(search.runs[key]),
        "space": {p: config_files.to_json(drawn) for p, drawn in search.space_of(key).items()},
        "rungs": [{"trials": rung.trials, "steps": rung.steps} for rung in rungs],
        "chosen": chosen,
        "trials": [
            {
                "trial": trial.number,
                "values": values[trial.number],
                "steps": trial.steps,
                "status": trial.status,
                "score": None if trial.measured.score is None else sign * trial.measured.score,
                "loss": trial.measured.loss,
            }
            for trial in trials
        ],
    }


def read_chosen(path: str | Path) -> ChosenFile:
    """Return chosen.json.

    Raises:
        FileNotFoundError: there is none.
        DamagedFile: it is not what a search writes.
    """
    cure = "run python -m experiments.tune with the same config and workdir again"
    path = Path(path)
    found = reading.read_json(
        path, ChosenFile, missing=f"; {cure}", cure=f"delete it and {cure}", nan=False
    )
    for key, method in found["methods"].items():
        numbers = [trial["trial"] for trial in method["trials"]]
        if numbers != list(range(len(numbers))):
            raise reading.DamagedFile(f"{path} lacks trials of {key!r}, it has {numbers}; {cure}")
        if method["chosen"] is not None and method["chosen"] not in numbers:
            raise reading.DamagedFile(f"{path} lacks the trial that {key!r} chose; {cure}")
    return found


def chosen_values(method: MethodRecord) -> dict[str, Value] | None:
    """Return the values that were chosen for a run; None where every trial failed."""
    number = method["chosen"]
    return None if number is None else method["trials"][number]["values"]


def chosen_runs(path: str | Path, *, without: Sequence[str] = ()) -> dict[str, Run]:
    """Return the runs of a search with the values that it chose, on their own splits.

    Args:
        path: a chosen.json, as `experiments.tune` wrote it.
        without: runs to leave out, 'task/method'; those for which nothing could be chosen must
            be named here.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or nothing was chosen for a run.
    """
    found = read_chosen(path)
    _check_known(without, found, path, "without")
    cure = "delete it and run the search again"
    runs = {
        key: reading.structure(method["run"], Run, f"{path}, the run of {key!r},", cure)
        for key, method in found["methods"].items()
        if key not in without
    }
    return with_chosen(runs, path)


def with_chosen(runs: Mapping[str, Run], path: str | Path) -> dict[str, Run]:
    """Return runs of a config file with the values that a search chose for them.

    Args:
        runs: 'task/method' -> the run.
        path: a chosen.json, as `experiments.tune` wrote it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, knows no such run, or chose nothing for it; or the run has no
            such field.
    """
    found = read_chosen(path)
    _check_known(runs, found, path, "runs")
    made = {}
    for key, run in runs.items():
        values = chosen_values(found["methods"][key])
        if values is None:
            raise ValueError(
                f"{path} chose nothing for {key!r}, since its trials diverged: search it again in "
                f"another space, or leave it out (chosen_runs(..., without=[{key!r}]))"
            )
        try:
            made[key] = with_values(run, values)
        except ValueError as error:
            raise ValueError(f"{path}, the values of {key!r}: {error}") from error
    return made


def _check_known(keys: Any, found: ChosenFile, path: str | Path, what: str) -> None:
    for key in keys:
        if key not in found["methods"]:
            raise ValueError(
                f"{what} names {key!r}, which {path} has no values for; "
                f"{nearest(key, found['methods'])}"
            )


def numbers(method: MethodRecord) -> list[str]:
    """Return the paths of the values that are drawn from a range, in the order of the space."""
    return [path for path, drawn in method["space"].items() if drawn.get("type") != "Choice"]


def neighbours(method: MethodRecord, path: str | None = None) -> tuple[Neighbour, Neighbour]:
    """Return the trials next to the chosen one in a value.

    Args:
        method: what was found for a run.
        path: of the value, a number; None takes the first number that was searched.

    Returns:
        The next lower and the next higher value, each with its trial; None where there is none.
    """
    path = path or next(iter(numbers(method)), None)
    if path is None or method["chosen"] is None:
        return None, None
    best = method["trials"][method["chosen"]]
    pairs = [(float(str(t["values"][path])), t) for t in method["trials"] if t is not best]
    here = float(str(best["values"][path]))
    lower = [pair for pair in pairs if pair[0] < here]
    higher = [pair for pair in pairs if pair[0] > here]
    first = operator.itemgetter(0)
    return max(lower, key=first, default=None), min(higher, key=first, default=None)


def at_the_edge(method: MethodRecord) -> dict[str, str]:
    """Return the chosen numbers than which no lower, or no higher, was tried."""
    values = chosen_values(method)
    found = {}
    for path in numbers(method) if values and len(method["trials"]) > 2 else ():
        tried = [float(str(trial["values"][path])) for trial in method["trials"]]
        here = float(str(values[path])) if values else 0.0
        if here in (min(tried), max(tried)):
            found[path] = "lowest" if here == min(tried) else "highest"
    return found


def write(values: Mapping[str, Value]) -> list[str]:
    """Return values as text, each by the last part of its path.

    Examples:
        >>> write({"optimizer.learning_rate": 0.03, "optimizer.clip": "value"})
        ['learning_rate 0.03', 'clip value']
    """
    names = [path.rpartition(".")[2] for path in values]
    texts = [f"{v:g}" if isinstance(v, float) else str(v) for v in values.values()]
    return [f"{name} {text}" for name, text in zip(names, texts, strict=True)]


def config_text(chosen: ChosenFile) -> str | None:
    """Return chosen.py, a config file that lies beside chosen.json; None where it has no run.

    Its seeds are the first three that no trial was run with.
    """
    methods = chosen["methods"]
    without = tuple(key for key in methods if methods[key]["chosen"] is None)
    if len(without) == len(methods):
        return None
    used = {seed for method in methods.values() for seed in method["seeds"]}
    seeds = tuple(itertools.islice((s for s in itertools.count() if s not in used), 3))
    left_out = f", without={without!r}" if without else ""
    return (
        '"""The values that a search chose, in chosen.json beside this file, for other seeds.\n\n'
        "python -m experiments.compare --config THIS_FILE --workdir runs/chosen\n\n"
        'Written by python -m experiments.tune; scores are on the split that no trial saw.\n"""\n\n'
        "from pathlib import Path\n\n"
        "from experiments.config import Grid, chosen_runs\n\n"
        'CHOSEN = Path(__file__).with_name("chosen.json")\n'
        f"config = Grid(chosen_runs(CHOSEN{left_out}), seeds={seeds!r})\n"
    )
