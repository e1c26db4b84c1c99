"""What holds for every clipping: properties, sizes of numbers, statistics, checkpoints, vmap."""

from functools import partial

import chex
import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import clipjax
from clipjax.optim._trees import find_states
from clipjax.optim.clipping.norms import project_global_norm
from clipjax.optim.clipping.quantile import empirical_quantile
from tests.optim.problems import feed, gradients, run, scan, stack, tree

KEY = 5

ADAPTIVE = {
    "quantile": clipjax.clip_by_quantile(0.5, 4),
    "quantile_per_tensor": clipjax.clip_by_quantile(0.5, 4, per_tensor=True),
    "zscore": clipjax.clip_by_zscore(1.5, warmup_steps=2),
    "zscore_mean": clipjax.clip_by_zscore(1.5, warmup_steps=2, mode="mean"),
    "zscore_skip": clipjax.clip_by_zscore(
        1.5, warmup_steps=2, mode="percentile", clip_factor=0.5, skip_update_on_spike=True
    ),
    "adaptive_norm": clipjax.clip_by_adaptive_norm(1.1, warmup_steps=2),
    "probability": clipjax.clip_with_probability(1.0, 1.0, jax.random.key(KEY)),
}
CONSTANT = {
    "global_norm": clipjax.clip_by_global_norm(1.0),
    "tensor_norm": clipjax.clip_by_tensor_norm(1.0),
    "value": clipjax.clip_by_value(1.0),
    "normalize": clipjax.normalize_by_global_norm(),
}
KINDS = {**CONSTANT, **ADAPTIVE}
EACH_TENSOR = ("tensor_norm", "quantile_per_tensor", "adaptive_norm")  # each tensor by itself

every_kind = pytest.mark.parametrize("name", KINDS)
every_adaptive_kind = pytest.mark.parametrize("name", ADAPTIVE)


# Properties. At any state a clipping is a map from gradients to gradients; `scale` is that of
# everything with the dimension of a gradient.
SCALED = {
    "global_norm": clipjax.clip_by_global_norm,
    "tensor_norm": clipjax.clip_by_tensor_norm,
    "value": clipjax.clip_by_value,
    "quantile": lambda scale: clipjax.clip_by_quantile(0.5, 4),
    "quantile_per_tensor": lambda scale: clipjax.clip_by_quantile(0.5, 4, per_tensor=True),
    "zscore": lambda scale: clipjax.clip_by_zscore(1.5, warmup_steps=3),
    "zscore_mean": lambda scale: clipjax.clip_by_zscore(
        1.5, warmup_steps=3, mode="mean", max_norm=4 * scale
    ),
    "zscore_skip": lambda scale: clipjax.clip_by_zscore(
        1.5, warmup_steps=3, mode="percentile", clip_factor=0.5, skip_update_on_spike=True
    ),
    "adaptive_norm": lambda scale: clipjax.clip_by_adaptive_norm(1.1, scale, warmup_steps=3),
    "adaptive_norm_warm": lambda scale: clipjax.clip_by_adaptive_norm(1.1, scale),
    "probability": lambda scale: clipjax.clip_with_probability(scale, 0.7, jax.random.key(KEY)),
}


def step_after_history(name, history, g, scale):
    """Clip `g` after the gradients `history`, and clip the result again at the same level."""
    tx = SCALED[name](scale)
    history, g = jax.tree.map(lambda leaf: scale * leaf, (history, g))

    def step(state, h):
        return tx.update(h, state)[1], None

    state, _ = jax.lax.scan(step, tx.init(g), history)
    clipped, new = tx.update(g, state)
    if name == "quantile":  # the clipped norm would move the quantile: the level of before
        again, _ = project_global_norm(clipped, empirical_quantile(new.norms, 0.5)[0])
    elif name == "quantile_per_tensor":
        levels = empirical_quantile(new.norms, 0.5)
        again = {n: project_global_norm(clipped[n], levels[i])[0] for i, n in enumerate("ab")}
    else:
        again, _ = tx.update(clipped, state)
    (_, before), (_, after) = (find_states(s, clipjax.ClipState)[0] for s in (state, new))
    return clipped, again, clipjax.clip_stats(new), after.clipped > before.clipped


STEPS = {name: jax.jit(partial(step_after_history, name)) for name in SCALED}

# A wide range of sizes whose ratios and sums stay exact enough in float32 at all scales used.
entries = st.one_of(
    st.just(0.0),
    st.floats(2.0**-10, 2.0**10, width=32),
    st.floats(-(2.0**10), -(2.0**-10), width=32),
)
gradient = st.fixed_dictionaries(
    {n: hnp.arrays(np.float32, size, elements=entries) for n, size in {"a": 3, "b": 2}.items()}
)
past = st.lists(gradient, min_size=4, max_size=4)


def double(leaf):
    return np.asarray(leaf, np.float64)


def assert_longer_and_parallel(g, clipped):
    """Direction kept: `clipped` is c · g with one c in [0, 1]."""
    g, clipped = double(g), double(clipped)
    if not np.any(g):
        np.testing.assert_array_equal(clipped, 0)
        return
    ratio = clipped @ g / (g @ g)
    assert -1e-7 <= ratio <= 1 + 1e-6
    np.testing.assert_allclose(clipped, ratio * g, rtol=1e-5, atol=1e-12 * np.max(np.abs(g)))


@pytest.mark.parametrize("name", SCALED)
def test_properties_at_any_state(name):
    """Never longer, same direction, idempotent, commutes with scaling, identity under the level."""
    seen = []

    @hypothesis.settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @hypothesis.given(history=past, g=gradient, power=st.sampled_from([-80, -2, 3, 80]))
    def check(history, g, power):
        history = {n: np.stack([h[n] for h in history]) for n in g}
        clipped, again, stats, changed = jax.device_get(STEPS[name](history, g, np.float32(1.0)))
        seen.append(bool(changed))

        for n, leaf in g.items():
            assert np.all(np.abs(clipped[n]) <= np.abs(leaf) * (1 + 1e-6)), "nothing gets longer"
        if name == "value":
            assert all(np.all(clipped[n] * g[n] >= 0) for n in g), "or turns around"
        elif name in EACH_TENSOR:
            for n in g:
                assert_longer_and_parallel(g[n], clipped[n])
        else:
            assert_longer_and_parallel(*(np.concatenate([x["a"], x["b"]]) for x in (g, clipped)))

        if not changed:
            chex.assert_trees_all_equal(clipped, g)  # identity under the level
        assert name == "probability" or changed == (stats.norm > stats.level)

        scaled = jax.device_get(STEPS[name](history, g, np.float32(2.0**power))[0])
        for n in g:
            np.testing.assert_allclose(again[n], clipped[n], rtol=1e-6, err_msg="idempotent")
            np.testing.assert_allclose(
                scaled[n] * np.float32(2.0**-power), clipped[n], rtol=1e-6, err_msg="scaling"
            )

    check()
    assert len(set(seen)) == 2, "examples on both sides of the level"


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True, database=None)
@hypothesis.given(g=gradient, power=st.sampled_from([-80, -2, 3, 80]))
def test_properties_of_the_normalised_gradient(g, power):
    """Length 1, same direction, idempotent, whatever the scale; zero stays zero."""
    tx = KINDS["normalize"]
    unit, _ = tx.update(g, tx.init(g))
    flat = double(np.concatenate([unit["a"], unit["b"]]))
    given = double(np.concatenate([g["a"], g["b"]]))
    length = np.linalg.norm(given)
    np.testing.assert_allclose(flat, given / (length or 1), rtol=1e-6)
    again, _ = tx.update(unit, tx.init(g))
    scaled, _ = tx.update(jax.tree.map(lambda x: x * np.float32(2.0**power), g), tx.init(g))
    for n in g:
        np.testing.assert_allclose(again[n], unit[n], rtol=1e-6)
        np.testing.assert_allclose(scaled[n], unit[n], rtol=1e-6)


@every_kind
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_gradients_come_out_as_nan_and_leave_no_trace(name, bad):
    tx, grads = KINDS[name], gradients(5)
    spoiled = {**grads[0], "vector": grads[0]["vector"].at[1].set(bad)}
    at = 4 if name == "adaptive_norm" else 1  # its warm-up counts all steps: let it be over
    updates, states, last = feed(tx, [*grads[:at], spoiled, *grads[at:]])
    alone = name in EACH_TENSOR
    if name == "value":  # cut like any other coordinate; NaN stays
        np.testing.assert_array_equal(updates["vector"][at, 1], np.clip(bad, -1, 1))
    else:
        assert np.all(np.isnan(updates["vector"][at]))
        assert np.all(np.isnan(updates["matrix"][at])) == (not alone)
    clip = last if isinstance(last, clipjax.ClipState) else last.clip
    norms = states.norm if isinstance(last, clipjax.ClipState) else states.clip.norm
    assert not np.isfinite(norms[at])
    assert np.isfinite(norms[-1])
    assert np.isfinite(clip.norm)
    for field in set(last._fields) - {"clip", *clipjax.ClipState._fields}:
        before, after = (np.array(getattr(states, field)[k]) for k in (at - 1, at))
        if alone:  # the others go on: the vector is the last leaf
            before, after = before[-1], after[-1]
        np.testing.assert_array_equal(before, after)
    for leaf in jax.tree.leaves(jax.tree.map(lambda x: x[-1], updates)):
        assert np.all(np.isfinite(leaf))


@every_adaptive_kind
def test_before_anything_finite_was_seen(name):
    tx = KINDS[name]
    grads = jnp.full((5, 4), 0.3).at[0, 0].set(np.nan)
    updates, _, last = feed(tx, grads)
    assert np.all(np.isnan(updates[0]))
    np.testing.assert_allclose(updates[1:], grads[1:], rtol=1e-6)
    assert clipjax.clip_stats(last).fraction == 0


@every_adaptive_kind
@pytest.mark.parametrize(
    ("dtype", "size"),
    [(jnp.float16, 300.0), (jnp.bfloat16, 1e30), (jnp.float32, 1e30), (jnp.float32, 3e38)],
)
def test_a_spike_whose_square_overflows_is_clipped(name, dtype, size):
    """After 3 steps of norm 1 and 2 in turn, four entries of `size`: even the norm may overflow."""
    ones = [jnp.full(4, x, dtype) for x in (0.5, 1.0, 0.5)]
    updates, states, last = feed(KINDS[name], [*ones, jnp.full(4, size, dtype), ones[0]])
    assert updates.dtype == dtype
    spike = np.asarray(updates, np.float64)[3]
    overflow = not np.isfinite(states.clip.norm[3])
    assert overflow == (size == 3e38)
    # Norms 1, 2, 1: the level after them; a quantile counts the new norm, if it is finite.
    level = {
        "quantile": 1.0 if overflow else 1.5,
        "quantile_per_tensor": 1.0 if overflow else 1.5,
        "probability": 1.0,
    }.get(name) or float(states.clip.level[3])
    np.testing.assert_allclose(spike, level / 2, rtol=1e-2)
    assert 0 < level < 2.5
    assert states.clip.clipped[3] - states.clip.clipped[2] == 1
    assert all(np.all(np.isfinite(x) | (x == np.inf)) for x in jax.tree.leaves(last)[:-1])
    assert np.all(np.isfinite(np.asarray(updates[4], np.float64)))


@every_kind
def test_zeros_stay_zero_and_empty_trees_are_no_error(name):
    updates, _, last = feed(KINDS[name], jnp.zeros((5, 4)))
    np.testing.assert_array_equal(updates, 0)
    assert clipjax.clip_stats(last).fraction == 0
    tx = KINDS[name]
    updates, state = tx.update({}, tx.init({}))
    assert updates == {}
    assert clipjax.clip_stats(state).norm == 0


@every_kind
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_gradients_are_clipped_as_their_float32_values_are(name, dtype):
    """Norms, levels and shares are those of the same numbers in float32; only results are rounded.

    Light tails and one spike: float16 holds all results. Half a unit in the last place is 2⁻¹¹ or
    2⁻⁸.
    """
    factors = np.array([1, 1, 1, 1, 20, 1], np.float32)
    low = {
        n: (g * factors.reshape(-1, *[1] * (g.ndim - 1))).astype(dtype)
        for n, g in stack(gradients(6, heavy=False)).items()
    }
    wide = jax.tree.map(lambda g: g.astype(jnp.float32), low)
    updates, states, last = feed(KINDS[name], low)
    expected, wide_states, _ = feed(KINDS[name], wide)
    chex.assert_trees_all_close(states, wide_states, rtol=1e-6)
    assert 0 < clipjax.clip_stats(last).fraction <= 1
    rtol = 2.0**-11 if dtype == jnp.float16 else 2.0**-8
    for n, leaf in updates.items():
        assert leaf.dtype == dtype
        np.testing.assert_allclose(double(leaf), double(expected[n]), rtol=1.01 * rtol)


WRAPPERS = {
    "chain": lambda tx: optax.chain(optax.trace(0.9), tx, optax.sgd(0.1)),
    "named_chain": lambda tx: optax.named_chain(("clip", tx), ("step", optax.sgd(0.1))),
    "masked": lambda tx: optax.masked(tx, {"matrix": True, "vector": True, "scalar": True}),
    "partition": lambda tx: optax.partition(
        {"ours": tx, "theirs": optax.sgd(0.1)},
        {"matrix": "ours", "vector": "ours", "scalar": "ours"},
    ),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "multi_steps": lambda tx: optax.MultiSteps(tx, 1).gradient_transformation(),
    "averaged": lambda tx: clipjax.average_iterates(optax.chain(tx, optax.sgd(0.1))),
}


@pytest.mark.parametrize(
    ("name", "wrapper"),
    [*(("zscore", wrapper) for wrapper in WRAPPERS), ("value", "chain"), ("quantile", "partition")],
)
def test_statistics_are_found_within(name, wrapper):
    """The last norm, level and share of clipped steps are those of the clipping by itself."""
    grads = gradients(6)
    if wrapper == "chain":
        velocity, seen = jax.tree.map(np.zeros_like, grads[0]), []
        for g in grads:  # what optax.trace(0.9) hands on
            velocity = {n: np.float32(0.9) * velocity[n] + np.asarray(g[n]) for n in g}
            seen.append(velocity)
    else:
        seen = grads
    state, _, _ = run(WRAPPERS[wrapper](KINDS[name]), tree(), grads)
    _, _, alone = feed(KINDS[name], stack(seen))
    chex.assert_trees_all_close(clipjax.clip_stats(state), clipjax.clip_stats(alone), rtol=1e-5)
    assert clipjax.clip_stats(state).fraction > 0


@every_kind
def test_the_share_counts_the_steps_that_were_changed(name):
    updates, states, last = feed(KINDS[name], stack(gradients(6)))
    given = stack(gradients(6))
    changed = np.array(
        [any(not np.array_equal(updates[n][k], given[n][k]) for n in given) for k in range(6)]
    )
    counts = states.clipped if isinstance(last, clipjax.ClipState) else states.clip.clipped
    # One of the kinds lengthens as well, and counts what it shortens.
    if name == "normalize":
        changed = np.asarray(states.norm) > 1
    # To rounding: a norm that is the quantile itself is not above it, yet may be multiplied by 1.
    np.testing.assert_array_equal(np.diff(counts, prepend=0) == 1, changed)
    np.testing.assert_allclose(clipjax.clip_stats(last).fraction, np.mean(changed), rtol=1e-6)


def test_checkpoints(tmp_path):
    """Orbax gives every state back bit for bit, with its types, into a target without values."""
    states = {name: feed(tx, stack(gradients(6)))[2] for name, tx in KINDS.items()}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "states", states)
        checkpointer.wait_until_finished()
        fresh = jax.eval_shape(lambda: {n: tx.init(gradients(1)[0]) for n, tx in KINDS.items()})
        device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), fresh
        )
        restored = checkpointer.restore(tmp_path / "states", target)
    chex.assert_trees_all_equal_structs(restored, states)
    chex.assert_trees_all_equal_shapes_and_dtypes(restored, states)
    chex.assert_trees_all_equal(restored, states)


@pytest.mark.parametrize("name", ["quantile", "zscore_mean", "zscore_skip"])
def test_replicas_side_by_side(name):
    """64 replicas under vmap take the steps of 64 runs; the other kinds in test_contract.py."""
    rng = np.random.default_rng(4)
    grads = {n: rng.standard_t(1.5, (64, 6, *s)).astype(np.float32) for n, s in
             {"matrix": (3, 2), "vector": (4,), "scalar": ()}.items()}  # fmt: skip
    tx = KINDS[name]
    state = tx.init(tree())

    def train(g):
        return scan(tx, state, g)

    together = jax.jit(jax.vmap(train))(grads)
    one_by_one = jax.jit(lambda g: jax.lax.map(train, g))(grads)
    chex.assert_trees_all_close(together, one_by_one, rtol=2e-5, atol=1e-7)


def test_replicas_with_their_own_quantile():
    """Trained within an optimizer, each is the run by itself."""
    params, grads = tree(), gradients(6)
    quantiles = jnp.array([0.2, 0.8])

    def train(quantile):
        tx = optax.chain(clipjax.clip_by_quantile(quantile, 4), optax.sgd(0.1))
        state, xs, _ = run(tx, params, grads)
        return clipjax.clip_stats(state), xs

    together, xs = jax.vmap(train)(quantiles)
    assert together.norm.shape == together.level.shape == together.fraction.shape == (2,)
    for i, quantile in enumerate(quantiles):
        alone, x = train(quantile)
        np.testing.assert_allclose(together.fraction[i], alone.fraction, rtol=1e-6)
        np.testing.assert_allclose(xs["vector"][i], x["vector"], rtol=1e-5)
    assert not np.allclose(xs["vector"][0], xs["vector"][1])


@every_kind
def test_integer_parameters_are_refused(name):
    with pytest.raises(ValueError, match=r"\['n'\] has dtype int32"):
        KINDS[name].init({"w": jnp.zeros(2), "n": jnp.zeros(2, jnp.int32)})


@pytest.mark.parametrize("name", ["quantile_per_tensor", "adaptive_norm"])
def test_a_gradient_with_another_number_of_tensors_is_refused(name):
    tx = KINDS[name]
    with pytest.raises(ValueError, match="each of 3 tensors, but the gradient has 1"):
        tx.update({"vector": jnp.ones(4)}, tx.init(tree()))
