"""Graduated runs in the report: made-up rows whose noise level is known."""

import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from experiments import report
from experiments.report import graduated, graduated_curves, page, results, write
from experiments.setup import build, config_files
from experiments.setup import config as configs

NUM_TRAIN = 1000
HALF = 0.5**0.5


def make_run(stages, **changes):
    fields = {
        "task": "classification",
        "dataset": "digits",
        "model": configs.MLP(),
        "optimizer": configs.SGD(0.25),
        "duration": configs.Duration(epochs=3),
        "batch_size": 16,
        "accumulation": 2,
        "graduated": stages,
    }
    return configs.Run(**(fields | changes))


GEOMETRIC = configs.Graduated(3, decay="geometric", factor=HALF, batch_share=1.0)
METHODS = {
    "constant": configs.Graduated(3, decay="constant"),
    "lr": configs.Graduated(3, decay="geometric", factor=HALF),
    "batch": GEOMETRIC,
}


def write_run(folder, run, stage_std, top1, seed=0, status="finished"):
    """Write a run as `experiments.train` does; C in stage m is stage_std[m]."""
    plan = build.stage_plan(run, NUM_TRAIN, run.optimizer.learning_rate)
    rows = []
    for step in range(1, plan.total_steps + 1):
        stage = plan.stage_at_step(step - 1)
        head = {"step": step, "examples": plan.examples_at_step(step)}
        rows.append(
            {"split": "train", **head}
            | {"loss": 1.0, "gradient_norm": 1.0, "gradient_variance": stage_std[stage] ** 2}
            | {"learning_rate": plan.schedule.learning_rates[stage]}
            | {"batch_size": plan.schedule.batch_sizes[stage]}
        )
        if step in (plan.step_ends[0], plan.total_steps):
            rows.append({"split": "evaluation", **head, "loss": 1.0, "top1": top1})
    summary = {
        "status": status,
        "reason": None if status == "finished" else "the loss is nan",
        "name": folder.name,
        "task": run.task,
        "method": run.optimizer.name,
        "dataset": run.dataset,
        "num_train": NUM_TRAIN,
        "seed": seed,
        "metrics": {"top1": top1, "top5": 1.0, "loss": 1.0} if status == "finished" else {},
        "config": config_files.to_json(run),
        "wall_time": 1.0,
        "steps": plan.total_steps,
        "examples": plan.examples_at_step(plan.total_steps),
        "num_params": 10,
    }
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return results.read_run(folder)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Three methods, two seeds; C falls from 4 to 3 to 2 whatever the method."""
    workdir = tmp_path_factory.mktemp("graduated")
    scores = {"constant": (0.80, 0.82), "lr": (0.815, 0.825), "batch": (0.83, 0.84)}
    for method, stages in METHODS.items():
        for seed, top1 in enumerate(scores[method]):
            folder = workdir / "digits" / method / f"seed{seed}"
            write_run(folder, make_run(stages), (4.0, 3.0, 2.0), top1, seed)
    return workdir


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("stages", METHODS.values(), ids=METHODS)
def test_with_constant_c_the_measured_level_is_the_planned_one(tmp_path, stages, parts):
    found = graduated.noise(write_run(tmp_path / "r", make_run(stages), (4.0,) * 3, 0.5), parts)
    assert found.first == pytest.approx(0.25 * 4 / 16**0.5)
    np.testing.assert_allclose(found.delta, found.planned[:, None] * np.ones(parts), rtol=1e-12)
    np.testing.assert_allclose(found.gradient_std, np.full((3, parts), 4.0))


def test_where_c_changes_the_measured_level_leaves_the_plan(tmp_path):
    found = graduated.noise(write_run(tmp_path / "r", make_run(GEOMETRIC), (4.0, 3.0, 2.0), 0.5))
    # Planned 1, 0.7071, 0.5; C is 3/4 and 2/4 of the first stage's in the others.
    np.testing.assert_allclose(found.planned, [0.25, 0.25 * HALF, 0.125])
    np.testing.assert_allclose(found.delta[:, 0], [0.25, 0.1875 * HALF, 0.0625])


def test_momentum_counts_in_its_stationary_form(tmp_path):
    heavy = make_run(GEOMETRIC, optimizer=configs.SGD(0.25, momentum=0.75))
    found = graduated.noise(write_run(tmp_path / "r", heavy, (4.0,) * 3, 0.5))
    # delta² of SGD, 1/(1 - beta) times: 0.25² * 16/16 * 4
    assert found.first == pytest.approx(0.5)


def test_stretches_lie_where_their_rows_are(tmp_path):
    run = write_run(tmp_path / "r", make_run(GEOMETRIC), (1.0,) * 3, 0.5)
    rising = [row | {"gradient_variance": row["examples"] ** 2} for row in run.rows]
    found = graduated.noise(dataclasses.replace(run, rows=rising), parts=2)
    # C is the number of examples seen, so the C of a stretch is its middle, but for half a batch
    # of up to 64 and the root of a mean of squares.
    np.testing.assert_allclose(found.gradient_std, found.middles, atol=64)
    # The first stage is 62 steps of 16: its first 31 and its last 31 are the stretches.
    ends = np.array([row["examples"] for row in run.rows if row.get("batch_size") == 16], float)
    expected = np.sqrt(np.mean(ends.reshape(2, 31) ** 2, axis=1))
    np.testing.assert_allclose(found.gradient_std[0], expected)
    # Stages of about 1,000 examples, halves of 500.
    np.testing.assert_allclose(found.middles.ravel(), np.arange(250, 3000, 500), atol=40)


def test_the_tables_say_what_was_gained_and_how_c_changed(grid):
    groups = graduated.select(results.read_grid(grid, write.ORDER))["digits"]
    outcome = {
        row[0].text: [c.text for c in row[1:]] for row in graduated.outcome_table(groups).rows
    }
    # Stages end at the step nearest to 1,000, 2,000, 3,000 examples: 62 + 63 + 62 steps of 16, and
    # 62 + 32 + 15 steps of 16, 32, 64.
    # The spread of (80, 82) is 1.414, the others' 0.707, together 1.58: 1 is a tie, 2.5 is none.
    # Measured last delta: half of the plan, since C halves.
    assert outcome["constant noise"] == ["81.00 ± 1.41", "", "187", "1.000", "0.500 ± 0.000"]
    assert outcome["by learning rate"][1] == "+1.00 (tie)"
    assert outcome["by batch"] == ["83.50 ± 0.71", "+2.50", "109", "0.500", "0.250 ± 0.000"]
    variance = graduated.variance_table(groups)
    assert variance.header[1:] == ("stage 1", "stage 2", "stage 3", "last / first")
    assert [cell.text for cell in variance.rows[0][1:]] == ["4", "3", "2", "0.50 ± 0.00"]


def test_the_report_recognises_graduated_runs(grid):
    report.write_report(grid)
    text = (grid / "report.md").read_text()
    assert "## Noise levels" in text
    assert (grid / "figures" / "noise_levels.png").read_bytes().startswith(b"\x89PNG")
    console = Console(file=io.StringIO(), width=120)
    report.show(grid, console)
    printed = console.file.getvalue()
    assert "digits: accuracy and noise" in printed
    assert "+1.00 (tie)" in printed


def test_other_runs_have_no_such_section(tmp_path):
    plain = make_run(None, duration=configs.Duration(steps=4))
    write_run(tmp_path / "digits" / "batch" / "seed0", make_run(GEOMETRIC), (1.0,) * 3, 0.5)
    lost = tmp_path / "digits" / "lr" / "seed0"
    write_run(lost, make_run(METHODS["lr"]), (1.0,) * 3, 0.5, status="diverged")
    grid = results.read_grid(tmp_path)
    assert list(graduated.select(grid)["digits"]) == ["batch"]
    assert graduated.constant(graduated.select(grid)["digits"]) is None
    run = grid["digits"]["batch"].runs[0]
    summary = {**run.summary, "config": config_files.to_json(plain)}
    group = results.Group("t", "m", (dataclasses.replace(run, summary=summary),))
    assert graduated.select({"t": {"m": group}}) == {}
    unmeasured = [{k: v for k, v in row.items() if k != graduated.VARIANCE} for row in run.rows]
    group = results.Group("t", "m", (dataclasses.replace(run, rows=unmeasured),))
    assert graduated.select({"t": {"m": group}}) == {}


def test_the_figure_is_drawn_without_a_constant_method_and_with_one_seed(tmp_path):
    write_run(tmp_path / "digits" / "batch" / "seed0", make_run(GEOMETRIC), (1.0,) * 3, 0.5)
    grid = graduated.select(results.read_grid(tmp_path))
    assert graduated_curves.noise_levels(grid).png.startswith(b"\x89PNG")
    table = graduated.outcome_table(grid["digits"])
    assert [cell.text for cell in table.rows[0]][1:] == ["50.00", "", "109", "0.500", "0.500"]
    assert page.to_markdown(page.Page("", "", (page.Section("", (table,)),)))
