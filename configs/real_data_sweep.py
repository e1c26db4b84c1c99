"""How the learning rates of configs/real_data.py were found: three each, one seed, one budget.

python -m experiments.compare --config configs/real_data_sweep.py --workdir runs/real_data_sweep

Segmentation takes 40 of its 120 steps; results/real_data_sweep.txt is the table that it printed.
"""

import dataclasses

from configs.real_data import TASKS, optimizer
from experiments.config import Duration, Grid

# A factor of about three apart; ranges were moved until the best did not lie at an edge, but for
# clipped-SSTM in super-resolution: nearly every step is clipped, and higher rates change ever less.
LEARNING_RATES = {
    "classification": {
        "sgd": (0.03, 0.1, 0.3),
        "clipped_sgd": (0.03, 0.1, 0.3),
        "clipped_sstm": (0.3, 1.0, 3.0),
        "adam": (3e-4, 1e-3, 3e-3),
    },
    "segmentation": {
        "sgd": (1e-4, 3e-4, 1e-3),
        "clipped_sgd": (3e-3, 1e-2, 3e-2),
        "clipped_sstm": (1e-2, 3e-2, 0.1),
        "adam": (3e-5, 1e-4, 3e-4),
    },
    "segmentation_from_scratch": {
        "clipped_sstm": (0.03, 0.1, 0.3),
        "adam": (1e-4, 3e-4, 1e-3),
    },
    "super_resolution": {
        "sgd": (3e-3, 1e-2, 3e-2),
        "clipped_sgd": (1.0, 3.0, 10.0),
        "clipped_sstm": (300.0, 1000.0, 3000.0),
        "adam": (3e-5, 1e-4, 3e-4),
    },
}


def shortened(task: str, method: str, learning_rate: float):
    """Return a run of the sweep."""
    run = TASKS[task]
    run = dataclasses.replace(run, optimizer=optimizer(method, task, learning_rate))
    if run.task != "segmentation":
        return run
    return dataclasses.replace(run, duration=Duration(steps=40))


config = Grid(
    {
        f"{task}/{method}_{learning_rate:g}": shortened(task, method, learning_rate)
        for task, methods in LEARNING_RATES.items()
        for method, rates in methods.items()
        for learning_rate in rates
    },
    seeds=(100,),
)
