"""Leaving a minimum by noise: gradient descent stays on the lecture's waves, SGD goes on.

f(x) = −φ(x) (1 + 0.07 sin 15x), φ the standard normal density. The lecture's settings: from 1.9
with step 0.1, gradient descent for 150 steps, SGD with noise 0.9 for 300. How often SGD leaves, for
every step and batch, is measured and computed without a draw (`one_coordinate.leaves`).
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from scipy import stats

from clipjax.problems import Normal
from experiments.lecture.experiment import Arrays, Claim, Experiment
from experiments.lecture.intervals import UNLIKELY, likely, said, wilson
from experiments.lecture.one_coordinate import (
    Setting,
    curve,
    descend,
    landmarks,
    leaves,
    simulate,
    waves,
)
from experiments.report.lecture import escape_waves as report
from experiments.setup.checks import COUNT, ONE_OR_MORE, POSITIVE, SEED, Range, check_fields


@dataclass(frozen=True)
class Config:
    """The experiment."""

    replicas: Annotated[int, Range(100, 10**7)] = 10_000
    """Runs behind every probability."""
    rates: Annotated[tuple[Annotated[float, POSITIVE], ...], ONE_OR_MORE] = (0.05, 0.1, 0.2, 0.4)
    """Steps of SGD."""
    batches: Annotated[tuple[Annotated[int, COUNT], ...], ONE_OR_MORE] = (1, 4, 16, 64, 256)
    """Batches: the noise's deviation is divided by their root."""
    noise: Annotated[float, POSITIVE] = 0.9
    """Of a batch of 1."""
    steps: Annotated[int, COUNT] = 300
    """Of SGD."""
    seed: Annotated[int, SEED] = 0
    """Of the noise."""

    def __post_init__(self) -> None:
        check_fields(self)


QUICK = Config(replicas=2000, rates=(0.1, 0.2), batches=(1, 16, 64))

START = 1.9
GD_RATE, GD_STEPS = 0.1, 150


def compute(config: Config, _: Path | None = None) -> dict[str, np.ndarray]:
    """Return the ways of gradient descent and SGD, and how often SGD leaves.

    Returns:
        `gd` (151,), `sgd` (steps + 1,), the lecture's ways; `left` and `expected` (rates, batches),
        how many of the replicas have left, and the probability that they do.
    """
    marks = landmarks()
    settings, expected = [], []
    for rate in config.rates:
        for batch in config.batches:
            scale = config.noise / batch**0.5
            # On the plateau to the right the noise alone moves a run: five deviations of its sum.
            high = START + 0.3 + 5 * rate * scale * config.steps**0.5
            setting = Setting(rate, scale, np.inf, START, marks.wave_top, high)
            settings.append(setting._replace(high=np.inf))
            density = functools.partial(stats.norm.pdf, scale=scale)
            resolution = rate * scale / 1.7
            expected.append(
                leaves(waves, density, setting, steps=config.steps, resolution=resolution)
            )
    shape = len(config.rates), len(config.batches)
    runs = simulate(
        waves,
        Normal(),
        settings,
        jax.random.key(config.seed),
        replicas=config.replicas,
        steps=config.steps,
    )
    # The lecture's own setting, for the picture: the nearest there is.
    place = _lecture_place(config)
    return {
        "gd": descend(waves, START, [GD_RATE], GD_STEPS)[0],
        "sgd": runs.paths.reshape(*shape, -1)[place],
        "left": runs.left.reshape(shape),
        "expected": np.reshape(expected, shape),
    }


def _lecture_place(config: Config) -> tuple[int, int]:
    """Return where the rate is nearest to the lecture's and the batch is smallest."""
    rate = int(np.argmin(np.abs(np.log(np.array(config.rates) / GD_RATE))))
    return rate, int(np.argmin(config.batches))


def judge(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of the waves, and whether it holds."""
    way, marks = found["gd"], landmarks()
    place = _lecture_place(config)
    rate, batch = config.rates[place[0]], config.batches[place[1]]
    share = wilson(found["left"][place], config.replicas)
    left, expected = found["left"], found["expected"]
    chances = [
        likely(count, config.replicas, p) for count, p in zip(left.flat, expected.flat, strict=True)
    ]
    worst = int(np.argmin(chances))
    i, j = np.unravel_index(worst, left.shape)
    return [
        Claim(
            "Gradient descent stays in the first minimum that it meets.",
            f"after {GD_STEPS} steps {abs(way[-1] - marks.wave_low):.1g} from it, at "
            f"{marks.wave_low:.4f} (no randomness)",
            bool(way.min() > marks.wave_top and abs(way[-1] - marks.wave_low) < 1e-6),
        ),
        Claim(
            "The noise of SGD carries it out of that minimum.",
            f"with step {rate:g} and batch {batch} a share {said(share)} has left within "
            f"{config.steps} steps",
            share[1] > 0.5,
        ),
        Claim(
            "How often SGD leaves is known without a draw, for every step and batch, from "
            "the equation of the chance to be still inside.",
            f"{left.size} pairs; the least likely count is that of step {config.rates[i]:g}, batch "
            f"{config.batches[j]}: {said(wilson(left[i, j], config.replicas))}, expected "
            f"{expected[i, j]:.4f}, p = {chances[worst]:.2g}",
            chances[worst] > UNLIKELY,
        ),
    ]


def _draw(config: Config, found: Arrays) -> Any:
    def share(count: int) -> tuple[float, float, float]:
        return wilson(count, config.replicas)

    shares = np.stack(np.vectorize(share, otypes=[float] * 3)(found["left"]))
    x = np.linspace(-1.5, 4.0, 800)
    ways = {name: (found[name], curve(waves, found[name])) for name in ("sgd", "gd")}
    return report.parts(
        (x, curve(waves, x)),
        ways,
        rates=config.rates,
        batches=config.batches,
        steps=config.steps,
        shares=shares,
        expected=found["expected"],
    )


EXPERIMENT = Experiment(
    name="escape_waves",
    title="Leaving a minimum: noise",
    line="Gradient descent stays in a minimum that SGD leaves: how often, by step and batch.",
    seconds=3,
    config=Config(),
    quick=QUICK,
    compute=compute,
    judge=judge,
    draw=_draw,
)
