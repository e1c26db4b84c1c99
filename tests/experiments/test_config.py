"""Configs: mirrored signatures, JSON round trip, bad input named with its cure."""

import dataclasses
import functools
import inspect
import math
import pathlib
import types
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import explicit_graduated, growth_networks, growth_rates, smoothing
from experiments.implicit_bias.run import Config as ImplicitBias
from experiments.landscape import LandscapeCommand
from experiments.noise import NoiseCommand
from experiments.setup import build, config_files, methods, networks
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


@pytest.mark.parametrize("kind", build.FACTORIES)
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
    config = config_files.run_file(path)["config"]  # a Run, a Grid or a Search
    runs = [config] if isinstance(config, configs.Run) else list(config.runs.values())
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


# -- Every field of every dataclass ---------------------------------------------------------------

EXAMPLES = (
    configs.SGD(0.1, momentum=0.9),
    configs.Adam(0.1),
    configs.ClippedSGD(0.1, 1.0, momentum=0.9),
    configs.ClippedSSTM(0.1, 1.0, 1.0, clip_start=1),
    configs.MLP(),
    configs.ResNet18(),
    configs.FCN32s(),
    configs.SRResNet(),
    configs.Duration(steps=1),
    configs.Duration(epochs=1),
    configs.Duration(examples=1),
    configs.LearningRateSchedule("step", factor=0.1, every=3),
    configs.LearningRateSchedule("step", factor=0.1, milestones=(3, 5)),
    configs.LearningRateSchedule("wsd", decay_share=0.2),
    configs.Graduated(3),
    configs.NoiseProbe(every=3),
    make_run(),
    configs.Grid({"a/b": make_run()}),
)
HUGE = 10**400
WRONG = {
    "a bool": True,
    "text": "wrong text",
    "empty text": "",
    "NaN": math.nan,
    "infinity": math.inf,
    "minus one": -1,
    "huge": HUGE,
    "beyond float32": 1e39,
    "a half": 0.5,
    "a list": [1],
    "no entries": (),
    "a wrong entry": (0,),
    "a half as entry": (0.5,),
    "too many entries": (1,) * 200,
    "a class": configs.SGD,
    "bytes": b"float32",
    "an array": np.ones(2),
    "None": None,
}
MAY_BE = {
    # What of the above is no mistake, by what the annotation is made of.
    bool: ("a bool",),
    float: ("a half",),
    int: (),
    str: ("text",),
    type(None): ("None",),
}


def parts(hint):
    """Return the plain types that an annotation is made of."""
    if typing.get_origin(hint) is typing.Annotated:
        return parts(hint.__origin__)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return {part for inner in typing.get_args(hint) for part in parts(inner)}
    return {hint}


FIELDS = [
    pytest.param(example, field.name, id=f"{i}-{type(example).__name__}.{field.name}")
    for i, example in enumerate(EXAMPLES)
    for field in dataclasses.fields(example)
]


@pytest.mark.parametrize(("example", "field"), FIELDS)
def test_no_field_takes_a_wrong_value(example, field):
    hint = typing.get_type_hints(type(example), include_extras=True)[field]
    allowed = {name for part in parts(hint) for name in MAY_BE.get(part, ())}
    if field == "hidden" or (field == "milestones" and not example.milestones):
        allowed |= {"no entries"}  # of a linear model; of a schedule without milestones
    if field == "seeds":
        allowed |= {"a wrong entry"}
    if isinstance(example, configs.Duration) and getattr(example, field) is None:
        # The other two units: given with the first they are refused for that already.
        allowed |= {"a half", "None"}
    tried = {name: value for name, value in WRONG.items() if name not in allowed}
    assert len(tried) >= 14
    owner = type(example).__name__
    for value in tried.values():
        with pytest.raises(ValueError, match=rf"{owner}\.{field}\b") as caught:
            dataclasses.replace(example, **{field: value})
        assert "expected" in str(caught.value)
        assert len(str(caught.value)) < 700


def test_the_examples_are_of_every_dataclass():
    """A class or a field that comes later is in the test above, or this one fails."""
    ours = {module.__name__ for module in (configs, methods, networks)}
    found = {kind for kind in vars(configs).values() if isinstance(kind, type)}
    found = {kind for kind in found if kind.__module__ in ours}
    assert {type(example) for example in EXAMPLES} == found
    for kind in found:
        for name, hint in typing.get_type_hints(kind, include_extras=True).items():
            if hint in (int, float, str, tuple[int, ...]):
                pytest.fail(f"{kind.__name__}.{name} states no range")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: configs.SGD(0.1, momentum=2),
            "SGD.momentum is 2; expected a number from 0, below 1",
        ),
        (lambda: configs.SGD(0.1, momentum=1.0), "SGD.momentum is 1.0"),
        (lambda: configs.SGD(0.1, accumulator_dtype="float23"), "did you mean 'float32'"),
        (lambda: configs.Adam(0.1, b1=2), "Adam.b1 is 2"),
        (lambda: configs.Adam(0.1, b2=1.0), "Adam.b2 is 1.0"),
        (lambda: configs.Adam(0.1, eps=-1), "Adam.eps is -1; expected a number that is 0 or more"),
        (lambda: configs.SGD(1e-46), "SGD.learning_rate is 1e-46"),  # 0 in float32
        (lambda: configs.SGD(1e39), r"SGD.learning_rate is 1e\+39"),  # infinity in float32
        (lambda: configs.ClippedSSTM(0.1, 1.0, 1.0, holder_exponent=1.5), "holder_exponent is 1.5"),
        (lambda: configs.ClippedSSTM(0.1, 1.0, 1.0, max_averaging_ratio=0), "ratio is 0"),
        (lambda: configs.ClippedSGD(0.1, 1.0, clip="globl_norm"), "did you mean 'global_norm'"),
        (lambda: configs.FCN32s(dropout=2), "FCN32s.dropout is 2"),
        (lambda: configs.FCN32s(dropout=1.0), "FCN32s.dropout is 1.0"),
        (lambda: configs.FCN32s(block_sizes=(1, 1)), "pool_stages is 5; .* block_sizes, 2"),
        (lambda: configs.ResNet18(stage_sizes=()), r"stage_sizes is \(\); .*1 to 8"),
        (lambda: configs.ResNet18(stage_sizes=(0, 1)), r"stage_sizes\[0\] is 0"),
        (lambda: configs.ResNet18(stage_sizes=[2, 2]), r"stage_sizes is \[2, 2\]; .* a tuple"),
        (lambda: configs.SRResNet(kernel_size=8), "kernel_size is 8; .* odd"),
        (lambda: configs.SRResNet(scale=3), "scale is 3; .* 2, 4, 8 or 16"),
        (lambda: configs.MLP(hidden=(2147483648,)), r"MLP.hidden\[0\] is 2147483648"),
        (lambda: make_run(batch_size=True), "Run.batch_size is True; expected a whole number"),
        (lambda: make_run(batch_size=64.0), "Run.batch_size is 64.0; expected a whole number"),
        (lambda: make_run(augment="no"), "Run.augment is 'no'; expected True or False"),
        (lambda: make_run(samples=-1), "Run.samples is -1"),
        (lambda: make_run(optimizer=configs.SGD), "Run.optimizer is <class .*SGD"),
        (lambda: make_run(dataset=" "), "Run.dataset is ' '; expected text that is not empty"),
        (lambda: make_run(model=configs.SGD(0.1)), "Run.model is SGD"),
        (lambda: configs.Duration(epochs=math.inf), "Duration.epochs is inf"),
        (
            lambda: configs.Duration(epochs=1e9).in_steps(1, 50_000),
            "50000000000000 steps; expected",
        ),
        (lambda: configs.Graduated(3, factor=0.5), "leave the factor out"),
        (lambda: configs.Graduated(3, batch_share=0.7, momentum_share=0.7), "sum to 1 at most"),
        (lambda: configs.Grid({"a/b": make_run()}, seeds=(-1,)), r"Grid.seeds\[0\] is -1"),
        (lambda: configs.Grid({"a/b": make_run()}, seeds=(0, 2**32)), r"Grid.seeds\[1\]"),
        (lambda: configs.Grid({"a/b": make_run()}, seeds=3), "Grid.seeds is 3; expected a tuple"),
        (lambda: configs.Grid({"a/b": configs.SGD(0.1)}), r"Grid.runs\['a/b'\] is SGD"),
    ],
)
def test_values_that_were_accepted_and_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "key",
    [
        *(
            "../x",
            "x/..",
            "x/.",
            "./x",
            "../..",
            "/x",
            "x/",
            "//",
            "/etc/x",
            "x",
            "a/b/c",
            "",
            "a/b\n",
        ),
        *("a\\b/c", "a b/c", "a/\0", "a/" + "b" * 300, 3, ("a", "b")),
    ],
)
def test_grid_keys_stay_below_the_workdir(key):
    with pytest.raises(ValueError, match=r"a key of Grid\.runs is"):
        configs.Grid({"a/b": make_run(), key: make_run()})


def test_plain_values_at_the_ends_of_ranges_are_taken():
    configs.SGD(1e30, momentum=0.0)
    configs.Adam(1, b1=0, eps=0)
    configs.MLP(())
    configs.ClippedSSTM(1e38, 10, None, holder_exponent=0, max_averaging_ratio=1, clip_start=0)
    configs.Grid({"digits/lr=0.1+b_2": make_run(seed=2**32 - 1, samples=0)}, seeds=(2**32 - 1,))
    configs.Grid({"a.b/..c": make_run()})


@pytest.mark.parametrize(
    "make",
    [
        lambda **change: LandscapeCommand(pathlib.Path("w"), **change),
        lambda **change: NoiseCommand(pathlib.Path("w"), **change),
        growth_networks.Config,
        growth_rates.Config,
        ImplicitBias,
        smoothing.Config,
        explicit_graduated.Config,
    ],
)
def test_no_number_of_a_command_takes_a_wrong_value(make):
    """Numbers of the experiments that are no runs: whole ones, real ones, names."""
    found = 0
    for field in dataclasses.fields(make()):
        default = getattr(make(), field.name)
        if not isinstance(default, int | float | tuple) or field.name in (
            "through",
            "allow_import",
        ):
            continue
        found += 1
        for value in (math.nan, math.inf, -1, HUGE, True, "3", None, ("wrong",)):
            with pytest.raises(ValueError, match=rf"\.{field.name}\b.*; expected"):
                make(**{field.name: value})
    assert found >= 4


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
