r"""ImageNet-100, ResNet-18, SGD, as published after the thesis.

python -m experiments.train --config configs/imagenet100_successor_sgd.py \
    --workdir runs/imagenet100_successor_sgd

Gorbunov et al. 2021 (arXiv 2106.05958), read off their figure: top-1 68.0 % after 30 epochs. Not
run at full size here. --small: the same method for 100 steps on embedded data.
"""

import dataclasses

from configs.thesis import full, reduced
from experiments.config import SGD, Duration

OPTIMIZER = SGD(0.01, momentum=0.9)

config = dataclasses.replace(
    full("imagenet100", "sgd"),
    optimizer=OPTIMIZER,
    batch_size=32,
    duration=Duration(epochs=30),
    evaluate_every=Duration(epochs=1),
    checkpoint_every=Duration(epochs=1),
)
small = dataclasses.replace(reduced("imagenet100", "sgd"), optimizer=OPTIMIZER)
