r"""ImageNet-100, ResNet-18, clipped-SGD, as published after the thesis.

python -m experiments.train --config configs/imagenet100_successor_clipped_sgd.py \
    --workdir runs/imagenet100_successor_clipped_sgd

Gorbunov et al. 2021 (arXiv 2106.05958), read off their figure: top-1 67.6 % after 30 epochs. Not
run at full size here. --small: the same method for 100 steps on embedded data.
"""

import dataclasses

from configs.thesis import full, reduced
from experiments.config import ClippedSGD, Duration

OPTIMIZER = ClippedSGD(0.05, 0.1, clip="value", momentum=0.9)

config = dataclasses.replace(
    full("imagenet100", "clipped_sgd"),
    optimizer=OPTIMIZER,
    batch_size=32,
    duration=Duration(epochs=30),
    evaluate_every=Duration(epochs=1),
    checkpoint_every=Duration(epochs=1),
)
small = dataclasses.replace(reduced("imagenet100", "clipped_sgd"), optimizer=OPTIMIZER)
