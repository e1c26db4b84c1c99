"""A page of sections, and how it is written as Markdown and as one self-contained HTML file.

A section is a title and parts: text, lists, tables and figures. Figures are PNG bytes; Markdown
refers to them as files in a folder beside it, HTML holds them inside itself. All text is plain:
what of it would be markup is escaped when it is written. The HTML that stands around it is in
`templates/`.
"""

import base64
import functools
import os
import string
import urllib.parse
from collections.abc import Sequence
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
    """

    text: str
    note: str = ""
    best: bool = False


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
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    extra: int = 0
    wraps: bool = False


@dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
        name: its file name without `.png`.
        png: the file's bytes.
        caption: what it shows; also what is read aloud in place of it.
    """

    name: str
    png: bytes
    caption: str


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
            file = urllib.parse.quote(os.fsencode(f"{figures}/{name}.png"))
            said = in_markdown(caption)
            return f"![{said}]({file})\n\n*{said}*"
        case Table(title, header, rows, caption):
            names = _markdown_row(list(map(in_markdown, header)))
            lines = [f"### {in_markdown(title)}", "", names, "|" + "---|" * len(header)]
            lines += [_markdown_row([_markdown_cell(cell) for cell in row]) for row in rows]
            return "\n".join(lines) + (f"\n\n*{in_markdown(caption)}*" if caption else "")


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
    """Return the page as one HTML file that refers to nothing outside itself.

    Examples:
        >>> text = to_html(Page("A & B", "", (Section("S", (Picture("p", b"png", "A curve"),)),)))
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
        case Picture(_, png, caption):
            data = base64.b64encode(png).decode()
            return filled("figure.html", data=data, caption=in_html(caption))
        case Table(title, header, rows, caption, _, wraps):
            return filled(
                "table.html",
                title=in_html(title),
                kind=' class="wraps"' if wraps else "",
                head="".join(f'<th scope="col">{in_html(name)}</th>' for name in header),
                rows="".join(f"<tr>{_html_row(row)}</tr>\n" for row in rows),
                caption=f"<figcaption>{in_html(caption)}</figcaption>" if caption else "",
            )


def _html_row(row: Sequence[Cell]) -> str:
    name, *values = row
    return f'<th scope="row">{_html_cell(name)}</th>' + "".join(
        f'<td class="best">{_html_cell(cell)}</td>' if cell.best else f"<td>{_html_cell(cell)}</td>"
        for cell in values
    )


def _html_cell(cell: Cell) -> str:
    notes = (f"<small>{in_html(line)}</small>" for line in cell.note.splitlines())
    return in_html(cell.text) + "".join(notes)
