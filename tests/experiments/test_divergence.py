"""Runs that diverge at their end: the summary, what can be done, the grid's table and its page."""

import dataclasses
import json
import re
import shlex

import pytest
from rich.console import Console

from experiments import compare, train
from experiments.report.write import write_report
from experiments.setup import config as configs
from experiments.setup.reading import diverged
from experiments.setup.runs import run_one, what_now
from experiments.setup.workbench import Workbench

RUN = configs.Run(
    task="classification",
    dataset="digits",
    model=configs.MLP(hidden=(8,)),
    optimizer=configs.SGD(0.1),
    duration=configs.Duration(steps=3),
    batch_size=64,
)
GRID = configs.Grid(
    {
        "classification/sgd": RUN,
        # One step: its loss is of the parameters before it. They are about 1e29 after it.
        "classification/sgd_huge": dataclasses.replace(
            RUN, optimizer=configs.SGD(1e30), duration=configs.Duration(steps=1)
        ),
        "classification/clipped_sstm": dataclasses.replace(
            RUN, optimizer=configs.ClippedSSTM(1e38, 1.0, 1.0)
        ),
    },
    seeds=(0,),
)


@pytest.fixture(scope="module")
def bench():
    return Workbench()


@pytest.fixture(scope="module")
def done(tmp_path_factory, bench):
    """The finished grid: (workdir, summaries by method)."""
    workdir = tmp_path_factory.mktemp("grid")
    summaries = compare.run_grid(GRID, workdir, bench, say=lambda _: None)
    return workdir, {s["name"].split("/")[1]: s for s in summaries}


def test_a_run_that_ends_without_a_finite_loss_diverged(done):
    _, summaries = done
    status = {name: summary["status"] for name, summary in summaries.items()}
    assert status == {"sgd": "finished", "sgd_huge": "diverged", "clipped_sstm": "diverged"}
    assert re.match(
        r"the evaluation loss is (nan|inf) after step 1\.", summaries["sgd_huge"]["reason"]
    )
    assert summaries["clipped_sstm"]["metrics"] == {}


def test_summaries_and_rows_are_json(done):
    def refuse(name):
        raise ValueError(f"{name} is no JSON")

    workdir, _ = done
    texts = [path.read_text() for path in workdir.rglob("summary.json")]
    texts += [line for p in workdir.rglob("metrics.jsonl") for line in p.read_text().splitlines()]
    assert len(texts) > 3
    for text in texts:
        json.loads(text, parse_constant=refuse)


def test_nothing_of_a_diverged_run_is_saved(done):
    workdir, _ = done
    assert list((workdir / "classification/sgd_huge/seed0/checkpoints").iterdir()) == []
    assert list((workdir / "classification/sgd/seed0/checkpoints").iterdir()) != []


def test_the_same_run_again_says_so_at_once(done, bench, monkeypatch):
    workdir, summaries = done
    folder = workdir / "classification/sgd_huge/seed0"
    before = (folder / "summary.json").read_bytes()
    monkeypatch.setattr("experiments.setup.runs.train", None)  # it is not asked
    again = run_one(GRID.runs["classification/sgd_huge"], folder, bench)
    assert again == summaries["sgd_huge"]
    assert (folder / "summary.json").read_bytes() == before


def test_the_command_ends_with_what_can_be_done(done, monkeypatch):
    """The flags that it names are flags of the command, and the workdir is another."""
    workdir, summaries = done
    monkeypatch.setattr(train, "run_one", lambda *_, **__: summaries["sgd_huge"])
    monkeypatch.setattr(train, "start_jax", lambda _: None)
    with pytest.raises(FloatingPointError, match=r"diverged: the evaluation loss is") as caught:
        train.main(["--workdir", str(workdir / "run")])
    flags = re.search(r"as with (--workdir .*?);", str(caught.value))[1]
    command = train.parse_train(shlex.split(flags))
    assert command.workdir == workdir / "run_lower"
    assert command.run.optimizer.learning_rate == 3.33e29  # a third of 1e30


def test_the_table_has_diverged_runs_last_and_without_values(done):
    _, summaries = done
    console = Console(record=True, width=120, file=None, quiet=False)
    with console.capture() as shown:
        console.print(compare.table(list(reversed(summaries.values()))))
    lines = [line.split() for line in shown.get().splitlines()[1:]]
    assert lines[0][0] == "classification/sgd/seed0"
    assert [line[2:4] for line in lines[1:]] == [["diverged", "diverged"]] * 2


def test_the_page_shows_the_others_and_these_as_diverged(done):
    workdir, summaries = done
    page = write_report(workdir).read_text()
    assert "3 runs, of which 2 diverged" in page
    assert summaries["sgd_huge"]["reason"].split(".")[0] in page


@pytest.mark.parametrize("loss", ["NaN", "null", "Infinity"])
def test_summaries_of_earlier_versions_are_read_as_what_they_were(loss):
    """They said finished, with a bare NaN."""
    metrics = json.loads(f'{{"top1": 0.1, "loss": {loss}}}')
    summary = {"status": "finished", "metrics": metrics}
    assert diverged(summary)
    told = summary | {"name": "a", "config": {"optimizer": {"learning_rate": 1.0}}}
    assert "diverged: the evaluation loss is not finite" in what_now(told, "a")


def test_a_metric_that_is_not_finite_is_no_divergence():
    """As similarities of pictures too small for a window."""
    assert not diverged({"status": "finished", "metrics": {"loss": 0.1, "ssim_y": None}})
