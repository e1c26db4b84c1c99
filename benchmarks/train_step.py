"""How fast the training step is, beside PyTorch's same network in the same run.

    python3 -m venv /tmp/torch && /tmp/torch/bin/pip install torch
    .venv/bin/python -m benchmarks.train_step --torch-python /tmp/torch/bin/python

Prints images/s of ours and of PyTorch's (clipping by the global norm, momentum SGD), what clipping
adds to the step, the share of time a run waits for input, and how long a start takes with and
without compiled programs in the cache. A step begins with uint8 pictures on the host, both sides.

On a GPU, with both sides installed for it, batches are larger and PyTorch's side is compiled
(torch.compile) with channels last; --dtype bfloat16 for mixed precision on both sides. That path
has not been run on a GPU: none was at hand. --torch-mode compiled tries PyTorch's part on a CPU.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import clipjax
from clipjax import models, tasks
from clipjax.train import mesh as meshes
from clipjax.train.step import Program, controls, step
from experiments.setup.build import IMAGENET_MOMENTS

ROOT = Path(__file__).parent.parent

TorchMode = Literal["auto", "eager", "compiled"]

GPU_BATCHES = (128, 16, 16)
"""Of ResNet-18, FCN-32s, SRResNet on a GPU."""


@dataclasses.dataclass(frozen=True)
class Case:
    """A network at a batch size, for both sides."""

    name: str
    model: Any
    task: Any
    batch: dict[str, np.ndarray]
    torch: dict[str, Any]
    repeats: int = 40
    warm: int = 2


def nchw(shape: tuple[int, ...]) -> list[int]:
    """Return an image batch's shape as PyTorch wants it."""
    n, h, w, c = shape
    return [n, c, h, w]


def make_batch(image: tuple[int, ...], **others: np.ndarray) -> dict[str, np.ndarray]:
    """Return a batch of random pictures."""
    pixels = np.random.default_rng(0).integers(0, 256, image, dtype=np.uint8)
    return {"image": pixels, "mask": np.ones(image[0], np.float32), **others}


def resnet_case(
    name: str, image: tuple[int, ...], classes: int, width: int, stem: str, dtype: Any, **kw
) -> Case:
    """Return a classification case."""
    channels = image[-1]
    moments = [m[:channels] for m in IMAGENET_MOMENTS]
    labels = np.arange(image[0], dtype=np.int32) % classes
    model = {"channels": channels, "classes": classes, "width": width, "stem": stem}
    torch = {"net": "resnet18", "model": model, "image": nchw(image), "target": [image[0]]}
    return Case(
        name,
        models.ResNet18(num_classes=classes, width=width, stem=stem, dtype=dtype),
        tasks.Classification(classes, *moments),
        make_batch(image, label=labels),
        torch | {"target_classes": classes},
        **kw,
    )


def fcn_case(name: str, image: tuple[int, ...], classes: int, dtype: Any, model: Any, **kw) -> Case:
    """Return a segmentation case; `model` has what both sides' networks take."""
    torch = {"channels": image[-1], "classes": classes, **model}
    return Case(
        name,
        models.FCN32s(
            num_classes=classes, pool_stages=len(model["block_sizes"]), dtype=dtype, **model
        ),
        tasks.Segmentation(classes, *IMAGENET_MOMENTS),
        make_batch(image, label=np.ones(image[:3], np.uint8)),
        {"net": "fcn", "model": torch, "image": nchw(image), "target": image[:3]}
        | {"target_classes": classes},
        **kw,
    )


def srresnet_case(name: str, batch: int, dtype: Any, skip: Any, model: Any, **kw) -> Case:
    """Return a super-resolution case, crops of 24 to 96 pixels."""
    image, target = (batch, 24, 24, 3), (batch, 96, 96, 3)
    return Case(
        name,
        models.SRResNet(**model, global_skip=skip, dtype=dtype),
        tasks.SuperResolution(),
        make_batch(image, target=np.zeros(target, np.uint8)),
        {"net": "srresnet", "model": model | {"skip": bool(skip)}, "image": nchw(image)}
        | {"target": nchw(target), "target_classes": 0},
        **kw,
    )


def demo_cases(dtype: Any = np.float32) -> list[Case]:
    """Return the demo's networks."""
    fcn = {"width": 8, "fc_width": 64, "fc_kernel": 5, "block_sizes": (1, 1, 1, 1)}
    fcn |= {"batch_norm": True, "dropout": 0.0}
    srresnet = {"channels": 16, "num_blocks": 2, "kernel_size": 5}
    return [
        resnet_case("ResNet-18, width 8, digits 8x8", (64, 8, 8, 1), 10, 8, "small", dtype),
        fcn_case("FCN, width 8, scenes 128x128", (4, 128, 128, 3), 11, dtype, fcn),
        srresnet_case("SRResNet, 2 blocks, 24x24 to 96x96", 4, dtype, "bicubic", srresnet),
    ]


def full_cases(dtype: Any = np.float32, batches: tuple[int, int, int] = (8, 2, 4)) -> list[Case]:
    """Return the networks as published: ResNet-18, FCN-32s on VGG-16, SRResNet."""
    resnet, fcn, srresnet = batches
    vgg = {"width": 64, "fc_width": 4096, "fc_kernel": 7, "block_sizes": (2, 2, 3, 3, 3)}
    vgg |= {"batch_norm": False, "dropout": 0.5}
    blocks = {"channels": 64, "num_blocks": 16, "kernel_size": 9}
    few: dict[str, Any] = {"repeats": 3, "warm": 1}
    image = (resnet, 224, 224, 3)
    return [
        resnet_case("ResNet-18, 224x224", image, 1000, 64, "imagenet", dtype, **few),
        fcn_case("FCN-32s, 320x320", (fcn, 320, 320, 3), 21, dtype, vgg, **few),
        srresnet_case("SRResNet, 24x24 to 96x96", srresnet, dtype, None, blocks, **few),
    ]


def cases(full: bool, dtype: Any = np.float32, gpu: bool = False) -> list[Case]:
    """Return the demo's networks and, if asked, those as published; larger batches on a GPU."""
    found = demo_cases(dtype)
    if full and gpu:
        found += [
            dataclasses.replace(case, repeats=20, warm=3) for case in full_cases(dtype, GPU_BATCHES)
        ]
    elif full:
        found += full_cases(dtype)
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
        for _ in range(case.warm):
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


def ask_torch(python: Path, measured: list[Case], dtype: str, mode: TorchMode) -> dict[str, Any]:
    """Return what PyTorch's side answers."""
    asked = [case.torch | {"repeats": case.repeats, "warm": case.warm} for case in measured]
    answer = subprocess.run(
        [str(python), str(ROOT / "benchmarks" / "torch_step.py")],
        input=json.dumps({"cases": asked, "dtype": dtype, "mode": mode}),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(answer.stdout)


def check_same(device: str, measured: list[Case], sizes: list[int], answer: dict[str, Any]) -> None:
    """Raise unless both sides ran on the same kind of device, and networks of the same size."""
    theirs = "gpu" if answer["device"] == "cuda" else answer["device"]
    if theirs != device:
        raise ValueError(
            f"PyTorch ran on {theirs}, JAX on {device}: a ratio would say nothing. Install both "
            "for the same device (JAX_PLATFORMS=cpu and CUDA_VISIBLE_DEVICES= keep both off a GPU)"
        )
    for case, size, peer in zip(measured, sizes, answer["answers"], strict=True):
        if peer[0] != size:
            raise RuntimeError(f"{case.name}: {size} parameters here, {peer[0]} in PyTorch")


def main(
    torch_python: Path | None = None,
    full: bool = True,
    dtype: Literal["float32", "bfloat16"] = "float32",
    torch_mode: TorchMode = "auto",
    start: bool = True,
) -> None:
    """Measure and print.

    Args:
        torch_python: a Python with torch installed; without it only ours is measured.
        full: with the networks at their published sizes.
        dtype: what networks compute in; parameters are float32.
        torch_mode: "compiled" is torch.compile and channels_last; "auto" is that on a GPU.
        start: with the times of a start and the waiting for input.
    """
    # Both sides share a GPU: PyTorch comes first, while JAX, which keeps what it had, has little.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    device = jax.default_backend()
    measured = cases(full, jax.numpy.dtype(dtype), gpu=device != "cpu")
    answer = ask_torch(torch_python, measured, dtype, torch_mode) if torch_python else None
    ours = [measure(case) for case in measured]
    title = f"{jax.devices()[0].device_kind}, {dtype}: jax {jax.__version__}"
    theirs: list[Any] = [None] * len(measured)
    if answer:
        check_same(device, measured, [size for size, *_ in ours], answer)
        theirs = answer["answers"]
        title = f"{title}, torch {answer['torch']} {answer['mode']}"
    table = Table(
        "network", "batch", "parameters", "ours", "torch", "ratio", "clipping", title=title
    )
    for case, (size, clipped, without), peer in zip(measured, ours, theirs, strict=True):
        batch = len(case.batch["image"])
        speeds = [f"{batch / peer[1]:.1f}/s", f"{peer[1] / clipped:.2f}"] if peer else ["-", "-"]
        share = f"{100 * (clipped - without) / clipped:.1f} %"
        table.add_row(
            case.name, str(batch), f"{size:,}", f"{batch / clipped:.1f}/s", *speeds, share
        )
    Console().print(table)
    if start:
        cold, warm, wait = start_up()
        print(f"start-up to the end of one step: cold {cold:.1f} s, warm {warm:.1f} s")
        print(f"waiting for input in configs/smoke.py: {100 * wait:.1f} % of the time")


if __name__ == "__main__":
    tyro.cli(main)
