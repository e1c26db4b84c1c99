"""The paper's own setting of graduated optimisation: ResNet-18 on CIFAR-100, 200 epochs of SGD.

python -m experiments.compare --config configs/cifar100_graduated.py --workdir runs/cifar100

NOT RUN: 12 runs of 200 epochs of a full-width ResNet-18 ask for a GPU, and there was none. The
narrow form of it that was run is configs/graduated.py.

As in the authors' code (github.com/naoki-sato3/new-sigma-nice): SGD without momentum, learning
rate 0.1, the noise level x 1/sqrt(2) every 40 of 200 epochs, by the learning rate (x 0.7071), the
batch (x 2) or both (x 0.8660, x 1.5). The first batch of 128 is recalled, unconfirmed. What
differs: the authors also turn images by up to 15 degrees, here they are mirrored and shifted by up
to 4 pixels; and BatchNorm sees 64 examples at a time, in every stage of every method, where
theirs sees whatever the batch is.
"""

import dataclasses

from configs.graduated_tuning import METHODS
from experiments.config import SGD, Duration, Grid, ResNet18, Run

base = Run(
    task="classification",
    dataset="cifar100",
    model=ResNet18(stem="small"),
    optimizer=SGD(0.1),
    batch_size=128,
    accumulation=2,
    duration=Duration(epochs=200),
    log_every=50,
    evaluate_every=Duration(epochs=2),
    checkpoint_every=Duration(epochs=10),
)

config = Grid(
    {
        f"cifar100/{method}": dataclasses.replace(base, graduated=METHODS[method])
        for method in ("constant", "lr", "batch", "hybrid")
    },
    seeds=(0, 1, 2),
)
