"""Four theorems on SGD beside what is measured, and which methods have which rate.

Logistic regression, batches of one example, 1,000 seeds. The bounds of the lecture hold for
E|∇f_i(x)|² ≤ σ² where the iterates are; σ² is taken as the largest that any run met.

    PL, constant step          E f(x_k) − f* ≤ (1 − 2αμ)^k (f(x_0) − f*) + Lσ²α/(4μ)
    PL, decreasing steps       E f(x_k) − f* ≤ Lσ²/(2μ²k)
    convex, constant step      E f(x̄_N) − f* ≤ Rσ/√N,  the uniform mean of N steps of R/(σ√N)
    convex, decreasing steps   E f(x̄_k) − f* ≤ 5R²/(4α_0√k) + 5α_0σ² ln(k + 1)/√k

The lecture's summary says that the rate of SGD is O(1/k), that momentum does not improve it, and
that a two-phase Newton method reaches O(1/k) without strong convexity. It names no source. The
method that fits is that of Bach and Moulines (2013), "Non-strongly-convex smooth stochastic
approximation with convergence rate O(1/n)" (RECALLED): averaged SGD finds a point, around which
averaged SGD with a constant step minimises the quadratic model of f, one example's at a time.
"""

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
    log_spaced,
    make_problem,
    run_sgd,
    slope,
    start_point,
)
from experiments.report.lecture import sgd_theorems as report
from experiments.setup.checks import ONE_OR_MORE, POSITIVE, SEED, Range, check_fields


@dataclass(frozen=True)
class Config:
    """The experiment."""

    ridge: Annotated[float, POSITIVE] = 1.0
    """μ of the strongly convex problem; the convex one has 0."""
    rate: Annotated[float, POSITIVE] = 0.1
    """The constant step."""
    steps: Annotated[int, Range(100, 10**7)] = 10_000
    """Steps of every run."""
    per_decade: Annotated[int, Range(2, 100)] = 8
    """Steps that are kept per factor of ten."""
    seeds: Annotated[int, Range(20, 10**6)] = 1000
    """Runs of each method."""
    newton_steps: Annotated[tuple[Annotated[int, Range(10, 10**8)], ...], ONE_OR_MORE] = (
        1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000,
    )  # fmt: skip
    """Numbers of steps of the two-phase method, and of SGD beside it: a run of its own for each."""
    newton_seeds: Annotated[int, Range(10, 10**6)] = 50
    """Runs of both."""
    clip_level: Annotated[float, POSITIVE] = 5.0
    """Largest gradient norm of clipped-SGD, about the length of one example."""
    momentum: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 0.9
    """Of Polyak's and Nesterov's."""
    seed: Annotated[int, SEED] = 0
    """Of the batches."""

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.rate < 1 / (2 * self.ridge):
            raise ValueError(
                f"Config.rate is {self.rate}; the theorem needs a step below 1/(2μ) = "
                f"{1 / (2 * self.ridge):g}"
            )


QUICK = Config(steps=1000, per_decade=6, seeds=100, newton_steps=(3000, 30_000), newton_seeds=20)

THEOREMS = {
    "pl_constant": "PL, constant step",
    "pl_decreasing": "PL, decreasing steps",
    "convex_constant": "convex, constant step",
    "convex_decreasing": "convex, decreasing steps",
}
RATES = {
    "pl_decreasing": "SGD",
    "polyak": "Polyak momentum",
    "nesterov": "Nesterov momentum",
    "clipped_sgd": "clipped-SGD",
}
"""Methods with the steps of the second theorem; those of momentum are 1 − β times as large."""


def transformation(name: str, config: Config, problem: LogisticRegression, sigma: float) -> Any:
    """Return a method of `THEOREMS` or `RATES`; σ is used by the third theorem alone."""
    ridge, beta = config.ridge, config.momentum
    theirs = clipjax.theory.sgd_pl_schedule(ridge)

    def softer(k: Any) -> Any:
        return (1 - beta) * theirs(k)

    match name:
        case "pl_constant":
            return optax.sgd(config.rate)
        case "pl_decreasing":
            return optax.sgd(theirs)
        case "polyak":
            return optax.sgd(softer, momentum=beta)
        case "nesterov":
            return optax.sgd(softer, momentum=beta, nesterov=True)
        case "clipped_sgd":
            return clipjax.clipped_sgd(theirs, config.clip_level)
        case "convex_constant":
            constant = clipjax.theory.sgd_convex_schedule(distance(problem), sigma, config.steps)
            return clipjax.average_iterates(optax.sgd(constant))
        case "convex_decreasing":
            falling = clipjax.theory.sgd_decreasing_schedule(1 / (4 * problem.smoothness))
            return clipjax.average_iterates(optax.sgd(falling), weights=falling)
    raise ValueError(name)


def distance(problem: LogisticRegression) -> float:
    """Return R = |x_0 − x*|."""
    return float(np.linalg.norm(np.asarray(start_point()) - np.array(problem.minimiser)))


def bound(
    name: str, config: Config, problem: LogisticRegression, moment: float, steps: np.ndarray
) -> np.ndarray:
    """Return a theorem's bound after these steps.

    Args:
        name: of `THEOREMS`.
        config: the experiment.
        problem: f.
        moment: σ².
        steps: k, from 1 on.
    """
    k, smoothness = steps.astype(float), problem.smoothness
    far = distance(problem)
    if name == "pl_constant":
        first = float(problem.value(start_point())) - problem.minimum
        ball = smoothness * moment * config.rate / (4 * config.ridge)
        return (1 - 2 * config.rate * config.ridge) ** k * first + ball
    if name == "pl_decreasing":
        return smoothness * moment / (2 * config.ridge**2 * k)
    if name == "convex_constant":
        # Of any step α: R²/(2αk) + ασ²/2; at k = N it is Rσ/√N.
        rate = far / np.sqrt(moment * config.steps)
        return far**2 / (2 * rate * k) + rate * moment / 2
    first_rate = 1 / (4 * smoothness)
    return (1.25 * far**2 / first_rate + 5 * first_rate * moment * np.log(k + 1)) / np.sqrt(k)


def two_phase_newton(problem: LogisticRegression, keys: jax.Array, *, steps: int) -> np.ndarray:
    """Return f − f* of averaged SGD and of the two-phase method after so many steps, (2, runs).

    Both begin with averaged SGD by the third theorem, α = |x_0 − x*|/(σ√n) with σ² = max |a_i|²: n
    is `steps`, or half of it, to a mean x̃. There the second phase linearises: averaged SGD with
    α = 1/(2σ²), from x̃, on the quadratic model of every example's loss at x̃.
    """
    rows = jnp.asarray(problem.features) * jnp.asarray(problem.labels)[:, None]
    moment = jnp.max(jnp.sum(rows**2, axis=1))
    far = distance(problem) / jnp.sqrt(moment)

    def averaged(key: jax.Array, start: jax.Array, rate: Any, gradient: Any, n: int) -> jax.Array:
        def step(carry: Any, k: jax.Array) -> Any:
            x, mean = carry
            i = jax.random.randint(jax.random.fold_in(key, k), (), 0, EXAMPLES)
            x = x - rate * gradient(x, rows[i])
            return (x, mean + (x - mean) / (k + 1)), None

        return jax.lax.scan(step, (start, start), jnp.arange(n))[0][1]

    def plain(x: jax.Array, row: jax.Array) -> jax.Array:
        return -jax.nn.sigmoid(-row @ x) * row

    def one(key: jax.Array) -> jax.Array:
        first, second = jax.random.split(key)
        half = steps // 2
        whole = averaged(first, start_point(), far / steps**0.5, plain, steps)
        point = averaged(first, start_point(), far / half**0.5, plain, half)

        def model(x: jax.Array, row: jax.Array) -> jax.Array:
            miss = jax.nn.sigmoid(-row @ point)
            return (-miss + miss * (1 - miss) * (row @ (x - point))) * row

        answer = averaged(second, point, 0.5 / moment, model, steps - half)
        return jnp.stack([problem.value(x) - problem.minimum for x in (whole, answer)])

    return np.asarray(jax.jit(jax.vmap(one))(keys)).T


def compute(config: Config, _: Path | None = None) -> dict[str, np.ndarray]:
    """Return gaps of all methods at log-spaced steps, bounds, and the two-phase method.

    Returns:
        `steps` (n,); `gap_NAME` (seeds, n); `bound_THEOREM` (n,), `moment_THEOREM` ();
        `newton_plain` and `newton` (newton_seeds, newton_steps).
    """
    steps = log_spaced(config.steps, config.per_decade)
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    found: dict[str, Any] = {"steps": steps}
    with jax.enable_x64(True):
        strong, convex = make_problem(config.ridge), make_problem(0.0)
        sigma = float(np.max(np.sum(np.asarray(convex.features) ** 2, axis=1))) ** 0.5
        for name in dict.fromkeys((*THEOREMS, *RATES)):
            problem = convex if name.startswith("convex") else strong
            run = run_sgd(
                problem,
                # |∇f_i| ≤ |a_i| where μ = 0: a σ that is known before anything is run.
                transformation(name, config, problem, sigma),
                keys,
                batch_size=1,
                steps=config.steps,
                at=np.concatenate([[0], steps]),
            )
            found[f"gap_{name}"] = run.gap[:, 1:]
            if name in THEOREMS:
                moment = sigma**2 if problem is convex else float(run.moment.max())
                found[f"moment_{name}"] = np.asarray(moment)
                found[f"bound_{name}"] = bound(name, config, problem, moment, steps)
        chosen = jax.random.split(jax.random.key(config.seed + 1), config.newton_seeds)
        both = [two_phase_newton(convex, chosen, steps=n) for n in config.newton_steps]
        found["newton_plain"], found["newton"] = np.stack(both, axis=2)
    return found


def judge(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of SGD's rates, and whether it holds."""
    steps = found["steps"]
    claims = []
    for name, title in THEOREMS.items():
        gaps, limit = found[f"gap_{name}"], found[f"bound_{name}"]
        upper = gaps.mean(0) + 1.96 * gaps.std(0, ddof=1) / len(gaps) ** 0.5
        mean, error = mean_and_spread(gaps[:, -1])
        high = float(np.quantile(gaps[:, -1], 0.99))
        claims.append(
            Claim(
                f"{title}: the mean gap lies below the theorem's bound at every step.",
                f"after {steps[-1]:,} steps {mean:.3g} ± {error:.1g}, 99 % of the runs below "
                f"{high:.3g}, bound {limit[-1]:.3g} (σ² = {float(found[f'moment_{name}']):.3g})",
                bool(np.all(upper <= limit)),
            )
        )
    late = steps >= steps[-1] / 30
    constant = found["gap_pl_constant"][:, late]
    flat = slope(steps[late], constant, config.seed)
    claims.append(
        Claim(
            "A constant step does not converge.",
            f"over the last factor of 30 the gap falls like k^{_range(flat)}",
            bool(flat[1] > -0.1),
        )
    )
    slopes = {
        name: slope(steps[late], found[f"gap_{name}"][:, late], config.seed) for name in RATES
    }
    claims.append(
        Claim(
            "With steps that fall like 1/k the rate is O(1/k).",
            f"k^{_range(slopes['pl_decreasing'])}",
            bool(abs(slopes["pl_decreasing"][0] + 1) < 0.15),
        )
    )
    ratios = {
        name: float(found[f"gap_{name}"][:, -1].mean() / found["gap_pl_decreasing"][:, -1].mean())
        for name in RATES
    }
    claims.append(
        Claim(
            "Momentum does not improve the rate, Polyak's or Nesterov's; nor does clipping.",
            "; ".join(
                f"{RATES[name]}: k^{_range(slopes[name])}, {ratios[name]:.2f} times SGD's gap"
                for name in RATES
                if name != "pl_decreasing"
            ),
            all(abs(slopes[n][0] + 1) < 0.25 and ratios[n] > 0.5 for n in RATES),
        )
    )
    at = np.array(config.newton_steps)
    last = at >= at[-1] / 10
    newton, plain = (
        slope(at[last], found[name][:, last], config.seed) for name in ("newton", "newton_plain")
    )
    ends = [mean_and_spread(found[name][:, -1]) for name in ("newton", "newton_plain")]
    claims.append(
        Claim(
            "A two-phase Newton method reaches O(1/k) without strong convexity, and a smaller gap "
            "than averaged SGD, whose theorem has O(1/√k).",
            f"over the last factor of 10 two phases: k^{_range(newton)}, averaged SGD: "
            f"k^{_range(plain)}; gaps after {at[-1]:,} steps {ends[0][0]:.2g} ± {ends[0][1]:.1g} "
            f"and {ends[1][0]:.2g} ± {ends[1][1]:.1g}",
            bool(newton[2] < -0.8 and sum(ends[0]) < ends[1][0] - ends[1][1]),
        )
    )
    return claims


def _range(found: tuple[float, float, float]) -> str:
    middle, low, high = found
    return f"{middle:.2f} ({low:.2f} to {high:.2f}, 95 %)"


EXPERIMENT = Experiment(
    name="sgd_theorems",
    title="Theorems on SGD",
    line="Four bounds beside 1,000 runs; rates with momentum, clipping, two-phase Newton steps.",
    seconds=300,
    config=Config(),
    quick=QUICK,
    compute=compute,
    judge=judge,
    draw=lambda config, found: report.parts(THEOREMS, RATES, config.newton_steps, found),
)
