"""What a search found: a section with the chosen values, every trial, and response curves.

A response curve is the score over one searched value. How fast it falls beside the chosen value is
how exactly that value must be known.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from experiments.report import style
from experiments.report.page import Cell, Drawing, Picture, Section, Table, Text
from experiments.report.results import METRICS, Metric
from experiments.report.style import look
from experiments.setup import chosen as files
from experiments.setup.chosen import ChosenFile, MethodRecord, TrialRecord, Value
from experiments.setup.labels import LONGEST, in_figure, shortened

NAME = "chosen.json"

ENDS = {"finished": "trained to the end", "stopped": "stopped early", "diverged": "diverged"}
"""How a trial ended, as the page says it."""

Methods = Mapping[str, MethodRecord]
"""Method's folder -> what was found for it, on one task."""


def there(workdir: Path) -> bool:
    """Return whether a folder is that of a search."""
    return (workdir / NAME).exists()


def sections(workdir: Path) -> list[Section]:
    """Return the section of a search, where a folder is that of one."""
    return [section(files.read_chosen(workdir / NAME))] if there(workdir) else []


def lead(workdir: Path) -> str:
    """Say in a sentence what was searched."""
    methods = files.read_chosen(workdir / NAME)["methods"]
    trials = sum(len(method["trials"]) for method in methods.values())
    return f"{len(methods)} runs searched for good values, {trials} trials."


def tables(workdir: Path) -> list[Table]:
    """Return the table of chosen values, where a folder is that of a search."""
    return [chosen_table(files.read_chosen(workdir / NAME))] if there(workdir) else []


def by_task(found: ChosenFile) -> dict[str, dict[str, MethodRecord]]:
    """Return task's folder -> method's folder -> what was found."""
    tasks: dict[str, dict[str, MethodRecord]] = {}
    for key, method in found["methods"].items():
        task, _, name = key.partition("/")
        tasks.setdefault(task, {})[name] = method
    return tasks


def section(found: ChosenFile) -> Section:
    """Return the section of a search."""
    counts = sorted({len(method["trials"]) for method in found["methods"].values()})
    text = (
        f"Values were searched by a scrambled {found['sequence'].capitalize()} sequence, "
        f"{' or '.join(map(str, counts))} trials for each run. Scores are on "
        f"{100 * found['holdout']:g} % of the training split, which no trial was trained on; they "
        "are those that values were chosen by, so they flatter the chosen trial. The test split "
        "was not read. Of equal scores the lower loss decided, then the lower number of the trial."
    )
    missing = found["not_searched"]
    more = [Text(f"Not searched yet: {', '.join(missing)}.")] if missing else []
    parts = [Text(text), *more, chosen_table(found)]
    for task, methods in by_task(found).items():
        caption = (
            f"{task}: score over each searched value, a row for each method. Filled: trained to "
            "the end; hollow: stopped early, at fewer steps; crosses at the bottom: diverged; "
            "star: chosen, with lines to its neighbours in this value where these were trained to "
            "the end. The other values differ, too, so neighbours may differ by more than the one "
            "that is shown."
        )
        parts += [Picture(f"response_{task}", curves(methods), caption), trial_table(task, methods)]
    return Section("Search for values", tuple(parts))


def chosen_table(found: ChosenFile) -> Table:
    """Return a row for each run: what was chosen, its score and its neighbours' scores."""
    rows = []
    for key, method in found["methods"].items():
        lost = sum(trial["status"] == "diverged" for trial in method["trials"])
        tail = Cell(f"{lost} of {len(method['trials'])}")
        if method["chosen"] is None:
            rows.append((Cell(key), Cell("nothing"), *[Cell("–")] * 3, tail))
            continue
        edges = files.at_the_edge(method)
        note = "\n".join(f"{p.rpartition('.')[2]}: {side} tried" for p, side in edges.items())
        best = method["trials"][method["chosen"]]
        values = ", ".join(files.write(best["values"]))
        beside = (
            Cell("–") if pair is None else _score_cell(method, pair[1], f"at {pair[0]:g}")
            for pair in files.neighbours(method)
        )
        score = _score_cell(method, best, _metric(method).title)
        rows.append((Cell(key), Cell(values, note), score, *beside, tail))
    return Table(
        title="Chosen values",
        header=("run", "values", "score", "next lower", "next higher", "diverged"),
        rows=tuple(rows),
        caption="Next lower and higher: the trials beside the chosen one in the first number that "
        "was searched; in brackets, where it was stopped early, at fewer steps.",
        extra=1,
    )


def trial_table(task: str, methods: Methods) -> Table:
    """Return every trial of a task, the best of each method first; a column per searched value."""
    paths = list(dict.fromkeys(path for method in methods.values() for path in method["space"]))
    last = [path.rpartition(".")[2] for path in paths]
    names = [n if last.count(n) == 1 else path for n, path in zip(last, paths, strict=True)]
    rows = []
    for name, method in methods.items():

        def place(trial: TrialRecord, method: MethodRecord = method) -> tuple[bool, int, float]:
            less = method["metric"] in files.LESS_IS_BETTER
            score = 0.0 if trial["score"] is None else float(trial["score"])
            return trial["score"] is None, -trial["steps"], score if less else -score

        rows += [
            (
                Cell(f"{name}.{trial['trial']:03d}"),
                *(_value_cell(trial["values"], path) for path in paths),
                Cell(f"{trial['steps']:,}", value=trial["steps"]),
                _score_cell(method, trial, best=trial["trial"] == method["chosen"]),
                Cell(ENDS[trial["status"]]),
            )
            for trial in sorted(method["trials"], key=place)
        ]
    titles = {_metric(method).title for method in methods.values()}
    header = ("trial", *names, "steps", titles.pop() if len(titles) == 1 else "score", "end")
    return Table(f"{task}: trials", header, tuple(rows), "In bold: chosen.")


def _value_cell(values: Mapping[str, Value], path: str) -> Cell:
    """Return a searched value; "–" where a method was not searched for it."""
    value = values.get(path)
    if path not in values:
        return Cell("–")
    if value is None or isinstance(value, bool | str):
        return Cell(str(value))
    return Cell(f"{value:g}", value=value)


def curves(methods: Methods) -> Drawing:
    """Draw score over value, a row for each method, a column for each searched value."""
    columns = max(len(method["space"]) for method in methods.values())
    figure, axes = style.panels(len(methods), columns, height=1.9)
    names = shortened((look(name, methods).label for name in methods), LONGEST)
    for row, title, (name, method) in zip(axes, names, methods.items(), strict=True):
        heights = _heights(method["trials"], _metric(method))
        for panel, path in zip(row, method["space"], strict=False):
            _draw(panel, method, path, heights, look(name, methods).color)
        for panel in row[len(method["space"]) :]:
            panel.remove()
        row[0].set_title(in_figure(title))
        row[0].set_ylabel(_metric(method).title)
    shown: dict[str, Any] = {"color": "#333333", "linestyle": ""}
    handles = [
        Line2D([], [], marker="o", **shown),
        Line2D([], [], marker="o", markerfacecolor="none", **shown),
        Line2D([], [], marker="x", **shown),
        Line2D([], [], marker="*", markersize=11, **shown),
    ]
    kinds = [*ENDS.values(), "chosen"]
    figure.legend(handles, kinds, loc="outside upper center", ncols=4)
    return style.drawing(figure)


def _heights(trials: Sequence[TrialRecord], metric: Metric) -> np.ndarray:
    """Return the score of each trial as it is drawn, NaN where it diverged."""
    scores = [np.nan if t["score"] is None else float(t["score"]) for t in trials]
    return metric.factor * np.array(scores)


def _draw(panel: Axes, method: MethodRecord, path: str, heights: np.ndarray, color: str) -> None:
    drawn, trials = method["space"][path], method["trials"]
    if drawn.get("type") == "Choice":
        options = drawn["options"]
        places = np.array([float(options.index(t["values"][path])) for t in trials])
        names = [in_figure(option) for option in shortened(options, 18)]
        panel.set_xticks(range(len(options)), names)
        panel.set_xlim(-0.5, len(options) - 0.5)
    else:
        places = np.array([float(str(t["values"][path])) for t in trials])
        if drawn.get("type") == "LogUniform":
            panel.set_xscale("log")
        panel.set_xlim(*sorted((drawn["low"], drawn["high"])))
    panel.set_xlabel(in_figure(path.rpartition(".")[2]))
    panel.margins(y=0.13)
    finished = np.array([trial["status"] == "finished" for trial in trials])
    stopped = np.array([trial["status"] == "stopped" for trial in trials])
    panel.plot(places[finished], heights[finished], "o", color=color)
    panel.plot(places[stopped], heights[stopped], "o", color=color, markerfacecolor="none")
    lost = places[~(finished | stopped)]
    if len(lost):
        bottom = panel.get_xaxis_transform()
        panel.plot(lost, np.full(len(lost), 0.05), "x", color=color, transform=bottom)
    if method["chosen"] is None:
        return
    best = trials[method["chosen"]]
    here = trials.index(best)
    if path in files.numbers(method):
        beside = [pair[1] for pair in files.neighbours(method, path) if pair is not None]
        for other in (trials.index(trial) for trial in beside if trial["status"] == "finished"):
            ends = [here, other]
            panel.plot(places[ends], heights[ends], "-", color=color, linewidth=1.2)
    panel.plot(places[here], heights[here], "*", color=color, markersize=13)


def _metric(method: MethodRecord) -> Metric:
    return METRICS[method["task"]].get(method["metric"]) or Metric(method["metric"])


def _score_cell(
    method: MethodRecord, trial: TrialRecord, note: str = "", best: bool = False
) -> Cell:
    """Return a trial's score; the note says where it was stopped early, as brackets do."""
    value = None if trial["score"] is None else _metric(method).factor * float(trial["score"])
    return Cell(_score(method, trial), note, best, value)


def _score(method: MethodRecord, trial: TrialRecord) -> str:
    if trial["score"] is None:
        return "diverged"
    written = _metric(method).write(float(trial["score"]))
    return f"({written})" if trial["status"] == "stopped" else written
