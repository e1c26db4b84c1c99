"""Optimizers as texts, beside the calls that they stand for; tiny networks of the three tasks."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import optax
import optax.contrib

import clipjax
from experiments.setup import config as configs
from experiments.setup.rule_building import kernels


@dataclass(frozen=True)
class Row:
    """A text with its values, and the transformation that it stands for, from these in order."""

    text: str
    values: dict[str, float]
    make: Callable[..., Any]
    public: str = ""
    """The name in clipjax that it is a row for."""


def key():
    """What `key` is in a run of seed 0."""
    return jax.random.key(0)


def then_sgd(transformation):
    return optax.chain(transformation, optax.sgd(0.1))


LR = {"lr": 0.1}
OURS = (
    Row("clip_by_global_norm", {"level": 0.5}, clipjax.clip_by_global_norm),
    Row("clip_by_tensor_norm", {"level": 0.5}, clipjax.clip_by_tensor_norm),
    Row("clip_by_value", {"level": 0.01}, clipjax.clip_by_value),
    Row("normalize_by_global_norm", {}, clipjax.normalize_by_global_norm),
    Row("clip_by_quantile", {"level": 0.9}, clipjax.clip_by_quantile),
    Row("clip_by_zscore", {}, clipjax.clip_by_zscore),
    Row("clip_by_adaptive_norm", {}, clipjax.clip_by_adaptive_norm),
)
"""Clippings by a positional level; each is followed by SGD."""

ROWS = {
    **{
        row.text: Row(
            f"chain({row.text}({'level' if row.values else ''}), sgd(0.1))",
            row.values,
            lambda level=None, make=row.make: then_sgd(make() if level is None else make(level)),
            row.text,
        )
        for row in OURS
    },
    "clip_with_probability": Row(
        "chain(clip_with_probability(level, base=0.7, key=key), sgd(0.1))",
        {"level": 0.5},
        lambda level: then_sgd(clipjax.clip_with_probability(level, base=0.7, key=key())),
        "clip_with_probability",
    ),
    "clipped_sgd": Row(
        "clipped_sgd(lr, level, clip='value', momentum=0.9)",
        LR | {"level": 0.5},
        lambda lr, level: clipjax.clipped_sgd(lr, level, clip="value", momentum=0.9),
        "clipped_sgd",
    ),
    "clipped_sstm": Row(
        "clipped_sstm(lr, L, level)",
        LR | {"L": 10.0, "level": 1.0},
        lambda lr, L, level: clipjax.clipped_sstm(lr, L, level),
        "clipped_sstm",
    ),
    "scale_by_similar_triangles": Row(
        "scale_by_similar_triangles(lr)",
        LR,
        lambda lr: clipjax.scale_by_similar_triangles(lr),
        "scale_by_similar_triangles",
    ),
    "clipped_adam": Row(
        "clipped_adam(lr, level)",
        LR | {"level": 1.0},
        lambda lr, level: clipjax.clipped_adam(lr, level),
        "clipped_adam",
    ),
    "clipped_adagrad": Row(
        "clipped_adagrad(lr, level)",
        LR | {"level": 1.0},
        lambda lr, level: clipjax.clipped_adagrad(lr, level),
        "clipped_adagrad",
    ),
    "acclip": Row("acclip(lr)", LR, lambda lr: clipjax.acclip(lr), "acclip"),
    "shampoo": Row("shampoo(lr)", LR, lambda lr: clipjax.shampoo(lr), "shampoo"),
    "scale_by_shampoo": Row(
        "chain(scale_by_shampoo(), scale_by_learning_rate(lr))",
        LR,
        lambda lr: optax.chain(clipjax.scale_by_shampoo(), optax.scale_by_learning_rate(lr)),
        "scale_by_shampoo",
    ),
    "average_iterates": Row(
        "average_iterates(sgd(lr))",
        LR,
        lambda lr: clipjax.average_iterates(optax.sgd(lr)),
        "average_iterates",
    ),
    "accumulate_gradients": Row(
        "accumulate_gradients(sgd(lr), 2)",
        LR,
        lambda lr: clipjax.accumulate_gradients(optax.sgd(lr), 2),
        "accumulate_gradients",
    ),
    "measure_gradient_variance": Row(
        "measure_gradient_variance(accumulate_gradients(sgd(lr), 2), 4)",
        LR,
        lambda lr: clipjax.measure_gradient_variance(
            clipjax.accumulate_gradients(optax.sgd(lr), 2), 4
        ),
        "measure_gradient_variance",
    ),
    "with_restarts": Row(
        "with_restarts(clipped_sstm(lr, 10.0, 1.0), (1, 100))",
        LR,
        lambda lr: clipjax.with_restarts(clipjax.clipped_sstm(lr, 10.0, 1.0), (1, 100)),
        "with_restarts",
    ),
    "sgd": Row("sgd(lr)", LR, optax.sgd),
    "momentum": Row(
        "sgd(lr, momentum=m)",
        {"lr": 0.1, "m": 0.9},
        lambda lr, m: optax.sgd(lr, momentum=m),
    ),
    "nesterov": Row("sgd(lr, 0.9, nesterov=1)", LR, lambda lr: optax.sgd(lr, 0.9, nesterov=True)),
    "adam": Row("adam(lr)", LR, optax.adam),
    "adamw": Row(
        "adamw(lr, weight_decay=wd, mask=kernels)",
        {"lr": 0.1, "wd": 0.05},
        lambda lr, wd: optax.adamw(lr, weight_decay=wd, mask=kernels),
    ),
    "adagrad": Row("adagrad(lr)", LR, optax.adagrad),
    "rmsprop": Row("rmsprop(lr)", LR, optax.rmsprop),
    "lion": Row("lion(lr)", LR, optax.lion),
    "lamb": Row("lamb(lr)", LR, optax.lamb),
    "adafactor": Row("adafactor(lr)", LR, optax.adafactor),
    "schedule_free_adamw": Row("schedule_free_adamw(lr)", LR, optax.contrib.schedule_free_adamw),
    "muon": Row("optax.contrib.muon(lr)", LR, optax.contrib.muon),
}

CLASSIFICATION = configs.Run(
    task="classification",
    dataset="digits",
    model=configs.MLP(hidden=(8,)),
    optimizer=configs.SGD(0.1),
    duration=configs.Duration(steps=2),
    batch_size=4,
    augment=False,
    log_every=1,
    calibration_batches=1,
    evaluation_batch_size=360,
    samples=0,
)
TASKS = {
    "classification": CLASSIFICATION,
    "segmentation": dataclasses.replace(
        CLASSIFICATION,
        task="segmentation",
        dataset="digit_scenes",
        model=configs.FCN32s(
            width=2, fc_width=4, fc_kernel=1, pool_stages=2, block_sizes=(1, 1), batch_norm=True
        ),
        batch_size=1,
    ),
    "super_resolution": dataclasses.replace(
        CLASSIFICATION,
        task="super_resolution",
        dataset="photos_x4",
        model=configs.SRResNet(num_blocks=1, channels=4, kernel_size=3),
        batch_size=1,
        crop=16,
    ),
}
