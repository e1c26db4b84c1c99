"""Four methods on real pictures, an hour on two CPU cores: not the embedded ones.

    python -m experiments.prepare --dataset cifar100
    python -m experiments.prepare --dataset segmentation_folder/camvid --raw-dir CAMVID
    python -m experiments.prepare --dataset super_resolution_folder/bsds_set5 --raw-dir PICTURES
    python -m experiments.compare --config configs/real_data.py --workdir runs/real_data

A hundred classes (CIFAR-100, here 80 pictures of each), street scenes (CamVid in PASCAL VOC's
layout, 92 pictures, FCN-32s on VGG-16's ImageNet weights in weights/vgg16.npz) and photographs
enlarged by four (trained on BSDS500, evaluated on Set5: PICTURES/train/HR, PICTURES/test/HR and
LR). Networks and lengths are what a CPU can do; results/real_data.md has the scores.

What is run is described in configs/real_data_tuning.py. Learning rates, momentum, b1 and clip
levels are the best of the eight trials that each method had there for each task, on a part of the
training split.
"""

import dataclasses
from pathlib import Path

from configs.real_data_tuning import RUNS
from experiments.config import Grid, with_chosen

TUNED = Path(__file__).parents[1] / "results" / "real_data_tuning.json"

TUNED_RUNS = with_chosen(RUNS, TUNED)

# The same runs, evaluated on the embedded photographs, whose pictures may be shown.
PHOTOGRAPHS = {
    key.replace("super_resolution", "super_resolution_photographs"): dataclasses.replace(
        run, evaluation_dataset="photos_x4", evaluation_batch_size=17, samples=12
    )
    for key, run in TUNED_RUNS.items()
    if run.task == "super_resolution"
}

config = Grid(TUNED_RUNS | PHOTOGRAPHS, seeds=(0, 1, 2))
