"""The report's "Time to target": when runs reach a score, by hand from rows made for it."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from clipjax.analysis import benchmark_score
from experiments.report import profiles, results, time_to_target, write
from experiments.report.style import style
from experiments.report.time_to_target import reached, read_targets, targets
from tests.experiments.synthetic_grid import grid_of, rows, write_grid

INF = math.inf


def run(scores, *, method="sgd", seed=0, task="digits", rate=100.0, kind="classification"):
    """A run evaluated every 10 steps of 8 examples, with a training row before each evaluation."""
    found = []
    for i, score in enumerate(scores, 1):
        at = {"step": 10 * i, "examples": 80 * i}
        speed = {} if rate is None else {"images_per_second": rate * i}
        found.append({"split": "train", **at, "top1": 1.0, **speed})
        found.append({"split": "evaluation", **at, "top1": score})
    summary = {"status": "finished", "task": kind, "dataset": "digits", "seed": seed, "metrics": {}}
    return results.RunResult(Path("g", task, method, f"seed{seed}"), summary, found)


def grid(**methods):
    """A grid of one task; of each method the scores of its seeds."""
    return {"digits": {m: group(m, *seeds) for m, seeds in methods.items()}}


def group(method, *seeds, **options):
    made = tuple(run(s, method=method, seed=i, **options) for i, s in enumerate(seeds))
    return results.Group("digits", method, made)


def target(value):
    return targets(grid(a=[[0.5]]), {"digits": value})["digits"]


def test_a_run_reaches_the_target_at_its_first_evaluation_not_below_it():
    """Training rows have a score of 1 from the first on, which is not looked at."""
    scores = [0.1, None, 0.5, 0.4, 0.9]
    # At the third evaluation 240 examples are done, at 3 x 100 examples a second: 0.8 s.
    assert reached(run(scores), target(0.5)) == {"steps": 30, "examples": 240, "seconds": 0.8}
    assert reached(run(scores), target(0.50001))["steps"] == 50
    assert reached(run(scores), target(0.91)) == dict.fromkeys(time_to_target.UNITS, INF)
    assert math.isnan(reached(run(scores, rate=None), target(0.5))["seconds"])


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ({"a": [[0.1, 0.9, 0.3]], "b": [[0.2]]}, 0.9),  # one of two
        ({"a": [[0.9]], "b": [[0.7]], "c": [[0.8]]}, 0.8),  # two of three
        ({"a": [[0.9], [0.8]], "b": [[0.7], []]}, 0.8),  # two of four, one of them unmeasured
        ({"a": [[0.9]], "b": [[None]], "c": [[]]}, INF),  # two of three have no score at all
    ],
)
def test_by_default_the_target_is_what_half_of_the_runs_reach(runs, expected):
    found = targets(grid(**runs), {})["digits"]
    assert (found.value, found.given, found.name) == (expected, False, "top1")
    count = sum(reached(r, found)["steps"] < INF for r in results.runs(grid(**runs)))
    total = len(results.runs(grid(**runs)))
    assert count >= total / 2 if expected < INF else count == 0


def test_the_table_shows_medians_ranges_and_who_never_arrives():
    made = grid(
        fast=[[0.9], [0.1, 0.9], [0.1, 0.1, 0.9]],  # 10, 20, 30 steps
        half=[[0.9], [0.1]],  # of two seeds one: the median is infinite
        most=[[0.1, 0.9], [0.9], [0.0]],  # of 10, 20, never: 20
        never=[[0.1]],
    )
    table = profiles.target_table(made["digits"], targets(made, {"digits": 0.9})["digits"])
    assert table.title == "digits: top-1 accuracy of 90.00 %"
    assert table.header == ("method", "steps", "examples", "seconds", "seeds that reach it")
    cells = rows(table)
    assert list(cells) == ["fast", "most", "half", "never"]  # those that reach it first
    assert [(c.value, c.spread) for c in cells["fast"][:2]] == [(20, 10), (160, 80)]  # of 10 20 30
    assert cells["half"][0].value is cells["half"][0].spread is None
    assert (cells["most"][0].value, cells["most"][0].spread) == (20, None)  # one seed never does
    assert [(c.text, c.note) for c in cells["fast"][:2]] == [
        ("20", "10 to 30"),
        ("160", "80 to 240"),
    ]
    assert [(c.text, c.note) for c in cells["half"][:2]] == [("not reached", "")] * 2
    assert cells["most"][0].text == "20"
    assert [c.text for c in cells["never"]] == ["not reached"] * 3 + ["0 of 1"]
    assert [cells[m][3].text for m in ("fast", "half", "most")] == ["3 of 3", "1 of 2", "2 of 3"]
    assert "was given" in table.caption
    found = profiles.target_table(made["digits"], targets(made, {})["digits"])
    assert "at least half of this task's runs" in found.caption


def test_scores_are_the_librarys_with_tasks_as_workloads():
    """Two tasks; `slow` has no runs on the second, so it cannot reach its target."""
    made = {
        "one": {"fast": group("fast", [0.9]), "slow": group("slow", [0.1, 0.9])},
        "two": {"fast": group("fast", [0.1, 0.1, 0.9])},
    }
    found = targets(made, {"one": 0.9, "two": 0.9})
    times = np.array([[10.0, 30.0], [20.0, INF]])
    np.testing.assert_array_equal(time_to_target.unit_times(made, found, "steps"), times)
    table = profiles.score_table(made, found)
    # fast is the fastest on both; slow takes twice as long on one of two: (1 - 1/3)/2 = 1/3.
    assert [c.text for c in rows(table)["fast"]] == ["1.000", "1.000", "1.000"]
    assert rows(table)["slow"][0].text == f"{benchmark_score(times)[1]:.3f}"
    assert rows(table)["slow"][0].value == benchmark_score(times)[1]
    backwards = {task: dict(reversed(groups.items())) for task, groups in made.items()}
    assert list(rows(profiles.score_table(backwards, found))) == ["fast", "slow"]  # best first
    assert float(rows(table)["slow"][0].text) == pytest.approx(1 / 3, abs=1 / 198)


def test_unknown_speeds_leave_out_seconds_only():
    made = {"digits": {"a": group("a", [0.9], rate=None), "b": group("b", [0.1, 0.9])}}
    found = targets(made, {"digits": 0.9})
    cells = rows(profiles.target_table(made["digits"], found["digits"]))
    assert [c.text for c in cells["a"][:3]] == ["10", "80", "–"]
    assert [c.text for c in rows(profiles.score_table(made, found))["a"]] == ["1.000", "1.000", "–"]


def test_the_page_has_the_section_and_targets_are_flags(tmp_path):
    """Two tasks of the made-up grid; the score of segmentation is out of reach."""
    write_grid(tmp_path, tasks=("classification", "segmentation"))
    line = ["--workdir", str(tmp_path), "--tables", str(tmp_path / "t.md")]
    assert write.main([*line, "--targets", "digits=0.9", "segmentation=0.99"]) == 0
    text = (tmp_path / "report.md").read_text()
    section = text.split("## Time to target")[1].split("\n## ")[0]
    assert "### digits: top-1 accuracy of 90.00 %" in section
    lost = section.split("### digit_scenes: mean IoU of 0.990")[1].split("###")[0]
    assert len(re.findall(r"\| not reached \| not reached \| not reached \| 0 of 3 \|", lost)) == 4
    for label in ("SGD", "Adam", "clipped-SGD", "clipped-SSTM"):
        assert f"| {label} |" in lost
    assert "(figures/performance_profile.png)" in section
    assert (tmp_path / "figures" / "performance_profile.png").read_bytes().startswith(b"\x89PNG")
    assert "### Scores: 2 tasks" in section
    assert "--targets digits=0.9 segmentation=0.99" in (tmp_path / "t.md").read_text()
    # By default half of the 12 runs reach it; the run that diverged keeps what it had reached.
    assert write.main(line) == 0
    section = (tmp_path / "report.md").read_text().split("## Time to target")[1].split("\n## ")[0]
    counts = [int(n) for n in re.findall(r"\| (\d) of 3 \|", section)]
    assert sum(counts[:4]) == sum(counts[4:8]) == 6


def test_a_run_that_diverged_later_has_reached_what_it_reached(tmp_path):
    made = grid_of(tmp_path, "segmentation", methods=("sgd",))
    assert made["segmentation"]["sgd"].diverged == 1
    found = targets(made, {"segmentation": 0.1})["segmentation"]
    cells = rows(profiles.target_table(made["segmentation"], found))["SGD"]
    assert cells[3].text == "3 of 3"


def test_one_method_has_times_but_no_profile():
    with style():
        section = profiles.section(grid(a=[[0.9]]), {})
    assert [type(part).__name__ for part in section.parts] == ["Text", "Table"]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["digits"], "'digits' is no pair; expected TASK=VALUE"),
        (["digit=0.9"], "no task is called 'digit'; did you mean 'digits'"),
        (["digits=high"], "'high' is no score; expected a finite number"),
        (["digits=nan"], "'nan' is no score"),
        (["digits=0.9", "classification=0.8"], "the task 'classification' has a target already"),
    ],
)
def test_wrong_targets_are_named(tmp_path, pairs, said):
    made = grid_of(tmp_path, "classification", methods=("sgd",), seeds=(0,))
    assert read_targets(["digits=0.9"], made) == {"classification": 0.9}
    assert read_targets(["classification=1e-1"], made) == {"classification": 0.1}
    with pytest.raises(ValueError, match=said):
        read_targets(pairs, made)
