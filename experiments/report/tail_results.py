"""What the heavy-tail experiment left: summary.json and curves.npz, read and checked."""

from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from experiments.report import results
from experiments.setup import reading
from experiments.setup.reading import RUN_AGAIN, Number


class Quantile(TypedDict):
    """A quantile over the replicas and its bootstrap interval."""

    value: Number
    low: Number
    high: Number


class MethodResult(TypedDict):
    """What became of a method's replicas."""

    final: list[Quantile]
    diverged: int
    second_half: NotRequired[dict[str, Number]]


class TailConfig(TypedDict):
    """What the report takes from the experiment's config."""

    replicas: int
    steps: int
    levels: list[float]
    noises: list[str]
    confidence: float
    df: NotRequired[float]


class Constants(TypedDict):
    """What is known of the problem."""

    dimension: int


class TailSummary(TypedDict):
    """summary.json of `experiments.high_probability`."""

    problem: str
    constants: Constants
    initial_gap: float
    labels: dict[str, str]
    methods: dict[str, str]
    results: dict[str, dict[str, MethodResult]]
    reference: dict[str, dict[str, list[Any]]]
    reference_plateau: dict[str, dict[str, str]]
    reference_source: str
    wall_time: float
    config: TailConfig
    files: NotRequired[dict[str, str]]
    device: NotRequired[str]
    versions: NotRequired[dict[str, str]]
    git_commit: NotRequired[str | None]


def read_summary(path: Path) -> TailSummary:
    """Return the experiment's summary.json. Raises as `experiments.setup.reading.read_json`."""
    return reading.read_json(
        path,
        TailSummary,
        missing=f", so this experiment has not ended; {RUN_AGAIN}",
        cure=f"delete it and {RUN_AGAIN}",
    )


def read(folder: Path) -> tuple[TailSummary, dict[str, np.ndarray]]:
    """Return summary.json and curves.npz.

    Raises:
        FileNotFoundError: if one is missing.
        DamagedFile: if one is damaged, or the two are not of one experiment.
    """
    summary = read_summary(folder / "summary.json")
    needed = ["levels", "oracle_calls"]
    for noise, found in summary["results"].items():
        parts = ("value", "low", "high", "final")
        needed += [f"{noise}/{method}/{part}" for method in found for part in parts]
    return summary, results.read_arrays(folder / "curves.npz", needed)
