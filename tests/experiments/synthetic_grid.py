"""A grid's folder as `experiments.compare` leaves it, with made-up but plausible numbers."""

import json
from pathlib import Path

import numpy as np

from experiments.report import results, write

TASKS = {
    # folder: (dataset, kind, primary metric, its value, its baseline, examples per step, steps)
    "classification": (
        "digits",
        "classification",
        "top1",
        0.96,
        {"majority_top1": 0.1028},
        64,
        400,
    ),
    "segmentation": (
        "digit_scenes",
        "segmentation",
        "mean_iou",
        0.35,
        {"majority_mean_iou": 0.077, "majority_pixel_accuracy": 0.847},
        16,
        300,
    ),
    "photos": (
        "photos_x4",
        "super_resolution",
        "psnr",
        25.1,
        {"bicubic_psnr": 24.4, "bicubic_psnr_y": 26.1, "bicubic_ssim_y": 0.7531},
        16,
        300,
    ),
}
METHODS = {
    "sgd": {"type": "SGD", "learning_rate": 0.1, "momentum": 0.9},
    "adam": {"type": "Adam", "learning_rate": 0.001},
    "clipped_sgd": {
        "type": "ClippedSGD",
        "learning_rate": 0.3,
        "clip_level": 0.5,
        "clip": "value",
    },
    "clipped_sstm": {
        "type": "ClippedSSTM",
        "learning_rate": 0.01,
        "smoothness": 10.0,
        "clip_level": 1.0,
    },
}
RULE = {"type": "Rule", "learning_rate": 0.001}
"""The optimizer of every other method."""
TWELVE = (
    *METHODS,
    *("adamw", "lion", "contrib.muon(lr)"),
    "chain(clip_by_quantile(0.9), adamw(lr))",
    "chain(clip_by_quantile(0.9), adamw(lr, weight_decay=wd, mask=kernels))",
    "chain(clip_by_quantile(0.99, window=1000), adamw(lr, weight_decay=wd, mask=kernels))",
    "chain(clip_by_quantile(0.99, window=1000), "
    "adamw(lr, weight_decay=wd, mask=kernels), ema(decay=0.9))",
    "chain(clip_by_zscore(2.5), scale_by_shampoo(), scale_by_learning_rate(lr))",
)
"""Names of methods, also such as rules written as text have."""
CLASS_NAMES = {
    "classification": tuple(map(str, range(10))),
    "segmentation": ("background", *map(str, range(10))),
    "photos": (),
}
SHARES = {0: 0.847, 1: 0.1, 2: 0.03, 3: 0.023, 8: 0.0}
"""Of the classes of segmentation; the others are neither in the truth nor predicted."""
IOUS = {0: 0.9, 1: 0.4, 2: 0.1, 3: 0.0, 8: 0.0}
SEEDS = (0, 1, 2)
DIVERGED = ("segmentation", "sgd", 2)


def write_grid(workdir: Path, *, tasks=tuple(TASKS), methods=tuple(METHODS), seeds=SEEDS) -> None:
    for t, task in enumerate(tasks):
        for m, method in enumerate(methods):
            for seed in seeds:
                rng = np.random.default_rng([t, m, seed])
                write_run(workdir / task / method / f"seed{seed}", task, method, m, seed, rng)


def write_run(folder: Path, task: str, method: str, rank: int, seed: int, rng) -> None:
    dataset, kind, primary, value, baselines, batch_size, steps = TASKS[task]
    diverged = (task, method, seed) == DIVERGED
    skill = 1 + 0.02 * rank + rng.normal(0, 0.004)
    rows = []
    for step in range(10, steps + 1, 10):
        progress = step / steps
        loss = (0.01 if kind == "super_resolution" else 2.3) * np.exp(-3 * skill * progress)
        row = {
            "split": "train",
            "step": step,
            "examples": step * batch_size,
            "loss": loss * np.exp(rng.normal(0, 0.1)),
            "gradient_norm": 3 * np.exp(-progress + rng.normal(0, 0.3)),
            "learning_rate": METHODS.get(method, RULE)["learning_rate"],
            "images_per_second": 900.0,
        }
        row[primary] = value * skill * (1 - 0.6 * np.exp(-5 * progress)) + rng.normal(0, 0.01)
        if method.startswith("clipped"):
            row |= {"clip_level": 1.0, "clipped_fraction": 0.7 * np.exp(-progress * (1 + rank))}
        rows.append(row)
        if diverged and step == 150:
            break
        if step % 50 == 0:
            score = value * skill * (1 - 0.5 * np.exp(-5 * progress))
            rows.append(
                {"split": "evaluation", "step": step, "examples": step * batch_size}
                | {"loss": 1.1 * loss, primary: score, **baselines}
            )
    metrics = {"loss": 1.1 * loss, primary: value * skill, **baselines}
    if kind == "classification":
        metrics["top5"] = min(0.99 * skill, 1.0)
    if kind == "segmentation":
        metrics["pixel_accuracy"] = 0.88 * skill
        # Class 8 is in no truth, and predicted by seed 1 alone.
        seen = [k for k in SHARES if k != 8 or seed == 1]
        metrics |= {f"iou_{k}": IOUS[k] * skill for k in seen}
        metrics |= {f"share_{k}": SHARES[k] for k in seen}
    if kind == "super_resolution":
        metrics |= {"psnr_rgb": 24.9 * skill, "psnr_y": 26.7 * skill, "ssim_y": 0.77 * skill}
    summary = {
        "status": "diverged" if diverged else "finished",
        "reason": "the loss is nan at step 151" if diverged else None,
        "name": f"{task}/{method}/seed{seed}",
        "task": kind,
        "dataset": dataset,
        "num_train": 1000,
        "method": method,
        "class_names": CLASS_NAMES[task],
        "seed": seed,
        "device": "1 x cpu",
        "metrics": {} if diverged else metrics,
        "wall_time": 5.0 + rank,
        "config": {
            "type": "Run",
            "model": {"type": "ResNet18", "width": 8},
            "optimizer": METHODS.get(method, RULE),
            "batch_size": batch_size,
        },
        "versions": {"python": "3.11.7", "jax": "0.10.2", "optax": "0.2.8"},
        "git_commit": "0123456789abcdef0123456789abcdef01234567",
    }
    if not diverged:
        summary |= {"steps": steps, "examples": steps * batch_size}
        summary |= {"images_per_second": 900.0 + rank, "num_params": 176_258}
        (folder / "figures").mkdir(parents=True)
        np.savez_compressed(folder / "figures" / "samples.npz", **samples(kind, rng))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def samples(kind: str, rng, count: int = 3) -> dict[str, np.ndarray]:
    """Return what Task.samples returns: the same examples for every run, its own predictions."""
    fixed = np.random.default_rng(7)
    if kind == "classification":
        label = fixed.integers(0, 10, count)
        image = fixed.integers(0, 256, (count, 8, 8, 1), np.uint8)
        prediction = np.where(rng.random(count) < 0.2, (label + 1) % 10, label)
        return {"image": image, "label": label, "prediction": prediction}
    if kind == "segmentation":
        image = fixed.integers(0, 256, (count, 32, 32, 3), np.uint8)
        label = np.zeros((count, 32, 32), np.int32)
        for i in range(count):
            label[i, 4:14, 3:12], label[i, 18:30, 14:28] = 1 + i, 6 + i
        label[:, 0] = 255
        prediction = np.where((rng.random(label.shape) < 0.2) | (label == 255), 0, label)
        return {"image": image, "label": label, "prediction": prediction}
    target = fixed.integers(0, 256, (count, 32, 32, 3), np.uint8)
    blurred = np.repeat(np.repeat(target[:, ::4, ::4], 4, 1), 4, 2)
    mix = rng.uniform(0.3, 0.6)
    prediction = (mix * target + (1 - mix) * blurred).astype(np.uint8)
    lr = target[:, ::4, ::4]
    return {"lr": lr, "bicubic": blurred, "prediction": prediction, "target": target}


def grid_of(workdir, *tasks, methods=tuple(METHODS), seeds=(0, 1, 2)):
    """Write a grid and read it as the report does."""
    write_grid(workdir, tasks=tasks, methods=methods, seeds=seeds)
    return results.read_grid(workdir, write.ORDER)


def change(workdir, edit, pattern="*/*/*"):
    """Apply `edit` to the summaries of a grid; return the grid."""
    for path in workdir.glob(f"{pattern}/summary.json"):
        summary = json.loads(path.read_text())
        edit(summary)
        path.write_text(json.dumps(summary))
    return results.read_grid(workdir, write.ORDER)


def rows(table):
    """Return the cells of a table's rows by the text of the first."""
    return {row[0].text: row[1:] for row in table.rows}
