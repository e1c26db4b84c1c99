"""Sixteen methods, each a text, on three vision tasks, searched with one budget: six trials each.

python -m experiments.tune --config configs/methods_tuning.py --workdir runs/methods_tuning

One table, `METHODS`, has the texts and the kinds of their values, another the ranges. To compare
another method, add a line, search again, and copy the chosen.json to results/methods_tuning.json.
Tasks and networks are the demo's, trained for a third to a half as long. Trials are scored on a
tenth of the training split.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from configs.demo_tuning import TASKS as DEMO
from experiments.config import Duration, LogUniform, Rule, Run, Search

STEPS = {"classification": 200, "segmentation": 240, "super_resolution": 150}
TASKS = {
    task: dataclasses.replace(
        DEMO[task],
        duration=Duration(steps=steps),
        evaluate_every=Duration(steps=steps // 2),
    )
    for task, steps in STEPS.items()
}

Range = tuple[float, float]
"""From, to; spread by the logarithm."""

Kind = Literal["lr", "adaptive lr", "sign lr", "sstm lr", "norm", "coordinate", "share", "wd"]

# A rate has another scale where the step has the gradient's length, where each coordinate of it
# has about the length of the rate, and where it is a sign, or as large as a matrix's; a level has
# the gradient's scale, which is 100 times smaller in super-resolution.
RANGES: dict[Kind, dict[str, Range]] = {
    "lr": {
        "classification": (0.01, 1.0),
        "segmentation": (0.03, 3.0),
        "super_resolution": (3e-4, 1.0),
    },
    "adaptive lr": {
        "classification": (1e-3, 0.1),
        "segmentation": (1e-3, 0.1),
        "super_resolution": (1e-4, 0.01),
    },
    "sign lr": {
        "classification": (1e-4, 0.01),
        "segmentation": (1e-4, 0.01),
        "super_resolution": (1e-5, 1e-3),
    },
    "sstm lr": {
        "classification": (0.01, 1.0),
        "segmentation": (0.3, 30.0),
        "super_resolution": (10.0, 1000.0),
    },
    "norm": {
        "classification": (0.1, 10.0),
        "segmentation": (0.1, 10.0),
        "super_resolution": (1e-3, 0.1),
    },
    "coordinate": {
        "classification": (1e-3, 0.1),
        "segmentation": (1e-3, 0.1),
        "super_resolution": (1e-5, 1e-3),
    },
    "share": dict.fromkeys(STEPS, (0.1, 0.99)),
    "wd": dict.fromkeys(STEPS, (1e-3, 0.1)),
}


@dataclass(frozen=True)
class Method:
    """A method: what it is called, its text, and of what kind each of its values is."""

    label: str
    text: str
    values: dict[str, Kind]


RATE: dict[str, Kind] = {"lr": "lr"}
ADAPTIVE: dict[str, Kind] = {"lr": "adaptive lr"}
DECAYED: dict[str, Kind] = {"lr": "adaptive lr", "wd": "wd"}

METHODS = {
    "sgd": Method("SGD", "sgd(lr)", RATE),
    "momentum": Method("momentum", "sgd(lr, momentum=0.9)", RATE),
    "nesterov": Method("Nesterov", "sgd(lr, momentum=0.9, nesterov=True)", RATE),
    "adam": Method("Adam", "adam(lr)", ADAPTIVE),
    "adamw": Method("AdamW", "adamw(lr, weight_decay=wd, mask=kernels)", DECAYED),
    "rmsprop": Method("RMSProp", "rmsprop(lr)", ADAPTIVE),
    "lion": Method("Lion", "lion(lr, weight_decay=0.0)", {"lr": "sign lr"}),
    "schedule_free": Method(
        "schedule-free AdamW", "schedule_free_adamw(lr, warmup_steps=20)", ADAPTIVE
    ),
    "muon": Method("Muon", "muon(lr)", ADAPTIVE),
    "shampoo": Method("Shampoo", "shampoo(lr, momentum=0.9, update_every=10)", ADAPTIVE),
    "clipped_sgd_norm": Method(
        "clipped-SGD, by norm",
        "clipped_sgd(lr, level, momentum=0.9)",
        {"lr": "lr", "level": "norm"},
    ),
    "clipped_sgd_value": Method(
        "clipped-SGD, by value",
        "clipped_sgd(lr, level, clip='value', momentum=0.9)",
        {"lr": "lr", "level": "coordinate"},
    ),
    "autoclip": Method(
        "AutoClip",
        "chain(clip_by_quantile(share), sgd(lr, momentum=0.9))",
        {"lr": "lr", "share": "share"},
    ),
    "zclip": Method(
        "ZClip + AdamW",
        "chain(clip_by_zscore(), adamw(lr, weight_decay=wd, mask=kernels))",
        DECAYED,
    ),
    "sstm": Method(
        "clipped-SSTM", "clipped_sstm(lr, 10.0, level)", {"lr": "sstm lr", "level": "norm"}
    ),
    "clip_adam": Method(
        "Clip-Adam", "clipped_adam(lr, level)", {"lr": "adaptive lr", "level": "norm"}
    ),
}


def middle(ends: Range) -> float:
    """Return the geometric middle of a range, to two digits."""
    return float(f"{math.sqrt(ends[0] * ends[1]):.2g}")


def run(task: str, name: str) -> Run:
    """Return a method on a task, with the middles of its ranges."""
    method = METHODS[name]
    values = {value: middle(RANGES[kind][task]) for value, kind in method.values.items()}
    return dataclasses.replace(TASKS[task], optimizer=Rule(method.text, values, label=method.label))


def ranges(task: str, name: str) -> dict[str, Range]:
    """Return the ranges of a method's values on a task, by the paths of a run's fields."""
    method = METHODS[name]
    return {f"optimizer.rates.{v}": RANGES[kind][task] for v, kind in method.values.items()}


KEYS = [(task, name) for task in TASKS for name in METHODS]
RUNS = {f"{task}/{name}": run(task, name) for task, name in KEYS}

config = Search(
    RUNS,
    {
        f"{task}/{name}": {path: LogUniform(*ends) for path, ends in ranges(task, name).items()}
        for task, name in KEYS
    },
    trials=6,
    seeds=(100,),
)
