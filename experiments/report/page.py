"""A page of sections, and how it is written as Markdown and as one self-contained HTML file.

A section is a title and parts: text, lists, tables and figures. Figures are PNG bytes; Markdown
refers to them as files in a folder beside it, HTML holds them inside itself. All text is plain:
what of it would be markup is escaped when it is written.
"""

import base64
import os
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from experiments.setup.labels import in_html, in_markdown


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
    body = "".join(
        f'<section id="section{i}"><h2>{in_html(s.title)}</h2>\n'
        + "".join(_html_part(part) for part in s.parts)
        + "</section>\n"
        for i, s in enumerate(page.sections)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{in_html(page.title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n"
        f'<h1>{in_html(page.title)}</h1>\n<p class="lead">{in_html(page.lead)}</p>\n'
        f"<nav><ul>{contents}</ul></nav>\n{body}</body>\n</html>\n"
    )


def _html_part(part: Part) -> str:
    match part:
        case Text(text):
            return f"<p>{in_html(text)}</p>\n"
        case Bullets(lines):
            return "<ul>" + "".join(f"<li>{in_html(line)}</li>" for line in lines) + "</ul>\n"
        case Picture(_, png, caption):
            data, text = base64.b64encode(png).decode(), in_html(caption)
            return (
                f'<figure><img src="data:image/png;base64,{data}" alt="{text}">'
                f"<figcaption>{text}</figcaption></figure>\n"
            )
        case Table(title, header, rows, caption, _, wraps):
            kind = ' class="wraps"' if wraps else ""
            head = "".join(f'<th scope="col">{in_html(name)}</th>' for name in header)
            body = "".join(f"<tr>{_html_row(row)}</tr>\n" for row in rows)
            text = f"<figcaption>{in_html(caption)}</figcaption>" if caption else ""
            return (
                f'<h3>{in_html(title)}</h3>\n<figure><div class="scroll"><table{kind}>'
                f"<thead><tr>{head}</tr></thead>\n"
                f"<tbody>{body}</tbody></table></div>{text}</figure>\n"
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


_CSS = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
       color: #1b1b1b; background: #fff; max-width: 68rem; margin: 2.5rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.9rem; margin: 0 0 .4rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #ddd; }
h3 { font-size: 1.05rem; margin: 2rem 0 -.6rem; }
p, ul { max-width: 48rem; }
.lead { font-size: 1.1rem; color: #444; }
nav ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.4rem; }
a { color: #0b5394; }
figure { margin: 1.4rem 0 2rem; }
img { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .9rem; color: #555; margin-top: .5rem; max-width: 48rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { padding: .35rem 0 .35rem 1.3rem; text-align: right; vertical-align: top; }
td { white-space: nowrap; }
th:first-child { padding-left: 0; text-align: left; font-weight: 600; }
thead th { vertical-align: bottom; border-bottom: 2px solid #1b1b1b; font-weight: 600; }
tbody tr { border-bottom: 1px solid #e6e6e6; }
td.best { font-weight: 700; }
.wraps td { white-space: normal; min-width: 9rem; }
small { display: block; font-size: .8rem; font-weight: 400; color: #666; }
"""
