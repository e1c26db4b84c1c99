"""Does SGD gain from noise that falls? Seven ways to let it fall (or not), three data sets.

    python -m experiments.prepare --dataset fashion_mnist
    python -m experiments.prepare --dataset cifar100
    python -m experiments.compare --config configs/graduated.py --workdir runs/graduated
    python -m experiments.report --workdir runs/graduated

SGD without momentum, five stages of equally many examples, the same number of examples for every
method of a data set. "lr", "batch" and "hybrid" multiply the noise level by 1/sqrt(2) from stage to
stage, as in the paper's CIFAR-100 experiment: by the learning rate (x 0.7071), by the batch (x 2),
or by both (x 0.8660 and x 1.5). "poly_P" is polynomial decay with power P, split as in "hybrid".

Everything is small: 35 runs of each data set, 105 in all, take about 20 minutes of one CPU core
(XLA_FLAGS=--xla_cpu_multi_thread_eigen=false keeps to one). Networks are narrow, training lasts 1
to 30 epochs. `cifar100` is whatever was prepared under that name; results/graduated.txt is of a
subset of 8,000 training and 2,000 test images (80 and 20 a class).
configs/cifar100_graduated.py is the paper's setting.

What is run is described in configs/graduated_tuning.py. The first learning rate of each plan is the
best of six there, on a part of the training split: what falling noise gains is not owed to a rate
that was too high for constant noise.
"""

from pathlib import Path

from configs.graduated_tuning import RUNS
from experiments.config import Grid, with_chosen

TUNED = Path(__file__).parents[1] / "results" / "graduated_tuning.json"

config = Grid(with_chosen(RUNS, TUNED), seeds=(0, 1, 2, 3, 4))
