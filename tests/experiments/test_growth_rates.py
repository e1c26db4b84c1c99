"""Table 1 and Figure 1 of the generalised logistic loss: every root, every printed number."""

import csv
import json

import numpy as np
import pytest
import scipy.special

from experiments import growth_rates as experiment
from experiments.growth_rates import Config
from experiments.report import growth_rates as report


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("growth_rates")
    return experiment.run(Config(resolution=101), workdir), workdir


def rows_of(summary):
    return {(row["c"], row["r"], row["target"]): row for row in summary["rows"]}


def written_out(t, c, r):
    """(19) by scipy."""
    return (np.log(t) + scipy.special.lambertw(c / t).real) / r


def test_table_1_is_reproduced(whole_run):
    """Nine of ten numbers within a unit of their last digit; dashes where nothing crosses."""
    summary, _ = whole_run
    rows = rows_of(summary)
    assert (summary["printed"], summary["printed_roots"]) == (10, 9)
    paper = {key: row for key, row in rows.items() if row["published"]}
    assert len(paper) == 18
    wrong = {key for key, row in paper.items() if row["printed"] and row["matched"] is None}
    assert wrong == {(10, 0.5, "√t")}
    for key, row in paper.items():
        if row["printed"] is None:
            assert row["roots"] == [], key
        elif key not in wrong:
            assert abs(row["matched"] - row["printed"]) < 1e-3, key
    # To half a unit of the third decimal eight: 0.841 should be 0.840.
    assert "9 are roots, 8 of these to three decimals. No root: 4.714." in report.judgement(
        summary["rows"]
    )


def test_the_number_that_is_no_root_is_one_with_another_exponent(whole_run):
    """At 4.714 g = 4.861 and √t = 2.171. There are two roots: 4.714e-05 and 81.299."""
    row = rows_of(whole_run[0])[10, 0.5, "√t"]
    np.testing.assert_allclose(row["gap"], written_out(4.714, 10, 0.5) - 4.714**0.5, rtol=1e-12)
    np.testing.assert_allclose(row["roots"], [4.71444e-05, 81.299421], rtol=1e-5)
    assert report.remark(row).startswith("no root: g_t − √t = 2.690 there. 4.714e-05 is one")


def test_each_root_is_one_by_another_way(whole_run):
    """g_t by scipy changes its sign against the target within 1e-9 of each root, and f inverts."""
    found = 0
    for (c, r, target), row in rows_of(whole_run[0]).items():
        fn = experiment.TARGETS[target]
        for root in row["roots"]:
            sides = np.array([root * (1 - 1e-9), root * (1 + 1e-9)])
            gap = written_out(sides, c, r) - fn(sides)
            assert gap[0] * gap[1] < 0, (c, r, target, root)
            found += 1
        assert row["residual"] < 1e-11
    # Ten pairs for c > 0; for c < 0 three pairs with √t and one root with ln t, all at r = 1/2.
    assert found == 2 * 10 + 2 * 3 + 1


def test_the_signs_between_the_roots_leave_none_out(whole_run):
    """For c > 0 g lies below √t and t at both ends of the domain; so roots come in pairs."""
    for (c, r, target), row in rows_of(whole_run[0]).items():
        if c > 0 and target != "ln t":
            ends = np.array(experiment.domain(c, r, target))
            assert np.all(written_out(ends, c, r) < experiment.TARGETS[target](ends))
            assert len(row["roots"]) in (0, 2)


@pytest.mark.parametrize(("c", "r"), [(3.0, 2.0), (0.2, 0.5), (-1.0, 0.5), (-0.1, 2.0)])
def test_crossings_with_ln_t(c, r):
    """(r - 1) ln t = c t^{-r}; with s = r ln t: s e^s = rc/(r - 1), s = W(rc/(r - 1))."""
    expected = np.exp(scipy.special.lambertw(r * c / (r - 1)).real / r)
    found = experiment.roots(c, r, "ln t", 2001)
    if expected > 1:
        np.testing.assert_allclose(found, [expected], rtol=1e-9)
    else:  # only before t = 1, where ln t is no rate
        assert found == []


def test_a_slow_rate_is_scanned_far_enough():
    """r = 0.1: g ≈ 10 ln t meets √t at 10 ln t = √t, t = e^{-2 W_{-1}(-1/20)} = 8,093."""
    last = experiment.roots(1.0, 0.1, "√t", 2001)[-1]
    np.testing.assert_allclose(last, np.exp(-2 * scipy.special.lambertw(-0.05, -1).real), rtol=1e-3)


@pytest.mark.parametrize("c", [-100.0, -0.01, 0.01, 100.0])
@pytest.mark.parametrize("r", [0.01, 1.0, 100.0])
def test_the_ends_of_the_ranges(c, r):
    """Signs of the gap at 1e-9 on both sides of each root; no root with ln t for r = 1."""
    for target, fn in experiment.TARGETS.items():
        found = experiment.roots(c, r, target, 2001)
        for root in found:
            sides = root * np.array([1 - 1e-9, 1 + 1e-9])
            gap = written_out(sides, c, r) - fn(sides)
            assert gap[0] * gap[1] < 0, (target, root)
        assert target != "ln t" or r != 1 or not found


def test_files_are_written(whole_run, capsys):
    summary, workdir = whole_run
    written = json.loads((workdir / "summary.json").read_text())
    assert written["rows"] == summary["rows"]
    assert (workdir / "figures" / "growth_rates.png").read_bytes().startswith(b"\x89PNG")
    assert (workdir / "figures" / "growth_rates.pdf").read_bytes().startswith(b"%PDF")
    page = (workdir / "report.md").read_text()
    assert "| c = 3, r = 0.5 | 1/√t | 0.087 | 0.0871, 76.6151 | as printed; 1 more" in page
    assert "printed 0.0007 off" in page
    (table,) = (workdir / "tables").glob("*positive_c.csv")
    assert len(list(csv.DictReader(table.read_text().splitlines()))) == 18


def test_curves_begin_where_the_domain_does():
    config = Config(constants=(-1.0, 1.0), rates=(0.5,), resolution=400)
    for c, r, t, values in experiment.curves(config):
        positive = written_out(t, c, r) > 0
        inside = positive & ((c > 0) | (t >= np.e * -c))
        np.testing.assert_array_equal(np.isfinite(values), inside)
        np.testing.assert_allclose(values[inside], 1 / written_out(t, c, r)[inside], rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"constants": (0.0,)}, r"constants\[0\] is 0.0; expected a number from 0.01 to 100"),
        ({"rates": (-1.0,)}, r"rates\[0\] is -1.0"),
        ({"rates": ()}, r"rates is \(\)"),
        ({"constants": (1.0,) * 13}, "at most 12"),
        ({"scan": 3}, "scan is 3"),
    ],
)
def test_bad_input_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        Config(**change)


def test_one_sign_one_rate_and_no_printed_number(tmp_path, capsys):
    assert (
        experiment.main(
            ["--workdir", str(tmp_path), "--constants", "-2", "--rates", "2", "--scan", "200"]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "Rates with negative c" in said
    assert "positive c" not in said
