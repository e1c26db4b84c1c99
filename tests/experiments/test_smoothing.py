import json

import numpy as np
import pytest

from experiments import smoothing as experiment
from experiments.smoothing import Config

SMALL = Config(functions=("rastrigin",), stages=4, points=64, resolution=21)


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("smoothing")
    return experiment.run(SMALL, workdir), workdir


def test_files_and_figures_are_written(small_run):
    summary, workdir = small_run
    written = json.loads((workdir / "summary.json").read_text())
    assert written["results"] == summary["results"]
    for name in ("smoothing", "laws"):
        assert (workdir / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    curves = np.load(workdir / "curves.npz")
    x = curves["rastrigin/x"]
    np.testing.assert_allclose(curves["rastrigin/f"], x**2 + 10 - 10 * np.cos(2 * np.pi * x))
    # At δ = 1/2 the uniform noise spans a whole wave: a parabola is left, x² + δ²/3 + 10.
    assert curves["rastrigin/shown_levels"][0] == 0.5
    np.testing.assert_allclose(curves["rastrigin/smoothed"][0], x**2 + 0.25 / 3 + 10, rtol=1e-9)


def test_smoothing_leads_every_start_to_the_minimiser_and_plain_descent_none(small_run):
    summary, workdir = small_run
    result = summary["results"]["rastrigin"]
    assert (result["solved"], result["solved_plain"], result["starts"]) == (3, 0, 3)
    paths = np.load(workdir / "curves.npz")["rastrigin/paths"]
    assert paths.shape == (3, 5)
    assert paths[:, 0].tolist() == list(experiment.SETTINGS["rastrigin"].starts)
    # Levels 1, .75, .5, .25: at the first and the third the waves vanish.
    np.testing.assert_allclose(paths[:, [1, 3, 4]], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"functions": ("dropwave",)}, "did you mean 'drop_wave'"), ({"stages": 1}, "stages is 1")],
)
def test_bad_input_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        Config(**change)


def test_table_says_nowhere_where_no_level_holds(small_run):
    assert experiment._level(experiment._below(np.array([0.2, 0.1]), np.array([True, False]))) == (
        "nowhere"
    )
    assert experiment.table(small_run[0]).row_count == 8
