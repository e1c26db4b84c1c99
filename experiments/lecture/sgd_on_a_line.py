"""SGD fits a line: batches of two beside gradient descent, and the ball in which SGD ends.

f(w) = 1/(2N) Σ (a_iᵀw − y_i)² with a_i = (x_i, 1): the slope and the height of a line. Settings of
the lecture's picture: N = 100, x from U(−1/2, 1/2), noise of 0.2, w* = (3, 4), start (5.5, 1.5);
gradient descent with step 0.3 for 300 steps, SGD with batches of 2 and step 1. The points are drawn
here from the lecture's seed, in an order of our own.

A constant step keeps SGD in a ball around the least-squares point. With examples drawn with
replacement the covariance S of w − w* there solves a linear equation, so that the ball's size is
known without running SGD (`stationary_covariance`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import clipjax
from experiments.lecture.experiment import Arrays, Claim, Experiment
from experiments.report.lecture import sgd_on_a_line as report
from experiments.setup.checks import COUNT, ONE_OR_MORE, POSITIVE, SEED, Range, check_fields
from experiments.setup.evaluation import evaluation_point


@dataclass(frozen=True)
class Config:
    """The experiment."""

    points: Annotated[int, Range(3, 10**6)] = 100
    """Points of the line, N."""
    noise: Annotated[float, POSITIVE] = 0.2
    """Standard deviation of their heights."""
    data_seed: Annotated[int, SEED] = 228
    """Of the points."""
    gd_rate: Annotated[float, POSITIVE] = 0.3
    """Step of gradient descent."""
    rate: Annotated[float, POSITIVE] = 1.0
    """Step of SGD."""
    batch_size: Annotated[int, COUNT] = 2
    """Examples of a batch of SGD."""
    steps: Annotated[int, Range(20, 10**7)] = 300
    """Steps of every method in the picture."""
    clip_level: Annotated[float, POSITIVE] = 0.1
    """Largest gradient norm of clipped-SGD and clipped-SSTM."""
    rates: Annotated[tuple[Annotated[float, POSITIVE], ...], ONE_OR_MORE] = (0.1, 0.3, 1.0)
    """Steps for which the ball is measured."""
    batches: Annotated[tuple[Annotated[int, COUNT], ...], ONE_OR_MORE] = (1, 2, 10, 50)
    """Batches, likewise."""
    ball_steps: Annotated[int, Range(100, 10**7)] = 1000
    """Steps after which it is measured."""
    seeds: Annotated[int, Range(10, 10**6)] = 1000
    """Runs of SGD over which it is measured."""
    seed: Annotated[int, SEED] = 0
    """Of the batches."""

    def __post_init__(self) -> None:
        check_fields(self)


QUICK = Config(seeds=200, ball_steps=400, rates=(0.3, 1.0), batches=(2, 10))

TRUE = (3.0, 4.0)
START = (5.5, 1.5)


class Line(NamedTuple):
    """Rows a_i = (x_i, 1) and heights y_i; what follows from them, by hand."""

    rows: np.ndarray
    heights: np.ndarray

    @property
    def solution(self) -> np.ndarray:
        """Return the least-squares point."""
        return np.linalg.lstsq(self.rows, self.heights, rcond=None)[0]

    @property
    def hessian(self) -> np.ndarray:
        """Return the second derivative of f."""
        return self.rows.T @ self.rows / len(self.rows)


def make_line(config: Config) -> Line:
    """Return the points, as float64."""
    key = jax.random.key(config.data_seed)
    x = jax.random.uniform(jax.random.fold_in(key, 0), (config.points,), minval=-0.5, maxval=0.5)
    noise = jax.random.normal(jax.random.fold_in(key, 1), (config.points,))
    rows = np.stack([np.asarray(x, np.float64), np.ones(config.points)], axis=1)
    return Line(rows, rows @ np.array(TRUE) + config.noise * np.asarray(noise, np.float64))


def stationary_covariance(line: Line, rate: float, batch_size: int) -> np.ndarray:
    """Return E[(w − w*)(w − w*)ᵀ] of SGD with a constant step, after infinitely many steps.

    With H the Hessian, r_i the residuals at w* and b examples drawn with replacement

        S = S − α(HS + SH) + α²[(1/b) E(aaᵀSaaᵀ) + (1 − 1/b) HSH + (1/b) E(r²aaᵀ)].

    Args:
        line: the points.
        rate: the step α.
        batch_size: b.

    Returns:
        A (2, 2) array.

    Raises:
        ValueError: with this step SGD has no such covariance: its second moments grow.
    """
    a, hessian, eye = line.rows, line.hessian, np.eye(2)
    residuals = line.heights - a @ line.solution
    outer = a[:, :, None] * a[:, None, :]
    squares = np.mean([np.kron(one, one) for one in outer], axis=0)
    moments = squares / batch_size + (1 - 1 / batch_size) * np.kron(hessian, hessian)
    step = np.eye(4) - rate * (np.kron(hessian, eye) + np.kron(eye, hessian)) + rate**2 * moments
    if np.abs(np.linalg.eigvals(step)).max() >= 1:
        raise ValueError(
            f"SGD with step {rate} and batches of {batch_size} leaves every ball around the "
            "least-squares point; expected a smaller step"
        )
    noise = (residuals[:, None, None] ** 2 * outer).mean(0)
    source = rate**2 / batch_size * noise.reshape(-1)
    return np.linalg.solve(np.eye(4) - step, source).reshape(2, 2)


def follow(
    line: Line,
    make: Callable[[Any], Any],
    rates: Sequence[float],
    keys: jax.Array,
    *,
    steps: int,
    batch_size: int | None,
) -> np.ndarray:
    """Return the points that a method goes through, where it would be evaluated.

    Args:
        line: the points of f.
        make: step size -> the Optax transformation.
        rates: step sizes; all are one program.
        keys: of the batches, one for each run.
        steps: of each run.
        batch_size: examples drawn with replacement; None for all of them.

    Returns:
        (rates, runs, steps + 1, 2), the start first.
    """
    rows, heights = jnp.asarray(line.rows), jnp.asarray(line.heights)
    start = jnp.asarray(START)

    def one(rate: jax.Array, key: jax.Array) -> jax.Array:
        transformation = make(rate)

        def step(carry: Any, k: jax.Array) -> Any:
            w, state = carry
            if batch_size is None:
                a, y = rows, heights
            else:
                index = jax.random.randint(
                    jax.random.fold_in(key, k), (batch_size,), 0, len(heights)
                )
                a, y = rows[index], heights[index]
            gradient = a.T @ (a @ w - y) / len(y)
            updates, state = transformation.update(gradient, state, w)
            w = optax.apply_updates(w, updates)
            return (w, state), evaluation_point(state, w)

        first = (start, transformation.init(start))
        path = jax.lax.scan(step, first, jnp.arange(steps))[1]
        return jnp.concatenate([start[None], path])

    runs = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return np.asarray(jax.jit(runs)(jnp.asarray(rates), keys))


class Method(NamedTuple):
    """What the picture shows: a transformation by its step size, the step, examples in a step."""

    make: Callable[[Any], Any]
    rate: float
    batch_size: int | None


def methods(config: Config) -> dict[str, Method]:
    """Return the methods of the picture."""
    rate, level, b = config.rate, config.clip_level, config.batch_size
    return {
        "gd": Method(optax.sgd, config.gd_rate, None),
        "sgd": Method(optax.sgd, rate, b),
        "averaged_sgd": Method(lambda r: clipjax.average_iterates(optax.sgd(r)), rate, b),
        "clipped_sgd": Method(lambda r: clipjax.clipped_sgd(r, level), rate, b),
        "clipped_sstm": Method(lambda r: clipjax.clipped_sstm(r, 10.0, level), rate, b),
    }


def compute(config: Config, _: Path | None = None) -> dict[str, np.ndarray]:
    """Return the paths of the picture and the balls, measured and predicted.

    Returns:
        `rows`, `heights`, `solution`, `hessian`; `path_METHOD` (steps + 1, 2) of one run;
        `distance_METHOD` (seeds,), |w − w*|² of every run's last point; `ball` (rates, batches,
        ball_steps + 1), the mean of |w − w*|² over the seeds; `ball_last` (rates, batches, seeds);
        `ball_predicted` (rates, batches).
    """
    line = make_line(config)
    keys = jax.random.split(jax.random.key(config.seed), config.seeds)
    found = dict(rows=line.rows, heights=line.heights, solution=line.solution, hessian=line.hessian)

    def squares(points: np.ndarray) -> np.ndarray:
        return ((points - line.solution) ** 2).sum(-1)

    with jax.enable_x64(True):
        for name, (make, rate, batch_size) in methods(config).items():
            chosen = keys if batch_size else keys[:1]
            paths = follow(line, make, [rate], chosen, steps=config.steps, batch_size=batch_size)[0]
            found[f"path_{name}"] = paths[0]
            found[f"distance_{name}"] = squares(paths[:, -1])
        balls = [
            squares(
                follow(
                    line, optax.sgd, config.rates, keys, steps=config.ball_steps, batch_size=size
                )
            )
            for size in config.batches
        ]
    balls = np.stack(balls, axis=1)  # (rates, batches, seeds, steps + 1)
    predicted = [
        [np.trace(stationary_covariance(line, rate, size)) for size in config.batches]
        for rate in config.rates
    ]
    return found | {
        "ball": balls.mean(2),
        "ball_last": balls[..., -1],
        "ball_predicted": np.array(predicted),
    }


DEVIATIONS = 4.0
"""How many standard errors a mean may lie off; one of a dozen does so once in 1,300 times."""


def judge(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of SGD on a line, and whether it holds."""
    distance = {name: found[f"distance_{name}"] for name in methods(config)}
    smallest = np.linalg.eigvalsh(found["hessian"])[0]
    first = ((np.array(START) - found["solution"]) ** 2).sum() ** 0.5
    bound = (1 - config.gd_rate * smallest) ** config.steps * first
    reached = float(distance["gd"][0] ** 0.5)
    claims = [
        Claim(
            f"Gradient descent converges: |w − w*| ≤ (1 − αμ)^k |w_0 − w*| after "
            f"{config.steps} steps.",
            f"{reached:.3g}, bound {bound:.3g} (no randomness)",
            bool(reached <= bound * (1 + 1e-9)),
        )
    ]
    last, predicted = found["ball_last"], found["ball_predicted"]
    mean = last.mean(-1)
    error = last.std(-1, ddof=1) / np.sqrt(last.shape[-1])
    off = np.abs(mean - predicted) / error
    i = tuple(np.unravel_index(off.argmax(), off.shape))
    claims.append(
        Claim(
            "SGD with a constant step does not converge: it stays in a ball, whose mean squared "
            "radius is the one that the linear equation for the covariance gives.",
            f"{mean.size} pairs of step and batch; farthest off at step {config.rates[i[0]]:g}, "
            f"batch {config.batches[i[1]]}: {mean[i]:.4g} ± {error[i]:.2g} (standard error), "
            f"predicted {predicted[i]:.4g}",
            bool(off.max() <= DEVIATIONS),
        )
    )
    ratios = np.array([[rate / batch for batch in config.batches] for rate in config.rates])
    slope, spread = _slope(np.log(ratios).ravel(), np.log(mean).ravel(), (error / mean).ravel())
    claims.append(
        Claim(
            "The mean squared radius grows about like step / batch.",
            f"like its power {slope:.2f} ± {spread:.2f} (standard error of a line through the "
            "logarithms of all pairs); 1 in the limit of small steps",
            bool(abs(slope - 1) <= 0.25),
        )
    )
    for name, says in (
        ("averaged_sgd", "The mean of SGD's iterates comes closer than the last iterate."),
        ("clipped_sgd", f"Clipping at {config.clip_level:g} makes the ball smaller."),
        ("clipped_sstm", "clipped-SSTM, whose steps grow, ends closer than SGD."),
    ):
        ratio, low, high = _ratio(distance[name], distance["sgd"], config.seed)
        claims.append(
            Claim(
                says,
                f"after {config.steps} steps mean |w − w*|² is {ratio:.3g} times SGD's "
                f"({low:.3g} to {high:.3g}, 95 %)",
                bool(high < 1),
            )
        )
    return claims


def _slope(x: np.ndarray, y: np.ndarray, sigma: np.ndarray) -> tuple[float, float]:
    """Return the slope of the weighted least-squares line and its standard error."""
    coefficients, covariance = np.polyfit(x, y, 1, w=1 / sigma, cov="unscaled")
    return float(coefficients[0]), float(covariance[0, 0] ** 0.5)


def _ratio(top: np.ndarray, bottom: np.ndarray, seed: int) -> tuple[float, float, float]:
    """Return the ratio of two means over the same seeds and its 95 % bootstrap interval."""
    draws = np.random.default_rng(seed).integers(0, len(top), (2000, len(top)))
    ratios = top[draws].mean(1) / bottom[draws].mean(1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(top.mean() / bottom.mean()), float(low), float(high)


EXPERIMENT = Experiment(
    name="sgd_on_a_line",
    title="SGD on a line",
    line="Batches of two beside gradient descent; the ball in which SGD with a constant step ends.",
    seconds=15,
    config=Config(),
    quick=QUICK,
    compute=compute,
    judge=judge,
    draw=lambda config, found: report.parts(config.rates, config.batches, found),
)
