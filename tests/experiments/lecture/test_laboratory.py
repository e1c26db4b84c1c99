"""The command: what it lists, keeps, goes on from and refuses."""

import dataclasses
import json

import numpy as np
import pytest

from experiments.lecture import __main__ as command
from experiments.lecture import catalogue, laboratory
from experiments.lecture.experiment import Claim, Experiment
from experiments.report.page import Table, Text
from tests.experiments import cli


@dataclasses.dataclass(frozen=True)
class Config:
    size: int = 3


@pytest.fixture
def counted():
    """An experiment that counts how often it is computed."""
    calls = []

    def compute(config, data_dir):
        calls.append(config.size)
        return {"numbers": np.arange(config.size)}

    def judge(config, found):
        total = int(found["numbers"].sum())
        return [Claim("The sum is 3.", f"{total}", total == 3)]

    experiment = Experiment(
        name="counted",
        title="Counting",
        line="Sums of numbers.",
        seconds=0,
        config=Config(),
        quick=Config(2),
        compute=compute,
        judge=judge,
        draw=lambda config, found: (Text(f"drawn {config.size}"),),
    )
    return experiment, calls


def test_what_was_computed_is_kept(tmp_path, counted):
    experiment, calls = counted
    first = laboratory.run(experiment, Config(), tmp_path, None)
    again = laboratory.run(experiment, Config(), tmp_path, None)
    assert calls == [3]
    np.testing.assert_array_equal(again.arrays["numbers"], [0, 1, 2])
    assert again.seconds == first.seconds
    summary = json.loads((tmp_path / "counted" / "summary.json").read_text())
    assert summary["claims"] == [{"says": "The sum is 3.", "measured": "3", "confirmed": True}]
    assert summary["config"]["size"] == 3


def test_a_damaged_result_is_computed_again(tmp_path, counted, capsys):
    experiment, calls = counted
    laboratory.run(experiment, Config(), tmp_path, None)
    file = tmp_path / "counted" / "result.arrays"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    done = laboratory.run(experiment, Config(), tmp_path, None)
    assert calls == [3, 3]
    np.testing.assert_array_equal(done.arrays["numbers"], [0, 1, 2])
    assert "is damaged, or of another experiment: it is computed again" in capsys.readouterr().err


def test_the_result_of_another_config_is_not_overwritten(tmp_path, counted):
    experiment, calls = counted
    laboratory.run(experiment, Config(), tmp_path, None)
    with pytest.raises(ValueError, match=r"holds a result of another config: size was 3, is 2"):
        laboratory.run(experiment, Config(2), tmp_path, None)
    assert calls == [3]


def test_the_page_tells_what_holds_and_what_size_it_is(tmp_path, counted):
    experiment, _ = counted
    laboratory.run(experiment, Config(2), tmp_path, None)
    (done,) = laboratory.find_done([experiment], tmp_path)
    page = laboratory.page([done])
    about, claims, drawn = page.sections[0].parts
    assert isinstance(about, Text)
    assert isinstance(claims, Table)
    assert "0 of 1 claims hold in 1 experiment" in page.lead
    assert "Not the full size: size is 2 instead of 3." in about.text
    assert [cell.text for cell in claims.rows[0]] == ["The sum is 3.", "1", "no"]
    assert drawn == Text("drawn 2")


def test_an_experiment_that_was_not_computed_is_not_on_the_page(tmp_path, counted):
    experiment, _ = counted
    assert laboratory.find_done([experiment], tmp_path) == []


def test_every_experiment_can_be_told_apart():
    for name, experiment in catalogue.EXPERIMENTS.items():
        assert name == experiment.name
        assert type(experiment.quick) is type(experiment.config)
        assert experiment.quick != experiment.config
        assert experiment.line.endswith(".")


def test_without_a_name_it_lists_what_there_is(capsys):
    assert command.main([]) == 0
    said = capsys.readouterr().out
    for name, experiment in catalogue.EXPERIMENTS.items():
        assert f"{name} " in said
        assert experiment.line in said


def test_an_unknown_name_is_told_with_the_nearest():
    with pytest.raises(ValueError, match=r"no experiment 'sgd_on_line'; did you mean 'sgd_on_a_li"):
        command.main(["sgd_on_line", "--workdir", "w"])


def test_the_command_writes_the_page(tmp_path):
    """From the command line, with a flag of its own beside --quick."""
    env = cli.environment(tmp_path / "cache")
    workdir = tmp_path / "lecture"
    arguments = ("sgd_on_a_line", "--quick", "--seeds", 50, "--workdir", workdir)
    out, err = cli.run("lecture", *arguments, env=env)
    assert "sgd_on_a_line: " in err
    assert "seeds is 50 instead of 1000" in out
    for name in ("sgd_on_a_line_paths", "sgd_on_a_line_balls"):
        assert (workdir / "figures" / f"{name}.png").stat().st_size > 10_000
    assert (workdir / "report.html").exists()
