"""What the texts of a problem and of its noises stand for, and where the methods begin."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from clipjax import problems
from clipjax.data import read_libsvm
from experiments.high_probability import checks
from experiments.high_probability.synthetic import holder_regression
from experiments.setup.expressions import evaluate

if TYPE_CHECKING:  # whose texts are checked here where it is made
    from experiments.high_probability.config import Config

NOISES: dict[str, Callable[..., Any]] = {
    "normal": problems.Normal,
    "student_t": problems.StudentT,
    "stable": problems.SymmetricStable,
    "exponential": problems.Exponential,
    "weibull": problems.Weibull,
    "burr": problems.BurrXII,
    "pareto": problems.Pareto,
    "standardised": problems.Standardised,
    "minibatch": lambda batch_size: partial(problems.Minibatch, batch_size=batch_size),
}
"""Names of noises; what a call of one returns is a noise, or makes an oracle of a problem."""

PROBLEMS: dict[str, Callable[..., problems.Problem]] = {
    "quadratic": lambda *spectrum: problems.Quadratic(spectrum),
    "rosenbrock": problems.Rosenbrock,
    "logistic_regression": lambda file, sparse=False, ridge=0.0: problems.LogisticRegression(
        *read_libsvm(Path(file), sparse=sparse), ridge=ridge
    ),
    "holder_regression": holder_regression,
}
"""Names of problems; `quadratic` without arguments is 1/2 |x|² in `Config.dimension`."""


def make_noise(text: str, df: float, allow: Sequence[str] = ()) -> Any:
    """Return what a noise's text describes: a noise, or a function from a problem to an oracle.

    Raises:
        ValueError: for an unknown name, with the nearest one, or arguments that are refused.
    """
    named = NOISES | {"student_t": lambda df=df, scale=1.0: problems.StudentT(df, scale)}
    made = evaluate(text, named, "noise", allow)
    if not (callable(made) or hasattr(made, "sample")):
        raise ValueError(f"noise {text!r} is {made!r}; expected a noise or a function to an oracle")
    return made


def make_problem(config: "Config") -> problems.Problem:
    """Return the problem.

    Raises:
        ValueError: for an unknown name, with the nearest one, arguments that are refused, or a
            problem of more coordinates than fit into `Config.memory`.
    """

    def quadratic(*spectrum: float) -> problems.Problem:
        if not spectrum:
            checks.check_dimension(config, config.dimension)
        return problems.Quadratic(spectrum or (1.0,) * config.dimension)

    named = PROBLEMS | {"quadratic": quadratic}
    made = evaluate(config.problem, named, "problem", config.allow_import)
    if isinstance(made, type) or not (hasattr(made, "value") and hasattr(made, "dimension")):
        raise ValueError(f"problem {config.problem!r} is {made!r}; expected a clipjax Problem")
    checks.check_dimension(config, made.dimension)
    return made


def make_oracle(
    problem: problems.Problem, noise: str, df: float, allow: Sequence[str] = ()
) -> problems.Oracle:
    """Return the problem's stochastic gradients under a noise.

    Raises:
        ValueError: for a noise that is none, or does not go with the problem.
    """
    made: Any = make_noise(noise, df, allow)
    if not callable(made):
        return problems.AdditiveNoise(problem, made)
    draws_examples = isinstance(made, partial) and made.func is problems.Minibatch
    if draws_examples and not hasattr(problem, "num_examples"):
        raise ValueError(
            f"noise {noise!r} draws examples, and {type(problem).__name__} has none; take a "
            "problem that is a mean over examples, such as logistic_regression(FILE)"
        )
    try:
        oracle: Any = made(problem)
    except Exception as error:  # somebody's function, which may raise anything
        raise ValueError(f"noise {noise!r}: {error!r} for {type(problem).__name__}") from error
    if not (hasattr(oracle, "sample") and hasattr(oracle, "gradient")):
        raise ValueError(f"noise {noise!r} makes {oracle!r}; expected an oracle")
    return oracle


def first_point(config: "Config", problem: problems.Problem) -> jax.Array:
    """Return x_0, shape (n,), in the configuration's dtype.

    Raises:
        ValueError: if it is not finite there.
    """
    with np.errstate(over="ignore"):
        point = np.asarray(_first_point(config, problem)).astype(config.precision)
    if not np.isfinite(point).all():
        raise ValueError(
            f"the first point is not finite in {config.precision}: start is {config.start}, "
            f"start_slope {config.start_slope}"
        )
    return jnp.asarray(point)


def _first_point(config: "Config", problem: problems.Problem) -> np.ndarray:
    if config.start_from == "sphere":
        direction = np.random.default_rng(0).normal(size=problem.dimension)
        return config.start * direction / np.linalg.norm(direction)
    moved = config.start + config.start_slope * np.arange(problem.dimension)
    if config.start_from == "minimiser":
        moved = moved + np.array(problem.minimiser)
    return moved


def constants(config: "Config", problem: problems.Problem) -> dict[str, float]:
    """Return what a method's call may name: L, N (the steps) and R0 = |x_0 - x*|."""
    first_point(config, problem)  # it is finite
    away = _first_point(config, problem) - np.array(problem.minimiser)
    distance = math.hypot(*away)  # unlike a sum of squares, it does not overflow
    return {"L": problem.smoothness, "N": config.steps, "R0": float(distance)}
