"""The report with many methods: how they look, in which order they stand, and what is exported."""

import csv
import io
import itertools
import re
import statistics

import numpy as np
import pytest
from matplotlib.layout_engine import ConstrainedLayoutEngine

from experiments.report import (
    classes,
    contents,
    curves,
    differences,
    files,
    page,
    results,
    samples,
    scores,
    style,
    write,
)
from experiments.setup.labels import in_latex, plain, shortened
from tests.experiments.synthetic_grid import TWELVE, grid_of, write_grid
from tests.experiments.test_labels import NASTY

# -- Looks ----------------------------------------------------------------------------------------

# How a colour in linear RGB is seen by the colour-blind: Machado, Oliveira & Fernandes 2009, "A
# physiologically-based model for simulation of color vision deficiency", table 1, severity 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]


def lab(color, vision):
    """Return L*, a*, b* of a colour as someone sees it (CIE 1976, white D65)."""
    values = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = XYZ @ np.clip(VISION[vision] @ linear, 0, 1) / [0.9505, 1, 1.0888]
    x, y, z = np.where(seen > (6 / 29) ** 3, np.cbrt(seen), seen * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


NAMES = [*style.LOOKS, *(f"method {i:02}" for i in range(12))]


def test_no_two_of_many_methods_look_alike_to_anyone():
    looks = [style.look(name, NAMES) for name in NAMES]
    assert len({look.color for look in looks}) == 17
    assert len({(str(look.line), look.marker) for look in looks}) == 17  # also without colours
    for one, other in itertools.combinations(looks, 2):
        far = min(np.linalg.norm(lab(one.color, v) - lab(other.color, v)) for v in VISION)
        assert far > (30 if one.line == other.line else 10), (one, other)


def test_after_the_last_look_they_begin_again_with_other_lines():
    names = [f"method {i:02}" for i in range(72)]
    looks = [style.look(name, names) for name in names]
    assert len({(look.color, str(look.line)) for look in looks}) == 72
    assert {look.line for look in looks[:12]} == set(style.LINES)
    assert len({(look.color, look.marker) for look in looks[:24]}) == 24


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Twelve methods, three tasks, three seeds; a method is missing from one of the tasks."""
    workdir = tmp_path_factory.mktemp("many")
    write_grid(workdir, methods=TWELVE)
    for path in (workdir / "photos" / "adamw").rglob("*.*"):
        path.unlink()
    for seed in range(3):
        (workdir / "photos" / "adamw" / f"seed{seed}" / "figures").rmdir()
        (workdir / "photos" / "adamw" / f"seed{seed}").rmdir()
    return results.read_grid(workdir, write.ORDER)


def drawn_lines(figure, panel, looks):
    """Return the methods whose curves a panel has, by colour, line and marker."""
    found = set()
    for line in figure.axes[panel].get_lines():
        for name, look in looks.items():
            if (line.get_color(), line.get_marker()) == (look.color, look.marker):
                found.add(name)
    return found


def test_a_method_looks_the_same_in_all_figures_and_each_is_in_the_legend(many, monkeypatch):
    monkeypatch.setattr(style, "drawing", lambda figure: figure)
    found = contents.Found(many)
    assert set(found.methods) == set(TWELVE)
    looks = {name: style.look(name, TWELVE) for name in TWELVE}
    for task in ("classification", "photos"):  # adamw has no runs on photos
        figure = curves.learning_curves(many[task], found.methods)
        for panel in (0, 1):
            assert drawn_lines(figure, panel, looks) == set(many[task])
        (legend,) = figure.legends
        texts = [text.get_text().replace("\n", " ") for text in legend.get_texts()]
        assert texts == [looks[name].label for name in many[task]]  # up to 100 letters, uncut
        figure.draw_without_rendering()
        box = legend.get_window_extent()
        assert box.width < figure.bbox.width
        assert min(axes.get_window_extent().height for axes in figure.axes) > 100  # of 100 per inch
    assert max(map(len, TWELVE)) == 100


def test_many_samples_take_several_rows(many, monkeypatch):
    monkeypatch.setattr(style, "drawing", lambda figure: figure)
    arrays = {m: g.finished[0].samples() for m, g in many["segmentation"].items()}
    figure = samples.segmentation_samples(arrays)
    titles = [axes.get_title().replace("\n", "") for axes in figure.axes]
    titled = [title for title in titles if title]
    assert len(titled) == len(set(titled)) == 14  # image, truth and 12 methods, no two the same
    assert figure.get_size_inches()[0] <= style.WIDTH
    assert len(figure.axes) == 3 * 14


@pytest.mark.parametrize("longest", [9, 20, 60])
def test_shortened_names_still_differ(longest):
    names = [
        *TWELVE,
        *NASTY,
        "a" * 99,
        "a" * 98,
        f"{'a' * 50}b{'a' * 50}",
        f"{'a' * 50}c{'a' * 50}",
    ]
    found = shortened(names, longest)
    assert len(set(found)) == len(names)
    assert max(map(len, found)) <= longest


# -- Order ----------------------------------------------------------------------------------------


def group(method, values, metric="top1"):
    """Return the runs of a method; None is one that diverged, "" one without the metric."""
    runs = []
    for seed, value in enumerate(values):
        summary = {"status": "finished" if value is not None else "diverged", "seed": seed}
        summary |= {"task": "classification", "dataset": "d"}
        summary |= {"metrics": {} if value in (None, "") else {metric: value}}
        folder = results.Path("g") / "t" / method / f"seed{seed}"
        runs.append(results.RunResult(folder, summary, []))
    return results.Group("t", method, tuple(runs))


def groups_of(metric="top1", **values):
    return {method: group(method, found, metric) for method, found in values.items()}


def test_methods_are_ranked_by_score_diverged_ones_behind():
    groups = groups_of(lost=[None], bad=[0.1], lucky=[0.99, None], good=[0.8, 0.9], none=[""])
    assert list(results.ranked(groups)) == ["good", "bad", "lucky", "none", "lost"]
    groups = groups_of(metric="loss", high=[2.0], low=[1.0], same=[1.0])
    assert list(results.ranked(groups, "loss")) == ["low", "same", "high"]


def test_tables_are_sorted_by_score(many):
    table = scores.score_table(many["segmentation"])
    *methods, baseline = table.rows
    values = [row[1].value for row in methods]
    assert values[:-1] == sorted(values[:-1], reverse=True)
    assert methods[-1][0].text == "SGD"  # a run of it diverged
    assert methods[-1][4].note == "1 diverged"
    assert baseline[0].note == "no learning"
    names = [row[0].text for row in methods]
    # Many methods are rows of the table of classes, below a row of what share each class has.
    by_class = classes.iou_table(many["segmentation"])
    assert by_class.header == ("method", "mean", "background", "0", "1", "2", "7")
    shares, *rows = by_class.rows
    assert [cell.text for cell in shares[2:]] == [
        "85 %",
        "10 %",
        "3 %",
        "2.3 %",
        "not in the truth",
    ]
    assert [row[0].text for row in rows] == names
    few = dict(list(many["segmentation"].items())[:6])
    transposed = {row[0].text: row[1:] for row in classes.iou_table(few).rows}
    found = {row[0].text: row for row in rows}
    for place, name in enumerate(classes.iou_table(few).header[1:]):
        texts = [transposed[title][place].text for title in by_class.header[1:]]
        assert [cell.text for cell in found[name][1:]] == texts


# -- Differences by seed --------------------------------------------------------------------------


def test_differences_are_paired_by_seed():
    # Seed by seed "close" is 0.02, 0.01, 0.03 behind; means alone are 0.02 apart while each of the
    # two spreads by 0.1 over its seeds: only pairs show that the difference is one.
    groups = groups_of(
        close=[0.78, 0.69, 0.87],
        best=[0.8, 0.7, 0.9],
        noisy=[0.9, 0.5, 0.9],
        some=[0.7, None, 0.7],
        missing=["", "", 0.7],
        lost=[None, None, None],
    )
    table = differences.difference_table(groups)
    rows = {row[0].text: row[1:] for row in table.rows}
    assert [cell.text for cell in rows["close"]] == ["-2.00 ± 1.00", "3", "3 of 3", "yes"]
    noisy = [10.0, -20.0, 0.0]
    assert rows["noisy"][0].value == pytest.approx(statistics.fmean(noisy))
    assert rows["noisy"][0].spread == pytest.approx(statistics.stdev(noisy))
    assert [cell.text for cell in rows["noisy"][1:]] == ["3", "1 of 3", "no"]
    assert [cell.text for cell in rows["some"][1:]] == ["2", "2 of 2", "yes"]
    assert rows["missing"][3].text == "one seed: cannot be told"
    assert [cell.text for cell in rows["lost"]] == ["–", "0", "–", "no shared seeds"]
    assert "the best is best." in table.caption
    assert list(rows) == ["close", "noisy", "missing", "some", "lost"]  # as in the table of scores


def test_pairs_that_were_named_are_compared_seed_by_seed():
    groups = groups_of(base=[0.5, 0.6], clipped=[0.52, 0.61], best=[0.9, 0.9])
    grid = {"t": groups, "other": groups_of(base=[0.5, 0.6])}
    pairs = differences.read_pairs(["base=clipped"], grid)
    assert pairs == [("base", "clipped")]
    made = {table.title.rpartition(", ")[2]: table for table in differences.tables(grid, pairs)}
    assert list(made) == ["difference to the best", "differences of pairs"]
    (row,) = made["differences of pairs"].rows
    # 0.02 and 0.01: mean 1.5 points, standard deviation 0.01/√2, that is 0.71 points.
    assert [c.text for c in row] == ["clipped less base", "+1.50 ± 0.71", "2", "0 of 2", "yes"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base", "--pairs 'base' is no pair; expected BASE=METHOD"),
        ("base=cliped", "no method is called 'cliped'; did you mean 'clipped'"),
        ("=clipped", "no method is called ''"),
    ],
)
def test_a_wrong_pair_is_told(text, message):
    with pytest.raises(ValueError, match=message):
        differences.read_pairs([text], {"t": groups_of(base=[0.5], clipped=[0.5])})


def test_there_is_no_section_of_differences_without_two_seeds_of_two_methods():
    assert differences.section({"t": groups_of(a=[0.5], b=[0.6])}) == []
    assert differences.section({"t": groups_of(a=[0.5, 0.6])}) == []
    assert differences.section({"t": groups_of(a=[None, None], b=[None, None])}) == []
    (section,) = differences.section({"t": groups_of(a=[0.5, 0.6], b=[0.6, 0.7])})
    assert "no proof" in section.parts[0].text


# -- Exports --------------------------------------------------------------------------------------


def test_each_table_and_figure_is_written_and_linked(tmp_path):
    grid_of(tmp_path, "segmentation", methods=("sgd", TWELVE[-1]))
    html = write.write_report(tmp_path).read_text()
    markdown = (tmp_path / "report.md").read_text()
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("figures/*")}
    written |= {p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("tables/*")}
    assert {name for name in written if f'href="{name}"' in html} == written
    assert {name for name in written if f"({name})" in markdown} == written
    ends = {
        end: {n[:-4] for n in written if n.endswith(end)} for end in ("png", "pdf", "csv", "tex")
    }
    assert ends["png"] == ends["pdf"] == {
        *("figures/curves_segmentation", "figures/gradients", "figures/samples_segmentation"),
        "figures/performance_profile",
    }  # fmt: skip
    titles = [table.title for table in write.make_page(write.read(tmp_path)).tables]
    assert len(ends["csv"]) == len(titles) == len(set(titles)), titles
    assert ends["csv"] == ends["tex"]
    assert all((tmp_path / f"{name}.pdf").read_bytes()[:5] == b"%PDF-" for name in ends["pdf"])
    for name in ends["tex"]:
        checked_latex((tmp_path / f"{name}.tex").read_text())
    grid = results.read_grid(tmp_path, write.ORDER)
    (path,) = tmp_path.glob("tables/*segmentation.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [row["method"] for row in rows] == [TWELVE[-1], "SGD", "all background"]
    for row, method in zip(rows, (TWELVE[-1], "sgd"), strict=False):
        score = grid["segmentation"][method].score("pixel_accuracy")
        assert float(row["pixel accuracy (%)"]) == 100 * score.mean
        assert float(row["pixel accuracy (%): standard deviation"]) == 100 * score.spread
    assert rows[1]["finished"] == "2 of 3"
    assert rows[1]["finished: note"] == "1 diverged"
    assert rows[2]["images/s"] == rows[2]["cross-entropy (nats per pixel)"] == ""


def test_a_pdf_is_the_same_every_time():
    def drawn():
        with style.style():
            figure, ((axes,),) = style.panels(1, 1, height=2)
            axes.plot([0, 1])
            return style.drawing(figure).pdf()

    first = drawn()
    assert first.startswith(b"%PDF-")
    assert first.rstrip().endswith(b"%%EOF")
    assert first == drawn()
    assert b"/FontFile2" in first  # letters stay letters


def test_a_pdf_is_laid_out_as_the_png_without_doing_it_again(monkeypatch):
    with style.style():
        figure, ((axes,),) = style.panels(1, 1, height=2)
        axes.plot([0, 1])
        style.legend(figure, [style.look(name) for name in TWELVE], markers=True)
        drawn = style.drawing(figure)
        bounds = axes.get_position().bounds
        assert bounds[1] + bounds[3] < 0.6  # the legend's 223 of 408 points are above the panel
        monkeypatch.setattr(ConstrainedLayoutEngine, "execute", None)  # fails where it is called
        assert drawn.pdf().startswith(b"%PDF-")
        assert style._saved(figure, "png", {"Software": None}) == drawn.png


def hostile(*names):
    rows = tuple(
        (page.Cell(name, note=name), page.Cell(name, best=True), page.Cell("0.1 ± 0.2", value=0.1))
        for name in names
    )
    return page.Table(names[0], (names[0], names[0], "b"), rows, caption=names[1])


LETTERS = (*NASTY, r"_%&$#{}~^\ " + "\"'|<>[]*`--,,", "δ = ηC/√b ≥ 1 — é, Ω, 中, ☃, x₁²", *TWELVE)


def test_hostile_names_read_back_from_csv():
    read = list(csv.reader(io.StringIO(files.to_csv(hostile(*LETTERS)))))
    head, *rows = read
    assert len(rows) == len(LETTERS)
    assert len(set(head)) == 4 == len(head)  # a name, its notes, a name, a number
    for row, name in zip(rows, LETTERS, strict=True):
        assert row == [plain(name), "; ".join(map(plain, name.splitlines())), plain(name), "0.1"]


MACRO = re.compile(r"\\(?:[A-Za-z]+|.|\n)", re.DOTALL)
KNOWN = {
    *("\\" + sign for sign in "%&$#_{}\\"),
    *("\\begin", "\\end", "\\centering", "\\caption", "\\label", "\\toprule", "\\midrule"),
    *("\\bottomrule", "\\textbf", "\\footnotesize", "\\allowbreak", "\\texttt", "\\symbol"),
    *("\\textbackslash", "\\textasciitilde", "\\textasciicircum", "\\textless", "\\textgreater"),
    *("\\textbar", "\\ldots", "\\textendash", "\\textemdash", "\\linewidth", "\\resizebox"),
    *("\\pm", "\\times", "\\delta", "\\eta", "\\surd", "\\geq", "\\Omega"),
}


def checked_latex(text):
    """Read a table as TeX would: known commands only, braces and $ in pairs, cells in rows.

    Returns the number of cells of each row.
    """
    text.encode()
    text = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert set(MACRO.findall(text)) <= KNOWN, set(MACRO.findall(text)) - KNOWN
    assert not re.search(r"\\\\\s*[\[*]", text)  # would be an option of \\
    assert not re.search(r"\\[a-z]+rule\s*[\[(]", text)
    bare = MACRO.sub(lambda found: "R" if found[0] == "\\\\" else "m", text)
    assert not re.search(r"[%#~\\\"`|<>]", bare)
    depth, math = 0, False
    for letter in bare:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        math ^= letter == "$"
        assert depth >= 0
        assert math or letter not in "_^" or depth > 0
        assert not (math and letter in "R&")
    assert (depth, math) == (0, False)
    outside = re.sub(r"\$[^$]*\$", "", bare)
    assert "^" not in outside
    assert "_" not in re.sub(r"m\{tab:[^}]*\}|m\{[a-z]+\}", "", outside)
    body = text.split("\\toprule")[1].split("\\bottomrule")[0]
    body = re.sub(r"\\[&$#%_{}]", "", body).replace("\\midrule", "")
    return [row.count("&") + 1 for row in body.split("\\\\")[:-1]]


def test_hostile_names_do_not_end_a_latex_table():
    assert checked_latex(files.to_latex(hostile(*LETTERS))) == [3] * (1 + len(LETTERS))
    said = in_latex(r"_%&$#{}~^\ ")
    assert said.strip() == (r"\_\%\&\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}")
    assert in_latex("5 – 6 -- -1 a-1") == r"5 \textendash{} 6 -{}- $-$1 a-1"


def test_the_check_finds_what_would_break_latex():
    good = files.to_latex(hostile("a", "b"))
    for bad in ("{", "}", "$", "a%", "_", "^", "#", "~", r"\oops", "[x]"):
        with pytest.raises(AssertionError):
            checked_latex(good.replace("\\midrule\n", f"\\midrule\n{bad}"))


def test_a_latex_table_wider_than_a_line_is_shrunk_to_it(many):
    narrow = page.Table("t", ("a", "b"), ((page.Cell("x"), page.Cell("1")),))
    assert "resizebox" not in files.to_latex(narrow)
    assert "graphicx" not in files.to_latex(narrow)
    # 12 methods: a column of names, 0.4 of a line wide, and 6 of up to 18 letters.
    text = files.to_latex(classes.iou_table(many["segmentation"]))
    assert text.count("\\resizebox{\\linewidth}{!}{\\begin{tabular}{p{0.4\\linewidth}rrrrrr}") == 1
    assert "\\usepackage{booktabs}\\usepackage{graphicx}" in text
    assert checked_latex(text) == [7] * (1 + 1 + 12)


def test_tables_of_one_title_have_files_of_their_own():
    tables = tuple(
        page.Table(title, ("a",), ()) for title in ("x: Y", "X, y", "[/oops]", "$$", "中")
    )
    made = files.named(page.Page("", "", (page.Section("", tables),)), "report")
    assert [table.file.removeprefix("tables/") for table in made.tables] == [
        *("report_x_Y", "report_X_y_2", "report_oops", "report", "report_2")
    ]


def test_templates_are_beside_the_code():
    names = {path.name for path in page.TEMPLATES.iterdir()}
    assert names == {
        *("page.html", "section.html", "table.html", "figure.html", "style.css", "table.tex")
    }


def test_long_words_may_be_broken_on_the_page():
    made = page.to_html(page.Page("", "", (page.Section("", (hostile(TWELVE[-1], "a"),)),)))
    assert "chain(<wbr>clip_<wbr>by_<wbr>zscore(<wbr>2.5)" in made
    pieces = re.split(r"<[^>]+>|\s", made.split("<tbody>")[1].split("</tbody>")[0])
    assert max(map(len, pieces)) <= 20
