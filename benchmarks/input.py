"""How fast input is made, beside PyTorch's DataLoader and beside the training step, in one run.

    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch pillow opencv-python-headless
    .venv/bin/python -m benchmarks.input --torch-python /tmp/torch/bin/python --data-dir DIR
        --classification image_folder/NAME --segmentation segmentation_folder/NAME
        --super-resolution super_resolution_folder/NAME --small cifar100

takes prepared data sets, of your own (python -m experiments.prepare) or published ones; a task that
is not named is left out. For each: images/s of the pipeline that configs/thesis.py trains with
(decode, cut out, augment, batch), made by threads and by processes, and of a DataLoader that does
the same work on the same encoded files by Pillow, as torchvision does, and by OpenCV, as we do:
what the decoder gives and what the machinery gives are told apart. Then how many times as fast that
is as the training step of the network as published, and the share of time that training a network
of an eighth of the width, through the command line, waits for input.

Rounds alternate between all of these and the fastest counts.
"""

import contextlib
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks import train_step
from clipjax import data
from configs import thesis
from experiments.setup import build, config, config_files, inputs

ROOT = Path(__file__).parent.parent

WARM = 3
"""Batches before time is taken; processes need four times as many, until what one of them made
ahead while the other was starting is used up."""

Speeds = dict[str, tuple[float | None, float | None]]
"""Who -> images/s where one and where two (threads, processes) make the batches."""

PADDING = {"digits": 1, "cifar10": 4, "cifar100": 4, "tiny_imagenet": 4}
"""Of the random crops of small pictures (experiments/inputs.py); digits are not mirrored."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A pipeline, the network it feeds and a run of a narrow one."""

    name: str
    """The task, or "small" for pictures that are kept in memory."""
    source: data.Source
    run: config.Run
    network: train_step.Case

    @property
    def crop(self) -> int:
        """Side of the training pictures."""
        return self.run.crop or self.source.image_shape[0] or inputs.CROPS[self.run.task]

    def pipeline(self, threads: int, workers: int) -> data.Pipeline:
        """Return the training batches, made by so many threads and processes."""
        return data.Pipeline(
            self.source,
            self.source,
            batch_size=self.run.batch_size,
            evaluation_batch_size=1,
            augment=inputs.augment(self.run, self.source),
            seed=0,
            views=inputs.views(self.run, self.source),
            threads=threads,
            workers=workers,
        )


BASES = {run.task: run for run in thesis.TASKS.values()}
"""The thesis's run of each task."""
BASES["small"] = dataclasses.replace(BASES["classification"], batch_size=128)

NARROW: dict[str, config.Model] = {
    "classification": config.ResNet18(width=8),
    "segmentation": config.FCN32s(width=8, fc_width=512),
    "super_resolution": config.SRResNet(channels=8),
    "small": config.ResNet18(width=8, stem="small"),
}


def published(name: str, source: data.Source) -> train_step.Case:
    """Return the network of the published size that a case feeds."""
    if name != "small":
        return dict(zip(NARROW, train_step.full_cases(), strict=False))[name]
    image = (64, *source[0]["image"].shape)
    title = f"ResNet-18, {image[1]}x{image[2]}"
    few: dict[str, Any] = {"repeats": 3, "warm": 1}
    return train_step.resnet_case(title, image, source.num_classes, 64, "small", np.float32, **few)


def make_case(name: str, dataset: str, data_dir: Path | None, records: int) -> Case:
    """Return the case of a task on a data set, of which at most `records` are read.

    Raises:
        ValueError: If the data set is not made for the task or has fewer pictures than a batch.
    """
    if name == "small" and dataset not in PADDING:
        raise ValueError(f"--small {dataset}; {config.nearest(dataset, PADDING)}")
    splits = data.splits(dataset, data_dir)
    held_out = inputs.held_out(splits, dataset)
    parts = {split: f"{split}[:{min(records, splits[split])}]" for split in ("train", held_out)}
    source = data.load(dataset, parts["train"], data_dir)
    if name != "small" and None not in source.image_shape:
        raise ValueError(f"pictures of {dataset!r} have one size: nothing is cut out of them")
    run = dataclasses.replace(
        BASES[name],
        dataset=dataset,
        model=NARROW[name],
        pretrained=None,
        train_split=parts["train"],
        evaluation_split=parts[held_out],
    )
    build.make_task(run, source)  # refuses a data set made for another task
    if len(source) < run.batch_size:
        raise ValueError(
            f"{dataset!r} has {len(source)} training pictures, fewer than a batch of "
            f"{run.batch_size}"
        )
    return Case(name, source, run, published(name, source))


def export(case: Case, folder: Path) -> dict[str, Any]:
    """Write the case's pictures where PyTorch's side reads them; return what it is asked for.

    The encoded files as they are prepared, NUMBER.KEY, or images.npy of those kept in memory; and
    labels.json.
    """
    folder.mkdir(parents=True)
    source, labels = case.source, []
    if case.name == "small":
        kept = source.in_memory()
        np.save(folder / "images.npy", kept["image"])
        labels = kept["label"].tolist()
    else:
        for index in range(len(source)):
            record = source.records[index]
            for key in source.picture_shapes:
                encoded = record[source.keys.get(key, key)]
                (folder / f"{index:06d}.{key}").write_bytes(encoded)
            if case.name == "classification":
                labels.append(int(record[source.keys.get("label", "label")]))
    (folder / "labels.json").write_text(json.dumps(labels))
    return {
        "task": case.name,
        "folder": str(folder),
        "records": len(source),
        "crop": case.crop,
        "batch_size": case.run.batch_size,
        "padding": PADDING.get(case.run.dataset, 0),
        "flips": case.run.dataset != "digits",
    }


def measure(pipeline: data.Pipeline, seconds: float) -> dict[str, Any]:
    """Return images and seconds of a stretch of training, and the shapes of a batch."""
    batches = pipeline.train(0)
    try:
        shapes = {key: list(value.shape) for key, value in next(batches).items()}
        for _ in range(4 * WARM if pipeline.workers else WARM):
            next(batches)
        count, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < seconds:
            next(batches)
            count += pipeline.batch_size
    finally:
        batches.close()
    return {"images": count, "seconds": elapsed, "shapes": shapes}


class Peer:
    """PyTorch's side: a process that measures what it is asked for."""

    def __init__(self, python: Path):
        self._process = subprocess.Popen(
            [str(python), str(ROOT / "benchmarks" / "torch_input.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.versions = self._answer()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"PyTorch's side ended with status {self._process.wait()}")
        return json.loads(line)

    def measure(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return its answer, in the form of `measure`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()


def check_shapes(case: Case, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Raise unless both sides make batches of the same shapes: else the work is not the same."""
    wanted = {key: shape for key, shape in ours["shapes"].items() if key != "mask"}
    if wanted != theirs["shapes"]:
        raise RuntimeError(f"{case.name}: batches {wanted} here, {theirs['shapes']} in PyTorch")


def compare(
    case: Case, peer: Peer | None, folder: Path, rounds: int, seconds: float, processes: bool
) -> Speeds:
    """Return images/s of all, the fastest round of each."""
    best: dict[tuple[str, int], float] = {}
    request = export(case, folder) | {"seconds": seconds, "warm": WARM} if peer else {}

    def note(who: str, place: int, found: dict[str, Any]) -> dict[str, Any]:
        speed = found["images"] / found["seconds"]
        best[who, place] = max(speed, best.get((who, place), 0.0))
        return found

    for _ in range(rounds):
        ours = note("ours, threads", 0, measure(case.pipeline(1, 0), seconds))
        if case.name != "small":  # these are made by one thread, whatever is asked for
            note("ours, threads", 1, measure(case.pipeline(2, 0), seconds))
            if processes:
                note("ours, processes", 1, measure(case.pipeline(1, 2), seconds))
        if peer is None:
            continue
        for library in peer.versions["libraries"]:
            for place, workers in enumerate((0, 2)):
                asked = request | {"library": library, "workers": workers}
                theirs = note(f"DataLoader, {library}", place, peer.measure(asked))
                check_shapes(case, ours, theirs)
    whos = dict.fromkeys(who for who, _ in best)
    return {who: (best.get((who, 0)), best.get((who, 1))) for who in whos}


def step_speed(case: Case) -> float:
    """Return images/s of the training step of the network as published."""
    stepper = train_step.Stepper(case.network, 1.0)
    seconds = min(stepper.seconds() for _ in range(case.network.repeats))
    return len(case.network.batch["image"]) / seconds


def input_wait(case: Case, data_dir: Path | None, steps: int) -> tuple[float, float]:
    """Return images/s and the share of time spent waiting of a run through the command line."""
    never = config.Duration(steps=steps)
    run = dataclasses.replace(
        case.run,
        duration=never,
        evaluate_every=never,
        checkpoint_every=never,
        calibration_batches=1,
        evaluation_batch_size=1 if case.name == "super_resolution" else 8,
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.py")
        written = json.dumps(config_files.to_json(run))
        file.write_text(
            "import json\n\nfrom experiments.setup.config_files import from_json\n\n"
            f"config = from_json(json.loads({written!r}))\n"
        )
        command = [sys.executable, "-m", "experiments.train", "--config", str(file)]
        command += ["--workdir", f"{folder}/run"]
        command += [] if data_dir is None else ["--data-dir", str(data_dir.absolute())]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if done.returncode:
            raise RuntimeError(f"the training run failed:\n{done.stdout.decode()}")
        summary = json.loads(Path(folder, "run", "summary.json").read_text())
    return summary["images_per_second"], summary["input_wait"]


def main(
    classification: str | None = None,
    segmentation: str | None = None,
    super_resolution: str | None = None,
    small: str | None = "digits",
    data_dir: Path | None = None,
    torch_python: Path | None = None,
    rounds: int = 2,
    seconds: float = 1.5,
    records: int = 2000,
    processes: bool = True,
    training: int = 20,
) -> None:
    """Measure and print.

    Args:
        classification: a data set of pictures of many sizes.
        segmentation: one with masks.
        super_resolution: one of small and large pictures.
        small: one of small pictures that are kept in memory.
        data_dir: prepared data sets; the user's cache by default.
        torch_python: a Python with torch and Pillow; without it only ours is measured.
        rounds: how often each is measured; the fastest counts.
        seconds: of each measurement.
        records: training pictures that are read, at most.
        processes: measure ours with processes too (they take seconds to start).
        training: steps of the training runs; 0 leaves out these and the training steps.
    """
    asked = {
        "classification": classification,
        "segmentation": segmentation,
        "super_resolution": super_resolution,
        "small": small,
    }
    cases = [
        make_case(name, dataset, data_dir, records) for name, dataset in asked.items() if dataset
    ]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        peer = stack.enter_context(Peer(torch_python)) if torch_python else None
        if peer:
            libraries = ", ".join(f"{name} {v}" for name, v in peer.versions["libraries"].items())
            print(f"torch {peer.versions['torch']}, {libraries}")
        found = [
            compare(case, peer, folder / case.name, rounds, seconds, processes) for case in cases
        ]
    for case, speeds in zip(cases, found, strict=True):
        show(case, speeds)
        if training:
            fastest = max(speed for speed in speeds["ours, threads"] if speed)
            trained = step_speed(case)
            batch = len(case.network.batch["image"])
            print(
                f"training step of {case.network.name}, batch {batch}: {trained:.1f} images/s; "
                f"input keeps up {fastest / trained:.1f} times"
            )
            speed, wait = input_wait(case, data_dir, training)
            print(
                f"training {type(case.run.model).__name__} of width 8: {speed:.1f} images/s, "
                f"waiting for input {100 * wait:.1f} % of the time"
            )


def show(case: Case, speeds: Speeds) -> None:
    """Print a case's speeds, and ours in terms of each other's."""
    title = f"{case.run.dataset}: {case.crop} pixels, batch {case.run.batch_size}"
    table = Table("", "one", "two", "ours, threads / this", title=title)
    ours = speeds["ours, threads"]
    for who, row in speeds.items():
        shown = ["-" if speed is None else f"{speed:,.0f}/s" for speed in row]
        ratios = [f"{a / b:.2f}" if a and b else "-" for a, b in zip(ours, row, strict=True)]
        table.add_row(who, *shown, ", ".join(ratios))
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
