"""How the demo's learning rates were found: four for each task and method, one seed, one budget.

python -m experiments.compare --config configs/demo_sweep.py --workdir runs/demo_sweep

results/demo_sweep.txt is the table that it printed.
"""

import dataclasses

from configs.demo import TASKS, optimizer
from experiments.config import Grid

# Four rates, a factor of about 3 apart; ranges were moved until the best did not lie at an edge,
# but for two in super-resolution: SGD does not get beyond bicubic, the lower its rate the closer;
# and clipped-SSTM gains ever less by higher ones, as nearly every step is clipped.
LEARNING_RATES = {
    "classification": {
        "sgd": (0.01, 0.03, 0.1, 0.3),
        "clipped_sgd": (0.03, 0.1, 0.3, 1.0),
        "clipped_sstm": (0.03, 0.1, 0.3, 1.0),
        "adam": (0.003, 0.01, 0.03, 0.1),
    },
    "segmentation": {
        "sgd": (0.03, 0.1, 0.3, 1.0),
        "clipped_sgd": (0.1, 0.3, 1.0, 3.0),
        "clipped_sstm": (1.0, 3.0, 10.0, 30.0),
        "adam": (0.001, 0.003, 0.01, 0.03),
    },
    "super_resolution": {
        "sgd": (0.0003, 0.001, 0.003, 0.01),
        "clipped_sgd": (1.0, 3.0, 10.0, 30.0),
        "clipped_sstm": (30.0, 100.0, 300.0, 1000.0),
        "adam": (0.0003, 0.001, 0.003, 0.01),
    },
}

config = Grid(
    {
        f"{task}/{method}_{learning_rate:g}": dataclasses.replace(
            TASKS[task], optimizer=optimizer(method, task, learning_rate)
        )
        for task, methods in LEARNING_RATES.items()
        for method, rates in methods.items()
        for learning_rate in rates
    },
    seeds=(100,),
)
