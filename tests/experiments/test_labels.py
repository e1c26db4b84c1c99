"""Names that users choose must not end or change a table, a figure, a page or a terminal's line."""

import html.parser
import io
import json
import re

import numpy as np
import pytest
from markdown_it import MarkdownIt
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.text import Text as Drawn
from rich.console import Console

from clipjax.train import log
from experiments import compare, high_probability, theorem_check
from experiments.high_probability.run import tables as high_probability_tables
from experiments.report import (
    contents,
    curves,
    export,
    graduated,
    graduated_curves,
    landscape,
    noise,
    page,
    results,
    samples,
    smoothing,
    style,
    tails,
    write,
)
from experiments.setup import labels
from tests.experiments import test_report_graduated as made_up
from tests.experiments.synthetic_grid import grid_of

NASTY = (
    "[/oops]",
    "[bold red]x :smile:",
    r"$\frac{1$",
    r"5$ \$x$ |a\|b\\",
    "`a` *b* _c_ ~d~ <script>alert('1')</script>",
    "![x](http://nowhere) [y](z) &lt;",
    "# 1\n| 2 |\r\n\n- 3\x1b[2J\x07",
    "_hidden \u202eturned caf\udce9",
    "1. " + "long " * 40,
    "",
)
FOLDERS = tuple(name.replace("/", "∕") or " " for name in NASTY)


def renamed(workdir):
    """A grid of three tasks whose folders, methods, classes and reasons have nasty names."""
    grid_of(workdir, "classification", "segmentation", "photos", seeds=(0, 2))
    for path in workdir.glob("*/*/*/summary.json"):
        summary = json.loads(path.read_text())
        names = summary["class_names"]
        summary["class_names"] = (NASTY * 2)[: len(names)]
        summary["dataset"] = NASTY[4]
        summary["name"] = summary["method"] = NASTY[0]
        summary["device"] = summary["git_commit"] = NASTY[3]
        if summary["reason"]:
            summary["reason"] = NASTY[6]
        path.write_text(json.dumps(summary))
    for task in ("segmentation", "photos", "classification"):
        folders = sorted((workdir / task).iterdir())
        first = ("segmentation", "photos", "classification").index(task)
        for i, folder in enumerate(folders):
            folder.rename(folder.with_name(FOLDERS[(first * 3 + i) % len(FOLDERS)]))
    (workdir / "photos").rename(workdir / FOLDERS[6])
    return workdir


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return renamed(tmp_path_factory.mktemp("nasty"))


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    """A heavy-tail experiment with one nasty label a method, and a nasty noise."""
    config = high_probability.Config(
        dimension=2, steps=10, replicas=100, records=4, noises=("student_t",)
    )
    folder = tmp_path_factory.mktemp("heavy")
    summary = high_probability.run(config, folder)
    arrays = dict(np.load(folder / "curves.npz"))
    arrays |= {
        key.replace("student_t", NASTY[0], 1): value
        for key, value in arrays.items()
        if "student_t" in key
    }
    summary["results"] = {NASTY[0]: summary["results"]["student_t"]}
    summary["reference"] = summary["reference_plateau"] = {NASTY[0]: {}}
    for i, name in enumerate(summary["labels"]):
        summary["labels"][name] = summary["methods"][name] = NASTY[i]
    next(iter(summary["results"][NASTY[0]].values()))["diverged"] = 3
    return summary, arrays


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are drawn: those of `style.drawing`, which still draws them."""
    figures: list[Figure] = []
    drawing = style.drawing

    def kept(figure):
        figures.append(figure)
        return drawing(figure)

    monkeypatch.setattr(style, "drawing", kept)
    return figures


def texts(figure):
    return [text.get_text() for text in figure.findobj(Drawn)]


def check_drawn(figures, *names):
    """No name is mathematics, and each is somewhere; a legend breaks the lines of long ones."""
    found = [text for figure in figures for text in texts(figure)]
    for name in names:
        shown = re.sub(r"\s", "", labels.in_figure(name)).removesuffix("…")
        here = [text for text in found if shown in re.sub(r"\s", "", text)]
        assert here, name
        assert not any(is_math_text(text) for text in here if "$" in name), name


def checked_markdown(made):
    """Read the page's Markdown by a parser: its tables hold the page's cells, and nothing more."""
    text = page.to_markdown(made)
    text.encode()
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    parts = [part for section in made.sections for part in section.parts]
    wanted = [part for part in parts if isinstance(part, page.Table)]
    kinds = {token.type for token in tokens}
    assert not kinds & {"html_block", "code_block", "fence", "hr", "ordered_list_open"}
    inline = [child for token in tokens for child in token.children or ()]
    kinds = {child.type for child in inline}
    assert not kinds & {"html_inline", "code_inline", "link_open", "s_open"}
    assert sum(child.type == "image" for child in inline) == len(made.pictures)
    assert sum(t.type == "heading_open" for t in tokens) == 1 + len(made.sections) + len(wanted)
    cells = []
    for i, token in enumerate(tokens):
        if token.type in ("th_open", "td_open"):
            cells.append("".join(c.content for c in tokens[i + 1].children or ()))
    expected = []
    for table in wanted:
        expected += [labels.plain(name).strip() for name in table.header]
        for row in table.rows:
            assert len(row) == len(table.header)
            for cell in row:
                note = "; ".join(labels.plain(line).strip() for line in cell.note.splitlines())
                both = f"{labels.plain(cell.text).strip()} ({note})" if note else cell.text
                expected.append(labels.plain(both).strip())
    assert cells == expected


class Tags(html.parser.HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, [name for name, _ in attributes]))

    def handle_data(self, data):
        self.text.append(data)


def checked_html(made, *names):
    text = page.to_html(made)
    text.encode()
    found = Tags()
    found.feed(text)
    assert {tag for tag, _ in found.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "nav", "ul"),
        *("li", "a", "section", "figure", "img", "figcaption", "div", "table", "thead", "tbody"),
        *("tr", "th", "td", "small", "wbr"),
    }
    assert not any(name.startswith("on") for _, names in found.tags for name in names)
    whole = "".join(found.text)
    for name in names:
        assert labels.plain(name) in whole, name


def shown_in_terminal(*tables):
    file = io.StringIO()
    Console(file=file, width=500).print(*tables, sep="\n")
    text = file.getvalue()
    text.encode()
    assert "\x1b" not in text
    assert "\x07" not in text
    return text


# -- Each medium ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NASTY)
def test_a_name_in_a_table_of_each_medium(name):
    cell = page.Cell(name, note=name.replace("\n", " "), best=True)
    table = page.Table(name, (name, name), ((cell, page.Cell("1")),), caption=name)
    made = page.Page(
        name,
        name,
        (
            page.Section(
                name,
                (
                    table,
                    page.Bullets((name, name)),
                    page.Text(name),
                    page.Picture(name, page.Drawing(b""), name),
                ),
            ),
        ),
    )
    text = page.to_html(made)
    checked_html(made, name)
    assert "<script" not in text
    if name:
        checked_markdown(made)
        shown = shown_in_terminal(write._terminal(table))
        assert labels.plain(name).strip()[:30] in shown


@pytest.mark.parametrize("name", NASTY)
def test_a_name_in_a_figure(name):
    figure, ((axes,),) = style.panels(1, 1, height=2)
    axes.set(title=labels.in_figure(name), xlabel=labels.in_figure(name))
    style.legend(figure, [style.Look(name, "black", "-", "o")] * 2, markers=True)
    assert style.drawing(figure).png.startswith(b"\x89PNG")
    assert figure.get_size_inches()[0] == style.WIDTH
    (legend,) = figure.legends
    (short,) = labels.shortened([name], style.LONGEST_LABEL)
    shown = labels.in_figure(short, style.LABEL, lines=5)
    assert [text.get_text() for text in legend.get_texts()] == [shown] * 2


@pytest.mark.parametrize("word", ["long ", "w" * 25 + " ", "w" * 300 + " "])
def test_names_in_a_legend_differ_where_the_names_do(word):
    """Also where words of 25 letters leave half of each line of 48 empty."""
    names = [f"{(word * 60)[:300]} {end} {(word * 60)[:300]}" for end in ("one", "two", "three")]
    figure, _ = style.panels(1, 1, height=2)
    style.legend(figure, [style.Look(name, "black", "-", "o") for name in names], markers=True)
    (legend,) = figure.legends
    shown = [text.get_text() for text in legend.get_texts()]
    assert len(set(shown)) == 3
    assert max(len(line) for text in shown for line in text.split("\n")) <= style.LABEL


def test_a_progress_line_shows_names_as_they_are(capsys):
    for name in NASTY:
        with log.ProgressLine(name, 10, 0, interval=0) as line:
            line.update(1, name)
            line._console.file = io.StringIO()
            line._console.print(line._bar)  # as a terminal has it
            text = line._console.file.getvalue()
            assert "\x1b[2J" not in text
            assert labels.plain(name).strip()[:10] in text
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(NASTY)


# -- The report -----------------------------------------------------------------------------------


def test_the_page_of_a_grid(grid, heavy, drawn):
    found = results.read_grid(grid, write.ORDER)
    made = write.make_page(contents.Found(found, heavy, thesis=True))
    methods = {method for groups in found.values() for method in groups}
    checked_markdown(made)
    checked_html(made, *methods, NASTY[0], NASTY[3])
    check_drawn(drawn, *methods, NASTY[0], NASTY[1])
    assert export.tables(made, "x\n# y").startswith("    $ x # y\n\n")
    text = export.curves(found, "x\ny")
    assert text.startswith("# x y\n")
    assert len({line.count("\t") for line in text.splitlines()[1:]}) == 1
    text.encode()


def test_a_report_is_written_and_shown(grid, drawn, capsys):
    assert write.main(["--workdir", str(grid), "--tables", str(grid / "a b.md")]) == 0
    assert (grid / "report.html").exists()
    assert (grid / "figures" / f"curves_{FOLDERS[6]}.png").exists()
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "'" in (grid / "a b.md").read_text().splitlines()[0]  # the path can be pasted


def test_each_figure_of_a_grid(grid, drawn):
    found = results.read_grid(grid, write.ORDER)
    for groups in found.values():
        curves.learning_curves(groups)
    curves.gradient_curves(found)
    check_drawn(drawn, *{method for groups in found.values() for method in groups})


def test_each_figure_of_samples(grid, drawn):
    found = results.read_grid(grid, write.ORDER)
    for groups in found.values():
        first = next(iter(groups.values()))
        arrays = {m: g.finished[0].samples() for m, g in groups.items() if g.finished}
        arguments = () if first.kind == "super_resolution" else (first.class_names,)
        getattr(samples, f"{first.kind}_samples")(arrays, *arguments)
        check_drawn(drawn, *(labels.plain(name)[: samples.NARROW - 1] for name in arrays))
        drawn.clear()


def test_graduated_runs(tmp_path, drawn):
    plans = dict(zip((FOLDERS[2], FOLDERS[3], FOLDERS[6]), made_up.METHODS.values(), strict=True))
    for method, stages in plans.items():
        folder = tmp_path / FOLDERS[1] / method / "seed0"
        made_up.write_run(folder, made_up.make_run(stages), (4.0, 3.0, 2.0), 0.8)
    found = graduated.select(results.read_grid(tmp_path, write.ORDER))
    graduated_curves.noise_levels(found)
    check_drawn(drawn, *plans, FOLDERS[1])
    shown = shown_in_terminal(*map(write._terminal, graduated.tables(found)))
    for name in (*plans, FOLDERS[1]):
        assert labels.plain(name) in shown


def test_heavy_tails(heavy, drawn):
    summary, arrays = heavy
    tails.quantile_curves(arrays, summary)
    tails.survival_curves(arrays, summary)
    check_drawn(drawn, NASTY[0])
    shown = shown_in_terminal(*high_probability_tables(summary))
    for label in summary["labels"].values():
        assert labels.plain(label) in shown
    assert "3 of 100 diverged" in shown


def test_landscape_and_noise(drawn):
    axis = np.linspace(-1, 1, 5)
    values = 1 + axis[:, None] ** 2 + axis**2
    arrays = {"through/coordinates": np.zeros((len(NASTY), 2))}
    arrays |= {"through/residuals": np.zeros(len(NASTY))}
    for name in ("random", "through"):
        arrays |= {f"{name}/alphas": axis, f"{name}/betas": axis, f"{name}/values": values}
    summary = {"name": NASTY[0], "step": 1, "loss": 1.0, "reach": 1.0, "points": NASTY}
    summary |= {"losses": [1.0] * len(NASTY), "examples": 9, "examples_asked": 32}
    summary |= {"calibration": {"batches": 1, "batch_size": 4}}
    made = landscape.make_page(summary, arrays)
    checked_markdown(made)
    checked_html(made, *NASTY)
    check_drawn(drawn, *NASTY)
    sample = np.random.default_rng(0).exponential(size=50)
    numbers = dict.fromkeys(noise.ROWS, 1.0)
    kinds = {"single examples": {"values": 50, "sample": numbers, "control": numbers}}
    summary |= {"noise": kinds, "seed": 0, "mean_gradient_norm": 1.0, "name": NASTY[4]}
    made = noise.make_page(summary, {"example_noise": sample})
    checked_markdown(made)
    checked_html(made, NASTY[4])


def test_smoothed_functions(drawn):
    line, ones = np.linspace(0, 1, 4), np.ones(4)
    one = {"x": line, "f": line, "levels": ones, "shown_levels": ones[:1], "smoothed": [line]}
    one |= {"paths": np.ones((1, 5)), "plain": ones[:1], "laws": [line]}
    one |= {"new_nice/minimisers": np.ones((4, 1)), "new_nice/radius": ones}
    summary = {"labels": {"a": NASTY[2], "b": NASTY[3]}}
    summary |= {"laws": {"a": ["ball"], "b": ["ball"]}}
    summary |= {"config": {"strong_convexity": 1.0, "law_level": 1.0}}
    arrays = {f"{name}/{key}": value for name in "ab" for key, value in one.items()}
    smoothing.smoothing(arrays, summary)
    check_drawn(drawn, NASTY[2], NASTY[3])
    drawn.clear()
    smoothing.laws(arrays, summary)
    check_drawn(drawn, NASTY[2], NASTY[3])


# -- Other commands -------------------------------------------------------------------------------


def test_the_table_and_lines_of_a_grid_under_way():
    summaries = [
        {"name": name, "task": "classification", "metrics": {"top1": 0.5}, "wall_time": 1.0}
        | {"status": "finished"}
        for name in NASTY
    ]
    shown = shown_in_terminal(compare.table(summaries))
    assert len(shown.splitlines()) == 1 + len(NASTY)
    for name, summary in zip(NASTY, summaries, strict=True):
        assert labels.plain(name).strip() in shown
        assert compare._line(name, summary).isprintable()


def test_the_table_of_theorems():
    row = {"theorem": NASTY[3], "iterations": 1, "failure_probability": 0.1, "oracle_calls": 1}
    row |= {"start": 1.0, "bound": 1.0, "quantile": 1.0, "low": 1.0, "high": 1.0}
    row |= {"share_above": 0.0, "holds": True}
    table = theorem_check.table([row], 10)
    checked_markdown(page.Page("", "", (page.Section("", (table,)),)))
