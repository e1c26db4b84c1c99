"""The thesis's comparison at full size: four methods on three vision tasks.

python -m experiments.compare --config configs/thesis.py --workdir runs/thesis
python -m experiments.compare --config configs/thesis.py --small --workdir runs/thesis_small

The data must be prepared first (python -m experiments.prepare --dataset imagenet100, ...), and
weights/vgg16.h5 be there (Keras's vgg16_weights_tf_dim_ordering_tf_kernels.h5, or torchvision's as
safetensors with --pretrained). Not run at full size here. --small needs neither: the same methods
on embedded data and narrow networks, to see that the lines work; its scores mean nothing.

Stated in the thesis: data, networks, batch 32 of ImageNet-100 (2 x 32 for clipped-SSTM, 4 x 32 for
Adam), learning rates, momentum, coordinate-wise clipping at 0.1, L = 10. Not stated, and chosen
here: clipped-SSTM's clipping (global norm, 1, as its authors' code by default; so is step_offset
1), five epochs of ImageNet-100 (its scores are those of the authors' curves at five), batch and
length of the other tasks, crops.
"""

import dataclasses

from configs.demo_tuning import TASKS as EMBEDDED
from experiments.config import (
    SGD,
    Adam,
    ClippedSGD,
    ClippedSSTM,
    Duration,
    FCN32s,
    Grid,
    Optimizer,
    ResNet18,
    Run,
    SRResNet,
)

TASKS = {
    "imagenet100": Run(
        task="classification",
        dataset="imagenet100",
        model=ResNet18(),
        optimizer=SGD(1e-4),
        batch_size=32,
        duration=Duration(epochs=5),
        evaluate_every=Duration(epochs=0.5),
        checkpoint_every=Duration(epochs=0.5),
        log_every=100,
    ),
    "voc2012": Run(
        task="segmentation",
        dataset="voc2012_segmentation",
        model=FCN32s(),
        optimizer=SGD(1e-4),
        pretrained="weights/vgg16.h5",
        batch_size=16,
        duration=Duration(epochs=50),
        evaluate_every=Duration(epochs=5),
        checkpoint_every=Duration(epochs=5),
        evaluation_batch_size=8,
    ),
    "div2k": Run(
        task="super_resolution",
        dataset="div2k_x4",
        model=SRResNet(),
        optimizer=SGD(1e-4),
        batch_size=16,
        duration=Duration(steps=20_000),
        evaluate_every=Duration(steps=2_000),
        checkpoint_every=Duration(steps=2_000),
        evaluation_batch_size=1,
        log_every=100,
    ),
}

METHODS = ("sgd", "clipped_sgd", "clipped_sstm", "adam")


def optimizer(task: str, method: str) -> Optimizer:
    """Return a method with the thesis's numbers for a task."""
    return {
        "sgd": SGD(1e-4, momentum=0.99),
        "clipped_sgd": ClippedSGD(
            1e-3 if task == "imagenet100" else 1e-4, 0.1, clip="value", momentum=0.99
        ),
        "clipped_sstm": ClippedSSTM(1e-5, smoothness=10.0, clip_level=1.0, step_offset=1),
        "adam": Adam(1e-4),
    }[method]


def full(task: str, method: str) -> Run:
    """Return a run at full size."""
    base = TASKS[task]
    larger = {"clipped_sstm": 2, "adam": 4}.get(method, 1) if task == "imagenet100" else 1
    batch_size = larger * base.batch_size
    return dataclasses.replace(base, optimizer=optimizer(task, method), batch_size=batch_size)


def reduced(task: str, method: str) -> Run:
    """Return the same method on embedded data with a narrow network, 100 steps."""
    steps = Duration(steps=100)
    return dataclasses.replace(
        EMBEDDED[TASKS[task].task],
        optimizer=optimizer(task, method),
        duration=steps,
        evaluate_every=steps,
        checkpoint_every=steps,
    )


config = Grid(
    {f"{task}/{method}": full(task, method) for task in TASKS for method in METHODS}, seeds=(0,)
)
small = Grid(
    {f"{task}/{method}": reduced(task, method) for task in TASKS for method in METHODS}, seeds=(0,)
)
