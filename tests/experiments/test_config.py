"""Configs: mirrored signatures, JSON round trip, bad input named with its cure."""

import dataclasses
import functools
import inspect
import pathlib
import typing

import jax
import jax.numpy as jnp
import pytest

from experiments.setup import build, config_files
from experiments.setup import config as configs

ROOT = pathlib.Path(__file__).parents[2]


def make_run(**changes):
    fields = {
        "task": "classification",
        "dataset": "digits",
        "model": configs.ResNet18(width=8, stem="small"),
        "optimizer": configs.SGD(0.1),
        "duration": configs.Duration(steps=10),
        "batch_size": 64,
    }
    return configs.Run(**(fields | changes))


@pytest.mark.parametrize("kind", typing.get_args(configs.Optimizer))
def test_optimizer_fields_are_the_factory_signature(kind):
    signature = inspect.signature(build.FACTORIES[kind]).parameters
    ours = {
        f.name: inspect.Parameter.empty if f.default is dataclasses.MISSING else f.default
        for f in dataclasses.fields(kind)
    }
    assert ours == {name: parameter.default for name, parameter in signature.items()}


@pytest.mark.parametrize("kind", typing.get_args(configs.Model))
def test_model_fields_are_module_attributes_with_the_same_defaults(kind):
    from clipjax import models

    attributes = {f.name: f.default for f in dataclasses.fields(getattr(models, kind.__name__))}
    for f in dataclasses.fields(kind):
        ours = jnp.dtype(f.default) if f.name == "dtype" else f.default
        assert ours == attributes[f.name]


@pytest.mark.parametrize("path", sorted(ROOT.glob("configs/[!_]*.py")), ids=lambda p: p.stem)
def test_each_config_loads_and_its_models_build(path):
    """Shapes only: nothing is computed, so full-size networks cost nothing here."""
    config = config_files.load(path)
    runs = list(config.runs.values()) if isinstance(config, configs.Grid) else [config]
    seen = set()
    for run in runs:
        assert config_files.from_json(config_files.to_json(run)) == run
        if (run.task, run.model) in seen:
            continue
        seen.add((run.task, run.model))
        model = build.make_model(run, num_classes=7)
        x = jax.ShapeDtypeStruct((2, 64, 64, 3), "float32")
        init = functools.partial(model.init, train=False)
        variables = jax.eval_shape(init, jax.random.key(0), x)
        assert variables["params"]


def test_json_keeps_types_and_values():
    run = make_run(
        model=configs.MLP(hidden=(8, 4)),
        optimizer=configs.ClippedSSTM(0.1, 10.0, None, step_offset=1),
        evaluate_every=configs.Duration(examples=100),
    )
    assert config_files.from_json(config_files.to_json(run)) == run


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: configs.SGD(0.0), r"SGD.learning_rate is 0.0; expected a number that is positive"),
        (lambda: configs.Adam(float("nan")), "Adam.learning_rate is nan"),
        (lambda: configs.ClippedSGD(0.1, -1.0), r"ClippedSGD.clip_level is -1.0"),
        (lambda: configs.ClippedSSTM(0.1, 0.0, 1.0), r"ClippedSSTM.smoothness is 0.0"),
        (lambda: make_run(batch_size=0), r"Run.batch_size is 0"),
        (lambda: make_run(batch_size=10, accumulation=3), "10 does not split into 3"),
        (lambda: configs.Graduated(0), "num_stages is 0"),
        (lambda: configs.Graduated(3, decay="geometrical"), "did you mean 'geometric'"),
        (
            lambda: make_run(graduated=configs.Graduated(3), duration=configs.Duration(steps=5)),
            r"epochs or examples, not in steps \(5\)",
        ),
        (
            lambda: make_run(
                graduated=configs.Graduated(3),
                duration=configs.Duration(epochs=5),
                schedule=configs.LearningRateSchedule("cosine"),
            ),
            "leave the schedule out",
        ),
        (lambda: make_run(task="clasification"), "did you mean 'classification'"),
        (lambda: make_run(optimizer="ClipedSGD"), "did you mean 'ClippedSGD'"),
        (lambda: make_run(seed=-1), "seed is -1"),
        (lambda: configs.Duration(), "exactly one of steps, epochs, examples"),
        (lambda: configs.Duration(steps=1, epochs=1), "exactly one of steps, epochs, examples"),
        (lambda: configs.LearningRateSchedule("cosin"), "did you mean 'cosine'"),
        (lambda: configs.LearningRateSchedule("cosine", -1), "warmup_steps is -1"),
        (lambda: configs.Grid({}), "at least one"),
        (lambda: configs.Grid({"x": make_run()}), "expected text like 'task/method'"),
        (lambda: configs.Grid({"a/b": make_run()}, seeds=(1, 1)), "distinct"),
        (lambda: config_files.from_json({"type": "SDG"}), "did you mean 'SGD'"),
        (
            lambda: config_files.from_json({"type": "SGD", "learning_rat": 1.0}),
            "SGD has no field 'learning_rat'; did you mean 'learning_rate'",
        ),
    ],
)
def test_bad_values_are_named_with_their_cure(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "from experiments.config import SGD\nconfig = SGD(learning_rat=1)",
            "SGD has no field 'learning_rat'; did you mean 'learning_rate'",
        ),
        (
            "from experiments.config import ClippedSTM",
            "did you mean 'ClippedSSTM'",
        ),
        (
            "from experiments import config as c\nconfig = c.ClippedSTM(1)",
            "did you mean 'ClippedSSTM'",
        ),
        ("x = 1", "yields config = None; expected a Run or a Grid"),
    ],
)
def test_bad_config_files(tmp_path, text, message):
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        config_files.load(path)


def test_a_missing_config_file_names_the_nearest():
    with pytest.raises(FileNotFoundError, match=r"did you mean '.*smoke.py'"):
        config_files.load(ROOT / "configs" / "smok.py")


def test_differences_name_nested_fields():
    old = make_run(optimizer=configs.SGD(0.1))
    new = make_run(optimizer=configs.SGD(0.2), batch_size=32)
    assert config_files.differences(old, new) == {
        "optimizer.learning_rate": (0.1, 0.2),
        "batch_size": (64, 32),
    }
    other = make_run(optimizer=configs.Adam(0.1))
    assert config_files.differences(old, other) == {
        "optimizer": (configs.SGD(0.1), configs.Adam(0.1))
    }
