"""Optimizers as texts: every one trains on every task, values are shared, bad texts are told."""

import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax.train import mesh as meshes
from clipjax.train.log import read_jsonl
from clipjax.train.state import TrainState
from experiments import compare, evaluate, train
from experiments.report import scores
from experiments.setup import build, config_files, rule_building
from experiments.setup import config as configs
from experiments.setup.config import Duration, LearningRateSchedule, Rule
from experiments.setup.reading import DamagedFile
from experiments.setup.rule_building import Setting
from experiments.setup.runs import check_resumable, run_one, what_now
from experiments.setup.workbench import Workbench
from tests.experiments.rule_rows import CLASSIFICATION, ROWS, TASKS
from tests.optim.contract_rows import ROWS as CONTRACT

# -- Every rule on every task ---------------------------------------------------------------------

PLANNED = {"implicit_graduated_optimization", "staged"}
"""They need a plan of stages, which a run makes of its field `graduated`."""


def test_every_public_transformation_has_a_row():
    assert {row.public for row in CONTRACT.values()} - PLANNED <= {
        row.public for row in ROWS.values()
    }


@functools.cache
def bench():
    made = Workbench()
    made.mesh = meshes.make_mesh(jax.devices()[:1])
    return made


@functools.cache
def gradients(task):
    """Return a task's tiny network, started, and the sums of a batch's gradient: compiled once."""
    run = TASKS[task]
    program = bench().program(run)
    data = build.make_data(run, bench().sources(run), bench().mesh)
    batch = meshes.place(next(data.calibration(1)), bench().mesh)
    controls = build.make_controls(run)
    state = program.init(controls, batch)
    shared = state.step, state.params, state.model_state

    def summed(params, model_state):
        start = TrainState(shared[0], params, (), model_state)
        copied = jax.tree.map(jnp.copy, model_state)
        return program.accumulate(start, (copied, None), batch, controls, jnp.int32(0))

    return shared, summed


def two_steps(name, task):
    """Train two steps by a row's text, and by the transformation that it stands for; compare.

    Only what the optimizer does is compiled for each row: `apply_accumulated`, as in a run that
    accumulates.
    """
    row = ROWS[name]
    run = dataclasses.replace(TASKS[task], optimizer=Rule(row.text, row.values))
    (step, params, model_state), summed = gradients(task)
    program = build.make_program(run, bench().sources(run), bench().mesh)
    controls = build.make_controls(run)
    direct = optax.with_extra_args_support(row.make(*row.values.values()))
    opt_state = jax.jit(lambda rates, p: program.optimizer(rates).init(p))(controls.rates, params)
    # No axis was added to any of it, and nothing is kept twice.
    chex.assert_trees_all_equal_shapes_and_dtypes(opt_state, jax.eval_shape(direct.init, params))
    state = TrainState(step, params, opt_state, model_state)
    states = [jax.tree.map(jnp.copy, state)]
    for _ in range(2):
        so_far = summed(states[-1].params, states[-1].model_state)
        state, metrics = program.apply_accumulated(jax.tree.map(jnp.copy, state), so_far, controls)
        assert np.isfinite(metrics["scalars"]["loss"])
        states.append(jax.tree.map(jnp.copy, state))
    moved = [
        bool(np.any(a != b))
        for a, b in zip(
            jax.tree.leaves(states[0].params), jax.tree.leaves(states[2].params), strict=True
        )
    ]
    assert any(moved)
    assert np.all(program.is_finite(states[2]))
    return program, states, metrics["scalars"]


TASK_NAMES = sorted(TASKS)


@pytest.mark.parametrize("name", ROWS)
def test_a_text_trains(name):
    """One task for each rule, in turn; the drill below has all of them."""
    two_steps(name, TASK_NAMES[list(ROWS).index(name) % len(TASK_NAMES)])


@pytest.mark.faults
@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("name", ROWS)
def test_a_text_trains_on_every_task(name, task):
    program, states, _ = two_steps(name, task)
    row = ROWS[name]
    direct = optax.with_extra_args_support(row.make(*row.values.values()))
    # The first step, with the gradient that the run saw.
    _, summed = gradients(task)
    _, sums = summed(states[0].params, states[0].model_state)
    gradient = jax.tree.map(lambda g: g / sums.weight, sums.gradients)
    weight = sums.weight * sums.unit
    updates, _ = jax.jit(lambda g, s, p: direct.update(g, s, p, weight=weight))(
        gradient, states[0].opt_state, states[0].params
    )
    expected = optax.apply_updates(states[0].params, updates)
    chex.assert_trees_all_close(states[1].params, expected, rtol=1e-4, atol=1e-5)
    evaluated = program.average(states[2].opt_state, states[2].params)
    chex.assert_trees_all_equal_shapes_and_dtypes(evaluated, states[2].params)


# -- What is shared, kept and resumed -------------------------------------------------------------

STATEFUL = Rule(
    "average_iterates(chain(clip_by_quantile(q, window=4), clip_with_probability(level, 0.7, "
    "key=key), adamw(lr, weight_decay=wd, mask=kernels)))",
    q=0.9,
    level=0.5,
    lr=0.01,
    wd=0.1,
)


def make_run(optimizer, **changes):
    return dataclasses.replace(CLASSIFICATION, **{"optimizer": optimizer} | changes)


@pytest.fixture(scope="module")
def stateful(tmp_path_factory):
    """A run of six steps with a schedule: (config, workdir, summary)."""
    run = make_run(
        STATEFUL,
        duration=Duration(steps=6),
        schedule=LearningRateSchedule("wsd", 1, decay_share=0.4),
        checkpoint_every=Duration(steps=2),
        evaluate_every=Duration(steps=3),
    )
    workdir = tmp_path_factory.mktemp("stateful")
    return run, workdir, run_one(run, workdir, bench())


def test_a_run_stopped_half_way_goes_on_to_the_bit(stateful, tmp_path):
    run, _, whole = stateful
    asked = iter(range(100))
    assert run_one(run, tmp_path, bench(), should_stop=lambda: next(asked) >= 2) is None
    resumed = run_one(run, tmp_path, bench())
    assert resumed["resumed_from"] == 3
    assert resumed["params_digest"] == whole["params_digest"]
    assert resumed["metrics"] == whole["metrics"]


def test_it_is_read_back_and_evaluated_where_its_average_is(stateful):
    run, workdir, summary = stateful
    assert config_files.read(workdir / "config.json") == run
    assert summary["method"] == STATEFUL.text
    measured = evaluate.evaluate_run(workdir, bench())
    assert {k: v for k, v in measured.items() if k != "step"} == summary["metrics"]
    program, (_, state) = bench().program(run), evaluate.restore(workdir, bench())
    average = program.average(state.opt_state, state.params)
    chex.assert_trees_all_equal(average, clipjax.eval_params(state.opt_state, state.params))
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(average, state.params, rtol=1e-4)


def test_rows_have_the_rate_and_every_clipping(stateful):
    """wsd over five steps after one of warm-up: two of the five fall, 1, then 1/2."""
    _, workdir, _ = stateful
    rows = [r for r in read_jsonl(workdir / "metrics.jsonl") if r["split"] == "train"]
    factors = [1, 1, 1, 1, 1, 0.5]
    np.testing.assert_allclose([r["learning_rate"] for r in rows], 0.01 * np.array(factors))
    assert rows[0].keys() >= {"clip_level", "clipped_fraction", "clip_level_2"}
    # The second is clip_with_probability, whose level is what the config gives.
    assert {r["clip_level_2"] for r in rows} == {0.5}


def test_a_rule_without_a_rate_logs_none():
    _, _, logged = two_steps("normalize_by_global_norm", "classification")
    assert "learning_rate" not in logged
    assert "clip_level" in logged


def test_runs_that_differ_in_values_share_a_compilation():
    first = make_run(Rule("chain(clip_by_value(level), adam(lr, b1=b))", level=1.0, lr=0.1, b=0.9))
    other = Rule(first.optimizer.text, {"b": 0.5, "lr": 0.3, "level": 2.0}, label="other")
    second = dataclasses.replace(first, optimizer=other, seed=7, duration=Duration(steps=9))
    program = bench().program(first)
    assert bench().program(second) is program
    data = build.make_data(first, bench().sources(first), bench().mesh)
    batch = meshes.place(next(data.calibration(1)), bench().mesh)
    results = []
    for run in (first, second):
        controls = build.make_controls(run)
        state, _ = program.train_step(program.init(controls, batch), batch, controls)
        results.append(state.params)
    assert program.train_step._cache_size() == 1
    with pytest.raises(AssertionError):
        chex.assert_trees_all_close(*results)


def test_what_a_text_depends_on_is_not_shared():
    def key(text, **changes):
        run = make_run(Rule(text, lr=0.1), **changes)
        return build.program_key(run, num_train=1000)

    falls = "chain(clip_by_value(linear_schedule(1.0, 0.1, steps)), sgd(lr))"
    longer = {"duration": Duration(steps=3)}
    assert key("sgd(lr)") == key("sgd(lr)", **longer) != key("adam(lr)")
    assert key(falls) != key(falls, **longer)
    apart = "accumulate_gradients(sgd(lr), micro_batches)"
    assert key(apart) != key(apart, accumulation=2)
    assert key("sgd(lr)") == key("sgd(lr)", accumulation=2)


def test_what_may_change_when_a_run_goes_on(tmp_path):
    run = make_run(Rule("chain(clip_by_value(level), sgd(lr))", lr=0.1, level=1.0))
    other = dataclasses.replace(run.optimizer, rates={"lr": 0.2, "level": 1.0})
    with pytest.raises(ValueError, match=r"config: optimizer\.rates\.lr was 0\.1, is 0\.2\. Use"):
        check_resumable(run, dataclasses.replace(run, optimizer=other), tmp_path)
    free = dataclasses.replace(run.optimizer, label="value", allow=("math",))
    longer = dataclasses.replace(run, optimizer=free, duration=Duration(steps=9))
    check_resumable(run, longer, tmp_path)
    counted = make_run(Rule("sgd(linear_schedule(0.1, 0.0, steps))"))
    longer = dataclasses.replace(counted, duration=Duration(steps=9))
    with pytest.raises(ValueError, match=r"duration\.steps was 2, is 9"):
        check_resumable(counted, longer, tmp_path)


def test_a_file_gives_no_permission():
    rule = Rule("my_package.sgd(lr)", lr=0.1, allow=("my_package",))
    written = config_files.to_json(rule)
    assert "allow" not in written
    assert config_files.from_json(written) == rule
    assert config_files.from_json(written).allow == ()
    with pytest.raises(DamagedFile, match="Rule has no field 'allow'"):
        config_files.from_json(written | {"allow": ["os"]})


def test_a_package_of_ones_own_is_named_where_it_is_allowed(tmp_path, monkeypatch):
    (tmp_path / "my_rules.py").write_text(
        "import optax\n\ndef half(rate):\n    return optax.sgd(rate / 2)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    rule = Rule("my_rules.half(lr)", lr=0.5)
    with pytest.raises(
        ValueError, match=r'--allow-import my_rules .* in a Rule allow=\("my_rules"'
    ):
        rule_building.check(rule, Setting(1))
    for allowed, setting in (
        (dataclasses.replace(rule, allow=("my_rules",)), Setting(1)),
        (rule, Setting(1, allow=("my_rules",))),
    ):
        tx = rule_building.make_rule(allowed, setting)({"lr": 0.5})
        assert tx.update(jnp.ones(()), tx.init(jnp.ones(())))[0] == -0.25


# -- lr, schedules and stages ---------------------------------------------------------------------


def test_texts_compute_with_a_rate_that_moves():
    """Twice the rate, which halves after a step: 2, 1, 1."""
    tx = rule_building.make_rule(
        Rule("chain(clip_by_value(1 / lr), sgd(2 * lr))", lr=1.0),
        Setting(3, shape=lambda k: jnp.where(k < 1, 1.0, 0.5)),
    )({"lr": 1.0})
    state, steps = tx.init(jnp.ones(())), []
    for gradient in (3.0, 3.0, 0.5):  # clipped to 1, to 2, not
        update, state = tx.update(jnp.asarray(gradient), state)
        steps.append(float(update))
    assert steps == [-2.0, -2.0, -0.5]


def test_a_graduated_run_gives_lr_the_rates_of_its_stages():
    """The text and the dataclass take the same steps through all stages."""
    stages = configs.Graduated(3, decay="geometric", factor=0.5, batch_share=0.5)
    old = make_run(
        configs.ClippedSGD(0.1, 1.0, momentum=0.9),
        graduated=stages,
        batch_size=16,
        accumulation=2,
        duration=Duration(examples=960),
    )
    rule = Rule("clipped_sgd(lr, level, momentum=0.9)", lr=0.1, level=1.0)
    setting = build.make_setting(dataclasses.replace(old, optimizer=rule), 1437)
    # The noise level counts momentum in, by one factor for all stages: the same plan.
    assert build.plan(old, 1437) == build.plan(dataclasses.replace(old, optimizer=rule), 1437)
    by_text = rule_building.make_rule(rule, setting)(rule.rates)
    by_class = build.make_graduated_optimizer(old, 1437)({"learning_rate": 0.1, "clip_level": 1.0})
    params = jnp.zeros(3)
    states = [by_text.init(params), by_class.init(params)]
    updates = [jax.jit(by_text.update), jax.jit(by_class.update)]
    rng = np.random.default_rng(0)
    for _ in range(setting.steps):
        gradient = jnp.asarray(rng.normal(size=3), jnp.float32)
        moved = []
        for which in (0, 1):
            update, states[which] = updates[which](gradient, states[which], params)
            moved.append(update)
        np.testing.assert_allclose(*moved, rtol=1e-6)
    assert setting.steps > 10
    assert float(setting.shape(setting.steps - 1)) < 0.6


# -- Bad input ------------------------------------------------------------------------------------

PARAMS = {
    "kernel": jax.ShapeDtypeStruct((4, 3), "float32"),
    "bias": jax.ShapeDtypeStruct((3,), "float32"),
}


@pytest.mark.parametrize(
    ("text", "values", "message"),
    [
        (
            "clip_by_quantil(0.9)",
            {},
            "'clip_by_quantil'; did you mean 'clip_by_quantile'\\? Searched: clipjax, optax, "
            "optax.contrib, and the names kernels, key, micro_batches, steps \\(in 'clip",
        ),
        ("sgd(rate)", {}, r"'rate'; it has no value: give it one with --rates.rate \(in a config"),
        ("adamw(0.1, mask=kernel)", {}, "'kernel'; .*did you mean 'kernels'"),
        ("linear_schedule(1, 0, 5)", {}, r"builds <function .*; expected an Optax transformation"),
        ("1.5", {}, "builds 1.5; expected an Optax"),
        ("adam", {}, r"'adam\(\)': adam\(\) missing 1 required positional argument"),
        (
            "chain(clip_by_quantile(2.0), sgd(lr))",
            {"lr": 0.1},
            r"'clip_by_quantile\(2.0\)': quantile must lie in \(0, 1\), got 2.0. \(in 'chain",
        ),
        (
            "chain(clip_by_quantile(0.9, window=w), sgd(0.1))",
            {"w": 5},
            r"the value of w \(5\) must be known when the program is compiled, by "
            r"'clip_by_quantile\(0.9, window=w\)'. Write it into the text as a number",
        ),
        ("polyak_sgd()", {}, "cannot do a step on this network: .*'value'"),
        ("lookahead(sgd(0.1), 5, 0.5)", {}, "cannot do a step on this network: .*'fast'"),
        (
            "average_iterates(average_iterates(sgd(0.1)))",
            {},
            "cannot be evaluated: eval_params found two states",
        ),
        ("add_noise(0.1, 0.5, key=key)", {}, "a random key, which checkpoints do not keep"),
        ("os.system('true')", {}, "'os' is none of clipjax, .*--allow-import os"),
        ("os", {}, "'os'; .*Searched"),
        ("sgd(lr).init", {"lr": 0.1}, "only modules have parts"),
        ("sgd(0.1) + sgd(0.1)", {}, "arithmetic is for numbers"),
    ],
)
def test_a_text_that_cannot_train_says_why(text, values, message):
    with pytest.raises(ValueError, match=message) as caught:
        rule_building.check(Rule(text, values), Setting(10), PARAMS)
    assert str(caught.value).startswith(("optimizer ", "there is no optimizer "))
    assert len(str(caught.value)) < 500


def test_a_schedule_needs_what_takes_a_schedule():
    rule = Rule("scale(lr)", lr=-0.1)
    rule_building.check(rule, Setting(10), PARAMS)
    with pytest.raises(ValueError, match="takes a number for lr and no function of the step"):
        rule_building.check(rule, Setting(10, shape=lambda k: 1.0 * k), PARAMS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rule("sgd(lr)", lr=0.1, wd=1), "gives wd a value, which the text .* does not use"),
        (lambda: Rule("sgd(lr)", lr=math.nan), r"rates\['lr'\] is nan; expected a number that is"),
        (lambda: Rule("sgd(lr)", lr=1e39), r"rates\['lr'\] is 1e\+39; expected a number"),
        (lambda: Rule("sgd(lr)", lr="0.1"), r"rates\['lr'\] is '0.1'"),
        (lambda: Rule("sgd(lr)", lr=True), r"rates\['lr'\] is True"),
        (lambda: Rule("sgd(steps)", steps=1), "a key of Rule.rates is 'steps'; .* has a meaning"),
        (lambda: Rule("sgd(sgd)", sgd=1.0, label="x"), "gives sgd a value, and .* calls it as a"),
        (lambda: Rule("sgd(lr)", 0.1), "Rule.rates is 0.1; expected a mapping"),
        (lambda: Rule("  "), "Rule.text is '  '; expected text"),
        (lambda: Rule(5), "Rule.text is 5"),
        (lambda: Rule("sgd("), r"Rule.text is 'sgd\('; expected a call .* was never closed"),
        (lambda: Rule("(" * 10**5), "Rule.text is .* expected"),
        (lambda: Rule("sgd(1)", allow="os"), "Rule.allow is 'os'; expected a tuple"),
        (lambda: Rule("sgd(1)", label=""), "Rule.label is ''"),
        (
            lambda: make_run(Rule("cocob()"), schedule=LearningRateSchedule("cosine")),
            r"Run.schedule moves the learning rate lr, which the optimizer 'cocob\(\)' does not",
        ),
        (
            lambda: make_run(
                Rule("sgd(lr, momentum=0.9)", lr=0.1),
                duration=Duration(epochs=1),
                graduated=configs.Graduated(3, momentum_share=0.5),
            ),
            "momentum_share is 0.5, and the optimizer is the text .* whose momentum is its own",
        ),
        (
            lambda: make_run(
                Rule("accumulate_gradients(sgd(lr), micro_batches)", lr=0.1),
                duration=Duration(epochs=1),
                graduated=configs.Graduated(3),
            ),
            "names micro_batches, whose number grows",
        ),
    ],
)
def test_a_wrong_rule_is_refused_when_it_is_made(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_grid_is_checked_before_its_first_run(tmp_path):
    grid = configs.Grid(
        {"a/good": CLASSIFICATION, "a/bad": make_run(Rule("adamv(lr)", lr=0.1))}, seeds=(0,)
    )
    with pytest.raises(ValueError, match="'adamv'; did you mean"):
        compare.run_grid(grid, tmp_path, bench(), say=lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_cannot_train_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="cannot do a step on this network"):
        run_one(make_run(Rule("polyak_sgd()")), tmp_path / "run", bench())
    assert not (tmp_path / "run" / "config.json").exists()


# -- The command line and the page ----------------------------------------------------------------

FILE = """
from experiments.config import MLP, SGD, Duration, Rule, Run

config = Run("classification", "digits", MLP(hidden=(4,)), {}, Duration(steps=6), batch_size=8)
"""
ADAMW = 'Rule("adamw(lr, weight_decay=weight_decay)", lr=0.1, weight_decay=0.05, label="AdamW")'


def parsed(tmp_path, optimizer, *flags):
    (tmp_path / "file.py").write_text(FILE.format(optimizer))
    arguments = ["--config", str(tmp_path / "file.py"), "--workdir", "w", *flags]
    return train.parse_train(arguments)


def test_a_text_on_the_command_line_replaces_the_files_optimizer(tmp_path):
    flags = ("--optimizer", "adamw(lr, b1=b)", "--rates.lr", "3e-4", "--rates.b=0.8")
    for optimizer in ("SGD(0.1)", ADAMW):
        run = parsed(tmp_path, optimizer, *flags, "--schedule.kind", "cosine").run
        assert run.optimizer == Rule("adamw(lr, b1=b)", lr=3e-4, b=0.8)
        assert run.schedule.kind == "cosine"


@pytest.mark.parametrize(
    "flags",
    [
        ("--rates.lr", "0.2", "--rates.weight-decay", "0"),
        ("--optimizer.rates.lr=0.2", "--rates.weight_decay=0"),
    ],
)
def test_values_on_the_command_line_replace_the_files(flags, tmp_path):
    command = parsed(tmp_path, ADAMW, *flags, "--allow-import", "my_package")
    assert command.run.optimizer.rates == {"lr": 0.2, "weight_decay": 0.0}
    assert command.run.optimizer.label == "AdamW"
    assert command.allow_import == ("my_package",)


@pytest.mark.parametrize(
    ("optimizer", "flags", "message"),
    [
        (ADAMW, ("--rates.b", "1"), "gives b a value, which the text"),
        (ADAMW, ("--rates.lr", "fast"), "--rates.lr is 'fast'; expected a number"),
        (ADAMW, ("--rates.lr",), "--rates.lr is ''; expected a number"),
        (ADAMW, ("--rates.lr", "nan"), r"rates\['lr'\] is nan"),
        ("SGD(0.1)", ("--rates.lr", "1"), "the file's is SGD: say --optimizer TEXT as well"),
        ("SGD(0.1)", ("--optimizer", "sgd(("), "'sgd\\(\\('; expected a call"),
    ],
)
def test_wrong_flags_are_told(optimizer, flags, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        parsed(tmp_path, optimizer, *flags)


def test_help_names_the_values(tmp_path, capsys):
    with pytest.raises(SystemExit):
        parsed(tmp_path, ADAMW, "--help")
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--optimizer", "--rates.lr", "--rates.weight-decay"))
    assert "--optimizer.learning-rate" not in shown


@pytest.mark.parametrize(
    ("rule", "flag"),
    [
        (Rule("sgd(lr)", lr=0.3), "--rates.lr 0.1;"),
        (Rule("sgd(0.3)"), "--optimizer TEXT;"),
    ],
)
def test_what_can_be_done_when_it_diverges(rule, flag):
    summary = {"name": "run", "config": config_files.to_json(make_run(rule))}
    assert flag in what_now(summary, "run")


def test_the_page_shows_the_text_and_its_values():
    class One:
        def __init__(self, rule):
            self.summary = {"config": config_files.to_json(make_run(rule))}

    class Several:
        def __init__(self, rule):
            self.runs = [One(rule)]

    assert scores._settings(Several(Rule("sgd(lr)", lr=0.1))) == "sgd(lr): lr 0.1"
    assert scores._settings(Several(Rule("sgd(lr)", lr=0.1, label="SGD"))) == "SGD: lr 0.1"
