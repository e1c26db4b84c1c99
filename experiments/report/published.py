"""The section that sets the published scores beside those of a grid."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

from experiments.report import results
from experiments.report.page import Cell, Part, Section, Table, Text
from experiments.report.reference import REFERENCES, SOURCES, THESIS, Reference
from experiments.report.results import METRICS, Grid, Group
from experiments.report.style import look
from experiments.setup import config as configs
from experiments.setup import config_files


def own_data(grid: Grid) -> bool:
    """Return whether a grid has runs on data that the references are about."""
    names = {name for found in REFERENCES.values() for one in found for name in one.datasets}
    return any(run.summary["dataset"] in names for run in results.runs(grid))


def section(grid: Grid) -> Section:
    """Return the section that sets the published scores beside those of a grid."""
    parts: list[Part] = [Text(SOURCES)]
    for groups in grid.values():
        parts += [table(groups), *map(Text, remarks(groups))]
    return Section("Beside the thesis", tuple(parts))


def table(groups: Mapping[str, Group]) -> Table:
    """Return what was run here and there, then the scores, a row per method, the best first."""
    groups = results.ranked(groups)
    first = next(iter(groups.values()))
    references = REFERENCES[first.kind]
    name, metric = next(iter(METRICS[first.kind].items()))
    facts = {
        "data set": (_dataset(first), *(one.data for one in references)),
        "network": (network(first), *(one.network for one in references)),
        "length": (length(groups), *(one.length for one in references)),
        "status": (_status(groups), *(one.status for one in references)),
    }
    rows = [tuple(map(Cell, (fact, *said))) for fact, said in facts.items()]
    for method, group in groups.items():
        score = group.score(name)
        notes = [
            f"{label} {METRICS[first.kind][other].write(found.mean)}"
            for other, label in (("top5", "top-5"), ("loss", "loss"))
            if first.kind == "classification" and (found := group.score(other)) is not None
        ]
        ours = metric.cell(score, "\n".join(notes))
        theirs = (
            Cell(one.scores.get(_method(group), "–"), one.notes.get(_method(group), ""))
            for one in references
        )
        rows.append((Cell(look(method, groups).label), ours, *theirs))
    orders = [order(groups), *(_published_order(one, groups) for one in references)]
    rows.append(tuple(map(Cell, ("order", *(" > ".join(found) or "–" for found in orders)))))
    return Table(
        title=f"{first.title}: {metric.title}, here and published",
        header=("", "here", *(one.source for one in references)),
        rows=tuple(rows),
        wraps=True,
    )


def remarks(groups: Mapping[str, Group]) -> list[str]:
    """Say whether the numbers can be compared, and how far the orders of the methods agree."""
    first = next(iter(groups.values()))
    said = []
    for one in REFERENCES[first.kind]:
        words = [
            f"{one.source}:" if one.source != THESIS else "The thesis:",
            comparable(first, one),
        ]
        theirs = _published_order(one, groups)
        ours = [label for label in order(groups) if label in theirs]
        if len(ours) > 1:
            pairs = list(itertools.combinations(ours, 2))
            alike = sum(theirs.index(a) < theirs.index(b) for a, b in pairs)
            words.append(
                f"The first of these methods is {ours[0]} here{_margin(groups, *ours[:2])} and "
                f"{theirs[0]} there; of {len(pairs)} pairs of methods {alike} are in the same "
                f"order, where chance alone would make it {len(pairs) / 2:g}."
            )
        said.append(" ".join(words))
    return said + _below_bicubic(groups)


def comparable(group: Group, one: Reference) -> str:
    """Say whether the numbers of a run can be compared with published ones."""
    if not _same_data(group, one):
        return (
            f"the data sets differ ({_dataset(group)} here, {one.data} there), so the numbers "
            "cannot be compared; at most the order of the methods can."
        )
    config = group.runs[0].summary["config"]
    model, pretrained = config["model"], bool(config.get("pretrained"))
    if model["type"] != one.model or _changes(model) or pretrained != one.pretrained:
        return (
            "the same data set but not the same network, so the numbers cannot be compared; at "
            "most the order of the methods can."
        )
    return "the same data set and network; lengths and settings may differ, see the table."


def order(groups: Mapping[str, Group]) -> list[str]:
    """Return the methods' labels, the best mean first; without those that had a run diverge."""
    name = next(iter(METRICS[next(iter(groups.values())).kind]))
    scores = {
        look(method, groups).label: score.mean
        for method, group in groups.items()
        if not group.diverged and (score := group.score(name)) is not None
    }
    return sorted(scores, key=lambda label: -scores[label])


def _published_order(one: Reference, groups: Mapping[str, Group]) -> list[str]:
    found = {
        look(method, groups).label: float(one.scores[_method(group)])
        for method, group in groups.items()
        if _method(group) in one.scores
    }
    if len({_method(group) for group in groups.values()}) < len(groups):
        return []  # a sweep: several rows are one method
    return sorted(found, key=lambda label: -found[label])


def _margin(groups: Mapping[str, Group], best: str, next_best: str) -> str:
    """Say where the best two of ours are not told apart by their seeds."""
    name = next(iter(METRICS[next(iter(groups.values())).kind]))
    by_label = {look(method, groups).label: group.score(name) for method, group in groups.items()}
    first, second = by_label[best], by_label[next_best]
    assert first is not None  # `order` holds methods with scores only
    assert second is not None
    if first.spread is None or second.spread is None:
        return " (with one seed)"
    tie = first.mean - second.mean <= math.hypot(first.spread, second.spread)
    return f" (within the seeds' spread of {next_best})" if tie else ""


def _below_bicubic(groups: Mapping[str, Group]) -> list[str]:
    """Say that published PSNRs are below what needs no learning; no word where they are not."""
    bicubic = results.baselines(groups, "psnr").get(results.BASELINES["bicubic"])
    (one,) = REFERENCES["super_resolution"]
    if bicubic is None or max(map(float, one.scores.values())) >= bicubic:
        return []
    same = _same_data(next(iter(groups.values())), one)
    return [
        "The thesis's PSNR is by its formula that of all pixels and channels, as here, but its "
        f"values are below those of bicubic interpolation ({bicubic:.2f} dB here, on "
        f"{'the same data' if same else 'other data'}), of which it says nothing."
    ]


# -- What was run here ----------------------------------------------------------------------------


def network(group: Group) -> str:
    """Return the network of a method's runs and the fields in which it is not the published one."""
    config = group.runs[0].summary["config"]
    model = config["model"]
    said = [model["type"], *_changes(model)]
    if config.get("pretrained"):
        said.append("pretrained")
    return ", ".join(said)


def _changes(model: Mapping[str, Any]) -> list[str]:
    """Return the fields that are not their defaults, which are the published networks."""
    standard = config_files.to_json(getattr(configs, model["type"])())
    return [
        f"{name.replace('_', ' ')} {value}"
        for name, value in model.items()
        if name not in ("type", "dtype") and value != standard.get(name)
    ]


def length(groups: Mapping[str, Group]) -> str:
    """Return for how long the methods were trained."""
    found = {}
    for group in groups.values():
        for run in group.finished[:1]:
            summary = run.summary
            said = f"{summary['steps']:,} steps of {summary['config']['batch_size']}"
            if summary.get("num_train"):
                said += f" ({summary['examples'] / summary['num_train']:.3g} epochs)"
            found[said] = None
    return ", ".join(found) or "–"


def _status(groups: Mapping[str, Group]) -> str:
    seeds = {run.seed for group in groups.values() for run in group.runs}
    return f"measured, {len(seeds)} {'seed' if len(seeds) == 1 else 'seeds'}"


def _dataset(group: Group) -> str:
    """Return the data set of a method's runs, and what of it where that is not the usual part."""
    config = group.runs[0].summary["config"]
    said = group.runs[0].summary["dataset"]
    if config.get("train_split", "train") != "train":
        said += f", trained on {config.get('train_split')}"
    if other := " ".join(filter(None, map(config.get, ("evaluation_dataset", "evaluation_split")))):
        said += f", evaluated on {other}"
    return said


def _same_data(group: Group, one: Reference) -> bool:
    summary = group.runs[0].summary
    evaluated = summary["config"].get("evaluation_dataset") or summary["dataset"]
    return summary["dataset"] in one.datasets and evaluated in one.datasets


def _method(group: Group) -> str:
    return group.runs[0].summary["method"]
