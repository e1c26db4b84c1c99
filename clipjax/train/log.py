"""What a run writes down: metrics.jsonl as the truth, a progress line, JSON files written whole."""

import json
import math
import time
import unicodedata
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from clipjax.train.files import replacing


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of either.

    JSON has neither NaN nor infinity: such numbers become null.
    """
    text = json.dumps(finite_or_null(value), indent=2, allow_nan=False) + "\n"
    with replacing(path) as file:
        file.write(text.encode())


def finite_or_null(value: Any) -> Any:
    """Return JSON values with None for each number that is not finite.

    Examples:
        >>> finite_or_null({"loss": math.nan, "rows": [1.0, math.inf]})
        {'loss': None, 'rows': [1.0, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite_or_null(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(entry) for entry in value]
    return value


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl, none where there is no such file.

    A last line that was cut short, by a kill or a full disk, is left out, and a warning says so.

    Raises:
        ValueError: if another line is no JSON object with a `step`; file and line are named.
    """
    rows, cut = _rows(path)
    if cut:
        warnings.warn(f"{path}: its last row was cut short and is left out", stacklevel=2)
    return rows


def _rows(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Return the rows, and whether there is more of a row behind the last one."""
    if not path.exists():
        return [], False
    *lines, rest = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # no JSON, no text, or brackets without end
            raise ValueError(f"{path}, line {number}, is damaged ({error})") from error
        if not isinstance(row, dict) or type(row.get("step")) is not int:
            raise ValueError(f"{path}, line {number}, is damaged: it is no row with a step")
        rows.append(row)
    return rows, bool(rest)


class MetricsFile:
    """metrics.jsonl of a run: one JSON object a line, flushed at once.

    Opening it for step n drops the rows of later steps, which a killed run wrote after its last
    checkpoint: they are about to be made again. `splits` are those that step n has rows of.

    Args:
        path: the file.
        step: steps already done by the state training starts from.
        write: False on all hosts but the first.

    Raises:
        ValueError: the file holds a line that is no row; it is named, with what to do.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "metrics.jsonl"
        >>> with MetricsFile(path, step=0) as metrics:
        ...     metrics.append({"step": 1, "loss": 0.5})
        ...     metrics.append({"step": 2, "loss": 0.25})
        >>> with MetricsFile(path, step=1) as metrics:
        ...     pass
        >>> read_jsonl(path)
        [{'step': 1, 'loss': 0.5}]
    """

    def __init__(self, path: Path, step: int, *, write: bool = True):
        self._file = None
        self.splits: set[str] = set()
        if write:
            try:
                rows, _ = _rows(path)  # a row that was cut short is about to be made again
            except ValueError as error:
                raise ValueError(
                    f"{error}; delete that line, or the file, and start the same line again: it "
                    "goes on from the newest checkpoint, without the rows that are gone"
                ) from error
            kept = [row for row in rows if row["step"] <= step]
            self.splits = {row["split"] for row in kept if row["step"] == step and "split" in row}
            with replacing(path) as file:
                file.write("".join(map(_line, kept)).encode())
            self._file = path.open("a", encoding="utf-8")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._file:
            self._file.close()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; numbers that are not finite become null."""
        if self._file:
            self._file.write(_line(row))
            self._file.flush()


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(finite_or_null(row), allow_nan=False) + "\n"


class ProgressLine:
    """One line that says how far a run is: step, loss, images/s, time left.

    On a terminal the line is redrawn in place; elsewhere a plain line is printed at most every
    `interval` seconds, so that log files stay readable.
    """

    def __init__(self, name: str, steps: int, start: int, *, interval: float = 10.0):
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal and jax.process_index() == 0
        self._name, self._steps, self._interval = printable(name), steps, interval
        self._began, self._first, self._last = time.monotonic(), start, time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[text]}", markup=False),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._bar.add_task(self._name, total=steps, completed=start, text="compiling")

    def __enter__(self):
        self._bar.start()
        return self

    def __exit__(self, *_):
        self._bar.stop()

    def update(self, step: int, text: str) -> None:
        """Say that `step` steps are done."""
        text = printable(text)
        self._bar.update(self._task, completed=step, text=text)
        now = time.monotonic()
        if not self._live and jax.process_index() == 0 and now - self._last >= self._interval:
            self._last = now
            left = (now - self._began) / max(step - self._first, 1) * (self._steps - step)
            self.say(f"{self._name}  {step}/{self._steps}  {text}  left {left:.0f} s")

    def say(self, text: str) -> None:
        """Print a line above the progress line."""
        if jax.process_index() == 0:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def printable(text: str) -> str:
    r"""Return text as one line, without what moves a terminal's cursor, as names of files may hold.

    Breaks and tabs become spaces. Other control characters, those that turn the direction of
    writing, and the parts of a file's name that are not UTF-8 become their escape sequences.

    Examples:
        >>> printable("a\tb\nc"), printable("\x1b[2J"), printable("\udcff")
        ('a b c', '\\x1b[2J', '\\udcff')
    """
    return "".join(map(_visible, text))


def _visible(letter: str) -> str:
    if letter.isspace():
        return " "
    turns = unicodedata.bidirectional(letter) in _TURNING
    if turns or unicodedata.category(letter) in ("Cc", "Cs"):
        return letter.encode("unicode_escape").decode()
    return letter


_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """Return plain floats, rounded to float32's seven digits so that rows stay short."""
    return {
        name: float(np.format_float_positional(np.float32(v), 7, trim="0", fractional=False))
        if np.isfinite(v)
        else float(v)
        for name, v in values.items()
    }
