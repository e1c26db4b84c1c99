"""What the page says of single classes and of super-resolution; its curves and exports."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from clipjax.data.builders import photographs
from clipjax.data.builders.voc2012_segmentation import CLASSES
from experiments import report
from experiments.report import (
    classes,
    curves,
    export,
    results,
    samples,
    scores,
    sections,
    style,
    write,
)
from tests.experiments.synthetic_grid import (
    IOUS,
    METHODS,
    SHARES,
    change,
    grid_of,
    rows,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def drawn(monkeypatch):
    """Leave figures as they are, to be looked into."""
    monkeypatch.setattr(style, "drawing", lambda figure: figure)


def test_whoever_shows_the_photographs_credits_them(tmp_path):
    """Also where a network was only evaluated on them."""

    assert not sections.credits(grid_of(tmp_path, "classification"))

    def evaluated(summary):
        summary["config"]["evaluation_dataset"] = "photos_x4"

    (credits,) = sections.credits(change(tmp_path, evaluated))
    assert credits.title == "Photographs"
    assert credits.parts[0].lines == tuple(photographs.credits().splitlines())


@pytest.mark.parametrize(("highest", "scale"), [(2.0, "linear"), (20.0, "log")])
def test_a_log_axis_is_taken_where_it_has_labelled_ticks(highest, scale):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    axes.plot([0, 1], [1.0, highest])
    curves._log_scale(axes)
    assert axes.get_yscale() == scale


# -- Single classes -------------------------------------------------------------------------------


def test_each_class_has_the_mean_and_spread_of_the_files(tmp_path):
    groups = grid_of(tmp_path, "segmentation")["segmentation"]
    table = classes.iou_table(groups)
    # By the mean, the best first: the later a method is in the synthetic grid, the better it is.
    assert table.header == ("class", "clipped-SSTM", "clipped-SGD", "Adam", "SGD")
    found = rows(table)
    assert list(found) == ["background", "0", "1", "2", "7", "mean"]  # classes 0, 1, 2, 3 and 8
    for column, method in enumerate(reversed(METHODS)):
        runs = [run.summary["metrics"] for run in groups[method].finished]
        for k, name in ((0, "background"), (1, "0"), (3, "2")):
            values = [metrics[f"iou_{k}"] for metrics in runs]
            expected = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
            assert found[name][column].text == expected
    notes = {row[0].text: row[0].note for row in table.rows}
    assert notes["background"] == "85 % of the pixels"
    assert notes["7"] == "not in the truth"
    # One of three seeds predicts it; of SGD's one diverged.
    assert [cell.note for cell in found["7"]] == [*["1 of 3 runs"] * 3, "1 of 2 runs"]


def test_the_best_of_each_class_is_marked_unless_nobody_finds_it(tmp_path):
    table = classes.iou_table(grid_of(tmp_path, "segmentation")["segmentation"])
    marked = {name: [cell.best for cell in cells] for name, cells in rows(table).items()}
    best = [True, False, False, False]  # the first column is the best method
    assert marked == {
        "background": best,
        "0": best,
        "1": best,
        "2": [False] * 4,  # all 0
        "7": [False] * 4,
        "mean": best,
    }


def test_twenty_one_names_and_none(tmp_path):
    grid_of(tmp_path, "segmentation", seeds=(0,))

    def voc(summary):
        summary["class_names"] = CLASSES
        summary["metrics"] |= {f"iou_{k}": k / 21 for k in range(21)}
        summary["metrics"] |= {f"share_{k}": 1 / 21 for k in range(21)}

    groups = change(tmp_path, voc)["segmentation"]
    assert list(rows(classes.iou_table(groups))) == [*CLASSES, "mean"]
    groups = change(tmp_path, lambda summary: summary.pop("class_names"))["segmentation"]
    assert list(rows(classes.iou_table(groups)))[:2] == ["class 0", "class 1"]


def test_runs_without_single_classes_have_no_such_section(tmp_path):
    def old(summary):
        kept = {k: v for k, v in summary["metrics"].items() if not re.search(r"_\d+$", k)}
        summary["metrics"] = kept

    grid_of(tmp_path, "segmentation", "classification", seeds=(0,))
    grid = change(tmp_path, old)
    assert classes.section(grid) == []
    # Which class is commonest is not known then.
    assert "commonest class" in rows(scores.score_table(grid["segmentation"]))


def test_the_section_is_on_the_page_and_in_the_terminal(tmp_path, capsys):
    grid_of(tmp_path, "segmentation", seeds=(0, 1))
    assert write.main(["--workdir", str(tmp_path)]) == 0
    assert "digit_scenes: IoU per class" in capsys.readouterr().out
    text = (tmp_path / "report.md").read_text()
    assert "| background (85 % of the pixels) |" in text
    assert len(IOUS) == len(SHARES) == 5
    assert "IoU per class</a>" in (tmp_path / "report.html").read_text()


# -- Super-resolution -----------------------------------------------------------------------------


def test_what_was_not_measured_is_a_dash_and_never_the_best(tmp_path):
    grid_of(tmp_path, "photos", methods=("sgd", "adam"), seeds=(0, 1))

    def too_small(summary):
        summary["metrics"] |= {"ssim_y": float("nan"), "bicubic_ssim_y": float("nan")}

    groups = change(tmp_path, too_small)["photos"]
    found = rows(scores.paper_table(groups))
    assert {name: cells[2].text for name, cells in found.items()} == {
        "SGD": "–",
        "Adam": "–",
        "bicubic interpolation": "–",
    }
    assert not any(cells[2].best for cells in found.values())
    assert found["Adam"][1].best
    report.write_report(tmp_path)


def test_a_mean_is_not_taken_over_the_seeds_that_are_finite(tmp_path):
    grid_of(tmp_path, "photos", methods=("sgd", "adam"), seeds=(0, 1))

    def spoil(summary):
        summary["metrics"]["psnr_y"] = float("nan")

    groups = change(tmp_path, spoil, "*/adam/seed1")["photos"]
    found = rows(scores.paper_table(groups))
    assert found["Adam"][1].text == "–"
    assert found["SGD"][1].best


def test_runs_that_have_no_such_metrics_have_no_such_table(tmp_path):
    grid_of(tmp_path, "photos", "classification", methods=("sgd",), seeds=(0,))

    def old(summary):
        for name in results.AS_IN_PAPERS:
            summary["metrics"].pop(name, None)

    grid = change(tmp_path, old)
    assert [table.title for table in scores.tables(grid)] == [
        "digits: image classification",
        "photos: super-resolution",
    ]


# -- Figures --------------------------------------------------------------------------------------


def pictures(panel):
    return [np.asarray(image.get_array()) for image in panel.get_images()]


@pytest.mark.usefixtures("drawn")
def test_segmentations_are_drawn_in_their_own_shapes_colours_and_names():
    shapes = [(40, 60), (60, 30)]
    labels = [np.full(shape, k) for shape, k in zip(shapes, (3, 20), strict=True)]
    labels[0][0] = 255
    arrays = {
        "image": [np.zeros((*shape, 3), np.uint8) for shape in shapes],
        "label": labels,
        "prediction": [np.zeros(shape, int) for shape in shapes],
    }
    figure = samples.segmentation_samples({"sgd": arrays}, CLASSES)
    axes = np.reshape(figure.axes, (2, 3))
    assert [[pictures(panel)[0].shape for panel in row] for row in axes] == [
        [(40, 60, 3)] * 3,
        [(60, 30, 3)] * 3,
    ]
    colors = samples.palette(21)
    truth = pictures(axes[1][1])[0]
    assert "#{:02X}{:02X}{:02X}".format(*truth[0, 0]) == colors[20]
    assert "#{:02X}{:02X}{:02X}".format(*pictures(axes[0][1])[0][0, 0]) == samples.VOID_COLOR
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "background",
        "bird",
        "tvmonitor",
        "(void)",
    ]
    heights = [axes[i][0].get_gridspec().get_height_ratios()[i] for i in (0, 1)]
    assert heights[1] > 2 * heights[0]  # 60 / 30 and 40 / 60 of the same width


@pytest.mark.parametrize("classes_", [2, 11, 12, 21, 22, 60])
def test_no_two_classes_have_one_colour(classes_):
    colors = samples.palette(classes_)
    assert len({*colors, samples.VOID_COLOR}) == classes_ + 1


def sr_samples(*shapes):
    rng = np.random.default_rng(0)
    target = [rng.integers(0, 256, (4 * h, 4 * w, 3), np.uint8) for h, w in shapes]
    arrays = {"target": target, "lr": [picture[::4, ::4] for picture in target]}
    arrays["bicubic"] = [picture.copy() for picture in target]
    return {"sgd": arrays | {"prediction": [255 - picture for picture in target]}}


@pytest.mark.usefixtures("drawn")
def test_of_large_pictures_the_detail_is_shown_in_which_bicubic_errs():
    found = sr_samples((50, 30), (24, 24))
    found["sgd"]["bicubic"][0][150:160, 70:80] += 90
    found["sgd"]["prediction"][0][:40] = found["sgd"]["target"][0][:40]  # outside of the detail
    figure = samples.super_resolution_samples(found)
    axes = np.reshape(figure.axes, (2, 5))
    shapes = [[pictures(panel)[0].shape[:2] for panel in row] for row in axes]
    assert shapes[0] == [(200, 120), (24, 24), (96, 96), (96, 96), (96, 96)]
    assert shapes[1] == [(96, 96), (24, 24), (96, 96), (96, 96), (96, 96)]
    (frame,) = axes[0][0].patches
    left, top = np.add(frame.get_xy(), 0.5).astype(int)
    assert 0 <= top <= 150 <= 160 <= top + 96 <= 200
    assert 0 <= left <= 70 <= 80 <= left + 96 <= 120
    assert (top % 4, left % 4) == (0, 0)
    truth = found["sgd"]["target"][0]
    part = truth[top : top + 96, left : left + 96]
    np.testing.assert_array_equal(pictures(axes[0][4])[0], part)
    np.testing.assert_array_equal(pictures(axes[0][3])[0], 255 - part)
    np.testing.assert_array_equal(pictures(axes[0][1])[0], part[::4, ::4])
    # The number below is of the whole picture.
    expected = samples.image_psnr(found["sgd"]["prediction"][0], truth)
    assert axes[0][3].get_xlabel() == f"{expected:.2f} dB"


@pytest.mark.usefixtures("drawn")
def test_of_small_pictures_all_is_shown():
    found = sr_samples((24, 24))
    figure = samples.super_resolution_samples(found)
    assert [panel.get_title() for panel in figure.axes] == [
        *("low resolution", "bicubic", "SGD", "truth")
    ]
    assert not samples.has_details(found)


@pytest.mark.usefixtures("drawn")
def test_classes_are_called_by_their_names():
    arrays = {"image": [np.zeros((4, 4, 3), np.uint8)] * 7, "label": [0] * 7, "prediction": [1] * 7}
    figure = samples.classification_samples({"sgd": arrays}, ["a_very_long_name", "dog"])
    assert len(figure.axes) == 5
    assert figure.axes[0].get_title() == "truth: a_very_long_…"
    assert figure.axes[0].texts[0].get_text() == "SGD: dog ✗"
    figure = samples.classification_samples({"sgd": arrays})
    assert len(figure.axes) == 7
    assert figure.axes[0].texts[0].get_text() == "SGD: 1 ✗"


@pytest.mark.usefixtures("drawn")
def test_losses_and_metrics_of_training_stand_beside_those_of_held_out_examples(tmp_path):
    grid = grid_of(tmp_path, "classification", methods=("sgd", "adam"), seeds=(0, 1))
    for path in tmp_path.rglob("metrics.jsonl"):
        found = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row | {"top5": 0.75}) + "\n" for row in found))
    grid = results.read_grid(tmp_path, write.ORDER)
    groups = grid["classification"]
    figure = curves.learning_curves(groups)
    axes = np.reshape(figure.axes, (3, 2))
    labels = [panel.get_ylabel() for panel in axes[:, 0]]
    assert labels == ["cross-entropy (nats)", "top-1 accuracy (%)", "top-5 accuracy (%)"]
    for row, name, factor in zip(axes, ("loss", "top1", "top5"), (1, 100, 100), strict=True):
        for panel, split in zip(row, ("train", "evaluation"), strict=True):
            expected = results.band(groups["sgd"].runs, split, name, curves.MAX_POINTS)
            np.testing.assert_allclose(panel.lines[0].get_ydata(), factor * expected.mean)
            assert len([line for line in panel.lines if len(line.get_xdata()) > 2]) == 2


@pytest.mark.usefixtures("drawn")
def test_metrics_that_no_run_has_along_the_way_have_no_panel(tmp_path):
    groups = grid_of(tmp_path, "classification", methods=("sgd",), seeds=(0,))["classification"]
    labels = [panel.get_ylabel() for panel in curves.learning_curves(groups).axes]
    assert labels == ["cross-entropy (nats)", "", "top-1 accuracy (%)", ""]  # top-5 at the end only


# -- What is kept with the code -------------------------------------------------------------------


def read_curves(path):
    head, *lines = path.read_text().splitlines()
    return head, list(csv.DictReader(lines, delimiter="\t"))


def test_curves_are_written_as_text(tmp_path, capsys):
    grid_of(tmp_path / "w", "segmentation", "photos", seeds=(0, 2))
    path = tmp_path / "kept" / "curves.tsv"
    arguments = ["--workdir", str(tmp_path / "w"), "--curves", str(path)]
    assert write.main(arguments) == 0
    assert str(path) in capsys.readouterr().out.replace("\n", "")
    head, found = read_curves(path)
    assert head == f"# python -m experiments.report {' '.join(arguments)}"
    assert list(found[0])[:6] == ["task", "method", "seed", "split", "step", "examples"]
    assert {"loss", "mean_iou", "psnr", "gradient_norm", "clipped_fraction"} <= set(found[0])
    assert "top1" not in found[0]  # nothing in this grid has it
    run = results.read_run(tmp_path / "w" / "segmentation" / "adam" / "seed2")
    mine = [
        row for row in found
        if (row["task"], row["method"], row["seed"]) == ("segmentation", "adam", "2")
    ]  # fmt: skip
    held_out = [row for row in mine if row["split"] == "evaluation"]
    assert [int(row["examples"]) for row in held_out] == run.curve("evaluation", "loss")[0].tolist()
    for name in ("loss", "mean_iou"):
        _, values = run.curve("evaluation", name)
        np.testing.assert_allclose([float(row[name]) for row in held_out], values, rtol=5e-6)
    assert {row["psnr"] for row in mine} == {""}


def test_training_rows_are_means_over_neighbours(tmp_path):
    grid_of(tmp_path, "photos", methods=("adam",), seeds=(0,))
    folder = tmp_path / "photos" / "adam" / "seed0"
    train = [
        {"split": "train", "step": k, "examples": 8 * k, "loss": float(k)} for k in range(1, 101)
    ]
    held_out = [row | {"split": "evaluation"} for row in train[49::50]]
    written = "".join(json.dumps(row) + "\n" for row in train + held_out)
    (folder / "metrics.jsonl").write_text(written)
    grid = results.read_grid(tmp_path)
    lines = export.curves(grid, "x").splitlines()[1:]
    found = list(csv.DictReader(lines, delimiter="\t"))
    # 100 rows in at most 40 bins: three each, 34 bins, the last of one row.
    assert [row["split"] for row in found] == ["train"] * 34 + ["evaluation"] * 2
    assert (found[0]["step"], found[0]["examples"], found[0]["loss"]) == ("3", "24", "2")
    assert (found[33]["step"], found[33]["loss"]) == ("100", "100")
    assert [(row["step"], row["loss"]) for row in found[34:]] == [("50", "50"), ("100", "100")]


def test_tables_are_written_without_figures_below_their_command(tmp_path):
    grid_of(tmp_path / "w", "segmentation", seeds=(0, 1))
    path = tmp_path / "tables.md"
    arguments = ["--workdir", str(tmp_path / "w"), "--thesis", "--tables", str(path)]
    assert write.main(arguments) == 0
    text = path.read_text()
    assert text.startswith(f"    $ python -m experiments.report {' '.join(arguments)}\n\n# Methods")
    assert "figures/" not in text
    assert "## Curves" not in text
    for heading in ("Scores", "IoU per class", "Beside the thesis", "What was run"):
        assert f"## {heading}\n" in text
