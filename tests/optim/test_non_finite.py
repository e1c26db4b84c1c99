"""What gradients do that are not finite, or as large as floats are: every row of the contract.

The rules written out in float64 say where an update may be a number. A guard such as
`where(x > 0, ..., 0)` that takes NaN for zero turns "not finite" into "stands still": the run goes
on, nothing moves, and no check of the loss sees it.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax.optim import theory
from clipjax.optim.clipping._tensor_norms import most_shortened
from tests.optim import written_out as rules
from tests.optim.contract_rows import ROWS, graduated_schedule
from tests.optim.problems import feed, gradients, tree

LARGEST = float(np.finfo(np.float32).max)
BAD = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "largest": LARGEST}
FIRST, MIDDLE, STEPS = 0, 3, 6
GOOD = gradients(STEPS)


def sstm_sizes(k, nu=1.0, offset=2):
    return 0.5 * (k + offset) ** (2 * nu / (1 + nu)) / 6


def sstm_levels(k):
    return 1.0 / sstm_sizes(k)


def hoelder_sizes(k):
    return sstm_sizes(k, 0.5, 1)


def stage(numbers):
    """Stages of 1, 1 and 50 steps."""
    return lambda k: numbers[min(k, 2)]


def restarted_sstm(x, t):
    return rules.triangles(x, sstm_sizes, lambda k: 0.5**t / sstm_sizes(k))


def restarted_sgd(x, t):
    return rules.mean_of_iterates(x, rules.sgd(0.1, 1.0), start=2)


def staged_sgd(x):
    plan = graduated_schedule(0.1)
    return rules.sgd(stage(plan.learning_rates), 1.0, momentum=stage(plan.momenta))


ADAM = {"rate": 0.1, "level": 1.0, "b1": 0.8, "b2": 0.9, "eps": 1e-8, "correct": True}

RULES = {
    "clip_by_global_norm": lambda x: rules.descent(rules.clipper("global_norm", 1.0)),
    "clip_by_tensor_norm": lambda x: rules.descent(rules.clipper("tensor_norm", 0.5)),
    "clip_by_value": lambda x: rules.descent(rules.clipper("value", 0.5)),
    "normalize_by_global_norm": lambda x: rules.descent(rules.normalize),
    "clip_by_quantile": lambda x: rules.descent(rules.quantile_per_tensor(0.5, 4)),
    "clip_by_zscore": lambda x: rules.descent(rules.zscore(1.5, 0.9, 2, 1.0)),
    "clip_by_adaptive_norm": lambda x: rules.descent(rules.adaptive_norm(1.05, 1.0, 0.9, 1)),
    "clip_with_probability": lambda x: rules.descent(
        rules.at_random(1.0, 0.9, jax.random.PRNGKey(3))
    ),
    "clipped_sgd": lambda x: rules.sgd(0.1, 1.0),
    "clipped_sgd_nesterov": lambda x: rules.sgd(0.1, 1.0, "tensor_norm", 0.8, nesterov=True),
    "clipped_sgd_after_momentum": lambda x: rules.sgd(0.1, 1.0, "value", 0.8, after=True),
    "scale_by_similar_triangles": lambda x: rules.triangles(x, lambda k: 0.3),
    "clipped_sstm": lambda x: rules.triangles(x, sstm_sizes, sstm_levels),
    "clipped_sstm_hoelder": lambda x: rules.triangles(
        x, hoelder_sizes, lambda k: np.inf if k < 2 else 1 / hoelder_sizes(k), "value", 0.9
    ),
    "sstm": lambda x: rules.triangles(x, sstm_sizes),
    "average_iterates": lambda x: rules.sgd(0.1, 1.0),
    "average_iterates_decay": lambda x: rules.sgd(0.1, 1.0),
    "accumulate_gradients": lambda x: rules.sgd(0.1, 1.0, momentum=0.8),
    "measure_gradient_variance": lambda x: rules.sgd(0.1, 1.0),
    "implicit_graduated_optimization": staged_sgd,
    "staged": staged_sgd,
    "with_restarts": lambda x: rules.restarted(x, restarted_sstm, lambda k: k in (3, 30)),
    "with_restarts_average": lambda x: rules.restarted(x, restarted_sgd, lambda k: k % 3 == 0),
    "clipped_adam": lambda x: rules.moments(**ADAM),
    "clipped_adam_norm": lambda x: rules.moments(**ADAM, norm=True),
    "clipped_adam_delayed": lambda x: rules.moments(
        **{**ADAM, "correct": False}, kind="value", initial=1.0, delayed=True
    ),
    "clipped_adagrad": lambda x: rules.moments(0.5, 1.0, eps_root=1e-7, initial=0.1),
    "clipped_adagrad_delayed": lambda x: rules.moments(
        1.0, 1.0, "tensor_norm", eps_root=1e-7, initial=0.5, norm=True, delayed=True
    ),
    "acclip": lambda x: rules.acclip(0.1, alpha=1.5),
    "acclip_normalized": lambda x: rules.acclip(0.02, normalize=True),
    "scale_by_shampoo": lambda x: rules.descent(rules.preconditioned(0.9, eps=1e-3)),
    "shampoo": lambda x: rules.shampoo(1.0, None, eps=1e-3, grafting="none", initial=0.1),
    "shampoo_stale": lambda x: rules.heavy_ball(
        rules.shampoo(0.1, None, eps=1e-3, block=2, every=2, grafting="sgd"), 0.5
    ),
    "average_iterates_weights": lambda x: rules.sgd(0.1, 1.0),
}


def spoiled(bad, at):
    """The gradients, one coordinate of one of them replaced."""
    worse = {**GOOD[at], "vector": GOOD[at]["vector"].at[1].set(bad)}
    return [worse if k == at else g for k, g in enumerate(GOOD)]


def updates_of(tx, grads):
    params, rows = tree(), []
    state = tx.init(params)
    for g in grads:
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        rows.append({n: np.asarray(leaf, np.float64) for n, leaf in updates.items()})
    return rows


def assert_follows(actual, expected, largest):
    """Not a number wherever the rule's update is none; where both are numbers, the same ones.

    `largest`: every gradient was finite, and the rule's updates fit float32: so must ours.
    """
    size = {n: np.ones_like(leaf) for n, leaf in expected[0].items()}
    for k, (ours, rule) in enumerate(zip(actual, expected, strict=True)):
        for n, wanted in rule.items():
            finite = np.isfinite(ours[n])
            assert not np.any(finite & ~np.isfinite(wanted)), f"step {k}, {n}: a number, not NaN"
            if largest:
                assert np.all(finite), f"step {k}, {n}: {ours[n]} where the rule gives {wanted}"
            # Rounding is that of the largest update so far: SSTM's z may be at 1e37.
            size[n] = np.fmax(size[n], np.where(np.isfinite(wanted), np.abs(wanted), 0))
            error = np.abs(ours[n][finite] - wanted[finite])
            assert np.all(error <= 1e-5 * size[n][finite]), f"step {k}, {n}: off by {error}"


every_row = pytest.mark.parametrize("name", ROWS)


def test_every_row_has_its_rule():
    assert set(RULES) == set(ROWS)


@every_row
def test_an_update_is_a_number_only_where_the_written_out_rule_gives_one(name):
    row, built = ROWS[name], ROWS[name].build()
    tx = optax.GradientTransformationExtraArgs(built.init, jax.jit(built.update))
    for bad, value in BAD.items():
        for at in (FIRST, MIDDLE):
            grads = spoiled(value, at)
            with np.errstate(all="ignore"):
                rule = RULES[name](tree())
                expected = [rule(g) for g in grads]
            actual = updates_of(tx, grads)
            exact = bad == "largest" and not row.largest_is_infinite
            assert_follows(actual, expected, exact)
            if at == MIDDLE and bad != "largest":
                check_the_column(row, actual[at], cut=bad != "nan" and row.cuts_infinity)


def check_the_column(row, update, cut):
    bad = {n: ~np.isfinite(leaf) for n, leaf in update.items()}
    assert bad["vector"][1] != cut
    others = np.delete(bad["vector"], 1)
    assert (
        np.all(others) == np.any(others) == (row.non_finite in ("tensor", "everything") and not cut)
    )
    for n in ("matrix", "scalar"):
        whole = row.non_finite == "everything" and not cut
        assert np.all(bad[n]) == np.any(bad[n]) == whole


def test_docstrings_say_what_happens_to_non_finite_gradients():
    functions = {row.public for row in ROWS.values()}
    functions |= {"smoothed_value_and_grad", "explicit_graduated_optimization"}
    silent = [
        n for n in functions if "Non-finite gradients:" not in inspect.getdoc(getattr(clipjax, n))
    ]
    assert silent == []


UNCLIPPED = {
    "adam": (clipjax.clipped_adam(0.1, None), rules.moments, {**ADAM, "b1": 0.9, "b2": 0.999}),
    "adam_norm": (
        clipjax.clipped_adam(0.1, None, moment="norm"),
        rules.moments,
        {**ADAM, "b1": 0.9, "b2": 0.999, "norm": True},
    ),
    "adagrad": (
        clipjax.clipped_adagrad(0.1, None),
        rules.moments,
        {"rate": 0.1, "eps_root": 1e-7, "initial": 0.1},
    ),
    "adagrad_norm": (
        clipjax.clipped_adagrad(0.1, None, moment="norm"),
        rules.moments,
        {"rate": 0.1, "eps_root": 1e-7, "initial": 0.1, "norm": True},
    ),
}


@pytest.mark.parametrize("name", UNCLIPPED)
@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("at", [FIRST, MIDDLE])
def test_moments_without_a_clipping(name, bad, at):
    """The square of the largest float32 is 1e77, and the step of Adam is η all the same."""
    tx, rule, numbers = UNCLIPPED[name]
    grads = spoiled(BAD[bad], at)
    with np.errstate(all="ignore"):
        step = rule(**{**numbers, "level": None})
        expected = [step(g) for g in grads]
    assert_follows(updates_of(tx, grads), expected, bad == "largest")


@pytest.mark.parametrize("moment", ["coordinate", "norm"])
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_moments_of_low_precision_without_a_clipping(dtype, moment):
    """The first step of Adam is η g/|g|, η g/‖g‖ with a norm; half a unit of bfloat16 is 2^-8."""
    largest = float(jnp.finfo(dtype).max)
    g = jnp.array([largest, -largest], dtype)
    tx = clipjax.clipped_adam(0.1, None, moment=moment)
    update, _ = tx.update(g, tx.init(jnp.zeros(2)))
    expected = np.array([-0.1, 0.1]) / (np.sqrt(2) if moment == "norm" else 1)
    np.testing.assert_allclose(np.asarray(update, np.float64), expected, rtol=2.0**-8)


@pytest.mark.parametrize("moment", ["coordinate", "norm"])
def test_a_moment_that_overflows_is_no_standstill(moment):
    """Delayed, the first step is g itself (b₀ = 1), and the next would be divided by √inf."""
    tx = clipjax.clipped_adagrad(1.0, None, 1.0, 0.0, moment=moment, delayed=True)
    g = jnp.array([1e30, 1.0])
    first, second = updates_of_arrays(tx, [g, g])
    np.testing.assert_allclose(first, -g, rtol=1e-6)
    np.testing.assert_array_equal(np.isnan(second), [True, moment == "norm"])


def updates_of_arrays(tx, grads):
    state, rows = tx.init(grads[0]), []
    for g in grads:
        updates, state = tx.update(g, state, g)
        rows.append(updates)
    return rows


@pytest.mark.parametrize(
    "make", [lambda: clipjax.clipped_adam(0.1, 1.0), lambda: clipjax.clipped_adagrad(0.1, 1.0)]
)
def test_one_nan_does_not_freeze_the_run_silently(make):
    """The fault that was found: all updates -0 from then on."""
    rows = updates_of_arrays(make(), [jnp.ones(3).at[0].set(jnp.nan), jnp.ones(3), jnp.ones(3)])
    assert np.all(np.isnan(rows))


def test_a_velocity_that_is_infinite_is_not_cut_to_the_level():
    tx = clipjax.clipped_sgd(
        1.0, 0.5, clip="value", momentum=0.9, clip_after_momentum=True, nesterov=True
    )
    rows = np.array(updates_of_arrays(tx, [jnp.array([jnp.inf, 1.0]), *[jnp.ones(2)] * 3]))
    assert np.all(np.isnan(rows[:, 0]))
    np.testing.assert_array_equal(rows[:, 1], -0.5)


def test_beside_a_bad_tensor_no_norm_enters_the_warm_up_of_adagc():
    """One bad tensor makes the clipped gradient NaN, whole: there is no clipped norm to average."""
    tx = clipjax.clip_by_adaptive_norm(2.0, 1.0, warmup_steps=3)
    good = {"a": jnp.array([0.3]), "b": jnp.array([0.4])}
    bad = {"a": jnp.array([0.01]), "b": jnp.array([jnp.nan])}
    _, states, last = feed(tx, [good, bad, good])
    np.testing.assert_allclose(states.average, [[0.3, 0.4]] * 3, rtol=1e-6)
    assert last.clip.clipped == 0


def test_a_bad_tensor_is_the_one_reported_and_its_step_is_not_counted():
    tx = clipjax.clip_by_quantile(0.5, 4, per_tensor=True)
    grads = [{"a": jnp.array([s]), "b": jnp.array([t])} for s, t in [(1.0, 1.0), (9.0, np.nan)]]
    _, _, last = feed(tx, grads)
    assert np.isnan(last.clip.norm)
    assert last.clip.clipped == 0
    # Whatever the levels are: 0 or none besides.
    norms = jnp.array([3.0, jnp.nan])
    for levels in ([0.0, 0.0], [0.0, jnp.inf], [1.0, 1.0]):
        assert np.isnan(most_shortened(norms, jnp.array(levels))[0])


def test_estimates_of_the_smoothness_are_nan_not_zero():
    x = jnp.array([[0.0], [1.0], [jnp.nan], [3.0]])
    assert np.isnan(theory.estimate_smoothness_from_gradients(x, jnp.where(x > 0, 2 * x, 0)))
    for curvature in (jnp.nan, jnp.inf, LARGEST):
        # Two eigenvalues: the norm of the image of a vector is beyond the largest float.
        found = theory.estimate_smoothness(
            lambda x, c=curvature: c * jnp.sum(x * x), jnp.zeros(8), jax.random.key(0), steps=2
        )
        assert not np.isfinite(found)


def test_smoothing_hands_on_what_is_not_finite():
    def wall(x):  # NaN, and its derivative too, beyond 0.5 in any coordinate
        return jnp.sum(jnp.sqrt(0.5 - x))

    key = jax.random.key(0)
    for estimator in ("first_order", "zeroth_order"):
        value, gradient = clipjax.smoothed_value_and_grad(wall, 0.1, 4, key, estimator=estimator)(
            jnp.array([1.0, 0.0])
        )
        assert np.isnan(value)
        assert np.isnan(gradient[0])
    result = clipjax.explicit_graduated_optimization(
        wall, jnp.array([1.0, 0.0]), key, levels=(0.1, 0.05), learning_rate=1.0, steps_per_stage=1,
        num_samples=2,
    )  # fmt: skip
    assert np.isnan(result.x[0])
    assert np.all(np.isnan(result.values))


HEAVY_BALL = {"momentum": 0.8}
DELAYED = {"delayed": True, "initial": 1.0}
OPTIONS = {
    "sgd": (clipjax.clipped_sgd, {}, rules.sgd, {}),
    "momentum": (clipjax.clipped_sgd, HEAVY_BALL, rules.sgd, HEAVY_BALL),
    "nesterov": (
        clipjax.clipped_sgd,
        {**HEAVY_BALL, "nesterov": True},
        rules.sgd,
        {**HEAVY_BALL, "nesterov": True},
    ),
    "after_momentum": (
        clipjax.clipped_sgd,
        {**HEAVY_BALL, "clip_after_momentum": True},
        rules.sgd,
        {**HEAVY_BALL, "after": True},
    ),
    "adagrad": (clipjax.clipped_adagrad, {}, rules.moments, {"eps_root": 1e-7, "initial": 0.1}),
    "adagrad_norm_delayed": (
        clipjax.clipped_adagrad,
        {"moment": "norm", "delayed": True, "initial_accumulator_value": 1.0},
        rules.moments,
        {**DELAYED, "eps_root": 1e-7, "norm": True},
    ),
    "adam": (clipjax.clipped_adam, {}, rules.moments, {}),
    "adam_norm_delayed": (
        clipjax.clipped_adam,
        {
            "moment": "norm",
            "delayed": True,
            "bias_correction": False,
            "initial_accumulator_value": 1.0,
        },
        rules.moments,
        {**DELAYED, "norm": True, "correct": False},
    ),
}


@pytest.mark.parametrize("kind", ["global_norm", "tensor_norm", "value"])
@pytest.mark.parametrize("name", OPTIONS)
def test_every_kind_of_clipping_in_every_optimizer(name, kind):
    """All cases at once, by vmap: each bad number in the first or the third of four gradients."""
    make, options, rule, numbers = OPTIONS[name]
    if make is clipjax.clipped_adam:
        numbers = {**ADAM, "b1": 0.9, "b2": 0.999, **numbers}
    cases = [spoiled(value, at)[:4] for value in BAD.values() for at in (0, 2)]
    steps = [
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *column)
        for column in zip(*cases, strict=True)
    ]
    tx = make(0.1, 1.0, clip=kind, **options)
    state, rows = jax.vmap(tx.init)(steps[0]), []
    for g in steps:
        updates, state = jax.vmap(tx.update)(g, state)
        rows.append({n: np.asarray(leaf, np.float64) for n, leaf in updates.items()})
    for number, case in enumerate(cases):
        with np.errstate(all="ignore"):
            step = rule(**{"rate": 0.1, "level": 1.0, **numbers}, kind=kind)
            expected = [step(g) for g in case]
        actual = [{n: leaf[number] for n, leaf in row.items()} for row in rows]
        largest = list(BAD)[number // 2] == "largest"
        assert_follows(actual, expected, largest)
