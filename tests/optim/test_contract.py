"""The contract of every public transformation: one row each, one test function per property.

A new transformation is one `Row` below; `test_every_public_transformation_has_a_row` asks for it.
Trees are tiny and most loops run without jit, where operations are compiled once for all rows.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl.testing import parameterized
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import clipjax
from clipjax.optim._trees import find_states
from clipjax.problems import Rosenbrock
from tests.optim.problems import gradients, tree


@dataclass(frozen=True, eq=False)
class Row:
    """A public transformation and what is true of it.

    Attributes:
        public: the public name.
        make: called with `numbers` and `options`.
        numbers: the arguments that may be traced.
        options: the other arguments.
        after: transformations after it in a chain that make an optimizer of it.
        buffers: how many copies of the parameters its state holds.
        vectors: shapes of what else is not a scalar in its state, for three parameters.
        iterates: whether updates have the dtype of the parameters, not of the gradients.
        planned: whether a change of a number from outside acts one step later.
        conditional: whether it steps through a `lax.cond`, which without jit is compiled in every
            step: `build` compiles its update, once for all tests.
        non_finite: where one NaN of a gradient makes the update of its step NaN, once warm-ups are
            over: in "everything", in its "tensor" or in its "coordinate". No row skips such a
            gradient by itself; `optax.apply_if_finite` around any of them does.
        cuts_infinity: whether an infinite coordinate is cut to the level instead.
        largest_is_infinite: whether it adds gradients up, so that two of the largest float count
            as not finite.
        slow: a rate small enough for Rosenbrock's valley, whose curvature is about 1,000.
    """

    public: str
    make: Callable[..., Any]
    numbers: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[Any, ...] = ()
    buffers: int = 0
    vectors: tuple[tuple[int, ...], ...] = ()
    iterates: bool = False
    planned: bool = False
    conditional: bool = False
    non_finite: str = "everything"
    cuts_infinity: bool = False
    largest_is_infinite: bool = False
    slow: float = 0.003

    def bare(self, **numbers):
        return self.make(**{**self.numbers, **numbers, **self.options})

    def build(self, **numbers):
        if self.conditional and not numbers:
            return built_once(self, jax.config.jax_enable_x64)
        tx = optax.chain(self.bare(**numbers), *self.after)
        return compiled(tx) if self.conditional else tx


@functools.cache
def built_once(row, wide):
    """`wide`: numbers kept by a transformation have the dtype of where it was built."""
    assert wide == jax.config.jax_enable_x64
    return compiled(optax.chain(row.bare(), *row.after))


def compiled(tx):
    update = jax.jit(tx.update)
    return optax.GradientTransformationExtraArgs(
        tx.init, lambda updates, state, params=None, **_: update(updates, state, params)
    )


def averaged_sgd(learning_rate, clip_level, decay=None):
    return clipjax.average_iterates(
        clipjax.clipped_sgd(learning_rate, clip_level), start=2, decay=decay
    )


def weighted_sgd(learning_rate, clip_level, weights):
    return clipjax.average_iterates(
        clipjax.clipped_sgd(learning_rate, clip_level), start=2, weights=weights
    )


def twice(tx):
    """Two micro-steps with the same gradient in every step."""

    def update(updates, state, params=None, **extra_args):
        _, state = tx.update(updates, state, params, **extra_args)
        return tx.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def accumulated_twice(learning_rate, clip_level, momentum):
    return twice(
        clipjax.accumulate_gradients(
            clipjax.clipped_sgd(learning_rate, clip_level, momentum=momentum), every=2
        )
    )


def measured_twice(learning_rate, clip_level, decay):
    inner = clipjax.accumulate_gradients(clipjax.clipped_sgd(learning_rate, clip_level), every=2)
    return twice(clipjax.measure_gradient_variance(inner, 4, decay=decay))


def graduated_schedule(learning_rate):
    """Three stages with learning rates and momenta of their own."""
    return clipjax.graduated_schedule(
        learning_rate, 2, 3, decay="geometric", momentum=0.8, momentum_share=0.5
    )


def graduated(learning_rate, clip_level):
    """Each batch two micro-batches."""
    inner = functools.partial(clipjax.clipped_sgd, clip_level=clip_level)
    schedule = graduated_schedule(learning_rate)
    return twice(clipjax.implicit_graduated_optimization(schedule, (1, 1, 50), 1, inner=inner))


def staged(learning_rate, clip_level):
    plan = clipjax.plan_stages(graduated_schedule(learning_rate), (1, 1, 50), 1)
    return clipjax.staged(functools.partial(clipjax.clipped_sgd, clip_level=clip_level), plan)


def restarted_sstm(learning_rate, smoothness, clip_level):
    """Every run with half the level of the one before."""
    return clipjax.with_restarts(
        lambda run: clipjax.clipped_sstm(learning_rate, smoothness, clip_level * 0.5**run), (3, 30)
    )


def restarted_sgd(learning_rate, clip_level):
    return clipjax.with_restarts(averaged_sgd(learning_rate, clip_level), 3)


def clip_with_probability(max_norm, base):
    return clipjax.clip_with_probability(max_norm, base, jax.random.PRNGKey(3))


# The last step of the convergence test is number 200: a rate of 0.5/(1 + 0.1 · 200) = 0.024.
DESCENT = (optax.scale_by_learning_rate(lambda k: 0.5 / (1 + 0.1 * k)),)
SGD = {"learning_rate": 0.1, "clip_level": 1.0}
SSTM = {"learning_rate": 0.5, "smoothness": 3.0, "clip_level": 1.0}
ADAM = {"learning_rate": 0.1, "clip_level": 1.0, "b1": 0.8, "b2": 0.9}

ROWS = {
    "clip_by_global_norm": Row(
        "clip_by_global_norm", clipjax.clip_by_global_norm, {"max_norm": 1.0}, after=DESCENT
    ),
    "clip_by_tensor_norm": Row(
        "clip_by_tensor_norm",
        clipjax.clip_by_tensor_norm,
        {"max_norm": 0.5},
        after=DESCENT,
        non_finite="tensor",
    ),
    "clip_by_value": Row(
        "clip_by_value",
        clipjax.clip_by_value,
        {"max_value": 0.5},
        after=DESCENT,
        non_finite="coordinate",
        cuts_infinity=True,
    ),
    "normalize_by_global_norm": Row(
        "normalize_by_global_norm", clipjax.normalize_by_global_norm, after=DESCENT
    ),
    "clip_by_quantile": Row(
        "clip_by_quantile",
        clipjax.clip_by_quantile,
        {"quantile": 0.5},
        {"window": 4, "per_tensor": True},
        after=DESCENT,
        vectors=((3, 4), (3,)),
        non_finite="tensor",
    ),
    "clip_by_zscore": Row(
        "clip_by_zscore",
        clipjax.clip_by_zscore,
        {"max_norm": 1.0, "threshold": 1.5, "decay": 0.9},
        {"warmup_steps": 2},
        after=DESCENT,
    ),
    "clip_by_adaptive_norm": Row(
        "clip_by_adaptive_norm",
        clipjax.clip_by_adaptive_norm,
        {"relative": 1.05, "absolute": 1.0, "decay": 0.9},
        {"warmup_steps": 1},
        after=DESCENT,
        vectors=((3,),),
        non_finite="tensor",
    ),
    "clip_with_probability": Row(
        "clip_with_probability",
        clip_with_probability,
        {"max_norm": 1.0, "base": 0.9},
        after=DESCENT,
        vectors=((2,),),
    ),
    "clipped_sgd": Row("clipped_sgd", clipjax.clipped_sgd, SGD),
    "clipped_sgd_nesterov": Row(
        "clipped_sgd",
        clipjax.clipped_sgd,
        {**SGD, "momentum": 0.8},
        {"clip": "tensor_norm", "nesterov": True},
        buffers=1,
        non_finite="tensor",
    ),
    "clipped_sgd_after_momentum": Row(
        "clipped_sgd",
        clipjax.clipped_sgd,
        {**SGD, "momentum": 0.8},
        {"clip": "value", "clip_after_momentum": True},
        buffers=1,
        non_finite="coordinate",
    ),
    "scale_by_similar_triangles": Row(
        "scale_by_similar_triangles",
        clipjax.scale_by_similar_triangles,
        {"step_size": 0.3},
        buffers=1,
        iterates=True,
        planned=True,
        non_finite="coordinate",
    ),
    "clipped_sstm": Row(
        "clipped_sstm",
        clipjax.clipped_sstm,
        SSTM,
        buffers=1,
        iterates=True,
        slow=6e-6,
        planned=True,
    ),
    "clipped_sstm_hoelder": Row(
        "clipped_sstm",
        clipjax.clipped_sstm,
        SSTM,
        {
            "clip": "value",
            "holder_exponent": 0.5,
            "step_offset": 1,
            "max_averaging_ratio": 0.9,
            "clip_start": 2,
        },
        buffers=1,
        iterates=True,
        slow=6e-6,
        planned=True,
        non_finite="coordinate",
        cuts_infinity=True,
    ),
    "sstm": Row(
        "clipped_sstm",
        clipjax.clipped_sstm,
        {"learning_rate": 0.5, "smoothness": 3.0},
        {"clip_level": None},
        buffers=1,
        iterates=True,
        slow=6e-6,
        planned=True,
        non_finite="coordinate",
    ),
    "average_iterates": Row("average_iterates", averaged_sgd, SGD, buffers=1),
    "average_iterates_decay": Row(
        "average_iterates", averaged_sgd, {**SGD, "decay": 0.9}, buffers=1
    ),
    "accumulate_gradients": Row(
        "accumulate_gradients",
        accumulated_twice,
        {**SGD, "momentum": 0.8},
        buffers=2,
        conditional=True,
        largest_is_infinite=True,
    ),
    "measure_gradient_variance": Row(
        "measure_gradient_variance",
        measured_twice,
        {**SGD, "decay": 0.9},
        buffers=1,
        conditional=True,
        largest_is_infinite=True,
    ),
    "implicit_graduated_optimization": Row(
        "implicit_graduated_optimization",
        graduated,
        SGD,
        buffers=2,
        conditional=True,
        largest_is_infinite=True,
    ),
    "staged": Row("staged", staged, SGD, buffers=1),
    "with_restarts": Row(
        "with_restarts",
        restarted_sstm,
        SSTM,
        buffers=1,
        iterates=True,
        slow=6e-6,
        planned=True,
        conditional=True,
    ),
    "with_restarts_average": Row(
        "with_restarts", restarted_sgd, SGD, buffers=1, iterates=True, conditional=True
    ),
    "clipped_adam": Row("clipped_adam", clipjax.clipped_adam, ADAM, buffers=2),
    "clipped_adam_norm": Row(
        "clipped_adam", clipjax.clipped_adam, ADAM, {"moment": "norm"}, buffers=1
    ),
    "clipped_adam_delayed": Row(
        "clipped_adam",
        clipjax.clipped_adam,
        {**ADAM, "initial_accumulator_value": 1.0},
        {"clip": "value", "delayed": True, "bias_correction": False},
        buffers=2,
        non_finite="coordinate",
        cuts_infinity=True,
    ),
    "clipped_adagrad": Row(
        "clipped_adagrad",
        clipjax.clipped_adagrad,
        {**SGD, "learning_rate": 0.5},
        buffers=1,
        slow=0.1,
    ),
    "clipped_adagrad_delayed": Row(
        "clipped_adagrad",
        clipjax.clipped_adagrad,
        {**SGD, "learning_rate": 1.0, "initial_accumulator_value": 0.5},
        {"clip": "tensor_norm", "moment": "norm", "delayed": True},
        slow=0.1,
        non_finite="tensor",
    ),
    "acclip": Row(
        "acclip",
        clipjax.acclip,
        {"learning_rate": 0.1},
        {"alpha": 1.5},
        buffers=2,
        non_finite="coordinate",
    ),
    "acclip_normalized": Row(
        "acclip",
        clipjax.acclip,
        {"learning_rate": 0.02},
        {"normalize": True},
        buffers=3,
        non_finite="coordinate",
    ),
    "scale_by_shampoo": Row(
        "scale_by_shampoo",
        clipjax.scale_by_shampoo,
        {"decay": 0.9, "eps": 1e-3},
        after=DESCENT,
        buffers=1,
        vectors=((13,),),  # 2 x 2 and 3 x 3
        non_finite="coordinate",
    ),
    "shampoo": Row(
        "shampoo",
        clipjax.shampoo,
        {"learning_rate": 1.0, "eps": 1e-3},
        {"decay": None, "grafting": "none", "initial_accumulator_value": 0.1},
        buffers=1,
        vectors=((13,),),
        slow=0.1,
        non_finite="coordinate",
    ),
    "shampoo_stale": Row(
        "shampoo",
        clipjax.shampoo,
        {"learning_rate": 0.1, "eps": 1e-3, "momentum": 0.5},
        {"block_size": 2, "update_every": 2, "decay": None, "grafting": "sgd"},
        buffers=1,
        vectors=((16,), (16,)),  # two blocks, two sides each, for moments and roots
        conditional=True,
        non_finite="coordinate",
    ),
    "average_iterates_weights": Row(
        "average_iterates", weighted_sgd, {**SGD, "weights": 0.5}, buffers=1
    ),
}

STATIC = (
    "holder_exponent",
    "step_offset",
    "max_averaging_ratio",
    "clip_start",
    "window",
    "warmup_steps",
    "block_size",
    "update_every",
)

every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)


@functools.cache
def injected(row):
    static = [name for name in STATIC if name in inspect.signature(row.make).parameters]
    factory = optax.inject_hyperparams(row.make, static_args=static)
    tx = optax.chain(factory(**row.numbers, **row.options), *row.after)
    return compiled(tx) if row.conditional else tx


def loop(tx, params, grads, state=None):
    """Run without jit; return the parameters after each step, and the last state."""
    state = tx.init(params) if state is None else state
    xs = []
    for g in grads:
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        xs.append(params)
    return xs, state


def loop_through_conditions(tx, params, grads):
    """As `loop`, for wrappers with a `lax.cond`: traced once for its types, run branch by branch.

    Without jit each `lax.cond` would be compiled in every step.
    """
    state = tx.init(params)
    _, new_state = jax.eval_shape(tx.update, grads[0], state, params)
    assert types(new_state) == types(state)
    with jax.disable_jit():
        return loop(tx, params, grads, state)


def assert_close(actual, expected, rtol=1e-5, atol=1e-6):
    chex.assert_trees_all_equal_structs(actual, expected)
    chex.assert_trees_all_close(actual, expected, rtol=rtol, atol=atol)


def types(value):
    """Shapes, dtypes and weak types: all on which a new trace depends."""
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name, leaf.weak_type), value)


def test_every_public_transformation_has_a_row():
    kind = optax.GradientTransformationExtraArgs
    public = {
        name
        for name in clipjax.__all__
        if inspect.isfunction(function := getattr(clipjax, name))
        and inspect.signature(function).return_annotation is kind
    }
    assert public == {row.public for row in ROWS.values()}
    assert all(isinstance(row.bare(), kind) for row in ROWS.values())


def quadratic(x):
    return jnp.sum(jnp.linspace(0.5, 2.0, 5) * (x - 1) ** 2) / 2


def matrix(w):
    """|AWB|² with A, B of condition 2."""
    left, right = jnp.array([[1.0, 0.25], [0.25, 0.75]]), jnp.array([[0.8, 0.2], [0.2, 1.0]])
    return jnp.sum((left @ w @ right) ** 2)


def mixed(params):
    return quadratic(params["layers"][0]) + matrix(params["layers"][1]) + params["scale"] ** 2


PROBLEMS = {
    "quadratic": (quadratic, -jnp.ones(5)),
    "matrix": (matrix, jnp.array([[2.0, -1.0], [1.0, 1.5]])),
    "mixed": (mixed, {"layers": [-jnp.ones(5), 2 * jnp.eye(2)], "scale": jnp.array(1.0)}),
}


@every_row
@pytest.mark.parametrize("problem", PROBLEMS)
def test_converges(row, problem):
    loss, start = PROBLEMS[problem]
    tx = row.build()

    @jax.jit
    def train(params):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), length=200)
        return loss(params)

    assert train(start) < 2e-3 * loss(start)


@every_row
def test_follows_the_valley_of_rosenbrock(row):
    """From (−1, 1), where f = 4, round the bend: f < 0.75 needs x₁ > 1 − √0.75 = 0.13."""
    rates = {"learning_rate", "step_size"} & set(row.numbers)
    tx = row.bare(**dict.fromkeys(rates, row.slow))
    tx = tx if not row.after else optax.chain(tx, optax.scale(-row.slow))
    loss = Rosenbrock().value

    @jax.jit
    def train(x):
        def step(carry, _):
            x, state = carry
            updates, state = tx.update(jax.grad(loss)(x), state, x)
            return (optax.apply_updates(x, updates), state), None

        (x, _), _ = jax.lax.scan(step, (x, tx.init(x)), length=5000)
        return loss(x)

    assert train(jnp.array([-1.0, 1.0])) < 0.75


@every_row
def test_unexpected_arguments_are_swallowed(row):
    tx, params, (g, *_) = optax.chain(row.bare(), *row.after), tree(), gradients(1)
    updates, _ = tx.update(g, tx.init(params), params, value=1.0, grad=g, nobody="knows")
    expected, _ = tx.update(g, tx.init(params), params)
    chex.assert_trees_all_equal(updates, expected)


@every_row
@pytest.mark.parametrize("injecting", [False, True], ids=["plain", "injected"])
def test_one_trace_with_donated_buffers_and_stable_types(row, injecting):
    tx, traces = injected(row) if injecting else row.build(), []

    def step(params, state, g):
        traces.append(1)
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    # New buffers: `tree` would give away those that another test may hold.
    params = jax.tree.map(jnp.copy, tree())
    state = tx.init(params)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((params, state))]
    assert len(set(buffers)) == len(buffers), "no buffer is shared, so that all can be donated"
    before = types((params, state))
    jitted = jax.jit(step, donate_argnums=(0, 1))
    expected, _ = loop(tx, tree(), gradients(3))
    for g in gradients(3):
        old = params
        params, state = jitted(params, state, g)
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    assert len(traces) == 1
    assert types((params, state)) == before
    assert_close(params, expected[-1])


@every_row
def test_injected_numbers_give_the_same_trajectory(row):
    if not row.numbers:
        return  # nothing to inject
    expected, _ = loop(row.build(), tree(), gradients(5))
    actual, state = loop(injected(row), tree(), gradients(5))
    assert_close(actual, expected)
    assert set(row.numbers) <= set(state[0].hyperparams)


@every_row
def test_a_number_changed_from_outside_acts_at_once_or_when_planned_one_step_later(row):
    """Old and new run differ from the step on before which the number was changed."""
    name = next(iter(row.numbers), None)
    if name is None:
        return
    # Each gradient is the longest so far: a quantile of the norms cuts no other for certain.
    grads = [jax.tree.map(lambda g, k=k: 10.0**k * g, g) for k, g in enumerate(gradients(4))]
    tx = injected(row)
    old, _ = loop(tx, tree(), grads)
    new, state = loop(tx, tree(), grads[:1])
    # A tenth of any rate or level is felt.
    state[0].hyperparams[name] = jnp.asarray(row.numbers[name] * 0.1)
    rest, _ = loop(tx, new[-1], grads[1:], state)
    changed = [
        not np.allclose(a["vector"], b["vector"], rtol=1e-4)
        for a, b in zip(old, [*new, *rest], strict=True)
    ]
    assert changed == [False, True, True, True]
    if row.planned:
        # Step 1 moves z by the planned, old α; it differs in where it puts the next query point,
        # which is planned with the new one.
        _, before = loop(tx, tree(), grads[:2])
        _, after = loop(tx, new[-1], grads[1:2], state)
        z = [
            find_states(s, clipjax.SimilarTrianglesState)[0][1].z["vector"] for s in (before, after)
        ]
        np.testing.assert_allclose(*z, rtol=1e-6)


@every_row
def test_built_from_traced_numbers_inside_jit_and_vmap(row):
    grads = gradients(3)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)
    factors = jnp.array([1.0, 0.5])

    @jax.jit
    @jax.vmap
    def final(factor):
        tx = row.build(**{name: number * factor for name, number in row.numbers.items()})

        def step(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (tree(), tx.init(tree())), stacked)[0][0]

    together = final(factors)
    for i, factor in enumerate((1.0, 0.5)):
        alone = row.build(**{name: number * factor for name, number in row.numbers.items()})
        expected, _ = loop(alone, tree(), grads)
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], together), expected[-1])


@every_row
def test_multi_steps(row):
    """Two micro-steps are one step with the mean of their gradients."""
    grads = gradients(4)
    actual, _ = loop_through_conditions(optax.MultiSteps(row.build(), 2), tree(), grads)
    means = [
        jax.tree.map(lambda a, b: (a + b) / 2, *pair)
        for pair in zip(*[iter(grads)] * 2, strict=True)
    ]
    expected, _ = loop(row.build(), tree(), means)
    assert_close(actual[1::2], expected)
    chex.assert_trees_all_equal(actual[0], tree())


@every_row
def test_masked_and_partitioned(row):
    """A group goes as if it were alone; a group without parameters does no harm."""
    grads = gradients(3)
    alone = [{"matrix": g["matrix"], "vector": g["vector"]} for g in grads]
    start = {name: tree()[name] for name in ("matrix", "vector")}
    expected, _ = loop(row.build(), start, alone)
    mask = {"matrix": True, "vector": True, "scalar": False}
    labels = {"matrix": "ours", "vector": "ours", "scalar": "theirs"}
    groups = {"ours": row.build(), "theirs": optax.sgd(0.1), "nobody": row.build()}
    masked, _ = loop(optax.masked(row.build(), mask), tree(), grads)
    partitioned, _ = loop(optax.partition(groups, labels), tree(), grads)
    for k, x in enumerate(expected):
        assert_close({name: masked[k][name] for name in x}, x)
        assert_close({name: partitioned[k][name] for name in x}, x)
    # Outside the mask the gradient is passed on; in the other group it is SGD's.
    total = sum(float(g["scalar"]) for g in grads)
    np.testing.assert_allclose(masked[-1]["scalar"], tree()["scalar"] + total, rtol=1e-5)
    np.testing.assert_allclose(partitioned[-1]["scalar"], tree()["scalar"] - 0.1 * total, rtol=1e-5)


@every_row
def test_apply_if_finite(row):
    """A run with bad gradients is the run without these steps: parameters, state and counters.

    `apply_if_finite` goes around the whole, so no counter of the row (schedules, warm-ups, windows,
    micro-steps, stages, runs between restarts) counts a bad step. The only trace is in its own.
    """
    grads = gradients(3)
    spoiled = [
        {**grads[0], "vector": grads[0]["vector"].at[1].set(x)} for x in (np.nan, np.inf, -np.inf)
    ]
    tx = optax.apply_if_finite(row.build(), 4)
    given = [spoiled[0], grads[0], *spoiled, *grads[1:]]
    actual, state = loop_through_conditions(tx, tree(), given)
    expected, other = loop_through_conditions(tx, tree(), grads)
    chex.assert_trees_all_equal([actual[k] for k in (1, 5, 6)], expected)
    chex.assert_trees_all_equal(actual[0], tree())
    for k in (2, 3, 4):
        chex.assert_trees_all_equal(actual[k], actual[1])
    chex.assert_trees_all_equal(state.inner_state, other.inner_state)
    assert state.total_notfinite == 4


@every_row
@pytest.mark.parametrize(
    ("dtype", "rtol"), [(jnp.float16, 4e-3), (jnp.bfloat16, 3e-2), (jnp.float64, 1e-12)]
)
def test_precisions(row, dtype, rtol):
    """Gradients of each dtype, parameters of float32 and of that dtype: one step, against float64.

    The tolerance is a few units of roundoff, 2⁻¹¹ and 2⁻⁸, for parameters and update.
    """
    with jax.enable_x64(True):
        rng = np.random.default_rng(2)

        def draw():
            return {n: jnp.asarray(rng.normal(size=3)) for n in "ab"}

        def cast(x, dtype):
            return jax.tree.map(lambda leaf: leaf.astype(dtype), x)

        double, g = draw(), cast(draw(), dtype)
        wide_g = cast(g, jnp.float64)
        tx = row.build()
        expected, _ = tx.update(wide_g, tx.init(double), double)
        for param_dtype in (jnp.float32, dtype):
            params = cast(double, param_dtype)
            state = tx.init(params)
            updates, new_state = tx.update(g, state, params)
            wanted = param_dtype if row.iterates else dtype
            assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(wanted)}
            assert types(new_state) == types(state)
            tolerance = max(rtol, 1e-6 if jnp.float32 in (param_dtype, wanted) else rtol)
            assert_close(cast(updates, jnp.float64), expected, rtol=tolerance, atol=tolerance)


@every_row
def test_vmap_over_seeds(row):
    """64 replicas together take the steps of 64 runs, to rounding."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(3)
        starts = {n: jnp.asarray(rng.normal(size=(64, 3))) for n in "ab"}
        grads = {n: jnp.asarray(rng.standard_t(1.5, size=(64, 3, 3))) for n in "ab"}
        tx = row.build()

        def final(params, grads):
            def step(carry, g):
                params, state = carry
                updates, state = tx.update(g, state, params)
                return (optax.apply_updates(params, updates), state), None

            return jax.lax.scan(step, (params, tx.init(params)), grads)[0][0]

        together = jax.jit(jax.vmap(final))(starts, grads)
        one_by_one = jax.jit(lambda *all_of: jax.lax.map(lambda one: final(*one), all_of))
        assert_close(together, one_by_one(starts, grads), rtol=1e-12, atol=1e-14)


@every_row
def test_scan_equals_a_loop(row):
    tx, grads = row.build(), gradients(4)

    def step(carry, g):
        params, state = carry
        updates, state = tx.update(g, state, params)
        params = optax.apply_updates(params, updates)
        return (params, state), params

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)
    _, xs = jax.lax.scan(step, (tree(), tx.init(tree())), stacked)
    expected, _ = loop(tx, tree(), grads)
    assert_close(xs, jax.tree.map(lambda *leaves: jnp.stack(leaves), *expected))


class VariantsTest(chex.TestCase):
    """chex runs each test as it is, and under jit."""

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.named_parameters((name, row) for name, row in ROWS.items())
    def test_variants(self, row):
        tx, (first, second) = row.build(), gradients(2)
        state = self.variant(tx.init)(tree())
        _, state = self.variant(tx.update)(first, state, tree())
        updates, _ = self.variant(tx.update)(second, state, tree())
        _, state = tx.update(first, tx.init(tree()), tree())
        expected, _ = tx.update(second, state, tree())
        assert_close(updates, expected)


@every_row
def test_shard_map_and_pmap_with_averaged_gradients(row):
    """Two devices with half of the gradients each equal one device with the mean."""

    def small(x):
        return {name: x[name] for name in ("vector", "scalar")}

    tx, start, (a, b, c, d) = row.build(), small(tree()), map(small, gradients(4))
    halves = jax.tree.map(
        lambda *leaves: jnp.stack(leaves).reshape(2, 2, *leaves[0].shape), a, b, c, d
    )

    def mean(x, y):
        return jax.tree.map(lambda u, v: (u + v) / 2, x, y)

    expected, _ = loop(tx, start, [mean(a, c), mean(b, d)])

    def train(params, grads):  # grads: 2 steps
        def step(carry, g):
            params, state = carry
            updates, state = tx.update(jax.lax.pmean(g, "data"), state, params)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), grads)[0][0]

    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    spec = PartitionSpec
    sharded = jax.shard_map(
        lambda params, g: train(params, jax.tree.map(lambda leaf: leaf[0], g)),
        mesh=mesh,
        in_specs=(spec(), spec("data")),
        out_specs=spec(),
    )
    assert_close(jax.jit(sharded)(start, halves), expected[-1])
    mapped = jax.pmap(train, axis_name="data", in_axes=(None, 0), devices=jax.devices()[:2])
    results = jax.device_get(mapped(start, halves))
    for device in range(2):
        assert_close(jax.tree.map(lambda leaf, i=device: leaf[i], results), expected[-1])


@every_row
def test_sharded_over_eight_devices(row):
    """Parameters cut over eight devices take the steps of whole ones, and stay cut."""
    rng = np.random.default_rng(5)

    def draw():
        return {"w": jnp.asarray(rng.standard_t(1.5, (16, 2)), jnp.float32)}

    params, grads, tx = draw(), [draw(), draw()], row.build()
    expected, _ = loop(tx, params, grads)
    cut = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    whole = NamedSharding(cut.mesh, PartitionSpec())
    x = jax.device_put(params, cut)
    state = optax.tree_utils.tree_map_params(
        tx,
        lambda leaf: jax.device_put(leaf, cut),
        tx.init(x),
        transform_non_params=lambda leaf: jax.device_put(leaf, whole),
    )

    @jax.jit
    def step(params, state, g):
        updates, state = tx.update(g, state, params)
        return optax.apply_updates(params, updates), state

    for g in grads:
        x, state = step(x, state, jax.device_put(g, cut))
    assert_close(jax.device_get(x), jax.device_get(expected[-1]), rtol=1e-5, atol=1e-5)
    buffers = [leaf for leaf in jax.tree.leaves((x, state)) if leaf.shape == (16, 2)]
    assert len(buffers) == 1 + row.buffers
    assert all(leaf.sharding.is_equivalent_to(cut, 2) for leaf in buffers)


@every_row
def test_tree_map_params_finds_the_buffers_and_nothing_else(row):
    """A state is `buffers` trees like the parameters, the vectors named above, and scalars."""
    tx, params = row.build(), tree()
    state = tx.init(params)
    marks = optax.tree_utils.tree_map_params(
        tx,
        lambda leaf, like: leaf.shape == like.shape,
        state,
        params,
        transform_non_params=lambda leaf: None if leaf.shape == () else str(leaf.shape),
    )
    vectors = [str(shape) for shape in row.vectors]
    found = jax.tree.leaves(marks)
    assert found.count(True) == row.buffers * len(params)
    assert [mark for mark in found if mark is not True] == vectors


@every_row
def test_checkpoint_round_trip(row):
    """Bytes, shapes and dtypes of the leaves are the whole state."""
    tx, grads = row.build(), gradients(5)
    expected, _ = loop(tx, tree(), grads)
    xs, state = loop(tx, tree(), grads[:3])
    leaves, _ = jax.tree.flatten((xs[-1], state))
    stored = [(np.asarray(leaf).tobytes(), leaf.shape, leaf.dtype.name) for leaf in leaves]
    target = jax.eval_shape(lambda params: (params, tx.init(params)), tree())
    restored = [
        jnp.asarray(np.frombuffer(data, dtype).reshape(shape)) for data, shape, dtype in stored
    ]
    params, state = jax.tree.unflatten(jax.tree.structure(target), restored)
    rest, _ = loop(tx, params, grads[3:], state)
    chex.assert_trees_all_equal([*xs, *rest], expected)
