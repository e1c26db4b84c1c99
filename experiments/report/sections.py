"""The sections of the report, made of a grid's results."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from clipjax.data.builders import photographs
from experiments.high_probability import readable
from experiments.report import curves, graduated, graduated_curves, results, samples, tails
from experiments.report.page import Bullets, Cell, Part, Picture, Section, Table, Text
from experiments.report.results import Grid, Group
from experiments.report.style import look
from experiments.setup.reading import NOT_FINITE
from experiments.setup.samples import SIDE

Tails: TypeAlias = tuple[Mapping[str, Any], Mapping[str, np.ndarray]]
"""summary.json and curves.npz of the heavy-tail experiment."""

SECOND_HALF = {
    "level": "median",
    "maximum": "maximum",
    "worst": "worst maximum",
    "oscillation": "oscillation",
}
"""What a summary says of the second half of a run, and the titles of these columns."""


def lead(grid: Grid, heavy: Tails | None) -> str:
    """Say in two sentences what was run."""
    said = []
    if grid:
        methods = {method for groups in grid.values() for method in groups}
        seeds = {run.seed for run in results.runs(grid)}
        diverged = sum(run.diverged for run in results.runs(grid))
        said.append(
            f"{len(methods)} methods on {len(grid)} tasks with {len(seeds)} "
            f"{'seed' if len(seeds) == 1 else 'seeds'}: "
            f"{len(results.runs(grid))} runs, of which {diverged or 'none'} diverged."
        )
    if heavy is not None:
        replicas = heavy[0]["config"]["replicas"]
        said.append(f"The tails of {replicas:,} replicas under heavy-tailed noise.")
    return " ".join(said)


# -- Graduated runs -------------------------------------------------------------------------------


def noise_levels(grid: Grid, methods: Sequence[str] = ()) -> Section:
    """Return the section of graduated runs.

    Args:
        grid: it holds nothing else.
        methods: all methods of the page, which decide how each looks; so in the other sections.
    """
    picture = Picture(
        "noise_levels",
        graduated_curves.noise_levels(grid, methods),
        "Left: noise level δ = ηC/√b, measured (lines: means over seeds; bands: smallest to "
        "largest seed) and planned (dotted staircases, from the δ measured in the first stage; "
        "black where several methods follow one plan). Middle: the score on held-out examples, "
        "means over seeds. Right: the last score of each seed, and their mean as a bar.",
    )
    return Section("Noise levels", (graduated.section_text(), picture, *graduated.tables(grid)))


# -- Curves and samples ---------------------------------------------------------------------------


def learning(grid: Grid, methods: Sequence[str] = ()) -> Section:
    """Return the section of curves."""
    bands = "Lines are means over seeds, bands reach from the smallest to the largest seed."
    pictures = [
        Picture(
            f"curves_{task}",
            curves.learning_curves(groups, methods),
            f"{next(iter(groups.values())).title}: training (left) and held-out examples (right). "
            "In training, of the minibatch at the query point, averaged over neighbouring log "
            "rows; dotted lines are what can be had without learning. The axes of a row differ. "
            + bands,
        )
        for task, groups in grid.items()
    ]
    gradients = Picture(
        "gradients",
        curves.gradient_curves(grid, methods),
        "Norm of the minibatch gradient before clipping (left), and which share of the steps so "
        f"far was clipped (right; only methods that clip). {bands}",
    )
    return Section("Curves", (*pictures, gradients))


def sample_pictures(grid: Grid) -> list[Section]:
    """Return a section of sample predictions for each task that has samples."""
    sections = []
    for task, groups in grid.items():
        found, seeds = shared_samples(groups)
        if not found:
            continue
        first = next(iter(groups.values()))
        match first.kind:
            case "segmentation":
                drawing = samples.segmentation_samples(found, first.class_names)
                title = "Sample segmentations"
                said = "Below each prediction its mean IoU over the classes in that picture."
            case "super_resolution":
                drawing = samples.super_resolution_samples(found)
                title = "Sample super-resolved pictures"
                said = "Below each picture its PSNR, rounded to 8 bits as it is shown."
                if samples.has_details(found):
                    said = (
                        "Left the whole picture, then the detail in its frame, where bicubic "
                        "interpolation errs most. Below each the PSNR of the whole picture, "
                        "rounded to 8 bits."
                    )
            case _:
                drawing = samples.classification_samples(found, first.class_names)
                title = "Sample classifications"
                said = "Below each example what the methods took it for; mistakes are marked."
        if samples.largest(found) >= SIDE:
            said += f" Of pictures larger than {SIDE} pixels the middle is shown."
        lost = [look(name, groups).label for name in groups if name not in found]
        if lost:
            said += f" No finished run with samples: {', '.join(lost)}."
        caption = f"{first.title}: held-out examples, {seeds}. {said}"
        sections.append(Section(title, (Picture(f"samples_{task}", drawing, caption),)))
    return sections


def shared_samples(
    groups: Mapping[str, Group],
) -> tuple[dict[str, dict[str, Sequence[np.ndarray]]], str]:
    """Return each method's samples from its first finished run that has any, and the seeds.

    Raises:
        ValueError: if two methods were shown different examples.
    """
    found: dict[str, dict[str, Sequence[np.ndarray]]] = {}
    seeds: set[int] = set()
    for method, group in groups.items():
        for run in group.finished:
            arrays = run.samples()
            if arrays is None:
                continue
            truth = "target" if "target" in arrays else "label"
            other = next(iter(found.values()), arrays)
            if not _equal(arrays[truth], other[truth]):
                raise ValueError(
                    f"{run.folder / 'figures' / 'samples.npz'} shows other examples than the "
                    f"samples of {next(iter(found))}; give the runs of a task one dataset and one "
                    "number of samples"
                )
            found[method] = arrays
            seeds.add(run.seed)
            break
    word = "seed" if len(seeds) == 1 else "seeds"
    return found, f"{word} {', '.join(map(str, sorted(seeds)))}"


def _equal(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    return len(some) == len(others) and all(map(np.array_equal, some, others))


# -- Heavy tails ----------------------------------------------------------------------------------


def heavy_tails(heavy: Tails, methods: Sequence[str] = ()) -> Section:
    """Return the section of the heavy-tail experiment."""
    summary, arrays = heavy
    config = summary["config"]
    confidence = f"{100 * config['confidence']:g} %"
    parts: list[Part] = [
        Text(
            f"{summary['problem']} in {summary['constants']['dimension']} dimensions from "
            f"f(x) − f* = {summary['initial_gap']:.6g}, {_noise_words(config['noises'])}, "
            f"{config['steps']:,} gradients for each method, {config['replicas']:,} replicas. "
            "Under heavy-tailed noise the end of a run depends on the rarest, largest gradients "
            "that it met. A mean over a few seeds does not show that; quantiles over thousands of "
            "replicas do."
        ),
        Picture(
            "quantiles",
            tails.quantile_curves(arrays, summary, methods),
            "Quantiles of f(x) − f* over the replicas against the number of stochastic gradients; "
            f"all panels have the same log axes. Bands are {confidence} bootstrap intervals. Each "
            "method is evaluated at its own evaluation point.",
        ),
        Picture(
            "survival",
            tails.survival_curves(arrays, summary, methods),
            "Share of the replicas that end with f(x) − f* of at least s. On these axes a "
            "straight line is a power law, the sign of a heavy tail.",
        ),
    ]
    parts += quantile_tables(heavy)
    parts += [plateau_table(summary, noise) for noise in summary["reference_plateau"]]
    described = summary["methods"].items()
    parts.append(Bullets(tuple(f"{summary['labels'][name]}: {said}." for name, said in described)))
    return Section("Heavy tails", tuple(parts))


def _noise_words(noises: Sequence[str]) -> str:
    sampled = [noise for noise in noises if noise.startswith("minibatch")]
    added = "independent noise in every coordinate of every gradient"
    if not sampled:
        return added
    sampling = "examples sampled with replacement"
    return sampling if len(sampled) == len(noises) else f"{added}, or {sampling}"


def quantile_tables(heavy: Tails) -> list[Table]:
    """Return the final quantiles, a table per noise."""
    return [quantile_table(heavy[0], noise) for noise in heavy[0]["results"]]


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
                note += f"\nreference {readable(reference[method][i])}"
            cells.append(Cell(readable(row["value"]), note))
        rows.append((Cell(summary["labels"][method]), *cells, Cell(str(result["diverged"]))))
    source = f" Reference: {summary['reference_source']}." if reference else ""
    return Table(
        title=f"{tails.noise_label(noise, summary)}: final f(x) − f*",
        header=("method", *(f"{100 * level:g} %" for level in config["levels"]), "diverged"),
        rows=tuple(rows),
        caption=f"Quantiles over {config['replicas']:,} replicas, below them "
        f"{100 * config['confidence']:g} % bootstrap intervals; replicas that diverged count as "
        f"infinite.{source}",
    )


def plateau_table(summary: Mapping[str, Any], noise: str) -> Table:
    """Return what the methods do once they have settled, and the reference numbers beside."""
    reference = summary["reference_plateau"].get(noise, {})
    rows = []
    for method, result in summary["results"].get(noise, {}).items():
        found = [readable(result["second_half"][k]) for k in SECOND_HALF]
        rows.append(
            (Cell(summary["labels"][method]), *map(Cell, found), Cell(reference.get(method, "–")))
        )
    return Table(
        title=f"{tails.noise_label(noise, summary)}: f(x) − f* over the second half",
        header=("method", *SECOND_HALF.values(), "reference"),
        rows=tuple(rows),
        caption="Median over replicas and records; median over replicas of the largest value; the "
        "largest of all; median over replicas of the standard deviation of log10 of the gap. "
        f"Reference: {summary['reference_source']}.",
    )


# -- Where it comes from --------------------------------------------------------------------------


def provenance(grid: Grid, heavy: Tails | None) -> Section:
    """Say from which code, on which machine, how long, and which runs diverged why."""
    summaries = [run.summary for run in results.runs(grid)] + ([heavy[0]] if heavy else [])
    seconds = sum(float(summary["wall_time"]) for summary in summaries)
    lines = [
        f"commit: {_distinct(summaries, 'git_commit')}",
        f"device: {_distinct(summaries, 'device')}",
        f"wall time: {seconds:.0f} s, summed over {len(results.runs(grid))} runs"
        + (" and the heavy-tail experiment" if heavy else ""),
    ]
    lines += sorted({f"versions: {_versions(summary)}" for summary in summaries})
    lines += [
        f"diverged: {group.title}, {look(method, groups).label}, seed {run.seed}: "
        f"{run.summary.get('reason') or NOT_FINITE}"
        for groups in grid.values()
        for method, group in groups.items()
        for run in group.runs
        if run.diverged
    ]
    return Section("What was run", (Bullets(tuple(lines)),))


def credits(grid: Grid) -> list[Section]:
    """Return whom the photographs are owed to, where a task used them."""
    used = [run.summary for run in results.runs(grid)]
    datasets = {
        name for s in used for name in (s["dataset"], s["config"].get("evaluation_dataset"))
    }
    if not datasets & {"digit_scenes", "photos_x4"}:
        return []
    lines = tuple(photographs.credits().splitlines())
    return [Section("Photographs", (Bullets(lines),))]


def _versions(summary: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in summary.get("versions", {}).items())


def _distinct(summaries: Sequence[Mapping[str, Any]], name: str) -> str:
    return ", ".join(sorted({str(summary.get(name) or "unknown") for summary in summaries}))
