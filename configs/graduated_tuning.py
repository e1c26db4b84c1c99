"""The first learning rate of seven plans of noise on three data sets, searched: six trials each.

    python -m experiments.prepare --dataset fashion_mnist
    python -m experiments.prepare --dataset cifar100
    python -m experiments.tune --config configs/graduated_tuning.py --workdir runs/graduated_tuning

About a quarter of an hour of one CPU core. Every plan has a search of its own, constant noise too:
a rate that is good for one need not be for another. Trials run to their end, since a plan cannot be
judged before its noise has fallen; they are scored on a fifth of the training split.
results/graduated_tuning.txt is what the search printed.
"""

import dataclasses
import math

from experiments.config import (
    MLP,
    SGD,
    Duration,
    Graduated,
    LogUniform,
    Model,
    ResNet18,
    Run,
    Search,
)


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

RUNS = {
    f"{name}/{method}": dataclasses.replace(run, graduated=plan)
    for name, run in TASKS.items()
    for method, plan in METHODS.items()
}

# A factor of 30, in whose middle the best rates of an earlier sweep for constant noise lay.
RANGES = {"digits": (0.1, 3.0), "fashion_mnist": (0.03, 1.0), "cifar100": (0.03, 1.0)}
SPACE = {f"{name}/*": {"optimizer.learning_rate": LogUniform(*RANGES[name])} for name in TASKS}

config = Search(RUNS, SPACE, trials=6, seeds=(100,), holdout=0.2)
