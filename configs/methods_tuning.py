"""The values of configs/methods.py, searched with one budget: six trials for each method and task.

python -m experiments.tune --config configs/methods_tuning.py --workdir runs/methods_tuning
"""

from configs.methods import METHODS, TASKS, ranges, run
from experiments.config import LogUniform, Search

KEYS = [(task, name) for task in TASKS for name in METHODS]
config = Search(
    {f"{task}/{name}": run(task, name) for task, name in KEYS},
    {
        f"{task}/{name}": {path: LogUniform(*ends) for path, ends in ranges(task, name).items()}
        for task, name in KEYS
    },
    trials=6,
    seeds=(100,),
)
