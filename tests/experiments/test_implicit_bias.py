"""Trajectories against numbers of another program and against loops, and what the page says."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.special

import clipjax
from clipjax.analysis import hard_margin_separator
from experiments.implicit_bias import __main__ as command
from experiments.implicit_bias import robust, run, sets
from experiments.implicit_bias.methods import METHODS, Method
from experiments.implicit_bias.run import Config
from experiments.implicit_bias.trajectories import (
    as_learning_rates,
    follow,
    growth,
    log_spaced,
    measure,
)
from experiments.report import implicit_bias as report

POINTS = sets.points()
GD = Method()
NORMALIZED = Method("normalized", "exponential")


def errors(methods, steps):
    separator = hard_margin_separator(*POINTS)
    found = follow(methods, POINTS, np.array(steps))
    return np.array([measure(theta, POINTS, separator)["error"] for theta in found])


def test_gradient_descent_errs_as_in_an_independent_program():
    # That program: steps of 1/32 on the summed loss of the same points, the separator by SLSQP.
    found = errors([GD, Method(r=0.5), Method(r=2.0)], [10_000])[:, 0]
    np.testing.assert_allclose(found, [0.06973, 0.07708, 0.06144], atol=1e-5)


def test_normalised_descent_errs_as_in_an_independent_program():
    (found,) = errors([NORMALIZED], [10, 1000, 10_000, 100_000])
    np.testing.assert_allclose(found, [0.0787, 0.0449, 0.0228, 0.0078], atol=1e-4)
    # O(1/√t): a tenth of the error takes a hundred times the steps, within a quarter.
    assert found[3] / found[1] < 0.25


@pytest.mark.parametrize("loss", ["logistic", "exponential", "generalized"])
def test_r_is_a_step_size(loss):
    # L_r(θ) = L_1(rθ): θ_r = θ_1/r where η_r = η_1/r².
    methods = [Method(loss=loss, r=r, rate=1 / r**2) for r in (1.0, 0.5, 2.0)]
    one, half, two = follow(methods, POINTS, np.array([1, 30, 200]))
    np.testing.assert_allclose(0.5 * half, one, rtol=1e-9)
    np.testing.assert_allclose(2 * two, one, rtol=1e-9)


@pytest.mark.parametrize(("c", "r", "rate"), [(-1.0, 1.0, 1.0), (-0.3, 2.0, 0.1)])
def test_r_chosen_anew_at_each_step_is_a_schedule_of_learning_rates(c, r, rate):
    # φ_t = (r_{t+1}/r_t) (φ_{t-1} - η r_t² ∇L_1(φ_{t-1})): the same weights to rounding.
    method = Method(loss="generalized", c=c, r=r, rate=rate, follow=3.0)
    theta = follow([method], POINTS, np.array([1, 30, 2000]))[0][0]
    for steps, expected in zip((1, 30, 2000), theta, strict=True):
        np.testing.assert_allclose(as_learning_rates(method, POINTS, steps), expected, rtol=1e-11)
    # ... which a constant r does not have.
    (constant,) = follow([dataclasses.replace(method, follow=0.0)], POINTS, np.array([2000]))
    assert np.linalg.norm(constant[0, 0]) < 0.8 * np.linalg.norm(theta[-1])


def test_that_schedule_turns_to_the_separator_slower_than_a_constant_r():
    # It descends L_1(φ) + λ|φ|²/2, λ = (1/2 - 1/ln t)/(η (ln t)²): φ lags behind its minimiser.
    steps, method = 100_000, METHODS["gompertz_schedule"]
    found = run.schedule(POINTS, steps, Config())
    early = run.schedule(POINTS, 1000, Config())
    assert found is not None
    assert early is not None
    signed = POINTS.labels[:, None] * POINTS.x
    decay = (0.5 - 1 / np.log(steps)) / (method.rate * np.log(steps) ** 2)

    def regularised(phi):
        tail = np.exp(-signed @ phi)
        slope = method.c * np.exp(method.c * tail) * tail @ signed / 32
        return -np.expm1(method.c * tail).mean() + decay * phi @ phi / 2, slope + decay * phi

    best = scipy.optimize.minimize(regularised, [3.0, 3.0], jac=True, tol=1e-12).x
    assert found["norm"] == pytest.approx(np.linalg.norm(best), rel=0.04)
    separator = hard_margin_separator(*POINTS)
    error = measure(best[None, None], POINTS, separator)["error"][0]
    assert found["error"] == pytest.approx(error, rel=0.01)
    assert found["error"] > 1.3 * found["constant"]
    assert found["rescaled"] == pytest.approx(found["error"], rel=1e-6)
    assert found["apart"] < 1e-9
    # From 1,000 steps on the error even rises; √t times it is what the paper wants constant.
    assert found["error"] > early["error"]


def written_out(method, steps, key):
    """Return θ after each step by a loop, and gradients by hand for GD's losses."""
    signed = POINTS.labels[:, None] * POINTS.x
    m, n = signed.shape

    def gompertz(z):  # 1 - exp(c e^{-z})
        return -method.c * np.exp(method.c * np.exp(-z) - z)

    def richards(z):  # 1 - (1 + Q e^{-z})^{-1/q}, Q = e^{-qc} - 1
        q, factor = method.q, np.expm1(-method.q * method.c)
        return factor / q * np.exp(-z) * (1 + factor * np.exp(-z)) ** (-1 / q - 1)

    theta, velocity, square, found = np.zeros(n), np.zeros(n), np.zeros(n), []
    for k in range(steps):
        batch = signed
        if method.rule in ("sgd", "clipped_sgd"):
            batch = signed[np.asarray(jax.random.randint(jax.random.fold_in(key, k), (4,), 0, m))]
        r = method.r
        if method.follow:  # (19), W_0 by scipy: g_t(c, r_t) = √t
            t = k + 1
            r *= (np.log(t) + scipy.special.lambertw(method.follow / t).real) / np.sqrt(t)
        margins = r * (batch @ theta)
        slopes = {  # -dℓ/dm
            "logistic": lambda z: 1 / (1 + np.exp(z)),
            "exponential": lambda z: np.exp(-z),
            "generalized": richards if method.q else gompertz,
        }[method.loss](margins)
        gradient = -r * (slopes @ batch) / len(batch)
        if method.rule == "normalized":
            values = (
                np.exp(-margins) if method.loss == "exponential" else np.log1p(np.exp(-margins))
            )
            gradient = gradient / values.mean() / np.sqrt(k + 1)
        if method.rule == "clipped_sgd":
            gradient = gradient * min(1, method.level / np.linalg.norm(gradient))
        if method.rule == "adam":
            velocity = 0.9 * velocity + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            mean, scale = velocity / (1 - 0.9 ** (k + 1)), square / (1 - 0.999 ** (k + 1))
            gradient = mean / (np.sqrt(scale) + 1e-8)
        theta = theta - method.rate * gradient
        found.append(theta)
    return np.array(found)


@pytest.mark.parametrize(
    "method",
    [
        Method(rate=0.7, r=0.5),
        Method(loss="exponential"),
        Method(loss="generalized", c=-2.0),
        Method(loss="generalized", c=-1.5, q=0.4, r=1.3),
        Method(loss="generalized", c=-2.0, r=0.7, follow=3.0),
        NORMALIZED,
        Method("normalized", "logistic", rate=0.3),
        Method("sgd"),
        Method("clipped_sgd", level=0.1),
        Method("adam", rate=0.01),
    ],
    ids=lambda method: method.label,
)
def test_every_rule_is_what_a_loop_does(method):
    other = dataclasses.replace(method, rate=2 * method.rate)  # two of them share the program
    found, _ = follow([method, other], POINTS, np.arange(1, 13), seeds=2, seed=5)
    with jax.enable_x64(True):
        for run_number, theta in enumerate(found):
            key = jax.random.fold_in(jax.random.key(5), run_number)
            np.testing.assert_allclose(theta, written_out(method, 12, key), rtol=1e-8, atol=1e-12)


def test_clipped_sstm_is_shown_at_its_answer_not_where_it_asks():
    method = METHODS["clipped_sstm"]
    (found,) = follow([method], POINTS, np.arange(1, 6), seed=3)
    with jax.enable_x64(True):
        signed = jnp.asarray(POINTS.labels[:, None] * POINTS.x)
        smoothness = np.linalg.norm(signed, 2) ** 2 / (4 * 32)
        tx = clipjax.clipped_sstm(method.rate, smoothness, method.level)
        theta, expected = jnp.zeros(2), []
        state = tx.init(theta)
        key = jax.random.fold_in(jax.random.key(3), 0)
        for k in range(5):
            batch = signed[jax.random.randint(jax.random.fold_in(key, k), (4,), 0, 32)]
            gradient = jax.grad(lambda w, z: jnp.mean(jax.nn.softplus(-z @ w)))(theta, batch)
            update, state = tx.update(gradient, state, theta)
            theta = theta + update
            expected.append(clipjax.eval_params(state, theta))
    np.testing.assert_allclose(found[0], np.array(expected), rtol=1e-9)


def test_predicted_growth():
    # g_t(c, r) solves f(g; c, r) = r g - c e^{-rg} = ln t; the other losses have its limit.
    steps = np.array([1, 2, 100, 100_000])
    g = growth(Method(loss="generalized", c=-2.0, r=0.5), steps)
    assert np.isnan(g[:2]).all()  # below e |c| = 5.4
    np.testing.assert_allclose(0.5 * g[2:] + 2 * np.exp(-0.5 * g[2:]), np.log(steps[2:]))
    np.testing.assert_allclose(growth(Method(r=2.0), steps)[1:], np.log(steps[1:]) / 2)
    np.testing.assert_allclose(growth(NORMALIZED, steps), np.sqrt(steps))
    aim = growth(METHODS["gompertz_schedule"], steps)
    np.testing.assert_allclose(aim, np.sqrt(steps))
    assert np.isnan(growth(Method("adam"), steps)).all()


@pytest.mark.parametrize(("c", "r"), [(-2.0, 1.0), (-0.3, 3.0), (-1.0, 0.5)])
def test_growth_is_that_of_descent_on_one_example(c, r):
    # θ' = |c| r exp(-f(θ; c, r)) and f' ≈ r for large θ: θ_t ≈ g_T(c, r), T = |c| r² t. The rest,
    # as another program found it, is at most 0.03 at t = 1e3 and 0.005 at 1e4.
    method = Method(loss="generalized", c=c, r=r)
    one = sets.Examples(np.array([[1.0], [-1.0]]), np.array([1, -1]))
    (theta,) = follow([method], one, np.array([1000, 10_000]))
    predicted = growth(method, -c * r**2 * np.array([1000, 10_000]))
    assert (np.abs(theta[0, :, 0] - predicted) < [0.03, 0.005]).all()


@pytest.mark.parametrize("last", [1, 9, 1000, 12_345])
def test_steps_are_log_spaced_with_powers_of_ten(last):
    steps = log_spaced(last, 5)
    assert steps[0] == 1
    assert steps[-1] == last
    assert (np.diff(steps) > 0).all()
    assert {10**i for i in range(8) if 10**i <= last} <= set(steps.tolist())


@pytest.mark.parametrize("name", sets.PLANE)
def test_sets_in_the_plane_are_separable(name):
    examples = sets.PLANE[name][1]()
    assert set(examples.labels) == {-1, 1}
    assert (
        len(hard_margin_separator(*examples).support) == 2
    )  # a plane that one point fixes is dull


def test_turned_labels_leave_a_loss_and_weights_that_stay():
    config = Config(steps=3000)
    found = run.almost_separable(config, log_spaced(config.steps))
    assert found["turned"] == 2  # 5 % of 32 points
    examples = sets.flipped(POINTS, 0.05, config.seed)
    assert (examples.labels != POINTS.labels).sum() == 2
    signed = examples.labels[:, None] * examples.x
    best = scipy.optimize.minimize(
        lambda w: (np.exp(-signed @ w).mean(), -signed.T @ np.exp(-signed @ w) / 32),
        np.zeros(2),
        jac=True,
        tol=1e-12,
    )
    row = next(row for row in found["rows"] if row["label"] == "GD, exponential")
    assert best.fun > 0.1
    assert row["loss"] == pytest.approx(best.fun, rel=1e-9)
    assert row["norm"] == pytest.approx(np.linalg.norm(best.x), rel=1e-6)
    assert row["turn"] < 1e-6
    assert row["wrong"] == ((signed @ best.x) <= 0).sum()


# --- wrong labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [0.0, 0.1])
def test_directions_are_gradients_of_what_the_docstring_says(c):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        x, theta = jnp.asarray(rng.normal(size=(20, 3))), jnp.asarray(rng.normal(size=3))
        y = jnp.asarray(rng.integers(0, 2, 20), float)
        span = 1 - 2 * c

        def loss(theta):
            p = c + span * jax.nn.sigmoid(x @ theta)
            return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))

        def convex(theta):
            u = x @ theta
            return span * jnp.mean(c * u + span * jax.nn.softplus(u) - y * u)

        for objective, exact in ((convex, False), (loss, True)):
            found = robust.direction(theta, x, y, jnp.asarray(c), jnp.asarray(exact))
            np.testing.assert_allclose(found, jax.grad(objective)(theta), rtol=1e-9)


def test_accuracies_of_held_out_examples():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 3)) * [1.0, 50.0, 0.0] + [5.0, -100.0, 7.0]  # unscaled, one constant
    labels = np.where((x[:, 0] - 5) + (x[:, 1] + 100) / 50 > 0, 1, -1)
    found = robust.accuracies(
        sets.Examples(x, labels), (0.0, 0.3), (0.0, 0.1), repeats=4, steps=300
    )
    assert found.shape == (2, 2, 2, 4)
    np.testing.assert_array_equal(found[0, 0], found[1, 0])  # without asymptotes, one method
    assert found[:, :, 0].mean() > 0.95
    assert 0.75 < found[:, :, 1].mean() < found[:, :, 0].mean()
    turned = robust._split(sets.Examples(x, labels), (0.0, 0.25), np.random.default_rng(0))
    rows, signs, held_out, truth = turned
    assert (len(rows), len(held_out), len(truth)) == (160, 40, 40)
    assert (signs[0] != signs[1]).sum() == 40
    np.testing.assert_allclose(rows.mean(axis=0), [0, 0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(rows.std(axis=0), [1, 1, 0, 0], atol=1e-12)


# --- the command ----------------------------------------------------------------------------------

SMALL = Config(plane=("points",), steps=10, runs=1, digits=(), files=())


class Digits:
    """Pictures of one bright pixel: 3 is at the left, 8 at the right, 4 anywhere."""

    def __len__(self):
        return 30

    def __getitem__(self, i):
        label = (3, 8, 4)[i % 3]
        image = np.zeros((2, 4, 1), np.uint8)
        image[i % 2, {3: 0, 8: 3}.get(label, i % 4)] = 255
        return {"image": image, "label": label}


def test_pairs_of_digits(monkeypatch):
    monkeypatch.setattr(sets.data, "load", lambda name, split, data_dir: Digits())
    config = dataclasses.replace(SMALL, digits=("3-8", "3-4"), digit_steps=10, digit_examples=12)
    found = run.on_digits(config, None)
    separable, not_separable = found["pairs"]
    assert found["missing"] == ""
    # Nearest points of the classes: two bright pixels each, their halves; |(½, ½) - (½, ½)| = 1,
    # half of that is the margin, with the column of ones weighing nothing.
    assert separable["margin"] == pytest.approx(0.5)
    assert {row["rule"] for row in separable["rows"]} == {m.rule for m in METHODS.values()}
    assert all(np.isfinite(row["error"]).all() for row in separable["rows"])
    assert "examples" in not_separable["inseparable"]
    assert not not_separable["rows"]


def test_step_sizes_have_the_units_of_the_data():
    big = sets.Examples(100 * POINTS.x, POINTS.labels)
    methods = [m for m in METHODS.values() if m.r == 1 and m.loss != "generalized"]
    small, large = (
        follow([run.scaled_to(m, examples) for m in methods], examples, np.arange(1, 6))
        for examples in (POINTS, big)
    )
    for one, other in zip(small, large, strict=True):
        np.testing.assert_allclose(100 * other, one, rtol=1e-4)  # Adam's 1e-8 has no units


def test_the_command_writes_all_and_says_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLIPJAX_LIBSVM_DIR", str(tmp_path))
    flags = ["--plane", "points", "--steps", "100", "--data-dir", str(tmp_path / "none"), "--quick"]
    assert command.main(["--workdir", str(tmp_path / "w"), *flags]) == 0
    said = capsys.readouterr().out
    assert "python -m experiments.prepare --dataset mnist" in said
    assert "heart is left out" in said
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    assert summary["config"]["steps"] == 100
    (one,) = summary["sets"].values()
    assert [row["label"] for row in one["rows"]] == [method.label for method in METHODS.values()]
    assert np.load(tmp_path / "w" / "weights.npz")["points"].shape == (17, len(one["steps"]), 2)
    for name in ("implicit_bias", "directions", "planes"):
        for end in ("png", "pdf"):
            assert (tmp_path / "w" / "figures" / f"{name}.{end}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plane": ("blob",)}, "did you mean 'blobs'"),
        ({"digits": ("8-3",)}, r"digits\[0\] is '8-3'"),
        ({"files": ("a9a",)}, "files"),
        ({"asymptotes": (0.5,)}, r"asymptotes\[0\] is 0.5; expected a number from 0, below 0.5"),
        ({"steps": 5}, "steps is 5"),
    ],
)
def test_bad_input_is_named(change, words):
    with pytest.raises(ValueError, match=words):
        Config(**change)


@pytest.mark.parametrize("name", ["clipped_sstm", "gd"])
def test_one_method_is_enough(name, tmp_path, capsys):
    summary = run.run(dataclasses.replace(SMALL, methods=(name, name)), tmp_path)
    assert [row["rule"] for row in summary["sets"]["points"]["rows"]] == [name]
    said = capsys.readouterr().out
    assert ("neither of which was asked for" in said) == (name != "gd")
    assert summary["schedule"] is None
    assert "chooses c and r anew" not in said
    assert "No pairs were asked for" in said


def test_what_asymptotes_change_is_said_of_turned_labels_alone():
    # Directions, asymptotes 0 and 0.1, flips 0 and 10 %: +1 and -2 points; without flips, 90.
    files = {"a": {"mean": [[[0.9, 0.7], [0.0, 0.71]], [[0.9, 0.7], [0.0, 0.68]]]}}
    config = {"flips": (0.0, 0.1), "asymptotes": (0.0, 0.1)}
    assert "by −2.0 to +1.0 points" in report._changes(files, config)
    assert "no comparison" in report._changes(files, config | {"asymptotes": (0.1, 0.2)})


def test_what_is_compared():
    rules = {method.rule for method in METHODS.values()}
    assert rules == {"gd", "normalized", "sgd", "clipped_sgd", "clipped_sstm", "adam"}
    generalized = [m for m in METHODS.values() if m.loss == "generalized"]
    for name in ("c", "r", "q"):
        assert len({getattr(method, name) for method in generalized}) > 1, name
    assert any(method.follow for method in generalized)
    # The robust regression as published: 50 repeats; labels wrong up to 30 %.
    assert (Config().repeats, max(Config().flips), min(Config().flips)) == (50, 0.3, 0.0)


def test_labels_of_methods_differ():
    assert len({method.label for method in METHODS.values()}) == len(METHODS)
