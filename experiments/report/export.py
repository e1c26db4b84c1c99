"""What of a grid's results is small enough to be kept with the code: tables and curves as text."""

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.report import page, results
from experiments.report.results import AS_IN_PAPERS, METRICS, Grid, RunResult
from experiments.setup.labels import plain

KEYS = ("task", "method", "seed", "split", "step", "examples")
ALONG = ("gradient_norm", "clipped_fraction", "learning_rate")
"""What the curves hold besides the metrics of the tables."""

POINTS = 40
"""Training rows are averaged in bins so that a run has at most so many."""


def tables(made: page.Page, command: str) -> str:
    """Return a page without its figures as Markdown, below the command that wrote it."""
    return f"    $ {plain(command)}\n\n{page.to_markdown(made, None)}"


def curves(grid: Grid, command: str) -> str:
    r"""Return all curves of a grid as tab-separated values, a row per run, split and step.

    Training rows are means over neighbouring log rows, at the last one's step; a run that diverged
    ends at its last log row. Values have six digits; what a row has not is empty. Read it with
    `pandas.read_csv(path, sep="\t", comment="#")`.

    Args:
        grid: the runs.
        command: what wrote it, for the first line.
    """
    names = [name for metrics in METRICS.values() for name in metrics]
    names = list(dict.fromkeys([*names, *AS_IN_PAPERS, *ALONG]))
    rows: list[dict[str, Any]] = []
    for run in results.runs(grid):
        task, method = run.key
        head = {"task": plain(task), "method": plain(method), "seed": run.seed}
        for split in ("train", "evaluation"):
            width = _width(run) if split == "train" else 1
            found = [row for row in run.rows if row["split"] == split]
            for start in range(0, len(found), width):
                rows.append(head | {"split": split} | _mean(found[start : start + width], names))
    columns = [name for name in (*KEYS, *names) if any(name in row for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return f"# {plain(command)}\n{text.getvalue()}"


def _width(run: RunResult) -> int:
    """Return how many training rows make a bin."""
    return max(1, -(-sum(row["split"] == "train" for row in run.rows) // POINTS))


def _mean(rows: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the means of what these rows have, at the last one's step."""
    found = {name: [row[name] for row in rows if name in row] for name in names}
    means = {name: f"{np.mean(values):.6g}" for name, values in found.items() if values}
    return {key: rows[-1][key] for key in ("step", "examples")} | means
