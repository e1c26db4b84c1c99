"""The files beside a page: each table as CSV and as LaTeX, each figure as PNG and as PDF.

A table's CSV has the numbers in full where a cell knows them, in the unit of its column, and the
spread over seeds in a column of its own; the LaTeX (for the package booktabs) says what the page
says, the best in bold.
"""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from clipjax.train.files import replacing
from experiments.report import page
from experiments.report.page import Cell, Page, Picture, Table
from experiments.report.style import style
from experiments.setup.labels import in_latex, plain

FIGURES = "figures"
TABLES = "tables"
"""Folders beside the page."""

LINE = 72
"""Letters of a line in LaTeX's article; two of them lie between columns."""
NARROW = 24
"""Letters of a LaTeX column that need no line breaks."""


def write_page(made: Page, workdir: Path, name: str) -> Path:
    """Write a page as NAME.md and NAME.html, its files beside; return the path of the HTML file."""
    made = named(made, name)
    for picture in made.pictures:
        write(workdir / f"{picture.file}.png", picture.drawing.png)
        if picture.drawing.pdf is not None:
            write(workdir / f"{picture.file}.pdf", picture.drawing.pdf())
    for table in made.tables:
        write(workdir / f"{table.file}.csv", to_csv(table).encode())
        write(workdir / f"{table.file}.tex", to_latex(table).encode())
    write(workdir / f"{name}.md", page.to_markdown(made).encode())
    write(workdir / f"{name}.html", page.to_html(made).encode())
    return workdir / f"{name}.html"


def publish(make: Callable[[], Page], workdir: Path) -> None:
    """Write a command's page as report.md and report.html; print it, and where it is.

    Args:
        make: returns the page; called while the figures' style is set.
        workdir: of the command.
    """
    with style():
        made = make()
        path = write_page(made, workdir, "report")
    print(page.to_markdown(made, figures=None))
    print(plain(path))


def write(path: Path, content: bytes) -> Path:
    """Write a file whole or not at all; return its path."""
    with replacing(path) as file:
        file.write(content)
    return path


def named(made: Page, name: str) -> Page:
    """Return the page with a file for each of its tables and figures.

    Args:
        made: the page.
        name: its own file; the tables' files begin with it.

    Examples:
        >>> tables = Table("digits: top-1 (%)", (), ()), Table("digits, top-1", (), ())
        >>> [t.file for t in named(Page("", "", (page.Section("", tables),)), "report").tables]
        ['tables/report_digits_top-1', 'tables/report_digits_top-1_2']
    """
    taken: set[str] = set()

    def with_file(part: page.Part) -> page.Part:
        if isinstance(part, Picture):
            return replace(part, file=f"{FIGURES}/{part.name}")
        if not isinstance(part, Table):
            return part
        words = re.findall(r"[A-Za-z0-9.-]+", part.title)
        slug = f"{name}_{'_'.join(words)[:80]}".strip("_.-")
        slug = _unlike(slug, taken, "_")
        return replace(part, file=f"{TABLES}/{slug}")

    return replace(
        made,
        sections=tuple(
            replace(section, parts=tuple(map(with_file, section.parts)))
            for section in made.sections
        ),
    )


def _unlike(name: str, taken: set[str], between: str) -> str:
    """Return the name, or with the first number that makes it another; add it to `taken`.

    Names that differ in nothing but case are the same file to some systems.
    """
    found, i = name, 1
    while found.lower() in taken:
        i += 1
        found = f"{name}{between}{i}"
    taken.add(found.lower())
    return found


# -- CSV ------------------------------------------------------------------------------------------


def to_csv(table: Table) -> str:
    """Return a table as comma-separated values: numbers in full, spread and notes in own columns.

    Text that is no number stays text; "–" becomes an empty field. Names are one line each.

    Examples:
        >>> row = (Cell("SGD", note="lr 0.1"), Cell("97.12 ± 0.33", value=97.125, spread=0.3281))
        >>> print(to_csv(Table("digits", header=("method", "top-1"), rows=(row,))), end="")
        method,method: note,top-1,top-1: standard deviation
        SGD,lr 0.1,97.125,0.3281
    """
    taken: set[str] = set()
    columns: list[list[str]] = []
    for place, title in enumerate(table.header):
        cells = [row[place] for row in table.rows]
        name = _unlike(plain(title), taken, " ")
        columns.append([name, *map(_value, cells)])
        if any(cell.spread is not None for cell in cells):
            spreads = ("" if cell.spread is None else repr(cell.spread) for cell in cells)
            columns.append([_unlike(f"{name}: standard deviation", taken, " "), *spreads])
        if any(cell.note for cell in cells):
            notes = ("; ".join(map(plain, cell.note.splitlines())) for cell in cells)
            columns.append([_unlike(f"{name}: note", taken, " "), *notes])
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(zip(*columns, strict=True))
    return text.getvalue()


def _value(cell: Cell) -> str:
    if cell.value is not None:
        return repr(cell.value)
    return "" if cell.text == "–" else plain(cell.text)


# -- LaTeX ----------------------------------------------------------------------------------------


def to_latex(table: Table) -> str:
    r"""Return a table as a LaTeX float for the package booktabs, the best in bold.

    One that is wider than a line is shrunk to it by the package graphicx.

    Examples:
        >>> row = (Cell("a_b"), Cell("97.1 ± 0.3", best=True))
        >>> print(to_latex(Table("digits", header=("method", "top-1 (%)"), rows=(row,))))
        % digits
        % In the document's head: \usepackage{booktabs}
        \begin{table}
        \centering
        \caption{digits}
        \label{tab:digits}
        \begin{tabular}{lr}
        \toprule
        method & top-1 (\%) \\
        \midrule
        a\_b & \textbf{97.1 $\pm$ 0.3} \\
        \bottomrule
        \end{tabular}
        \end{table}
        <BLANKLINE>
    """
    caption = f"{table.title}. {table.caption}" if table.caption else table.title
    columns, width = _columns(table)
    fits = width <= LINE
    label = table.file.rpartition("/")[2] or "_".join(re.findall(r"\w+", table.title, re.ASCII))
    return page.filled(
        "table.tex",
        about=plain(table.title),
        caption=in_latex(caption),
        label=label,
        columns=columns,
        packages="" if fits else "\\usepackage{graphicx}",
        before="" if fits else "\\resizebox{\\linewidth}{!}{",
        after="" if fits else "}",
        head=" & ".join(map(in_latex, table.header)),
        rows=" \\\\\n".join(" & ".join(map(_cell, row)) for row in table.rows),
    )


def _columns(table: Table) -> tuple[str, float]:
    """Return the columns' kinds and the table's width in letters.

    Columns with long cells have a width, in which lines break: one that the longest piece fits.
    """
    cells = ([Cell(name) for name in table.header], *table.rows)
    longest = [max(len(_said(cell)) for cell in column) for column in zip(*cells, strict=True)]
    wide = sum(letters > NARROW for letters in longest)
    share = max(0.3, min(0.4, 0.8 / max(1, wide)))
    width = f"p{{{share:.3g}\\linewidth}}"
    kinds = ("l", *["r"] * (len(longest) - 1))
    found = (width if n > NARROW else kind for n, kind in zip(longest, kinds, strict=True))
    letters = sum((share * LINE if n > NARROW else n) + 2 for n in longest)
    return "".join(found), letters


def _said(cell: Cell) -> str:
    return f"{cell.text} ({cell.note})" if cell.note else cell.text


def _cell(cell: Cell) -> str:
    text = in_latex(cell.text)
    text = rf"\textbf{{{text}}}" if cell.best else text
    note = "; ".join(map(in_latex, cell.note.splitlines()))
    return f"{text} {{\\footnotesize ({note})}}" if note else text
