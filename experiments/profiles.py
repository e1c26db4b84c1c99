"""Which submission reaches its targets soonest? Profiles and scores of a table of times.

    python -m experiments.profiles --times times.csv --workdir runs/profiles

The table is a CSV file with the columns submission, workload, study, trial, time_to_target_s: one
row for each trial; `inf`, `nan` or nothing for a target that was not reached. It may come from
anywhere. The rules are AlgoPerf's (`clipjax.analysis.performance_profiles`): a study's time is that
of its fastest trial, a workload's the median of the studies, a time above `--max-ratio` times the
fastest counts as not reached, and a workload whose held-out variant is not reached is lost.
Variants are named by `--variants BASE=VARIANT`; they do not count as workloads themselves.

Writes scores.csv (submission, score), profile.csv (submission, tau, share of workloads), ratios.csv
(submission, workload, time, ratio to the fastest) and figures/performance_profile.png and .pdf.
"""

import csv
import dataclasses
import io
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from clipjax import analysis
from clipjax.train.files import replacing
from experiments.setup.checks import Range, check_fields
from experiments.setup.cli import Command, explain, parse, start_jax, working_in
from experiments.setup.labels import in_terminal, plain
from experiments.setup.times_table import TIME, TimesTable, read_times, read_variants

POINTS = 100
"""Values of τ at which the profile is written and by which it is averaged, as in AlgoPerf."""


@dataclass(frozen=True, kw_only=True)
class ProfilesCommand(Command):
    """Score submissions by their times to target, as AlgoPerf does."""

    times: Path
    """A CSV file: submission, workload, study, trial, time_to_target_s."""
    variants: tuple[str, ...] = ()
    """Held-out variants of workloads, as BASE=VARIANT."""
    max_ratio: Annotated[float, Range(1, 1e6, open_low=True)] = 4.0
    """A time above so many times the fastest counts as not reached; profiles end there."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Scored:
    """What the rules make of a table of times.

    Attributes:
        submissions: the best first.
        workloads: those that count, without variants.
        times: of the workloads, (submissions, workloads), inf for not reached.
        ratios: to the fastest, after the rules, likewise.
        taus: (points,).
        profile: (submissions, points).
        scores: (submissions,).
    """

    submissions: tuple[str, ...]
    workloads: tuple[str, ...]
    times: np.ndarray
    ratios: np.ndarray
    taus: np.ndarray
    profile: np.ndarray
    scores: np.ndarray


def score(table: TimesTable, variants: Sequence[tuple[int, int]], max_ratio: float) -> Scored:
    """Return ratios, profiles and scores, the best submission first; equals by name.

    Args:
        table: the times.
        variants: pairs (base, variant) of the numbers of workloads.
        max_ratio: as of `clipjax.analysis.benchmark_score`.
    """
    times = table.workload_times()
    rules: dict[str, Any] = {"variants": variants, "max_ratio": max_ratio}
    taus = np.linspace(1.0, max_ratio, POINTS)
    scores = analysis.benchmark_score(times, points=POINTS, **rules)
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], table.submissions[i]))
    held_out = [variant for _, variant in variants]
    return Scored(
        tuple(table.submissions[i] for i in order),
        tuple(name for i, name in enumerate(table.workloads) if i not in held_out),
        np.delete(times, held_out, axis=1)[order],
        analysis.performance_ratios(times, **rules)[order],
        taus,
        analysis.performance_profile(times, taus, **rules)[order],
        scores[order],
    )


def terminal_table(found: Scored, max_ratio: float) -> Table:
    """Return the terminal table: score, on how many workloads the fastest, how many reached."""
    count = len(found.workloads)
    workloads = "1 workload" if count == 1 else f"{count} workloads"
    shown = Table(title=f"{workloads}, up to {max_ratio:g} times the fastest")
    shown.add_column("submission", no_wrap=True)
    for name in ("score", "fastest on", "reached"):
        shown.add_column(name, justify="right", no_wrap=True)
    for name, value, ratios in zip(found.submissions, found.scores, found.ratios, strict=True):
        fastest, reached = np.count_nonzero(ratios == 1), np.count_nonzero(np.isfinite(ratios))
        shown.add_row(in_terminal(name), f"{value:.4f}", f"{fastest}", f"{reached} of {count}")
    return shown


def remarks(table: TimesTable, found: Scored) -> list[str]:
    """Return in words what was missing, and which workloads tell nothing apart."""
    return table.gaps() + [
        f"no submission reaches {name}: counts for nobody"
        for name, ratios in zip(found.workloads, found.ratios.T, strict=True)
        if not np.isfinite(ratios).any()
    ]


def write(found: Scored, workdir: Path, max_ratio: float) -> list[Path]:
    """Write the tables and the figure; return their paths."""
    from experiments.report import profiles as figures
    from experiments.report import style

    files = {
        "scores.csv": _csv(
            ("submission", "score"),
            ((s, f"{v:.6f}") for s, v in zip(found.submissions, found.scores, strict=True)),
        ),
        "profile.csv": _csv(
            ("submission", "tau", "share"),
            (
                (submission, f"{tau:.6g}", f"{share:.6g}")
                for submission, row in zip(found.submissions, found.profile, strict=True)
                for tau, share in zip(found.taus, row, strict=True)
            ),
        ),
        "ratios.csv": _csv(
            ("submission", "workload", TIME, "ratio"),
            (
                (submission, workload, f"{found.times[i, j]:g}", f"{found.ratios[i, j]:.6g}")
                for i, submission in enumerate(found.submissions)
                for j, workload in enumerate(found.workloads)
            ),
        ),
    }
    looks = [
        dataclasses.replace(style.look(name, found.submissions), label=name)
        for name in found.submissions
    ]
    with style.style():
        panels = {"Performance profile": found.ratios}
        figure = figures.figure(panels, looks, max_ratio=max_ratio, of="workloads")
        files["figures/performance_profile.png"] = style.png(figure)
        files["figures/performance_profile.pdf"] = figures.pdf(figure)
    for name, content in files.items():
        with replacing(workdir / name) as file:
            file.write(content)
    return [workdir / name for name in files]


def _csv(header: Sequence[str], rows: Iterable[Sequence[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def main(arguments: Sequence[str] | None = None) -> int:
    """Score a table from the command line."""
    command = parse(ProfilesCommand, arguments, times=tyro.MISSING)
    table = read_times(command.times)
    found = score(table, read_variants(command.variants, table.workloads), command.max_ratio)
    start_jax(command)
    with working_in(command.workdir):
        if jax.process_index() == 0:
            written = write(found, command.workdir, command.max_ratio)
            Console().print(terminal_table(found, command.max_ratio))
            for line in remarks(table, found):
                print(plain(line))
            print(*(plain(path) for path in written), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
