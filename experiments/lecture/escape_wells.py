"""Leaving a well: gradient flow beside the stochastic differential equation.

f(x) = (x² − 1)² + 0.15 x. The lecture's settings: gradient flow and dX = −f'(X) dt + 0.9 dW, both
with dt = 0.012 for 1,000 steps. The equation ends in exp(−2f/σ²), and leaves a well at Kramers's
rate when that is deep.
"""

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from scipy import stats

from clipjax.problems import Normal
from experiments.lecture.experiment import Arrays, Claim, Experiment
from experiments.lecture.intervals import UNLIKELY, leaving_rate, likely, said, wilson
from experiments.lecture.one_coordinate import (
    Setting,
    curvature,
    curve,
    landmarks,
    leaves,
    simulate,
    transitions,
    wells,
)
from experiments.report.lecture import escape_wells as report
from experiments.setup.checks import ONE_OR_MORE, POSITIVE, SEED, Range, check_fields


@dataclass(frozen=True)
class Config:
    """The experiment."""

    replicas: Annotated[int, Range(100, 10**7)] = 10_000
    """Runs behind every probability."""
    noise: Annotated[float, POSITIVE] = 0.9
    """σ of the stochastic differential equation."""
    long_steps: Annotated[int, Range(1000, 10**7)] = 5000
    """Steps of it, for its end and for Kramers's rate."""
    noises: Annotated[tuple[Annotated[float, POSITIVE], ...], ONE_OR_MORE] = (
        0.9,
        0.7,
        0.6,
        0.5,
        0.45,
    )
    """σ for Kramers's rate."""
    seed: Annotated[int, SEED] = 0
    """Of the noise."""

    def __post_init__(self) -> None:
        check_fields(self)


QUICK = Config(replicas=2000, long_steps=4000, noises=(0.9, 0.6))

FLOW_STEP, FLOW_STEPS = 0.012, 1000
SHOWN = 40
"""Particles whose way is shown."""


def step_error(noise: float) -> float:
    """Return how far the discretised equation's stationary distribution is from exp(−2f/σ²).

    The largest distance of the distribution functions, on the wells with steps of `FLOW_STEP`.
    """
    scale = noise / FLOW_STEP**0.5
    setting = Setting(FLOW_STEP, scale, np.inf, 0.0, -3.0, 3.0)
    density = functools.partial(stats.norm.pdf, scale=scale)
    x, step = transitions(wells, density, setting, FLOW_STEP * scale / 1.7)
    values, vectors = np.linalg.eig(step[:-1].T)
    masses = np.real(vectors[:, np.argmax(np.real(values))])
    # The weights of the quadrature make masses of a density as well.
    weights = np.polynomial.legendre.leggauss(len(x))[1]
    wanted = weights * np.exp(-2 * curve(wells, x) / noise**2)
    return float(np.abs(np.cumsum(masses / masses.sum() - wanted / wanted.sum())).max())


def compute(config: Config, _: Path | None = None) -> dict[str, np.ndarray]:
    """Return where the particles are, and how many have left the right well.

    Returns:
        `flow_paths`, `sde_paths` (1001, shown), `flow_start`, `flow_last`, `sde_last`, `long_last`
        (replicas,), `step_error`, and `left` and `expected` (noises,), how many of the replicas
        have reached the other minimum, and the probability that they do.
    """
    marks = landmarks()
    first, second = jax.random.split(jax.random.key(config.seed))
    starts = np.linspace(-1.8, 1.8, config.replicas)
    starts = np.random.default_rng(config.seed).permutation(starts)  # the shown ones are spread
    root_step = FLOW_STEP**0.5
    settings = [
        Setting(FLOW_STEP, noise / root_step, np.inf, starts, -np.inf, np.inf)
        for noise in (0.0, config.noise)
    ]
    short = simulate(
        wells, Normal(), settings, first, replicas=config.replicas, steps=FLOW_STEPS, shown=SHOWN
    )
    settings, expected = [], []
    for noise in (config.noise, *config.noises):
        scale = noise / root_step
        setting = Setting(FLOW_STEP, scale, np.inf, marks.right_well, marks.left_well, 3.0)
        settings.append(setting._replace(high=np.inf))
        expected.append(
            leaves(
                wells,
                functools.partial(stats.norm.pdf, scale=scale),
                setting,
                steps=config.long_steps,
                resolution=FLOW_STEP * scale / 1.7,
            )
        )
    long = simulate(
        wells, Normal(), settings, second, replicas=config.replicas, steps=config.long_steps
    )
    return {
        "flow_start": starts,
        "flow_paths": short.paths[0],
        "sde_paths": short.paths[1],
        "flow_last": short.last[0],
        "sde_last": short.last[1],
        "long_last": long.last[0],
        "step_error": np.asarray(step_error(config.noise)),
        "left": long.left[1:],
        "expected": np.array(expected[1:]),
    }


def judge(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of the wells, and whether it holds; intervals are of 95 %."""
    marks = landmarks()
    right = found["flow_start"] > marks.well_top
    flow = int((right != (found["flow_last"] > marks.well_top)).sum())
    noisy = int((right != (found["sde_last"] > marks.well_top)).sum())
    share = wilson(noisy, len(right))
    x, cumulative = stationary(config.noise)
    distance = stats.kstest(
        found["long_last"].astype(np.float64), lambda at: np.interp(at, x, cumulative)
    ).statistic
    # Dvoretzky, Kiefer, Wolfowitz and Massart: no farther with a chance of 99.9 %.
    chance = math.sqrt(math.log(2 / 0.001) / (2 * len(found["long_last"])))
    error = float(found["step_error"])
    chances = [
        likely(count, config.replicas, p)
        for count, p in zip(found["left"], found["expected"], strict=True)
    ]
    worst = int(np.argmin(chances))
    claims = [
        Claim(
            "Gradient flow stays in the well where it starts; with noise some change it.",
            f"of {len(right)} starts {flow} end in the other well by the flow, a share "
            f"{said(share)} by the stochastic differential equation",
            flow == 0 and share[1] > 0.01,
        ),
        Claim(
            "The stochastic differential equation ends in the density exp(−2f/σ²), wherever "
            "it began.",
            f"from the right well, after {config.long_steps} steps: largest distance of the "
            f"distribution functions {distance:.4f}, by chance up to {chance:.4f} (99.9 %), by the "
            f"equation's discrete steps {error:.4f}",
            bool(distance <= chance + error),
        ),
        Claim(
            "How often the other minimum is reached is known without a draw.",
            f"{len(chances)} noises; the least likely count is that of σ = "
            f"{config.noises[worst]:g}: "
            f"{said(wilson(found['left'][worst], config.replicas))}, expected "
            f"{found['expected'][worst]:.4f}, p = {chances[worst]:.2g}",
            chances[worst] > UNLIKELY,
        ),
    ]
    rates, holds = [], []
    for noise, count in zip(config.noises, found["left"], strict=True):
        depth, rate = kramers(noise)
        if depth < DEEP:
            continue
        _, low, high = (
            leaving_rate(p, FLOW_STEP * config.long_steps) for p in wilson(count, config.replicas)
        )
        rates.append(f"σ = {noise:g}: {low / rate:.2f} to {high / rate:.2f} of {rate:.2g}")
        holds.append(low <= (1 + ROUGH) * rate and high >= (1 - ROUGH) * rate)
    if rates:
        claims.append(
            Claim(
                f"Out of a well that is deeper than {DEEP:g} times σ²/2 Kramers's rate is "
                f"right to {ROUGH:.0%}.",
                "; ".join(rates),
                all(holds),
            )
        )
    return claims


DEEP, ROUGH = 4.5, 0.2
"""From which depth on Kramers's rate is looked at, in units of σ²/2, and how exact it is there."""


def stationary(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return points and the distribution function of the density ∝ exp(−2f/σ²) of the wells."""
    x = np.linspace(-3, 3, 6001)
    density = np.exp(-2 * curve(wells, x) / noise**2)
    cumulative = np.cumsum(density)
    return x, cumulative / cumulative[-1]


def kramers(noise: float) -> tuple[float, float]:
    """Return the right well's depth in units of σ²/2, and Kramers's rate of leaving it.

    √(f''(a) |f''(b)|)/(2π) exp(−2(f(b) − f(a))/σ²), a the minimum and b the top.
    """
    marks = landmarks()
    top, bottom = curve(wells, np.array([marks.well_top, marks.right_well]))
    depth = 2 * float(top - bottom) / noise**2
    bends = curvature(wells, marks.right_well) * -curvature(wells, marks.well_top)
    return depth, math.sqrt(bends) / (2 * math.pi) * math.exp(-depth)


def _draw(config: Config, found: Arrays) -> Any:
    def share(count: int) -> tuple[float, float, float]:
        return wilson(count, config.replicas)

    x, cumulative = stationary(config.noise)
    depths, rates = np.array([kramers(noise) for noise in config.noises]).T
    return report.parts(
        found,
        flow_step=FLOW_STEP,
        time=FLOW_STEP * config.long_steps,
        density=(x, np.gradient(cumulative, x)),
        depths=depths,
        kramers=rates,
        shares=np.stack(np.vectorize(share, otypes=[float] * 3)(found["left"])),
    )


EXPERIMENT = Experiment(
    name="escape_wells",
    title="Leaving a minimum: flow and noise",
    line="Gradient flow beside the stochastic differential equation: who changes the well.",
    seconds=3,
    config=Config(),
    quick=QUICK,
    compute=compute,
    judge=judge,
    draw=_draw,
)
