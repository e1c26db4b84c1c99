"""Initialisation: how the size of first weights decides whether a deep network trains.

Fully connected ReLU networks of 22 and 30 layers without biases, weights from N(0, σ²) with n the
inputs of a layer. He's σ² = 2/n keeps the mean square of values before the ReLU from layer to
layer, and that of the gradients on the way back; Xavier's σ² = 1/n halves both in each layer:

    E|W relu(z)|² = n σ² E|relu(z)|² = n σ² E|z|²/2.

Forward that is exact at any width, and backward up to terms of order 1/n: the weights that a
gradient passes have also decided which neurons are on. It is checked layer by layer on square
layers, with weights drawn anew for each input. Products of many layers vary a lot between draws,
the factor of one layer does not.

Then such networks are trained on pictures of digits by SGD with momentum and by Adam, with weights
of both sizes, and with all weights of a layer equal: then all neurons of a layer stay equal.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clipjax import data as datasets
from experiments.lecture.experiment import Arrays, Claim, Experiment
from experiments.lecture.intervals import above, interval
from experiments.report.lecture import initialisation as report
from experiments.setup.checks import COUNT, POSITIVE, SEED, OneOf, Range, check_fields

Depth: TypeAlias = Annotated[int, Range(3, 200)]


@dataclass(frozen=True)
class Config:
    """The experiment."""

    shallow: Depth = 22
    """Layers of the network that the lecture trains from both starts."""
    deep: Depth = 30
    """Layers of the one that it trains from He's weights alone."""
    wide: Annotated[int, Range(8, 4096)] = 128
    """Neurons of a layer where variances are measured."""
    draws: Annotated[int, Range(20, 100_000)] = 300
    """Draws of weights there."""
    dataset: Annotated[str, OneOf(("digits", "mnist", "fashion_mnist"))] = "mnist"
    """Pictures to train on."""
    examples: Annotated[int, Range(100, 60_000)] = 5000
    """How many of them."""
    hidden: Annotated[int, Range(8, 4096)] = 64
    """Neurons of a hidden layer of the trained networks."""
    batch_size: Annotated[int, COUNT] = 32
    """Pictures of a batch."""
    steps: Annotated[int, Range(20, 10**6)] = 800
    """Steps of training."""
    sgd_rate: Annotated[float, POSITIVE] = 0.003
    """Step of SGD with momentum 0.9."""
    adam_rate: Annotated[float, POSITIVE] = 1e-3
    """Step of Adam."""
    seeds: Annotated[int, Range(2, 1000)] = 4
    """Weights and batches of the trained networks."""
    seed: Annotated[int, SEED] = 0
    """Of everything."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.shallow >= self.deep:
            raise ValueError(
                f"Config.shallow is {self.shallow}, Config.deep is {self.deep}; expected a "
                "smaller number of layers for the first"
            )


QUICK = Config(draws=50, dataset="digits", examples=1437, steps=200, sgd_rate=0.01)

GAINS = {"he": 2.0, "xavier": 1.0}
"""n σ² of each initialisation."""
STARTS = (*GAINS, "equal")
METHODS = ("momentum", "adam")


def squares(
    gain: float, layers: int, width: int, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean squares by layer in random networks of square layers.

    Args:
        gain: n σ².
        layers: how many.
        width: n.
        draws: of weights; each has an input from N(0, 1) and a gradient from N(0, 1) at the end.
        seed: of them.

    Returns:
        Two arrays (draws, layers): of the values before the ReLU of each layer, and of the gradient
        that reaches each layer's input, in units of what came in.
    """
    rng = np.random.default_rng(seed)
    forward, backward = np.empty((draws, layers)), np.empty((draws, layers))
    scale = np.float32((gain / width) ** 0.5)
    for draw in range(draws):
        weights = scale * rng.standard_normal((layers, width, width), np.float32)
        value = rng.standard_normal(width, np.float32)
        value /= np.sqrt(np.mean(value**2))
        signs = []
        for i, matrix in enumerate(weights):
            value = matrix @ value
            forward[draw, i] = np.mean(value.astype(float) ** 2)
            signs.append(value > 0)
            value = np.maximum(value, 0)
        gradient = rng.standard_normal(width, np.float32)
        gradient /= np.sqrt(np.mean(gradient**2))
        for i in reversed(range(layers)):
            gradient = weights[i].T @ (gradient * signs[i])
            backward[draw, i] = np.mean(gradient.astype(float) ** 2)
    return forward, backward


def start(kind: str, sizes: tuple[int, int, int, int], key: jax.Array) -> dict[str, jax.Array]:
    """Return first weights.

    Args:
        kind: one of `STARTS`; "equal" has 1/n everywhere, which hands the mean on.
        sizes: inputs, neurons of a hidden layer, classes, layers.
        key: of the draw.

    Returns:
        `first` (inputs, hidden), `middle` (layers - 2, hidden, hidden), `last` (hidden, classes).
    """
    inputs, hidden, classes, layers = sizes
    shapes = {
        "first": (inputs, hidden),
        "middle": (layers - 2, hidden, hidden),
        "last": (hidden, classes),
    }
    if kind == "equal":
        return {name: jnp.full(shape, 1 / shape[-2]) for name, shape in shapes.items()}
    return {
        name: (GAINS[kind] / shape[-2]) ** 0.5
        * jax.random.normal(jax.random.fold_in(key, i), shape)
        for i, (name, shape) in enumerate(shapes.items())
    }


def network(weights: dict[str, jax.Array], rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return logits (batch, classes) and hidden values (layers - 1, batch, hidden)."""

    def layer(value: jax.Array, matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = jax.nn.relu(value @ matrix)
        return value, value

    first = jax.nn.relu(rows @ weights["first"])
    value, rest = jax.lax.scan(layer, first, weights["middle"])
    return value @ weights["last"], jnp.concatenate([first[None], rest])


@partial(jax.jit, static_argnames=("method", "rate", "batch_size", "steps"))
def train(
    weights: dict[str, jax.Array],
    keys: jax.Array,
    rows: jax.Array,
    labels: jax.Array,
    *,
    method: str,
    rate: float,
    batch_size: int,
    steps: int,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Return trained weights and the loss of every step's batch.

    Args:
        weights: of `start`, with a leading axis of runs.
        keys: of the batches, (runs,).
        rows: pictures (examples, inputs).
        labels: (examples,).
        method: one of `METHODS`.
        rate: its step.
        batch_size: examples drawn with replacement.
        steps: of each run.

    Returns:
        The weights, and (runs, steps).
    """
    momentum = method == "momentum"
    transformation = optax.sgd(rate, momentum=0.9) if momentum else optax.adam(rate)

    def one(weights: Any, key: jax.Array) -> Any:
        def step(carry: Any, k: jax.Array) -> Any:
            weights, state = carry
            index = jax.random.randint(jax.random.fold_in(key, k), (batch_size,), 0, len(labels))

            def loss(weights: Any) -> jax.Array:
                logits, _ = network(weights, rows[index])
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels[index]).mean()

            value, gradient = jax.value_and_grad(loss)(weights)
            updates, state = transformation.update(gradient, state, weights)
            return (optax.apply_updates(weights, updates), state), value

        (weights, _), values = jax.lax.scan(
            step, (weights, transformation.init(weights)), jnp.arange(steps)
        )
        return weights, values

    return jax.vmap(one)(weights, keys)


def compute(config: Config, data_dir: Path | None = None) -> dict[str, np.ndarray]:
    """Return mean squares by layer and losses of training.

    Returns:
        `forward_GAIN` and `backward_GAIN` (draws, layers) of `squares`; for every method and depth
        ("shallow", "deep") `loss_METHOD_DEPTH` (gains, seeds, steps), `equal_loss_METHOD_DEPTH`
        (steps,); and over all runs, the one from equal weights last, `unequal_METHOD_DEPTH`, the
        largest difference between a hidden neuron and the mean of its layer after training, in
        units of the largest value, and `away_METHOD_DEPTH`, the largest change of a weight.

    Raises:
        DatasetNotPrepared: with the line that prepares it.
        ValueError: there are not as many pictures.
    """
    found = {}
    for i, (name, gain) in enumerate(GAINS.items()):
        found[f"forward_{name}"], found[f"backward_{name}"] = squares(
            gain, config.deep, config.wide, config.draws, config.seed + i
        )
    rows, labels, classes = _pictures(config, data_dir)
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    # Seeds would change nothing but the batches of equal weights: one run is enough.
    runs = [(kind, key) for kind in GAINS for key in keys] + [("equal", keys[0])]
    for depth, layers in (("shallow", config.shallow), ("deep", config.deep)):
        sizes = (rows.shape[1], config.hidden, classes, layers)
        each = [start(kind, sizes, jax.random.fold_in(key, 1)) for kind, key in runs]
        weights = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
        for method in METHODS:
            trained, losses = train(
                weights,
                jnp.stack([key for _, key in runs]),
                rows,
                labels,
                method=method,
                rate=config.sgd_rate if method == "momentum" else config.adam_rate,
                batch_size=config.batch_size,
                steps=config.steps,
            )
            moved = jax.tree.map(
                lambda a, b: jnp.abs(a - b).reshape(len(a), -1).max(1), trained, weights
            )
            name, last = f"{method}_{depth}", np.asarray(losses)
            found[f"loss_{name}"] = last[:-1].reshape(len(GAINS), config.seeds, config.steps)
            found[f"equal_loss_{name}"] = last[-1]
            found[f"unequal_{name}"] = np.asarray(_unequal(trained, rows[:500]))
            found[f"away_{name}"] = np.max([*jax.tree.leaves(moved)], axis=0)
    return found


def _pictures(config: Config, data_dir: Path | None) -> tuple[jax.Array, jax.Array, int]:
    """Return pictures as rows of mean 0 and mean square 1, over all of them; labels; classes."""
    source = datasets.load(config.dataset, "train", data_dir)
    train = source.in_memory()
    if config.examples > len(train["label"]):
        raise ValueError(
            f"Config.examples is {config.examples}; {config.dataset} has {len(train['label'])} "
            "training pictures: take no more"
        )
    chosen = np.random.default_rng(config.seed).permutation(len(train["label"]))[: config.examples]
    rows = train["image"][chosen].reshape(config.examples, -1).astype(np.float32)
    rows -= rows.mean()
    rows /= rows.std()
    return jnp.asarray(rows), jnp.asarray(train["label"][chosen]), source.num_classes


@jax.jit
def _unequal(weights: dict[str, jax.Array], rows: jax.Array) -> jax.Array:
    def one(weights: dict[str, jax.Array]) -> jax.Array:
        _, hidden = network(weights, rows)
        off = jnp.abs(hidden - hidden.mean(-1, keepdims=True)).max()
        return off / jnp.maximum(jnp.abs(hidden).max(), jnp.finfo(hidden.dtype).tiny)

    return jax.lax.map(one, weights)


DEVIATIONS = 4.0
"""How many standard errors a mean may lie off."""
LN10 = float(np.log(10))
"""The loss of a network that tells no class from another."""
EQUAL = 1e-5
"""Neurons that are closer than this are equal: float32's rounding."""


def judge(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of initialisation, and whether it holds."""
    claims = []
    for name, gain in GAINS.items():
        factor = gain / 2
        measured, close = [], True
        for way, last in (("forward", -1), ("backward", 0)):
            values = found[f"{way}_{name}"]
            steps = values[:, 1:] / values[:, :-1]
            steps = steps if way == "forward" else 1 / steps
            mean, error = steps.mean(0), steps.std(0, ddof=1) / len(steps) ** 0.5
            allowed = DEVIATIONS * error + (1 / config.wide if way == "backward" else 0)
            close &= bool(np.all(np.abs(mean - factor) <= allowed))
            measured.append(
                f"{way} times {interval(steps.mean(1))} a layer, farthest off "
                f"{mean[np.abs(mean - factor).argmax()]:.3g}; mean square after {config.deep} "
                f"layers {values[:, last].mean():.2g}"
            )
        does = "keep" if factor == 1 else "halve, layer by layer,"
        claims.append(
            Claim(
                f"{_LABELS[name]}'s weights {does} the mean square of values and of gradients.",
                "; ".join(measured),
                close,
            )
        )
    losses = {
        (method, depth): found[f"loss_{method}_{depth}"]
        for method in METHODS
        for depth in ("shallow", "deep")
    }
    ends = {which: _ends(values) for which, values in losses.items()}
    # Xavier's loss less He's over the whole of training, with the same batches.
    gains = {which: np.diff(values.mean(-1), axis=0)[0] for which, values in losses.items()}

    def said(method: str, depth: str) -> str:
        which = method, depth
        he, xavier = ends[which]
        return (
            f"loss at the end: He {interval(he)}, Xavier {interval(xavier)}; difference over "
            f"all steps {interval(gains[which])}"
        )

    he, xavier = ends["momentum", "deep"]
    claims += [
        Claim(
            f"{config.deep} layers, SGD with momentum: He's weights train, Xavier's stall.",
            f"{said('momentum', 'deep')}; ln 10 = {LN10:.3f}",
            bool(he.max() < 0.95 * LN10 and np.all(np.abs(xavier - LN10) < 0.02)),
        ),
        Claim(
            f"{config.shallow} layers, SGD with momentum: He's weights train faster.",
            said("momentum", "shallow"),
            above(gains["momentum", "shallow"], 0),
        ),
        Claim(
            f"{config.shallow} layers, Adam: both train, He's faster.",
            said("adam", "shallow"),
            bool(ends["adam", "shallow"].max() < 0.9 * LN10) and above(gains["adam", "shallow"], 0),
        ),
        Claim(
            f"{config.deep} layers: what stalls is the plain step. Adam's, which does not depend "
            "on the gradient's size, trains Xavier's weights too, slower than He's.",
            said("adam", "deep"),
            bool(ends["adam", "deep"].max() < 0.9 * LN10) and above(gains["adam", "deep"], 0),
        ),
    ]
    pairs = [f"{method}_{depth}" for method, depth in losses]
    unequal = np.array([found[f"unequal_{pair}"] for pair in pairs])
    moved = np.array([found[f"away_{pair}"][-1] for pair in pairs])
    equal = np.array([_ends(found[f"equal_loss_{pair}"]) for pair in pairs])
    best = np.array([values[0].mean() for values in ends.values()])
    claims.append(
        Claim(
            "With equal weights all neurons of a layer stay equal however long the network trains, "
            "and it learns less than from He's weights.",
            f"largest difference {unequal[:, -1].max():.2g} of the largest value, after weights "
            f"moved by up to {moved.max():.2g}; from He's weights {unequal[:, 0].min():.2g} at "
            f"least; losses at the end {', '.join(f'{value:.3g}' for value in equal)}, from He's "
            f"{', '.join(f'{value:.3g}' for value in best)} ({', '.join(pairs)})",
            bool(
                unequal[:, -1].max() < EQUAL
                and unequal[:, 0].min() > 0.01
                and moved.max() > 1e-3
                and np.all(equal > best)
            ),
        )
    )
    return claims


def _ends(losses: np.ndarray) -> np.ndarray:
    """Return mean losses of the last tenth of the steps."""
    return losses[..., -max(1, losses.shape[-1] // 10) :].mean(-1)


_LABELS = {"he": "He", "xavier": "Xavier"}


EXPERIMENT = Experiment(
    name="initialisation",
    title="Initialisation",
    line="Deep ReLU networks: He's weights keep signals and gradients, Xavier's halve them.",
    seconds=45,
    config=Config(),
    quick=QUICK,
    compute=compute,
    judge=judge,
    draw=lambda config, found: report.parts(config.shallow, config.deep, found),
)
