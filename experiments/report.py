"""One page about a grid: `python -m experiments.report --workdir runs/demo`.

Reads the grid's folder (see `experiments.results`) and writes report.md, report.html (one file that
refers to nothing outside itself) and figures/*.png. Every number on the page comes from the files
of the runs.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rich.table
from rich.console import Console

from clipjax.data.builders import photographs
from experiments import figures, page, results
from experiments.high_probability import readable
from experiments.page import Bullets, Cell, Page, Picture, Section, Table, Text
from experiments.results import METRICS, Grid, Group, Metric
from experiments.train import Command, explain, parse

ORDER = (
    *("digits", "digit_scenes", "photos_x4"),
    *("sgd", "adam", "clipped_sgd", "clipped_sstm"),
)
"""Tasks and methods that come first; others follow by name."""

KINDS = {
    "classification": "image classification",
    "segmentation": "semantic segmentation",
    "super_resolution": "super-resolution",
}


def write_report(workdir: Path) -> Path:
    """Write report.md, report.html and figures/*.png into a grid's folder.

    Args:
        workdir: the grid's folder.

    Returns:
        The path of report.html.

    Raises:
        FileNotFoundError: if the folder or a run's summary is missing.
        ValueError: if there is nothing to report, or a file is damaged; both name the file.
    """
    grid, tails = read(workdir)
    made = make_page(workdir, grid, tails)
    for picture in made.pictures:
        _write(workdir / "figures" / f"{picture.name}.png", picture.png)
    _write(workdir / "report.md", page.to_markdown(made).encode())
    _write(workdir / "report.html", page.to_html(made).encode())
    return workdir / "report.html"


Tails = tuple[dict[str, Any], dict[str, np.ndarray]]
"""summary.json and curves.npz of the heavy-tail experiment."""


def read(workdir: Path) -> tuple[Grid, Tails | None]:
    """Return the runs of a grid and its heavy-tail experiment, if it has one. Raises as above."""
    grid = results.read_grid(workdir, ORDER)
    folder = workdir / results.HIGH_PROBABILITY
    tails = None
    if folder.is_dir():
        summary = results.read_summary(
            folder / "summary.json", needed=("results", "labels", "config", "wall_time")
        )
        tails = summary, results.read_arrays(folder / "curves.npz")
    if not grid and tails is None:
        raise ValueError(
            f"{workdir} holds no runs (expected {workdir}/TASK/METHOD/seed0/summary.json); "
            "run python -m experiments.compare first"
        )
    return grid, tails


def make_page(workdir: Path, grid: Grid, tails: Tails | None) -> Page:
    """Return the page, its figures drawn."""
    sections = []
    with figures.style():
        if grid:
            sections.append(_scores(grid))
            sections.append(_curves(grid))
            sections += _samples(grid)
        if tails is not None:
            sections.append(_tails(*tails))
    sections.append(_provenance(grid, tails))
    datasets = {run.summary["dataset"] for run in _runs(grid) if "dataset" in run.summary}
    if datasets & {"digit_scenes", "photos_x4"}:
        credits = tuple(photographs.credits().splitlines())
        sections.append(Section("Photographs", (Bullets(credits),)))
    return Page("clipjax: methods compared", _lead(grid, tails), tuple(sections))


def _lead(grid: Grid, tails: Tails | None) -> str:
    """Say in a sentence or two what was run."""
    said = []
    if grid:
        methods = {method for groups in grid.values() for method in groups}
        seeds = {run.seed for run in _runs(grid)}
        diverged = sum(group.diverged for groups in grid.values() for group in groups.values())
        said.append(
            f"{len(methods)} methods on {len(grid)} tasks with {len(seeds)} seeds, "
            f"{len(_runs(grid))} runs in all; {diverged or 'none'} of them diverged."
        )
    if tails is not None:
        config = tails[0]["config"]
        said.append(
            f"Beside them the tails of {config['replicas']:,} replicas under heavy-tailed noise."
            if grid
            else f"The tails of {config['replicas']:,} replicas under heavy-tailed noise."
        )
    return " ".join(said)


# -- Sections -------------------------------------------------------------------------------------


def _scores(grid: Grid) -> Section:
    parts: list[page.Part] = [
        Text(
            "Final metrics on held-out examples, at each method's own evaluation point: mean ± "
            "sample standard deviation over seeds. Bold is the best mean of a column, among the "
            "methods none of whose runs diverged; where means differ by less than the spreads, "
            "the order says little."
        )
    ]
    parts += [score_table(task, groups) for task, groups in grid.items()]
    return Section("Scores", tuple(parts))


def score_table(task: str, groups: Mapping[str, Group]) -> Table:
    """Return the table of one task: a row per method, then a row per baseline."""
    first = next(iter(groups.values()))
    metrics = METRICS[first.kind]
    rows = []
    best = {name: results.best(groups, name) for name in metrics}
    for method, group in groups.items():
        cells = [_score_cell(group, n, m, best[n] == method) for n, m in metrics.items()]
        name = Cell(figures.look(method, groups).label, note=_settings(group))
        rows.append((name, *cells, Cell(_counts(group)), *_speed(group)))
    for label, values in _baselines(groups, metrics).items():
        cells = [Cell(m.write(values[n]) if n in values else "–") for n, m in metrics.items()]
        rows.append((Cell(label, note="no learning"), *cells, Cell(""), Cell(""), Cell("")))
    header = [metric.title for metric in metrics.values()]
    return Table(
        header=("method", *header, "seeds", "images/s", "s per run"),
        rows=tuple(rows),
        caption=f"{task}: {KINDS[first.kind]}. {_workload(first)}",
    )


def _score_cell(group: Group, name: str, metric: Metric, best: bool) -> Cell:
    score = group.score(name)
    if score is None:
        return Cell("diverged" if group.diverged else "–")
    spread = "" if score.spread is None else f" ± {metric.write(score.spread)}"
    return Cell(metric.write(score.mean) + spread, best=best)


def _counts(group: Group) -> str:
    finished = len(group.finished)
    return f"{finished}, {group.diverged} diverged" if group.diverged else str(finished)


def _speed(group: Group) -> tuple[Cell, Cell]:
    rate, seconds = group.mean("images_per_second"), group.mean("wall_time")
    return (
        Cell("–" if rate is None else f"{rate:,.0f}"),
        Cell("–" if seconds is None else f"{seconds:.1f}"),
    )


def _baselines(
    groups: Mapping[str, Group], metrics: Mapping[str, Metric]
) -> dict[str, dict[str, float]]:
    """Return baseline's label -> metric's name -> value."""
    found: dict[str, dict[str, float]] = {}
    for name in metrics:
        for label, value in results.baselines(groups, name).items():
            found.setdefault(label, {})[name] = value
    return found


def _settings(group: Group) -> str:
    """Return the optimizer's settings that are numbers or words and differ from nothing."""
    optimizer = group.runs[0].summary["config"]["optimizer"]
    return ", ".join(
        f"{name.replace('_', ' ')} {value:g}"
        for name, value in optimizer.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name in _SHOWN
    )


_SHOWN = ("learning_rate", "momentum", "clip_level", "smoothness")


def _workload(group: Group) -> str:
    """Say which network was trained on what for how long."""
    run = (group.finished or list(group.runs))[0].summary
    config, said = run["config"], []
    if "num_params" in run:
        said.append(f"{config['model']['type']} with {run['num_params']:,} parameters")
    if "steps" in run:
        said.append(f"{run['steps']:,} steps of {config['batch_size']} examples")
    return ", ".join(said) + "." if said else ""


def _curves(grid: Grid) -> Section:
    bins = "Lines are means over seeds, bands reach from the smallest to the largest seed"
    parts: list[page.Part] = [
        Picture(
            "learning_curves",
            figures.learning_curves(grid),
            f"Training loss (left) and the metric each task is judged by (right). {bins}. "
            "Training losses are those of minibatches at the query point, averaged over "
            "consecutive log rows; dotted lines are what can be had without learning.",
        ),
        Picture(
            "gradients",
            figures.gradient_curves(grid),
            f"Norm of the minibatch gradient before clipping (left) and share of the steps so "
            f"far that were clipped (right; methods without clipping have none). {bins}.",
        ),
    ]
    return Section("Curves", tuple(parts))


def _samples(grid: Grid) -> list[Section]:
    draw: dict[str, tuple[str, Callable[..., bytes], str]] = {
        "segmentation": (
            "Sample segmentations",
            figures.segmentation_samples,
            "The first held-out examples. Below each prediction its mean IoU over the classes in "
            "the picture. Class 0 is the background.",
        ),
        "super_resolution": (
            "Sample super-resolved pictures",
            figures.super_resolution_samples,
            "The first held-out examples: what goes in, bicubic interpolation, what each method "
            "made of it, and the truth. Below each picture its PSNR, of the picture as shown "
            "(rounded to 8 bits).",
        ),
        "classification": (
            "Sample classifications",
            figures.classification_samples,
            "The first held-out examples, their labels above and what each method took them for "
            "below; mistakes are marked.",
        ),
    }
    sections = []
    for task, groups in grid.items():
        samples, seeds = shared_samples(groups)
        if samples:
            title, function, caption = draw[next(iter(groups.values())).kind]
            text = f"{caption} {task}, {seeds}."
            picture = Picture(f"samples_{task}", function(samples), text)
            sections.append(Section(title, (picture,)))
    return sections


def shared_samples(
    groups: Mapping[str, Group],
) -> tuple[dict[str, dict[str, np.ndarray]], str]:
    """Return each method's samples from its first finished run, and the seeds in words.

    Raises:
        ValueError: if two methods were shown different examples.
    """
    samples: dict[str, dict[str, np.ndarray]] = {}
    seeds = set()
    for method, group in groups.items():
        for run in group.finished[:1]:
            arrays = run.samples()
            if arrays is None:
                continue
            truth = "target" if "target" in arrays else "label"
            other = next(iter(samples.values()), arrays)
            if not np.array_equal(arrays[truth], other[truth]):
                raise ValueError(
                    f"{run.folder / 'figures' / 'samples.npz'} shows other examples than the other "
                    "methods' samples; run this grid with one setting of `samples`"
                )
            samples[method] = arrays
            seeds.add(run.seed)
    word = "seed" if len(seeds) == 1 else "seeds"
    return samples, f"{word} {', '.join(map(str, sorted(seeds)))}"


def _tails(summary: Mapping[str, Any], curves: Mapping[str, np.ndarray]) -> Section:
    config = summary["config"]
    parts: list[page.Part] = [
        Text(
            f"{summary['problem']} in {config['dimension']} dimensions, started at "
            f"f(x) − f* = {summary['initial_gap']:g}; independent noise in every coordinate of "
            f"every gradient; {config['steps']:,} gradients for each method; "
            f"{config['replicas']:,} replicas at once. In the median all methods arrive. What "
            "differs is the tail: under heavy-tailed noise (Student's t with "
            f"{config['df']:g} degrees of freedom: infinite variance) a few of SGD's replicas are "
            "thrown far off, however long one waits; methods that bound the length of a step have "
            "no such tail. Under normal noise the same methods, with the same settings, are alike."
        ),
        Picture(
            "quantiles",
            figures.quantile_curves(curves, summary),
            "Quantiles of f(x) − f* over replicas against the number of stochastic gradients, log "
            f"axes. Bands are {100 * config['confidence']:g} % bootstrap intervals. "
            "Every method is evaluated where its theory says.",
        ),
        Picture(
            "survival",
            figures.survival_curves(curves, summary),
            "Which share of the replicas ends with f(x) − f* of at least s. A straight line on "
            "these axes is a power law.",
        ),
    ]
    parts += [quantile_table(summary, noise) for noise in summary["results"]]
    parts.append(Bullets(tuple(_method_lines(config))))
    return Section("Heavy tails", tuple(parts))


def quantile_table(summary: Mapping[str, Any], noise: str) -> Table:
    """Return the final quantiles with their intervals, and the reference numbers beside."""
    config = summary["config"]
    reference = summary["reference"].get(noise, {})
    rows = []
    for method, result in summary["results"][noise].items():
        cells = []
        for i, row in enumerate(result["final"]):
            note = f"{readable(row['low'])} to {readable(row['high'])}"
            if method in reference:
                note += f"; reference {readable(reference[method][i])}"
            cells.append(Cell(readable(row["value"]), note))
        count = result["diverged"]
        rows.append((Cell(summary["labels"][method]), *cells, Cell(str(count) if count else "0")))
    source = f" Reference: {summary['reference_source']}." if reference else ""
    return Table(
        header=("method", *(f"{100 * level:g} %" for level in config["levels"]), "diverged"),
        rows=tuple(rows),
        caption=f"{figures.noise_label(noise, summary)}: quantiles of the final f(x) − f*, below "
        f"them {100 * config['confidence']:g} % bootstrap intervals. Replicas that diverged count "
        f"as infinite.{source}",
    )


def _method_lines(config: Mapping[str, Any]) -> list[str]:
    rate, level = config["learning_rate"], config["clip_level"]
    return [
        f"SGD: step size {rate:g}.",
        f"normalised SGD: every step has length {config['normalized_factor'] * rate:g}.",
        f"clipped-SGD: step size {rate:g}, level {level:g}, so no step is longer than "
        f"{rate * level:g}.",
        f"clipped-SSTM: a = {1 / config['sstm_learning_rate']:g}, L = 1, no step longer than "
        f"B = {config['sstm_clip_level']:g}.",
    ]


def _provenance(grid: Grid, tails: Tails | None) -> Section:
    """Say from which code, on which machine and how long."""
    summaries = [run.summary for run in _runs(grid)] + ([tails[0]] if tails else [])
    seconds = sum(float(summary["wall_time"]) for summary in summaries)
    lines = [
        f"commit: {_distinct(summaries, 'git_commit')}",
        f"device: {_distinct(summaries, 'device')}",
        f"wall time: {seconds:.0f} s, the sum over {len(_runs(grid))} runs"
        + (" and the heavy-tail experiment" if tails else ""),
    ]
    versions = sorted({_versions(summary) for summary in summaries})
    lines += [f"versions: {text}" for text in versions]
    for task, groups in grid.items():
        for group in groups.values():
            for run in group.runs:
                if run.diverged:
                    label = figures.look(group.method, groups).label
                    lines.append(
                        f"diverged: {task}, {label}, seed {run.seed}: {run.summary.get('reason')}"
                    )
    return Section("What was run", (Bullets(tuple(lines)),))


def _versions(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in summary.get("versions", {}).items())


def _distinct(summaries: Sequence[Mapping[str, Any]], name: str) -> str:
    values = sorted({str(summary.get(name) or "unknown") for summary in summaries})
    return ", ".join(values)


def _runs(grid: Grid) -> list[results.RunResult]:
    return [run for groups in grid.values() for group in groups.values() for run in group.runs]


# -- Output ---------------------------------------------------------------------------------------


def print_tables(grid: Grid, tails: Tails | None, console: Console) -> None:
    """Print the page's tables in the terminal."""
    tables = [score_table(task, groups) for task, groups in grid.items()]
    if tails is not None:
        tables += [quantile_table(tails[0], noise) for noise in tails[0]["results"]]
    for table in tables:
        console.print(_terminal(table))


def _terminal(table: Table) -> rich.table.Table:
    shown = rich.table.Table(title=table.caption, title_justify="left")
    for i, name in enumerate(table.header):
        shown.add_column(name, justify="right" if i else "left")
    for row in table.rows:
        shown.add_row(
            *(f"[bold green]{cell.text} *[/]" if cell.best else cell.text for cell in row)
        )
    return shown


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report from the command line."""
    command = parse(Command, arguments)
    written = write_report(command.workdir)
    print_tables(*read(command.workdir), Console())
    print(written)
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
