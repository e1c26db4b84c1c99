"""The published scores of the same methods, to stand beside ours.

The thesis is V. Zholobov, "Methods of gradient clipping type for problems on big data" (bachelor's
thesis, in Russian), Moscow Institute of Physics and Technology, 2021: its tables 1 and 2, and the
table of results on its slides. The later paper is Gorbunov, Danilova, Shibaev, Dvurechensky &
Gasnikov 2021, "Near-optimal high probability complexity bounds for non-smooth stochastic
optimization with heavy-tailed noise", arXiv 2106.05958: it prints curves and no table, and the
numbers here were read off them.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments import config as configs
from experiments.report import results
from experiments.report.page import Cell, Part, Section, Table, Text
from experiments.report.results import METRICS, Grid, Group
from experiments.report.style import look


@dataclass(frozen=True)
class Reference:
    """Published scores of one experiment.

    Attributes:
        source: who reports it.
        data: what it was trained and measured on.
        datasets: what these data are called in our runs.
        network: what was trained.
        model: what this network is called in our configs.
        length: for how long.
        status: how the numbers came here.
        scores: by method, in the unit of the metric that the task is judged by, as printed.
        notes: by method, other scores.
    """

    source: str
    data: str
    datasets: frozenset[str]
    network: str
    model: str
    length: str
    status: str
    scores: Mapping[str, str]
    notes: Mapping[str, str] = field(default_factory=dict)


THESIS = "thesis"
PRINTED = "as printed; no spread is reported"
READ_OFF = "read off the published curves, ± 0.2; no spread is reported"
NOT_STATED = "not stated"
IMAGENET100: dict[str, Any] = {
    "data": "ImageNet-100, validation",
    "datasets": frozenset({"imagenet100"}),
    "network": "ResNet-18, from scratch",
    "model": "ResNet18",
}

REFERENCES: dict[str, tuple[Reference, ...]] = {
    "classification": (
        Reference(
            THESIS,
            **IMAGENET100,
            length=f"{NOT_STATED}; near the later paper's curves after 5 epochs",
            status=PRINTED,
            scores={
                "sgd": "45.8",
                "adam": "47.21",
                "clipped_sgd": "52.32",
                "clipped_sstm": "47.2",
            },
        ),
        Reference(
            "arXiv 2106.05958, 5 epochs",
            **IMAGENET100,
            length="5 epochs (2e4 batches of 32)",
            status=READ_OFF,
            scores={"sgd": "47.4", "adam": "48.7", "clipped_sgd": "51.4", "clipped_sstm": "50"},
        ),
        Reference(
            "arXiv 2106.05958, 30 epochs",
            **IMAGENET100,
            length="30 epochs (1.2e5 batches of 32)",
            status=READ_OFF,
            scores={"sgd": "68.0", "adam": "69.4", "clipped_sgd": "67.6", "clipped_sstm": "68.8"},
            notes={
                "sgd": "top-5 89.1\nloss 1.21, in training 0.92",
                "adam": "top-5 89.3\nloss 1.21, in training 0.87",
                "clipped_sgd": "top-5 88.6\nloss 1.27, in training 0.87",
                "clipped_sstm": "top-5 89.4\nloss 1.22, in training 0.87",
            },
        ),
    ),
    "segmentation": (
        Reference(
            THESIS,
            data="PASCAL VOC 2012, val",
            datasets=frozenset({"voc2012_segmentation"}),
            network="FCN-32s on VGG-16, pretrained",
            model="FCN32s",
            length=NOT_STATED,
            status=PRINTED,
            scores={
                "sgd": "0.578",
                "adam": "0.466",
                "clipped_sgd": "0.576",
                "clipped_sstm": "0.549",
            },
        ),
    ),
    "super_resolution": (
        Reference(
            THESIS,
            data="DIV2K x4, validation",
            datasets=frozenset({"div2k_x4", "div2k/bicubic_x4"}),
            network="SRResNet",
            model="SRResNet",
            length=NOT_STATED,
            status=f"{PRINTED}, nor how the PSNR is computed",
            scores={
                "sgd": "17.873",
                "adam": "18.046",
                "clipped_sgd": "17.855",
                "clipped_sstm": "17.869",
            },
        ),
    ),
}
"""By kind of task."""


def own_data(grid: Grid) -> bool:
    """Return whether a grid has runs on data that the references are about."""
    names = {name for found in REFERENCES.values() for one in found for name in one.datasets}
    return any(run.summary["dataset"] in names for run in results.runs(grid))


def section(grid: Grid) -> Section:
    """Return the section that sets the published scores beside those of a grid."""
    parts: list[Part] = [Text(_source())]
    for groups in grid.values():
        parts += [table(groups), *map(Text, remarks(groups))]
    return Section("Beside the thesis", tuple(parts))


def _source() -> str:
    paragraph = (__doc__ or "").split("\n\n")[1]
    return " ".join(paragraph.split())


def table(groups: Mapping[str, Group]) -> Table:
    """Return what was run here and there, then the scores, a row per method."""
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
        notes = "; ".join(
            f"{label} {METRICS[first.kind][other].write(found.mean)}"
            for other, label in (("top5", "top-5"), ("loss", "loss"))
            if first.kind == "classification" and (found := group.score(other)) is not None
        )
        ours = Cell("–" if score is None else metric.write_score(score), notes.replace("; ", "\n"))
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
        here, theirs = order(groups), _published_order(one, groups)
        ours = [label for label in here if label in theirs]
        theirs = [label for label in theirs if label in ours]
        if len(ours) > 1:
            pairs = list(itertools.combinations(ours, 2))
            alike = sum(theirs.index(a) < theirs.index(b) for a, b in pairs)
            words.append(
                f"First here is {ours[0]}{_margin(groups, *ours[:2])}, there {theirs[0]}; of "
                f"{len(pairs)} pairs of methods {alike} are in the same order, where chance alone "
                f"would make it {len(pairs) / 2:g}."
            )
        said.append(" ".join(words))
    return said + _below_bicubic(groups)


def comparable(group: Group, one: Reference) -> str:
    """Say whether the numbers of a run can be compared with published ones."""
    if group.runs[0].summary["dataset"] not in one.datasets:
        return (
            f"the data sets differ ({_dataset(group)} here, {one.data} there), so the numbers "
            "cannot be compared, only the order of the methods."
        )
    model = group.runs[0].summary["config"]["model"]
    if model["type"] != one.model or _changes(model):
        return (
            "the same data set but not the same network, so only the order of the methods can be "
            "compared."
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
    if bicubic is None:
        return []
    largest = max(float(v) for one in REFERENCES["super_resolution"] for v in one.scores.values())
    if largest >= bicubic:
        return []
    return [
        f"The thesis's values are below what bicubic interpolation has here ({bicubic:.2f} dB, on "
        "the data above): its PSNR must be computed in another way, which it does not say."
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
    standard = configs.to_json(getattr(configs, model["type"])())
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
    return group.runs[0].summary["dataset"]


def _method(group: Group) -> str:
    return group.runs[0].summary["method"]
