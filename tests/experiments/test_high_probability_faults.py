"""What the laboratory refuses, repairs and keeps: texts, numbers, sizes, damaged files."""

import dataclasses
import io
import json
import time

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from clipjax import models, tasks
from clipjax.train import mesh as meshes
from clipjax.train.files import remove_leftovers, replacing
from clipjax.train.log import write_json
from clipjax.train.step import Program, controls
from experiments import high_probability as experiment
from experiments.high_probability import Config, chunks, published
from experiments.high_probability import __main__ as command
from experiments.high_probability.config import identity, make_oracle, make_problem
from experiments.high_probability.references import REFERENCES
from experiments.high_probability.run import tables
from experiments.setup import checked_files, memory, pace
from tests.experiments.test_expressions import package  # noqa: F401

SMALL = Config(dimension=2, steps=8, replicas=24, records=3, noises=("normal",), methods=("sgd",))
PARTS = dataclasses.replace(SMALL, chunk=8)  # three chunks, on up to eight devices


# -- Flags ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"levels": ()}, "levels is empty"),
        ({"methods": ()}, "methods is empty"),
        ({"noises": ()}, "noises is empty"),
        ({"methods": ("A = optax.sgd(1/0)",)}, "division by zero"),
        ({"methods": ('A = os.system("touch X")',)}, "--allow-import os"),
        ({"methods": (" = optax.sgd(1)",)}, "label '' cannot be shown"),
        ({"methods": ("a\0b = sgd",)}, "cannot be shown"),
        ({"noises": ("os.getcwd",)}, "'os' is none of"),
        ({"noises": ("optax.adam()",)}, "missing 1 required"),
        ({"noises": ("student_t('x')",)}, "student_t"),
        ({"problem": 3}, "problem is 3; expected text"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"seed": -(2**63) - 1}, "seed is -9223372036854775809"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
        ({"steps": True}, "steps is True; expected a whole number"),
        ({"steps": 2**31}, "steps is 2147483648; it must be at most 2,147,483,647"),
        ({"records": 10**9}, "records is 1000000000; it must be at most 1,000,000"),
        ({"start": float("nan")}, "start is nan"),
        ({"start_slope": float("inf")}, "start_slope is inf"),
        ({"learning_rate": 10**400}, "learning_rate is 1000"),
        ({"confidence": float("nan")}, "not nan"),
        ({"spacing": "geometrical"}, "did you mean 'geometric'"),
        ({"levels": (0.5, "x")}, r"levels\[1\] is 'x'"),
        ({"noises": ["normal"]}, "expected a tuple"),
        ({"allow_import": ("../x",)}, "expected the public name of a package"),
    ],
)
def test_bad_values_are_named(changed, words):
    with pytest.raises(ValueError, match=words):
        Config(**changed)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"methods": ('A = optax.sgd("x")',)}, "method 'A' cannot make a step"),
        ({"methods": ("A = optax.scale(jax.numpy.ones(3))",)}, "method 'A' cannot make a step"),
        ({"methods": ("A = optax.scale(jax.numpy.ones((2, 1)))",)}, "expected the shape of the p"),
        ({"noises": ("minibatch(5)",)}, "draws examples, and Quadratic has none"),
        ({"noises": ("clipjax.problems.Minibatch",)}, "noise"),
        ({"noises": ("clipjax.problems.Normal",)}, "noise"),
        ({"noises": ("optax.adam",)}, "noise"),
        ({"problem": "clipjax.problems.Quadratic"}, "expected a clipjax Problem"),
        ({"problem": "logistic_regression('FOLDER')"}, "logistic_regression"),
        ({"problem": "logistic_regression('FOLDER/none')"}, "none"),
        ({"start": 1e300}, "the first point is not finite in float32: start is 1e\\+300"),
        (
            {"dimension": 10_000_000, "methods": Config().methods},
            "one replica of 10,000,000 coordinates needs at least 687 MiB",  # 18 · 4 bytes · 10^7
        ),
        (
            {"problem": "rosenbrock(1000000000000)"},
            "it must be a whole number from 1 to 2147483647",
        ),
        ({"replicas": 2**31 - 1, "steps": 10**6, "records": 10**6}, "gaps of 2,147,483,647"),
        ({"memory": 1e-4}, "memory is 0.0001 MiB"),
    ],
)
def test_what_does_not_fit_is_refused_before_it_is_computed(changed, words, tmp_path):
    changed = {
        k: v.replace("FOLDER", str(tmp_path)) if isinstance(v, str) else v
        for k, v in changed.items()
    }
    began = time.monotonic()
    with pytest.raises(ValueError, match=words):
        experiment.run(dataclasses.replace(SMALL, **changed), tmp_path / "out")
    assert time.monotonic() - began < 20
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_seed_may_be_any_int64():
    for seed in (-(2**63), 2**63 - 1):
        assert experiment.replica_keys(dataclasses.replace(SMALL, seed=seed).seed, 2).shape == (2,)


# -- What a run file may allow --------------------------------------------------------------------


def test_another_package_is_allowed_by_the_command_and_never_by_a_file(
    tmp_path,
    monkeypatch,
    package,  # noqa: F811
):
    monkeypatch.setattr(command, "start_jax", lambda command: None)  # JAX has started here
    line = ["--noises", f"{package}.ordinary", "--steps", "8", "--replicas", "4"]
    line += ["--dimension", "2", "--workdir", str(tmp_path / "w")]
    with pytest.raises(ValueError, match=f"--allow-import {package}"):
        command.main(line)
    assert command.main([*line, "--allow-import", package, "math"]) == 0
    text = (tmp_path / "w" / "summary.json").read_text()
    assert "allow_import" not in text
    # A summary or plan that says so grants nothing, and is taken for another experiment's.
    summary = json.loads(text)
    summary["config"]["allow_import"] = [package]
    write_json(tmp_path / "w" / "summary.json", summary)
    with pytest.raises(ValueError, match=f"--allow-import {package}"):
        command.main(line)


def test_permission_is_no_part_of_the_experiment():
    assert identity(SMALL) == identity(dataclasses.replace(SMALL, allow_import=("a_package",)))


# -- Chunks ---------------------------------------------------------------------------------------


def stopped(workdir, config=PARTS, after=2):
    """Leave `after` chunks in a folder, as a run that was stopped."""
    asked = []
    stop = lambda: len(asked) == after or asked.append(None)  # noqa: E731
    assert experiment.run(config, workdir, should_stop=stop) is None
    return sorted((workdir / "chunks").glob("*.chunk"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    experiment.run(PARTS, workdir)
    return dict(np.load(workdir / "curves.npz"))


def assert_same(workdir, expected):
    found = np.load(workdir / "curves.npz")
    assert set(found) == set(expected)
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


def test_damaged_and_exchanged_chunks_are_computed_again(tmp_path, whole, capsys):
    first, second = stopped(tmp_path)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())  # whole, but of other replicas
    second.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))
    experiment.run(PARTS, tmp_path)
    assert capsys.readouterr().err.count("computed again") == 2
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("size", [0, -8, 16, 24, 8.5, None, "8"])
def test_a_plan_with_another_chunk_size_is_refused(tmp_path, size):
    stopped(tmp_path)
    path = tmp_path / "chunks" / "plan.json"
    plan = json.loads(path.read_text())
    write_json(path, plan | {"chunk": size})
    with pytest.raises(ValueError, match=r"plan\.json was changed .* delete"):
        experiment.run(PARTS, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"chunk": 8}', "\0", "[" * 99999])
def test_a_damaged_plan_is_named(tmp_path, text):
    (tmp_path / "chunks").mkdir()
    (tmp_path / "chunks" / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=r"plan\.json (is damaged|was changed).*delete"):
        chunks.Chunks(tmp_path, PARTS, meshes.make_mesh(), 1000)


def test_chunks_of_a_plan_of_another_size_are_not_taken(tmp_path):
    """Where a plan was made anew, what was computed in other portions is not used."""
    stopped(tmp_path)
    (tmp_path / "chunks" / "plan.json").unlink()
    other = chunks.Chunks(tmp_path, dataclasses.replace(PARTS, chunk=16), meshes.make_mesh(), 1000)
    assert other.size == 16
    path = tmp_path / "chunks" / "noise0_chunk00000.chunk"
    assert checked_files.read_arrays(path, other._place(0, 0), again="again") is None


@pytest.mark.parametrize("name", ["curves.npz", "final.parquet", "quantiles.parquet"])
@pytest.mark.parametrize("lost", [True, False])
def test_results_of_a_finished_run_that_are_lost_are_made_again(
    tmp_path, name, lost, whole, capsys
):
    experiment.run(PARTS, tmp_path)
    good = (tmp_path / name).read_bytes()
    if lost:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(good[:-1] + b"x")
    assert experiment.run(PARTS, tmp_path) is not None
    assert f"{name}: missing or damaged, computed again" in capsys.readouterr().err
    assert_same(tmp_path, whole)


def test_a_damaged_summary_is_named(tmp_path):
    for text in ("{", "[]", '{"config": 3, "results": {}, "files": {}}', "\xff"):
        (tmp_path / "summary.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=r"summary\.json .*delete it"):
            experiment.run(PARTS, tmp_path)


# -- Files that are written -----------------------------------------------------------------------


def test_files_are_never_written_through_links(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for write in (
        lambda path: write_json(path, {"a": 1}),
        lambda path: checked_files.write_npz(path, {"a": np.ones(1)}),
    ):
        target = tmp_path / "file"
        target.symlink_to(victim)
        write(target)
        assert victim.read_text() == "mine"
        assert not target.is_symlink()
        target.unlink()
    assert [p.name for p in tmp_path.iterdir()] == ["victim"]


def test_names_of_temporary_files_cannot_be_foreseen_and_errors_leave_none(tmp_path):
    names = set()

    def interrupted():
        with replacing(tmp_path / "a") as file:
            names.add(file.name)
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            interrupted()
    assert len(names) == 3
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TypeError):
        write_json(tmp_path / "a", {"a": object()})
    assert list(tmp_path.iterdir()) == []


def test_leftovers_of_killed_runs_are_removed_and_nothing_else(tmp_path):
    leftover = f".curves.npz.{'0123456789abcdef'}.tmp"
    kept = [".hidden.tmp", "a.tmp", ".a.0123.tmp", "curves.npz"]
    (tmp_path / "w" / "chunks").mkdir(parents=True)
    for folder in (tmp_path / "w", tmp_path / "w" / "chunks"):
        for name in [leftover, *kept]:
            (folder / name).write_text("x")
    (tmp_path / "w" / "curves.npz").unlink()
    with pytest.raises(ValueError, match="coordinates"):
        experiment.run(dataclasses.replace(SMALL, dimension=10**8), tmp_path / "w")
    assert not (tmp_path / "w" / leftover).exists()
    assert [p.name for p in remove_leftovers(tmp_path / "w" / "chunks")] == [leftover]
    assert sorted(p.name for p in (tmp_path / "w" / "chunks").iterdir()) == sorted(kept)
    assert remove_leftovers(tmp_path / "none") == []


# -- Size, time, references -----------------------------------------------------------------------


def test_what_is_larger_than_the_memory_is_refused():
    with pytest.raises(ValueError, match=r"the curve: at least .* GiB, of .* GiB .*; take less"):
        memory.check_fits(memory.available() + 1, "the curve", "take less")
    memory.check_fits(memory.available(), "the curve", "take less")


def test_a_network_that_cannot_fit_is_refused_by_its_shapes():
    def check(*hidden):
        program = Program(
            model=models.MLP(num_outputs=10, hidden=hidden),
            task=tasks.Classification(10, (0.0,), (1.0,)),
            optimizer=lambda rates: optax.adam(rates["learning_rate"]),
            evaluation_params=lambda _, params: params,
            step_metrics=lambda *_: {},
            mesh=meshes.make_mesh(),
        )
        batch = {"image": np.zeros((8, 8, 8, 1), np.uint8)}
        memory.check_training(program, controls(0, {"learning_rate": 0.1}), batch)

    check(8)
    # 64 h + h, h² + h and 10 h + 10 parameters; with the gradient and Adam's moments 4 times as
    # many, of 4 bytes each: 16 (2^40 + 76 · 2^20 + 10) / 2^30 = 16,385 GiB.
    h = 2**20
    parameters = h**2 + 76 * h + 10
    with pytest.raises(ValueError, match=f"{parameters:,} parameters.*at least 1.64e\\+04 GiB"):
        check(h, h)


def test_what_would_take_years_is_refused_and_said():
    with pytest.raises(ValueError, match="this would take 32 years; more than 30 days"):
        pace.check(1e9, "this", "Take less")
    pace.check(86400, "this", "Take less")


def test_the_time_of_many_steps_is_told_from_few():
    made = []

    def run(steps):
        made.append(steps)
        time.sleep(0.02 + 0.001 * steps)

    assert 0.8 * 1000.02 < pace.estimate(run, 1_000_000) < 2 * 1000.02
    assert made == [1, 8, 64, 512]


def test_a_long_computation_says_that_it_goes_on():
    said = []
    with pace.telling(said.append, "this", every=0.01):
        time.sleep(0.2)
    count = len(said)
    assert count >= 2
    assert said[0] == "this: 1 s so far"
    time.sleep(0.05)
    assert len(said) == count


def test_a_run_that_is_long_says_how_long(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pace, "estimate", lambda run, steps: 70.0)
    experiment.run(PARTS, tmp_path)
    assert "3 chunks of 8 replicas, 8 steps, 70 s each, about 4 min in all" in (
        capsys.readouterr().err
    )
    monkeypatch.setattr(pace, "estimate", lambda run, steps: 1e9)
    with pytest.raises(ValueError, match="chunks of 8 replicas, 8 steps would take 95 years"):
        experiment.run(dataclasses.replace(PARTS, seed=1), tmp_path / "long")


def test_a_shorter_run_of_the_same_program_makes_the_same_steps():
    oracle = make_oracle(make_problem(SMALL), "normal", 1.5)
    methods, keys = experiment.methods(SMALL), experiment.replica_keys(0, 2)
    start = jnp.ones(2)
    found = experiment.simulate(oracle, methods, start, jnp.array([0, 3, 8]), keys)["sgd"]
    cut = experiment.simulate(oracle, methods, start, jnp.minimum(jnp.array([0, 3, 8]), 3), keys)
    np.testing.assert_array_equal(cut["sgd"][:, :2], found[:, :2])
    np.testing.assert_array_equal(cut["sgd"][:, 2], found[:, 1])


def test_a_set_without_published_numbers_has_no_reference(tmp_path, monkeypatch):
    monkeypatch.setenv("CLIPJAX_LIBSVM_DIR", str(tmp_path))
    numbers = {
        "examples": 100, "shift": 0.1, "batch_size": 10, "rate": 1.0, "level": 1e-3,
        "decay": (0.1, 5, 0.5), "epochs": 2, "published_epochs": 2, "sstm_a": 1.0,
        "sstm_factor": 0.1, "replicas": 2,
    }  # fmt: skip
    for name, reference in (("mushrooms", ""), ("heart", "heart")):
        (tmp_path / name).write_text("+1 1:1\n-1 1:2\n")
        config = published.libsvm_regression(name, **numbers)
        assert config.reference == reference
        found = experiment.reference_of(config)
        assert found is (REFERENCES[name] if reference else None)


def test_a_label_that_looks_like_markup_is_shown_as_it_is(tmp_path):
    config = dataclasses.replace(SMALL, methods=("[/oops] [red] = sgd",))
    summary = experiment.run(config, tmp_path)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(*tables(summary))
    assert "[/oops] [red]" in console.export_text()
