"""Leaving a narrow minimum and a wide one: large steps, heavy tails, and whether clipping holds.

f(x) = −N(x; 0, 0.9) − 5 N(x; 13, 5). The lecture's settings: from 2 with step 0.1 for 150 steps and
step 12.9 for 75; the test loss is f(x − 1). Gradient descent is stable at a minimum for steps below
2/f''.

Beside it SGD with step 1 from each minimum, with normal and heavy-tailed noise of one median size.
Clipped heavy-tailed noise needs several jumps to leave what is wider than its longest step, which
wide minima survive and narrow ones do not (X. Wang, S. Oh, C.-H. Rhee, Eliminating sharp minima
from SGD with truncated heavy-tailed noise, 2022, https://arxiv.org/abs/2102.04297).
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from scipy import stats

from clipjax.problems import Noise, Normal, StudentT, SymmetricStable
from experiments.lecture.experiment import Arrays, Claim, Experiment
from experiments.lecture.intervals import UNLIKELY, difference, leaving_rate, likely, said, wilson
from experiments.lecture.one_coordinate import (
    Setting,
    curvature,
    curve,
    descend,
    hollows,
    landmarks,
    leaves,
    simulate,
)
from experiments.report.lecture import escape_hollows as report
from experiments.setup.checks import COUNT, POSITIVE, SEED, Range, check_fields

WAYS = 2.63, 10.36
"""`landmarks().ways`, known here because a config is made before JAX may be used."""


@dataclass(frozen=True)
class Config:
    """The experiment."""

    replicas: Annotated[int, Range(100, 10**7)] = 10_000
    """Runs behind every probability."""
    tail: Annotated[float, Range(1, 2, open_low=True, open_high=True)] = 1.5
    """Tail index of the heavy-tailed noises."""
    noise: Annotated[float, POSITIVE] = 0.15
    """Deviation of the normal noise beside these; all have the same median size."""
    steps: Annotated[int, COUNT] = 300
    """Of SGD, with steps of 1."""
    short_clip: Annotated[float, POSITIVE] = 1.5
    """Longest clipped step that is shorter than the way out of the narrow hollow."""
    long_clip: Annotated[float, POSITIVE] = 4.0
    """Longest clipped step that is longer than that, and shorter than the way out of the wide one.
    """
    seed: Annotated[int, SEED] = 0
    """Of the noise."""

    def __post_init__(self) -> None:
        check_fields(self)
        narrow, wide = WAYS
        if not self.short_clip < narrow < self.long_clip < wide:
            raise ValueError(
                f"short_clip, long_clip are {self.short_clip}, {self.long_clip}; expected the "
                f"first below {narrow:.2f}, the way out of the narrow hollow, and the second "
                f"between that and {wide:.2f}, the way out of the wide one"
            )


QUICK = Config(replicas=2000)

START = 2.0
GD_RATE, GD_STEPS = 0.1, 150
LARGE_RATE, LARGE_STEPS = 12.9, 75
SHIFT = 1.0
MULTIPLES = tuple(np.geomspace(0.5, 5.0, 30).tolist())
"""Steps of gradient descent, in units of 2/f''; none is 1."""
SWEEP_STEPS = 2000


def compute(config: Config, _: Path | None = None) -> dict[str, np.ndarray]:
    """Return what became of gradient descent and of SGD, and what theory says of the latter.

    Returns:
        `small` (151,), `large` (76,), the lecture's ways; `sweep_end` (2, multiples, 64), the last
        distances to the minimum of the narrow and the wide hollow, `sweep_far` (2, multiples), the
        largest. `left` (2, laws, 3), of hollows, laws and clippings (none, long, short), how many
        of the replicas have left; `expected` (2,), the chance to leave the narrow hollow with
        normal and Student's noise; `jump` (2,), the chance of one single jump out of it with
        Student's and stable noise.
    """
    return _descent() | _tails(config)


def _descent() -> dict[str, np.ndarray]:
    marks = landmarks()
    ends, far = [], []
    for minimum in (marks.narrow, marks.wide):
        stable = 2 / curvature(hollows, minimum)
        rates = [multiple * stable for multiple in MULTIPLES]
        ways = descend(hollows, minimum + 1e-3, rates, SWEEP_STEPS)
        distances = np.abs(ways - minimum)
        ends.append(distances[:, -64:])
        far.append(distances.max(1))
    return {
        "small": descend(hollows, START, [GD_RATE], GD_STEPS)[0],
        "large": descend(hollows, START, [LARGE_RATE], LARGE_STEPS)[0],
        "sweep_end": np.stack(ends),
        "sweep_far": np.stack(far),
    }


LAWS = ("normal", "Student", "stable")


def _laws(config: Config) -> tuple[tuple[Noise, ...], tuple[float, ...]]:
    """Return the laws and the scales that give all the median size of the normal one."""
    upper = 0.75  # of a symmetric law, the quartile is the median size
    size = config.noise * stats.norm.ppf(upper)
    scales = (
        config.noise,
        size / stats.t.ppf(upper, config.tail),
        size / stats.levy_stable.ppf(upper, config.tail, 0),
    )
    laws = (Normal(), StudentT(config.tail), SymmetricStable(config.tail))
    return laws, tuple(map(float, scales))


def _tails(config: Config) -> dict[str, np.ndarray]:
    marks = landmarks()
    keys = jax.random.split(jax.random.key(config.seed), len(LAWS))
    laws, scales = _laws(config)
    levels = (np.inf, config.long_clip, config.short_clip)
    left = []
    for law, scale, key in zip(laws, scales, keys, strict=True):
        settings = [
            Setting(1.0, scale, level, minimum, minimum - way, minimum + way)
            for minimum, way in (
                (marks.narrow, marks.ways[0]),
                (marks.wide, marks.ways[1]),
            )
            for level in levels
        ]
        runs = simulate(hollows, law, settings, key, replicas=config.replicas, steps=config.steps)
        left.append(runs.left.reshape(2, len(levels)))
    narrow = Setting(
        1.0,
        0.0,
        np.inf,
        marks.narrow,
        marks.narrow - marks.ways[0],
        marks.narrow + marks.ways[0],
    )
    densities = (
        functools.partial(stats.norm.pdf, scale=scales[0]),
        functools.partial(stats.t.pdf, df=config.tail, scale=scales[1]),
    )
    expected = [
        leaves(hollows, density, narrow, steps=config.steps, resolution=scale / fine)
        for density, scale, fine in zip(densities, scales, (1.7, 4.0), strict=False)
    ]
    single = [
        2 * stats.t.sf(marks.ways[0] / scales[1], config.tail),
        2 * stats.levy_stable.sf(marks.ways[0] / scales[2], config.tail, 0),
    ]
    return {
        "left": np.stack(left, axis=1),
        "expected": np.array(expected),
        "jump": 1 - (1 - np.array(single)) ** config.steps,
    }


def judge(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of the two hollows, and whether it holds; intervals are of 95 %."""
    return [*_judge_descent(found), *_judge_tails(config, found)]


def _judge_descent(found: Arrays) -> list[Claim]:
    marks = landmarks()
    small, large = found["small"][-1], found["large"][-1]
    limits = np.array([2 / curvature(hollows, minimum) for minimum in (marks.narrow, marks.wide)])
    multiples = np.array(MULTIPLES)
    converged = found["sweep_end"].max(-1) < 1e-6
    far = found["sweep_far"]
    circles = ~converged[0] & (far[0] < marks.ways[0])
    out = multiples[far[0] >= marks.ways[0]]
    rises = [
        float(np.diff(curve(hollows, np.array([minimum, minimum - SHIFT])))[0])
        for minimum in (marks.narrow, marks.wide)
    ]
    first_out = f"{out.min():.2f}" if len(out) else "none"
    return [
        Claim(
            f"The narrow minimum holds gradient descent with step {GD_RATE:g} and not "
            f"with step {LARGE_RATE:g}, which ends in the wide one.",
            f"after {GD_STEPS} steps at {small:.4f}, after {LARGE_STEPS} at {large:.4f}; 2/f'' is "
            f"{limits[0]:.3f} in the narrow and {limits[1]:.1f} in the wide minimum",
            bool(
                abs(small - marks.narrow) < 0.1
                and abs(large - marks.wide) < 0.1
                and limits[0] < LARGE_RATE < limits[1]
            ),
        ),
        Claim(
            "Gradient descent converges to a minimum if and only if its step is below 2/f''.",
            f"{multiples.size} steps from {multiples[0]:g} to {multiples[-1]:g} times 2/f'', from "
            f"0.001 beside each minimum: it converged up to "
            f"{_largest(multiples, converged[0])} (narrow) and {_largest(multiples, converged[1])} "
            "(wide) times 2/f''",
            bool((converged == (multiples < 1)).all()),
        ),
        Claim(
            "A step just above 2/f'' is not enough to leave: away from the minimum f "
            "bends less, and gradient descent circles in the hollow.",
            f"{circles.sum()} of {(multiples > 1).sum()} steps above 2/f'' do so in the narrow "
            f"hollow; the first that leaves is {first_out} times 2/f''",
            bool(circles[multiples > 1][:1].all() and circles.any() and len(out)),
        ),
        Claim(
            f"A shift of the test loss by {SHIFT:g} costs more in the narrow minimum than "
            "in the wide one.",
            f"f rises by {rises[0]:.4f} and by {rises[1]:.4f} (f''/2: {1 / limits[0]:.4f} and "
            f"{1 / limits[1]:.4f})",
            rises[0] > rises[1],
        ),
    ]


def _largest(multiples: np.ndarray, converged: np.ndarray) -> str:
    return f"{multiples[converged].max():.2f}" if converged.any() else "none"


def _judge_tails(config: Config, found: Arrays) -> list[Claim]:
    marks = landmarks()
    left, number = found["left"], config.replicas
    narrow, wide = left
    heavy = (1, 2)
    more = [difference(narrow[law, 0], narrow[0, 0], number) for law in heavy]
    chances = [likely(narrow[i, 0], number, found["expected"][i]) for i in range(2)]
    single = []
    for law, jump in zip(heavy, found["jump"], strict=True):
        _, low, high = (leaving_rate(p, 1.0) for p in wilson(narrow[law, 0], number))
        single.append((low / leaving_rate(jump, 1.0), high / leaving_rate(jump, 1.0)))
    long = [difference(narrow[law, 1], narrow[law, 0], number) for law in heavy]
    short = [difference(narrow[law, 2], narrow[law, 0], number) for law in heavy]
    kept = [difference(wide[law, 1], wide[law, 0], number) for law in heavy]
    apart = [difference(narrow[law, 1], wide[law, 1], number) for law in heavy]

    def both(numbers: Sequence[tuple[float, float, float]]) -> str:
        return ", ".join(f"{LAWS[law]} {said(n)}" for law, n in zip(heavy, numbers, strict=True))

    return [
        Claim(
            "Out of the narrow hollow heavy-tailed noise carries SGD where normal noise of "
            "the same median size does not.",
            f"normal {said(wilson(narrow[0, 0], number))}; more by: {both(more)}",
            all(low > 0.1 for _, low, _ in more),
        ),
        Claim(
            "How often, without clipping, is known without a draw (normal, Student).",
            "; ".join(
                f"{LAWS[i]} {said(wilson(narrow[i, 0], number))}, expected "
                f"{found['expected'][i]:.4f}, p = {chances[i]:.2g}"
                for i in range(2)
            ),
            min(chances) > UNLIKELY,
        ),
        Claim(
            "Mostly it is one jump, longer than the way out: these alone make up more than "
            "half of the rate of leaving.",
            "; ".join(
                f"{LAWS[law]}: {low:.2f} to {high:.2f} times the rate of such jumps"
                for law, (low, high) in zip(heavy, single, strict=True)
            ),
            all(high >= 1 and high < 2 for _, high in single),
        ),
        Claim(
            f"Clipping to steps of {config.long_clip:g}, longer than the narrow hollow's "
            f"way out ({marks.ways[0]:.2f}), does not keep SGD in.",
            f"difference to no clipping: {both(long)}",
            all(low > -0.05 and high < 0.05 for _, low, high in long),
        ),
        Claim(
            f"Clipping to steps of {config.short_clip:g}, shorter than that, does: two "
            "jumps are needed, one close after the other.",
            f"difference to no clipping: {both(short)}",
            all(high < -0.1 for _, _, high in short),
        ),
        Claim(
            f"With steps up to {config.long_clip:g} the wide hollow (way out "
            f"{marks.ways[1]:.2f}) holds SGD and the narrow one does not: clipping prefers "
            "wide minima (Wang, Oh and Rhee, 2022).",
            f"wide hollow, difference to no clipping: {both(kept)}; narrow minus wide: "
            f"{both(apart)}",
            all(high < 0 for _, _, high in kept) and all(low > 0.1 for _, low, _ in apart),
        ),
    ]


def _draw(config: Config, found: Arrays) -> Any:
    def share(count: int) -> tuple[float, float, float]:
        return wilson(count, config.replicas)

    x = np.linspace(-4.5, 26, 600)
    return report.parts(
        x=x,
        values=curve(hollows, x),
        shifted=curve(hollows, x - SHIFT),
        ways={
            f"step {rate:g}": (found[name], curve(hollows, found[name]))
            for name, rate in (("large", LARGE_RATE), ("small", GD_RATE))
        },
        multiples=MULTIPLES,
        ends=found["sweep_end"].max(-1),
        ways_out=landmarks().ways,
        laws=[name if name == "normal" else f"{name}, index {config.tail:g}" for name in LAWS],
        clips=["none", *(f"steps up to {c:g}" for c in (config.long_clip, config.short_clip))],
        shares=np.stack(np.vectorize(share, otypes=[float] * 3)(found["left"])),
    )


EXPERIMENT = Experiment(
    name="escape_hollows",
    title="Leaving a minimum: narrow and wide, tails and clipping",
    line="A narrow and a wide minimum: step size, heavy-tailed noise, and what clipping holds.",
    seconds=3,
    config=Config(),
    quick=QUICK,
    compute=compute,
    judge=judge,
    draw=_draw,
)
