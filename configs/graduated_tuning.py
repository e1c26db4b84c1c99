"""The first learning rate of each plan of configs/graduated.py, searched: six trials each.

python -m experiments.tune --config configs/graduated_tuning.py --workdir runs/graduated_tuning

Every plan has a search of its own, constant noise too: a rate that is good for one need not be for
another. Trials run to their end, since a plan cannot be judged before its noise has fallen; they
are scored on a fifth of the training split.
"""

from configs.graduated import METHODS, TASKS, run
from experiments.config import LogUniform, Search

# A factor of 30, in whose middle the best rates of an earlier sweep for constant noise lay.
RANGES = {"digits": (0.1, 3.0), "fashion_mnist": (0.03, 1.0), "cifar100": (0.03, 1.0)}

config = Search(
    {f"{name}/{method}": run(name, method, 0.1) for name in TASKS for method in METHODS},
    {f"{name}/*": {"optimizer.learning_rate": LogUniform(*RANGES[name])} for name in TASKS},
    trials=6,
    seeds=(100,),
    holdout=0.2,
)
