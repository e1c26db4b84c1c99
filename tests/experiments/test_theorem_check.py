"""The theorems' constants, run: batches and averages as prescribed, bounds kept."""

import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax import problems, theory
from experiments import theorem_check as checks
from experiments.high_probability import replica_keys, simulate


def command(tmp_path, **changed):
    return checks.TheoremCommand(tmp_path, replicas=50, **changed)


@pytest.mark.parametrize("theorem", ["clipped_sgd", "clipped_sstm"])
def test_bounds_that_say_something_are_kept(tmp_path, theorem):
    # 400 steps of f(x) = 1/2 |x|² with σ = 1e-3: a bound above 1/2 at β = 0.1 says nothing yet,
    # what is asserted is the run's own arithmetic and that no quantile exceeds the bound.
    row = checks.check(theorem, 400, 0.1, command(tmp_path, noise_scale=1e-3))
    assert row["holds"]
    assert row["share_above"] == 0
    assert row["low"] <= row["quantile"] <= row["high"] <= row["bound"]
    assert row["quantile"] < row["start"] == 0.5
    constants = checks.THEOREMS[theorem](
        smoothness=1.0, distance=1.0, noise_scale=1e-3, failure_probability=0.1, iterations=400
    )
    assert row["bound"] == constants.bound
    assert row["oracle_calls"] == constants.oracle_calls


def test_the_quantile_is_the_one_that_may_fail_with_probability_beta(tmp_path, monkeypatch):
    # Gaps 1, 2, ..., 100 with a bound below 1/2: all lie above it, 10 of them above 90.
    gaps = np.stack([np.zeros(100), np.arange(1, 101)], axis=1)
    monkeypatch.setattr(checks, "simulate", lambda *_: {"clipped_sgd": jnp.asarray(gaps)})
    row = checks.check("clipped_sgd", 10_000, 0.1, command(tmp_path))
    assert (row["quantile"], row["share_above"], row["holds"]) == (90.0, 1.0, False)
    assert row["low"] < 90 < row["high"]


def test_growing_batches_and_the_answer_are_the_theorems():
    # Twelve steps of clipped-SSTM written out, with batches m_k that grow from 1.
    constants = theory.clipped_sstm_constants(
        smoothness=1.0, distance=1.0, noise_scale=300.0, failure_probability=0.1, iterations=12
    )
    sizes = [int(constants.batch_sizes(k)) for k in range(12)]
    assert len(set(sizes)) > 5
    calls = constants.oracle_calls
    assert sum(sizes) == calls < 5_000
    oracle = problems.AdditiveNoise(problems.Quadratic((1.0, 1.0)), problems.Normal(0.1))
    method = checks.make_method("clipped_sstm", constants)
    with jax.enable_x64(True):
        keys = replica_keys(0, 1)
        found = simulate(oracle, {"m": method}, jnp.ones(2, jnp.float64), [0, calls], keys)["m"][
            0, -1
        ]
        draw_key, _ = jax.random.split(keys[0])
        steps = jax.vmap(lambda k: oracle.sample(jax.random.fold_in(draw_key, k), jnp.float64))
        draws = np.asarray(steps(jnp.arange(calls)))
    y, z, total, used = np.ones(2), np.ones(2), 0.0, 0
    for k, size in enumerate(sizes):
        alpha = (k + 2) * constants.learning_rate / 2
        x = (total * y + alpha * z) / (total + alpha)
        g = x + draws[used : used + size].mean(axis=0)
        used += size
        z = z - alpha * min(1.0, constants.clip_level / alpha / np.linalg.norm(g)) * g
        y = (total * y + alpha * z) / (total + alpha)
        total += alpha
    np.testing.assert_allclose(found, 0.5 * np.sum(y**2), rtol=1e-9)


def test_noises_meet_the_assumptions(tmp_path):
    given = command(tmp_path)
    finite = checks.make_noise("clipped_sgd", given)
    assert 10 * finite.variance == pytest.approx(0.01**2)  # ten coordinates
    heavy = checks.make_noise("infinite_variance_clipped_sgd", given)
    # E|t| = 2√3/π for three degrees of freedom.
    assert checks.student_moment(3.0, 1.0) == pytest.approx(2 * math.sqrt(3) / math.pi)
    total = 10 * heavy.scale**1.4 * checks.student_moment(1.5, 1.4)
    assert total == pytest.approx(1e-4**1.4)


def test_the_command_writes_its_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checks, "start_jax", lambda command: None)  # JAX has started here
    line = ["--workdir", str(tmp_path), "--theorems", "clipped_sgd", "--iterations", "100"]
    line += ["--failure-probabilities", "0.1", "--replicas", "20"]
    assert checks.main(line) == 0
    assert "says nothing" in capsys.readouterr().out  # 100 steps are too few for this bound
    (row,) = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert (row["iterations"], row["holds"]) == (100, True)
    assert (tmp_path / "report.html").exists()


def test_a_broken_bound_is_told_by_the_exit_status(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "start_jax", lambda command: None)

    def careless(**arguments):
        constants = theory.clipped_sgd_constants(**arguments)
        return type(constants)(**{**vars(constants), "bound": 1e-9})

    monkeypatch.setitem(checks.THEOREMS, "clipped_sgd", careless)
    line = ["--workdir", str(tmp_path), "--theorems", "clipped_sgd", "--iterations", "50"]
    assert checks.main([*line, "--failure-probabilities", "0.1", "--replicas", "10"]) == 1


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"theorems": ("cliped_sgd",)}, "did you mean 'clipped_sgd'"),
        ({"theorems": ()}, "theorems is empty"),
        ({"iterations": ()}, "iterations is empty"),
        ({"failure_probabilities": ()}, "failure_probabilities is empty"),
        ({"failure_probabilities": (0.1, 1.0)}, "failure_probabilities has 1.0"),
        ({"failure_probabilities": (math.nan,)}, "failure_probabilities has nan"),
        ({"iterations": (10**12,)}, "iterations is 1000000000000; it must be at most"),
        ({"iterations": (100, 0)}, "iterations is 0"),
        ({"moment": 1.5}, "moment is 1.5"),
        ({"moment": math.nan}, "moment is nan"),
        ({"replicas": 0}, "replicas is 0"),
        ({"dimension": 0}, "dimension is 0"),
        ({"dimension": True}, "dimension is True"),
        ({"distance": math.nan}, "distance is nan"),
        ({"smoothness": math.inf}, "smoothness is inf"),
        ({"noise_scale": -1.0}, "noise_scale is -1.0"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
    ],
)
def test_bad_input_is_named(tmp_path, changed, words):
    with pytest.raises(ValueError, match=words):
        checks.TheoremCommand(tmp_path, **changed)


@pytest.mark.parametrize("theorem", checks.THEOREMS)
@pytest.mark.parametrize(
    "changed",
    [
        {"smoothness": 1e308},
        {"distance": 1e308},
        {"distance": 5e-324},
        {"noise_scale": 1e308, "infinite_noise_scale": 1e308},
    ],
)
def test_numbers_beyond_floating_point_are_named(tmp_path, theorem, changed):
    given = command(tmp_path, **changed)
    (name, value), *_ = changed.items()
    least = "0" if name == "noise_scale" else "1e-60"  # only the noise may be zero
    said = f"{name} must lie in [{least}, 1e+60], got {value!r}"
    with pytest.raises(ValueError, match=re.escape(said)):
        checks.make_constants(theorem, 1000, 0.1, given)


def test_sizes_are_told_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "start_jax", lambda command: None)
    monkeypatch.setattr(checks, "simulate", pytest.fail)
    line = ["--workdir", str(tmp_path), "--iterations", "1000"]
    with pytest.raises(ValueError, match=r"batches of more than 2,147,483,520 gradients"):
        checks.main([*line, "--noise-scale", "9223372036854775808"])
    with pytest.raises(ValueError, match=r"2,147,483,647 coordinates: at least .* GiB"):
        checks.main([*line, "--dimension", "2147483647"])


def test_a_check_of_years_is_refused_and_a_long_one_says_how_long(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(checks.pace, "estimate", lambda run, steps: 3600.0)
    checks.check("clipped_sgd", 20, 0.1, command(tmp_path), said.append)
    assert said == ["clipped_sgd: 20 gradients in each of 50 replicas, about 60 min"]
    monkeypatch.setattr(checks.pace, "estimate", lambda run, steps: 1e10)
    with pytest.raises(
        ValueError, match="20 gradients in each of 50 replicas would take 320 years"
    ):
        checks.check("clipped_sgd", 20, 0.1, command(tmp_path))
