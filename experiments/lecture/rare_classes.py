"""Why Adam for language? Because its labels have heavy tails, not because gradient noise has them.

The synthetic problem of Kunstner et al., BalancedXImbalancedY: group i of m has 2^i classes with
2^(m−i) examples each, so that every group is a share 1/m of the examples and classes are frequent
or rare as words are. Features have nothing to do with labels: each is drawn from U(0, 1), and there
are more of them, (m + 1) 2^m, than examples, m 2^m. Softmax regression from W = 0 with all examples
in every step: there is no noise that could have a tail.

Three comparisons. At the published rates, m = 7 with the features of NumPy's default_rng(0), whose
losses are known from an independent program. At the same rates, a smaller m with features from
several seeds. And each method at its best rate of one grid, all with the same few steps: with many
steps gradient descent at a large rate learns every class of a small problem.

Beside it, what a batch's noise would be: gradients of batches minus the full gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import clipjax
from clipjax.analysis import block_tail_index, hill_curve
from experiments.lecture.experiment import Arrays, Claim, Experiment
from experiments.lecture.intervals import above, below, interval
from experiments.report.lecture import rare_classes as report
from experiments.setup.checks import COUNT, ONE_OR_MORE, POSITIVE, SEED, Range, check_fields
from experiments.setup.evaluation import evaluation_point


@dataclass(frozen=True)
class Config:
    """The experiment."""

    groups: Annotated[int, Range(3, 9)] = 7
    """Groups m of the problem at the published rates."""
    steps: Annotated[int, COUNT] = 1000
    """Steps at the published rates."""
    small_groups: Annotated[int, Range(3, 9)] = 6
    """Groups of the problem with several seeds."""
    seeds: Annotated[int, Range(2, 1000)] = 4
    """Draws of its features."""
    rates: Annotated[tuple[Annotated[float, POSITIVE], ...], ONE_OR_MORE] = tuple(
        10 ** (k / 2) for k in range(-8, 2)
    )
    """The grid in which each method has its best rate."""
    tuned_steps: Annotated[int, Range(5, 10**6)] = 100
    """Steps of every method and rate of the grid."""
    clip_level: Annotated[float, POSITIVE] = 0.3
    """Largest gradient norm of clipped-SGD, largest move of clipped-SSTM."""
    batch_size: Annotated[int, COUNT] = 32
    """Of the batches whose noise is measured."""
    batches: Annotated[int, Range(50, 100_000)] = 400
    """How many of them."""
    seed: Annotated[int, SEED] = 0
    """Of the features; the next ones follow."""

    def __post_init__(self) -> None:
        check_fields(self)


QUICK = Config(groups=5, small_groups=5, seeds=3, tuned_steps=150, batches=200)


class Method(NamedTuple):
    """What is compared."""

    label: str
    make: Callable[[Any, float], Any]
    """(learning rate, clip level) -> the Optax transformation."""
    rate: float
    """The published one; those of sign descent and of clipped methods are Adam's and SGD's."""


METHODS = {
    "sgd": Method("SGD", lambda rate, _: optax.sgd(rate), 10**-2.5),
    "momentum": Method("momentum", lambda rate, _: optax.sgd(rate, momentum=0.9), 1e-3),
    "sign": Method("sign descent", lambda rate, _: optax.sign_sgd(rate), 1e-4),
    "adam_0": Method("Adam, β₁ = 0", lambda rate, _: optax.adam(rate, b1=0.0), 1e-4),
    "adam": Method("Adam", lambda rate, _: optax.adam(rate), 10**-3.5),
    "clipped_sgd": Method("clipped-SGD", clipjax.clipped_sgd, 10**-2.5),
    "clipped_sstm": Method(
        "clipped-SSTM", lambda rate, level: clipjax.clipped_sstm(rate, 10.0, level), 10**-2.5
    ),
}
BY_GRADIENT = ("sgd", "momentum", "clipped_sgd", "clipped_sstm")
"""Their steps are sums of gradients, each times one number."""
BY_SIGN = ("sign", "adam_0", "adam")


def class_sizes(groups: int) -> np.ndarray:
    """Return how many examples each class has, (2^m − 1,), frequent ones first."""
    return np.concatenate([np.full(2**i, 2 ** (groups - i)) for i in range(groups)])


def make_features(groups: int, seed: int) -> np.ndarray:
    """Return the features (m 2^m, (m + 1) 2^m) as float32; examples are sorted by class."""
    shape = (groups * 2**groups, (groups + 1) * 2**groups)
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def make_labels(groups: int) -> np.ndarray:
    """Return the class of each example, (m 2^m,)."""
    sizes = class_sizes(groups)
    return np.repeat(np.arange(len(sizes)), sizes)


@partial(jax.jit, static_argnames=("name", "groups", "steps", "level"))
def follow(
    features: jax.Array, rates: jax.Array, *, name: str, groups: int, steps: int, level: float
) -> tuple[jax.Array, jax.Array]:
    """Return the losses of a method by group, and its last weights.

    Args:
        features: of `make_features`.
        rates: (rates,); all are one program.
        name: of the method.
        groups: m.
        steps: of each run.
        level: of clipping.

    Returns:
        (rates, steps + 1, m), where the method is evaluated, and (rates, columns, classes).
    """
    labels = jnp.asarray(make_labels(groups))

    def losses(weights: jax.Array) -> jax.Array:
        each = optax.softmax_cross_entropy_with_integer_labels(features @ weights, labels)
        return each.reshape(groups, -1).mean(1)

    def mean_loss(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        by_group = losses(weights)
        return by_group.mean(), by_group

    def one(rate: jax.Array) -> tuple[jax.Array, jax.Array]:
        transformation = METHODS[name].make(rate, level)

        def step(carry: Any, _: None) -> Any:
            weights, state = carry
            (_, by_group), gradient = jax.value_and_grad(mean_loss, has_aux=True)(weights)
            if (point := evaluation_point(state, weights)) is not weights:
                by_group = losses(point)
            updates, state = transformation.update(gradient, state, weights)
            return (optax.apply_updates(weights, updates), state), by_group

        start = jnp.zeros((features.shape[1], 2**groups - 1), features.dtype)
        first = (start, transformation.init(start))
        (weights, state), path = jax.lax.scan(step, first, length=steps)
        last = evaluation_point(state, weights)
        return jnp.concatenate([path, losses(last)[None]]), last

    return jax.vmap(one)(rates)


def batch_noise(
    features: np.ndarray, weights: np.ndarray, groups: int, batch_size: int, count: int, seed: int
) -> np.ndarray:
    """Return gradients of batches minus the full gradient.

    Args:
        features: of `make_features`.
        weights: where.
        groups: m.
        batch_size: examples of a batch, drawn with replacement.
        count: how many batches.
        seed: of the batches.

    Returns:
        (count, columns * classes).
    """
    labels = make_labels(groups)
    rows = features.astype(np.float64)
    logits = rows @ weights
    odds = np.exp(logits - logits.max(1, keepdims=True))
    excess = odds / odds.sum(1, keepdims=True) - np.eye(2**groups - 1)[labels]
    full = rows.T @ excess / len(rows)
    drawn = np.random.default_rng(seed).integers(0, len(rows), (count, batch_size))
    return np.stack([(rows[b].T @ excess[b] / batch_size - full).ravel() for b in drawn])


def compute(config: Config, _: Path | None = None) -> dict[str, np.ndarray]:
    """Return losses by group, and how heavy the tails of noise and labels are.

    Returns:
        `published_METHOD` (steps + 1, m); `seeds_METHOD` (seeds, steps + 1, m), at the published
        rates; `tuned_METHOD` (seeds, rates, tuned_steps + 1, m); `noise_norms` (points, seeds,
        batches) and `noise_block` (points, seeds), norms and block tail index of the noise at W = 0
        and where SGD ends; `class_sizes`.
    """
    found: dict[str, np.ndarray] = {"class_sizes": class_sizes(config.small_groups)}
    level, small = config.clip_level, config.small_groups
    draws = [make_features(small, config.seed + i) for i in range(config.seeds)]
    large = jnp.asarray(make_features(config.groups, config.seed))
    ends = []
    for name, method in METHODS.items():
        run = partial(follow, name=name, level=level)
        one = jnp.asarray([method.rate], jnp.float32)
        path = run(large, one, groups=config.groups, steps=config.steps)[0]
        found[f"published_{name}"] = np.asarray(path[0])
        seeds, tuned = [], []
        for features in map(jnp.asarray, draws):
            path, last = run(features, one, groups=small, steps=config.steps)
            seeds.append(np.asarray(path[0]))
            if name == "sgd":
                ends.append(np.asarray(last[0], np.float64))
            rates = jnp.asarray(config.rates, jnp.float32)
            path = run(features, rates, groups=small, steps=config.tuned_steps)[0]
            tuned.append(np.asarray(path))
        found[f"seeds_{name}"], found[f"tuned_{name}"] = np.stack(seeds), np.stack(tuned)
    norms, block = [], []
    for points in ([np.zeros_like(end) for end in ends], ends):
        noise = [
            batch_noise(features, point, small, config.batch_size, config.batches, config.seed + i)
            for i, (features, point) in enumerate(zip(draws, points, strict=True))
        ]
        norms.append([np.linalg.norm(one, axis=1) for one in noise])
        block.append([block_tail_index(one) for one in noise])
    return found | {"noise_norms": np.array(norms), "noise_block": np.array(block)}


PUBLISHED = {
    "sgd": (3.739, (1.74, 2.37, 3.04, 3.72, 4.42, 5.13, 5.76)),
    "momentum": (3.167, ()),
    "adam_0": (0.689, (1.05, 1.24, 1.06, 0.63, 0.35, 0.25, 0.25)),
    "adam": (0.125, ()),
}
"""Mean loss and losses by group after 1,000 steps, m = 7, from an independent program."""
THIRD = 1 / 3


def paths(config: Config, found: Arrays) -> dict[str, np.ndarray]:
    """Return losses of the most frequent class and the rarest ones, in units of the start.

    Returns:
        For each method (seeds, tuned_steps + 1, 2), at the smallest rate of the grid with which the
        most frequent class ends below a third for every seed; at the largest if none does.
    """
    chosen = {}
    for name in METHODS:
        tuned = found[f"tuned_{name}"]
        both = tuned[..., [0, -1]] / tuned[:, :, :1, :1]
        there = (both[:, :, -1, 0] <= THIRD).all(0)
        chosen[name] = both[:, int(there.argmax()) if there.any() else -1]
    return chosen


def rare_at_third(path: np.ndarray) -> np.ndarray:
    """Return the loss of the rarest classes when the most frequent one comes to a third for good.

    Args:
        path: (seeds, steps + 1, 2), of `paths`.

    Returns:
        (seeds,), on straight lines between steps; NaN where it does not stay there.
    """
    values = np.full(len(path), np.nan)
    for i, (frequent, rare) in enumerate(path.transpose(0, 2, 1)):
        k = int(np.flatnonzero(frequent > THIRD)[-1])
        if k + 1 < len(frequent):
            values[i] = np.interp(-THIRD, -frequent[k : k + 2], rare[k : k + 2])
    return values


def judge(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of rare classes, and whether it holds."""
    claims = []
    if (config.groups, config.steps, config.seed) == (7, 1000, 0):
        said, close = [], True
        for name, (mean, by_group) in PUBLISHED.items():
            end = found[f"published_{name}"][-1].astype(float)
            said.append(f"{METHODS[name].label} {end.mean():.3f}")
            close &= abs(end.mean() - mean) <= 0.01 * mean
            close &= not by_group or bool(np.allclose(end, by_group, rtol=0.01, atol=0.005))
        claims.append(
            Claim(
                "Losses at the published rates are those of an independent program, group by group "
                "where it has them.",
                ", ".join(said),
                bool(close),
            )
        )
    rare = {name: found[f"seeds_{name}"][:, -1, -1] / _start(found) for name in METHODS}
    ends = {name: interval(values) for name, values in rare.items()}
    unit = "(loss of the rarest classes at the end, in units of the start)"
    claims += [
        Claim(
            "Adam gets the loss of rare classes down, with and without momentum, where SGD's ends "
            "above the start; no step has noise.",
            f"Adam {ends['adam']}, β₁ = 0: {ends['adam_0']}, SGD {ends['sgd']} {unit}",
            below(rare["adam"], 0.8) and below(rare["adam_0"], 0.8) and above(rare["sgd"], 1.0),
        ),
        Claim(
            "Sign descent does what Adam without momentum does.",
            f"{ends['sign']} and {ends['adam_0']} {unit}",
            below(rare["sign"], 0.8) and below(rare["adam_0"], 0.8),
        ),
        Claim(
            "Clipping by the global norm does not help rare classes.",
            f"clipped-SGD {ends['clipped_sgd']}, SGD {ends['sgd']} {unit}",
            above(rare["clipped_sgd"], 1.0) and above(rare["clipped_sgd"] / rare["sgd"], 0.9),
        ),
    ]
    thirds = {name: rare_at_third(path) for name, path in paths(config, found).items()}
    claims += [
        Claim(
            "It is not a matter of the rate: when the most frequent class is at a third of its "
            "loss, rare ones are hardly better than at the start with steps along the gradient, "
            "momentum, clipping and acceleration included, and well on their way with signs.",
            ", ".join(f"{METHODS[name].label} {interval(v)}" for name, v in thirds.items()),
            all(above(thirds[name], 0.8) for name in BY_GRADIENT)
            and all(below(thirds[name], 0.75) for name in BY_SIGN),
        ),
        *_judge_tuned(config, found),
    ]
    sizes = found["class_sizes"]
    larger = int((sizes > sizes.min()).sum())
    labels = hill_curve(sizes.astype(float), [larger])
    k = config.batches // 10
    noise = [
        [float(hill_curve(values, [k]).low[0]) for values in one] for one in found["noise_norms"]
    ]
    block = found["noise_block"]
    claims.append(
        Claim(
            "Labels have heavy tails, the noise of gradients has none.",
            f"Hill's index of the sizes of classes {labels.index[0]:.2f} ({labels.low[0]:.2f} to "
            f"{labels.high[0]:.2f}, 95 %); of norms of the noise of batches of "
            f"{config.batch_size} above {np.min(noise):.1f} (least lower end); index of stability "
            f"of the noise {interval(block[0])} at the start, {interval(block[1])} where SGD "
            "ends; 2 is Gaussian, below 2 the variance is infinite",
            bool(
                labels.high[0] < 2
                and np.min(noise) > 2
                and all(above(one, 1.8) and below(one, 2.2) for one in block)
            ),
        )
    )
    return claims


def _judge_tuned(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of each method at its best rate."""
    few = config.tuned_steps // 5
    best, rates = {}, {}
    for name in METHODS:
        then = found[f"tuned_{name}"][:, :, few]  # (seeds, rates, m)
        means = then.mean((0, 2))
        i = int(np.where(np.isfinite(means), means, np.inf).argmin())
        best[name], rates[name] = then[:, i, -1], config.rates[i]
    said = ", ".join(
        f"{METHODS[name].label} {best[name].mean():.2g} (10^{np.log10(rates[name]):g})"
        for name in METHODS
    )
    gain, clipped = best["sgd"] - best["adam"], best["clipped_sgd"] - best["sgd"]
    end = found["tuned_sgd"][:, :, -1, -1]
    end = end[:, int(np.nanargmin(end.mean(0)))] / _start(found)
    return [
        Claim(
            f"After {few} steps, each at its best of {len(config.rates)} rates, Adam's loss of the "
            "rarest classes is below SGD's.",
            f"by {interval(gain)}; at the best rates: {said}",
            above(gain, 0.0),
        ),
        Claim(
            "Nor does clipping help at its best rate.",
            f"clipped-SGD − SGD {interval(clipped)}",
            above(clipped, -0.01),
        ),
        Claim(
            f"What Adam gains is time: after {config.tuned_steps} steps at its best rate SGD has "
            "learnt rare classes too, on a problem that small.",
            f"{interval(end)} of the start",
            below(end, 0.5),
        ),
    ]


def _start(found: Arrays) -> float:
    """Return ln c, every example's loss at W = 0."""
    return float(np.log(len(found["class_sizes"])))


EXPERIMENT = Experiment(
    name="rare_classes",
    title="Why Adam for language?",
    line="Frequent and rare classes: SGD leaves the rare ones behind, Adam and signs do not.",
    seconds=85,
    config=Config(),
    quick=QUICK,
    compute=compute,
    judge=judge,
    draw=lambda config, found: report.parts(
        {name: method.label for name, method in METHODS.items()},
        config.rates,
        {name: path.mean(0) for name, path in paths(config, found).items()},
        found,
    ),
)
