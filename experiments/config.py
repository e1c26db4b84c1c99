"""The door for config files: what a config is made of.

from experiments.config import ClippedSSTM, Duration, ResNet18, Run
"""

from experiments.setup.chosen import chosen_runs, with_chosen
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
from experiments.setup.search import Choice, LogUniform, Search, Uniform

__all__ = [
    "MLP",
    "SGD",
    "Adam",
    "Choice",
    "ClippedSGD",
    "ClippedSSTM",
    "Duration",
    "FCN32s",
    "Graduated",
    "Grid",
    "LearningRateSchedule",
    "LogUniform",
    "Model",
    "NoiseProbe",
    "Optimizer",
    "ResNet18",
    "Rule",
    "Run",
    "SRResNet",
    "Search",
    "Uniform",
    "chosen_runs",
    "with_chosen",
]
