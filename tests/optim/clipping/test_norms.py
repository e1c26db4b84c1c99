"""The clippings against the written-out rule, and the properties of a projection onto a ball."""

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax.optim.clipping.norms import PROJECTIONS, _checked_norm, _rescaled_norm, scaled_norm
from tests.optim import reference
from tests.optim.problems import gradients, tree

KINDS = tuple(PROJECTIONS)
NORM_KINDS = ("global_norm", "tensor_norm")
CONSTRUCTORS = {
    "global_norm": clipjax.clip_by_global_norm,
    "tensor_norm": clipjax.clip_by_tensor_norm,
    "value": clipjax.clip_by_value,
}


def clip(kind, grads, level):
    tx = CONSTRUCTORS[kind](level)
    updates, state = tx.update(grads, tx.init(grads))
    return updates, clipjax.clip_stats(state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0.05, 1.0, 20.0])
def test_equals_the_rule_written_out(kind, level):
    with jax.enable_x64(True):
        for grads in gradients(20, jnp.float64):
            updates, stats = clip(kind, grads, level)
            expected = reference.clip(kind, grads, level)
            for name in grads:
                np.testing.assert_allclose(updates[name], expected[name], rtol=1e-14)
            norm = reference.norm(kind, grads)
            np.testing.assert_allclose(stats.norm, norm, rtol=1e-14)
            assert stats.level == level
            assert stats.fraction == float(norm > level)


@pytest.mark.parametrize("kind", KINDS)
def test_level_may_be_a_schedule_from_step_zero(kind):
    levels = optax.piecewise_constant_schedule(4.0, {1: 0.5, 3: 0.25})  # 4, 2, 2, 0.5
    tx = CONSTRUCTORS[kind](levels)
    grads = {"w": jnp.array([100.0])}
    state = tx.init(grads)
    seen = []
    for _ in range(4):
        updates, state = tx.update(grads, state)
        assert clipjax.clip_stats(state).level == updates["w"][0]
        seen.append(float(updates["w"][0]))
    np.testing.assert_allclose(seen, [float(levels(k)) for k in range(4)], rtol=1e-6)
    assert len(set(seen)) == 3


finite = st.floats(-1e3, 1e3, width=32, allow_subnormal=False)
vectors = hnp.arrays(np.float32, st.integers(1, 6), elements=finite)
trees = st.fixed_dictionaries({"a": vectors, "b": vectors})
levels = st.floats(2.0**-7, 128.0, width=32)


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(grads=trees, level=levels, factor=st.sampled_from([0.25, 0.5, 2.0, 8.0]))
@pytest.mark.parametrize("kind", KINDS)
def test_is_a_projection(kind, grads, level, factor):
    grads = jax.tree.map(jnp.asarray, grads)
    project = PROJECTIONS[kind]
    clipped, norm = project(grads, level)
    _, new_norm = project(clipped, level)

    assert new_norm <= level * (1 + 1e-6), "it is inside the ball"
    for name, g in grads.items():
        assert jnp.all(jnp.abs(clipped[name]) <= jnp.abs(g)), "nothing gets longer"
        assert jnp.all(jnp.sign(clipped[name]) * jnp.sign(g) >= 0), "or turns around"
    if norm <= level:
        for name, g in grads.items():
            np.testing.assert_array_equal(clipped[name], g, "identity inside the ball")

    again, _ = project(clipped, level)
    scaled, _ = project(jax.tree.map(lambda g: factor * g, grads), factor * level)
    for name in grads:
        np.testing.assert_allclose(again[name], clipped[name], rtol=1e-6, err_msg="idempotent")
        np.testing.assert_allclose(
            scaled[name], factor * clipped[name], rtol=1e-6, err_msg="commutes with scaling"
        )


@hypothesis.settings(max_examples=40, deadline=None, derandomize=True)
@hypothesis.given(grads=trees, level=levels)
@pytest.mark.parametrize("kind", NORM_KINDS)
def test_norm_kinds_keep_the_direction(kind, grads, level):
    clipped, _ = PROJECTIONS[kind](jax.tree.map(jnp.asarray, grads), level)
    if kind == "global_norm":
        grads = {"all": np.concatenate([grads["a"], grads["b"]])}
        clipped = {"all": np.concatenate([clipped["a"], clipped["b"]])}
    for name, g in grads.items():
        g, c = np.asarray(g, np.float64), np.asarray(clipped[name], np.float64)
        cosine_defect = np.linalg.norm(g) * np.linalg.norm(c) - g @ c
        assert abs(cosine_defect) <= 1e-6 * np.linalg.norm(g) * np.linalg.norm(c)


def test_kinds_are_ordered_by_what_they_keep():
    """At one level the ball of max|g_i| holds that of the tensor norms, which holds the global."""
    for grads in gradients(20):
        lengths = [reference.global_norm(reference.double(clip(k, grads, 1.0)[0])) for k in KINDS]
        assert lengths == sorted(lengths)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("dtype", "size"),
    [
        (jnp.float16, 300.0),  # 300² is infinite in float16
        (jnp.bfloat16, 1e30),
        (jnp.float32, 1e30),  # 1e60 is infinite in float32
        (jnp.float32, 3e38),  # the norm itself is; and 1 / 3e38 is flushed to zero
        (jnp.float32, 1e-30),  # 1e-60 is zero
    ],
)
def test_sizes_whose_squares_leave_the_dtype(kind, dtype, size):
    grads = {"w": jnp.full(4, size, dtype)}
    level = min(1.0, size / 4)  # below the norm in every case
    for update in (clip, jax.jit(clip, static_argnums=(0, 2))):
        updates, stats = update(kind, grads, level)
        # Four equal entries: the Euclidean norm is twice an entry.
        expected = level if kind == "value" else level / 2
        np.testing.assert_allclose(np.asarray(updates["w"], np.float64), expected, rtol=1e-3)
        assert updates["w"].dtype == dtype
        assert stats.fraction == 1
        assert stats.norm.dtype == jnp.float32


@pytest.mark.parametrize("kind", KINDS)
def test_zero_stays_zero(kind):
    updates, stats = clip(kind, {"w": jnp.zeros(3), "empty": jnp.zeros((0, 2))}, 1.0)
    np.testing.assert_array_equal(updates["w"], 0)
    assert stats == (0.0, 1.0, 0.0)


def test_an_empty_tree_is_no_error():
    updates, stats = clip("global_norm", {}, 1.0)
    assert updates == {}
    assert stats.norm == 0


def test_long_sums_in_low_precision_are_exact():
    """A bfloat16 sum of ones stops at 256; the norm of 2^16 ones is 2^8."""
    norm = scaled_norm(jnp.ones(2**16, jnp.bfloat16)).norm()
    assert norm == 2.0**8
    assert norm.dtype == jnp.float32


@pytest.mark.parametrize("way", [_checked_norm, _rescaled_norm])
@pytest.mark.parametrize("transform", [jax.jit, jax.vmap])
def test_both_ways_to_the_norm_hold_for_every_size(way, transform):
    """From subnormal to the largest numbers, across the sizes where the one way hands over."""
    direction = np.array([3.0, -4.0, 12.0]) / 13  # of length 1
    for exponent in range(-37, 39):
        g = jnp.asarray((direction * 10.0**exponent)[None], jnp.float32)
        scale, relative = transform(way)(g)
        np.testing.assert_allclose(np.float64(scale) * relative, 10.0**exponent, rtol=3e-7)
    g = jnp.full((1, 2), 1e-41, jnp.float32)
    scale, relative = transform(way)(g)  # such numbers are flushed to zero on some machines
    assert 0 <= scale * relative <= 2e-41
    assert np.all(np.isfinite(1 / scale)), "gradients are multiplied by it"


def test_squares_lost_to_underflow_are_noticed():
    """A million squares of 1e-38, each too small for a float32, beside one of 9e-34.

    Together they are 1e-32 + 9e-34. The sum without them, 9e-34, is a sound number.
    """
    g = {"large": jnp.array([3e-17]), "small": jnp.full(1000**2, 1e-19)}
    norm = jax.jit(scaled_norm)(g).norm()
    np.testing.assert_allclose(norm, np.sqrt(1e-32 + 9e-34), rtol=1e-6)


def test_norms_of_mixed_trees_are_formed_in_the_widest_dtype():
    with jax.enable_x64(True):
        mixed = {"a": jnp.ones(2, jnp.float64), "b": jnp.ones(2, jnp.bfloat16)}
        updates, stats = clip("global_norm", mixed, 1.0)
        assert stats.norm.dtype == jnp.float64
        assert [updates[n].dtype for n in "ab"] == [jnp.float64, jnp.bfloat16]


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("level", [1.0, jnp.inf])
def test_non_finite_gradients(bad, level):
    grads = {"good": jnp.array([3.0, 4.0]), "bad": jnp.array([1.0, bad])}

    updates, stats = clip("global_norm", grads, level)
    assert all(jnp.all(jnp.isnan(leaf)) for leaf in jax.tree.leaves(updates))
    assert jnp.isnan(stats.norm)
    assert stats.fraction == 0

    updates, _ = clip("tensor_norm", grads, level)
    assert jnp.all(jnp.isnan(updates["bad"]))
    np.testing.assert_allclose(updates["good"], np.array([3.0, 4.0]) * min(1, level / 5), rtol=1e-6)

    updates, _ = clip("value", grads, level)
    np.testing.assert_allclose(updates["bad"], [min(1.0, level), np.clip(bad, -level, level)])


@pytest.mark.parametrize("kind", KINDS)
def test_apply_if_finite_leaves_the_statistics_alone(kind):
    tx = optax.apply_if_finite(CONSTRUCTORS[kind](1.0), max_consecutive_errors=5)
    grads = jnp.array([3.0, 4.0])
    updates, before = tx.update(grads, tx.init(grads))
    assert jnp.any(updates != 0)
    updates, after = tx.update(jnp.array([jnp.nan, 1.0]), before)
    np.testing.assert_array_equal(updates, 0)
    assert clipjax.clip_stats(after) == clipjax.clip_stats(before)


@pytest.mark.parametrize("kind", KINDS)
def test_statistics_count_clipped_steps_exactly(kind):
    tx = optax.chain(optax.identity(), CONSTRUCTORS[kind](1.0), optax.sgd(1.0))
    state = tx.init(jnp.zeros(1))
    assert clipjax.clip_stats(state) == (0.0, 1.0, 0.0)
    sizes = [0.5, 2.0, 1.0, 3.0, 0.1]  # exactly at the level nothing is changed
    for n, size in enumerate(sizes, start=1):
        _, state = tx.update(jnp.array([size]), state)
        stats = clipjax.clip_stats(state)
        assert stats.norm == np.float32(size)
        np.testing.assert_allclose(stats.fraction, sum(s > 1 for s in sizes[:n]) / n, rtol=1e-7)


def test_value_counts_a_step_if_any_coordinate_was_cut():
    _, stats = clip("value", {"a": jnp.array([0.1, -7.0]), "b": jnp.array(0.2)}, 1.0)
    assert stats == (7.0, 1.0, 1.0)


def test_normalising():
    with jax.enable_x64(True):
        tx = clipjax.normalize_by_global_norm()
        for grads in gradients(10, jnp.float64):
            updates, state = tx.update(grads, tx.init(grads))
            norm = reference.global_norm(reference.double(grads))
            for name, g in grads.items():
                np.testing.assert_allclose(updates[name], g / norm, rtol=1e-14)
            assert clipjax.clip_stats(state).fraction == float(norm > 1)
    for value, expected in [(0.0, 0.0), (1e30, 0.5), (1e-30, 0.5), (jnp.nan, jnp.nan)]:
        grads = jnp.full(4, value)
        updates, _ = tx.update(grads, tx.init(grads))
        np.testing.assert_allclose(updates, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_level_that_falls_below_zero_stops_and_does_not_turn_round(kind):
    tx = CONSTRUCTORS[kind](lambda k: 1.0 - k)
    state = tx.init(tree())
    for expected in (1.0, 0.0, 0.0):  # the levels of steps 0, 1, 2
        updates, state = tx.update(tree(), state)
        np.testing.assert_allclose(
            reference.norm(kind, jax.device_get(updates)), expected, rtol=1e-6
        )
        assert clipjax.clip_stats(state).level == expected


def test_gradients_flow_through_a_clipping():
    """d|clip(g)|²/dg is 0 outside the ball (the length is fixed) and 2g inside, finite at 0."""

    def length(g):
        return jnp.sum(clip("global_norm", g, 1.0)[0] ** 2)

    np.testing.assert_allclose(jax.grad(length)(jnp.array([3.0, 4.0])), 0, atol=1e-6)
    np.testing.assert_allclose(jax.grad(length)(jnp.array([0.3, 0.4])), [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(length)(jnp.zeros(2)), 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0.0, -1.0, float("nan"), np.float32(-2), jnp.float32(-2)])
def test_levels_that_are_not_positive_are_refused(kind, level):
    with pytest.raises(ValueError, match=r"max_\w+ must be positive, got"):
        CONSTRUCTORS[kind](level)


@pytest.mark.parametrize("make", [*CONSTRUCTORS.values(), None])
def test_integer_parameters_are_refused_by_name(make):
    tx = clipjax.normalize_by_global_norm() if make is None else make(1.0)
    params = {"w": jnp.zeros(2), "steps": jnp.zeros(2, jnp.int32)}
    with pytest.raises(ValueError, match=r"\['steps'\] has dtype int32"):
        tx.init(params)
    masked = optax.masked(tx, {"w": True, "steps": False})
    updates, _ = masked.update(params, masked.init(params))
    assert updates["steps"].dtype == jnp.int32


def test_clip_stats_names_what_it_found():
    grads = tree()
    with pytest.raises(
        ValueError, match=r"found no clipping .* holds: ScaleByAdamState, EmptyState"
    ):
        clipjax.clip_stats(optax.adam(0.1).init(grads))
    both = optax.chain(clipjax.clip_by_value(1.0), clipjax.clip_by_global_norm(2.0))
    state = both.init(grads)
    with pytest.raises(ValueError, match=r"opt_state\[0\], ClipState at opt_state\[1\]"):
        clipjax.clip_stats(state)
    assert clipjax.clip_stats(state[1]).level == 2


def test_clip_stats_looks_into_wrappers():
    tx = optax.MultiSteps(
        optax.inject_hyperparams(clipjax.clipped_sgd)(learning_rate=0.1, clip_level=1.0), 2
    )
    params = tree()
    state = tx.init(params)
    _, state = jax.jit(tx.update)(params, state, params)
    assert clipjax.clip_stats(state).level == 1
