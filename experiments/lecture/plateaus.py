"""Strongly convex logistic regression: where SGD with a constant step stops, and what goes on.

The lecture's main problem of SGD. With a constant step the gap f − f* falls to a plateau that is
lower for larger batches and for a smaller μ's slower descent; full batches, decreasing steps, means
of the iterates and SVRG go below it. Settings of the lecture: step 0.1, μ = 1 and 0.1.

A batch is gradient descent with an error e = g − ∇f. With the step 1/L each step obeys

    f(x⁺) ≤ f(x) − |∇f(x)|²/(2L) + |e|²/(2L),

which is checked step by step.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import clipjax
from clipjax.problems import LogisticRegression
from experiments.lecture.experiment import Arrays, Claim, Experiment
from experiments.lecture.intervals import mean_and_spread
from experiments.lecture.logistic_problem import (
    EXAMPLES,
    draw,
    make_problem,
    run_sgd,
    start_point,
)
from experiments.report.lecture import plateaus as report
from experiments.setup.checks import ONE_OR_MORE, POSITIVE, SEED, Range, check_fields

Batch = Annotated[int, Range(1, EXAMPLES)]


@dataclass(frozen=True)
class Config:
    """The experiment."""

    ridges: Annotated[tuple[Annotated[float, POSITIVE], ...], ONE_OR_MORE] = (1.0, 0.1)
    """Values of μ."""
    rate: Annotated[float, POSITIVE] = 0.1
    """The constant step."""
    batches: Annotated[tuple[Batch, ...], ONE_OR_MORE] = (1, 10, 20, 50, 200)
    """Batch sizes."""
    batch_size: Batch = 20
    """Batches of the other methods."""
    clip_level: Annotated[float, POSITIVE] = 1.0
    """Largest gradient norm of clipped-SGD and clipped-SSTM."""
    steps: Annotated[int, Range(200, 10**6)] = 2000
    """Steps of every method; the plateau is the second half."""
    seeds: Annotated[int, Range(5, 10_000)] = 50
    """Runs of each."""
    seed: Annotated[int, SEED] = 0
    """Of the batches."""

    def __post_init__(self) -> None:
        check_fields(self)


QUICK = Config(ridges=(1.0,), batches=(1, 20, 200), steps=600, seeds=10)

METHODS = {
    "decreasing": "SGD, decreasing steps",
    "averaged": "SGD, averaged",
    "clipped_sgd": "clipped-SGD",
    "clipped_sstm": "clipped-SSTM",
    "svrg": "SVRG",
}
"""What stands beside SGD with a constant step, with the same batches."""


def transformation(name: str, config: Config, ridge: float) -> Any:
    """Return one of the methods but SVRG."""
    rate, level = config.rate, config.clip_level
    match name:
        case "decreasing":
            # min(α, (2k + 1)/(2μ(k + 1)²)): the theorem's steps, once they are below the constant.
            theirs = clipjax.theory.sgd_pl_schedule(ridge)
            return optax.sgd(lambda k: jnp.minimum(rate, theirs(k)))
        case "averaged":
            return clipjax.average_iterates(optax.sgd(rate), start=config.steps // 10)
        case "clipped_sgd":
            return clipjax.clipped_sgd(rate, level)
        case "clipped_sstm":
            return clipjax.clipped_sstm(rate, 10.0, level)
    raise ValueError(name)


def run_svrg(
    problem: LogisticRegression, keys: jax.Array, *, rate: float, batch_size: int, steps: int
) -> np.ndarray:
    """Return the gaps f − f* of SVRG, (runs, steps + 1).

    g = ∇f_B(x) − ∇f_B(x̃) + ∇f(x̃), where the anchor x̃ is set to x after every 3 passes over the
    data, as in the lecture's exercise (Johnson and Zhang 2013).
    """
    gradient, full = jax.grad(problem.value_on), jax.grad(problem.value)
    every = 3 * EXAMPLES // batch_size

    def one(key: jax.Array) -> jax.Array:
        def step(carry: Any, k: jax.Array) -> Any:
            x, anchor, mean = carry
            anchor = jnp.where(k % every == 0, x, anchor)
            mean = jax.lax.cond(k % every == 0, full, lambda _: mean, anchor)
            examples = draw(jax.random.fold_in(key, k), batch_size)
            x = x - rate * (gradient(x, examples) - gradient(anchor, examples) + mean)
            return (x, anchor, mean), problem.value(x)

        start = start_point()
        first = (start, start, full(start))
        values = jax.lax.scan(step, first, jnp.arange(steps))[1]
        return jnp.append(problem.value(start), values) - problem.minimum

    return np.asarray(jax.jit(jax.vmap(one))(keys))


def descent_slack(
    problem: LogisticRegression, keys: jax.Array, *, batch_size: int, steps: int
) -> np.ndarray:
    """Return bound − f(x⁺) of every step of SGD with step 1/L, (runs, steps)."""
    smoothness, full = problem.smoothness, jax.grad(problem.value)
    gradient = jax.grad(problem.value_on)

    def one(key: jax.Array) -> jax.Array:
        def step(x: jax.Array, k: jax.Array) -> Any:
            exact = full(x)
            drawn = gradient(x, draw(jax.random.fold_in(key, k), batch_size))
            new = x - drawn / smoothness
            error = jnp.sum((drawn - exact) ** 2) - jnp.sum(exact**2)
            return new, problem.value(x) + error / (2 * smoothness) - problem.value(new)

        return jax.lax.scan(step, start_point(), jnp.arange(steps))[1]

    return np.asarray(jax.jit(jax.vmap(one))(keys))


def compute(config: Config, _: Path | None = None) -> dict[str, np.ndarray]:
    """Return the gaps of every method over the steps.

    Returns:
        `gap` (μ, batches, seeds, steps + 1) of SGD; `moment` (μ,), the largest mean of |∇f_i|² that
        batches of 1 met in their second half; `gap_METHOD` (μ, seeds, steps + 1); `slack` (μ,
        batches), the least bound − f(x⁺) of all steps; `minimum`, `distance`, `smoothness` (μ,).
    """
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    found: dict[str, list[Any]] = {}
    at = np.arange(config.steps + 1)
    with jax.enable_x64(True):
        for ridge in config.ridges:
            problem = make_problem(ridge)
            sgd = {
                b: run_sgd(
                    problem, optax.sgd(config.rate), keys, batch_size=b, steps=config.steps, at=at
                )
                for b in config.batches
            }
            noisiest = sgd[min(config.batches)].moment[:, config.steps // 2 :]
            slack = [
                descent_slack(problem, keys, batch_size=b, steps=config.steps).min()
                for b in config.batches
            ]
            row = {
                "gap": np.stack([one.gap for one in sgd.values()]),
                "moment": noisiest.max(),
                "slack": np.array(slack),
                "minimum": problem.minimum,
                "distance": np.linalg.norm(problem.minimiser),
                "smoothness": problem.smoothness,
            }
            size = config.batch_size
            for name in METHODS:
                if name == "svrg":
                    gap = run_svrg(
                        problem, keys, rate=config.rate, batch_size=size, steps=config.steps
                    )
                else:
                    method = transformation(name, config, ridge)
                    gap = run_sgd(
                        problem, method, keys, batch_size=size, steps=config.steps, at=at
                    ).gap
                row[f"gap_{name}"] = gap
            for key, value in row.items():
                found.setdefault(key, []).append(value)
    return {key: np.stack(values) for key, values in found.items()}


RECORDED = {1.0: (0.542404, 0.373948, 4.554714), 0.1: (0.385123, None, 3.654714)}
"""f*, |x*| and L for two values of μ, from an independent program."""


def judge(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of plateaus, and whether it holds."""
    claims = []
    half = config.steps // 2
    for i, ridge in enumerate(config.ridges):
        if ridge in RECORDED:
            said = [float(found[name][i]) for name in ("minimum", "distance", "smoothness")]
            expected = RECORDED[ridge]
            claims.append(
                Claim(
                    f"μ = {ridge:g}: f*, |x*| and L are those of an independent program.",
                    f"{said[0]:.6f}, {said[1]:.6f}, {said[2]:.6f}",
                    all(
                        wanted is None or abs(value - wanted) < 1e-6
                        for value, wanted in zip(said, expected, strict=True)
                    ),
                )
            )
        plateau = found["gap"][i][..., half:].mean(-1)  # (batches, seeds)
        means = [mean_and_spread(values) for values in plateau]
        partial = [j for j, b in enumerate(config.batches) if b < EXAMPLES]
        falling = all(
            means[j][0] + means[j][1] < means[k][0] - means[k][1]
            for k, j in itertools.pairwise(partial)
        )
        claims.append(
            Claim(
                f"μ = {ridge:g}: with a constant step SGD stops at a plateau, lower for larger "
                "batches; full batches converge.",
                ", ".join(
                    f"{b}: {mean:.2g} ± {error:.1g}"
                    for b, (mean, error) in zip(config.batches, means, strict=True)
                ),
                falling
                and all(means[j][0] > 10 * means[j][1] for j in partial)
                and all(
                    mean < 1e-8
                    for b, (mean, _) in zip(config.batches, means, strict=True)
                    if b == EXAMPLES
                ),
            )
        )
        bound = found["smoothness"][i] * found["moment"][i] * config.rate / (4 * ridge)
        one = means[int(np.argmin(config.batches))][0]
        claims.append(
            Claim(
                f"μ = {ridge:g}: the plateau of batch {min(config.batches)} lies below Lσ²α/(4μ).",
                f"{one:.3g}, bound {bound:.3g} with the largest σ² met there, "
                f"{found['moment'][i]:.3g}",
                bool(one <= bound),
            )
        )
        if config.batch_size in config.batches:
            claims += _below(config, found, i, plateau[config.batches.index(config.batch_size)])
    claims.append(
        Claim(
            "A batch is gradient descent with an error: f(x⁺) ≤ f(x) − |∇f|²/(2L) + |e|²/(2L).",
            f"least bound − f(x⁺) of {found['slack'].size * config.seeds * config.steps:,} steps: "
            f"{found['slack'].min():.2g}",
            bool(found["slack"].min() >= -1e-12),
        )
    )
    return claims


def _below(config: Config, found: Arrays, i: int, plateau: np.ndarray) -> list[Claim]:
    """Return a claim for each method: its gap at the end is below the plateau of SGD."""
    says = {
        "decreasing": "decreasing steps go below the plateau",
        "averaged": "so does the mean of the iterates, with the constant step",
        "clipped_sgd": f"clipping at {config.clip_level:g} makes no difference to the plateau",
        "clipped_sstm": "clipped-SSTM, whose steps grow, does not go below it",
        "svrg": "SVRG converges linearly with the constant step",
    }
    claims = []
    for name, text in says.items():
        end = found[f"gap_{name}"][i][:, -max(1, config.steps // 20) :].mean(-1)
        ratio = end.mean() / plateau.mean()
        spread = (
            1.96
            * np.hypot(end.std(ddof=1) / end.mean(), plateau.std(ddof=1) / plateau.mean())
            / len(end) ** 0.5
        )
        holds = {
            "decreasing": ratio * (1 + spread) < 0.8,
            "averaged": ratio * (1 + spread) < 0.8,
            "clipped_sgd": 0.5 < ratio < 2,
            "clipped_sstm": ratio * (1 - spread) > 1,
            "svrg": end.mean() < 1e-6,
        }[name]
        claims.append(
            Claim(
                f"μ = {config.ridges[i]:g}, batches of {config.batch_size}: {text}.",
                f"gap at the end {end.mean():.2g}, {ratio:.2g} times the plateau "
                f"(± {spread:.0%}, 95 %)",
                bool(holds),
            )
        )
    return claims


EXPERIMENT = Experiment(
    name="plateaus",
    title="The main problem of SGD",
    line="Logistic regression: the plateaus of SGD with a constant step, and what goes below them.",
    seconds=120,
    config=Config(),
    quick=QUICK,
    compute=compute,
    judge=judge,
    draw=lambda config, found: report.parts(config.ridges, config.batches, METHODS, found),
)
