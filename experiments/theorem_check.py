"""Do the theorems' bounds hold, and by how much? Measured quantiles against them.

    python -m experiments.theorem_check --workdir runs/theorem_check

A theorem says: with these constants, f - f* is at most BOUND after N steps in all but a share β of
the runs. Here `clipjax.theory` gives the constants for f(x) = L/2 |x|² from a point at distance
R_0, replicas run them, batches and evaluation points included, and the (1 - β) quantile is set
beside the bound; its whole interval must lie below. The noise is heavy-tailed: Burr XII (1, 2.3)
for the theorems of finite variance, Student's t(1.5) for those of infinite variance.

The bounds hold for every problem and are far from tight for this one. A bound above f(x_0) - f*
says nothing at all, and the table says so. Each row is a program of its own, since the constants
depend on N and β.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import scipy.special

import clipjax
from clipjax import problems, theory
from clipjax.analysis import quantiles
from clipjax.optim.theory import constants as theory_constants
from clipjax.train import mesh as meshes
from clipjax.train.log import ProgressLine, write_json
from experiments.high_probability import Method, checks, replica_keys, simulate
from experiments.report.page import Cell, Page, Section, Table, to_markdown
from experiments.report.write import write_page
from experiments.setup import config as configs
from experiments.setup import memory, pace
from experiments.setup.checks import check_fields
from experiments.setup.cli import Command, explain, parse, start_jax, working_in
from experiments.setup.labels import plain
from experiments.setup.provenance import git_commit, versions


@dataclass(frozen=True)
class TheoremCommand(Command):
    """Compare the theorems' bounds with measured quantiles."""

    theorems: tuple[str, ...] = (
        "clipped_sgd",
        "clipped_sstm",
        "infinite_variance_clipped_sgd",
        "infinite_variance_clipped_sstm",
    )
    """Which theorems of `clipjax.theory`, without `_constants`."""
    iterations: tuple[int, ...] = (1_000, 10_000)
    """Numbers of steps N for the theorems of finite variance."""
    infinite_iterations: tuple[int, ...] = (10_000, 30_000)
    """Numbers of steps N for those of infinite variance, whose bounds say nothing for fewer."""
    failure_probabilities: tuple[float, ...] = (0.1, 0.01)
    """Probabilities β with which a bound may fail."""
    dimension: int = 10
    """Number of coordinates n."""
    smoothness: float = 1.0
    """Smoothness L of the problem."""
    distance: float = 1.0
    """R_0, from the first point to the minimiser."""
    noise_scale: float = 0.01
    """σ of finite variance: E|noise|² ≤ σ² for the whole vector."""
    infinite_noise_scale: float = 1e-4
    """σ of infinite variance: E|noise|^α ≤ σ^α, α = `moment`."""
    moment: float = 1.4
    """α of the theorems of infinite variance; below the noise's index 1.5."""
    replicas: int = 1000
    """Independent replicas."""
    seed: int = 0
    """Of the replicas."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("theorems", "iterations", "infinite_iterations", "failure_probabilities"):
            checks.check_given(name, getattr(self, name))
        for name in self.theorems:
            if name not in THEOREMS:
                raise ValueError(f"theorem {name!r}; {configs.nearest(name, THEOREMS)}")
        for name in ("dimension", "replicas"):
            checks.check_count(name, getattr(self, name))
        for name in ("iterations", "infinite_iterations"):
            for count in getattr(self, name):
                checks.check_count(name, count, MOST_ITERATIONS)
        for name in ("smoothness", "distance", "noise_scale", "infinite_noise_scale"):
            checks.check_positive(name, getattr(self, name))
        for beta in self.failure_probabilities:
            if not 0 < beta < 1:
                raise ValueError(f"failure_probabilities has {beta}; each must lie in (0, 1)")
        if not 1 < self.moment < HEAVY:
            raise ValueError(f"moment is {self.moment}; it must lie between 1 and {HEAVY}")
        checks.check_seed(self.seed)


MOST_ITERATIONS = 10**9
"""Their batches are added up one by one, which takes seconds for so many."""

HEAVY = 1.5
"""The tail index of the noise without variance."""

THEOREMS: dict[str, Callable[..., Any]] = {
    "clipped_sgd": theory.clipped_sgd_constants,
    "clipped_sstm": theory.clipped_sstm_constants,
    "infinite_variance_clipped_sgd": theory.infinite_variance_clipped_sgd_constants,
    "infinite_variance_clipped_sstm": theory.infinite_variance_clipped_sstm_constants,
}


def student_moment(df: float, p: float) -> float:
    """Return E|t|^p of Student's t, p < df.

    Examples:
        >>> round(student_moment(5.0, 2.0), 9)  # df / (df - 2)
        1.666666667
    """
    gamma = scipy.special.gamma
    ratio = gamma((p + 1) / 2) * gamma((df - p) / 2) / (math.sqrt(math.pi) * gamma(df / 2))
    return float(df ** (p / 2) * ratio)


def make_noise(theorem: str, command: TheoremCommand) -> problems.Noise:
    """Return a heavy-tailed noise that just meets the theorem's assumption.

    For α ≤ 2, E|ξ|^α ≤ n E|ξ_1|^α; with α = 2 that is an equality.
    """
    if "infinite" not in theorem:
        each = command.noise_scale / math.sqrt(command.dimension)
        return problems.Standardised(problems.BurrXII(1.0, 2.3), each)
    total = command.dimension * student_moment(HEAVY, command.moment)
    return problems.StudentT(HEAVY, command.infinite_noise_scale / total ** (1 / command.moment))


def make_method(theorem: str, constants: Any) -> Method:
    """Return the theorem's method with its batches and its evaluation point."""

    def make(_: jax.Array) -> Any:
        if "sstm" in theorem:
            inner = clipjax.clipped_sstm(**constants.arguments)
        else:
            inner = clipjax.average_iterates(clipjax.clipped_sgd(**constants.arguments))
        return clipjax.accumulate_gradients(inner, constants.batch_sizes)

    return Method(theorem, make, evaluation=clipjax.eval_params)


def make_constants(
    theorem: str, iterations: int, beta: float, command: TheoremCommand
) -> tuple[Any, int]:
    """Return a theorem's constants and the number of gradients that they ask for.

    Raises:
        ValueError: if they are too large for floating-point numbers, or ask for batches that no
            program can draw.
    """
    infinite = "infinite" in theorem
    given = {
        "smoothness": command.smoothness,
        "distance": command.distance,
        "noise_scale": command.infinite_noise_scale if infinite else command.noise_scale,
        "failure_probability": beta,
        "iterations": iterations,
        **({"moment": command.moment} if infinite else {}),
    }
    said = f"{theorem} with " + ", ".join(f"{name} = {value:g}" for name, value in given.items())
    try:
        constants = THEOREMS[theorem](**given)
        calls = constants.oracle_calls
    except ArithmeticError as error:
        raise ValueError(
            f"{said}: its constants are beyond the range of numbers, 5e-324 to 1.8e308; take "
            "numbers nearer to 1"
        ) from error
    sizes = constants.batch_sizes
    if int(sizes(iterations - 1)) >= theory_constants.LARGEST_BATCH:
        raise ValueError(
            f"{said} asks for batches of more than {theory_constants.LARGEST_BATCH:,} gradients; "
            "take less noise or fewer iterations"
        )
    numbers = (*constants.arguments.values(), constants.bound)
    if not all(math.isfinite(number) and number > 0 for number in numbers):
        raise ValueError(f"{said}: its constants are {numbers}; take numbers nearer to 1")
    return constants, calls


def check(
    theorem: str,
    iterations: int,
    beta: float,
    command: TheoremCommand,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Return the bound of one theorem for one N and β, and what was measured.

    Args:
        theorem: its name in `THEOREMS`.
        iterations: N.
        beta: β.
        command: the other numbers.
        say: is told how long it will take, if that is long.
    """
    constants, calls = make_constants(theorem, iterations, beta, command)
    # A draw, x, the method's two points, its sums, updates and gradient are the least.
    memory.check_fits(
        8 * 8 * command.replicas * command.dimension,
        f"{command.replicas:,} replicas of {command.dimension:,} coordinates",
        "take fewer replicas or coordinates",
    )
    spectrum = (command.smoothness,) * command.dimension
    oracle = problems.AdditiveNoise(problems.Quadratic(spectrum), make_noise(theorem, command))
    start = np.zeros(command.dimension)
    start[0] = command.distance
    methods = {theorem: make_method(theorem, constants)}
    # Float64: the bounds' small step sizes move the point by less than float32 can tell.
    with jax.enable_x64(True):
        keys = replica_keys(command.seed, command.replicas)

        @jax.jit
        def program(keys: jax.Array, calls: jax.Array) -> dict[str, jax.Array]:
            times = jax.numpy.stack([jax.numpy.zeros_like(calls), calls])
            return simulate(oracle, methods, jax.numpy.asarray(start), times, keys)

        def run(calls: int) -> np.ndarray:
            return np.asarray(jax.device_get(program(keys, jax.numpy.asarray(calls)))[theorem])

        what = f"{theorem}: {calls:,} gradients in each of {command.replicas:,} replicas"
        with pace.telling(say, f"{what}, compiling"):
            run(1)
        seconds = pace.estimate(run, calls)
        pace.check(seconds, what, "Take less noise, fewer iterations or fewer replicas")
        if seconds > 10:
            say(f"{what}, about {pace.words(seconds)}")
        with pace.telling(say, what):
            gaps = run(calls)[:, -1]
    found = quantiles(gaps, [1 - beta], confidence=0.95)
    return {
        "theorem": theorem,
        "iterations": iterations,
        "failure_probability": beta,
        "oracle_calls": calls,
        "start": 0.5 * command.smoothness * command.distance**2,
        "bound": constants.bound,
        "quantile": float(found.value[0]),
        "low": float(found.low[0]),
        "high": float(found.high[0]),
        "share_above": float(np.mean(gaps > constants.bound)),
        "holds": bool(found.high[0] <= constants.bound),
    }


def table(rows: Sequence[dict[str, Any]], replicas: int) -> Table:
    """Return the table of all checks."""
    cells = tuple(
        (
            Cell(
                f"{row['theorem']}, N = {row['iterations']:,}, β = {row['failure_probability']:g}"
            ),
            Cell(f"{row['oracle_calls']:,}"),
            Cell(f"{row['bound']:.3g}", "" if row["bound"] < row["start"] else "says nothing"),
            Cell(f"{row['quantile']:.3g}", f"{row['low']:.3g} to {row['high']:.3g}"),
            Cell(f"{row['quantile'] / row['bound']:.2g}"),
            Cell(f"{100 * row['share_above']:g} %"),
        )
        for row in rows
    )
    header = ("theorem", "gradients", "bound", "quantile", "ratio", "above")
    caption = (
        f"{replicas:,} replicas each, started at f − f* = {rows[0]['start']:g}. The (1 − β) "
        "quantile with its 95 % interval, its ratio to the bound, the share of replicas above it."
    )
    return Table("Bounds and measured quantiles", header, cells, caption)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check every theorem for every N and β; exit status 1 if a bound is broken."""
    command = parse(TheoremCommand, arguments)
    start_jax(command)
    began = time.monotonic()
    settings = [
        (theorem, iterations, beta)
        for theorem in command.theorems
        for iterations in (
            command.infinite_iterations if "infinite" in theorem else command.iterations
        )
        for beta in command.failure_probabilities
    ]
    for setting in settings:
        make_constants(*setting, command)  # a bad number is told before anything is computed
    with working_in(command.workdir):
        rows = []
        with ProgressLine("theorems", len(settings), 0) as line:
            for done, setting in enumerate(settings, 1):
                rows.append(check(*setting, command, line.say))
                line.update(done, setting[0])
        _write(rows, command, time.monotonic() - began)
    return 0 if all(row["holds"] for row in rows) else 1


def _write(rows: Sequence[dict[str, Any]], command: TheoremCommand, seconds: float) -> None:
    """Write summary.json and the page, and print both."""
    summary = {
        "name": "theorem_check",
        "rows": rows,
        "command": {k: str(v) for k, v in vars(command).items()},
        "wall_time": seconds,
        "device": meshes.describe(),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    write_json(Path(command.workdir) / "summary.json", summary)
    made = Page(
        "Theorems and measured tails", "", (Section("Bounds", (table(rows, command.replicas),)),)
    )
    print(to_markdown(made))
    print(plain(write_page(made, command.workdir, "report")))


if __name__ == "__main__":
    sys.exit(explain(main, kept="nothing is written before the end; the same line begins again"))
