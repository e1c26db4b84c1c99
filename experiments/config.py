"""The door for config files: what a config is made of.

from experiments.config import ClippedSSTM, Duration, ResNet18, Run
"""

from experiments.setup.config import (
    MLP,
    SGD,
    Adam,
    ClippedSGD,
    ClippedSSTM,
    Duration,
    FCN32s,
    Graduated,
    Grid,
    LearningRateSchedule,
    Model,
    NoiseProbe,
    Optimizer,
    ResNet18,
    Rule,
    Run,
    SRResNet,
)

__all__ = [
    "MLP",
    "SGD",
    "Adam",
    "ClippedSGD",
    "ClippedSSTM",
    "Duration",
    "FCN32s",
    "Graduated",
    "Grid",
    "LearningRateSchedule",
    "Model",
    "NoiseProbe",
    "Optimizer",
    "ResNet18",
    "Rule",
    "Run",
    "SRResNet",
]
