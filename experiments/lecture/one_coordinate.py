"""One coordinate: the lecture's functions, what moves on them, and the chance to leave.

    waves   f(x) = −φ(x) (1 + 0.07 sin 15x), φ the standard normal density
    hollows f(x) = −N(x; 0, 0.9) − 5 N(x; 13, 5): a narrow minimum and a wide one
    wells   f(x) = (x² − 1)² + 0.15 x

With noise of density p the chance to be still inside (l, h) after k steps solves
s_k(x) = ∫_l^h p((x − ηf'(x) − y)/η)/η s_{k−1}(y) dy, which Gauss's quadrature evaluates without a
single draw.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.scipy.stats import norm
from scipy import optimize

import clipjax
from clipjax.problems import Noise

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


def curve(function: Function, x: np.ndarray) -> np.ndarray:
    """Return f at points, in float64."""
    with jax.enable_x64(True):
        return np.asarray(function(np.asarray(x, np.float64)))


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
