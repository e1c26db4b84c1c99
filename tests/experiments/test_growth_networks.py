"""The networks with the generalised logistic activation: vmap, step size, schedule, resumption."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from experiments.growth_networks import __main__ as command
from experiments.growth_networks import config as configs
from experiments.growth_networks import experiment, networks, simulate, stages
from experiments.growth_networks.config import Arm, Config
from experiments.growth_networks.networks import Setting
from experiments.growth_networks.simulate import Data
from experiments.growth_networks.stages import Folder, Stage
from experiments.report import growth_networks as report

ARMS = (
    Arm("default", 0.5),
    Arm("best", 0.3, lower=0.1, upper=0.9, rate=2.8),
    Arm("schedule", 0.5, follow=3.0),
)


def made_up(pool=43, test=7, inputs=6, classes=3, seed=0):
    """Classes that overlap; 43 examples are 8 a fold and 3 left out."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, pool + test).astype(np.int32)
    images = draw.integers(0, 128, (pool + test, inputs)) + 60 * labels[:, None] // classes
    return Data(images.astype(np.uint8), labels, pool, classes)


def make_stage(data, arms=ARMS, *, reading="epochs", times=(1, 2, 3), seeds=(0, 1), groups=None):
    groups = simulate.make_groups(data, seeds, 5) if groups is None else groups
    return Stage("compare", arms, groups, reading, times, (4, 4), 5)


def written_out(params, arm, data, order, rates, size):
    """One network by NumPy, gradients by hand; returns the weights after each batch of `order`.

    With l' = r (l - a)(b - l)/(b - a) for the activation and, for the loss
    -ln((a + (b - a) s_y)/S), d/dz_j = -r (b - a) s_y (δ_jy - s_j) / (a + (b - a) s_y).
    """
    a, b = arm.lower, arm.upper
    params = [[np.array(leaf, float) for leaf in layer] for layer in params]
    for number, rate in enumerate(rates):
        rows = order[number * size : (number + 1) * size]
        values = [data.images[rows] / 255]
        for w, v in params[:-1]:
            values.append(a + (b - a) * scipy.special.expit(rate * (values[-1] @ w + v)))
        s = scipy.special.softmax(rate * (values[-1] @ params[-1][0] + params[-1][1]), axis=1)
        own = s[np.arange(size), data.labels[rows]][:, None]
        hot = np.eye(data.classes)[data.labels[rows]]
        delta = -rate * (b - a) * own * (hot - s) / (a + (b - a) * own) / size
        for layer in reversed(range(len(params))):
            w, v = params[layer]
            x = values[layer]
            back = delta @ w.T
            params[layer] = [w - arm.learning_rate * x.T @ delta]
            params[layer] += [v - arm.learning_rate * delta.sum(0)]
            delta = back * rate * (x - a) * (b - x) / (b - a)
    return params


def train(stage, data, tmp_path, name="run", **options):
    """Return the last state, with its weights."""
    folder = Folder(tmp_path / name, {"name": name})
    kept = []
    write = folder.write
    folder.write = lambda stage, state: (kept.append(state), write(stage, state))
    state = stages.run(stage, data, folder, **options)
    return state if state is None else (kept[-1] if kept else state)


def one(tree, group, arm):
    return jax.tree.map(lambda leaf: np.asarray(leaf)[group, arm], tree)


def assert_close(found, expected, rtol):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


# --- the networks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reading", ["epochs", "steps"])
def test_vmapped_folds_are_single_networks_written_out(reading, tmp_path):
    """All folds, seeds and arms at once give what NumPy gives for each alone, in float64."""
    data = made_up()
    with jax.enable_x64(True):
        stage = make_stage(data, reading=reading, times=(2, 10) if reading == "steps" else (1, 2))
        state = train(stage, data, tmp_path)
        sizes = (6, 4, 4, 3)
        begin = simulate.start(stage.groups, configs.settings(ARMS), sizes)
        epochs = [np.asarray(simulate.epoch_order(stage.groups, epoch)) for epoch in range(2)]
        # 32 training examples are 6 batches of 5 an epoch, and 2 that wait for another order.
        assert stage.steps_per_epoch == 6
        steps = stage.step_of(stage.times[-1])
        for group in range(10):
            order = np.concatenate([epoch[group, :30] for epoch in epochs])
            for k, arm in enumerate(ARMS):
                rates = configs.rate_table([arm], stage.times[-1])[:, 0]
                rates = np.repeat(rates, 6) if reading == "epochs" else rates
                expected = written_out(one(begin, group, k), arm, data, order, rates[:steps], 5)
                assert_close(one(state.params, group, k), expected, 1e-12)


def test_what_runs_beside_a_network_changes_nothing(tmp_path):
    """One fold of one seed with one arm, against all at once, in float64 to 1e-12."""
    data = made_up()
    with jax.enable_x64(True):
        whole = train(make_stage(data), data, tmp_path)
        groups = simulate.make_groups(data, (0, 1), 5)
        for group, k in ((0, 0), (3, 1), (9, 2)):
            alone = jax.tree.map(lambda leaf, g=group: leaf[g : g + 1], groups)
            stage = make_stage(data, ARMS[k : k + 1], groups=alone)
            state = train(stage, data, tmp_path, f"{group}")
            assert_close(one(state.params, 0, 0), one(whole.params, group, k), 1e-12)
            for single, all_ in zip(state.measured, whole.measured, strict=True):
                np.testing.assert_allclose(
                    single[..., 0, 0], all_[..., group, k], rtol=1e-12, equal_nan=True
                )


def test_the_rate_is_a_step_size(tmp_path):
    """(0, 1, r) with η is (0, 1, 1) with ηr² from weights r times as large: φ = rθ, same losses."""
    data, rate = made_up(), 2.8
    arms = (Arm("rate", 0.1, rate=rate), Arm("step", 0.1 * rate**2, scale=rate))
    with jax.enable_x64(True):
        state = train(make_stage(data, arms, times=(1, 20)), data, tmp_path)
        for group in range(10):
            grown = jax.tree.map(lambda leaf: rate * leaf, one(state.params, group, 0))
            assert_close(one(state.params, group, 1), grown, 1e-12)
        measured = np.array(state.measured)
        np.testing.assert_allclose(measured[..., 0], measured[..., 1], rtol=1e-12)
        assert measured[1, 0, 0].mean() < measured[0, 0, 0].mean(), "it learns"


def test_optimising_c_and_r_at_each_iteration_is_a_schedule():
    """φ_{j+1} = (r_{j+1}/r_j)(φ_j - η r_j² ∇L_1(φ_j)): learning rate and weight decay, to 1e-12."""
    data, eta, steps = made_up(), 0.7, 40
    with jax.enable_x64(True):
        table = networks.following_rate(np.arange(1, steps + 2), 3.0)
        followed = networks.initial_params(jax.random.key(0), (6, 4, 3), jnp.ones(()))
        scheduled = jax.tree.map(lambda leaf: table[0] * leaf, followed)
        images, labels = jnp.asarray(data.images / 255), jnp.asarray(data.labels)
        plain = Setting(eta, 0.0, 1.0, 1.0)
        for j in range(steps):
            rows = slice(5 * (j % 8), 5 * (j % 8) + 5)
            now, then = table[j], table[j + 1]
            followed = networks.sgd_step(followed, plain, now, images[rows], labels[rows])
            shorter = plain._replace(learning_rate=eta * now**2)
            stepped = networks.sgd_step(scheduled, shorter, 1.0, images[rows], labels[rows])
            scheduled = jax.tree.map(lambda leaf, f=then / now: f * leaf, stepped)
            assert_close(scheduled, jax.tree.map(lambda leaf, r=then: r * leaf, followed), 1e-12)


@pytest.mark.parametrize("constant", [0.01, 1.0, 3.0, 100.0])
def test_the_schedule_follows_the_square_root(constant):
    """g_j(c, r_j) = (ln j + W_0(c/j))/r_j = √j, W_0 by scipy."""
    j = np.array([1, 2, 10, 1000, 100_000])
    found = networks.following_rate(j, constant)
    w = scipy.special.lambertw(constant / j).real
    np.testing.assert_allclose((np.log(j) + w) / found, np.sqrt(j), rtol=1e-12)


def test_losses_stay_in_their_range():
    """a > 0: S = 3a + b - a = 1.1; -ln p lies in [ln(1.1/.9), ln(11)] however large logits are."""
    setting = Setting(0.1, 0.1, 0.9, 1.0)
    params = ((jnp.array([[1e4, -1e4, 0.0]]), jnp.zeros(3)),)
    found, right = networks.losses(params, setting, 1.0, jnp.ones((3, 1)), jnp.arange(3))
    np.testing.assert_allclose(found, [math.log(1.1 / 0.9), math.log(11), math.log(11)], rtol=1e-6)
    assert right.tolist() == [True, False, False]
    unbounded = Setting(0.1, 0.0, 1.0, 1.0)
    found, _ = networks.losses(params, unbounded, 1.0, jnp.ones((3, 1)), jnp.arange(3))
    np.testing.assert_allclose(found, [0, 2e4, 1e4], rtol=1e-6)
    gradient = jax.grad(
        lambda p: networks.losses(p, unbounded, 1.0, jnp.ones((3, 1)), jnp.arange(3))[0].sum()
    )(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_the_network_has_the_size_of_the_source():
    """784-10-10-10: 7,850 + 110 + 110; Glorot's limit is √(6/794), biases are 0."""
    params = networks.initial_params(jax.random.key(0), (784, 10, 10, 10))
    kernel, bias = params[0]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 8070
    assert 0.98 * math.sqrt(6 / 794) < float(abs(kernel).max()) <= math.sqrt(6 / 794)
    assert not bias.any()


# --- folds and measurements -----------------------------------------------------------------------


def test_folds_are_a_partition():
    data = made_up()
    groups = simulate.make_groups(data, (0, 5), 5)
    member = np.asarray(groups.member)
    assert member.shape == (10, 50)
    assert groups.train.shape == (10, 32)
    for seed in (member[:5], member[5:]):
        # Each example of the pool is validated once; 3 are in no split, the test set in its own.
        assert sorted((seed == 1).sum(0)[:43]) == [0] * 3 + [1] * 40
        assert ((seed[:, :43] == simulate.UNUSED).sum(1) == 3).all()
    assert (member[:, 43:] == 2).all()
    for rows, row in zip(np.asarray(groups.train), member, strict=True):
        assert sorted(rows) == np.flatnonzero(row == 0).tolist()
    assert not np.array_equal(member[0], member[5]), "each seed has its own folds"
    with pytest.raises(ValueError, match="folds is 44; expected at most the 43"):
        simulate.make_groups(data, (0,), 44)


def test_each_epoch_has_its_order():
    groups = simulate.make_groups(made_up(), (0,), 5)
    first, second = (np.asarray(simulate.epoch_order(groups, epoch)) for epoch in (0, 1))
    for order in (first, second):
        np.testing.assert_array_equal(np.sort(order), np.sort(groups.train))
    assert (first != second).any(axis=1).all()


def test_measurements_are_those_of_each_split(monkeypatch):
    """Against one network at a time over the split's own examples; blocks of 8 leave a rest."""
    monkeypatch.setattr(simulate, "BLOCK", 8)
    data = made_up(pool=44)
    with jax.enable_x64(True):
        groups = simulate.make_groups(data, (3,), 5)
        arms = ARMS[:2]
        settings = jax.tree.map(jnp.asarray, configs.settings(arms))
        params = simulate.start(groups, settings, (6, 4, 3))
        rates = jnp.array([1.0, 2.8])
        images, labels = jnp.asarray(data.images), jnp.asarray(data.labels)
        evaluate = simulate.evaluate.__wrapped__
        found = np.asarray(evaluate(params, settings, rates, images, labels, groups.member))
        assert found.shape == (3, 2, 5, 2)
        for group in range(5):
            for k, arm in enumerate(arms):
                for split in range(3):
                    rows = np.flatnonzero(np.asarray(groups.member)[group] == split)
                    loss, right = networks.losses(
                        one(params, group, k),
                        Setting(arm.learning_rate, arm.lower, arm.upper, 1.0),
                        rates[k],
                        jnp.asarray(data.images[rows] / 255),
                        labels[rows],
                    )
                    expected = [float(loss.mean()), np.asarray(right).mean()]
                    np.testing.assert_allclose(found[split, :, group, k], expected, rtol=1e-12)


# --- going on after a kill ------------------------------------------------------------------------


def stop_after(calls):
    asked = iter(range(10**6))
    return lambda: next(asked) >= calls


@pytest.mark.parametrize("reading", ["epochs", "steps"])
def test_a_run_that_was_cut_anywhere_ends_with_the_same_bits(reading, tmp_path, monkeypatch):
    data = made_up()
    stage = make_stage(data, reading=reading, times=(1, 3, 14))
    whole = train(stage, data, tmp_path, "whole")
    monkeypatch.setattr(stages, "PIECE_SECONDS", 1e-9)  # a step at a time
    state, cuts = None, 0
    while state is None:
        cuts += 1
        folder = Folder(tmp_path / "cut", {"name": "cut"})
        state = stages.run(stage, data, folder, stop_after(4))
    assert cuts >= 2
    np.testing.assert_array_equal(np.array(state.measured), np.array(whole.measured))
    assert state.step == stage.step_of(14)


def test_what_is_done_is_read(tmp_path, monkeypatch):
    data = made_up()
    stage = make_stage(data)
    first = train(stage, data, tmp_path)
    monkeypatch.setattr(stages, "advance", lambda *_, **__: pytest.fail("it is trained again"))
    again = stages.run(stage, data, Folder(tmp_path / "run", {"name": "run"}))
    np.testing.assert_array_equal(np.array(again.measured), np.array(first.measured))


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_state_is_begun_again(damage, tmp_path, capsys):
    data = made_up()
    stage = make_stage(data)
    first = train(stage, data, tmp_path)
    (path,) = (tmp_path / "run" / "state").glob("*.state")
    old = path.read_bytes()
    half = len(old) // 2
    flipped = old[:half] + bytes([old[half] ^ 1]) + old[half + 1 :]
    path.write_bytes({"cut": old[:half], "flip": flipped, "empty": b""}[damage])
    again = train(stage, data, tmp_path)
    assert "is damaged, or of another experiment: begun again" in capsys.readouterr().err
    np.testing.assert_array_equal(np.array(again.measured), np.array(first.measured))


def test_another_experiment_is_refused(tmp_path):
    data = made_up()
    config = Config(iterations=2, share=0.004, seeds=(0,), batch=5, hidden=(3,), controls=())
    experiment.run(config, tmp_path, data)
    other = dataclasses.replace(config, learning_rate=0.5)
    with pytest.raises(ValueError, match=r"learning_rate was 0.01, is 0.5. Use another --workdir"):
        experiment.run(other, tmp_path, data)
    with pytest.raises(ValueError, match=r"states of another config: data.sha256 was"):
        experiment.run(config, tmp_path, made_up(seed=1))
    plan = tmp_path / "state" / "plan.json"
    plan.write_text(plan.read_text().replace("0.01", "0.02"))
    with pytest.raises(ValueError, match="was changed after it was written"):
        experiment.run(config, tmp_path, data)
    plan.write_text("{")
    with pytest.raises(ValueError, match=r"plan.json is damaged .* delete"):
        experiment.run(config, tmp_path, data)


# --- what is searched and compared ----------------------------------------------------------------


def test_the_search_is_that_of_the_source():
    """15 % of 10 x 10 x 5 combinations are 75, none twice, and as many rates for the default."""
    found = configs.candidates(Config())
    combinations = [arm for arm in found if arm.name == "combination"]
    assert len({(arm.lower, arm.upper, arm.rate) for arm in combinations}) == 75
    np.testing.assert_allclose(configs.RATE, [0.5, 1.65, 2.8, 3.95, 5.1], rtol=1e-12)
    assert (configs.LOWER[0], configs.LOWER[-1], len(configs.LOWER)) == (0, 0.15, 10)
    assert (configs.UPPER[0], configs.UPPER[-1], len(configs.UPPER)) == (0.85, 1, 10)
    assert {arm.learning_rate for arm in combinations} == {0.01}
    tuned = [arm for arm in found if arm.name == "learning rate"]
    assert len({arm.learning_rate for arm in tuned}) == 75
    assert all(1e-3 <= arm.learning_rate <= 10 for arm in tuned)
    assert {(arm.lower, arm.upper, arm.rate) for arm in tuned} == {(0, 1, 1)}
    assert configs.candidates(Config()) == found
    assert configs.candidates(Config(search_seed=1)) != found
    assert len(configs.candidates(Config(controls=()))) == 75


def test_arms_are_what_they_say():
    best = Arm("combination", 0.01, 0.1, 0.9, 2.8)
    found = {arm.name: arm for arm in configs.arms(Config(), best, Arm("learning rate", 2.0))}
    assert found["default"] == Arm("default", 0.01)
    assert found["best"] == dataclasses.replace(best, name="best")
    assert found["tuned"] == Arm("tuned", 2.0)
    assert found["step"] == Arm("step", 0.01 * 2.8**2)
    assert found["rate"] == Arm("rate", 0.01, rate=2.8)
    assert found["schedule"] == Arm("schedule", 0.01, follow=3.0)
    short = configs.arms(Config(controls=("rate",)), best, None)
    assert [arm.name for arm in short] == ["default", "best", "rate"]


@pytest.mark.parametrize(("kind", "size"), [("size", 7), ("number", 4)])
def test_what_25_batches_can_mean(kind, size):
    """Of 32 training examples: batches of 7; or 7 batches, of 4 each."""
    assert configs.batch_size(Config(batch=7, batch_is=kind), 32) == size
    with pytest.raises(ValueError, match="batch is 33; expected at most the 32 training examples"):
        configs.batch_size(Config(batch=33, batch_is=kind), 32)


def test_the_published_iterations_are_always_recorded():
    for records in (2, 7, 500):
        assert {1, 100, 1000} <= set(configs.record_times(1000, records))
    assert configs.record_times(1, 50) == [1]
    assert configs.record_times(50, 2) == [1, 50]


def test_gains_and_growths_by_hand():
    """Two times, two folds, two arms.

    Validation accuracy: default .5 .7 -> .6 .8; best .6 .9 -> .9 .9. Gains at time 1: 10, 20
    points, 15 ± 7.07; at the end (2) 30, 10: 20 ± 14.1. The loss of best goes 1 2 -> 2 4: it rises
    by 1 and 2.
    """
    measured = np.zeros((2, 3, 2, 2, 2))
    measured[:, experiment.VALIDATION, experiment.ACCURACY, :, 0] = [[0.5, 0.7], [0.6, 0.8]]
    measured[:, experiment.VALIDATION, experiment.ACCURACY, :, 1] = [[0.6, 0.9], [0.9, 0.9]]
    measured[:, experiment.VALIDATION, experiment.LOSS, :, 1] = [[1, 2], [2, 4]]
    measured[1, experiment.TRAIN, experiment.LOSS, 1, 1] = np.inf
    found = experiment.summarise(measured, [Arm("default", 1), Arm("best", 1)], [1, 2])
    gains = found["gains"]["best"]
    assert set(gains) == {"1", "2"}
    assert gains["1"]["mean"] == pytest.approx(15)
    assert gains["1"]["std"] == pytest.approx(math.sqrt(50))
    assert gains["2"]["mean"] == pytest.approx(20)
    assert found["growth"]["best"]["rise"] == pytest.approx({"mean": 1.5, "std": math.sqrt(0.5)})
    assert found["growth"]["default"]["rise"] == {"mean": 0, "std": 0}
    assert found["diverged"] == {"default": 0, "best": 1}
    assert found["curves"]["best"]["validation_accuracy"]["mean"] == pytest.approx([75, 90])


# --- the command and its page ---------------------------------------------------------------------

LINE = (
    *("--dataset", "digits", "--examples", "60", "--folds", "2", "--iterations", "2"),
    *("--share", "0.004", "--seeds", "0", "--hidden", "3", "--batch", "10"),
)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("growth_networks")
    assert command.main(["--workdir", str(workdir), *LINE]) == 0
    return json.loads((workdir / "summary.json").read_text()), workdir


def test_the_command_writes_its_files(whole_run):
    summary, workdir = whole_run
    assert (summary["status"], summary["train"], summary["validation"]) == ("finished", 30, 30)
    assert set(summary["results"]) == {"epochs", "steps"}
    for reading in summary["results"]:
        figure = workdir / "figures" / f"growth_networks_{reading}"
        assert figure.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
        assert figure.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert len(list((workdir / "tables").glob("*.csv"))) == 8
    page = (workdir / "report.md").read_text()
    for look in report.LOOKS.values():
        assert look.label.replace("_", r"\_") in page or look.label in page
    assert "An iteration is a step of SGD" in page


def test_the_same_line_again_trains_nothing(whole_run, monkeypatch, capsys):
    summary, workdir = whole_run
    monkeypatch.setattr(stages, "advance", lambda *_, **__: pytest.fail("it is trained again"))
    assert command.main(["--workdir", str(workdir), *LINE]) == 0
    assert "Networks with the generalised logistic" in capsys.readouterr().out
    again = json.loads((workdir / "summary.json").read_text())
    assert again["results"]["steps"]["curves"] == summary["results"]["steps"]["curves"]


def test_the_published_numbers_stand_beside_ours(whole_run):
    summary = dict(whole_run[0], dataset="mnist", published=experiment.PUBLISHED["mnist"])
    found = summary["results"]["epochs"]
    table = report.gains("epochs", found, {"gains": {"1": 0.54, "100": 0.53}, "growth": 88.3})
    names = [row[0].text for row in table.rows]
    assert names[-1] == "published, best combination"
    assert [cell.text for cell in table.rows[-1][2:]] == ["0.54", "–", "–", "–"]
    page = report.make_page(summary)
    assert "Published for the best combination: 88.3." in page.tables[2].caption
    assert page.pictures[0].caption.startswith("Figure 2")
    assert "; examples is 60 (0, all); folds is 2 (5); hidden" in page.lead
    published = {**summary["config"], **json.loads(json.dumps(dataclasses.asdict(Config())))}
    assert "Not the source" not in report.make_page({**summary, "config": published}).lead
    assert experiment.PUBLISHED["mnist"] == {
        "gains": {1: 0.54, 100: 0.53, 1000: 0.36},
        "growth": 88.3,
    }
    fashion = experiment.PUBLISHED["fashion_mnist"]
    assert fashion == {"gains": {1: 30.8, 100: 2.94, 1000: 1.05}, "growth": 3.4}
    other = report.make_page(summary | {"dataset": "fashion_mnist", "published": fashion})
    assert other.pictures[0].caption.startswith("Figure 3")
    assert len(Config().seeds) >= 3


def test_no_share_is_said_of_a_gain_within_its_spread():
    small, large = {"mean": 0.1, "std": 0.2}, {"mean": 3.0, "std": 0.1}
    said = report.judgement({"gains": {"best": {"1": small}, "tuned": {"1": large}}})
    assert "%" not in said
    assert "0.10 ± 0.20 points" in said
    said = report.judgement({"gains": {"best": {"1": large}, "tuned": {"1": {**large, "mean": 6}}}})
    assert "(200 % of that)" in said


def test_networks_that_diverged_are_named(whole_run):
    found = json.loads(json.dumps(whole_run[0]["results"]["epochs"]))
    found["diverged"]["tuned"] = 2
    nothing = {"mean": None, "std": None}
    found["gains"]["tuned"] = dict.fromkeys(found["gains"]["tuned"], nothing)
    found["growth"]["tuned"] = {"rise": nothing, "change": nothing}
    curves = found["curves"]["tuned"]["validation_loss"]
    curves["mean"] = [None] * len(curves["mean"])
    assert "2 diverged" in [row[0].note for row in report.scores("epochs", found).rows]
    assert "not finite" in [cell.text for cell in report.growth("epochs", found, {}).rows[2]]
    assert "not finite" in report.judgement(found)
    report.figure(found)


def test_a_diverged_candidate_is_not_chosen():
    found = [Arm("combination", 1, rate=r) for r in (1.0, 2.0, 3.0)]
    losses = np.array([1.0, np.inf, 1.0])
    assert experiment.choose(found, np.array([0.5, 0.9, 0.5]), losses, "combination") == found[0]
    assert experiment.choose(found, np.array([0.5, 0.9, 0.5]), losses, "learning rate") is None


def test_the_small_form_is_small():
    found = configs.small(Config(dataset="fashion_mnist"))
    assert (found.examples, found.iterations, len(configs.candidates(found))) == (2000, 20, 16)
    assert configs.small(Config(examples=100, iterations=3)).examples == 100


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "mnits"}, "did you mean 'mnist'"),
        ({"seeds": (1, 1)}, "no two alike"),
        ({"readings": ()}, "at least one"),
        ({"controls": ("tuned", "nothing")}, r"controls\[1\] is 'nothing'"),
        ({"share": 0.0}, "share is 0.0; expected a number above 0"),
        ({"folds": 1}, "folds is 1"),
        ({"lowest_rate": 2.0, "highest_rate": 1.0}, "lowest_rate is 2.0; expected a number below"),
    ],
)
def test_bad_input_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        Config(**change)


def test_a_stopped_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "stop_on_signal", lambda: lambda: True)
    monkeypatch.setattr(command, "stopped", lambda workdir: 75)
    assert command.main(["--workdir", str(tmp_path), *LINE]) == 75
    assert not (tmp_path / "summary.json").exists()
