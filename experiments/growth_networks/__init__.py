"""The networks of the source of the generalised logistic loss, on MNIST and Fashion-MNIST.

    python -m experiments.growth_networks --dataset mnist --workdir runs/growth_mnist
    python -m experiments.growth_networks --dataset fashion_mnist --workdir runs/growth_fashion
    python -m experiments.growth_networks --dataset digits --workdir runs/growth --small

Kulikovskikh, Computer Optics 44(2), 2020: 784-10-10-10 with the curve (10) as activation in hidden
and output layers, SGD, batches of 25, 5-fold cross-validation; (a, b, r) by random search over 15 %
of 500 combinations, judged after one iteration; then 1,000 iterations of the best and of the
default (0, 1, 1). Figures 2 and 3, the gains in accuracy and the growth of the validation loss, and
what the source lacks: the default with another learning rate. r is a step size (`networks`), so
what is it that the search finds?

- `networks`: one network and one step;
- `simulate`: all folds, seeds and combinations by `jax.vmap` in one compiled program;
- `stages`: a run that goes on after a kill to the same bits;
- `experiment`: search, comparison, summary.json;
- `experiments.report.growth_networks`: the page.
"""

from experiments.growth_networks.config import Arm, Config, small
from experiments.growth_networks.experiment import load, run

__all__ = ["Arm", "Config", "load", "run", "small"]
