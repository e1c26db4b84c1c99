"""A page of sections, and how it is written as Markdown and as one self-contained HTML file.

A section is a title and parts: text, lists, tables and figures. Markdown refers to figures as
files in a folder beside it, HTML holds them inside itself. All text is plain:
what of it would be markup is escaped when it is written. The HTML that stands around it is in
`templates/`.
"""

import base64
import functools
import os
import string
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from experiments.setup.labels import in_html, in_markdown

TEMPLATES = Path(__file__).with_name("templates")
"""What of a page is no content lies there: `string.Template`s, filled with text that is escaped."""


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list of lines."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """A table's cell.

    Attributes:
        text: what it says.
        note: smaller lines below.
        best: marked, for the best of its column.
        value: the number that it says, in full and in the unit of its column; None for no number.
        spread: the number behind its ±.
    """

    text: str
    note: str = ""
    best: bool = False
    value: float | None = None
    spread: float | None = None


@dataclass(frozen=True)
class Table:
    """A table; the first column holds the rows' names.

    Attributes:
        title: what it is about.
        header: names of the columns.
        rows: cells, as many in each row as in the header.
        caption: what else a reader should know.
        extra: how many of the last columns a narrow page may leave out.
        wraps: whether its cells hold words that may go on in the next line.
        file: its CSV and LaTeX files beside the page, without their ends; "" for none.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    extra: int = 0
    wraps: bool = False
    file: str = ""


@dataclass(frozen=True)
class Drawing:
    """What `experiments.report.style.drawing` makes of a figure.

    Attributes:
        png: the bytes of a PNG file.
        pdf: returns the bytes of a PDF file; None where there is none.
    """

    png: bytes
    pdf: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: its file name without an end.
        drawing: the files' bytes.
        caption: what it shows; also what is read aloud in place of it.
        file: its PNG and PDF files beside the page, without their ends; "" for none.
    """

    name: str
    drawing: Drawing
    caption: str
    file: str = ""


Part: TypeAlias = Text | Bullets | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what is below it."""

    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Page:
    """A title, an introduction and sections."""

    title: str
    lead: str
    sections: tuple[Section, ...]

    @property
    def pictures(self) -> list[Picture]:
        """Return all figures, in order."""
        return [p for section in self.sections for p in section.parts if isinstance(p, Picture)]

    @property
    def tables(self) -> list[Table]:
        """Return all tables, in order."""
        return [p for section in self.sections for p in section.parts if isinstance(p, Table)]


def to_markdown(page: Page, figures: str | None = "figures") -> str:
    """Return the page as Markdown that refers to FIGURES/NAME.png; None leaves the figures out.

    Examples:
        >>> row = (Cell("SGD"), Cell("97.1 %", best=True))
        >>> table = Table("digits", header=("method", "top-1"), rows=(row,))
        >>> print(to_markdown(Page("A grid", "Two runs.", (Section("Scores", (table,)),))))
        # A grid
        <BLANKLINE>
        Two runs.
        <BLANKLINE>
        ## Scores
        <BLANKLINE>
        ### digits
        <BLANKLINE>
        | method | top-1 |
        |---|---|
        | SGD | **97.1 %** |
        <BLANKLINE>
    """
    blocks = [f"# {in_markdown(page.title)}", in_markdown(page.lead)]
    for section in page.sections:
        kept = [p for p in section.parts if figures is not None or not isinstance(p, Picture)]
        if kept:
            title = in_markdown(section.title)
            blocks += [f"## {title}", *(_markdown_part(part, figures) for part in kept)]
    return "\n\n".join(blocks) + "\n"


def _markdown_part(part: Part, figures: str | None) -> str:
    match part:
        case Text(text):
            return in_markdown(text)
        case Bullets(lines):
            return "\n".join(f"- {in_markdown(line)}" for line in lines)
        case Picture(name, _, caption):
            file = _address(f"{figures}/{name}.png")
            said = in_markdown(caption)
            return f"![{said}]({file})\n\n*{said}*{_markdown_links(part)}"
        case Table(title, header, rows, caption):
            names = _markdown_row(list(map(in_markdown, header)))
            lines = [f"### {in_markdown(title)}", "", names, "|" + "---|" * len(header)]
            lines += [_markdown_row([_markdown_cell(cell) for cell in row]) for row in rows]
            said = f"\n\n*{in_markdown(caption)}*" if caption else ""
            return "\n".join(lines) + said + _markdown_links(part)


def links(part: Table | Picture) -> dict[str, str]:
    """Return the files of a table or figure beside the page: what each is, and its address.

    Examples:
        >>> links(Table("t", (), (), file="tables/a b"))
        {'CSV': 'tables/a%20b.csv', 'LaTeX': 'tables/a%20b.tex'}
    """
    if not part.file:
        return {}
    if isinstance(part, Table):
        ends = {"CSV": "csv", "LaTeX": "tex"}
    else:
        ends = {"PNG": "png"} | ({"PDF": "pdf"} if part.drawing.pdf is not None else {})
    return {kind: _address(f"{part.file}.{end}") for kind, end in ends.items()}


def _address(file: str) -> str:
    return urllib.parse.quote(os.fsencode(file))


def _markdown_links(part: Table | Picture) -> str:
    found = " · ".join(f"[{kind}]({address})" for kind, address in links(part).items())
    return f"\n\n{found}" if found else ""


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: Cell) -> str:
    text = in_markdown(cell.text)
    text = f"**{text}**" if cell.best else text
    note = "; ".join(map(in_markdown, cell.note.splitlines()))
    return f"{text} ({note})" if note else text


def filled(template: str, **values: str) -> str:
    """Return a template with its placeholders, `$name`, replaced; all of them must be given."""
    return _template(template).substitute(values)


@functools.cache
def _template(name: str) -> string.Template:
    return string.Template((TEMPLATES / name).read_text(encoding="utf-8"))


def to_html(page: Page) -> str:
    """Return the page as one HTML file that shows nothing outside itself.

    It links to the files of tables and figures where they have any.

    Examples:
        >>> picture = Picture("p", Drawing(b"png"), "A curve")
        >>> text = to_html(Page("A & B", "", (Section("S", (picture,)),)))
        >>> "<title>A &amp; B</title>" in text, 'src="data:image/png;base64,cG5n"' in text
        (True, True)
    """
    contents = "".join(
        f'<li><a href="#section{i}">{in_html(s.title)}</a></li>'
        for i, s in enumerate(page.sections)
    )
    sections = "".join(
        filled(
            "section.html",
            id=f"section{i}",
            title=in_html(s.title),
            parts="".join(_html_part(part) for part in s.parts),
        )
        for i, s in enumerate(page.sections)
    )
    return filled(
        "page.html",
        title=in_html(page.title),
        lead=in_html(page.lead),
        style=filled("style.css"),
        contents=contents,
        sections=sections,
    )


def _html_part(part: Part) -> str:
    match part:
        case Text(text):
            return f"<p>{in_html(text)}</p>\n"
        case Bullets(lines):
            return "<ul>" + "".join(f"<li>{in_html(line)}</li>" for line in lines) + "</ul>\n"
        case Picture(_, drawing, caption):
            return filled(
                "figure.html",
                data=base64.b64encode(drawing.png).decode(),
                caption=in_html(caption),
                links=_html_links(part),
            )
        case Table(title, header, rows, caption, _, wraps):
            return filled(
                "table.html",
                title=in_html(title),
                kind=' class="wraps"' if wraps else "",
                head="".join(f'<th scope="col">{in_html(name, True)}</th>' for name in header),
                rows="".join(f"<tr>{_html_row(row)}</tr>\n" for row in rows),
                caption=f"<figcaption>{in_html(caption)}</figcaption>" if caption else "",
                links=_html_links(part),
            )


def _html_links(part: Table | Picture) -> str:
    found = (f'<a href="{address}" download>{kind}</a>' for kind, address in links(part).items())
    return f'<div class="files">{" ".join(found)}</div>' if part.file else ""


def _html_row(row: Sequence[Cell]) -> str:
    name, *values = row
    return f'<th scope="row">{_html_cell(name)}</th>' + "".join(
        f'<td class="best">{_html_cell(cell)}</td>' if cell.best else f"<td>{_html_cell(cell)}</td>"
        for cell in values
    )


def _html_cell(cell: Cell) -> str:
    notes = (f"<small>{in_html(line, True)}</small>" for line in cell.note.splitlines())
    return in_html(cell.text, True) + "".join(notes)
