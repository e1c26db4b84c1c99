"""What segmentation makes of each class: the table of intersections over union."""

from collections.abc import Mapping, Sequence

from experiments.report import results
from experiments.report.page import Cell, Section, Table, Text
from experiments.report.results import METRICS, Grid, Group, class_metric, class_name
from experiments.report.style import look

FEW = 6
"""Methods that find room as columns."""

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

    Many methods are the rows, since their names would make the columns too wide. Methods are sorted
    by their mean, the best first.
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
    title = f"{first.title}: IoU per class"
    names = [look(method, groups).label for method in groups]
    cells = [_row(groups, f"{CLASS_IOU}_{k}") for k in classes]
    mean = _row(groups, "mean_iou")
    if len(groups) > FEW:
        columns = zip(names, mean, *cells, strict=True)
        rows = [_shares(classes, shares), *((Cell(name), *row) for name, *row in columns)]
        header = ("method", "mean", *(class_name(first, k) for k in classes))
        return Table(title, header, tuple(rows))
    rows = [
        (Cell(class_name(first, k), _share(shares.get(k), " of the pixels")), *row)
        for k, row in zip(classes, cells, strict=True)
    ]
    return Table(title, ("class", *names), (*rows, (Cell("mean"), *mean)))


def _shares(classes: Sequence[int], shares: Mapping[int, float]) -> tuple[Cell, ...]:
    """Return the row of the classes' shares, in percent."""
    found = (Cell(_share(shares.get(k)), value=100 * shares.get(k, 0.0)) for k in classes)
    return Cell("share of the pixels (%)"), Cell(""), *found


def _share(share: float | None, of: str = "") -> str:
    return f"{100 * share:.2g} %{of}" if share else "not in the truth"


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
