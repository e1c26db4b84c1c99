"""What smoothing does to a function, and whether the function is σ-nice: pictures and a table.

    python -m experiments.smoothing --workdir runs/smoothing

For two functions of one coordinate, Rastrigin's and Drop-Wave (with ω = 12π, as in the pictures of
Sato and Iiduka), without random numbers:

- figures/smoothing.png: the function and its smoothed forms; where descent leads from given starts
  when every level is minimised from the minimiser of the one before, and without smoothing; how far
  around the minimiser the smoothed function is strongly convex, beside the distances that σ-nice
  (3δ) and new σ-nice (dδ, d ≥ 1) functions need.
- figures/laws.png: the function smoothed at one level by noise of different laws.
"""

import functools
import sys
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
from clipjax import analysis, problems
from clipjax.optim.graduated.smoothing import DISTRIBUTIONS
from clipjax.train.files import replacing
from clipjax.train.log import write_json
from experiments.high_probability import readable
from experiments.report import smoothing as figures
from experiments.report.style import style
from experiments.setup import config_files, pace
from experiments.setup.checked_files import write_npz
from experiments.setup.checks import ONE_OR_MORE, POSITIVE, OneOf, Range, check_fields
from experiments.setup.cli import Command, explain, parse, start_jax, working_in
from experiments.setup.labels import in_terminal
from experiments.setup.provenance import git_commit, versions


@dataclass(frozen=True)
class Setting:
    """A function of one coordinate as the experiment shows it.

    Args:
        label: its name in figures.
        problem: the function; its minimiser is 0.
        box: minimisers are searched in |x| ≤ box.
        view: figures show |x| ≤ view.
        starts: where descent starts.
        shown: the levels whose smoothed forms are drawn.
        laws: for which laws of noise the average exists.
    """

    label: str
    problem: problems.Problem
    box: float
    view: float
    starts: tuple[float, ...]
    shown: tuple[float, ...]
    laws: tuple[str, ...]


SETTINGS = {
    # Quadratic growth: no average under Cauchy noise.
    "rastrigin": Setting(
        "Rastrigin",
        problems.Rastrigin(1),
        5.12,
        3.0,
        (-4.2, 2.3, 4.7),
        (0.5, 0.3, 0.15),
        ("ball", "gaussian", "student_t"),
    ),
    "drop_wave": Setting(
        "Drop-Wave",
        problems.DropWave(1, 12 * np.pi),
        2.5,
        1.0,
        (-2.3, 1.1, 2.0),
        (0.25, 0.06, 0.03),
        ("ball", "gaussian", "student_t", "cauchy"),
    ),
}

Name: TypeAlias = Annotated[str, OneOf(tuple(SETTINGS))]


@dataclass(frozen=True)
class Config:
    """The experiment."""

    functions: Annotated[tuple[Name, ...], ONE_OR_MORE] = tuple(SETTINGS)
    """Names of functions: rastrigin, drop_wave."""
    distribution: Annotated[str, OneOf(DISTRIBUTIONS)] = "ball"
    """Law of the noise: ball (as in the definitions), gaussian."""
    stages: Annotated[int, Range(2, 10_000)] = 50
    """Noise levels from `delta_init` to `delta_init` / `stages`, polynomial with p = 1."""
    delta_init: Annotated[float, POSITIVE] = 1.0
    """The first noise level."""
    strong_convexity: Annotated[float, POSITIVE] = 1.0
    """σ of the σ-nice conditions."""
    law_level: Annotated[float, POSITIVE] = 0.5
    """The level at which laws of noise are compared."""
    points: Annotated[int, Range(8, 2**20)] = 512
    """Quadrature points per average; eight times as many where laws are compared."""
    resolution: Annotated[int, Range(2, 2**20)] = 1001
    """Points per drawn curve."""

    def __post_init__(self) -> None:
        check_fields(self)


def curves(setting: Setting, config: Config) -> dict[str, np.ndarray]:
    """Return what the figures of a function show, as arrays.

    Returns:
        x (resolution,), f and one row of `smoothed` per shown level; `laws` (laws, resolution);
        `levels` (stages,); `paths` (starts, stages + 1) and `plain` (starts,), the ends of descent
        without smoothing; the arrays of the two reports as `nice/...` and `new_nice/...`.
    """
    noise = analysis.noise_quadrature(config.distribution, points=config.points)
    fine = functools.partial(analysis.noise_quadrature, points=8 * config.points)
    fn, box = setting.problem.value, setting.box
    levels = clipjax.smoothing_levels(config.stages, delta_init=config.delta_init)
    x = np.linspace(-setting.view, setting.view, config.resolution)
    with jax.enable_x64(True):
        shown = [_tabulate(analysis.smooth(fn, delta, noise), x) for delta in setting.shown]
        laws = [
            _tabulate(analysis.smooth(fn, config.law_level, fine(law)), x) for law in setting.laws
        ]
        values = _tabulate(fn, x)
    starts = [np.array([start]) for start in setting.starts]
    paths = [analysis.minimiser_path(fn, levels, noise, start)[:, 0] for start in starts]
    plain = [analysis.minimiser_path(fn, [0.0], noise, start)[-1, 0] for start in starts]
    sigma, reach = config.strong_convexity, 4 * config.delta_init
    nice = analysis.check_sigma_nice(fn, sigma, levels, noise, box=box, max_radius=reach)
    new_nice = analysis.check_new_sigma_nice(
        fn, sigma, levels, noise, setting.problem.minimiser, box=box, max_radius=reach
    )
    arrays = {
        "x": x,
        "f": values,
        "shown_levels": np.array(setting.shown),
        "smoothed": np.array(shown),
        "laws": np.array(laws),
        "levels": levels,
        "paths": np.array(paths),
        "plain": np.array(plain),
    }
    arrays |= {f"nice/{name}": value for name, value in nice._asdict().items()}
    return arrays | {f"new_nice/{name}": value for name, value in new_nice._asdict().items()}


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Run the experiment; write summary.json, curves.npz (names FUNCTION/ARRAY) and the figures.

    Args:
        config: the experiment.
        workdir: where to write; made if missing.

    Returns:
        What summary.json holds.
    """
    found = {name: curves(SETTINGS[name], config) for name in config.functions}
    summary = {
        "status": "finished",
        "name": "smoothing",
        "labels": {name: SETTINGS[name].label for name in config.functions},
        "laws": {name: SETTINGS[name].laws for name in config.functions},
        "results": {name: _summarise(arrays, config) for name, arrays in found.items()},
        "config": config_files.to_json(config),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    flat = {f"{name}/{part}": a for name, arrays in found.items() for part, a in arrays.items()}
    write_npz(workdir / "curves.npz", flat)
    with style():
        for name, draw in (("smoothing", figures.smoothing), ("laws", figures.laws)):
            with replacing(workdir / "figures" / f"{name}.png") as file:
                file.write(draw(flat, summary).png)
    write_json(workdir / "summary.json", summary)
    return summary


def table(summary: Mapping[str, Any]) -> Table:
    """Return the terminal table: in how many of the levels each condition holds."""
    config = summary["config"]
    shown = Table(
        title=f"{config['stages']} levels from {config['delta_init']:g} to "
        f"{config['delta_init'] / config['stages']:g}, {config['distribution']} noise, "
        f"σ = {config['strong_convexity']:g}"
    )
    shown.add_column("", no_wrap=True)
    for label in summary["labels"].values():
        shown.add_column(label, justify="right")
    rows: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("starts led to x* by graduated descent", lambda r: f"{r['solved']} of {r['starts']}"),
        ("... by descent of f", lambda r: f"{r['solved_plain']} of {r['starts']}"),
        ("levels at which both σ-nice conditions hold", lambda r: str(r["nice"])),
        ("... all levels from this one down", lambda r: _level(r["nice_below"])),
        ("levels at which new σ-nice holds with d ≥ 1", lambda r: str(r["new_nice"])),
        ("... all levels from this one down", lambda r: _level(r["new_nice_below"])),
        ("levels whose minimiser suits the next one", lambda r: str(r["reaches"])),
        ("least strong convexity on N(x*_δ; 3δ)", lambda r: readable(r["curvature"])),
    ]
    for label, cell in rows:
        shown.add_row(label, *(cell(result) for result in summary["results"].values()))
    return shown


def _tabulate(fn: Callable[[jax.Array], jax.Array], x: np.ndarray) -> np.ndarray:
    points = jnp.asarray(x)[:, None]
    return np.asarray(jax.jit(lambda x: jax.lax.map(fn, x, batch_size=128))(points))


def _summarise(arrays: Mapping[str, np.ndarray], config: Config) -> dict[str, Any]:
    nice, new_nice = arrays["nice/holds"], arrays["new_nice/holds"]
    return {
        "starts": len(arrays["plain"]),
        "solved": int((np.abs(arrays["paths"][:, -1]) < 1e-3).sum()),
        "solved_plain": int((np.abs(arrays["plain"]) < 1e-3).sum()),
        "nice": int(nice.sum()),
        "nice_below": _below(arrays["levels"], nice),
        "new_nice": int(new_nice.sum()),
        "new_nice_below": _below(arrays["levels"], new_nice),
        "reaches": int(arrays["new_nice/reaches"].sum()),
        "curvature": float(arrays["nice/curvature"].min()),
    }


def _below(levels: np.ndarray, holds: np.ndarray) -> float | None:
    """Return the greatest level from which on, downwards, the condition holds; None if it never.

    Examples:
        >>> _below(np.array([0.3, 0.2, 0.1]), np.array([True, False, True]))
        0.1
    """
    kept = np.logical_and.accumulate(holds[::-1])[::-1]
    return float(levels[kept][0]) if kept.any() else None


def _level(value: float | None) -> str:
    return "nowhere" if value is None else f"{value:g}"


@dataclass(frozen=True)
class SmoothingCommand(Command):
    """Show functions smoothed at several levels and check the σ-nice conditions."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line."""
    command = parse(SmoothingCommand, arguments)
    start_jax(command)
    with working_in(command.workdir), pace.aloud("smoothing"):
        summary = run(command.config, command.workdir)
    console = Console()
    console.print(table(summary))
    figures = f"{command.workdir / 'figures'}/smoothing.png, laws.png"
    console.print(in_terminal(figures), soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
