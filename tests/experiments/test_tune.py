"""experiments.tune: one budget for all, resumable to the byte, chosen.py runs in compare."""

import csv
import dataclasses
import io
import json
import shutil
import signal
import time

import pytest
from rich.console import Console

from experiments import compare
from experiments.config import (
    MLP,
    SGD,
    Adam,
    Duration,
    Grid,
    LogUniform,
    Run,
    Search,
    chosen_runs,
    with_chosen,
)
from experiments.report import files as report_files
from experiments.report import response
from experiments.report.write import write_report
from experiments.setup import chosen as files
from experiments.setup import config_files, reading
from experiments.setup.runs import run_one
from experiments.setup.search import with_values
from experiments.setup.workbench import Workbench
from experiments.tune.__main__ import main
from experiments.tune.run import run_search
from experiments.tune.tables import remarks, table
from tests.experiments import cli

RUN = Run(
    task="classification",
    dataset="digits",
    model=MLP(hidden=(8,)),
    optimizer=SGD(0.1),
    duration=Duration(steps=12),
    batch_size=64,
    evaluate_every=Duration(steps=5),  # rungs end between two evaluations
    checkpoint_every=Duration(steps=3),
    calibration_batches=1,
)
RUNS = {"digits/sgd": RUN, "digits/adam": dataclasses.replace(RUN, optimizer=Adam(0.1))}
# 4 trials up to step 6, the best 2 of them to step 12. The highest rates of SGD overflow.
SEARCH = Search(
    RUNS,
    {
        "*/sgd": {"optimizer.learning_rate": LogUniform(1e-3, 1e30)},
        "*/adam": {"optimizer.learning_rate": LogUniform(1e-4, 1.0)},
    },
    trials=4,
    rungs=2,
    reduction=2,
)


def quiet(_):
    pass


@pytest.fixture(scope="module")
def bench():
    return Workbench()


@pytest.fixture(scope="module")
def done(tmp_path_factory, bench):
    """The finished search: (workdir, what it found, lines said)."""
    workdir, lines = tmp_path_factory.mktemp("search"), []
    return workdir, run_search(SEARCH, workdir, bench, say=lines.append), lines


def summaries(workdir):
    return {
        str(path.parent.relative_to(workdir / "trials")): json.loads(path.read_text())
        for path in workdir.glob("trials/*/*/*/summary.json")
    }


def test_budgets_are_equal_and_no_trial_reads_test(done, bench):
    workdir, found, _ = done
    assert set(found["methods"]) == set(RUNS)
    for method in found["methods"].values():
        assert method["rungs"] == [{"trials": 4, "steps": 6}, {"trials": 2, "steps": 12}]
        ended = [trial["status"] for trial in method["trials"]]
        assert len(ended) == 4
        assert ended.count("finished") <= 2
    assert len(summaries(workdir)) == 8
    for summary in summaries(workdir).values():
        config = summary["config"]
        assert (config["train_split"], config["evaluation_split"]) == ("train[:90%]", "train[90%:]")
        assert (config["evaluation_dataset"], config["seed"]) == (None, 100)
    # Of all that was loaded nothing is of the test split.
    assert {split for key in bench._sources for split in key[1::2]} == {
        *("train[:90%]", "train[90%:]")
    }


def test_the_table_holds_what_the_trials_wrote(done):
    workdir, found, _ = done
    written = summaries(workdir)
    statuses = set()
    for key, method in found["methods"].items():
        for trial in method["trials"]:
            summary = written[f"{key}.{trial['trial']:03d}/seed100"]
            statuses.add(trial["status"])
            optimizer = summary["config"]["optimizer"]
            assert optimizer["learning_rate"] == trial["values"]["optimizer.learning_rate"]
            if trial["status"] == "diverged":
                assert (summary["status"], trial["score"]) == ("diverged", None)
            else:
                assert summary["steps"] == trial["steps"]
                assert summary["metrics"]["top1"] == trial["score"]
        ends = [t for t in method["trials"] if t["status"] == "finished"]
        best = method["trials"][method["chosen"]]
        assert best["score"] == max(trial["score"] for trial in ends)
    assert statuses == {"finished", "stopped", "diverged"}


def test_a_trial_that_went_on_equals_one_that_never_stopped(done, bench, tmp_path):
    workdir, found, _ = done
    number = found["methods"]["digits/adam"]["chosen"]
    run = dataclasses.replace(SEARCH.trial_runs("digits/adam")[number], seed=100)
    alone = run_one(run, tmp_path / "alone", bench)
    gone_on = summaries(workdir)[f"digits/adam.{number:03d}/seed100"]
    assert gone_on["resumed_from"] == 6
    assert alone["params_digest"] == gone_on["params_digest"]


def test_stopped_anywhere_it_goes_on_to_the_same_bytes(done, bench, tmp_path):
    workdir, found, _ = done
    stops = 0
    for attempt in range(50):
        left = iter(range(7 + attempt))  # steps until it is stopped; other moments each time
        again = run_search(
            SEARCH,
            tmp_path,
            bench,
            should_stop=lambda left=left: next(left, None) is None,
            say=quiet,
        )
        if again is not None:
            break
        assert not (tmp_path / "chosen.json").exists()
        stops += 1
    assert stops > 3
    assert again == found
    for name in ("chosen.json", "chosen.py"):
        assert (tmp_path / name).read_bytes() == (workdir / name).read_bytes()


@pytest.mark.faults  # three processes; the test above stops it anywhere, in this one
def test_killed_it_goes_on_to_the_same_bytes(done, tmp_path, tmp_path_factory):
    config = tmp_path / "search.py"
    config.write_text(
        "from tests.experiments.test_tune import SEARCH as config\n"  # what is run in this process
    )
    env = cli.environment(tmp_path_factory.mktemp("cache"), PYTHONPATH=str(cli.ROOT))
    line = ("tune", "--config", config, "--workdir", tmp_path / "killed", "--only", "adam")
    process = cli.start(*line, env=env)
    deadline = time.monotonic() + 200
    while not list((tmp_path / "killed").glob("trials/*/adam.001/*/config.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cli.run(*line, env=env)
    whole = tmp_path / "whole"
    cli.run("tune", "--config", config, "--workdir", whole, "--only", "adam", env=env)
    written = [(folder / "chosen.json").read_bytes() for folder in (tmp_path / "killed", whole)]
    assert written[0] == written[1]
    # One device here and eight in this process add up in another order, but find the same.
    found = files.read_chosen(whole / "chosen.json")
    assert found["not_searched"] == ["digits/sgd"]
    trials, others = found["methods"]["digits/adam"]["trials"], done[1]["methods"]["digits/adam"]
    assert [t["values"] for t in trials] == [t["values"] for t in others["trials"]]


def test_called_again_it_trains_nothing_and_more_trials_keep_the_first(done, bench, tmp_path):
    workdir, found, _ = done
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    lines = []
    assert run_search(SEARCH, copy, bench, say=lines.append) == found
    assert len(lines) == 2  # one for each run, none for a trial
    lines.clear()
    more = dataclasses.replace(SEARCH, trials=5)
    wider = run_search(more, copy, bench, only=["adam"], say=lines.append)
    trained = [line for line in lines if "seed100" in line]
    # One more trial in rung 1; 5 // 2 = 2 go on, as before.
    assert sum("rung 1" in line for line in trained) == 1
    adam = wider["methods"]["digits/adam"]["trials"]
    assert len(adam) == 5
    assert [t["values"] for t in adam[:4]] == [
        t["values"] for t in found["methods"]["digits/adam"]["trials"]
    ]
    # SGD lacks its fifth trial and may not be trained: it is said to be missing.
    assert (list(wider["methods"]), wider["not_searched"]) == (["digits/adam"], ["digits/sgd"])


def test_chosen_py_is_the_grid_that_is_meant_and_compare_runs_it(done, tmp_path):
    workdir, found, _ = done
    grid = config_files.load(workdir / "chosen.py")
    expected = {
        key: with_values(run, files.chosen_values(found["methods"][key]))
        for key, run in RUNS.items()
    }
    assert grid == Grid(expected, seeds=(0, 1, 2))
    assert grid.runs["digits/adam"].train_split == "train"
    line = ["--config", str(workdir / "chosen.py"), "--workdir", str(tmp_path / "final")]
    assert compare.main([*line, "--only", "adam", "--seeds", "1", "--distributed", "off"]) == 0
    summary = json.loads((tmp_path / "final/digits/adam/seed1/summary.json").read_text())
    assert (summary["num_train"], summary["config"]["evaluation_split"]) == (1437, None)


def test_a_config_takes_values_from_a_file(done, tmp_path):
    workdir, found, _ = done
    longer = dataclasses.replace(RUN, duration=Duration(epochs=3))
    (made,) = with_chosen({"digits/sgd": longer}, workdir / "chosen.json").values()
    rate = files.chosen_values(found["methods"]["digits/sgd"])["optimizer.learning_rate"]
    assert made == dataclasses.replace(longer, optimizer=SGD(rate))
    with pytest.raises(ValueError, match=r"'digits/sdg'.*did you mean 'digits/sgd'"):
        with_chosen({"digits/sdg": RUN}, workdir / "chosen.json")
    with pytest.raises(FileNotFoundError, match=r"missing; run python -m experiments.tune"):
        chosen_runs(tmp_path / "absent.json")


def test_damaged_files_are_named(done, bench, tmp_path):
    workdir, _, _ = done
    whole = json.loads((workdir / "chosen.json").read_text())
    path = tmp_path / "chosen.json"

    def spoil(**changes):
        sgd = whole["methods"]["digits/sgd"] | changes
        path.write_text(json.dumps(whole | {"methods": {"digits/sgd": sgd}}))

    for changes, said in (
        ({"trials": whole["methods"]["digits/sgd"]["trials"][1:]}, "lacks trials of 'digits/sgd'"),
        ({"chosen": 9}, "lacks the trial that 'digits/sgd' chose"),
        ({"chosen": "best"}, r"chosen.*'best'"),
        ({"run": {"type": "Run"}}, "the run of 'digits/sgd', lacks"),
    ):
        spoil(**changes)
        with pytest.raises(reading.DamagedFile, match=said):
            chosen_runs(path)
    path.write_text("{")
    with pytest.raises(reading.DamagedFile, match="delete it"):
        chosen_runs(path)
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    (copy / "trials/digits/sgd.000/seed100/rungs.json").write_text('{"at": {"6": {}}}')
    with pytest.raises(reading.DamagedFile, match=r"rungs.json lacks"):
        run_search(SEARCH, copy, bench, say=quiet)


def test_where_all_trials_diverge_nothing_is_chosen(tmp_path, capsys):
    text = (
        "import dataclasses\nfrom experiments.config import LogUniform\n"
        "from tests.experiments.test_tune import SEARCH\n"
        "space = {'*/sgd': {'optimizer.learning_rate': LogUniform(1e33, 1e36)},\n"
        "         '*/adam': {'optimizer.learning_rate': LogUniform(1e-3, 1e-2)}}\n"
        "config = dataclasses.replace(SEARCH, trials=2, rungs=1, space=space)\n"
    )
    (tmp_path / "search.py").write_text(text)
    line = ["--config", str(tmp_path / "search.py"), "--workdir", str(tmp_path / "w")]
    assert main([*line, "--distributed", "off"]) == 1
    assert "digits/sgd: nothing chosen" in capsys.readouterr().err
    path = tmp_path / "w/chosen.json"
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(table(files.read_chosen(path)))
    assert "2 of 2 diverged" in console.export_text()
    assert files.read_chosen(path)["methods"]["digits/sgd"]["chosen"] is None
    with pytest.raises(ValueError, match="chose nothing for 'digits/sgd'"):
        chosen_runs(path)
    grid = config_files.load(tmp_path / "w/chosen.py")
    assert list(grid.runs) == ["digits/adam"]
    assert "without=('digits/sgd',)" in (tmp_path / "w/chosen.py").read_text()
    page = write_report(tmp_path / "w").with_suffix(".md").read_text()
    assert "nothing" in page


def test_where_nothing_at_all_is_chosen_there_is_no_config(bench, tmp_path):
    space = {"*": {"optimizer.learning_rate": LogUniform(1e33, 1e36)}}
    search = Search({"digits/sgd": RUN}, space, trials=1)
    (tmp_path / "chosen.py").write_text("config = 'of an earlier search'\n")
    found = run_search(search, tmp_path, bench, say=quiet)
    assert found["methods"]["digits/sgd"]["chosen"] is None
    assert not (tmp_path / "chosen.py").exists()
    assert "lower learning rates" in remarks(found)[0]
    assert table(found).row_count == 1


def test_what_cannot_be_searched_is_said_before_anything_is_trained(done, bench, tmp_path):
    def refused(said, **changes):
        with pytest.raises(ValueError, match=said):
            run_search(dataclasses.replace(SEARCH, **changes), tmp_path / "new", bench, say=quiet)
        assert not (tmp_path / "new").exists()

    # 1437 training examples: 0.0003 of them are 0.43, none.
    refused("holdout is 0.0003, but 'train' of 'digits' has 1437", holdout=0.0003)
    test = {key: dataclasses.replace(run, train_split="test") for key, run in RUNS.items()}
    refused("the very split that its scores are reported on", runs=test)
    absent = {key: dataclasses.replace(run, train_split="trian") for key, run in RUNS.items()}
    refused("did you mean 'train'", runs=absent)
    workdir, _, _ = done
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    with pytest.raises(ValueError, match="which no evaluation measures; did you mean 'top1'"):
        run_search(dataclasses.replace(SEARCH, metric="top_1"), copy, bench, say=quiet)
    with pytest.raises(ValueError, match="in a search of other rungs"):
        run_search(dataclasses.replace(SEARCH, reduction=3), copy, bench, say=quiet)
    with pytest.raises(ValueError, match=r"optimizer.learning_rate was"):
        run_search(dataclasses.replace(SEARCH, sequence_seed=1), copy, bench, say=quiet)
    with pytest.raises(ValueError, match=r"--only 'adm'.*did you mean 'adam'"):
        run_search(SEARCH, copy, bench, only=["adm"], say=quiet)


def test_the_loss_is_minimised_and_seeds_are_averaged(bench, tmp_path):
    search = Search(
        {"digits/adam": RUNS["digits/adam"]},
        {"*": {"optimizer.learning_rate": LogUniform(1e-4, 1e-1)}},
        trials=3,
        seeds=(5, 6),
        metric="loss",
    )
    found = run_search(search, tmp_path, bench, say=quiet)["methods"]["digits/adam"]
    written = summaries(tmp_path)
    for trial in found["trials"]:
        losses = [
            written[f"digits/adam.{trial['trial']:03d}/seed{seed}"]["metrics"]["loss"]
            for seed in (5, 6)
        ]
        assert trial["score"] == trial["loss"] == pytest.approx(sum(losses) / 2, rel=1e-12)
    scores = [trial["score"] for trial in found["trials"]]
    assert found["chosen"] == scores.index(min(scores))


def test_other_commands_say_where_a_search_belongs(tmp_path):
    config = tmp_path / "search.py"
    config.write_text("from tests.experiments.test_tune import SEARCH as config\n")
    with pytest.raises(ValueError, match=r"is a search; run it with python -m experiments.tune"):
        compare.main(["--config", str(config), "--workdir", str(tmp_path / "w")])
    with pytest.raises(ValueError, match=r"is one run; run it with python -m experiments.train"):
        main(["--config", "configs/smoke.py", "--workdir", str(tmp_path / "w")])


def test_the_page_shows_the_response(done, tmp_path):
    workdir, found, _ = done
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    text = write_report(copy).with_suffix(".md").read_text()
    assert (copy / "figures" / "response_digits.png").stat().st_size > 10_000
    for method in found["methods"].values():
        value = files.write(files.chosen_values(method))[0]
        assert value in text
    assert "Next lower and higher" in text
    assert "What was run" not in text  # that section is about runs of a grid


def test_the_csv_of_trials_has_numbers_in_full(done, tmp_path):
    workdir, found, _ = done
    (section,) = response.sections(workdir)
    (table,) = [p for p in section.parts if getattr(p, "title", "") == "digits: trials"]
    rows = list(csv.DictReader(report_files.to_csv(table).splitlines()))
    trials = {
        f"{key.partition('/')[2]}.{trial['trial']:03d}": trial
        for key, method in found["methods"].items()
        for trial in method["trials"]
    }
    assert {row["trial"] for row in rows} == set(trials)
    assert {row["end"] for row in rows} == set(response.ENDS.values())
    for row in rows:
        trial = trials[row["trial"]]
        assert float(row["learning_rate"]) == trial["values"]["optimizer.learning_rate"]
        assert int(row["steps"]) == trial["steps"]
        assert row["end"] == response.ENDS[trial["status"]]
        if trial["score"] is not None:
            assert float(row["top-1 accuracy (%)"]) == 100 * trial["score"]
    text = report_files.to_latex(table)
    assert text.count("\\textbf") == 2  # the chosen trial of each method
