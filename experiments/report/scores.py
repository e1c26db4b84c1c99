"""The section of final metrics: a table per task, a row per method and per baseline."""

from collections.abc import Mapping
from typing import Any

from experiments.report import results
from experiments.report.page import Cell, Section, Table, Text
from experiments.report.results import AS_IN_PAPERS, METRICS, Grid, Group, Metric
from experiments.report.style import look

KINDS = {
    "classification": "image classification",
    "segmentation": "semantic segmentation",
    "super_resolution": "super-resolution",
}

SETTINGS = ("learning_rate", "momentum", "clip_level", "smoothness")
"""The optimizer's fields that the score table shows."""


def section(grid: Grid) -> Section:
    """Return the section of final metrics, a table per task."""
    text = (
        "Final metrics on held-out examples, at each method's own evaluation point: mean ± sample "
        "standard deviation over the seeds whose runs finished. Bold is the best mean of a column "
        "among methods none of whose runs diverged; where all are equal or zero, none is bold. "
        "Methods are sorted by the first column; those with diverged runs come last. "
        "Where means differ by less than the spreads, the order says little. This page does not "
        "know how learning rates and other settings were chosen: where by scores on these very "
        "examples, the scores flatter every method."
    )
    return Section("Scores", (Text(text), *tables(grid)))


def tables(grid: Grid) -> list[Table]:
    """Return a table per task, and of super-resolution another as papers have it."""
    found = ((score_table(groups), paper_table(groups)) for groups in grid.values())
    return [table for tables in found for table in tables if table is not None]


def score_table(groups: Mapping[str, Group]) -> Table:
    """Return the table of one task: a row per method, the best first, then one per baseline."""
    groups = results.ranked(groups)
    first = next(iter(groups.values()))
    metrics = METRICS[first.kind]
    rows = [
        (Cell(look(method, groups).label, _settings(group)), *cells, *_counts(group))
        for (method, group), cells in zip(groups.items(), _scores(groups, metrics), strict=True)
    ]
    rows += [(*row, *[Cell("")] * 3) for row in _baseline_rows(groups, metrics)]
    return Table(
        title=f"{first.title}: {KINDS[first.kind]}",
        header=("method", *_titles(metrics), "finished", "images/s", "s per run"),
        rows=tuple(rows),
        caption=_workload(groups),
        extra=2,
    )


def paper_table(groups: Mapping[str, Group]) -> Table | None:
    """Return the table of super-resolution as papers report it; None where no run measured that."""
    measured = {n: m for n, m in AS_IN_PAPERS.items() if any(g.score(n) for g in groups.values())}
    if not measured:
        return None
    groups = results.ranked(groups, next(iter(AS_IN_PAPERS)))
    labels = [Cell(look(method, groups).label) for method in groups]
    rows = [(label, *c) for label, c in zip(labels, _scores(groups, AS_IN_PAPERS), strict=True)]
    return Table(
        title=f"{next(iter(groups.values())).title}: as papers report it",
        header=("method", *_titles(AS_IN_PAPERS)),
        rows=(*rows, *_baseline_rows(groups, AS_IN_PAPERS)),
        caption="Means over pictures, of outputs rounded to 8 bits, without a border as wide as "
        "the scale; Y is that of BT.601. Pictures too small for that have none.",
    )


def _titles(metrics: Mapping[str, Metric]) -> list[str]:
    return [metric.title for metric in metrics.values()]


def _scores(groups: Mapping[str, Group], metrics: Mapping[str, Metric]) -> list[list[Cell]]:
    """Return the cells of each method, the best of each metric marked."""
    best = {name: results.best(groups, name, metric) for name, metric in metrics.items()}
    return [
        [
            metric.cell(group.score(name), best=method in best[name])
            for name, metric in metrics.items()
        ]
        for method, group in groups.items()
    ]


def _baseline_rows(
    groups: Mapping[str, Group], metrics: Mapping[str, Metric]
) -> list[tuple[Cell, ...]]:
    return [
        (
            Cell(label, note="no learning"),
            *(
                Cell(m.write(values[n]), value=m.factor * values[n]) if n in values else Cell("–")
                for n, m in metrics.items()
            ),
        )
        for label, values in _baselines(groups, metrics).items()
    ]


def _counts(group: Group) -> tuple[Cell, ...]:
    """Return how many runs finished, how fast and how long they were."""
    rate, seconds = group.mean("images_per_second"), group.mean("wall_time")
    return (
        Cell(
            f"{len(group.finished)} of {len(group.runs)}",
            note=f"{group.diverged} diverged" if group.diverged else "",
        ),
        Cell("–" if rate is None else f"{rate:,.0f}", value=rate),
        Cell("–" if seconds is None else f"{seconds:.1f}", value=seconds),
    )


def _baselines(
    groups: Mapping[str, Group], metrics: Mapping[str, Metric]
) -> dict[str, dict[str, float]]:
    """Return baseline's label -> metric's name -> value."""
    found: dict[str, dict[str, float]] = {}
    for name in metrics:
        for label, value in results.baselines(groups, name).items():
            found.setdefault(label, {})[name] = value
    return found


def _settings(group: Group) -> str:
    """Return the optimizer's rates, and the kind of clipping where it is not the global norm's.

    Of an optimizer that is a text, this text, or its label, and its values.
    """
    optimizer: Mapping[str, Any] = {**group.runs[0].summary["config"]["optimizer"]}
    if "text" in optimizer:
        values = ", ".join(f"{name} {value:g}" for name, value in optimizer["rates"].items())
        said = optimizer.get("label") or optimizer["text"]
        return f"{said}: {values}" if values else said
    kind = {"value": " per coordinate", "tensor_norm": " per tensor"}.get(
        str(optimizer.get("clip")), ""
    )
    return ", ".join(
        f"{name.replace('_', ' ')} {optimizer[name]:g}" + (kind if name == "clip_level" else "")
        for name in SETTINGS
        if optimizer.get(name) is not None
    )


def _workload(groups: Mapping[str, Group]) -> str:
    """Say which network was trained for how long; a diverged run does not know how long."""
    runs = [run for group in groups.values() for run in group.runs]
    config = runs[0].summary["config"]
    said = f"{config['model']['type']}, batches of {config['batch_size']}"
    for run in [run for run in runs if not run.diverged][:1]:
        said += f", {run.summary['steps']:,} steps, {run.summary['num_params']:,} parameters"
    return said + "."
