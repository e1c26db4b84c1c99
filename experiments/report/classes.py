"""What segmentation makes of each class: the table of intersections over union."""

from collections.abc import Mapping

from experiments.report import results
from experiments.report.page import Cell, Section, Table, Text
from experiments.report.results import METRICS, Grid, Group, class_metric, class_name
from experiments.report.style import look

CLASS_IOU = "iou"
"""Metrics called iou_3 are the intersection over union of class 3."""


def section(grid: Grid) -> list[Section]:
    """Return the section of single classes, a table per task; none where no run measured them."""
    made = tables(grid)
    if not made:
        return []
    text = (
        "Mean ± sample standard deviation over the seeds whose runs finished; below each class its "
        "share of the labelled pixels of the truth. Bold is the best mean of a class among methods "
        "none of whose runs diverged; where all are equal or zero, none is bold. Classes that are "
        "neither in the truth nor predicted are left out, here and in the mean."
    )
    return [Section("IoU per class", (Text(text), *made))]


def tables(grid: Grid) -> list[Table]:
    """Return a table per task whose runs measured single classes."""
    return [table for groups in grid.values() if (table := iou_table(groups)) is not None]


def iou_table(groups: Mapping[str, Group]) -> Table | None:
    """Return the table of one task, a row per class and a column per method; None without any.

    Methods are sorted by their mean, the best first.
    """
    groups = results.ranked(groups, "mean_iou")
    scores = {method: class_metric(group, CLASS_IOU) for method, group in groups.items()}
    classes = sorted({k for found in scores.values() for k in found})
    if not classes:
        return None
    shares = {
        k: score.mean
        for group in groups.values()
        for k, score in class_metric(group, "share").items()
    }
    first = next(iter(groups.values()))
    rows = []
    for k in classes:
        share = shares.get(k)
        note = f"{100 * share:.2g} % of the pixels" if share else "not in the truth"
        rows.append((Cell(class_name(first, k), note), *_row(groups, f"{CLASS_IOU}_{k}")))
    rows.append((Cell("mean"), *_row(groups, "mean_iou")))
    return Table(
        title=f"{first.title}: IoU per class",
        header=("class", *(look(method, groups).label for method in groups)),
        rows=tuple(rows),
    )


def _row(groups: Mapping[str, Group], name: str) -> list[Cell]:
    """Return each method's score, the best marked."""
    metric = METRICS["segmentation"]["mean_iou"]
    best = results.best(groups, name, metric)
    cells = []
    for method, group in groups.items():
        score = group.score(name)
        if score is None:
            cells.append(Cell("–"))
            continue
        # A class that is not in the truth has a score in the runs that predict it.
        some = score.count < len(group.finished)
        cells.append(
            metric.cell(
                score,
                note=f"{score.count} of {len(group.finished)} runs" if some else "",
                best=method in best,
            )
        )
    return cells
