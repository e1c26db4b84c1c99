"""The experiment from the data to summary.json: search, then comparison, for each reading."""

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clipjax import data as datasets
from clipjax.train import mesh as meshes
from clipjax.train.log import write_json
from experiments.growth_networks import stages
from experiments.growth_networks.config import (
    MARKS,
    Arm,
    Config,
    Reading,
    arms,
    batch_size,
    candidates,
    identity,
    record_times,
)
from experiments.growth_networks.simulate import SPLITS, Data, make_groups
from experiments.growth_networks.stages import Folder, Stage
from experiments.setup import config_files
from experiments.setup.provenance import git_commit, versions

PUBLISHED: dict[str, dict[str, Any]] = {
    "mnist": {"gains": {1: 0.54, 100: 0.53, 1000: 0.36}, "growth": 88.3},
    "fashion_mnist": {"gains": {1: 30.8, 100: 2.94, 1000: 1.05}, "growth": 3.4},
}
"""The source's numbers: gains in validation accuracy in points by iteration, and how many times
the default's loss grows as much as that of the best combination (VERIFIED in its text)."""

TRAIN, VALIDATION, TEST = range(len(SPLITS))
LOSS, ACCURACY = range(2)


def load(config: Config, data_dir: Path | None) -> Data:
    """Return the data set, its pictures flat.

    Raises:
        DatasetNotPrepared: with the line that prepares it.
    """
    train = datasets.load(config.dataset, "train", data_dir)
    test = datasets.load(config.dataset, "test", data_dir).in_memory()
    count = min(config.examples or len(train), len(train))
    # Digits are listed in the order of their writers: a part is drawn from all of them.
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:count])
    first = {key: values[chosen] for key, values in train.in_memory().items()}
    images = np.concatenate([first["image"], test["image"]])
    labels = np.concatenate([first["label"], test["label"]]).astype(np.int32)
    return Data(images.reshape(len(images), -1), labels, count, train.num_classes)


def run(
    config: Config,
    workdir: Path,
    data: Data,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any] | None:
    """Run the experiment and write summary.json.

    A run that was killed goes on from its state, to the same bits (see `stages`).

    Args:
        config: the experiment.
        workdir: where to write; made if missing.
        data: of `load`.
        should_stop: asked every few seconds.

    Returns:
        What summary.json holds; None if stopped.

    Raises:
        ValueError: if the folder holds another experiment, or the data are too few.
    """
    sizes = (len(data.images), data.pool)
    digest = hashlib.sha256(data.images.tobytes() + data.labels.tobytes()).hexdigest()
    groups = make_groups(data, config.seeds, config.folds)
    batch_size(config, groups.train.shape[1])
    folder = Folder(workdir, identity(config, data={"sha256": digest, "sizes": sizes}))
    results: dict[str, Any] = {}
    for reading in config.readings:
        found = _one_reading(config, data, reading, folder, should_stop)
        if found is None:
            return None
        results[reading] = found
    summary = {
        "status": "finished",
        "name": "growth_networks",
        "dataset": config.dataset,
        "train": int(groups.train.shape[1]),
        "validation": data.pool // config.folds,
        "test": len(data.images) - data.pool,
        "batch_size": batch_size(config, groups.train.shape[1]),
        "published": PUBLISHED.get(config.dataset, {}),
        "results": results,
        "config": config_files.to_json(config),
        "device": meshes.describe(),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    write_json(workdir / "summary.json", summary)
    return summary


def _one_reading(
    config: Config,
    data: Data,
    reading: Reading,
    folder: Folder,
    should_stop: Callable[[], bool],
) -> dict[str, Any] | None:
    """Search and compare; return the entry of summary.json, None if stopped."""

    def trained(name: str, networks: Sequence[Arm], seeds: Sequence[int], times: Sequence[int]):
        groups = make_groups(data, seeds, config.folds)
        size = batch_size(config, groups.train.shape[1])
        stage = Stage(f"{name}_{reading}", networks, groups, reading, times, config.hidden, size)
        return stages.run(stage, data, folder, should_stop)

    searched = candidates(config)
    began = time.monotonic()
    search = trained("search", searched, [config.search_seed], [config.search_iterations])
    if search is None:
        return None
    scores, losses = (search.measured[0][VALIDATION, i].mean(0) for i in (ACCURACY, LOSS))
    chosen = {
        kind: choose(searched, scores, losses, kind) for kind in ("combination", "learning rate")
    }
    best = chosen["combination"]
    assert best is not None  # there is at least one combination
    compared = arms(config, best, chosen["learning rate"])
    times = record_times(config.iterations, config.records)
    final = trained("compare", compared, config.seeds, times)
    if final is None:
        return None
    entries = [
        {**vars(arm), "accuracy": float(score), "loss": float(loss)}
        for arm, score, loss in zip(searched, scores, losses, strict=True)
    ]
    return {
        "search": sorted(entries, key=lambda entry: -entry["accuracy"]),
        "arms": {arm.name: vars(arm) | {"loss_range": arm.loss_range} for arm in compared},
        "times": times,
        **summarise(np.array(final.measured), compared, times),
        "seconds": {"search": search.seconds, "compare": final.seconds},
        "wall_time": time.monotonic() - began,
    }


def choose(
    searched: Sequence[Arm], scores: np.ndarray, losses: np.ndarray, kind: str
) -> Arm | None:
    """Return the candidate of a kind with the largest score; the first of equal ones.

    One whose loss is not finite in a fold has diverged and comes last. None if none is of the kind.

    Examples:
        >>> found = [Arm("learning rate", 0.1), Arm("learning rate", 1.0)]
        >>> choose(found, np.array([0.5, 0.9]), np.array([1.0, np.nan]), "learning rate")
        Arm(name='learning rate', learning_rate=0.1, ...)
    """
    judged = np.where(np.isfinite(losses), scores, -1.0)
    places = [i for i, arm in enumerate(searched) if arm.name == kind]
    return searched[max(places, key=lambda i: judged[i])] if places else None


def summarise(measured: np.ndarray, compared: Sequence[Arm], times: Sequence[int]) -> dict:
    """Return curves, gains and growths as JSON values.

    Args:
        measured: (times, splits, 2, groups, arms) as of `stages.run`.
        compared: the arms, the first one the default.
        times: the iterations.

    Returns:
        `curves`: arm -> "train_loss", "validation_loss", "validation_accuracy", "test_accuracy" ->
        mean and standard deviation over groups (folds of seeds) at each time.
        `gains`: arm -> mark -> mean and standard deviation over groups of the difference to the
        default in validation accuracy, in points, at `MARKS` and at the end; likewise `test_gains`.
        `growth`: arm -> mean and standard deviation of the validation loss's "rise", from its
        smallest value to its last, and "change", from its first to its last.
        `diverged`: arm -> groups whose training loss is not finite at the end; the numbers are
        null where one is among them.
    """
    names = [arm.name for arm in compared]
    accuracy = 100 * measured[:, :, ACCURACY]
    shown = {
        "train_loss": measured[:, TRAIN, LOSS],
        "validation_loss": measured[:, VALIDATION, LOSS],
        "validation_accuracy": accuracy[:, VALIDATION],
        "test_accuracy": accuracy[:, TEST],
    }
    marks = {mark: times.index(mark) for mark in times if mark in (*MARKS, times[-1])}
    loss = shown["validation_loss"]
    with np.errstate(invalid="ignore"):  # inf - inf, of networks that diverged
        growths = {"rise": loss[-1] - loss.min(0), "change": loss[-1] - loss[0]}

    def gains(values: np.ndarray, arm: int) -> dict[str, Any]:
        return {str(m): _spread(values[t, :, arm] - values[t, :, 0]) for m, t in marks.items()}

    return {
        "curves": {
            name: {key: _spread(values[:, :, k], axis=1) for key, values in shown.items()}
            for k, name in enumerate(names)
        },
        "gains": {n: gains(shown["validation_accuracy"], k) for k, n in enumerate(names)},
        "test_gains": {n: gains(shown["test_accuracy"], k) for k, n in enumerate(names)},
        "growth": {
            name: {key: _spread(value[:, k]) for key, value in growths.items()}
            for k, name in enumerate(names)
        },
        "diverged": {
            name: int((~np.isfinite(measured[-1, TRAIN, LOSS, :, k])).sum())
            for k, name in enumerate(names)
        },
    }


def _spread(values: np.ndarray, axis: int = 0) -> dict[str, Any]:
    """Return mean and standard deviation (of a sample) as JSON values."""
    with np.errstate(invalid="ignore"):
        mean, deviation = values.mean(axis, dtype=float), values.std(axis, ddof=1, dtype=float)
    return {"mean": mean.tolist(), "std": deviation.tolist()}
