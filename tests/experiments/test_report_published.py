"""The published scores beside ours: which, from where, and whether they can be compared."""

import re
from pathlib import Path

import pytest

from experiments import report
from experiments.report import (
    page,
    published,
    results,
    style,
    write,
)
from experiments.report.reference import REFERENCES, SOURCES
from tests.experiments.synthetic_grid import METHODS, change, grid_of, rows

ROOT = Path(__file__).parents[2]


def test_the_references_are_those_of_the_sources():
    """The thesis's slides have one table: methods by row, the three tasks by column."""
    path = ROOT.parent / "shared" / "sources" / "000_e2439f8aa3df60b5.txt"
    if not path.exists():
        pytest.skip(f"no source documents at {path}")
    text = path.read_text(encoding="utf-8")
    names = {
        "adam": "ADAM",
        "clipped_sgd": "Clipped-SGD",
        "sgd": "SGD",
        "clipped_sstm": "clipped-SSTM",
    }
    for method, name in names.items():
        (printed,) = re.findall(rf"^{name} ([\d. ]+)$", text, re.MULTILINE)
        ours = [REFERENCES[kind][0].scores[method] for kind in REFERENCES]
        assert ours == printed.split()


def test_the_references_are_those_of_the_configs():
    """The heads of configs/*.py quote them too."""
    kinds = dict(zip(("imagenet100", "voc2012", "div2k"), REFERENCES, strict=True))
    for task, kind in kinds.items():
        for method in METHODS:
            text = (ROOT / "configs" / f"{task}_{method}.py").read_text(encoding="utf-8")
            (quoted,) = re.findall(r"The thesis reports [\w-]+ ([\d.]+)", text)
            assert quoted == REFERENCES[kind][0].scores[method]
    for method in METHODS:
        text = (ROOT / "configs" / f"imagenet100_successor_{method}.py").read_text(encoding="utf-8")
        (quoted,) = re.findall(r"top-1 ([\d.]+) % after 30 epochs", text)
        assert quoted == REFERENCES["classification"][2].scores[method]


def text_of(section):
    return " ".join(part.text for part in section.parts if hasattr(part, "text"))


def test_by_default_only_the_thesis_own_data_bring_the_section(tmp_path, monkeypatch):
    monkeypatch.setattr(style, "drawing", lambda figure: page.Drawing(b"drawn elsewhere"))
    grid_of(tmp_path, "segmentation", "photos", methods=("sgd", "adam"), seeds=(0,))
    heading = "## Beside the thesis"
    report.write_report(tmp_path)
    assert heading not in (tmp_path / "report.md").read_text()
    report.write_report(tmp_path, thesis=True)
    assert heading in (tmp_path / "report.md").read_text()
    change(tmp_path, lambda s: s.update(dataset="voc2012_segmentation"), "segmentation/*/*")
    report.write_report(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert heading in text
    assert SOURCES in text
    assert "voc2012_segmentation: mean IoU, here and published" in text
    assert "photos: PSNR (dB), here and published" in text


def test_ours_and_theirs_stand_side_by_side_with_what_they_are_of(tmp_path):
    groups = grid_of(tmp_path, "classification")["classification"]
    table = published.table(groups)
    assert table.header == (
        *("", "here", "thesis"),
        *("arXiv 2106.05958, 5 epochs", "arXiv 2106.05958, 30 epochs"),
    )
    found = rows(table)
    assert [cell.text for cell in found["data set"]] == [
        *("digits", "ImageNet-100, split not stated"),
        *["ImageNet-100, validation"] * 2,
    ]
    assert found["network"][0].text == "ResNet18, width 8"
    # 400 steps of 64 are 25,600 examples of 1,000.
    assert found["length"][0].text == "400 steps of 64 (25.6 epochs)"
    assert found["status"][0].text == "measured, 3 seeds"
    assert found["status"][2].text.startswith("read off")
    mean = groups["adam"].score("top1").mean
    assert found["Adam"][0].text.startswith(f"{100 * mean:.2f} ± ")
    assert "top-5 " in found["Adam"][0].note
    assert [cell.text for cell in found["Adam"][1:]] == ["47.21", "48.7", "69.4"]
    assert found["order"][1].text == "clipped-SGD > Adam > clipped-SSTM > SGD"


def test_numbers_on_other_data_are_said_not_to_be_comparable(tmp_path):
    groups = grid_of(tmp_path, "segmentation")["segmentation"]
    (said,) = published.remarks(groups)
    assert "digit_scenes here, PASCAL VOC 2012, val there" in said
    assert "cannot be compared; at most the order of the methods can" in said


def test_the_same_data_and_network_are_said_to_be_so(tmp_path):
    grid_of(tmp_path, "segmentation", seeds=(0,))
    vgg = {"model": {"type": "FCN32s", "width": 64}, "pretrained": "vgg16.npz"}

    def same(summary):
        summary["dataset"] = "voc2012_segmentation"
        summary["config"] |= vgg

    groups = change(tmp_path, same)["segmentation"]
    assert "the same data set and network" in published.remarks(groups)[0]
    assert published.network(groups["adam"]) == "FCN32s, pretrained"
    for config in (
        {"model": {"type": "FCN32s", "pool_stages": 3}},
        {"model": {"type": "ResNet18"}},
        {"pretrained": None},
    ):
        changed = change(tmp_path, lambda s, c=config: s["config"].update(vgg | c))
        said = published.remarks(changed["segmentation"])[0]
        assert "the same data set but not the same network" in said
    part = change(tmp_path, lambda s: s["config"].update(train_split="train[:9]"))["segmentation"]
    assert rows(published.table(part))["data set"][0].text.endswith("trained on train[:9]")
    other = {"evaluation_dataset": "mine", "evaluation_split": "val"}
    moved = change(tmp_path, lambda s: s["config"].update(vgg | other))["segmentation"]
    assert rows(published.table(moved))["data set"][0].text.endswith("evaluated on mine val")
    assert "the data sets differ" in published.remarks(moved)[0]


def scored(workdir, values, spread=0.0):
    """Return the groups of a segmentation grid with these mIoUs, by seeds apart by `spread`."""
    grid_of(workdir, "segmentation", methods=tuple(values), seeds=(0, 1))
    for method, value in values.items():
        for seed in (0, 1):
            shifted = {"mean_iou": value + (seed - 0.5) * spread}
            change(workdir, lambda s, v=shifted: s["metrics"].update(v), f"*/{method}/seed{seed}")
    return results.read_grid(workdir, write.ORDER)["segmentation"]


def test_orders_are_compared_pair_by_pair(tmp_path):
    # Theirs: SGD .578 > clipped-SGD .576 > clipped-SSTM .549 > Adam .466. Of ours only the pair
    # SGD, clipped-SGD is the other way round.
    values = {"sgd": 0.4, "clipped_sgd": 0.5, "clipped_sstm": 0.3, "adam": 0.2}
    (said,) = published.remarks(scored(tmp_path, values))
    assert "The first of these methods is clipped-SGD here and SGD there" in said
    assert (
        "of 6 pairs of methods 5 are in the same order, where chance alone would make it 3" in said
    )


def test_a_lead_within_the_spread_is_said_to_be_so(tmp_path):
    values = {"sgd": 0.50, "adam": 0.45}
    # Two seeds apart by s have a standard deviation of s / sqrt(2), both together s: 0.06 > 0.05.
    (said,) = published.remarks(scored(tmp_path / "wide", values, spread=0.06))
    assert "is SGD here (within the seeds' spread of Adam) and SGD there" in said
    (said,) = published.remarks(scored(tmp_path / "narrow", values, spread=0.04))
    assert "is SGD here and SGD there; of 1 pairs" in said


def test_one_seed_is_said_to_be_one(tmp_path):
    groups = grid_of(tmp_path, "segmentation", seeds=(0,))["segmentation"]
    assert "is clipped-SSTM here (with one seed) and SGD there" in published.remarks(groups)[0]
    assert rows(published.table(groups))["status"][0].text == "measured, 1 seed"


def test_methods_that_diverged_are_in_no_order(tmp_path):
    groups = grid_of(tmp_path, "segmentation")["segmentation"]  # a run of SGD's diverged
    assert published.order(groups) == ["clipped-SSTM", "clipped-SGD", "Adam"]
    (said,) = published.remarks(groups)
    assert "is clipped-SSTM here and SGD there; of 3 pairs" in said


def test_a_sweep_of_one_method_has_no_published_order(tmp_path):
    grid_of(tmp_path, "segmentation", methods=("sgd", "adam"), seeds=(0,))
    groups = change(tmp_path, lambda s: s.update(method="sgd"))["segmentation"]
    (said,) = published.remarks(groups)
    assert "The first" not in said
    found = rows(published.table(groups))
    assert found["order"][1].text == "–"
    assert [found[name][1].text for name in ("SGD", "Adam")] == ["0.578", "0.578"]


def test_methods_without_a_published_score_have_a_dash(tmp_path):
    grid_of(tmp_path, "segmentation", methods=("sgd", "adam"), seeds=(0,))
    change(tmp_path, lambda s: s.update(method="normalized_sgd"), "*/adam/*")
    groups = results.read_grid(tmp_path, write.ORDER)["segmentation"]
    assert rows(published.table(groups))["Adam"][1].text == "–"
    assert "The first" not in published.remarks(groups)[0]


def test_published_psnrs_below_bicubic_are_remarked_on(tmp_path):
    groups = grid_of(tmp_path, "photos", methods=("sgd", "adam"), seeds=(0,))["photos"]
    said = published.remarks(groups)[-1]
    assert "below those of bicubic interpolation (24.40 dB here, on other data)" in said
    changed = change(tmp_path, lambda s: s["metrics"].update(bicubic_psnr=18.0))["photos"]
    assert len(published.remarks(changed)) == 1
