"""A table of times to target, read from a CSV file and checked line by line.

One row for each trial: columns submission, workload, study, trial, time_to_target_s. Other columns
are passed over. A time that is empty, `nan` or `inf` says that the target was not reached.
"""

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipjax import analysis
from experiments.setup.checks import nearest, read_pair, shown

KEYS = ("submission", "workload", "study", "trial")
TIME = "time_to_target_s"
COLUMNS = (*KEYS, TIME)

NOT_REACHED = ("", "nan", "inf", "+inf", "infinity", "+infinity")


class WrongTable(ValueError):
    """A table of times that cannot be read: says which file, which line and what is expected."""


@dataclass(frozen=True)
class TimesTable:
    """Times to target of submissions on workloads.

    Attributes:
        submissions: their names, in the order of the file.
        workloads: their names, in the order of the file.
        studies: (submission, workload) -> study -> times of its trials, inf for not reached.
    """

    submissions: tuple[str, ...]
    workloads: tuple[str, ...]
    studies: Mapping[tuple[str, str], Mapping[str, Sequence[float]]]

    def workload_times(self) -> np.ndarray:
        """Return one time for each submission and workload, (submissions, workloads).

        As `clipjax.analysis.workload_times`, where a study that others have on the workload and
        a submission has not counts as not reached.
        """
        columns = []
        for workload in self.workloads:
            count = self._count(workload)
            found = np.full((len(self.submissions), 1, count), np.inf)
            for row, submission in enumerate(self.submissions):
                studies = self.studies.get((submission, workload), {})
                found[row, 0, : len(studies)] = [min(times) for times in studies.values()]
            columns.append(analysis.workload_times(found))
        return np.concatenate(columns, axis=1)

    def gaps(self) -> list[str]:
        """Return in words what submissions lack and is counted as not reached."""
        said = []
        for submission in self.submissions:
            for workload in self.workloads:
                found = len(self.studies.get((submission, workload), {}))
                count = self._count(workload)
                if not found:
                    said.append(f"{submission} has no rows for {workload}: counts as not reached")
                elif found < count:
                    lost = count - found
                    said.append(
                        f"{submission} has {found} of {count} studies on {workload}: "
                        f"{'the other counts' if lost == 1 else f'the other {lost} count'} "
                        "as not reached"
                    )
        return said

    def _count(self, workload: str) -> int:
        """Return the number of studies of a workload: the most that a submission has."""
        return max(len(self.studies.get((s, workload), {})) for s in self.submissions)


def read_times(path: Path) -> TimesTable:
    """Return the table of a CSV file.

    Raises:
        FileNotFoundError: there is no such file.
        WrongTable: the file is a folder, no CSV, lacks a column or has no rows; a name is empty, a
            time is no number, negative or zero; a trial stands there twice.
    """
    studies: dict[tuple[str, str], dict[str, list[float]]] = {}
    lines: dict[tuple[str, ...], int] = {}
    for line, row in _rows(path):
        key = tuple(row[name].strip() for name in KEYS)
        for name, value in zip(KEYS, key, strict=True):
            if not value:
                raise WrongTable(f"{path}, line {line}: {name} is empty; expected a name")
        if key in lines:
            named = ", ".join(f"{name} {value!r}" for name, value in zip(KEYS, key, strict=True))
            raise WrongTable(
                f"{path}, line {line}: {named} stands in line {lines[key]} already; "
                "expected one row for each trial"
            )
        lines[key] = line
        submission, workload, study, _ = key
        times = studies.setdefault((submission, workload), {}).setdefault(study, [])
        times.append(_time(row[TIME], f"{path}, line {line}"))
    if not studies:
        raise WrongTable(f"{path} has no rows below its header; expected one for each trial")
    submissions, workloads = (tuple(dict.fromkeys(names)) for names in zip(*studies, strict=True))
    return TimesTable(submissions, workloads, studies)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row with the number of its (last) line, from 1."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            _check_header(path, reader.fieldnames or ())
            for row in reader:
                short = [name for name in reader.fieldnames or () if row[name] is None]
                if short or None in row:
                    raise WrongTable(
                        f"{path}, line {reader.line_num}: {'fewer' if short else 'more'} fields "
                        f"than the header's {len(reader.fieldnames or ())}"
                    )
                yield reader.line_num, row
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no file {path}; expected a CSV file with the columns {', '.join(COLUMNS)}"
        ) from None
    except IsADirectoryError:
        raise WrongTable(f"{path} is a folder; expected a CSV file") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise WrongTable(f"{path} is no CSV file in UTF-8 ({error})") from error


def _check_header(path: Path, names: Sequence[str]) -> None:
    for name in COLUMNS:
        if name not in names:
            raise WrongTable(
                f"{path} lacks the column {name!r}; expected {', '.join(COLUMNS)}"
                + (f"; {nearest(name, names)}" if names else "; the file is empty")
            )
    if twice := [name for name in COLUMNS if names.count(name) > 1]:
        raise WrongTable(f"{path} has the column {twice[0]!r} twice")


def _time(text: str, where: str) -> float:
    """Return a time in seconds, inf for a target that was not reached.

    Examples:
        >>> _time("12.5", "t.csv, line 2"), _time("", "t.csv, line 3"), _time("NaN", "")
        (12.5, inf, inf)
    """
    text = text.strip()
    if text.lower() in NOT_REACHED:
        return math.inf
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise WrongTable(
            f"{where}: {TIME} is {shown(text)}; expected seconds, above 0, or inf, nan or nothing "
            "where the target was not reached"
        )
    return value


def read_variants(pairs: Sequence[str], workloads: Sequence[str]) -> list[tuple[int, int]]:
    """Return the numbers of the workloads that BASE=VARIANT pairs name.

    Raises:
        ValueError: a pair is none or names no workload; a variant has two bases, or variants of
            its own.

    Examples:
        >>> read_variants(["wmt=wmt_glu"], ["wmt", "wmt_glu"])
        [(0, 1)]
    """
    found: dict[str, str] = {}
    for pair in pairs:
        base, variant = read_pair("--variants", pair, "BASE=VARIANT", workloads, "workload")
        if found.setdefault(variant, base) != base or pairs.count(pair) > 1:
            raise ValueError(f"--variants {pair}: {variant!r} is named as a variant twice")
    for variant, base in found.items():
        if base in found:
            raise ValueError(
                f"--variants {base}={variant}: {base!r} is itself a variant of {found[base]!r}; "
                "expected a workload that counts"
            )
    return [(workloads.index(base), workloads.index(variant)) for variant, base in found.items()]
