"""The contract of every public transformation: one row each, one test function per property.

A new transformation is one `Row` of tests/optim/contract_rows.py;
`test_every_public_transformation_has_a_row` asks for it.
Trees are tiny and most loops run without jit, where operations are compiled once for all rows.
"""

import functools
import inspect

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
from tests.optim.contract_rows import ROWS, compiled
from tests.optim.problems import gradients, tree

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
