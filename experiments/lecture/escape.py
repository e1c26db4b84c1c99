"""Leaving a minimum: step, batch and the tail of the noise, on the lecture's functions of one x.

    waves   f(x) = −φ(x) (1 + 0.07 sin 15x), φ the standard normal density
    hollows f(x) = −N(x; 0, 0.9) − 5 N(x; 13, 5): a narrow minimum and a wide one
    wells   f(x) = (x² − 1)² + 0.15 x

The lecture's settings. Waves: from 1.9 with step 0.1, gradient descent for 150 steps, SGD with
noise 0.9 for 300. Hollows: from 2, step 0.1 for 150 steps and step 12.9 for 75; the test loss is
f(x − 1). Wells: gradient flow and dX = −f'(X) dt + 0.9 dW, both with dt = 0.012 for 1,000 steps.

What theory says is computed beside what is measured: with noise of density p the chance to be
still inside (l, h) after k steps solves s_k(x) = ∫_l^h p((x − ηf'(x) − y)/η)/η s_{k−1}(y) dy, which
Gauss's quadrature evaluates without a single draw; gradient descent is stable at a minimum for
steps below 2/f''; the stochastic differential equation ends in exp(−2f/σ²) and leaves a well at
Kramers's rate when that is deep. Clipped heavy-tailed noise needs several jumps to leave what is
wider than its longest step, which wide minima survive and narrow ones do not (X. Wang, S. Oh,
C.-H. Rhee, Eliminating sharp minima from SGD with truncated heavy-tailed noise, 2022,
https://arxiv.org/abs/2102.04297).
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.stats import norm
from scipy import optimize, stats

import clipjax
from clipjax.problems import Noise, Normal, StudentT, SymmetricStable
from experiments.lecture.experiment import Arrays, Claim, Experiment
from experiments.report.lecture import escape as report
from experiments.setup.checks import COUNT, ONE_OR_MORE, POSITIVE, SEED, Range, check_fields

Function: TypeAlias = Callable[[Any], jax.Array]


def waves(x: Any) -> jax.Array:
    """Return −φ(x) (1 + 0.07 sin 15x)."""
    return -norm.pdf(x) * (1 + 0.07 * jnp.sin(15 * x))


def hollows(x: Any) -> jax.Array:
    """Return −N(x; 0, 0.9) − 5 N(x; 13, 5)."""
    return -norm.pdf(x, 0.0, 0.9) - 5 * norm.pdf(x, 13.0, 5.0)


def wells(x: Any) -> jax.Array:
    """Return (x² − 1)² + 0.15 x."""
    return (x**2 - 1) ** 2 + 0.15 * x


WAYS = 2.63, 10.36
"""`landmarks().ways`, known here because a config is made before JAX may be used."""


@dataclass(frozen=True)
class Config:
    """The experiment."""

    replicas: Annotated[int, Range(100, 10**7)] = 10_000
    """Runs behind every probability."""
    rates: Annotated[tuple[Annotated[float, POSITIVE], ...], ONE_OR_MORE] = (0.05, 0.1, 0.2, 0.4)
    """Steps of SGD on the waves."""
    batches: Annotated[tuple[Annotated[int, COUNT], ...], ONE_OR_MORE] = (1, 4, 16, 64, 256)
    """Batches: the noise's deviation is divided by their root."""
    noise: Annotated[float, POSITIVE] = 0.9
    """Of a batch of 1, and of the stochastic differential equation."""
    steps: Annotated[int, COUNT] = 300
    """Of SGD on the waves."""
    long_steps: Annotated[int, Range(1000, 10**7)] = 5000
    """Of the stochastic differential equation, for its end and for Kramers's rate."""
    noises: Annotated[tuple[Annotated[float, POSITIVE], ...], ONE_OR_MORE] = (
        0.9,
        0.7,
        0.6,
        0.5,
        0.45,
    )
    """Of the equation, for Kramers's rate."""
    tail: Annotated[float, Range(1, 2, open_low=True, open_high=True)] = 1.5
    """Tail index of the heavy-tailed noises."""
    tail_noise: Annotated[float, POSITIVE] = 0.15
    """Deviation of the normal noise beside these; all have the same median size."""
    tail_steps: Annotated[int, COUNT] = 300
    """Of SGD with these, with steps of 1."""
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


WAVE_START, HOLLOW_START = 1.9, 2.0
GD_RATE, GD_STEPS = 0.1, 150
LARGE_RATE, LARGE_STEPS = 12.9, 75
SHIFT = 1.0
FLOW_STEP, FLOW_STEPS = 0.012, 1000
MULTIPLES = tuple(np.geomspace(0.5, 5.0, 30).tolist())
"""Steps of gradient descent in the hollows, in units of 2/f''; none is 1."""
SWEEP_STEPS = 2000
SHOWN = 40
"""Particles whose way is shown."""


class Landmarks(NamedTuple):
    """Stationary points of the three functions, to 1e-12."""

    wave_top: float
    """Before the waves' last minimum."""
    wave_low: float
    """The waves' last minimum, to which gradient descent goes."""
    narrow: float
    hollow_top: float
    wide: float
    left_well: float
    well_top: float
    right_well: float

    @property
    def ways(self) -> tuple[float, float]:
        """Return how far the top between the hollows is from the narrow and the wide minimum."""
        return self.hollow_top - self.narrow, self.wide - self.hollow_top


@functools.cache
def landmarks() -> Landmarks:
    """Return the stationary points."""
    return Landmarks(
        wave_top=_stationary_point(waves, 0.7, 0.82),
        wave_low=_stationary_point(waves, 0.82, 1.0),
        narrow=_stationary_point(hollows, -1.0, 1.0),
        hollow_top=_stationary_point(hollows, 2.0, 4.0),
        wide=_stationary_point(hollows, 10.0, 15.0),
        left_well=_stationary_point(wells, -2.0, -0.5),
        well_top=_stationary_point(wells, -0.5, 0.5),
        right_well=_stationary_point(wells, 0.5, 2.0),
    )


def _stationary_point(function: Function, low: float, high: float) -> float:
    with jax.enable_x64(True):
        slope = jax.jit(jax.grad(function))
        found = optimize.root_scalar(lambda x: float(slope(x)), bracket=(low, high), xtol=1e-13)
        return float(found.root)


def curvature(function: Function, x: float) -> float:
    """Return f''(x)."""
    with jax.enable_x64(True):
        return float(jax.grad(jax.grad(function))(float(x)))


def height(function: Function, x: float) -> float:
    """Return f(x) in float64."""
    with jax.enable_x64(True):
        return float(function(jnp.asarray(float(x))))


class Setting(NamedTuple):
    """One program runs all settings of a function and a law: arrays of one number for each."""

    rate: Any
    scale: Any
    """Of the noise."""
    level: Any
    """Largest size of the stochastic derivative; inf for no clipping."""
    start: Any
    low: Any
    """A run that is below this once has left."""
    high: Any


class Runs(NamedTuple):
    """What became of the replicas of all settings."""

    left: np.ndarray
    """(settings,), how many have left."""
    last: np.ndarray
    """(settings, replicas), where they are after the last step."""
    paths: np.ndarray
    """(settings, steps + 1, shown), the first replicas' way."""


def simulate(
    function: Function,
    law: Noise,
    settings: Sequence[Setting],
    key: jax.Array,
    *,
    replicas: int,
    steps: int,
    shown: int = 1,
) -> Runs:
    """Run SGD, clipped where a setting says so, from points of one coordinate.

    Args:
        function: f.
        law: of the noise that is added to f'.
        settings: of the runs; `start` may hold one number for each replica.
        key: of the noise, which is independent between settings.
        replicas: runs of each setting.
        steps: of each run.
        shown: replicas whose way is returned.
    """
    slope = jax.vmap(jax.grad(function))

    def one(setting: Setting, key: jax.Array) -> Any:
        transformation = clipjax.clipped_sgd(setting.rate, setting.level)

        def move(derivative: jax.Array, state: Any, x: jax.Array) -> Any:
            updates, state = transformation.update(derivative, state, x)
            return optax.apply_updates(x, updates), state

        def step(carry: Any, k: jax.Array) -> Any:
            x, state, left = carry
            noise = law.sample(jax.random.fold_in(key, k), x.shape, x.dtype)
            x, state = jax.vmap(move)(slope(x) + setting.scale * noise, state, x)
            left = left | (x < setting.low) | (x > setting.high)
            return (x, state, left), x[:shown]

        x = jnp.broadcast_to(setting.start, (replicas,))
        first = (x, jax.vmap(transformation.init)(x), jnp.zeros(replicas, bool))
        (last, _, left), path = jax.lax.scan(step, first, jnp.arange(steps))
        return left.sum(), last, jnp.concatenate([x[None, :shown], path])

    stacked = Setting(
        *(jnp.asarray(np.stack(parts), jnp.float32) for parts in zip(*settings, strict=True))
    )
    keys = jax.random.split(key, len(settings))
    return Runs(*map(np.asarray, jax.jit(jax.vmap(one))(stacked, keys)))


def descend(function: Function, start: float, rates: Sequence[float], steps: int) -> np.ndarray:
    """Return the ways of gradient descent, (rates, steps + 1), in float64."""
    with jax.enable_x64(True):
        slope = jax.grad(function)

        def one(rate: jax.Array) -> jax.Array:
            def step(x: jax.Array, _: None) -> Any:
                x = x - rate * slope(x)
                return x, x

            first = jnp.asarray(start)
            path = jax.lax.scan(step, first, None, length=steps)[1]
            return jnp.concatenate([first[None], path])

        return np.asarray(jax.jit(jax.vmap(one))(jnp.asarray(rates)))


def slopes(function: Function, x: np.ndarray) -> np.ndarray:
    """Return f' at points (n,), in float64."""
    # Sizes are powers of two, so that few programs are compiled.
    padded = np.zeros(2 ** math.ceil(math.log2(len(x))))
    padded[: len(x)] = x
    with jax.enable_x64(True):
        return np.asarray(_slope_of(function)(padded))[: len(x)]


@functools.cache
def _slope_of(function: Function) -> Callable[[np.ndarray], jax.Array]:
    return jax.jit(jax.vmap(jax.grad(function)))


def transitions(
    function: Function,
    density: Callable[[np.ndarray], np.ndarray],
    setting: Setting,
    resolution: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return points of [low, high] and the chances to step from each to the others.

    Args:
        function: f.
        density: of the noise, its scale included.
        setting: rate η, start, low and high; the latter finite.
        resolution: distance of two points, on average; below η times the noise's scale by a
            factor of 1.7 for normal noise, more for sharper densities.

    Returns:
        (n,) points of Gauss's quadrature, and (n + 1, n) chances, those from the start last.
    """
    count = math.ceil((setting.high - setting.low) / resolution)
    points, weights = np.polynomial.legendre.leggauss(count)
    half = (setting.high - setting.low) / 2
    x = setting.low + half * (points + 1)
    origins = np.append(x, setting.start)
    mean = origins - setting.rate * slopes(function, origins)
    return x, density((mean[:, None] - x) / setting.rate) / setting.rate * half * weights


def leaves(
    function: Function,
    density: Callable[[np.ndarray], np.ndarray],
    setting: Setting,
    *,
    steps: int,
    resolution: float,
) -> float:
    """Return the chance that SGD without clipping leaves (low, high), by quadrature.

    The arguments are those of `transitions`, and the number of steps.
    """
    _, step = transitions(function, density, setting, resolution)
    inside = np.ones(len(step) - 1)
    for _ in range(steps - 1):
        inside = step[:-1] @ inside
    return float(1 - step[-1] @ inside)


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
    with jax.enable_x64(True):
        wanted = weights * np.exp(-2 * np.asarray(wells(x)) / noise**2)
    return float(np.abs(np.cumsum(masses / masses.sum() - wanted / wanted.sum())).max())


def compute(config: Config, _: Path | None = None) -> dict[str, np.ndarray]:
    """Return what became of all runs, and what theory says of them.

    Returns:
        Waves: `waves_gd` (151,), `waves_sgd` (steps + 1,), `waves_left` and `waves_expected`
        (rates, batches), counts and probabilities. Hollows: `small` (151,), `large` (76,), the
        lecture's ways; `sweep_end` (2, multiples, 64), the last distances to the minimum of the
        narrow and the wide hollow, `sweep_far` (2, multiples), the largest. Wells: `flow_paths`,
        `sde_paths` (1001, shown), `flow_start`, `flow_last`, `sde_last`, `long_last` (replicas,),
        `step_error`, `kramers_left` and `kramers_expected` (noises,). Tails: `tail_left`
        (2, laws, 3), of hollows, laws and clippings (none, long, short); `tail_expected` (2,), of
        the narrow hollow with normal and Student's noise; `tail_jump` (2,), the chance of one
        single jump out of it with Student's and stable noise.
    """
    keys = jax.random.split(jax.random.key(config.seed), 6)
    return {
        **_waves(config, keys[0]),
        **_hollows(),
        **_wells(config, keys[1], keys[2]),
        **_tails(config, keys[3:]),
    }


def _waves(config: Config, key: jax.Array) -> dict[str, np.ndarray]:
    marks = landmarks()
    settings, expected = [], []
    for rate in config.rates:
        for batch in config.batches:
            scale = config.noise / batch**0.5
            # On the plateau to the right the noise alone moves a run: five deviations of its sum.
            high = WAVE_START + 0.3 + 5 * rate * scale * config.steps**0.5
            setting = Setting(rate, scale, np.inf, WAVE_START, marks.wave_top, high)
            settings.append(setting._replace(high=np.inf))
            density = functools.partial(stats.norm.pdf, scale=scale)
            resolution = rate * scale / 1.7
            expected.append(
                leaves(waves, density, setting, steps=config.steps, resolution=resolution)
            )
    shape = len(config.rates), len(config.batches)
    runs = simulate(waves, Normal(), settings, key, replicas=config.replicas, steps=config.steps)
    # The lecture's own setting, for the picture: the nearest there is.
    place = _lecture_place(config)
    return {
        "waves_gd": descend(waves, WAVE_START, [GD_RATE], GD_STEPS)[0],
        "waves_sgd": runs.paths.reshape(*shape, -1)[place],
        "waves_left": runs.left.reshape(shape),
        "waves_expected": np.reshape(expected, shape),
    }


def _lecture_place(config: Config) -> tuple[int, int]:
    """Return where the rate is nearest to the lecture's and the batch is smallest."""
    rate = int(np.argmin(np.abs(np.log(np.array(config.rates) / GD_RATE))))
    return rate, int(np.argmin(config.batches))


def _hollows() -> dict[str, np.ndarray]:
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
        "small": descend(hollows, HOLLOW_START, [GD_RATE], GD_STEPS)[0],
        "large": descend(hollows, HOLLOW_START, [LARGE_RATE], LARGE_STEPS)[0],
        "sweep_end": np.stack(ends),
        "sweep_far": np.stack(far),
    }


def _wells(config: Config, first: jax.Array, second: jax.Array) -> dict[str, np.ndarray]:
    marks = landmarks()
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
        "kramers_left": long.left[1:],
        "kramers_expected": np.array(expected[1:]),
    }


LAWS = ("normal", "Student", "stable")


def _laws(config: Config) -> tuple[tuple[Noise, ...], tuple[float, ...]]:
    """Return the laws and the scales that give all the median size of the normal one."""
    upper = 0.75  # of a symmetric law, the quartile is the median size
    size = config.tail_noise * stats.norm.ppf(upper)
    scales = (
        config.tail_noise,
        size / stats.t.ppf(upper, config.tail),
        size / stats.levy_stable.ppf(upper, config.tail, 0),
    )
    laws = (Normal(), StudentT(config.tail), SymmetricStable(config.tail))
    return laws, tuple(map(float, scales))


def _tails(config: Config, keys: jax.Array) -> dict[str, np.ndarray]:
    marks = landmarks()
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
        runs = simulate(
            hollows, law, settings, key, replicas=config.replicas, steps=config.tail_steps
        )
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
        leaves(hollows, density, narrow, steps=config.tail_steps, resolution=scale / fine)
        for density, scale, fine in zip(densities, scales, (1.7, 4.0), strict=False)
    ]
    single = [
        2 * stats.t.sf(marks.ways[0] / scales[1], config.tail),
        2 * stats.levy_stable.sf(marks.ways[0] / scales[2], config.tail, 0),
    ]
    return {
        "tail_left": np.stack(left, axis=1),
        "tail_expected": np.array(expected),
        "tail_jump": 1 - (1 - np.array(single)) ** config.tail_steps,
    }


UNLIKELY = 6e-5
"""A count as unlikely as this, or less, does not agree with theory: four deviations, two-sided."""


def wilson(count: int, number: int) -> tuple[float, float, float]:
    """Return a share and the ends of its 95 % Wilson interval.

    Examples:
        >>> [round(end, 4) for end in wilson(0, 100)]
        [0.0, 0.0, 0.037]
    """
    found = stats.binomtest(int(count), number).proportion_ci(method="wilson")
    return count / number, float(found.low), float(found.high)


def difference(first: int, second: int, number: int) -> tuple[float, float, float]:
    """Return p_1 − p_2 of counts out of the same number of runs, and its 95 % interval.

    Newcombe's: the distances of the two Wilson intervals' ends, added in squares.

    Examples:
        >>> [round(end, 4) for end in difference(60, 40, 100)]
        [0.2, 0.0614, 0.3281]

    References:
        R. G. Newcombe, "Interval estimation for the difference between independent proportions",
        Statistics in Medicine 17, 1998 (method 10).
    """
    p, p_low, p_high = wilson(first, number)
    q, q_low, q_high = wilson(second, number)
    low = p - q - math.hypot(p - p_low, q_high - q)
    high = p - q + math.hypot(p_high - p, q - q_low)
    return p - q, low, high


def _likely(count: Any, number: int, expected: Any) -> float:
    """Return how likely a count is that is as far off, or farther."""
    chance = float(np.clip(expected, 0.0, 1.0))
    return float(stats.binomtest(int(count), number, chance).pvalue)


def _said(numbers: tuple[float, float, float]) -> str:
    value, low, high = numbers
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def judge(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of leaving minima, and whether it holds; intervals are of 95 %."""
    return [
        *_judge_waves(config, found),
        *_judge_hollows(found),
        *_judge_wells(config, found),
        *_judge_tails(config, found),
    ]


def _judge_waves(config: Config, found: Arrays) -> list[Claim]:
    way, marks = found["waves_gd"], landmarks()
    place = _lecture_place(config)
    rate, batch = config.rates[place[0]], config.batches[place[1]]
    share = wilson(found["waves_left"][place], config.replicas)
    left, expected = found["waves_left"], found["waves_expected"]
    likely = [
        _likely(count, config.replicas, p)
        for count, p in zip(left.flat, expected.flat, strict=True)
    ]
    worst = int(np.argmin(likely))
    i, j = np.unravel_index(worst, left.shape)
    return [
        Claim(
            "Waves: gradient descent stays in the first minimum that it meets.",
            f"after {GD_STEPS} steps {abs(way[-1] - marks.wave_low):.1g} from it, at "
            f"{marks.wave_low:.4f} (no randomness)",
            bool(way.min() > marks.wave_top and abs(way[-1] - marks.wave_low) < 1e-6),
        ),
        Claim(
            "Waves: the noise of SGD carries it out of that minimum.",
            f"with step {rate:g} and batch {batch} a share {_said(share)} has left within "
            f"{config.steps} steps",
            share[1] > 0.5,
        ),
        Claim(
            "Waves: how often SGD leaves is known without a draw, for every step and batch, from "
            "the equation of the chance to be still inside.",
            f"{left.size} pairs; the least likely count is that of step {config.rates[i]:g}, batch "
            f"{config.batches[j]}: {_said(wilson(left[i, j], config.replicas))}, expected "
            f"{expected[i, j]:.4f}, p = {likely[worst]:.2g}",
            likely[worst] > UNLIKELY,
        ),
    ]


def _judge_hollows(found: Arrays) -> list[Claim]:
    marks = landmarks()
    small, large = found["small"][-1], found["large"][-1]
    limits = np.array([2 / curvature(hollows, minimum) for minimum in (marks.narrow, marks.wide)])
    multiples = np.array(MULTIPLES)
    converged = found["sweep_end"].max(-1) < 1e-6
    far = found["sweep_far"]
    circles = ~converged[0] & (far[0] < marks.ways[0])
    out = multiples[far[0] >= marks.ways[0]]
    rises = [
        height(hollows, minimum - SHIFT) - height(hollows, minimum)
        for minimum in (marks.narrow, marks.wide)
    ]
    first_out = f"{out.min():.2f}" if len(out) else "none"
    return [
        Claim(
            f"Hollows: the narrow minimum holds gradient descent with step {GD_RATE:g} and not "
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
            "Hollows: gradient descent converges to a minimum if and only if its step is below "
            "2/f''.",
            f"{multiples.size} steps from {multiples[0]:g} to {multiples[-1]:g} times 2/f'', from "
            f"0.001 beside each minimum: it converged up to "
            f"{_largest(multiples, converged[0])} (narrow) and {_largest(multiples, converged[1])} "
            "(wide) times 2/f''",
            bool((converged == (multiples < 1)).all()),
        ),
        Claim(
            "Hollows: a step just above 2/f'' is not enough to leave: away from the minimum f "
            "bends less, and gradient descent circles in the hollow.",
            f"{circles.sum()} of {(multiples > 1).sum()} steps above 2/f'' do so in the narrow "
            f"hollow; the first that leaves is {first_out} times 2/f''",
            bool(circles[multiples > 1][:1].all() and circles.any() and len(out)),
        ),
        Claim(
            f"Hollows: a shift of the test loss by {SHIFT:g} costs more in the narrow minimum than "
            "in the wide one.",
            f"f rises by {rises[0]:.4f} and by {rises[1]:.4f} (f''/2: {1 / limits[0]:.4f} and "
            f"{1 / limits[1]:.4f})",
            rises[0] > rises[1],
        ),
    ]


def _largest(multiples: np.ndarray, converged: np.ndarray) -> str:
    return f"{multiples[converged].max():.2f}" if converged.any() else "none"


def _judge_wells(config: Config, found: Arrays) -> list[Claim]:
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
    likely = [
        _likely(count, config.replicas, p)
        for count, p in zip(found["kramers_left"], found["kramers_expected"], strict=True)
    ]
    worst = int(np.argmin(likely))
    claims = [
        Claim(
            "Wells: gradient flow stays in the well where it starts; with noise some change it.",
            f"of {len(right)} starts {flow} end in the other well by the flow, a share "
            f"{_said(share)} by the stochastic differential equation",
            flow == 0 and share[1] > 0.01,
        ),
        Claim(
            "Wells: the stochastic differential equation ends in the density exp(−2f/σ²), wherever "
            "it began.",
            f"from the right well, after {config.long_steps} steps: largest distance of the "
            f"distribution functions {distance:.4f}, by chance up to {chance:.4f} (99.9 %), by the "
            f"equation's discrete steps {error:.4f}",
            bool(distance <= chance + error),
        ),
        Claim(
            "Wells: how often the other minimum is reached is known without a draw.",
            f"{len(likely)} noises; the least likely count is that of σ = "
            f"{config.noises[worst]:g}: "
            f"{_said(wilson(found['kramers_left'][worst], config.replicas))}, expected "
            f"{found['kramers_expected'][worst]:.4f}, p = {likely[worst]:.2g}",
            likely[worst] > UNLIKELY,
        ),
    ]
    said, holds = [], []
    for noise, count in zip(config.noises, found["kramers_left"], strict=True):
        depth, rate = kramers(noise)
        if depth < DEEP:
            continue
        _, low, high = (
            leaving_rate(p, FLOW_STEP * config.long_steps) for p in wilson(count, config.replicas)
        )
        said.append(f"σ = {noise:g}: {low / rate:.2f} to {high / rate:.2f} of {rate:.2g}")
        holds.append(low <= (1 + ROUGH) * rate and high >= (1 - ROUGH) * rate)
    if said:
        claims.append(
            Claim(
                f"Wells: out of a well that is deeper than {DEEP:g} times σ²/2 Kramers's rate is "
                f"right to {ROUGH:.0%}.",
                "; ".join(said),
                all(holds),
            )
        )
    return claims


DEEP, ROUGH = 4.5, 0.2
"""From which depth on Kramers's rate is looked at, in units of σ²/2, and how exact it is there."""


def stationary(noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return points and the distribution function of the density ∝ exp(−2f/σ²) of the wells."""
    x = np.linspace(-3, 3, 6001)
    with jax.enable_x64(True):
        density = np.exp(-2 * np.asarray(wells(x)) / noise**2)
    cumulative = np.cumsum(density)
    return x, cumulative / cumulative[-1]


def kramers(noise: float) -> tuple[float, float]:
    """Return the right well's depth in units of σ²/2, and Kramers's rate of leaving it.

    √(f''(a) |f''(b)|)/(2π) exp(−2(f(b) − f(a))/σ²), a the minimum and b the top.
    """
    marks = landmarks()
    depth = 2 * (height(wells, marks.well_top) - height(wells, marks.right_well)) / noise**2
    bends = curvature(wells, marks.right_well) * -curvature(wells, marks.well_top)
    return depth, math.sqrt(bends) / (2 * math.pi) * math.exp(-depth)


def leaving_rate(share: float, time: float) -> float:
    """Return the rate k of leaving for which a share 1 − exp(−k t) has left."""
    return -math.log1p(-share) / time if share < 1 else math.inf


def _judge_tails(config: Config, found: Arrays) -> list[Claim]:
    marks = landmarks()
    left, number = found["tail_left"], config.replicas
    narrow, wide = left
    heavy = (1, 2)
    more = [difference(narrow[law, 0], narrow[0, 0], number) for law in heavy]
    likely = [_likely(narrow[i, 0], number, found["tail_expected"][i]) for i in range(2)]
    single = []
    for law, jump in zip(heavy, found["tail_jump"], strict=True):
        _, low, high = (leaving_rate(p, 1.0) for p in wilson(narrow[law, 0], number))
        single.append((low / leaving_rate(jump, 1.0), high / leaving_rate(jump, 1.0)))
    long = [difference(narrow[law, 1], narrow[law, 0], number) for law in heavy]
    short = [difference(narrow[law, 2], narrow[law, 0], number) for law in heavy]
    kept = [difference(wide[law, 1], wide[law, 0], number) for law in heavy]
    apart = [difference(narrow[law, 1], wide[law, 1], number) for law in heavy]

    def both(numbers: Sequence[tuple[float, float, float]]) -> str:
        return ", ".join(f"{LAWS[law]} {_said(n)}" for law, n in zip(heavy, numbers, strict=True))

    return [
        Claim(
            "Tails: out of the narrow hollow heavy-tailed noise carries SGD where normal noise of "
            "the same median size does not.",
            f"normal {_said(wilson(narrow[0, 0], number))}; more by: {both(more)}",
            all(low > 0.1 for _, low, _ in more),
        ),
        Claim(
            "Tails: how often, without clipping, is known without a draw (normal, Student).",
            "; ".join(
                f"{LAWS[i]} {_said(wilson(narrow[i, 0], number))}, expected "
                f"{found['tail_expected'][i]:.4f}, p = {likely[i]:.2g}"
                for i in range(2)
            ),
            min(likely) > UNLIKELY,
        ),
        Claim(
            "Tails: mostly it is one jump, longer than the way out: these alone make up more than "
            "half of the rate of leaving.",
            "; ".join(
                f"{LAWS[law]}: {low:.2f} to {high:.2f} times the rate of such jumps"
                for law, (low, high) in zip(heavy, single, strict=True)
            ),
            all(high >= 1 and high < 2 for _, high in single),
        ),
        Claim(
            f"Tails: clipping to steps of {config.long_clip:g}, longer than the narrow hollow's "
            f"way out ({marks.ways[0]:.2f}), does not keep SGD in.",
            f"difference to no clipping: {both(long)}",
            all(low > -0.05 and high < 0.05 for _, low, high in long),
        ),
        Claim(
            f"Tails: clipping to steps of {config.short_clip:g}, shorter than that, does: two "
            "jumps are needed, one close after the other.",
            f"difference to no clipping: {both(short)}",
            all(high < -0.1 for _, _, high in short),
        ),
        Claim(
            f"Tails: with steps up to {config.long_clip:g} the wide hollow (way out "
            f"{marks.ways[1]:.2f}) holds SGD and the narrow one does not: clipping prefers "
            "wide minima (Wang, Oh and Rhee, 2022).",
            f"wide hollow, difference to no clipping: {both(kept)}; narrow minus wide: "
            f"{both(apart)}",
            all(high < 0 for _, _, high in kept) and all(low > 0.1 for _, low, _ in apart),
        ),
    ]


def _draw(config: Config, found: Arrays) -> Any:
    marks = landmarks()
    x = {
        "waves": np.linspace(-1.5, 4.0, 800),
        "hollows": np.linspace(-4.5, 26, 600),
        "wells": np.linspace(-1.8, 1.8, 400),
    }
    functions = {"waves": waves, "hollows": hollows, "wells": wells}
    with jax.enable_x64(True):
        curves = {name: (at, np.asarray(functions[name](at))) for name, at in x.items()}
        heights = {
            name: np.asarray(functions[name.split("_")[0]](found[way]))
            for name, way in (
                ("waves_gd", "waves_gd"),
                ("waves_sgd", "waves_sgd"),
                ("hollows_small", "small"),
                ("hollows_large", "large"),
            )
        }
        shifted = np.asarray(hollows(x["hollows"] - SHIFT))
    intervals = np.vectorize(lambda n: wilson(n, config.replicas), otypes=[float] * 3)
    return report.parts(
        report.Given(
            curves=curves,
            heights=heights,
            shifted=shifted,
            hollow_rates=(GD_RATE, LARGE_RATE),
            rates=config.rates,
            batches=config.batches,
            steps=config.steps,
            waves_left=np.stack(intervals(found["waves_left"])),
            multiples=np.array(MULTIPLES),
            density=_density(config.noise),
            depths=np.array([kramers(noise)[0] for noise in config.noises]),
            kramers=np.array([kramers(noise)[1] for noise in config.noises]),
            kramers_left=np.stack(intervals(found["kramers_left"])),
            time=FLOW_STEP * config.long_steps,
            flow_step=FLOW_STEP,
            laws=tuple(
                name if name == "normal" else f"{name}, index {config.tail:g}" for name in LAWS
            ),
            clips=(
                "none",
                f"steps up to {config.long_clip:g}",
                f"steps up to {config.short_clip:g}",
            ),
            ways=(marks.ways[0], marks.ways[1]),
            tail_left=np.stack(intervals(found["tail_left"])),
        ),
        found,
    )


def _density(noise: float) -> tuple[np.ndarray, np.ndarray]:
    x, cumulative = stationary(noise)
    return x, np.gradient(cumulative, x)


QUICK = Config(
    replicas=2000,
    rates=(0.1, 0.2),
    batches=(1, 16, 64),
    long_steps=4000,
    noises=(0.9, 0.6),
)

EXPERIMENT = Experiment(
    name="escape",
    title="Leaving a minimum",
    line="When SGD leaves a minimum, narrow or wide: step, batch, tail of the noise, clipping.",
    seconds=20,
    config=Config(),
    quick=QUICK,
    compute=compute,
    judge=judge,
    draw=_draw,
)
