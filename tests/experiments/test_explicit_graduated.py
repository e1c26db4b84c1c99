import json

import numpy as np
import pytest

from experiments import explicit_graduated as experiment
from experiments.explicit_graduated import Config

SMALL = Config(functions=("schwefel",), dimension=2, stages=3, seeds=2, num_samples=4)


def test_rastrigin_in_fifty_dimensions_is_solved_by_smoothing_alone():
    config = Config(seeds=2)
    nice, plain = (experiment.final_gaps("rastrigin", m, config) for m in ("nice", "descent"))
    assert (nice < 0.01).all()
    assert (plain > 100).all()


def test_files_hold_what_was_returned_and_failures_are_named(tmp_path):
    summary = experiment.run(SMALL, tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert summary["unsolved"] == ["schwefel"]
    assert summary["reference"] == {}  # other numbers of dimensions, stages and samples
    for name in SMALL.functions:
        for method in experiment.METHODS:
            result = summary["results"][name][method]
            assert len(result["gaps"]) == 2
            assert result["mean"] == pytest.approx(np.mean(result["gaps"]))
            assert result["solved"] == sum(gap < 0.01 for gap in result["gaps"])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"stages": 1}, "stages is 1; expected"),  # the geometric plan's only level is the first
        ({"num_samples": 5}, "num_samples is 5; expected .* even"),
    ],
)
def test_what_a_later_method_refuses_is_told_at_once(changed, words):
    with pytest.raises(ValueError, match=words):
        Config(**changed)


def test_divergence_is_counted_and_shown(monkeypatch):
    gaps = {"nice": np.array([1.5, np.inf]), "descent": np.array([np.inf, np.inf])}
    found = {name: experiment._summarise(gap, SMALL) for name, gap in gaps.items()}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [found[name]["diverged"] for name in gaps] == [1, 2]
    shown = experiment._cell(found["nice"], 2, None)
    assert shown.splitlines() == ["1.5", "[dim]1.5 - 1.5[/]", "1 of 2 diverged", "0 of 2 solved"]
    assert experiment._cell(found["descent"], 2, None).startswith("2 of 2 diverged")


def test_methods_share_starts_and_plain_descent_has_the_same_steps():
    # Schwefel's waves are wide: one small step leaves every method near its start.
    config = Config(functions=("schwefel",), dimension=2, stages=2, steps_per_stage=1, seeds=3)
    nice, plain = (experiment.final_gaps("schwefel", m, config) for m in ("nice", "descent"))
    assert np.ptp(nice) > 100
    np.testing.assert_allclose(nice, plain, rtol=0.05)
    for method in ("nice", "nice_antithetic", "descent"):
        levels = experiment.levels(Config(), method)
        assert (len(levels), levels[0], levels[-1]) == (51, 1.0, 0.01)
    assert len(experiment.levels(Config(), "geometric")) == 50


def test_reference_is_given_for_the_default_setting_whatever_its_seeds():
    assert experiment._reference(Config(seeds=3, functions=("ackley",))) == {
        "ackley": {"nice": 0.0041, "geometric": 14.0, "descent": 15.6}
    }
    assert experiment._reference(Config(functions=("rosenbrock",)))["rosenbrock"]["nice"] == "inf"
    assert experiment._reference(Config(dimension=49)) == {}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"functions": ("rastrigen",)}, "did you mean 'rastrigin'"),
        ({"functions": ()}, r"functions is \(\); expected .* \(at least one\)"),
        ({"seeds": 0}, "seeds is 0"),
    ],
)
def test_bad_input_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        Config(**change)


def test_command_line(tmp_path, capsys):
    arguments = ["--functions", "sphere", "--dimension", "2", "--stages", "2", "--seeds", "2"]
    assert experiment.main(["--workdir", str(tmp_path), *arguments, "--distributed", "off"]) == 0
    printed = capsys.readouterr().out
    assert "sphere" in printed
    assert "Solved by no method" in printed
