"""The gradient noise of a run in numbers: of a checkpoint, and live, every so many steps.

Measured at the query point, where training takes its gradients: the norms of the noise of single
examples, |∇f_i - ∇f|, and of minibatches. Examples are training images, not augmented, the same
ones each time. The network is in evaluation mode, without dropout and with BatchNorm's statistics
frozen, so that an example's gradient does not depend on the other examples, and the noise is that
of their choice alone. The statistics are those of the very point, measured there from the training
batches that hold the examples: the running averages belong to the points of the last steps, and to
none at all when training has just begun. That costs one more forward pass for each example, besides
its two gradients, and nothing where the network has no BatchNorm.

`make_probe` gives training's loop what it calls. A measurement reads the state and draws nothing
from training's random numbers, so parameters stay bit for bit those of a run without it. It runs on
one device of each host, while the others wait.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from clipjax import analysis
from clipjax.data import Pipeline
from clipjax.train.batch_stats import recompute_batch_stats
from clipjax.train.probe import Probe
from clipjax.train.state import TrainState
from clipjax.train.step import Program
from experiments.setup import config as configs

OF_CONTROL = ("excess_kurtosis", "rho_mild", "block_tail_index", "hill_tail_index")
"""What a row of the live probe tells of the Gaussian control; the others follow from the sample."""


def training_examples(data: Pipeline, count: int) -> dict[str, np.ndarray]:
    """Return `count` training examples, not augmented, or all of them where there are fewer.

    The leading axis is the example. They are the first ones of the calibration batches.
    """
    return next(dataclasses.replace(data, batch_size=min(count, data.num_train)).calibration(1))


def calibration_batches(
    model_state: Any, data: Pipeline, examples: int, asked: int | None = None
) -> list[dict[str, np.ndarray]]:
    """Return the training batches from which BatchNorm's statistics are measured at a point.

    Args:
        model_state: the network's; without BatchNorm there are no such batches.
        data: where they come from. They are the first of those that `evaluate` takes.
        examples: how many they hold together, rounded up to full batches.
        asked: so many batches instead.
    """
    if "batch_stats" not in model_state:
        return []
    wanted = math.ceil(min(examples, data.num_train) / data.batch_size)
    return list(data.calibration(wanted if asked is None else asked))


def own_statistics(
    program: Program, params: Any, model_state: Any, batches: list[dict[str, np.ndarray]]
) -> Any:
    """Return the model state with BatchNorm's statistics measured at these very parameters."""
    return recompute_batch_stats(program.model, params, model_state, batches, program.task)


def example_loss(program: Program) -> Callable[[Any, Any, Any], jax.Array]:
    """Return (model state, parameters, one example) -> its loss, network in evaluation mode."""

    def loss(model_state: Any, params: Any, example: Any) -> jax.Array:
        batch = {name: value[None] for name, value in example.items()}
        variables = {"params": params, **model_state}
        outputs = program.model.apply(variables, program.task.inputs(batch), train=False)
        return program.task.loss(outputs, batch)

    return loss


def numbers(values: np.ndarray) -> dict[str, float]:
    """Return the numbers that tell how heavy a sample's tail is.

    The estimators' failures are those of `clipjax.analysis.tail_index`: the block estimators assume
    a stable law, Hill's assumes a power law, so each is read against that of a Gaussian control.
    """
    outliers = analysis.outlier_ratios(values)
    k = _hill_k(values)
    return {
        **analysis.moments(values),
        "rho_mild": outliers.mild,
        "rho_extreme": outliers.extreme,
        "block_tail_index": analysis.block_tail_index(values - values.mean()),
        "median_block_tail_index": analysis.median_block_tail_index(values - values.mean()),
        "hill_tail_index": analysis.hill_tail_index(values, k),
        "hill_k": k,
    }


def live_numbers(values: np.ndarray, prefix: str, seed: int) -> dict[str, float]:
    """Return `numbers` of noise norms, and some of a Gaussian control's, by prefixed names.

    Where there is no tail to speak of the run must go on: of norms that are not all finite only
    their number is told (the loss will say it next), of norms without spread mean and std.

    Examples:
        >>> live_numbers(np.array([1.0, 2.0, np.inf, 4.0]), "example", 0)
        {'example_not_finite': 1}
        >>> live_numbers(np.full(9, 2.0), "example", 0)
        {'example_mean': 2.0, 'example_std': 0.0}
    """
    values = np.asarray(values, np.float64)
    if bad := int(np.sum(~np.isfinite(values))):
        return {f"{prefix}_not_finite": bad}
    mean, std = float(values.mean()), float(values.std())
    level = np.sort(values)[-1 - _hill_k(values)]
    if std <= 1e-6 * mean or level == 0:
        return {f"{prefix}_mean": mean, f"{prefix}_std": std}
    control = numbers(analysis.gaussian_control(values, seed))
    found = {f"{prefix}_{name}": value for name, value in numbers(values).items()}
    return found | {f"{prefix}_control_{name}": control[name] for name in OF_CONTROL}


def make_probe(run: configs.Run, program: Program, data: Pipeline) -> Probe | None:
    """Return the live probe that a run asks for, if it does.

    Its rows hold `values`, the number of examples; `mean_gradient_norm`; `example_...` and, for
    `run.noise.batches` minibatches, `minibatch_...` with the entries of `numbers`, beside
    `..._control_...`, those of a Gaussian sample of like mean and spread; and `seconds`.
    """
    asked = run.noise
    if asked.every is None:
        return None
    loss = example_loss(program)
    kept: dict[str, np.ndarray] = {}
    batches: list[dict[str, np.ndarray]] = []

    def measure(state: TrainState) -> dict[str, float]:
        if not kept:
            kept.update(training_examples(data, asked.examples))
            batches.extend(calibration_batches(state.model_state, data, asked.examples))
        # One device's copy: what is replicated need not be computed on all of them.
        here = jax.tree.map(lambda x: x.addressable_data(0), (state.params, state.model_state))
        params, model_state = here
        frozen = Partial(loss, own_statistics(program, params, model_state, batches))
        found = analysis.gradient_noise(frozen, params, kept, chunk=asked.chunk)
        row = {"values": len(found.norms), "mean_gradient_norm": found.mean_norm}
        row |= live_numbers(found.norms, "example", run.seed)
        if asked.batches:
            norms = analysis.minibatch_noise(
                frozen,
                params,
                kept,
                found.mean,
                batch_size=run.batch_size,
                num_batches=asked.batches,
                seed=run.seed,
            )
            row |= live_numbers(norms, "minibatch", run.seed)
        return row

    return Probe("noise", asked.every, measure)


def _hill_k(values: np.ndarray) -> int:
    return max(2, len(values) // 20)
