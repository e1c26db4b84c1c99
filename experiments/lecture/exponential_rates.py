"""Weight decay as an exponentially growing learning rate, on networks of which one is invariant.

Where a normalisation follows every layer, the loss does not depend on the length of the weights.
SGD with weight decay then goes through the same functions as SGD whose steps grow like α^(−2k)
without decay (Li and Arora 2019; `clipjax.theory.exponential_schedule`). Both run side by side on
pictures of digits, in float64, with the same batches: a network of two layers, each with a batch
normalisation without parameters behind it; and two that are not invariant, one whose last layer has
no normalisation behind it, one whose normalisations add an epsilon to the variance.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clipjax import data as datasets
from clipjax import theory
from clipjax.analysis import compare_exponential_rates
from experiments.lecture.experiment import Arrays, Claim, Experiment
from experiments.report.lecture import exponential_rates as report
from experiments.setup.checks import COUNT, POSITIVE, Range, check_fields


@dataclass(frozen=True)
class Config:
    """The experiment."""

    hidden: Annotated[int, COUNT] = 64
    """Neurons of the hidden layer."""
    batch_size: Annotated[int, Range(2, 1437)] = 128
    """Pictures of a batch."""
    learning_rate: Annotated[float, POSITIVE] = 0.5
    """Step of SGD with weight decay."""
    weight_decay: Annotated[float, POSITIVE] = 0.005
    """Its weight decay."""
    momentum: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.9
    """Momentum, beside none."""
    clip_level: Annotated[float, POSITIVE] = 0.1
    """Largest gradient norm of the clipped runs."""
    epsilon: Annotated[float, POSITIVE] = 1e-3
    """What a normalisation adds to the variance where it is not invariant."""
    steps: Annotated[int, Range(2, 10**6)] = 200
    """Steps of each run. Training amplifies rounding, about tenfold in 80 steps."""
    seeds: Annotated[int, Range(1, 1000)] = 3
    """Runs: weights and batches."""

    def __post_init__(self) -> None:
        check_fields(self)
        # Refuses what makes the weights oscillate.
        theory.exponential_schedule(self.learning_rate, self.weight_decay, self.momentum)


QUICK = Config(hidden=16, batch_size=64, steps=100, seeds=2)

RUNS = {
    "plain": "no momentum",
    "momentum": "momentum",
    "clipped": "momentum, clipped",
    "open": "no normalisation at the end",
    "epsilon": "normalisation with an epsilon",
}
"""What is compared, and what it is called; the last two are not scale-invariant."""
INVARIANT = ("plain", "momentum", "clipped")
EXACT = 1e-12
"""Directions that are closer than this are equal: rounding, which training makes larger."""


def network(
    weights: dict[str, jax.Array], images: jax.Array, *, epsilon: float, last: bool
) -> jax.Array:
    """Return logits (batch, 10).

    Args:
        weights: `first` (64, hidden) and `second` (hidden, 10).
        images: (batch, 64).
        epsilon: added to the variances.
        last: whether a normalisation follows the last layer.
    """

    def normalised(x: jax.Array) -> jax.Array:
        return (x - x.mean(0)) / jnp.sqrt(x.var(0) + epsilon)

    x = jnp.tanh(normalised(images @ weights["first"]))
    x = x @ weights["second"]
    return normalised(x) if last else x


def gradient_of(
    config: Config, images: jax.Array, labels: jax.Array, key: jax.Array, kind: str
) -> Callable[[Any, jax.Array], Any]:
    """Return (weights, k) -> the gradient of the mean cross-entropy of batch k."""
    epsilon = config.epsilon if kind == "epsilon" else 0.0

    def loss(weights: Any, k: jax.Array) -> jax.Array:
        index = jax.random.choice(
            jax.random.fold_in(key, k), len(labels), (config.batch_size,), replace=False
        )
        logits = network(weights, images[index], epsilon=epsilon, last=kind != "open")
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels[index]).mean()

    return jax.grad(loss)


def start(config: Config, key: jax.Array) -> dict[str, jax.Array]:
    """Return the first weights, of length 1 in each layer."""
    shapes = {"first": (64, config.hidden), "second": (config.hidden, 10)}
    drawn = {
        name: jax.random.normal(jax.random.fold_in(key, i), shape)
        for i, (name, shape) in enumerate(shapes.items())
    }
    return {name: value / jnp.linalg.norm(value) for name, value in drawn.items()}


def compute(config: Config, data_dir: Path | None = None) -> dict[str, np.ndarray]:
    """Return the deviations and norms of every pair of runs.

    Returns:
        `deviation_KIND`, `decayed_norm_KIND` and `grown_norm_KIND`, (seeds, steps + 1) each, for
        the kinds of `RUNS`.
    """
    train = datasets.load("digits", "train", data_dir).in_memory()
    found: dict[str, list[np.ndarray]] = {}
    with jax.enable_x64(True):
        images = jnp.asarray(train["image"].reshape(len(train["label"]), -1) / 16.0)
        labels = jnp.asarray(train["label"])
        for seed in range(config.seeds):
            key = jax.random.key(seed)
            for kind in RUNS:
                compared = compare_exponential_rates(
                    gradient_of(config, images, labels, jax.random.fold_in(key, 2), kind),
                    start(config, key),
                    learning_rate=config.learning_rate,
                    weight_decay=config.weight_decay,
                    momentum=0.0 if kind == "plain" else config.momentum,
                    steps=config.steps,
                    clip_level=config.clip_level if kind == "clipped" else None,
                )
                for name, values in compared._asdict().items():
                    found.setdefault(f"{name}_{kind}", []).append(values)
    return {name: np.stack(values) for name, values in found.items()}


def judge(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of growing steps, and whether it holds."""

    def worst(kind: str) -> float:
        return float(found[f"deviation_{kind}"].max())

    says = {
        "plain": "Without momentum growing steps go through the same directions as weight decay.",
        "momentum": "So they do with momentum, where it begins with −(1 − α)/(ηα) w_0.",
        "clipped": "So they do for clipped-SGD, where the level grows like α^k.",
    }
    seeds = f"largest over {config.seeds} seeds and {config.steps} steps"
    claims = [
        Claim(text, f"deviation {worst(kind):.1e}, {seeds}", worst(kind) < EXACT)
        for kind, text in says.items()
    ]
    least = {
        kind: float(found[f"deviation_{kind}"][:, -1].min()) for kind in RUNS if kind not in says
    }
    claims += [
        Claim(
            f"They do not where the network is not scale-invariant ({RUNS[kind]}).",
            f"deviation at the end {value:.2g}, the least over {config.seeds} seeds",
            value > 1e-3,
        )
        for kind, value in least.items()
    ]
    grown, decayed = (found[f"{name}_momentum"] for name in ("grown_norm", "decayed_norm"))
    with jax.enable_x64(True):
        schedule = theory.exponential_schedule(
            config.learning_rate, config.weight_decay, config.momentum
        )
        shrink = float(schedule(-1)) / config.learning_rate
    ratio = grown[:, -1] / decayed[:, -1] * shrink**config.steps
    claims.append(
        Claim(
            "Weights with growing steps are α^(−k) times those with decay.",
            f"after {config.steps} steps {(grown[:, -1] / decayed[:, -1]).mean():.4g} times, "
            f"α^(−k) is {shrink**-config.steps:.4g}",
            bool(np.all(np.abs(ratio - 1) < 1e-9)),
        )
    )
    largest = (1 - config.momentum**0.5) ** 2
    try:
        theory.exponential_schedule(1.0, 1.01 * largest, config.momentum)
        said = "accepted"
    except ValueError as error:
        said = str(error)
    claims.append(
        Claim(
            "Where λη > (1 − √γ)², no growing steps do what decay does: it is refused.",
            said,
            said.startswith("weight_decay * learning_rate must be at most"),
        )
    )
    return claims


EXPERIMENT = Experiment(
    name="exponential_rates",
    title="Exponential learning rates",
    line="Weight decay beside steps that grow exponentially, on a scale-invariant network.",
    seconds=25,
    config=Config(),
    quick=QUICK,
    compute=compute,
    judge=judge,
    draw=lambda config, found: report.parts(RUNS, found),
)
