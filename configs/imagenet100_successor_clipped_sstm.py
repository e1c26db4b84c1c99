r"""ImageNet-100, ResNet-18, clipped-SSTM, as published after the thesis.

python -m experiments.train --config configs/imagenet100_successor_clipped_sstm.py \
    --workdir runs/imagenet100_successor_clipped_sstm

Gorbunov et al. 2021 (arXiv 2106.05958), read off their figure: top-1 68.8 % after 30 epochs. Not
run at full size here. --small: the same method for 100 steps on embedded data.
"""

import dataclasses

from configs.thesis import full, reduced
from experiments.config import ClippedSSTM, Duration

OPTIMIZER = ClippedSSTM(0.01, smoothness=10.0, clip_level=1.0, step_offset=1)

config = dataclasses.replace(
    full("imagenet100", "clipped_sstm"),
    optimizer=OPTIMIZER,
    batch_size=64,
    duration=Duration(epochs=30),
    evaluate_every=Duration(epochs=1),
    checkpoint_every=Duration(epochs=1),
)
small = dataclasses.replace(reduced("imagenet100", "clipped_sstm"), optimizer=OPTIMIZER)
