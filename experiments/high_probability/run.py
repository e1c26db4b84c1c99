"""Run the experiment and write what it found."""

import hashlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

from clipjax.analysis import Quantiles, quantiles
from clipjax.train import mesh as meshes
from clipjax.train.files import remove_leftovers, replacing
from clipjax.train.log import write_json
from experiments.high_probability import checks
from experiments.high_probability.chunks import Chunks, bytes_per_replica
from experiments.high_probability.config import (
    Config,
    constants,
    first_point,
    identity,
    make_oracle,
    make_problem,
    methods,
)
from experiments.high_probability.references import reference_of
from experiments.high_probability.simulate import record_times
from experiments.setup import pace
from experiments.setup.checked_files import write_npz
from experiments.setup.labels import in_terminal
from experiments.setup.provenance import git_commit, versions

FILES = ("curves.npz", "final.parquet", "quantiles.parquet")
"""What a finished run has beside summary.json, which keeps a checksum of each."""


def run(
    config: Config, workdir: Path, *, should_stop: Callable[[], bool] = lambda: False
) -> dict[str, Any] | None:
    """Run the experiment and write summary.json, curves.npz, quantiles.parquet and final.parquet.

    curves.npz holds `oracle_calls` (times,), `levels`, and for each NOISE and METHOD the arrays
    `NOISE/METHOD/value`, `/low`, `/high` (levels, times) and `/final` (replicas,). The parquet
    files hold the same as long tables, for other programs.

    A run that was killed goes on with the chunks of replicas that are missing, to the same bits;
    one that is finished is left as it is. Files of a finished run that are missing or damaged are
    made again.

    Args:
        config: the experiment.
        workdir: where to write; made if missing.
        should_stop: asked before each chunk.

    Returns:
        What summary.json holds; None if stopped.

    Raises:
        ValueError: if the folder holds another experiment, the memory is too small, or a noise or
            a method does not fit the problem.
    """
    if jax.process_index() == 0:
        remove_leftovers(workdir)
    done = _finished(workdir, config)
    if done is not None:
        return done
    began = time.monotonic()
    reference = reference_of(config)
    with jax.enable_x64(config.precision == "float64"):
        problem = make_problem(config)
        compared = methods(config, constants(config, problem))
        start = first_point(config, problem)
        calls = record_times(config.steps, config.records, config.spacing)
        checks.check_results(config, len(calls))
        oracles = {
            noise: make_oracle(problem, noise, config.df, config.allow_import)
            for noise in config.noises
        }
        with pace.aloud("measuring what fits"):
            for oracle in oracles.values():
                checks.dry_run(oracle, compared, start)
            per_replica = max(bytes_per_replica(o, compared, config) for o in oracles.values())
        chunks = Chunks(workdir, config, meshes.make_mesh(), per_replica)
        initial_gap = float(problem.value(start)) - problem.minimum
        arrays: dict[str, Any] = {"levels": np.array(config.levels), "oracle_calls": calls}
        results: dict[str, Any] = {}
        clock = {"compile_time": 0.0, "simulation_time": 0.0}
        for noise, oracle in oracles.items():
            found = chunks.run(noise, oracle, compared, should_stop)
            if found is None:
                return None
            gaps, times = found
            clock = {name: clock[name] + times[name] for name in clock}
            results[noise] = {}
            for name in compared:
                gap = gaps[name]
                curves = quantiles(gap, config.levels, confidence=config.confidence)
                results[noise][name] = _final(curves, gap[:, -1], config.levels)
                results[noise][name]["second_half"] = second_half(gap, arrays["oracle_calls"])
                parts = {**curves._asdict(), "final": gap[:, -1]}
                arrays |= {f"{noise}/{name}/{part}": array for part, array in parts.items()}
    summary = {
        "status": "finished",
        "name": "high_probability",
        "problem": "f(x) = 1/2 |x|²" if config.problem == "quadratic" else config.problem,
        "constants": {
            "dimension": problem.dimension,
            "smoothness": _number(problem.smoothness),
            "minimum": problem.minimum,
        },
        "initial_gap": initial_gap,
        "labels": {name: method.label for name, method in compared.items()},
        "methods": {name: method.description for name, method in compared.items()},
        "results": results,
        "reference": {} if reference is None else reference.final,
        "reference_plateau": {} if reference is None else reference.plateau,
        "reference_source": "" if reference is None else reference.source,
        "chunk": chunks.size,
        "bytes_per_replica": per_replica,
        "wall_time": time.monotonic() - began,
        **clock,
        "config": identity(config),
        "device": meshes.describe(),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    if jax.process_index() == 0:
        write_npz(workdir / "curves.npz", arrays)
        write_tables(workdir, arrays, summary)
        summary["files"] = {name: _digest(workdir / name) for name in FILES}
        write_json(workdir / "summary.json", summary)
    chunks.remove()
    return summary


def _finished(workdir: Path, config: Config) -> dict[str, Any] | None:
    """Return the summary of a finished run of this very configuration.

    Raises:
        ValueError: if the folder holds another one.
    """
    from experiments.report.tail_results import read_summary

    path = workdir / "summary.json"
    if not path.exists():
        return None
    summary: dict[str, Any] = {**read_summary(path)}
    old, new = summary["config"], identity(config)
    changed = [f"{k} was {old.get(k)!r}, is {new[k]!r}" for k in new if old.get(k) != new[k]]
    if changed:
        raise ValueError(
            f"{workdir} holds a run of another config: {'; '.join(changed)}. Use another "
            "--workdir, or the old values"
        )
    kept = summary.get("files", {})
    changed = [name for name in FILES if _digest(workdir / name) != kept.get(name)]
    if changed:
        listed = " and ".join(str(workdir / name) for name in changed)
        if jax.process_index() == 0:
            print(f"{listed}: missing or damaged, computed again", file=sys.stderr)
        return None
    return summary


def _digest(path: Path) -> str:
    """Return the SHA-256 of a file; of a missing one, nothing."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def second_half(gaps: np.ndarray, times: np.ndarray) -> dict[str, Any]:
    """Return how a method behaves once it has settled: over the records after half the steps.

    Args:
        gaps: f(x) - f*, (replicas, times).
        times: the records' times, (times,).

    Returns:
        `level`, the median over replicas and records; `maximum`, the median over replicas of the
        largest; `worst`, the largest of all; `oscillation`, the median over replicas of the
        standard deviation of log10 of the gap (infinite for those that diverged).

    Examples:
        >>> found = second_half(np.array([[9.0, 1.0, 100.0]] * 3), np.array([0, 5, 10]))
        >>> found["maximum"], found["oscillation"]
        (100.0, 1.0)
    """
    late = np.asarray(gaps, np.float64)[:, times >= times[-1] / 2]
    largest = late.max(axis=1)
    kept = np.where(np.isfinite(late), late, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.std(np.log10(np.maximum(kept, 1e-300)), axis=1)
    spread = np.where(np.isfinite(spread), spread, np.inf)
    return {
        "level": _number(np.quantile(late, 0.5, method="inverted_cdf")),
        "maximum": _number(np.quantile(largest, 0.5, method="inverted_cdf")),
        "worst": _number(largest.max()),
        "oscillation": _number(np.quantile(spread, 0.5, method="inverted_cdf")),
    }


def write_tables(workdir: Path, arrays: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Write quantiles.parquet and final.parquet: a row per quantile and time, per replica."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    curves: dict[str, list[Any]] = {}
    final: dict[str, list[Any]] = {}
    calls, levels = arrays["oracle_calls"], arrays["levels"]
    for noise, found in summary["results"].items():
        for method in found:
            prefix = f"{noise}/{method}"
            rows = {
                "noise": np.full(calls.size * levels.size, noise),
                "method": np.full(calls.size * levels.size, method),
                "level": np.repeat(levels, calls.size),
                "oracle_calls": np.tile(calls, levels.size),
            }
            rows |= {part: arrays[f"{prefix}/{part}"].ravel() for part in ("value", "low", "high")}
            last = arrays[f"{prefix}/final"]
            ends = {
                "noise": np.full(last.size, noise),
                "method": np.full(last.size, method),
                "replica": np.arange(last.size),
                "gap": last,
            }
            for table, columns in ((curves, rows), (final, ends)):
                for name, column in columns.items():
                    table.setdefault(name, []).append(column)
    for name, table in (("quantiles", curves), ("final", final)):
        whole = pa.table({column: np.concatenate(parts) for column, parts in table.items()})
        with replacing(workdir / f"{name}.parquet") as file:
            pq.write_table(whole, file)


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
        title = in_terminal(f"final f(x) - f*, {noise} noise", "table.title")
        table = Table(title=title, show_lines=True)
        table.add_column("method", no_wrap=True)
        for level in summary["config"]["levels"]:
            table.add_column(f"{100 * level:g} %", justify="right", no_wrap=True)
        for name, result in found.items():
            cells = [
                f"{readable(row['value'])}\n[dim]{readable(row['low'])}-{readable(row['high'])}[/]"
                for row in result["final"]
            ]
            label = in_terminal(summary["labels"][name])
            if result["diverged"]:
                label.append(f"\n{result['diverged']} of {summary['config']['replicas']} diverged")
            table.add_row(label, *cells)
        shown.append(table)
    return shown


def _number(x: float) -> float | str:
    """Return a number as JSON can hold it: it has no infinity, so +inf is written as text."""
    return float(x) if math.isfinite(x) else "inf"


def _final(found: Quantiles, last: np.ndarray, levels: Sequence[float]) -> dict[str, Any]:
    """Return a method's entry in summary.json."""
    rows = zip(levels, found.value[:, -1], found.low[:, -1], found.high[:, -1], strict=True)
    return {
        "final": [
            {"level": level, "value": _number(value), "low": _number(low), "high": _number(high)}
            for level, value, low, high in rows
        ],
        "diverged": int(np.isinf(last).sum()),
    }
