"""What the experiment is: the problem, the noises, the methods, how long, how often."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import clipjax
from clipjax import problems
from clipjax.data import read_libsvm
from experiments.high_probability import checks
from experiments.high_probability.simulate import Method, evaluation_point
from experiments.high_probability.synthetic import holder_regression
from experiments.setup import config_files
from experiments.setup.allowed_names import check_package
from experiments.setup.checks import check_fields
from experiments.setup.expressions import evaluate

_POSITIVE = (
    "df",
    "learning_rate",
    "clip_level",
    "normalized_factor",
    "sstm_learning_rate",
    "sstm_clip_level",
    "memory",
)


_COUNTS = {"dimension": 2**31 - 1, "steps": 2**31 - 1, "replicas": 2**31 - 1, "records": 10**6}
"""Numbers of at least 1, and the most they may be: steps and replicas are counted in int32."""


@dataclass(frozen=True)
class Config:
    """The experiment; by default f(x) = 1/2 |x|² with independent noise in every coordinate.

    Problems, noises and methods are short names or calls of them, such as `student_t(3)`, or of
    what clipjax, optax, jax.numpy and math have, such as `Adam = optax.adam(0.01)`: see
    `PROBLEMS`, `NOISES` and `methods`. Names of other packages, such as `my_module.problem(2)`,
    must be allowed by `allow_import`: see `experiments.setup.allowed_names`.

    **Where the default methods' parameters come from.** SGD, clipped-SGD and normalised SGD share
    one step size and are not tuned. Normalised SGD's is multiplied by `normalized_factor`, about
    the norm √20 of normal noise, so that the three agree under normal noise. Clipped-SSTM spends as
    many gradients. Its theory asks for clipping at λ_k = B/α_k, so that no step is longer than B; B
    is the longest step of clipped-SGD, learning_rate * clip_level, and so again nothing is tuned.
    `sstm_learning_rate` is 1/a. Of a in {10, 100, 1000, 10000} we took 1000; the final quantiles
    under Student's t differ by less than 3 % between them, because there nearly every step is
    clipped. (B = 0.03 would halve clipped-SSTM's final quantiles; so would smaller steps those of
    the others.) The start does not matter for the final quantiles of SGD, clipped-SGD and
    normalised SGD, which have reached their stationary level; from x = 0 they are the same.
    """

    # What is minimised, under which noise.
    problem: str = "quadratic"
    """quadratic, rosenbrock, logistic_regression(FILE), ..., or PACKAGE.FUNCTION(...)."""
    dimension: int = 20
    """Number of coordinates n of the quadratic 1/2 |x|²."""
    start: float = 1.0
    """Every coordinate of the first point, counted from `start_from`."""
    start_slope: float = 0.0
    """Coordinate i (from 0) of the first point is moved by i times this."""
    start_from: Literal["origin", "minimiser", "sphere"] = "origin"
    """What the first point is counted from; `sphere` takes a direction at random, the same for all
    replicas, and goes `start` far from the origin."""
    noises: tuple[str, ...] = ("normal", "student_t")
    """Laws of the noise: normal, student_t(1.5), minibatch(20), ..."""
    df: float = 1.5
    """Degrees of freedom of a student_t without arguments."""

    # How long, how often, from which random numbers.
    steps: int = 2000
    """Stochastic gradients per replica and method."""
    replicas: int = 2000
    """Independent replicas."""
    seed: int = 0
    """Replica i draws from fold_in(key(seed), i)."""
    records: int = 80
    """Number of times at which the gap is recorded."""
    spacing: Literal["geometric", "linear"] = "geometric"
    """How these times are spaced."""
    precision: Literal["float32", "float64"] = "float32"
    """The dtype of the whole computation."""

    # The methods.
    methods: tuple[str, ...] = ("sgd", "normalized_sgd", "clipped_sgd", "clipped_sstm")
    """Names of methods, or LABEL = CALL of any factory of an Optax transformation."""
    learning_rate: float = 0.01
    """Step size γ of SGD and clipped-SGD."""
    clip_level: float = 10.0
    """Level λ of clipped-SGD."""
    normalized_factor: float = 4.5
    """Normalised SGD's step is this times the learning rate."""
    sstm_learning_rate: float = 1e-3
    """1/a of clipped-SSTM, with smoothness L = 1."""
    sstm_clip_level: float = 0.1
    """B of clipped-SSTM, its longest step."""

    # What is reported, and how the work is portioned.
    levels: tuple[float, ...] = (0.5, 0.9, 0.99, 0.999)
    """Quantile levels."""
    confidence: float = 0.95
    """Coverage of the bootstrap intervals."""
    reference: str = ""
    """Name of published or recorded numbers shown beside the results."""
    memory: float = 512.0
    """MiB of intermediate arrays per device: replicas run in chunks that stay below."""
    chunk: int = 0
    """Most replicas per chunk; 0 takes as many as fit."""

    # What texts may name.
    allow_import: tuple[str, ...] = ()
    """Packages that problems, noises and methods may name besides clipjax, optax, jax.numpy, math.
    They are imported and called: name only what you trust. Not kept in the run's JSON files."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name, most in _COUNTS.items():
            checks.check_count(name, getattr(self, name), most)
        checks.check_seed(self.seed)
        for name in _POSITIVE:
            checks.check_positive(name, getattr(self, name))
        for name in ("start", "start_slope"):
            checks.check_finite(name, getattr(self, name))
        if self.chunk < 0:
            raise ValueError(f"chunk is {self.chunk}; it must be 0 (as many as fit) or more")
        for name in ("noises", "methods", "levels"):
            checks.check_given(name, getattr(self, name))
        for level in (*self.levels, self.confidence):
            if not 0 < level < 1:
                raise ValueError(f"quantile levels and confidence lie in (0, 1), not {level}")
        for package in self.allow_import:
            check_package(package)
        for noise in self.noises:
            make_noise(noise, self.df, self.allow_import)
        methods(self)


def identity(config: Config) -> dict[str, Any]:
    """Return what makes an experiment this one and no other, as JSON values.

    `allow_import` is left out. It is a permission, given each time by who starts the program: a
    JSON file that came with somebody's results must not be able to grant it.
    """
    return {k: v for k, v in config_files.to_json(config).items() if k != "allow_import"}


# -- Problems and noises --------------------------------------------------------------------------

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


def make_problem(config: Config) -> problems.Problem:
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


def first_point(config: Config, problem: problems.Problem) -> jax.Array:
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


def _first_point(config: Config, problem: problems.Problem) -> np.ndarray:
    if config.start_from == "sphere":
        direction = np.random.default_rng(0).normal(size=problem.dimension)
        return config.start * direction / np.linalg.norm(direction)
    moved = config.start + config.start_slope * np.arange(problem.dimension)
    if config.start_from == "minimiser":
        moved = moved + np.array(problem.minimiser)
    return moved


# -- Methods --------------------------------------------------------------------------------------


def presets(config: Config) -> dict[str, Method]:
    """Return the methods that have names, with the configuration's parameters."""
    rate = config.learning_rate
    normalized_rate = config.normalized_factor * rate
    a, longest = 1 / config.sstm_learning_rate, config.sstm_clip_level

    def method(
        label: str, description: str, make: Callable[[jax.Array], Any], averages: bool = False
    ) -> Method:
        point = clipjax.eval_params if averages else evaluation_point
        return Method(label, make, description, point)

    return {
        "sgd": method("SGD", f"step size {rate:g}", lambda _: optax.sgd(rate)),
        "normalized_sgd": method(
            "normalised SGD",
            f"every step is {normalized_rate:g} long",
            lambda _: optax.chain(clipjax.normalize_by_global_norm(), optax.sgd(normalized_rate)),
        ),
        "clipped_sgd": method(
            "clipped-SGD",
            f"step size {rate:g}, level {config.clip_level:g}; no step is longer than "
            f"{rate * config.clip_level:g}",
            lambda _: clipjax.clipped_sgd(rate, config.clip_level),
        ),
        "clipped_sstm": method(
            "clipped-SSTM",
            f"a = {a:g}, L = 1, B = {longest:g}, which no step is longer than",
            lambda _: clipjax.clipped_sstm(
                config.sstm_learning_rate, smoothness=1.0, clip_level=longest
            ),
            averages=True,
        ),
        "autoclip": method(
            "AutoClip-10",
            f"step size {rate:g}, clipped to the 10 % quantile of the norms so far",
            lambda _: optax.chain(
                clipjax.clip_by_quantile(0.1, window=config.steps), optax.sgd(rate)
            ),
        ),
        "zclip": method(
            "ZClip",
            f"step size {rate:g}, norms beyond 2.5 standard deviations pulled in",
            lambda _: optax.chain(clipjax.clip_by_zscore(), optax.sgd(rate)),
        ),
    }


def constants(config: Config, problem: problems.Problem) -> dict[str, float]:
    """Return what a method's call may name: L, N (the steps) and R0 = |x_0 - x*|."""
    first_point(config, problem)  # it is finite
    away = _first_point(config, problem) - np.array(problem.minimiser)
    distance = math.hypot(*away)  # unlike a sum of squares, it does not overflow
    return {"L": problem.smoothness, "N": config.steps, "R0": float(distance)}


def methods(config: Config, known: Mapping[str, float] | None = None) -> dict[str, Method]:
    """Return the methods compared, by name.

    A text `LABEL = CALL` is a method of that name; in the call, `key` is the replica's own key, and
    L, N and R0 are `constants`. A growing batch is a transformation that accumulates
    (`clipjax.accumulate_gradients(inner, every)`): every stochastic gradient then counts as one
    oracle call, and updates come where they are due.

    Args:
        config: the experiment.
        known: `constants`; by default all are 1, which serves to check the texts.

    Raises:
        ValueError: for an unknown name, with the nearest one, a name given twice, or a call that
            does not return a transformation.
    """
    named = presets(config)
    values = {"L": 1.0, "N": 1, "R0": 1.0} | dict(known or {})
    found: dict[str, Method] = {}
    for text in config.methods:
        label, equals, call = (part.strip() for part in text.partition("="))
        if not equals or "(" in label:  # the sign belongs to a keyword argument
            label = call = text.strip()
        if not label or not label.isprintable():
            raise ValueError(f"method {text!r}: the label {label!r} cannot be shown; give another")
        if call in named:
            name = call if label == call else label
            method = dataclasses.replace(named[call], label=label) if name != call else named[call]
        elif "(" in call:
            name, method = label, _called(label, call, values, config.allow_import)
        else:
            evaluate(call, named, "method", config.allow_import)  # says which name is nearest
            raise ValueError(f"method {text!r}; expected a name or LABEL = CALL")
        if name in found:
            raise ValueError(
                f"method {name!r} is given twice; write LABEL = ... to tell them apart"
            )
        found[name] = method
    return found


def _called(label: str, call: str, values: Mapping[str, float], allow: Sequence[str]) -> Method:
    def make(key: jax.Array) -> Any:
        return evaluate(call, {**values, "key": key}, "method", allow)

    made = make(jax.random.key(0))
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise ValueError(f"method {call!r} is {made!r}; expected an Optax transformation")
    return Method(label, make, call)
