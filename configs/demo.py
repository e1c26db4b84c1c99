"""The demo: four methods x three vision tasks x three seeds on embedded real data.

make demo    (or: python -m experiments.compare --config configs/demo.py --workdir runs/demo)

5 to 12 minutes on two CPU cores, packages installed; results/demo.txt has the scores. What is run
is described in configs/demo_tuning.py. Learning rates, momentum, b1, kind and level of clipping are
the best of the 16 trials that each method had there for each task, on a part of the training split.
"""

from pathlib import Path

from configs.demo_tuning import RUNS
from experiments.config import Grid, with_chosen

TUNED = Path(__file__).parents[1] / "results" / "demo_tuning.json"

config = Grid(with_chosen(RUNS, TUNED), seeds=(0, 1, 2))
