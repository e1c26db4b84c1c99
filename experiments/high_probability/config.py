"""What the experiment is: the problem, the noises, the methods, how long, how often.

`problem_texts` and `method_texts` say what its texts stand for.
"""

from dataclasses import dataclass
from typing import Any, Literal

from experiments.high_probability import checks
from experiments.high_probability.method_texts import methods, presets
from experiments.high_probability.problem_texts import (
    NOISES,
    PROBLEMS,
    constants,
    first_point,
    make_noise,
    make_oracle,
    make_problem,
)
from experiments.setup import config_files
from experiments.setup.allowed_names import check_package
from experiments.setup.checks import check_fields

__all__ = [
    "NOISES",
    "PROBLEMS",
    "Config",
    "constants",
    "first_point",
    "identity",
    "make_noise",
    "make_oracle",
    "make_problem",
    "methods",
    "presets",
]

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
