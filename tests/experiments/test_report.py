import base64
import html.parser
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage.metrics
import sklearn.metrics
from rich.console import Console

from experiments import high_probability, report
from experiments.report import page, results, samples, sections, style, write
from tests.experiments.synthetic_grid import DIVERGED, METHODS, SEEDS, write_grid


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A grid with its report written."""
    workdir = tmp_path_factory.mktemp("grid")
    write_grid(workdir)
    config = high_probability.Config(
        dimension=2, steps=30, replicas=200, records=8, noises=("student_t",)
    )
    high_probability.run(config, workdir / "high_probability")
    assert report.write_report(workdir) == workdir / "report.html"
    return workdir


@pytest.fixture
def small(tmp_path):
    """Two methods with two seeds on one task."""
    write_grid(tmp_path, tasks=("classification",), methods=("sgd", "clipped_sgd"), seeds=(0, 1))
    return tmp_path


def summaries(workdir, task, method):
    found = [
        json.loads((workdir / task / method / f"seed{seed}" / "summary.json").read_text())
        for seed in SEEDS
    ]
    return [summary for summary in found if summary["status"] == "finished"]


def rows_of(markdown, title):
    """Return the rows of the table below a title: name -> cells."""
    lines = markdown.split(f"### {title}")[1].split("\n\n")[1].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return cells[0], {row[0].split(" (")[0]: row[1:] for row in cells[2:]}


LABELS = {
    "sgd": "SGD",
    "adam": "Adam",
    "clipped_sgd": "clipped-SGD",
    "clipped_sstm": "clipped-SSTM",
}
COLUMNS = [
    ("digits: image classification", "classification", "top1", 0, 100, 2),
    ("digits: image classification", "classification", "loss", 2, 1, 3),
    ("digit_scenes: semantic segmentation", "segmentation", "mean_iou", 0, 1, 3),
    ("digit_scenes: semantic segmentation", "segmentation", "pixel_accuracy", 1, 100, 2),
    ("photos: super-resolution", "photos", "psnr", 0, 1, 2),
    ("photos: super-resolution", "photos", "loss", 1, 1000, 2),
    ("photos: as papers report it", "photos", "psnr_rgb", 0, 1, 2),
    ("photos: as papers report it", "photos", "psnr_y", 1, 1, 2),
    ("photos: as papers report it", "photos", "ssim_y", 2, 1, 4),
]


@pytest.mark.parametrize(("title", "task", "metric", "column", "factor", "digits"), COLUMNS)
def test_the_table_holds_mean_and_spread_of_the_files(
    grid, title, task, metric, column, factor, digits
):
    _, rows = rows_of((grid / "report.md").read_text(), title)
    for method in METHODS:
        values = [factor * s["metrics"][metric] for s in summaries(grid, task, method)]
        expected = f"{np.mean(values):.{digits}f} ± {np.std(values, ddof=1):.{digits}f}"
        assert rows[LABELS[method]][column].strip("*") == expected


def test_the_best_mean_is_marked_and_no_other(grid):
    text = (grid / "report.md").read_text()
    for title, task, metric, column, *_ in COLUMNS:
        _, rows = rows_of(text, title)
        means = {
            LABELS[m]: np.mean([s["metrics"][metric] for s in summaries(grid, task, m)])
            for m in METHODS
            if (task, m) != DIVERGED[:2]
        }
        best = min(means, key=means.get) if metric == "loss" else max(means, key=means.get)
        marked = [name for name, cells in rows.items() if cells[column].startswith("**")]
        assert marked == [best]


def test_a_method_that_diverged_is_never_the_best():
    def group(method, *values):
        runs = tuple(
            results.RunResult(
                Path("g", "t", method, f"seed{i}"),
                {
                    "status": "diverged" if value is None else "finished",
                    "metrics": {} if value is None else {"top1": value},
                },
                [],
            )
            for i, value in enumerate(values)
        )
        return results.Group("t", method, runs)

    groups = {"lucky": group("lucky", 0.99, None), "sound": group("sound", 0.9, 0.91)}
    top1 = results.METRICS["classification"]["top1"]
    assert results.best(groups, "top1", top1) == {"sound"}
    assert groups["lucky"].score("top1") == results.Score(0.99, None, 1)
    assert results.best({"lost": group("lost", None)}, "top1", top1) == set()


@pytest.mark.parametrize(
    ("means", "name", "starred"),
    [
        ((0.9, 0.8, 0.9), "top1", {0, 2}),  # a tie
        ((0.90001, 0.8, 0.90004), "top1", {0, 2}),  # written as 90.00 % both
        ((0.9, 0.9, 0.9), "top1", set()),  # nobody is ahead
        ((0.9,), "top1", set()),  # nor where there is nobody else
        ((0.0, 0.0, None), "top1", set()),
        ((0.00001, 0.0), "top1", set()),  # written as 0.00 % both
        ((0.0001, 0.0), "top1", {0}),
        ((0.0, 0.5), "loss", {0}),  # zero is the best there is
        ((0.0002, 0.0001, 0.5), "loss", {0, 1}),  # written as 0.000 both
    ],
)
def test_a_star_says_that_a_method_is_ahead(means, name, starred):
    """None is a method that diverged."""

    def group(value):
        summary = {"status": "finished", "metrics": {name: value}}
        if value is None:
            summary = {"status": "diverged", "metrics": {}}
        return results.Group("t", "m", (results.RunResult(Path("g/t/m/seed0"), summary, []),))

    groups = {str(i): group(value) for i, value in enumerate(means)}
    metric = results.METRICS["classification"][name]
    assert results.best(groups, name, metric) == set(map(str, starred))


def test_a_diverged_run_is_counted_and_explained(grid):
    text = (grid / "report.md").read_text()
    header, rows = rows_of(text, "digit_scenes: semantic segmentation")
    column = header.index("finished") - 1
    assert rows["SGD"][column] == "2 of 3 (1 diverged)"
    assert rows["Adam"][column] == "3 of 3"
    assert "36 runs, of which 1 diverged" in text
    assert "diverged: digit_scenes, SGD, seed 2: the loss is nan at step 151" in text


def test_baselines_stand_beside(grid):
    text = (grid / "report.md").read_text()
    expected = {
        "digits: image classification": ("commonest class", ["10.28", "–", "–"]),
        "digit_scenes: semantic segmentation": ("all background", ["0.077", "84.70", "–"]),
        "photos: super-resolution": ("bicubic interpolation", ["24.40", "–"]),
        "photos: as papers report it": ("bicubic interpolation", ["–", "26.10", "0.7531"]),
    }
    for title, (name, cells) in expected.items():
        assert rows_of(text, title)[1][name][: len(cells)] == cells


def test_what_was_run_is_said(grid):
    text = (grid / "report.md").read_text()
    # Each method takes 5 s + its rank, nine runs each: 9 * (5 + 6 + 7 + 8) = 234 s and the tails'.
    tails = json.loads((grid / "high_probability" / "summary.json").read_text())
    assert f"wall time: {234 + tails['wall_time']:.0f} s, summed over 36 runs" in text
    assert "0123456789abcdef0123456789abcdef01234567" in text
    assert "device: 1 x cpu" in text
    assert "jax 0.10.2, optax 0.2.8" in text
    assert "learning rate 0.01, clip level 1, smoothness 10" in text
    assert "learning rate 0.3, clip level 0.5 per coordinate" in text
    assert '"Chelsea the cat", Stefan van der Walt: CC0' in text


def test_quantiles_are_those_of_the_files(grid):
    tails = json.loads((grid / "high_probability" / "summary.json").read_text())
    _, rows = rows_of((grid / "report.md").read_text(), r"Student's t(1.5) noise: final f(x) − f\*")
    final = tails["results"]["student_t"]["clipped_sgd"]["final"][2]
    value, note = rows["clipped-SGD"][2].removesuffix(")").split(" (")
    assert float(value) == pytest.approx(final["value"], rel=5e-3)
    low, high = (float(end) for end in note.split(" to "))
    assert low == pytest.approx(final["low"], rel=5e-3)
    assert high == pytest.approx(final["high"], rel=5e-3)


def test_reference_numbers_are_shown_with_their_source():
    rows = [{"level": q, "value": 1.0, "low": 0.5, "high": "inf"} for q in (0.5, 0.9, 0.99, 0.999)]
    summary = {
        "config": {"df": 1.5, "levels": [0.5, 0.9, 0.99, 0.999], "replicas": 7, "confidence": 0.9},
        "labels": {"sgd": "SGD"},
        "results": {"student_t": {"sgd": {"final": rows, "diverged": 1}}},
        "reference": high_probability.REFERENCE,
        "reference_source": "somebody else",
    }
    table = sections.quantile_table(summary, "student_t")
    assert table.rows[0][4].note == "0.5 to inf\nreference 2,040"
    assert table.rows[0][5].text == "1"  # of the replicas diverged
    assert "Reference: somebody else." in table.caption
    table = sections.quantile_table({**summary, "reference": {}}, "student_t")
    assert "eference" not in table.rows[0][4].note + table.caption


class References(html.parser.HTMLParser):
    """Collects whatever could make a browser fetch something."""

    def __init__(self):
        super().__init__()
        self.pictures, self.links, self.tags = [], [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "srcset", "data", "poster"):
                self.pictures.append(value)
            elif name in ("href", "action", "style", "background"):
                self.links.append(value)


def test_the_page_is_one_file_that_holds_its_figures(grid):
    text = (grid / "report.html").read_text()
    found = References()
    found.feed(text)
    assert not found.tags & {"link", "script", "iframe", "object", "embed", "base"}
    assert all(link.startswith("#section") for link in found.links)
    assert "url(" not in text
    assert "@import" not in text
    prefix = "data:image/png;base64,"
    assert all(picture.startswith(prefix) for picture in found.pictures)
    inside = [base64.b64decode(picture.removeprefix(prefix)) for picture in found.pictures]
    files = {path.name: path.read_bytes() for path in (grid / "figures").iterdir()}
    assert set(inside) == set(files.values())
    assert set(files) == {
        "curves_classification.png",
        "curves_segmentation.png",
        "curves_photos.png",
        "gradients.png",
        "samples_classification.png",
        "samples_segmentation.png",
        "samples_photos.png",
        "performance_profile.png",
        "quantiles.png",
        "survival.png",
    }
    assert all(png.startswith(b"\x89PNG\r\n") for png in inside)
    for name in files:
        assert f"(figures/{name})" in (grid / "report.md").read_text()


def test_both_pages_say_the_same(grid):
    text = (grid / "report.html").read_text()
    _, rows = rows_of((grid / "report.md").read_text(), "photos: super-resolution")
    for cells in rows.values():
        assert cells[0].strip("*") in text


def test_text_is_escaped():
    row = (page.Cell("<b>|"), page.Cell("1"))
    made = page.Page("a", "<i>", (page.Section("&", (page.Table("t", ("x", "y"), (row,)),)),))
    assert "&lt;b&gt;|" in page.to_html(made)
    assert "<b>" not in page.to_html(made)
    assert r"\<b>\|" in page.to_markdown(made)


def test_written_again_the_report_is_the_same(small):
    report.write_report(small)
    first = {p: p.read_bytes() for p in small.rglob("*") if p.suffix in (".html", ".md", ".png")}
    report.write_report(small)
    assert len(first) == 6
    assert all(path.read_bytes() == content for path, content in first.items())
    assert not list(small.rglob("*.tmp"))


def test_rows_of_other_splits_do_not_change_the_report(small):
    report.write_report(small)
    before = (small / "report.md").read_bytes(), (small / "report.html").read_bytes()
    row = {"split": "noise", "step": 1, "examples": 64, "example_mean": 0.5, "loss": 1e9}
    row |= {"example_block_tail_index": "inf", "seconds": 0.1}
    for path in small.rglob("metrics.jsonl"):
        path.write_text(json.dumps(row) + "\n" + path.read_text())
    report.write_report(small)
    assert before == ((small / "report.md").read_bytes(), (small / "report.html").read_bytes())
    _, found = results.read_run(small / "classification" / "sgd" / "seed0").curve(
        "noise", "example_block_tail_index"
    )
    assert found.tolist() == [np.inf]


def test_the_terminal_shows_the_table(small, monkeypatch, capsys):
    assert write.main(["--workdir", str(small)]) == 0
    shown = capsys.readouterr().out
    top1 = [
        json.loads((small / "classification" / "sgd" / f"seed{seed}" / "summary.json").read_text())
        for seed in (0, 1)
    ]
    assert f"{100 * np.mean([s['metrics']['top1'] for s in top1]):.2f}" in shown
    assert "commonest class" in shown
    assert str(small / "report.html") in shown.replace("\n", "")


def test_the_best_is_starred_in_a_terminal_without_colours(small):
    text = io.StringIO()
    report.show(small, Console(file=text, width=120))
    starred = [line for line in text.getvalue().splitlines() if "* " in line]
    assert len(starred) == 1  # clipped-SGD is best in every column of the synthetic grid
    assert "clipped-SGD" in starred[0]


def test_a_grid_of_one_seed_where_one_method_diverged_everywhere(tmp_path):
    write_grid(tmp_path, tasks=("segmentation",), methods=("sgd", "adam"), seeds=(2,))
    report.write_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    _, rows = rows_of(text, "digit_scenes: semantic segmentation")
    assert rows["SGD"][:3] == ["–", "–", "–"]
    assert rows["SGD"][3] == "0 of 1 (1 diverged)"
    assert "±" not in "".join(rows["Adam"])
    assert "No finished run with samples: SGD." in text
    assert "ResNet18, batches of 16, 300 steps, 176,258 parameters" in text


def test_the_heavy_tails_alone_make_a_report(grid, tmp_path):
    shutil.copytree(grid / "high_probability", tmp_path / "high_probability")
    report.write_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "The tails of 200 replicas" in text
    assert "## Scores" not in text


# -- What can be wrong with the files -------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "content", "error", "words"),
    [
        ("summary.json", None, FileNotFoundError, "is missing, so this run has not ended"),
        ("summary.json", b'{"status": "fin', ValueError, "is damaged"),
        ("summary.json", b"\xff\xfe\x00", ValueError, "is damaged"),
        ("summary.json", b"[]", ValueError, "expected an object"),
        ("summary.json", b'{"status": "finished"}', ValueError, "lacks task, dataset, seed"),
        ("metrics.jsonl", b'{"split": \n{}\n', ValueError, "is damaged"),
        ("figures/samples.npz", b"PK\x03\x04 cut short", ValueError, "is damaged"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_written(small, file, content, error, words):
    path = small / "classification" / "clipped_sgd" / "seed1" / file
    if file.endswith("npz"):
        path = small / "classification" / "sgd" / "seed0" / file
    path.write_bytes(content) if content is not None else path.unlink()
    with pytest.raises(error, match=words) as caught:
        report.write_report(small)
    assert str(path) in str(caught.value)
    assert not (small / "report.md").exists()
    assert not (small / "figures").exists()


@pytest.mark.parametrize("file", ["summary.json", "curves.npz"])
def test_a_damaged_heavy_tail_experiment_is_named(grid, tmp_path, file):
    folder = tmp_path / "high_probability"
    shutil.copytree(grid / "high_probability", folder)
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=f"{file} is damaged"):
        report.write_report(tmp_path)
    (folder / file).unlink()
    with pytest.raises(FileNotFoundError, match=f"{file} is missing"):
        report.write_report(tmp_path)


def test_nothing_to_report_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        report.write_report(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no runs"):
        report.write_report(tmp_path)


def test_samples_of_different_examples_are_refused(small):
    path = small / "classification" / "clipped_sgd" / "seed0" / "figures" / "samples.npz"
    arrays = dict(np.load(path))
    np.savez_compressed(path, **{**arrays, "label": arrays["label"] + 1})
    with pytest.raises(ValueError, match=r"clipped_sgd.*shows other examples"):
        report.write_report(small)


# -- Numbers in the figures -----------------------------------------------------------------------


def run_with(rows):
    return results.RunResult(Path("g/t/m/seed0"), {"status": "finished"}, rows)


def train_rows(values, start=1):
    return [
        {"split": "train", "examples": 10 * k, "loss": value}
        for k, value in enumerate(values, start)
    ]


def test_a_band_is_mean_and_range_over_seeds():
    runs = [run_with(train_rows([1.0, 3.0])), run_with(train_rows([2.0, 7.0]))]
    found = results.band(runs, "train", "loss", max_points=10)
    assert found.examples.tolist() == [10.0, 20.0]
    assert (found.mean.tolist(), found.low.tolist(), found.high.tolist()) == (
        [1.5, 5.0],
        [1.0, 3.0],
        [2.0, 7.0],
    )


def test_a_band_covers_only_what_all_seeds_have_and_bins_the_rest():
    runs = [run_with(train_rows([1.0, 2.0, 3.0, 4.0, 5.0])), run_with(train_rows([3.0, 9.0], 4))]
    found = results.band(runs, "train", "loss", max_points=10)
    assert found.examples.tolist() == [40.0, 50.0]
    # Five rows in at most two bins: three and two, each the mean of its rows.
    found = results.band(runs[:1], "train", "loss", max_points=2)
    assert (found.examples.tolist(), found.mean.tolist()) == ([20.0, 45.0], [2.0, 4.5])
    assert results.band(runs, "evaluation", "loss", max_points=2) is None
    assert results.band([], "train", "loss", max_points=2) is None


def test_numbers_below_the_pictures_are_the_usual_ones():
    rng = np.random.default_rng(0)
    truth, image = rng.integers(0, 256, (2, 16, 16, 3), np.uint8)
    expected = skimage.metrics.peak_signal_noise_ratio(truth, image, data_range=255)
    assert samples.image_psnr(image, truth) == pytest.approx(expected, rel=1e-12)
    assert samples.image_psnr(truth, truth) == np.inf
    labels, predicted = rng.integers(0, 4, (2, 16, 16))
    expected = sklearn.metrics.jaccard_score(labels.ravel(), predicted.ravel(), average="macro")
    assert samples.image_iou(labels, predicted) == pytest.approx(expected, rel=1e-12)
    labels[:8] = samples.VOID_LABEL
    expected = sklearn.metrics.jaccard_score(
        labels[8:].ravel(), predicted[8:].ravel(), average="macro"
    )
    assert samples.image_iou(labels, predicted) == pytest.approx(expected, rel=1e-12)


def test_pictures_show_examples_from_the_first_to_the_last():
    arrays = {"m": {"label": np.arange(12), "image": np.arange(12)[:, None]}}
    picked = samples.pick(arrays, 5)["m"]
    assert picked["label"] == [0, 3, 6, 8, 11]
    assert np.ravel(picked["image"]).tolist() == [0, 3, 6, 8, 11]
    assert samples.pick(arrays, 20)["m"]["label"] == list(range(12))


@pytest.mark.parametrize("looks", [style.LOOKS, style.PLANS])
def test_every_method_has_a_colour_of_its_own(looks):
    names = [*looks, "sgd.lr=0.1", "sgd.lr=0.3", "mine"]
    shown = [style.look(name, names) for name in names]
    assert len({look.color for look in shown}) == len(names)
    known = [looks[name] for name in looks]
    assert len({str(look.line) + look.marker for look in known}) == len(known)
    assert style.look("sgd", ["sgd", "mine"]) == style.look("sgd", ["other", "sgd"])
