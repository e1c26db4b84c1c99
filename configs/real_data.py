"""Four methods on real pictures, an hour on two CPU cores: not the embedded ones.

    python -m experiments.prepare --dataset cifar100
    python -m experiments.prepare --dataset segmentation_folder/camvid --raw-dir CAMVID
    python -m experiments.prepare --dataset super_resolution_folder/bsds_set5 --raw-dir PICTURES
    python -m experiments.compare --config configs/real_data.py --workdir runs/real_data

A hundred classes (CIFAR-100, here 80 pictures of each), street scenes (CamVid in PASCAL VOC's
layout, 92 pictures, FCN-32s on VGG-16's ImageNet weights in weights/vgg16.npz) and photographs
enlarged by four (trained on BSDS500, evaluated on Set5: PICTURES/train/HR, PICTURES/test/HR and
LR). Networks and lengths are what a CPU can do; results/real_data.md has the scores.

Learning rates: the best of three for each task and method on another seed, the same budget for
all (configs/real_data_sweep.py). Momentum 0.9, L = 10, constant rates, clippings as below.
"""

import dataclasses

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
    # The same network, nothing learnt before: what the pretrained trunk is worth.
    "segmentation_from_scratch": dataclasses.replace(SEGMENTATION, pretrained=None),
    "super_resolution": SUPER_RESOLUTION,
    # The same runs, evaluated on the embedded photographs, whose pictures may be shown.
    "super_resolution_photographs": dataclasses.replace(
        SUPER_RESOLUTION, evaluation_dataset="photos_x4", evaluation_batch_size=17, samples=12
    ),
}

# Kind and level of the clippings, chosen by hand before the sweep.
CLIPPINGS = {
    "classification": {"clipped_sgd": ("value", 0.01), "clipped_sstm": ("global_norm", 1.0)},
    "segmentation": {"clipped_sgd": ("global_norm", 1.0), "clipped_sstm": ("global_norm", 0.1)},
    "super_resolution": {"clipped_sgd": ("value", 1e-4), "clipped_sstm": ("value", 1e-3)},
}


def optimizer(method: str, task: str, learning_rate: float) -> Optimizer:
    """Return a method with everything but the learning rate fixed."""
    if method.startswith("sgd"):
        return SGD(learning_rate, momentum=0.9)
    if method == "adam":
        return Adam(learning_rate)
    clip, level = CLIPPINGS[TASKS[task].task][method]
    if method == "clipped_sgd":
        return ClippedSGD(learning_rate, level, clip=clip, momentum=0.9)
    return ClippedSSTM(learning_rate, smoothness=10.0, clip_level=level, clip=clip)


# Found by configs/real_data_sweep.py.
LEARNING_RATES = {
    "classification": {"sgd": 0.1, "clipped_sgd": 0.1, "clipped_sstm": 1.0, "adam": 0.001},
    "segmentation": {"sgd": 0.0003, "clipped_sgd": 0.01, "clipped_sstm": 0.03, "adam": 0.0001},
    "segmentation_from_scratch": {"clipped_sstm": 0.3, "adam": 0.0003},
    "super_resolution": {
        "sgd": 0.01,  # the sweep's best, but on other seeds it diverges: the next one beside
        "sgd_0.003": 0.003,
        "clipped_sgd": 3.0,
        "clipped_sstm": 3000.0,
        "adam": 0.0001,
    },
}
LEARNING_RATES["super_resolution_photographs"] = LEARNING_RATES["super_resolution"]

config = Grid(
    {
        f"{task}/{method}": dataclasses.replace(
            TASKS[task], optimizer=optimizer(method, task, learning_rate)
        )
        for task, methods in LEARNING_RATES.items()
        for method, learning_rate in methods.items()
    },
    seeds=(0, 1, 2),
)
