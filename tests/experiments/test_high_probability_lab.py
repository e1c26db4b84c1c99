"""The parts of the experiment: any problem, noise and method; chunks; what is written."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pyarrow.parquet as pq
import pytest

from clipjax import problems
from clipjax.train import mesh as meshes
from experiments import high_probability as experiment
from experiments import report
from experiments.high_probability import Config, Method, chunks, simulate
from experiments.high_probability import __main__ as command
from experiments.high_probability.config import first_point, make_oracle, make_problem
from experiments.high_probability.run import second_half

SMALL = Config(
    dimension=3,
    steps=20,
    replicas=20,
    records=4,
    noises=("student_t",),
    methods=("sgd", "clipped_sgd"),
)
LIBSVM = "+1 1:1 2:0.5\n-1 1:-1\n+1 2:1\n-1 1:1 2:-2\n-1 2:1\n"


def gaps(config, devices, workdir):
    """Return the gaps of the first noise, and how they were portioned."""
    problem = make_problem(config)
    mesh = meshes.make_mesh(jax.devices()[:devices])
    done = chunks.Chunks(workdir, config, mesh, per_replica=1000)
    oracle = make_oracle(problem, config.noises[0], config.df)
    found = done.run(config.noises[0], oracle, experiment.methods(config))
    assert found is not None
    return found[0], done.size


# -- Problems, noises and methods from text -------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("quadratic", problems.Quadratic((1.0,) * 3)),
        ("quadratic(1.0, 1 / 4)", problems.Quadratic((1.0, 0.25))),
        ("rosenbrock(4, curvature=10.0)", problems.Rosenbrock(4, 10.0)),
        ("clipjax.problems.Rosenbrock(2)", problems.Rosenbrock(2)),
    ],
)
def test_a_problem_is_a_name_or_a_call_of_one(text, expected):
    assert make_problem(dataclasses.replace(SMALL, problem=text)) == expected


@pytest.mark.parametrize(
    ("text", "noise"),
    [
        ("normal", problems.Normal()),
        ("normal(2.0)", problems.Normal(2.0)),
        ("student_t", problems.StudentT(1.5)),
        ("student_t(3)", problems.StudentT(3)),
        ("stable(1.2)", problems.SymmetricStable(1.2)),
        ("standardised(weibull(0.2))", problems.Standardised(problems.Weibull(0.2))),
        ("burr(1.0, 2.3)", problems.BurrXII(1.0, 2.3)),
        ("pareto(2.5)", problems.Pareto(2.5)),
        ("exponential", problems.Exponential()),
    ],
)
def test_a_noise_is_added_to_the_gradient(text, noise):
    problem = problems.Quadratic((1.0,))
    assert make_oracle(problem, text, df=1.5) == problems.AdditiveNoise(problem, noise)


def test_minibatches_of_a_libsvm_file(tmp_path):
    (tmp_path / "data").write_text(LIBSVM)
    file = str(tmp_path / "data")
    config = dataclasses.replace(
        SMALL,
        problem=f"logistic_regression({file!r})",
        noises=("minibatch(2)",),
        start_from="minimiser",
        start=0.0,
        steps=400,
        precision="float64",
    )
    summary = experiment.run(config, tmp_path / "out")
    assert summary is not None
    assert summary["initial_gap"] == pytest.approx(0, abs=1e-15)
    problem = make_problem(config)
    assert summary["constants"]["smoothness"] == problem.smoothness
    # γ = 0.01 from the minimiser: a random walk of the size of the noise, which is not zero there.
    level = summary["results"]["minibatch(2)"]["sgd"]["second_half"]["level"]
    assert 1e-6 < level < 1e-2


def test_the_first_point_may_be_a_ramp_from_the_minimiser():
    config = dataclasses.replace(SMALL, start=1.0, start_slope=0.5, start_from="minimiser")
    assert first_point(config, problems.Rosenbrock(3)).tolist() == [2.0, 2.5, 3.0]


def test_a_method_is_a_name_or_a_call_of_any_factory():
    texts = (
        "sgd",
        "Adam = optax.adam(0.1, b2=0.9)",
        "optax.chain(optax.clip(1.0), optax.sgd(0.1))",
        "SGD again = sgd",
    )
    found = experiment.methods(dataclasses.replace(SMALL, methods=texts))
    assert list(found) == ["sgd", "Adam", texts[2], "SGD again"]
    assert [m.label for m in found.values()] == ["SGD", "Adam", texts[2], "SGD again"]
    adam = found["Adam"].make(jax.random.key(0))
    expected = optax.adam(0.1, b2=0.9)
    x, g = jnp.ones(2), jnp.array([1.0, -3.0])
    for tx in (adam, expected):
        updates, _ = tx.update(g, tx.init(x), x)
        np.testing.assert_allclose(updates, [-0.1, 0.1], rtol=1e-5)


def test_a_method_may_use_the_replicas_key():
    text = "r = clipjax.clip_with_probability(1.0, 0.9, key)"
    make = experiment.methods(dataclasses.replace(SMALL, methods=(text,)))["r"].make
    states = [jax.tree.leaves(make(jax.random.key(i)).init(jnp.ones(2))) for i in range(2)]
    equal = [
        np.array_equal(*(jax.random.key_data(x) if _is_key(x) else x for x in pair))
        for pair in zip(*states, strict=True)
    ]
    assert equal.count(False) == 1


def _is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


# -- Oracle calls and evaluation points -----------------------------------------------------------


def trajectory(method, steps, times):
    """Return the gaps of one replica on 1/2 |x|² in one dimension, and the draws it saw."""
    oracle = problems.AdditiveNoise(problems.Quadratic((1.0,)), problems.Normal())
    with jax.enable_x64(True):
        key = experiment.replica_keys(0, 1)
        start = jnp.ones(1, jnp.float64)
        found = simulate(oracle, {"m": method}, start, times, key)["m"][0]
        draw_key, _ = jax.random.split(key[0])
        draws = [
            float(oracle.sample(jax.random.fold_in(draw_key, k), jnp.float64)[0])
            for k in range(steps)
        ]
    return np.asarray(found), draws


def test_growing_batches_count_every_oracle_call():
    # Batches of 1, 2, 3: updates after 1, 3 and 6 oracle calls, each with the mean at one point.
    method = Method("m", lambda _: optax.MultiSteps(optax.sgd(0.1), lambda k: k + 1))
    found, draws = trajectory(method, 6, np.arange(7))
    x, expected = 1.0, [0.5]
    for batch in (draws[:1], draws[1:3], draws[3:6]):
        expected += [0.5 * x**2] * (len(batch) - 1)
        x -= 0.1 * (x + np.mean(batch))
        expected.append(0.5 * x**2)
    np.testing.assert_allclose(found, expected, rtol=1e-7)  # MultiSteps adds up in float32


def test_schedule_free_is_evaluated_at_its_average():
    method = Method("s", lambda _: optax.contrib.schedule_free_sgd(0.1))
    found, draws = trajectory(method, 5, [0, 5])
    # Defazio et al. 2024 with constant rate: y = (1-β) z + β x, z -= γ g(y), x += (z - x)/(t+1).
    x = z = 1.0
    for t, draw in enumerate(draws):
        y = 0.1 * z + 0.9 * x
        z -= 0.1 * (y + draw)
        x += (z - x) / (t + 1)
    np.testing.assert_allclose(found[-1], 0.5 * x**2, rtol=1e-6)


# -- Chunks, devices, resuming --------------------------------------------------------------------


def test_chunks_and_devices_do_not_change_the_numbers(tmp_path):
    with jax.enable_x64(True):
        config = dataclasses.replace(SMALL, precision="float64")
        whole, size = gaps(config, 1, tmp_path / "whole")
        assert size == 20
        for chunk, devices, expected in ((7, 1, 7), (20, 4, 20), (6, 4, 8)):
            cut = dataclasses.replace(config, chunk=chunk)
            found, size = gaps(cut, devices, tmp_path / f"{chunk}on{devices}")
            assert size == expected
            for name in whole:
                assert found[name].shape == (20, 5)
                np.testing.assert_allclose(found[name], whole[name], rtol=1e-12)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL, chunk=8)
    experiment.run(config, tmp_path / "whole")
    written = []
    write = chunks.write_arrays

    def killed(path, *content):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(path, *content)

    monkeypatch.setattr(chunks, "write_arrays", killed)
    with pytest.raises(KeyboardInterrupt):
        experiment.run(config, tmp_path / "cut")
    monkeypatch.setattr(chunks, "write_arrays", write)
    written[0].write_bytes(written[0].read_bytes()[:100])  # a damaged chunk is done again
    kept = written[1].stat().st_mtime_ns
    experiment.run(
        config, tmp_path / "cut", should_stop=lambda: written[1].stat().st_mtime_ns != kept
    )
    whole, cut = (np.load(tmp_path / name / "curves.npz") for name in ("whole", "cut"))
    assert set(whole) == set(cut)
    for name in whole:
        np.testing.assert_array_equal(whole[name], cut[name])
    assert not (tmp_path / "cut" / "chunks").exists()


def test_a_run_that_is_told_to_stop_stops_between_chunks(tmp_path):
    asked = []
    stopped = experiment.run(
        dataclasses.replace(SMALL, chunk=8),
        tmp_path,
        should_stop=lambda: len(asked) == 2 or asked.append(None),
    )
    assert stopped is None
    assert sorted(p.name for p in (tmp_path / "chunks").iterdir()) == [
        "noise0_chunk00000.chunk",
        "noise0_chunk00001.chunk",
        "plan.json",
    ]
    with pytest.raises(ValueError, match="another config: seed was 0, is 1"):
        experiment.run(dataclasses.replace(SMALL, chunk=8, seed=1), tmp_path)


def test_a_finished_run_is_left_as_it_is_and_no_other_takes_its_place(tmp_path):
    first = experiment.run(SMALL, tmp_path)
    before = (tmp_path / "summary.json").stat().st_mtime_ns
    assert experiment.run(SMALL, tmp_path) == json.loads(json.dumps(first))
    assert (tmp_path / "summary.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="another config: steps was 20, is 21"):
        experiment.run(dataclasses.replace(SMALL, steps=21), tmp_path)


def test_chunks_stay_below_the_memory_budget():
    # 1 MiB holds 2 replicas of half a MiB on each of 4 devices: 20 replicas in 3 chunks of 8.
    config = dataclasses.replace(SMALL, memory=1.0)
    assert chunks.chunk_size(config, per_replica=2**19, devices=4) == 8
    with pytest.raises(ValueError, match=r"memory is 1 MiB, but one replica needs up to 1\.5 MiB"):
        chunks.chunk_size(config, per_replica=3 * 2**19, devices=4)


def test_the_bound_on_memory_covers_what_the_compiler_takes():
    oracle = make_oracle(make_problem(SMALL), "student_t", 1.5)
    compared = experiment.methods(SMALL)
    bound = chunks.bytes_per_replica(oracle, compared, SMALL)
    start, times = jnp.ones(3), experiment.record_times(20, 4)
    program = jax.jit(lambda keys: simulate(oracle, compared, start, times, keys))
    stats = program.lower(experiment.replica_keys(0, 1000)).compile().memory_analysis()
    taken = stats.temp_size_in_bytes + stats.output_size_in_bytes + stats.argument_size_in_bytes
    assert taken < 1000 * bound < 200 * taken


def test_chunks_that_do_not_split_over_the_devices_are_refused(tmp_path):
    chunks.Chunks(
        tmp_path, dataclasses.replace(SMALL, chunk=5), meshes.make_mesh(jax.devices()[:1]), 9
    )
    with pytest.raises(ValueError, match="chunks of 5 replicas, which do not split over 2 devices"):
        chunks.Chunks(
            tmp_path, dataclasses.replace(SMALL, chunk=5), meshes.make_mesh(jax.devices()[:2]), 9
        )


# -- What is written ------------------------------------------------------------------------------


def test_parquet_tables_hold_the_curves(tmp_path):
    summary = experiment.run(
        dataclasses.replace(SMALL, noises=("student_t", "stable(1.5)")), tmp_path
    )
    assert summary is not None
    curves = np.load(tmp_path / "curves.npz")
    table = pq.read_table(tmp_path / "quantiles.parquet").to_pydict()
    assert len(table["value"]) == 2 * 2 * 4 * len(curves["oracle_calls"])
    row = next(
        i
        for i in range(len(table["value"]))
        if (table["noise"][i], table["method"][i]) == ("stable(1.5)", "clipped_sgd")
        and (table["level"][i], table["oracle_calls"][i]) == (0.9, 20)
    )
    expected = summary["results"]["stable(1.5)"]["clipped_sgd"]["final"][1]
    assert (table["value"][row], table["low"][row], table["high"][row]) == tuple(
        expected[k] for k in ("value", "low", "high")
    )
    final = pq.read_table(tmp_path / "final.parquet").to_pydict()
    assert final["replica"] == list(range(20)) * 4
    np.testing.assert_array_equal(final["gap"][:20], curves["student_t/sgd/final"])


def test_the_second_half_counts_diverged_replicas_as_infinite():
    times = np.array([0, 1, 2])
    found = second_half(
        np.array([[1.0, 1.0, 1.0], [1.0, 1.0, np.inf], [1.0, np.inf, np.inf]]), times
    )
    assert found == {"level": 1.0, "maximum": "inf", "worst": "inf", "oscillation": "inf"}


def test_the_command_line_takes_a_file_and_writes_a_page(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "start_jax", lambda command: None)  # JAX has started here
    (tmp_path / "c.py").write_text(
        "from experiments.high_probability import Config\n"
        "config = Config(noises=('pareto(1.5)',), methods=('Adam = optax.adam(0.1)', 'zclip'),\n"
        "                steps=20, dimension=2, reference='toy')\n"
    )
    line = ["--config", f"{tmp_path}/c.py", "--workdir", f"{tmp_path}/w", "--replicas", "30"]
    assert command.main(line) == 0
    assert "report.html" in capsys.readouterr().out
    page = (tmp_path / "w" / "report.md").read_text()
    assert "# Methods in the tail" in page
    assert "Adam: optax.adam(0.1)." in page
    assert "ZClip" in page
    assert json.loads((tmp_path / "w" / "summary.json").read_text())["config"]["replicas"] == 30
    first = (tmp_path / "w" / "report.md").read_bytes()
    report.write_report(tmp_path / "w")
    assert (tmp_path / "w" / "report.md").read_bytes() == first


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"noises": ("wiebull(0.2)",)}, "did you mean 'weibull'"),
        ({"noises": ("weibull()",)}, "missing 1 required positional argument"),
        ({"noises": ("weibull(-1)",)}, "shape is -1"),
        ({"noises": ("normal(",)}, "cannot be read"),
        ({"noises": ("normal(lambda: 1)",)}, "neither a value nor a call"),
        ({"noises": ("math.hypot(1, 1)",)}, "expected a noise"),
        ({"methods": ("cliped_sgd",)}, "did you mean 'clipped_sgd'"),
        ({"methods": ("A = optax.adamm(1)",)}, "optax has no 'adamm'"),
        ({"methods": ("A = nowhere.adam(1)",)}, "--allow-import nowhere"),
        ({"methods": ("A = optax.adam()",)}, "missing 1 required"),
        ({"methods": ("A = math.hypot(1, 1)",)}, "expected an Optax transformation"),
        ({"methods": ("sgd", "sgd")}, "'sgd' is given twice"),
        ({"memory": 0.0}, "memory is 0.0"),
        ({"chunk": -1}, "chunk is -1"),
    ],
)
def test_bad_input_is_named(changed, words):
    with pytest.raises(ValueError, match=words):
        Config(**changed)


def test_bad_problems_and_references_are_named(tmp_path):
    for problem, words in (
        ("quadratik", "'quadratic'"),
        ("math.hypot(1, 1)", "expected a clipjax"),
    ):
        with pytest.raises(ValueError, match=words):
            make_problem(Config(problem=problem))
    with pytest.raises(ValueError, match="did you mean 'heart'"):
        experiment.run(dataclasses.replace(SMALL, reference="haert"), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no config file .*toy\.py"):
        command.load(tmp_path / "toy.py")
    (tmp_path / "none.py").write_text("config = 3")
    with pytest.raises(ValueError, match="expected an experiments"):
        command.load(tmp_path / "none.py")


def test_a_replica_needs_less_than_a_budget_or_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"memory is 0\.0001 MiB, but one replica"):
        experiment.run(dataclasses.replace(SMALL, memory=1e-4), tmp_path)


def test_hosts_are_joined_before_a_config_uses_jax(tmp_path, monkeypatch):
    """Making a config builds its methods; JAX refuses to join hosts once it is in use."""
    order = []
    monkeypatch.setattr(command, "start_jax", lambda given: order.append(given.distributed))

    def load(path):
        order.append(path.name)
        raise FileNotFoundError

    monkeypatch.setattr(command, "load", load)
    line = ["--config", "configs/tails/holder.py", "--distributed", "off", "--workdir", "x"]
    with pytest.raises(FileNotFoundError):
        command.main(line)
    assert order == ["off", "holder.py"]
