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

The first learning rate of a data set is the best of four for *constant* SGD, on one seed
(configs/graduated_sweep.py, results/graduated_sweep.txt): what falling noise gains is not owed to
a rate that was too high.
"""

import dataclasses
import math

from experiments.config import MLP, SGD, Duration, Graduated, Grid, Model, ResNet18, Run


def task(dataset: str, model: Model, epochs: float) -> Run:
    """Return a data set's run with everything but the noise fixed."""
    return Run(
        task="classification",
        dataset=dataset,
        model=model,
        optimizer=SGD(0.1),
        # Two micro-batches and more: their difference tells the variance of the gradient.
        # BatchNorm sees micro-batches, so larger batches do not change what it does.
        batch_size=32,
        accumulation=2,
        duration=Duration(epochs=epochs),
        log_every=5,
        evaluate_every=Duration(epochs=epochs / 10),
        checkpoint_every=Duration(epochs=epochs),
        evaluation_batch_size=500,
        calibration_batches=50,
    )


TASKS = {
    "digits": task("digits", ResNet18(width=8, stem="small", stage_sizes=(1, 1)), epochs=30),
    # No convolution and no BatchNorm: each example has a gradient of its own, and C is its spread.
    "fashion_mnist": task("fashion_mnist", MLP(hidden=(128,)), epochs=1),
    # With the stem for large images: an eighth of the arithmetic.
    "cifar100": task(
        "cifar100", ResNet18(width=16, stem="imagenet", stage_sizes=(1, 1, 1)), epochs=6
    ),
}

HALF = math.sqrt(0.5)
"""A stage's decay of the noise level: half the variance."""

HYBRID = math.log2(1.5)
"""The share of the decay that a batch x 1.5 does where the whole is a batch x 2."""

METHODS = {
    "constant": Graduated(5, decay="constant"),
    "lr": Graduated(5, decay="geometric", factor=HALF),
    "batch": Graduated(5, decay="geometric", factor=HALF, batch_share=1.0),
    "hybrid": Graduated(5, decay="geometric", factor=HALF, batch_share=HYBRID),
    "poly_0.5": Graduated(5, decay="polynomial", power=0.5, batch_share=HYBRID),
    "poly_0.9": Graduated(5, decay="polynomial", power=0.9, batch_share=HYBRID),
    "poly_1": Graduated(5, decay="polynomial", power=1.0, batch_share=HYBRID),
}

# Found by configs/graduated_sweep.py.
LEARNING_RATES = {"digits": 1.0, "fashion_mnist": 0.1, "cifar100": 0.3}


def run(name: str, method: str, learning_rate: float) -> Run:
    """Return one run of the grid."""
    return dataclasses.replace(TASKS[name], optimizer=SGD(learning_rate), graduated=METHODS[method])


config = Grid(
    {
        f"{name}/{method}": run(name, method, learning_rate)
        for name, learning_rate in LEARNING_RATES.items()
        for method in METHODS
    },
    seeds=(0, 1, 2, 3, 4),
)
