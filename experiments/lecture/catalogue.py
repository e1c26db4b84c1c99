"""All experiments of the lecture, in its order."""

from experiments.lecture import (
    double_descent,
    escape_hollows,
    escape_waves,
    escape_wells,
    exponential_rates,
    initialisation,
    plateaus,
    rare_classes,
    rosenbrock,
    sgd_on_a_line,
    sgd_theorems,
)
from experiments.lecture.experiment import Experiment
from experiments.setup.checks import nearest

EXPERIMENTS: dict[str, Experiment] = {
    module.EXPERIMENT.name: module.EXPERIMENT
    for module in (
        sgd_on_a_line,
        plateaus,
        sgd_theorems,
        rosenbrock,
        escape_waves,
        escape_hollows,
        escape_wells,
        initialisation,
        rare_classes,
        exponential_rates,
        double_descent,
    )
}


def find(name: str) -> Experiment:
    """Return an experiment by its name.

    Raises:
        ValueError: there is none of that name; the message has the nearest.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"there is no experiment {name!r}; {nearest(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]


def listing() -> str:
    """Return a line for each experiment: its name, about how long it takes, what it shows."""
    wide = max(map(len, EXPERIMENTS))
    return "\n".join(
        f"{name:<{wide}}  {experiment.seconds:>5,.0f} s  {experiment.line}"
        for name, experiment in EXPERIMENTS.items()
    )
