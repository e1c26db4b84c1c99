"""The published scores of the same methods, to stand beside ours: data, and where they are from.

Nothing here was measured by us. `SOURCES` says who did, `Reference.status` how a number came here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SOURCES = (
    'The thesis is V. Zholobov, "Methods of gradient clipping type for problems on big data" '
    "(bachelor's thesis, in Russian), Moscow Institute of Physics and Technology, 2021: its tables "
    "1 and 2, and the table of results on its slides. arXiv 2106.05958 is Gorbunov, Danilova, "
    'Shibaev, Dvurechensky & Gasnikov 2021, "Near-optimal high probability complexity bounds for '
    'non-smooth stochastic optimization with heavy-tailed noise": it prints curves and no table, '
    "and the numbers here were read off them."
)


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
        pretrained: whether training started from pretrained weights.
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
    pretrained: bool = False


THESIS = "thesis"
PRINTED = "as printed; no spread is reported"
READ_OFF = "read off the published curves, ± 0.2; no spread is reported"
NOT_STATED = "not stated"
IMAGENET100: dict[str, Any] = {"datasets": frozenset({"imagenet100"}), "model": "ResNet18"}
LATER: dict[str, Any] = {
    **IMAGENET100,
    "data": "ImageNet-100, validation",
    "network": "ResNet-18, from scratch",
    "status": READ_OFF,
}

REFERENCES: dict[str, tuple[Reference, ...]] = {
    "classification": (
        Reference(
            THESIS,
            **IMAGENET100,
            data="ImageNet-100, split not stated",
            network="ResNet-18",
            length=f"{NOT_STATED}; near the curves of arXiv 2106.05958 after 5 epochs",
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
            **LATER,
            length="5 epochs (2e4 batches of 32)",
            scores={"sgd": "47.4", "adam": "48.7", "clipped_sgd": "51.4", "clipped_sstm": "50"},
        ),
        Reference(
            "arXiv 2106.05958, 30 epochs",
            **LATER,
            length="30 epochs (1.2e5 batches of 32)",
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
            pretrained=True,
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
            status=PRINTED,
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
