"""The demo's four methods on its three tasks, searched with one budget: 16 trials each.

python -m experiments.tune --config configs/demo_tuning.py --workdir runs/demo_tuning

Every method has its learning rate and the values that its authors leave open: momentum for SGD, b1
for Adam, kind and level of clipping for the clipped methods. Methods with more values are searched
more thinly, which is the price of having them. Spaces are the same for all tasks. Trials are scored
on a fifth of the training split; a third of them is trained on after a third of the steps.
"""

import dataclasses

from configs.demo import TASKS
from experiments.config import (
    SGD,
    Adam,
    Choice,
    ClippedSGD,
    ClippedSSTM,
    LogUniform,
    Search,
)

# The learning rates and levels that stand here are replaced in every trial.
METHODS = {
    "sgd": SGD(0.1, momentum=0.9),
    "adam": Adam(0.01),
    "clipped_sgd": ClippedSGD(0.1, 1.0, momentum=0.9),
    "clipped_sstm": ClippedSSTM(0.1, smoothness=10.0, clip_level=1.0),
}

# Of momentum, b1 and the kind of clipping each value is a compilation, so there are few.
CLIPPING = {
    "optimizer.clip_level": LogUniform(1e-4, 10.0),
    "optimizer.clip": Choice("global_norm", "value"),
}
SPACE = {
    "*/sgd": {
        "optimizer.learning_rate": LogUniform(1e-4, 1.0),
        "optimizer.momentum": Choice(0.0, 0.9, 0.95),
    },
    "*/adam": {
        "optimizer.learning_rate": LogUniform(1e-4, 1e-1),
        "optimizer.b1": Choice(0.8, 0.9, 0.95),
    },
    "*/clipped_sgd": {"optimizer.learning_rate": LogUniform(1e-2, 1e2)} | CLIPPING,
    "*/clipped_sstm": {"optimizer.learning_rate": LogUniform(1e-2, 1e3)} | CLIPPING,
}

config = Search(
    {
        f"{task}/{method}": dataclasses.replace(run, optimizer=optimizer)
        for task, run in TASKS.items()
        for method, optimizer in METHODS.items()
    },
    SPACE,
    trials=16,
    seeds=(100,),
    holdout=0.2,
    rungs=2,
    reduction=3,
)
