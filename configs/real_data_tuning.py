"""Four methods on real pictures, searched with one budget: eight trials each.

python -m experiments.tune --config configs/real_data_tuning.py --workdir runs/real_data_tuning

About an hour on two CPU cores. The head of configs/real_data.py says how to prepare the data.
Trials are scored on a fifth of the training split; a quarter of them is trained on after a quarter
of the steps. results/real_data_tuning.txt is what the search printed.

Every method has two values: its learning rate, and momentum for SGD, b1 for Adam, the clip level
for the clipped methods. Whether they clip the norm or each coordinate is what the demo's search
chose for clipped-SGD on that task (configs/demo_tuning.py). Everything else is fixed: clipped-SGD's
momentum of 0.9, clipped-SSTM's L of 10 as in its authors' code, constant rates.
"""

import dataclasses
from typing import Literal

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

STEPS = Duration(steps=50)

CLASSIFICATION = Run(
    task="classification",
    dataset="cifar100",
    model=ResNet18(width=16, stem="small"),
    optimizer=SGD(0.1),
    batch_size=128,
    duration=Duration(steps=150),
    evaluate_every=STEPS,
    checkpoint_every=STEPS,
    evaluation_batch_size=100,
)

SEGMENTATION = Run(
    task="segmentation",
    dataset="segmentation_folder/camvid",
    # VGG-16's trunk as published; fc6 and fc7 narrow: 4096 channels cost 9 s a step.
    model=FCN32s(fc_width=256, fc_kernel=3, dropout=0.0),
    pretrained="weights/vgg16.npz",
    optimizer=SGD(0.1),
    batch_size=4,
    crop=128,
    duration=Duration(steps=120),
    evaluate_every=Duration(steps=40),
    checkpoint_every=Duration(steps=40),
    evaluation_batch_size=2,
)

SUPER_RESOLUTION = Run(
    task="super_resolution",
    dataset="super_resolution_folder/bsds_set5",
    model=SRResNet(num_blocks=4, channels=32, global_skip="bicubic"),
    optimizer=SGD(0.1),
    batch_size=8,
    duration=Duration(steps=150),
    evaluate_every=STEPS,
    checkpoint_every=STEPS,
    evaluation_batch_size=1,
)

TASKS = {
    "classification": CLASSIFICATION,
    "segmentation": SEGMENTATION,
    "super_resolution": SUPER_RESOLUTION,
}

KINDS: dict[str, Literal["value", "global_norm"]] = {
    "classification": "value",
    "segmentation": "global_norm",
    "super_resolution": "value",
}

# Two decades of rates for every method, around the best rates of an earlier, shorter sweep.
RATES = {
    "classification": {
        "sgd": LogUniform(1e-2, 1.0),
        "adam": LogUniform(1e-4, 1e-2),
        "clipped_sgd": LogUniform(1e-2, 1.0),
        "clipped_sstm": LogUniform(1e-1, 1e1),
    },
    "segmentation": {
        "sgd": LogUniform(3e-5, 3e-3),
        "adam": LogUniform(1e-5, 1e-3),
        "clipped_sgd": LogUniform(1e-3, 1e-1),
        "clipped_sstm": LogUniform(3e-3, 3e-1),
    },
    "super_resolution": {
        "sgd": LogUniform(3e-4, 3e-2),
        "adam": LogUniform(1e-5, 1e-3),
        "clipped_sgd": LogUniform(1e-1, 1e1),
        "clipped_sstm": LogUniform(3e2, 3e4),
    },
}

# Three decades of levels.
LEVELS = {
    "classification": LogUniform(1e-3, 1.0),
    "segmentation": LogUniform(1e-2, 1e1),
    "super_resolution": LogUniform(1e-5, 1e-2),
}


def optimizer(task: str, method: str) -> Optimizer:
    """Return a method; what is searched is set to where the search begins."""
    kind = KINDS[task]
    methods: dict[str, Optimizer] = {
        "sgd": SGD(0.1, momentum=0.9),
        "adam": Adam(0.001),
        "clipped_sgd": ClippedSGD(0.1, 1.0, clip=kind, momentum=0.9),
        "clipped_sstm": ClippedSSTM(0.1, smoothness=10.0, clip_level=1.0, clip=kind),
    }
    return methods[method]


def space(task: str, method: str) -> dict[str, Choice | LogUniform]:
    """Return what is searched for a method on a task."""
    second: dict[str, tuple[str, Choice | LogUniform]] = {
        # Of these each value is a compilation, so there are few.
        "sgd": ("momentum", Choice(0.0, 0.9)),
        "adam": ("b1", Choice(0.8, 0.9)),
    }
    field, drawn = second.get(method, ("clip_level", LEVELS[task]))
    return {"optimizer.learning_rate": RATES[task][method], f"optimizer.{field}": drawn}


KEYS = [(task, method) for task in RATES for method in RATES[task]]
RUNS = {
    f"{task}/{method}": dataclasses.replace(TASKS[task], optimizer=optimizer(task, method))
    for task, method in KEYS
}
SPACE = {f"{task}/{method}": space(task, method) for task, method in KEYS}

config = Search(RUNS, SPACE, trials=8, seeds=(100,), holdout=0.2, rungs=2, reduction=4)
