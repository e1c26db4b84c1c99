"""How methods behave in the tail: thousands of replicas of one run, and the quantiles of their gap.

    python -m experiments.high_probability --workdir runs/high_probability

The theory of clipping (Gorbunov, Danilova and Gasnikov, NeurIPS 2020; Sadiev et al., ICML 2023) is
about *high probability*: with heavy-tailed noise most runs of SGD are fine and a few are ruined,
and a mean over five seeds does not show it. Here the quantity itself is measured. Every replica
draws its own noise and the quantiles of f(x) - f* over replicas are followed from the first
gradient to the last, with bootstrap intervals.

One replica is a pure function of its key; `jax.vmap` makes thousands of it, and all methods of a
replica see the same draws. The methods are ordinary Optax transformations, built inside `vmap` so
that each replica may have its own key, and are evaluated where the method says (`clipjax.
eval_params` where it averages).
"""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from rich.console import Console
from rich.table import Table

import clipjax
from clipjax import problems
from clipjax.analysis import Quantiles, quantiles
from clipjax.train import mesh as meshes
from clipjax.train.log import write_json
from experiments import config as configs
from experiments.train import Command, explain, git_commit, parse, start_jax, versions

# The final quantiles (50, 90, 99, 99.9 %) that an independent program gave for the default
# configuration, 2,000 replicas. Its extreme quantiles under Student's t vary greatly between seeds.
REFERENCE_SOURCE = "an independent simulation of the same setting with other random numbers"
REFERENCE: dict[str, dict[str, list[float]]] = {
    "normal": {
        "sgd": [0.049, 0.073, 0.093, 0.110],
        "clipped_sgd": [0.049, 0.072, 0.096, 0.116],
        "normalized_sgd": [0.049, 0.073, 0.097, 0.111],
    },
    "student_t": {
        "sgd": [2.3, 11.6, 258.0, 2039.0],
        "clipped_sgd": [0.27, 0.40, 0.54, 0.64],
        "normalized_sgd": [0.12, 0.18, 0.24, 0.28],
    },
}

_POSITIVE = (
    "df",
    "learning_rate",
    "clip_level",
    "normalized_factor",
    "sstm_learning_rate",
    "sstm_clip_level",
)


@dataclass(frozen=True)
class Config:
    """The experiment: f(x) = 1/2 |x|², independent noise of scale 1 in every coordinate.

    **Where the methods' parameters come from.** SGD, clipped-SGD and normalised SGD share one step
    size and are not tuned. Normalised SGD's is multiplied by `normalized_factor`, about the norm
    √20 of normal noise, so that the three agree under normal noise. Clipped-SSTM spends as many
    gradients. Its theory asks for clipping at λ_k = B/α_k, so that no step is longer than B; B is
    the longest step of clipped-SGD, learning_rate * clip_level, and so again nothing is tuned.
    `sstm_learning_rate` is 1/a. Of a in {10, 100, 1000, 10000} we took 1000; the final quantiles
    under Student's t differ by less than 3 % between them, because there nearly every step is
    clipped. (B = 0.03 would halve clipped-SSTM's final quantiles; so would smaller steps those of
    the others.) The start does not matter for the final quantiles of SGD, clipped-SGD and
    normalised SGD, which have reached their stationary level; from x = 0 they are the same.
    """

    # What is minimised, under which noise.
    dimension: int = 20
    """Number of coordinates n."""
    start: float = 1.0
    """Every coordinate of the first point; f(x_0) - f* = n/2 start²."""
    noises: tuple[str, ...] = ("normal", "student_t")
    """Laws of the noise: normal, student_t."""
    df: float = 1.5
    """Degrees of freedom of Student's t."""

    # How long, how often, from which random numbers.
    steps: int = 2000
    """Stochastic gradients per replica and method."""
    replicas: int = 2000
    """Independent replicas."""
    seed: int = 0
    """Replica i draws from fold_in(key(seed), i)."""
    records: int = 80
    """Number of times, spaced geometrically, at which the gap is recorded."""

    # The methods.
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

    # What is reported.
    levels: tuple[float, ...] = (0.5, 0.9, 0.99, 0.999)
    """Quantile levels."""
    confidence: float = 0.95
    """Coverage of the bootstrap intervals."""

    def __post_init__(self) -> None:
        for name in ("dimension", "steps", "replicas", "records"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in _POSITIVE:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; it must be positive and finite")
        for level in (*self.levels, self.confidence):
            if not 0 < level < 1:
                raise ValueError(f"quantile levels and confidence lie in (0, 1), not {level}")
        for name in self.noises:
            make_noise(name, self.df)


@dataclass(frozen=True)
class Method:
    """A transformation to study.

    Args:
        label: its name in tables and figures.
        make: from a replica's key to the transformation; called inside `vmap`.
        averages: whether `clipjax.eval_params` gives its evaluation point.
    """

    label: str
    make: Callable[[jax.Array], optax.GradientTransformation]
    averages: bool = False


def methods(config: Config) -> dict[str, Method]:
    """Return the methods compared, by name."""
    rate = config.learning_rate
    normalized_rate = config.normalized_factor * rate
    return {
        "sgd": Method("SGD", lambda _: optax.sgd(rate)),
        "normalized_sgd": Method(
            "normalised SGD",
            lambda _: optax.chain(clipjax.normalize_by_global_norm(), optax.sgd(normalized_rate)),
        ),
        "clipped_sgd": Method(
            "clipped-SGD", lambda _: clipjax.clipped_sgd(rate, config.clip_level)
        ),
        "clipped_sstm": Method(
            "clipped-SSTM",
            lambda _: clipjax.clipped_sstm(
                config.sstm_learning_rate, smoothness=1.0, clip_level=config.sstm_clip_level
            ),
            averages=True,
        ),
    }


def make_noise(name: str, df: float) -> problems.Noise:
    """Return the noise called `name`, scale 1.

    Raises:
        ValueError: for an unknown name, with the nearest one.
    """
    known: dict[str, Callable[[], problems.Noise]] = {
        "normal": problems.Normal,
        "student_t": lambda: problems.StudentT(df),
    }
    if name not in known:
        raise ValueError(f"noise {name!r}; {configs.nearest(name, known)}")
    return known[name]()


def record_times(steps: int, records: int) -> np.ndarray:
    """Return increasing step counts from 0 to `steps`, at most `records` + 1, spaced geometrically.

    Examples:
        >>> record_times(1000, 7).tolist()
        [0, 1, 3, 10, 32, 100, 316, 1000]
    """
    geometric = np.rint(np.geomspace(1, steps, records)).astype(int)
    return np.unique(np.concatenate([[0], geometric, [steps]]))


def simulate(
    oracle: problems.Oracle,
    methods: Mapping[str, Method],
    start: jax.Array,
    times: Sequence[int] | np.ndarray,
    keys: jax.Array,
) -> dict[str, jax.Array]:
    """Run every method in every replica; traceable, to be called under `jit`.

    In a replica all methods see the same draws: draw k comes from fold_in(key, k), so that it
    depends neither on the method nor on which other replicas run.

    Args:
        oracle: the stochastic gradients.
        methods: the transformations, by name.
        start: the first point, shape (n,); its dtype is that of the computation.
        times: increasing numbers of gradients after which the gap is recorded.
        keys: one key per replica, shape (replicas,).

    Returns:
        For each method f(x) - f* at its evaluation point, shape (replicas, len(times)), dtype of
        `start`. A gap that is not finite is +inf.
    """
    counts = np.diff(times, prepend=0)

    def replica(key: jax.Array) -> dict[str, jax.Array]:
        # Base key and step keys come from different branches, so no draw meets a method's own.
        draws, private = jax.random.split(key)
        transforms = {name: method.make(private) for name, method in methods.items()}

        def gap(name: str, state: tuple[jax.Array, Any]) -> jax.Array:
            params, opt_state = state
            point = clipjax.eval_params(opt_state, params) if methods[name].averages else params
            gap = oracle.problem.value(jnp.asarray(point)) - oracle.problem.minimum
            return jnp.where(jnp.isfinite(gap), gap, jnp.inf)

        def step(k: jax.Array, states: dict[str, Any]) -> dict[str, Any]:
            draw = oracle.sample(jax.random.fold_in(draws, k), start.dtype)
            new = {}
            for name, (params, opt_state) in states.items():
                gradient = oracle.gradient(params, draw)
                updates, opt_state = transforms[name].update(gradient, opt_state, params)
                new[name] = optax.apply_updates(params, updates), opt_state
            return new

        def until_next_record(carry, count):
            done, states = carry
            states = jax.lax.fori_loop(done, done + count, step, states)
            return (done + count, states), {name: gap(name, s) for name, s in states.items()}

        first = {name: (start, transform.init(start)) for name, transform in transforms.items()}
        _, gaps = jax.lax.scan(until_next_record, (0, first), counts)
        return gaps

    return jax.vmap(replica)(keys)


def replica_keys(seed: int, replicas: int) -> jax.Array:
    """Return the replicas' keys: replica i has fold_in(key(seed), i), however many there are."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), jnp.arange(replicas))


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Run the experiment and write summary.json and curves.npz.

    curves.npz holds `oracle_calls` (times,), `levels`, and for each NOISE and METHOD the arrays
    `NOISE/METHOD/value`, `/low`, `/high` (levels, times) and `/final` (replicas,).

    Args:
        config: the experiment.
        workdir: where to write; made if missing.

    Returns:
        What summary.json holds.
    """
    began = time.monotonic()
    problem = problems.Quadratic((1.0,) * config.dimension)
    compared = methods(config)
    arrays: dict[str, Any] = {"levels": np.array(config.levels)}
    arrays["oracle_calls"] = record_times(config.steps, config.records)
    results: dict[str, Any] = {}
    clock = {"compile_time": 0.0, "simulation_time": 0.0}
    for noise in config.noises:
        oracle = problems.AdditiveNoise(problem, make_noise(noise, config.df))
        gaps, times = _compile_and_run(oracle, compared, config)
        clock = {name: clock[name] + times[name] for name in clock}
        results[noise] = {}
        for name in compared:
            gap = gaps[name]
            found = quantiles(gap, config.levels, confidence=config.confidence)
            results[noise][name] = _final(found, gap[:, -1], config.levels)
            parts = {**found._asdict(), "final": gap[:, -1]}
            arrays |= {f"{noise}/{name}/{part}": array for part, array in parts.items()}
    summary = {
        "status": "finished",
        "name": "high_probability",
        "problem": "f(x) = 1/2 |x|²",
        "initial_gap": 0.5 * config.dimension * config.start**2,
        "labels": {name: method.label for name, method in compared.items()},
        "results": results,
        "reference": REFERENCE if is_reference_setting(config) else {},
        "reference_source": REFERENCE_SOURCE,
        "wall_time": time.monotonic() - began,
        **clock,
        "config": configs.to_json(config),
        "device": meshes.describe(),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    _write_npz(workdir / "curves.npz", arrays)
    write_json(workdir / "summary.json", summary)
    return summary


def _compile_and_run(
    oracle: problems.Oracle, compared: Mapping[str, Method], config: Config
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Return what `simulate` gives, on the host, and the seconds for compiling and running."""
    start = jnp.full(oracle.problem.dimension, config.start)
    times = record_times(config.steps, config.records)
    keys = replica_keys(config.seed, config.replicas)
    began = time.monotonic()
    program = jax.jit(lambda keys: simulate(oracle, compared, start, times, keys))
    program = program.lower(keys).compile()
    compiled = time.monotonic()
    gaps = jax.device_get(program(keys))
    clock = {
        "compile_time": compiled - began,
        "simulation_time": time.monotonic() - compiled,
    }
    return gaps, clock


def is_reference_setting(config: Config) -> bool:
    """Return whether the reference numbers are for this configuration, whatever its seed."""
    free = ("start", "noises", "replicas", "seed", "records", "confidence")
    found = configs.differences(config, Config())
    return all(name in free or name.startswith("sstm_") for name in found)


def readable(value: float | str) -> str:
    """Return a number to three significant digits, without an exponent where it can be avoided.

    Examples:
        >>> readable(0.27051), readable(11765.3), readable("inf"), readable(2.5e9)
        ('0.271', '11,800', 'inf', '2.5e+09')
    """
    rounded = float(f"{float(value):.3g}")
    return f"{rounded:,.0f}" if 1000 <= rounded < 1e6 else f"{rounded:g}"


def tables(summary: Mapping[str, Any]) -> list[Table]:
    """Return terminal tables of the final quantiles with their intervals, one per noise."""
    shown = []
    for noise, found in summary["results"].items():
        table = Table(title=f"final f(x) - f*, {noise} noise", show_lines=True)
        table.add_column("method", no_wrap=True)
        for level in summary["config"]["levels"]:
            table.add_column(f"{100 * level:g} %", justify="right", no_wrap=True)
        for name, result in found.items():
            cells = [
                f"{readable(row['value'])}\n[dim]{readable(row['low'])}-{readable(row['high'])}[/]"
                for row in result["final"]
            ]
            label = summary["labels"][name]
            if result["diverged"]:
                label += f"\n{result['diverged']} of {summary['config']['replicas']} diverged"
            table.add_row(label, *cells)
        shown.append(table)
    return shown


def _final(found: Quantiles, last: np.ndarray, levels: Sequence[float]) -> dict[str, Any]:
    """Return a method's entry in summary.json; JSON has no infinity, so +inf is written as text."""

    def number(x: float) -> float | str:
        return float(x) if math.isfinite(x) else "inf"

    rows = zip(levels, found.value[:, -1], found.low[:, -1], found.high[:, -1], strict=True)
    return {
        "final": [
            {"level": level, "value": number(value), "low": number(low), "high": number(high)}
            for level, value, low, high in rows
        ],
        "diverged": int(np.isinf(last).sum()),
    }


def _write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez_compressed(temporary, **arrays)
    os.replace(temporary, path)


@dataclass(frozen=True)
class HighProbabilityCommand(Command):
    """Follow the quantiles of f(x) - f* over thousands of replicas."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line."""
    command = parse(HighProbabilityCommand, arguments)
    start_jax(command)
    summary = run(command.config, command.workdir)
    Console().print(*tables(summary), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
