"""A model, a task and data small enough to train in milliseconds, with all that training meets."""

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import optax

from clipjax.train import mesh as meshes
from clipjax.train.step import Program


class Net(nn.Module):
    """Dense - BatchNorm - dropout - dense."""

    dropout: float = 0.0
    bn_momentum: float = 0.9
    batch_norm: bool = True
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(8, param_dtype=self.param_dtype)(x.reshape(len(x), -1))
        if self.batch_norm:
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=self.bn_momentum,
                param_dtype=self.param_dtype,
            )(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return nn.Dense(1, param_dtype=self.param_dtype)(x)[:, 0]


@dataclass(frozen=True)
class Regression:
    """Least squares; implements clipjax.typing.Task."""

    def inputs(self, batch):
        return batch["image"]

    def loss(self, outputs, batch):
        squares = batch["mask"] * (outputs - batch["label"]) ** 2
        return jnp.sum(squares) / jnp.maximum(self.weight(batch), 1)

    def weight(self, batch):
        return jnp.sum(batch["mask"])

    def statistics(self, outputs, batch):
        squares = batch["mask"] * (outputs - batch["label"]) ** 2
        return {"squares": jnp.sum(squares), "count": jnp.sum(batch["mask"])}

    def metrics(self, statistics):
        return {"loss": float(statistics["squares"]) / float(statistics["count"])}

    def samples(self, outputs, batch):
        return {"prediction": np.asarray(outputs), "label": np.asarray(batch["label"])}


@dataclass(frozen=True)
class Points:
    """Implements clipjax.typing.Data: batch k is a function of (seed, k)."""

    seed: int = 0
    batch_size: int = 16
    num_train: int = 160
    num_evaluation: int = 20
    poison: int = -1
    """Number of a training batch that holds a NaN."""
    dtype: str = "float32"
    ragged: bool = False
    """Whether the examples of training batches that count differ in number, from none to all."""

    def _batch(self, *key, size=None, valid=None):
        rng = np.random.default_rng([self.seed, *key])
        size = size or self.batch_size
        x = rng.normal(size=(size, 4)).astype(self.dtype)
        y = np.sin(x.sum(1)).astype(self.dtype)
        mask = (np.arange(size) < (size if valid is None else valid)).astype(self.dtype)
        return {"image": x, "label": y, "mask": mask}

    def train(self, start, *, process_index=0, process_count=1):
        number = start
        while True:
            valid = (
                7 * (number + 8) % (self.batch_size + 1) if self.ragged else None
            )  # 0 in the 9th
            batch = self._batch(0, number, valid=valid)
            if number == self.poison:
                batch["label"][0] = np.nan
            yield {k: v[process_index::process_count] for k, v in batch.items()}
            number += 1

    def evaluation(self, *, process_index=0, process_count=1):
        for number, valid in ((0, 16), (1, 4)):
            batch = self._batch(1, number, size=16, valid=valid)
            yield {k: v[process_index::process_count] for k, v in batch.items()}

    def calibration(self, num_batches, *, process_index=0, process_count=1):
        for number in range(min(num_batches, self.num_train // self.batch_size)):
            batch = self._batch(2, number)
            yield {k: v[process_index::process_count] for k, v in batch.items()}


def program(devices, *, model=None, optimizer=None):
    """Return a Program over these devices, momentum SGD unless said otherwise."""
    return Program(
        model=model or Net(),
        task=Regression(),
        optimizer=optimizer or (lambda rates: optax.sgd(rates["learning_rate"], momentum=0.9)),
        evaluation_params=lambda _, params: params,
        step_metrics=lambda _, rates, step: {"learning_rate": rates["learning_rate"]},
        mesh=meshes.make_mesh(devices),
    )
