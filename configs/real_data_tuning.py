"""The values of configs/real_data.py, searched with one budget: six trials each. NOT RUN.

python -m experiments.tune --config configs/real_data_tuning.py --workdir runs/real_data_tuning

It would take about an hour and a half on two CPU cores, by the seconds of
results/real_data_sweep.txt. The rates that configs/real_data.py uses are still those of that sweep,
which were chosen on the evaluation data. Here trials are scored on a fifth of the training split;
a third of them is trained on after a third of the steps.
"""

import dataclasses

from configs.real_data import TASKS
from experiments.config import (
    SGD,
    Adam,
    Choice,
    ClippedSGD,
    ClippedSSTM,
    LogUniform,
    Search,
)

METHODS = {
    "sgd": SGD(0.1, momentum=0.9),
    "adam": Adam(0.001),
    "clipped_sgd": ClippedSGD(0.1, 1.0, momentum=0.9),
    "clipped_sstm": ClippedSSTM(0.1, smoothness=10.0, clip_level=1.0),
}

# Photographs evaluated on other photographs are trained by the same runs.
SEARCHED = ("classification", "segmentation", "segmentation_from_scratch", "super_resolution")

CLIPPING = {
    "optimizer.clip_level": LogUniform(1e-4, 10.0),
    "optimizer.clip": Choice("global_norm", "value"),
}
SPACE = {
    "*/sgd": {
        "optimizer.learning_rate": LogUniform(1e-4, 1.0),
        "optimizer.momentum": Choice(0.0, 0.9),
    },
    "*/adam": {
        "optimizer.learning_rate": LogUniform(1e-5, 1e-2),
        "optimizer.b1": Choice(0.8, 0.9),
    },
    "*/clipped_sgd": {"optimizer.learning_rate": LogUniform(1e-3, 1e2)} | CLIPPING,
    "*/clipped_sstm": {"optimizer.learning_rate": LogUniform(1e-2, 1e4)} | CLIPPING,
}

config = Search(
    {
        f"{task}/{method}": dataclasses.replace(TASKS[task], optimizer=optimizer)
        for task in SEARCHED
        for method, optimizer in METHODS.items()
    },
    SPACE,
    trials=6,
    seeds=(100,),
    holdout=0.2,
    rungs=2,
    reduction=3,
)
