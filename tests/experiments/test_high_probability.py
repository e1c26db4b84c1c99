import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clipjax import problems
from experiments import high_probability as experiment
from experiments.high_probability import Config, Method, simulate
from experiments.high_probability import __main__ as command

SMALL = Config(dimension=3, steps=50, replicas=8, records=5, noises=("student_t",))


def oracle(noise, dimension):
    return problems.AdditiveNoise(problems.Quadratic((1.0,) * dimension), noise)


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("high_probability")
    return experiment.run(Config(), workdir), workdir


def final(summary, noise, method):
    return np.array([row["value"] for row in summary["results"][noise][method]["final"]])


def test_heavy_tails_ruin_sgd_and_not_the_clipped_methods(default_run):
    summary, _ = default_run
    sgd, clipped = (final(summary, "student_t", name) for name in ("sgd", "clipped_sgd"))
    assert 150 < sgd[2] / clipped[2] < 900
    reference = experiment.REFERENCE["student_t"]
    for name in ("clipped_sgd", "normalized_sgd"):
        np.testing.assert_allclose(final(summary, "student_t", name), reference[name], rtol=0.1)
    np.testing.assert_allclose(sgd[:2], reference["sgd"][:2], rtol=0.1)
    # With the same longest step, clipped-SSTM's iterates average more noise away.
    assert (final(summary, "student_t", "clipped_sstm") < clipped).all()


def test_the_far_tail_of_sgd_is_shown_with_the_width_it_has(default_run):
    # Two of 2,000 replicas lie above the 99.9 % quantile: its interval spans factors.
    row = default_run[0]["results"]["student_t"]["sgd"]["final"][3]
    assert row["low"] < row["value"] < row["high"]
    assert row["high"] / row["low"] > 3


def test_under_normal_noise_the_three_methods_are_alike(default_run):
    summary, _ = default_run
    rows = [final(summary, "normal", name) for name in ("sgd", "clipped_sgd", "normalized_sgd")]
    assert (np.max(rows, axis=0) < 1.2 * np.min(rows, axis=0)).all()
    # Stationary mean of SGD: γ n / (2 (2 - γ)) = 0.01 * 20 / (2 * 1.99) = 0.0503.
    assert np.load(default_run[1] / "curves.npz")["normal/sgd/final"].mean() == pytest.approx(
        0.0503, rel=0.03
    )


def test_files_hold_what_was_returned(default_run):
    summary, workdir = default_run
    assert json.loads((workdir / "summary.json").read_text()) == summary
    names = ["curves.npz", "final.parquet", "quantiles.parquet", "summary.json"]
    assert sorted(p.name for p in workdir.iterdir()) == names
    curves = np.load(workdir / "curves.npz")
    calls = curves["oracle_calls"]
    assert (calls[0], calls[-1]) == (0, 2000)
    for noise, method in (("normal", "sgd"), ("student_t", "clipped_sstm")):
        value, low, high = (curves[f"{noise}/{method}/{part}"] for part in ("value", "low", "high"))
        assert value.shape == (4, len(calls))
        np.testing.assert_array_equal(value[:, 0], 10.0)  # 1/2 * 20 * 1²
        np.testing.assert_array_equal(value[:, -1], final(summary, noise, method))
        assert ((low <= value) & (value <= high)).all()
        last = curves[f"{noise}/{method}/final"]
        assert last.shape == (2000,)
        np.testing.assert_allclose(np.quantile(last, 0.5), value[0, -1], rtol=1e-3)


def written_out(draws, start, config):
    """The four methods as in their papers, one replica, float64; the gap after the last draw."""
    rate, level = config.learning_rate, config.clip_level
    sgd = clipped = normalized = z = y = start
    total = 0.0
    for k, draw in enumerate(draws):
        sgd = sgd - rate * (sgd + draw)
        g = clipped + draw
        clipped = clipped - rate * min(1.0, level / np.linalg.norm(g)) * g
        g = normalized + draw
        normalized = normalized - config.normalized_factor * rate * g / np.linalg.norm(g)
        # Gorbunov, Danilova, Gasnikov 2020: α_{k+1} = (k + 2) / (2 a L), λ_{k+1} = B / α_{k+1}.
        alpha = (k + 2) * config.sstm_learning_rate / 2
        x = (total * y + alpha * z) / (total + alpha)
        g = x + draw
        z = z - alpha * min(1.0, config.sstm_clip_level / alpha / np.linalg.norm(g)) * g
        y = (total * y + alpha * z) / (total + alpha)
        total += alpha
    found = {"sgd": sgd, "clipped_sgd": clipped, "normalized_sgd": normalized, "clipped_sstm": y}
    return {name: 0.5 * np.sum(x**2) for name, x in found.items()}


def test_every_method_is_the_one_of_its_paper_alone_and_among_others():
    config = Config(dimension=3, steps=50, clip_level=2.0)
    setting = oracle(problems.StudentT(1.5), 3)
    with jax.enable_x64(True):
        start = jnp.ones(3, jnp.float64)
        keys = experiment.replica_keys(0, 3)
        compared = experiment.methods(config)
        run = jax.jit(lambda keys: simulate(setting, compared, start, [0, 7, 50], keys))
        together = run(keys)
        alone = [run(keys[i : i + 1]) for i in range(3)]
        for i in range(3):
            draw_key, _ = jax.random.split(keys[i])
            draws = [
                np.asarray(setting.sample(jax.random.fold_in(draw_key, k), jnp.float64))
                for k in range(50)
            ]
            expected = written_out(draws, np.ones(3), config)
            for name, value in expected.items():
                np.testing.assert_allclose(together[name][i, -1], value, rtol=1e-10)
                np.testing.assert_allclose(together[name][i], alone[i][name][0], rtol=1e-12)


def test_a_replica_does_not_depend_on_how_many_there_are():
    first = jax.random.key_data(experiment.replica_keys(5, 3))
    np.testing.assert_array_equal(first, jax.random.key_data(experiment.replica_keys(5, 7))[:3])


def test_methods_share_draws_and_replicas_have_keys_of_their_own():
    compared = {
        "one": Method("one", lambda _: optax.sgd(0.1)),
        "same": Method("same", lambda _: optax.sgd(0.1)),
        "random": Method("random", lambda key: optax.sgd(jax.random.uniform(key))),
    }
    keys = experiment.replica_keys(0, 4)
    gaps = simulate(oracle(problems.Normal(1e-3), 2), compared, jnp.ones(2), [0, 1], keys)
    np.testing.assert_array_equal(gaps["one"], gaps["same"])
    # One step of size s from gap 1 with next to no noise leaves (1 - s)²: a size per replica.
    sizes = 1 - np.sqrt(gaps["random"][:, 1])
    assert np.ptp(sizes) > 0.1
    np.testing.assert_allclose(gaps["one"][:, 1], 0.81, rtol=0.02)


def test_replicas_that_diverge_are_counted_and_never_dropped(tmp_path):
    # At γ = 100 SGD multiplies x by -99 a step: beyond float32's 3e38 after 20 of 50 steps.
    summary = experiment.run(Config(**{**vars(SMALL), "learning_rate": 100.0}), tmp_path)
    result = summary["results"]["student_t"]
    assert result["sgd"]["diverged"] == 8
    assert [row["value"] for row in result["sgd"]["final"]] == ["inf"] * 4
    assert result["clipped_sstm"]["diverged"] == 0
    json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert np.isinf(np.load(tmp_path / "curves.npz")["student_t/sgd/final"]).all()
    assert summary["reference"] == {}


def test_the_command_line_sets_every_number(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "start_jax", lambda command: None)  # JAX has started here
    line = f"--workdir {tmp_path}/new --noises normal --steps 20 --replicas 5 --dimension 2"
    assert command.main(line.split()) == 0
    assert "99.9 %" in capsys.readouterr().out
    config = json.loads((tmp_path / "new" / "summary.json").read_text())["config"]
    assert (config["noises"], config["steps"], config["replicas"]) == (["normal"], 20, 5)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"noises": ("studentt",)}, "did you mean 'student_t'"),
        ({"replicas": 0}, "replicas is 0"),
        ({"levels": (0.5, 99.0)}, "99.0"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1"),
        ({"df": 0.0}, "df is 0.0"),
    ],
)
def test_bad_input_is_named(changed, words):
    with pytest.raises(ValueError, match=words):
        Config(**changed)
