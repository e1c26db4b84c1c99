"""How the learning rates of configs/graduated.py were found: four for constant SGD, one seed.

python -m experiments.compare --config configs/graduated_sweep.py --workdir runs/graduated_sweep

results/graduated_sweep.txt is the table that it printed.
"""

from configs.graduated import run
from experiments.config import Grid

# Four rates, a factor of about 3 apart; ranges were moved until the best did not lie at an edge.
LEARNING_RATES = {
    "digits": (0.1, 0.3, 1.0, 3.0),
    "fashion_mnist": (0.03, 0.1, 0.3, 1.0),
    "cifar100": (0.03, 0.1, 0.3, 1.0),
}

config = Grid(
    {
        f"{name}/constant_{learning_rate:g}": run(name, "constant", learning_rate)
        for name, rates in LEARNING_RATES.items()
        for learning_rate in rates
    },
    seeds=(100,),
)
