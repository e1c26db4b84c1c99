"""How fast the training step is, beside PyTorch's same network in the same run.

    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch
    .venv/bin/python -m benchmarks.train_step --torch-python /tmp/torch/bin/python

Prints images/s of ours and of PyTorch's (float32, clipping by the global norm, momentum SGD), what
clipping adds to the step, the share of time a run waits for input, and how long a start takes with
and without compiled programs in the cache.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import clipjax
from clipjax import models, tasks
from clipjax.train import mesh as meshes
from clipjax.train.step import Program, controls, step
from experiments.build import IMAGENET_MOMENTS

ROOT = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Case:
    """A network at a batch size, for both sides."""

    name: str
    model: Any
    task: Any
    batch: dict[str, np.ndarray]
    torch: dict[str, Any]
    repeats: int = 40


def nchw(shape: tuple[int, ...]) -> list[int]:
    """Return an image batch's shape as PyTorch wants it."""
    n, h, w, c = shape
    return [n, c, h, w]


def make_batch(image: tuple[int, ...], **others: np.ndarray) -> dict[str, np.ndarray]:
    """Return a batch of random pictures."""
    pixels = np.random.default_rng(0).integers(0, 256, image, dtype=np.uint8)
    return {"image": pixels, "mask": np.ones(image[0], np.float32), **others}


def resnet_case(
    name: str, image: tuple[int, ...], classes: int, width: int, stem: str, **kw
) -> Case:
    """Return a classification case."""
    channels = image[-1]
    moments = [m[:channels] for m in IMAGENET_MOMENTS]
    labels = np.arange(image[0], dtype=np.int32) % classes
    model = {"channels": channels, "classes": classes, "width": width, "stem": stem}
    torch = {"net": "resnet18", "model": model, "image": nchw(image), "target": [image[0]]}
    return Case(
        name,
        models.ResNet18(num_classes=classes, width=width, stem=stem),
        tasks.Classification(classes, *moments),
        make_batch(image, label=labels),
        torch | {"target_classes": classes},
        **kw,
    )


def cases(full: bool) -> list[Case]:
    """Return the demo's networks and, if asked, ResNet-18 as published."""
    image = (4, 128, 128, 3)
    size: dict[str, Any] = {"width": 8, "fc_width": 64, "fc_kernel": 5}
    blocks = (1, 1, 1, 1)
    found = [
        resnet_case("ResNet-18, width 8, digits 8x8", (64, 8, 8, 1), 10, 8, "small"),
        Case(
            "FCN, width 8, scenes 128x128",
            models.FCN32s(
                num_classes=11,
                **size,
                pool_stages=4,
                block_sizes=blocks,
                dropout=0.0,
                batch_norm=True,
            ),
            tasks.Segmentation(11, *IMAGENET_MOMENTS),
            make_batch(image, label=np.ones(image[:3], np.uint8)),
            {
                "net": "fcn",
                "model": {"channels": 3, "classes": 11, **size, "block_sizes": blocks}
                | {"batch_norm": True},
                "image": nchw(image),
                "target": image[:3],
                "target_classes": 11,
            },
        ),
        Case(
            "SRResNet, 2 blocks, 24x24 to 96x96",
            models.SRResNet(num_blocks=2, channels=16, kernel_size=5, global_skip="bicubic"),
            tasks.SuperResolution(),
            make_batch((4, 24, 24, 3), target=np.zeros((4, 96, 96, 3), np.uint8)),
            {
                "net": "srresnet",
                "model": {"channels": 16, "num_blocks": 2, "kernel_size": 5, "skip": True},
                "image": [4, 3, 24, 24],
                "target": [4, 3, 96, 96],
                "target_classes": 0,
            },
        ),
    ]
    if full:
        found.append(
            resnet_case("ResNet-18, 224x224", (8, 224, 224, 3), 1000, 64, "imagenet", repeats=3)
        )
    return found


class Stepper:
    """Our training step, compiled and warm."""

    def __init__(self, case: Case, clip_level: float | None):
        self._batch = case.batch
        self._program = Program(
            model=case.model,
            task=case.task,
            optimizer=lambda rates: clipjax.clipped_sgd(
                rates["learning_rate"], clip_level, momentum=0.9
            ),
            evaluation_params=lambda _, params: params,
            step_metrics=lambda *_: {},
            mesh=meshes.make_mesh(),
        )
        self._controls = controls(0, {"learning_rate": 1e-4})
        batch = meshes.place(case.batch, self._program.mesh)
        self._state = self._program.init(self._controls, batch)
        self.size = sum(leaf.size for leaf in jax.tree.leaves(self._state.params))
        for _ in range(2):
            self.seconds()

    def seconds(self) -> float:
        """Do one step, the batch from the host included, and return its seconds."""
        began = time.perf_counter()
        batch = meshes.place(self._batch, self._program.mesh)
        self._state, _ = step(self._program, self._state, [batch], self._controls)
        jax.block_until_ready(self._state)
        return time.perf_counter() - began


def measure(case: Case) -> tuple[int, float, float]:
    """Return (parameters, seconds with clipping, seconds without), the two taken in turn."""
    clipped, plain = Stepper(case, 1.0), Stepper(case, None)
    pairs = [(clipped.seconds(), plain.seconds()) for _ in range(case.repeats)]
    return clipped.size, min(p[0] for p in pairs), min(p[1] for p in pairs)


def start_up() -> tuple[float, float, float]:
    """Return (cold start, warm start, input wait) of configs/smoke.py; starts are of one step."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"CLIPJAX_CACHE_DIR": f"{folder}/cache"}

        def run(name: str, steps: int) -> float:
            began = time.perf_counter()
            subprocess.run(
                [
                    *(sys.executable, "-m", "experiments.train", "--config", "configs/smoke.py"),
                    *("--duration.steps", str(steps), "--workdir", f"{folder}/{name}"),
                ],
                cwd=ROOT,
                env=environment,
                check=True,
                capture_output=True,
            )
            return time.perf_counter() - began

        cold, warm = run("cold", 1), run("warm", 1)
        run("long", 200)
        summary = json.loads(Path(folder, "long", "summary.json").read_text())
    return cold, warm, summary["input_wait"]


def main(torch_python: Path | None = None, full: bool = True) -> None:
    """Measure and print.

    Args:
        torch_python: a Python with torch installed; without it only ours is measured.
        full: with ResNet-18 at its published size.
    """
    measured = cases(full)
    ours = [measure(case) for case in measured]
    theirs: list[Any] = [None] * len(measured)
    title = f"jax {jax.__version__}"
    if torch_python:
        request = json.dumps([case.torch | {"repeats": case.repeats} for case in measured])
        answer = json.loads(
            subprocess.run(
                [str(torch_python), str(ROOT / "benchmarks" / "torch_step.py")],
                input=request,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        theirs, title = answer["answers"], f"{title}, torch {answer['torch']}"
    table = Table(
        "network", "batch", "parameters", "ours", "torch", "ratio", "clipping", title=title
    )
    for case, (size, clipped, without), peer in zip(measured, ours, theirs, strict=True):
        batch = len(case.batch["image"])
        speeds = ["-", "-"]
        if peer:
            if peer[0] != size:
                raise RuntimeError(f"{case.name}: {size} parameters here, {peer[0]} in PyTorch")
            speeds = [f"{batch / peer[1]:.1f}/s", f"{peer[1] / clipped:.2f}"]
        share = f"{100 * (clipped - without) / clipped:.1f} %"
        table.add_row(
            case.name, str(batch), f"{size:,}", f"{batch / clipped:.1f}/s", *speeds, share
        )
    Console().print(table)
    cold, warm, wait = start_up()
    print(f"start-up to the end of one step: cold {cold:.1f} s, warm {warm:.1f} s")
    print(f"waiting for input in configs/smoke.py: {100 * wait:.1f} % of the time")


if __name__ == "__main__":
    tyro.cli(main)
