"""Sixteen methods x three vision tasks x three seeds on embedded data, tuned with one budget.

python -m experiments.compare --config configs/methods.py --workdir runs/methods

The methods are described in configs/methods_tuning.py, which found the values that they have here.
"""

from pathlib import Path

from configs.methods_tuning import RUNS
from experiments.config import Grid, with_chosen

TUNED = Path(__file__).parents[1] / "results" / "methods_tuning.json"

config = Grid(with_chosen(RUNS, TUNED), seeds=(0, 1, 2))
