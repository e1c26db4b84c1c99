"""Which functions explicit graduated optimisation solves, and which it does not: a table.

    python -m experiments.explicit_graduated --workdir runs/explicit_graduated

The setting of Sato and Iiduka (https://arxiv.org/abs/2412.11501, code igo-aaai25): fifty
dimensions, Gaussian smoothing with 100 samples per gradient, 20 steps of gradient descent per
noise level, step size ηδ with an η per function, starts uniform in the function's usual box. Here
gradients are exact (automatic differentiation); theirs are central differences.

Four methods share starts and step sizes: the "nice" levels (polynomial, p = 1, 0.01 at the end),
the same with antithetic samples, geometric levels, and gradient descent without smoothing, whose
steps shrink just as much. What is reported is f(x) - f* after the last step.
"""

import functools
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import clipjax
from clipjax import problems
from clipjax.optim.graduated.smoothing import DISTRIBUTIONS
from clipjax.train import mesh as meshes
from clipjax.train.log import write_json
from experiments.setup import config_files, pace
from experiments.setup.checks import ONE_OR_MORE, POSITIVE, SEED, OneOf, Range, Such, check_fields
from experiments.setup.cli import Command, explain, parse, start_jax, working_in
from experiments.setup.provenance import git_commit, versions


@dataclass(frozen=True)
class Setting:
    """A function as the experiment uses it.

    Args:
        make: from the dimension to the function.
        box: starts are uniform in |x_i| ≤ box.
        rate: η; steps have size ηδ. From the authors' code.
    """

    make: Callable[[int], problems.Problem]
    box: float
    rate: float


SETTINGS = {
    "rastrigin": Setting(problems.Rastrigin, 5.12, 0.01),
    "ackley": Setting(problems.Ackley, 32.768, 10.0),
    "griewank": Setting(problems.Griewank, 100.0, 50.0),
    "salomon": Setting(problems.Salomon, 20.0, 10.0),
    "schwefel221": Setting(problems.Schwefel221, 100.0, 10.0),
    "sphere": Setting(problems.Sphere, 100.0, 1.0),
    "ellipsoid": Setting(problems.Ellipsoid, 100.0, 0.01),
    "alpine1": Setting(problems.Alpine1, 10.0, 1.0),
    "drop_wave": Setting(problems.DropWave, 5.12, 0.1),
    "happycat": Setting(problems.HappyCat, 20.0, 10.0),
    "schwefel": Setting(problems.Schwefel, 500.0, 10.0),
    "rosenbrock": Setting(problems.Rosenbrock, 10.0, 5e-5),
}

METHODS = {
    "nice": "nice levels",
    "nice_antithetic": "nice levels, antithetic",
    "geometric": "geometric levels",
    "descent": "no smoothing",
}

# Means of f(x) - f* over five runs that an independent program gave for the default configuration,
# for nice levels, geometric levels and no smoothing; NaN where it diverged. Griewank's, Salomon's,
# Ackley's (but for nice levels) and HappyCat's vary greatly from run to run.
REFERENCE: dict[str, tuple[float, float, float]] = {
    "rastrigin": (0.00265, 1.19, 335.0),
    "ackley": (0.0041, 14.0, 15.6),
    "griewank": (0.36, 0.87, 0.94),
    "salomon": (2.5, 3.4, 62.8),
    "schwefel221": (0.0040, 3.1, 0.18),
    "drop_wave": (0.994, 0.994, 0.990),
    "alpine1": (0.129, 0.19, 0.0017),
    "sphere": (1.5e-5, 6e-7, 0.0),
    "ellipsoid": (4.8e-4, 0.22, 1.5e-6),
    "schwefel": (9338.0, 9338.0, 9338.0),
    "happycat": (3.9, 2.7, 2.6),
    "rosenbrock": (math.nan, math.nan, math.nan),
}

_EVEN = Such("and even, since antithetic samples come in pairs", lambda count: count % 2 == 0)

Name: TypeAlias = Annotated[str, OneOf(tuple(SETTINGS))]


@dataclass(frozen=True)
class Config:
    """The experiment; the defaults are the authors' setting."""

    functions: Annotated[tuple[Name, ...], ONE_OR_MORE] = tuple(SETTINGS)
    """Names of functions."""
    dimension: Annotated[int, Range(1, 2**20)] = 50
    """Number of coordinates n."""
    stages: Annotated[int, Range(2, 10_000)] = 50
    """M: the geometric plan has M levels, the nice plan M+1."""
    delta_final: Annotated[float, Range(0, 1, open_low=True)] = 0.01
    """The last noise level; the first is 1."""
    steps_per_stage: Annotated[int, Range(1, 1_000_000)] = 20
    """Gradient steps per noise level."""
    num_samples: Annotated[int, Range(2, 1_000_000), _EVEN] = 100
    """Samples per gradient."""
    distribution: Annotated[str, OneOf(DISTRIBUTIONS)] = "gaussian"
    """Law of the noise."""
    seeds: Annotated[int, Range(1, 1_000_000)] = 20
    """Runs per function; run i starts from and draws with fold_in(key(seed), i)."""
    seed: Annotated[int, SEED] = 0
    """Where the random numbers come from."""
    solved: Annotated[float, POSITIVE] = 0.01
    """A run counts as solved if its f(x) - f* ends below this."""

    def __post_init__(self) -> None:
        check_fields(self)


def levels(config: Config, method: str) -> np.ndarray:
    """Return the noise levels of a method; without smoothing they only scale the steps."""
    last = config.delta_final
    if method == "geometric":
        return clipjax.smoothing_levels(config.stages, delta_final=last, decay="geometric")
    return clipjax.smoothing_levels(config.stages + 1, delta_final=last)


def gradient_descent(
    fn: Callable[[jax.Array], jax.Array], start: jax.Array, step_sizes: jax.Array
) -> jax.Array:
    """Return f after x <- x - s ∇f(x) for each step size s."""

    def step(x: jax.Array, size: jax.Array) -> tuple[jax.Array, None]:
        return x - size * jax.grad(fn)(x), None

    return fn(jax.lax.scan(step, start, step_sizes)[0])


def final_gaps(name: str, method: str, config: Config) -> np.ndarray:
    """Return f(x) - f* after the last step of every run, shape (seeds,); +inf for a diverged run.

    Runs of the same number have the same start, whatever the method.
    """
    setting = SETTINGS[name]
    problem = setting.make(config.dimension)
    deltas = levels(config, method)

    def run(key: jax.Array) -> jax.Array:
        start_key, draws = jax.random.split(key)
        box = setting.box
        start = jax.random.uniform(start_key, (config.dimension,), minval=-box, maxval=box)
        if method == "descent":
            sizes = setting.rate * np.repeat(deltas, config.steps_per_stage)
            return gradient_descent(problem.value, start, jnp.asarray(sizes, start.dtype))
        return clipjax.explicit_graduated_optimization(
            problem.value,
            start,
            draws,
            levels=deltas,
            learning_rate=setting.rate,
            steps_per_stage=config.steps_per_stage,
            num_samples=config.num_samples,
            distribution=config.distribution,
            antithetic=method == "nice_antithetic",
        ).values[-1]

    fold = functools.partial(jax.random.fold_in, jax.random.key(config.seed))
    keys = jax.vmap(fold)(jnp.arange(config.seeds))
    gaps = np.asarray(jax.jit(jax.vmap(run))(keys), float) - problem.minimum
    return np.where(np.isfinite(gaps), gaps, np.inf)


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Run the experiment and write summary.json.

    Args:
        config: the experiment.
        workdir: where to write; made if missing.

    Returns:
        What summary.json holds: under `results`, per function and method, `gaps` (one per run,
        "inf" for a diverged one), `mean`, `median`, and how many `diverged` and were `solved`.
    """
    began = time.monotonic()
    results = {
        name: {method: _summarise(final_gaps(name, method, config), config) for method in METHODS}
        for name in config.functions
    }
    summary = {
        "status": "finished",
        "name": "explicit_graduated",
        "labels": METHODS,
        "results": results,
        "unsolved": unsolved(results),
        "reference": _reference(config),
        "wall_time": time.monotonic() - began,
        "config": config_files.to_json(config),
        "device": meshes.describe(),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(workdir / "summary.json", summary)
    return summary


def unsolved(results: Mapping[str, Any]) -> list[str]:
    """Return the functions that no method solved from any start.

    Examples:
        >>> unsolved({"a": {"nice": {"solved": 0}, "descent": {"solved": 1}},
        ...           "b": {"nice": {"solved": 0}, "descent": {"solved": 0}}})
        ['b']
    """
    return [
        name
        for name, found in results.items()
        if not any(result["solved"] for result in found.values())
    ]


def table(summary: Mapping[str, Any]) -> Table:
    """Return the terminal table: mean, range and number of solved runs, with the reference."""
    seeds, reference = summary["config"]["seeds"], summary["reference"]
    title = (
        f"f(x) - f* after the last step: mean and [dim]range[/] of {seeds} runs, how many solved"
    )
    if reference:
        title += "\n(in brackets: mean of five runs of an independent program)"
    shown = Table(title=title, show_lines=True)
    shown.add_column("function", no_wrap=True)
    for label in METHODS.values():
        shown.add_column(label, justify="right", no_wrap=True)
    for name, found in summary["results"].items():
        shown.add_row(
            name,
            *(
                _cell(found[method], seeds, reference.get(name, {}).get(method))
                for method in METHODS
            ),
        )
    return shown


def _cell(result: Mapping[str, Any], seeds: int, reference: float | str | None) -> str:
    gaps = np.array([float(gap) for gap in result["gaps"]])
    finite = gaps[np.isfinite(gaps)]
    lines = []
    if finite.size:
        known = "" if reference is None else f" ({_short(reference)})"
        lines += [_short(finite.mean()) + known]
        lines += [f"[dim]{_short(finite.min())} - {_short(finite.max())}[/]"]
    if result["diverged"]:
        lines.append(f"{result['diverged']} of {seeds} diverged")
    lines.append(f"{result['solved']} of {seeds} solved")
    return "\n".join(lines)


def _short(value: float | str) -> str:
    value = float(value)
    return "diverged" if math.isinf(value) else f"{value:.2g}" if value < 100 else f"{value:.0f}"


def _summarise(gaps: np.ndarray, config: Config) -> dict[str, Any]:
    """Return a method's entry in summary.json; JSON has no infinity, so +inf is written as text."""

    def number(value: float) -> float | str:
        return float(value) if math.isfinite(value) else "inf"

    return {
        "gaps": [number(gap) for gap in gaps],
        "mean": number(float(gaps.mean())),
        "median": number(float(np.median(gaps))),
        "diverged": int(np.isinf(gaps).sum()),
        "solved": int((gaps < config.solved).sum()),
    }


def _reference(config: Config) -> dict[str, dict[str, float | str]]:
    """Return the reference numbers, if they are for this configuration, whatever its seeds."""
    free = ("functions", "seeds", "seed", "solved")
    if any(name not in free for name in config_files.differences(config, Config())):
        return {}
    methods = ("nice", "geometric", "descent")
    return {
        name: {
            method: "inf" if math.isnan(value) else value
            for method, value in zip(methods, REFERENCE[name], strict=True)
        }
        for name in config.functions
    }


@dataclass(frozen=True)
class ExplicitGraduatedCommand(Command):
    """Minimise standard test functions through their smoothed forms, and without smoothing."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line."""
    command = parse(ExplicitGraduatedCommand, arguments)
    start_jax(command)
    with working_in(command.workdir), pace.aloud("explicit graduated optimisation"):
        summary = run(command.config, command.workdir)
    console = Console()
    console.width = max(console.width, 104)  # so much the table needs
    console.print(table(summary))
    names = ", ".join(summary["unsolved"]) or "none"
    console.print(
        f"Solved by no method from any start (f - f* < {command.config.solved:g}): {names}."
    )
    console.print(f"{summary['wall_time']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
