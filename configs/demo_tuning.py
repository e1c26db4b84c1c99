"""The demo's four methods on its three tasks, searched with one budget: 16 trials each.

python -m experiments.tune --config configs/demo_tuning.py --workdir runs/demo_tuning

Every method has its learning rate and the values that its authors leave open: momentum for SGD, b1
for Adam, kind and level of clipping for the clipped methods. Methods with more values are searched
more thinly, which is the price of having them. Trials are scored on a fifth of the training split;
a third of them is trained on after a third of the steps.

Everything else is fixed: clipped-SGD's momentum of 0.9, clipped-SSTM's L of 10 as in its authors'
code, constant rates.
"""

import dataclasses

from experiments.config import (
    SGD,
    Adam,
    Choice,
    ClippedSGD,
    ClippedSSTM,
    Duration,
    FCN32s,
    LogUniform,
    Optimizer,
    ResNet18,
    Run,
    Search,
    SRResNet,
)

# Narrow forms of the published networks: the same modules, smaller numbers.
TASKS = {
    "classification": Run(
        task="classification",
        dataset="digits",
        model=ResNet18(width=8, stem="small"),
        optimizer=SGD(0.1),
        batch_size=64,
        duration=Duration(steps=400),
        evaluate_every=Duration(steps=100),
        checkpoint_every=Duration(steps=1000),
        evaluation_batch_size=120,
        samples=8,
    ),
    "segmentation": Run(
        task="segmentation",
        dataset="digit_scenes",
        # Four blocks of one convolution each: FCN-16s' resolution at a fiftieth of VGG-16's width.
        model=FCN32s(
            width=8,
            fc_width=64,
            fc_kernel=5,
            pool_stages=4,
            block_sizes=(1, 1, 1, 1),
            dropout=0.0,
            batch_norm=True,
        ),
        optimizer=SGD(0.1),
        batch_size=4,
        duration=Duration(steps=600),
        evaluate_every=Duration(steps=200),
        checkpoint_every=Duration(steps=1000),
        evaluation_batch_size=20,
        samples=4,
    ),
    "super_resolution": Run(
        task="super_resolution",
        dataset="photos_x4",
        model=SRResNet(num_blocks=2, channels=16, kernel_size=5, global_skip="bicubic"),
        optimizer=SGD(0.1),
        batch_size=4,
        duration=Duration(steps=300),
        evaluate_every=Duration(steps=100),
        checkpoint_every=Duration(steps=1000),
        evaluation_batch_size=17,
        samples=12,
    ),
}

# What is searched is set to where the search begins.
METHODS: dict[str, Optimizer] = {
    "sgd": SGD(0.1, momentum=0.9),
    "clipped_sgd": ClippedSGD(0.1, 1.0, momentum=0.9),
    "clipped_sstm": ClippedSSTM(0.1, smoothness=10.0, clip_level=1.0),
    "adam": Adam(0.01),
}
RUNS = {
    f"{task}/{method}": dataclasses.replace(run, optimizer=optimizer)
    for task, run in TASKS.items()
    for method, optimizer in METHODS.items()
}

# Three decades of rates for every method, four of levels. The loss of super-resolution has
# gradients that are about a hundred times smaller, so its rates and levels lie elsewhere.
LABELS = {
    "sgd": LogUniform(1e-2, 1e1),
    "adam": LogUniform(3e-4, 3e-1),
    "clipped_sgd": LogUniform(1e-2, 1e1),
    "clipped_sstm": LogUniform(1e-1, 1e2),
}
PIXELS = {
    "sgd": LogUniform(1e-4, 1e-1),
    "adam": LogUniform(3e-5, 3e-2),
    "clipped_sgd": LogUniform(1e-2, 1e1),
    "clipped_sstm": LogUniform(1e1, 1e4),
}
RATES = {"classification": LABELS, "segmentation": LABELS, "super_resolution": PIXELS}


def space(task: str, method: str) -> dict[str, Choice | LogUniform]:
    """Return what is searched for a method on a task."""
    found: dict[str, Choice | LogUniform] = {"optimizer.learning_rate": RATES[task][method]}
    # Of these each value is a compilation, so there are few.
    if method == "sgd":
        return found | {"optimizer.momentum": Choice(0.0, 0.9)}
    if method == "adam":
        return found | {"optimizer.b1": Choice(0.8, 0.9)}
    clips = Choice("global_norm", "value")
    level = LogUniform(1e-5, 1e-1) if RATES[task] is PIXELS else LogUniform(1e-3, 1e1)
    return found | {"optimizer.clip_level": level, "optimizer.clip": clips}


SPACE = {f"{task}/{method}": space(task, method) for task in RATES for method in RATES[task]}

config = Search(RUNS, SPACE, trials=16, seeds=(100,), holdout=0.2, rungs=2, reduction=3)
