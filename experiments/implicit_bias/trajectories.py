"""The weights of linear models at log-spaced steps, many methods and seeds in one program."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import clipjax
from clipjax.analysis import HardMargin, direction_error, margin_gap
from clipjax.losses import growth_rate
from experiments.growth_networks.networks import following_rate
from experiments.implicit_bias.methods import (
    AIM,
    STOCHASTIC,
    Method,
    objective,
    transformation,
)
from experiments.implicit_bias.sets import Examples


def log_spaced(last: int, per_decade: int = 8) -> np.ndarray:
    """Return whole numbers from 1 to `last`, nearly evenly spaced in their logarithm.

    Powers of ten are among them.

    Examples:
        >>> log_spaced(300, per_decade=3).tolist()
        [1, 2, 5, 10, 22, 46, 100, 215, 300]
    """
    powers = np.arange(int(np.ceil(np.log10(last) * per_decade)) + 1) / per_decade
    steps = np.rint(10**powers).astype(int)
    return np.unique(np.append(steps[steps < last], last))


def follow(
    methods: Sequence[Method],
    examples: Examples,
    steps: np.ndarray,
    *,
    seeds: int = 1,
    batch_size: int = 4,
    seed: int = 0,
) -> list[np.ndarray]:
    """Return θ after each number of steps, from θ = 0, in float64.

    Methods of one rule and loss, with or without a schedule of r, share a program, which follows
    all of them at once. Runs that draw
    batches see in step k of run s the examples of fold_in(fold_in(key(seed), s), k), with
    replacement, whatever the method.

    Args:
        methods: what descends.
        examples: m of them.
        steps: (records,), rising, from 1 on.
        seeds: runs of a method that draws batches; others have one.
        batch_size: examples in a batch.
        seed: of the batches.

    Returns:
        For each method an array (runs, records, n).
    """
    groups: dict[tuple[str, str, bool], list[int]] = {}
    for place, method in enumerate(methods):
        group = method.rule, method.loss, method.follow > 0
        groups.setdefault(group, []).append(place)
    found: list[np.ndarray] = [np.empty(0)] * len(methods)
    with jax.enable_x64(True):
        signed = jnp.asarray(examples.labels[:, None] * examples.x, jnp.float64)
        for places in groups.values():
            chosen = [methods[place] for place in places]
            runs = seeds if chosen[0].rule in STOCHASTIC else 1
            for place, theta in zip(
                places, _follow(chosen, signed, steps, runs, batch_size, seed), strict=True
            ):
                found[place] = theta
    return found


def _follow(
    methods: Sequence[Method],
    signed: jax.Array,
    steps: np.ndarray,
    runs: int,
    batch_size: int,
    seed: int,
) -> np.ndarray:
    """Return (methods, runs, records, n) for methods of one rule and one loss."""
    first = methods[0]
    examples, columns = signed.shape
    smoothness = float(np.linalg.norm(np.asarray(signed), 2) ** 2 / (4 * examples))
    descend = objective(first)
    counts = jnp.asarray(np.diff(steps, prepend=0))

    def one(numbers: Mapping[str, jax.Array], key: jax.Array) -> jax.Array:
        rule = transformation(first.rule, numbers["rate"], numbers["level"], smoothness)

        def step(_: Any, carry: Any) -> Any:
            theta, state, k = carry
            batch = signed
            if first.rule in STOCHASTIC:
                drawn = jax.random.randint(jax.random.fold_in(key, k), (batch_size,), 0, examples)
                batch = signed[drawn]
            r = numbers["r"] * (numbers["schedule"][k] if first.follow else 1)
            gradient = jax.grad(descend)(theta, batch, r, numbers["c"], numbers["q"])
            update, state = rule.update(gradient, state, theta)
            return theta + update, state, k + 1

        def record(carry: Any, count: jax.Array) -> tuple[Any, Any]:
            carry = jax.lax.fori_loop(0, count, step, carry)
            shown = first.rule == "clipped_sstm"
            return carry, clipjax.eval_params(carry[1], carry[0]) if shown else carry[0]

        theta = jnp.zeros(columns)
        return jax.lax.scan(record, (theta, rule.init(theta), jnp.int32(0)), counts)[1]

    names = ("rate", "level", "r", "c", "q")
    numbers = {n: jnp.asarray([float(getattr(method, n)) for method in methods]) for n in names}
    if first.follow:
        t = np.arange(1, steps[-1] + 1)
        numbers["schedule"] = jnp.asarray([following_rate(t, m.follow) for m in methods])
    fold = functools.partial(jax.random.fold_in, jax.random.key(seed))
    keys = jax.vmap(fold)(jnp.arange(runs))
    over_runs = jax.vmap(one, (None, 0))
    return np.asarray(jax.jit(jax.vmap(over_runs, (0, None)))(numbers, keys))


def as_learning_rates(method: Method, examples: Examples, steps: int) -> np.ndarray:
    """Return θ after some steps of descent with a schedule of r, by descent on the loss of r = 1.

    L_r(θ) = L_1(rθ) has the gradient r ∇L_1(rθ). So in weights φ_t = r_{t+1} θ_t it is a schedule
    of the learning rate, ηr_t², and a factor on the weights, which is decay where r_t falls:

        φ_t = (r_{t+1}/r_t) (φ_{t-1} - η r_t² ∇L_1(φ_{t-1})),     θ_t = φ_t/r_{t+1}

    Args:
        method: GD with a schedule.
        examples: m of them.
        steps: from θ = 0.

    Returns:
        (n,), float64.
    """
    descend = objective(method)
    with jax.enable_x64(True):
        signed = jnp.asarray(examples.labels[:, None] * examples.x, jnp.float64)
        r = jnp.asarray(method.r * following_rate(np.arange(1, steps + 2), method.follow))

        def step(k: Any, phi: jax.Array) -> jax.Array:
            gradient = jax.grad(descend)(phi, signed, 1.0, method.c, method.q)
            return r[k + 1] / r[k] * (phi - method.rate * r[k] ** 2 * gradient)

        run = jax.jit(lambda phi: jax.lax.fori_loop(0, steps, step, phi))
        return np.asarray(run(jnp.zeros(signed.shape[1])) / r[steps])


def measure(theta: np.ndarray, examples: Examples, separator: HardMargin) -> dict[str, np.ndarray]:
    """Return the medians over runs of what tells θ (runs, records, n) from the separator.

    Returns:
        `error`, |θ/|θ| - ŵ/|ŵ||; `gap`, that of the margin divided by the separator's, 1 where the
        classes are just separated; `norm`, |θ|. Each (records,).
    """
    weights = separator.weights
    gap = margin_gap(theta, examples.x, examples.labels, weights) / separator.margin
    error = direction_error(theta, weights)
    measured = {"error": error, "gap": gap, "norm": np.linalg.norm(theta, axis=-1)}
    return {name: np.median(value, axis=0) for name, value in measured.items()}


def growth(method: Method, steps: np.ndarray) -> np.ndarray:
    """Return the predicted g of each number of steps; NaN where there is no prediction.

    With 1/g the direction error should be constant in the end. g_t(c, r) where the loss is
    Gompertz's; ln t / r, which it becomes in the end, for other losses.
    """
    t = np.asarray(steps, float)
    with np.errstate(divide="ignore", invalid="ignore"), jax.enable_x64(True):
        if method.predicted == "g_t(c, r)":
            late = t >= np.e * -method.c
            rate = growth_rate(np.where(late, t, np.e * -method.c + 1), method.c, method.r)
            g = np.where(late, rate, np.nan)
        else:
            known = {"√t": np.sqrt(t), "2 ln t": 2 * np.log(t), "ln t / r": np.log(t) / method.r}
            g = known.get(method.predicted.removesuffix(AIM), np.full(t.shape, np.nan))
    return np.where(g > 0, g, np.nan)
