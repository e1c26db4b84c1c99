"""The adaptive clippings against the rules written out, recorded peers, and bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax.optim.adaptive_clipping import MODES, clip_at_random
from tests.optim import reference
from tests.optim.problems import gradients, run, tree
from tests.optim.test_golden import load, split

KEY = 5


@partial(jax.jit, static_argnums=0)
def scan(tx, state, grads):
    def step(state, g):
        updates, state = tx.update(g, state)
        return state, (updates, state)

    return jax.lax.scan(step, state, grads)


def feed(tx, grads):
    """Return the updates and states of all steps, stacked, and the last state."""
    if isinstance(grads, list):
        grads = jax.tree.map(lambda *leaves: np.stack(leaves), *grads)
    last, (updates, states) = scan(tx, tx.init(jax.tree.map(lambda g: g[0], grads)), grads)
    return updates, states, last


def sizes(*numbers, dtype=jnp.float32):
    """Gradients of one tensor with these norms."""
    return [np.array([number], dtype) for number in numbers]


def quantile_levels(norms, quantile, window):
    """The level of each step; norms that are not finite take no place in the window."""
    levels, history = [], []
    for norm in norms:
        if np.isfinite(norm):
            history = [*history, norm][-window:]
        levels.append(np.quantile(history, quantile) if history else np.inf)
    return np.array(levels)


def zscore(norms, threshold, decay, warmup_steps, mode, max_norm=np.inf):
    """Levels, means and deviations, one a step, as in the paper's algorithm."""
    rows, history, mean, variance = [], [], 0.0, 0.0
    for norm in norms:
        if len(history) < warmup_steps:
            history.append(norm)
            mean, variance = np.mean(history), np.var(history)
            level = np.inf
        else:
            z = (norm - mean) / np.sqrt(variance)
            level, fed = mean + threshold * np.sqrt(variance), norm
            if z > threshold:
                if mode == "adaptive":
                    level = mean + threshold * np.sqrt(variance) / (z / threshold)
                if mode == "mean":
                    level = mean
                fed = level
            mean = decay * mean + (1 - decay) * fed
            variance = decay * variance + (1 - decay) * (fed - mean) ** 2
        rows.append((min(level, max_norm), mean, np.sqrt(variance)))
    return np.array(rows).T


def adaptive_norm(grads, relative, absolute, decay, warmup_steps):
    """The clipped gradients of AdaGC."""
    gamma = {name: np.inf for name in grads[0]}
    rows = []
    for k, g in enumerate(map(reference.double, grads)):
        if k < warmup_steps:
            g = reference.clip("global_norm", g, absolute)
            norms = {name: np.linalg.norm(leaf) for name, leaf in g.items()}
            gamma = {name: min(gamma[name], norms[name]) for name in g}
        else:
            g = {n: reference.clip("global_norm", {n: g[n]}, relative * gamma[n])[n] for n in g}
            norms = {name: np.linalg.norm(leaf) for name, leaf in g.items()}
            gamma = {n: decay * gamma[n] + (1 - decay) * norms[n] for n in g}
        rows.append(g)
    return rows


def check_updates(updates, expected, rtol=1e-12):
    for name, leaf in updates.items():
        np.testing.assert_allclose(leaf, np.stack([g[name] for g in expected]), rtol=rtol)


@pytest.mark.parametrize(("quantile", "window"), [(0.5, 60), (0.93, 7), (0.5, 1)])
def test_quantile_written_out(quantile, window):
    """50 steps go round a ring of 7 seven times; a window of 1 never clips."""
    with jax.enable_x64(True):
        grads = gradients(50, jnp.float64)
        updates, states, last = feed(clipjax.clip_by_quantile(quantile, window), grads)
        norms = np.array([reference.norm("global_norm", g) for g in grads])
        levels = quantile_levels(norms, quantile, window)
        np.testing.assert_allclose(states.clip.level, levels, rtol=1e-13)
        clipped = [reference.clip("global_norm", g, x) for g, x in zip(grads, levels, strict=True)]
        check_updates(updates, clipped)
        # To rounding: a norm that is the quantile itself is not above it.
        share = np.mean(norms > levels * (1 + 1e-12))
        np.testing.assert_allclose(clipjax.clip_stats(last).fraction, share, rtol=1e-15)
        assert (share == 0) == (window == 1)


def test_quantile_of_each_tensor():
    with jax.enable_x64(True):
        grads = gradients(30, jnp.float64)
        updates, states, _ = feed(clipjax.clip_by_quantile(0.6, 9, per_tensor=True), grads)
        levels, norms = {}, {}
        for n in grads[0]:
            norms[n] = np.array([np.linalg.norm(g[n]) for g in grads])
            levels[n] = quantile_levels(norms[n], 0.6, 9)
        clipped = [
            {n: g[n] * min(1, levels[n][k] / norms[n][k]) for n in g} for k, g in enumerate(grads)
        ]
        check_updates(updates, clipped)
        # Reported are norm and level of the tensor that was shortened most.
        for k in range(30):
            worst = max(norms, key=lambda n, k=k: norms[n][k] / levels[n][k])
            np.testing.assert_allclose(states.clip.norm[k], norms[worst][k], rtol=1e-12)
            np.testing.assert_allclose(states.clip.level[k], levels[worst][k], rtol=1e-12)
        changed = [any(norms[n][k] > levels[n][k] * (1 + 1e-12) for n in norms) for k in range(30)]
        np.testing.assert_array_equal(states.clip.clipped, np.cumsum(changed))


def test_quantile_may_be_a_schedule_and_constant_norms_are_never_clipped():
    tx = clipjax.clip_by_quantile(lambda k: jnp.where(k < 3, 0.5, 0.25))
    _, states, _ = feed(tx, sizes(1, 2, 4, 8, 16))
    # Medians of {1}, {1, 2}, {1, 2, 4}; then index 0.25 · 3 = 0.75 and 0.25 · 4 = 1.
    np.testing.assert_allclose(states.clip.level, [1, 1.5, 2, 1.75, 2], rtol=1e-6)
    _, _, last = feed(clipjax.clip_by_quantile(0.3, 5), [tree()] * 12)
    assert clipjax.clip_stats(last).fraction == 0


@pytest.mark.parametrize("max_norm", [None, 6.0])
@pytest.mark.parametrize("mode", MODES)
def test_zscore_written_out(mode, max_norm):
    with jax.enable_x64(True):
        grads = gradients(60, jnp.float64)
        options = {"decay": 0.9, "warmup_steps": 8, "mode": mode}
        tx = clipjax.clip_by_zscore(1.5, max_norm=max_norm, **options)
        updates, states, last = feed(tx, grads)
        norms = np.array([reference.norm("global_norm", g) for g in grads])
        levels, mean, deviation = zscore(norms, 1.5, max_norm=max_norm or np.inf, **options)
        np.testing.assert_allclose(states.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(states.deviation, deviation, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(states.clip.level, levels, rtol=1e-12)
        check_updates(
            updates,
            [reference.clip("global_norm", g, x) for g, x in zip(grads, levels, strict=True)],
        )
        share = np.mean(norms > levels)
        assert 0.02 < share < 1
        np.testing.assert_allclose(clipjax.clip_stats(last).fraction, share, rtol=1e-15)


def test_adaptive_norm_written_out():
    with jax.enable_x64(True):
        grads = gradients(40, jnp.float64)
        updates, states, _ = feed(
            clipjax.clip_by_adaptive_norm(2.0, 3.0, decay=0.8, warmup_steps=6), grads
        )
        check_updates(updates, adaptive_norm(grads, 2.0, 3.0, 0.8, 6))
        norms = [reference.norm("global_norm", g) for g in grads[:6]]
        np.testing.assert_allclose(states.clip.norm[:6], norms, rtol=1e-14)
        np.testing.assert_array_equal(states.clip.level[:6], 3)
        counts = np.diff(states.clip.clipped[5:])
        np.testing.assert_array_equal(counts, (states.clip.norm > states.clip.level)[6:])
        assert 5 < counts.sum() < 34


@pytest.mark.parametrize("name", ["quantile", "zscore", "adaptive_norm"])
def test_commute_with_scaling(name):
    """Scales whose squares leave float32 change nothing but the scale."""
    tx = {
        "quantile": clipjax.clip_by_quantile(0.5, 5),
        "zscore": clipjax.clip_by_zscore(1.5, warmup_steps=4),
        # Its level in the warm-up is absolute.
        "adaptive_norm": clipjax.clip_by_adaptive_norm(1.1, jnp.inf, warmup_steps=4),
    }[name]
    grads = gradients(20)
    expected, states, _ = feed(tx, grads)
    for scale in (2.0**-60, 2.0**60):
        actual, _, _ = feed(tx, [jax.tree.map(lambda x, s=scale: x * s, g) for g in grads])
        for n, leaf in expected.items():
            np.testing.assert_allclose(actual[n] / scale, leaf, rtol=1e-5)
    assert states.clip.clipped[-1] > 2


def test_recorded_autoclip():
    """Its level is ours. It scales by level / (norm + 1e-6): shorter by 1e-6 / norm, 5e-8 here."""
    with jax.enable_x64(True):
        data, hyper = load("autoclip_pseeth_p50")
        grads = [split(g) for g in data["grads"]]
        updates, states, _ = feed(clipjax.clip_by_quantile(hyper["clip_percentile"] / 100), grads)
    flat = np.concatenate([np.reshape(updates["W"], (-1, 6)), updates["b"]], axis=1)
    norms = data["grad_norm"]
    np.testing.assert_allclose(states.clip.norm, norms, rtol=1e-14)
    np.testing.assert_allclose(states.clip.level, data["threshold"], rtol=1e-14)
    shortened = norms >= data["threshold"] * (1 - 1e-14)
    factor = np.where(shortened, norms / (norms + 1e-6), 1)
    steps = np.diff(data["x"], axis=0)
    np.testing.assert_allclose(-0.02 * flat * factor[:, None], steps, rtol=0, atol=1e-12)
    assert 1e-10 < np.max(np.abs(-0.02 * flat - steps)) < 1e-6


def test_recorded_zclip():
    """Its averages and its steps; it met no spike, so its 1e-6 in the z-score is not seen here."""
    with jax.enable_x64(True):
        data, hyper = load("zclip_zscore_adaptive")
        tx = clipjax.clip_by_zscore(warmup_steps=hyper["warmup_steps"])
        updates, states, last = feed(tx, [split(g) for g in data["grads"]])
    late = np.isfinite(data["ema_mean"])
    assert np.sum(late) == 50 - hyper["warmup_steps"] + 1
    np.testing.assert_allclose(states.mean[late], data["ema_mean"][late], rtol=1e-10)
    np.testing.assert_allclose(states.deviation[late] ** 2, data["ema_var"][late], rtol=1e-10)
    np.testing.assert_allclose(states.clip.norm, data["clipped_norm"], rtol=1e-10)
    flat = np.concatenate([np.reshape(updates["W"], (-1, 6)), updates["b"]], axis=1)
    np.testing.assert_allclose(-0.02 * flat, np.diff(data["x"], axis=0), rtol=0, atol=1e-10)
    assert last.clip.clipped == 0


def test_recorded_randomised_clipping():
    """The peer draws once a tensor, with the probability of the global norm."""
    with jax.enable_x64(True):
        data, hyper = load("tco_sgd_linear_rand_norm_m0")
        clip = jax.jit(lambda g, u: clip_at_random(g, u, hyper["clipping_level"], hyper["beta"])[0])
        steps = -hyper["lr"] * np.array(
            [
                np.concatenate([clip(split(g), w)["W"].ravel(), clip(split(g), b)["b"]])
                for g, (w, b) in zip(data["grads"], data["uniforms"], strict=True)
            ]
        )
    np.testing.assert_allclose(data["x"][:-1] + steps, data["x"][1:], rtol=0, atol=1e-10)


@pytest.mark.parametrize("power", [1, 2])
def test_share_of_randomised_clippings(power):
    """A gradient of twice the level: b^(1/2) or b^(1/4). 4000 draws: five deviations are 0.04."""
    grads = np.full((4000, 1), 2.0, np.float32)
    tx = clipjax.clip_with_probability(1.0, 0.3, jax.random.key(KEY), power=power)
    updates, _, last = feed(tx, grads)
    fraction = clipjax.clip_stats(last).fraction
    np.testing.assert_allclose(fraction, 0.3 ** (0.5**power), atol=0.04)
    assert set(np.unique(updates)) == {1.0, 2.0}
    np.testing.assert_allclose(np.mean(updates == 1), fraction, rtol=1e-6)


def test_a_short_gradient_is_never_and_base_one_always_clipped():
    key = jax.random.key(KEY)
    updates, _, last = feed(clipjax.clip_with_probability(1.0, 0.9, key), sizes(*[1.0] * 50))
    np.testing.assert_array_equal(updates, 1)
    assert clipjax.clip_stats(last) == (1.0, 1.0, 0.0)
    updates, _, last = feed(clipjax.clip_with_probability(1.0, 1.0, key), sizes(*[1.5] * 50))
    np.testing.assert_array_equal(updates, 1)
    assert clipjax.clip_stats(last) == (1.5, 1.0, 1.0)


def test_a_nan_is_whole_whether_drawn_or_not():
    for uniform in (0.0, 0.99):
        updates, _, clipped = clip_at_random(jnp.array([1.0, np.nan]), uniform, 1.0, 0.5)
        assert np.all(np.isnan(updates))
        assert not clipped


def test_replicas_draw_their_own_and_keys_of_both_kinds_draw_the_same():
    grads = sizes(*[2.0] * 30)

    def draws(key):
        return feed(clipjax.clip_with_probability(1.0, 0.25, key), grads)[0]

    keys = jax.random.split(jax.random.key(KEY), 3)
    together = jax.vmap(draws)(keys)
    for key, row in zip(keys, together, strict=True):
        np.testing.assert_array_equal(row, draws(key))
        np.testing.assert_array_equal(row, draws(jax.random.key_data(key)))
    assert len({row.tobytes() for row in np.asarray(together)}) == 3


KINDS = {
    "quantile": clipjax.clip_by_quantile(0.5, 4),
    "quantile_per_tensor": clipjax.clip_by_quantile(0.5, 4, per_tensor=True),
    "zscore": clipjax.clip_by_zscore(1.5, warmup_steps=2),
    "adaptive_norm": clipjax.clip_by_adaptive_norm(1.1, warmup_steps=2),
    "probability": clipjax.clip_with_probability(1.0, 1.0, jax.random.key(KEY)),
}

every_kind = pytest.mark.parametrize("name", KINDS)


@pytest.mark.parametrize(
    ("name", "bad"), [(n, (np.nan, np.inf)[i % 2]) for i, n in enumerate(KINDS)]
)
def test_non_finite_gradients_come_out_as_nan_and_leave_no_trace(name, bad):
    tx, grads = KINDS[name], gradients(6)
    spoiled = {**grads[0], "vector": grads[0]["vector"].at[1].set(bad)}
    at = 4 if name == "adaptive_norm" else 1  # its warm-up counts all steps: let it be over
    updates, states, last = feed(tx, [*grads[:at], spoiled, *grads[at:]])
    alone = name in ("quantile_per_tensor", "adaptive_norm")  # each tensor by itself
    assert np.all(np.isnan(updates["vector"][at]))
    assert np.all(np.isnan(updates["matrix"][at])) == (not alone)
    assert np.isnan(states.clip.norm[at])
    assert np.isfinite(states.clip.norm[-1])
    for field in set(last._fields) - {"clip"}:
        before, after = (np.array(getattr(states, field)[k]) for k in (at - 1, at))
        if alone:  # the others go on: the vector is the last leaf
            before, after = before[-1], after[-1]
        np.testing.assert_array_equal(before, after)
    for leaf in jax.tree.leaves(jax.tree.map(lambda x: x[-1], updates)):
        assert np.all(np.isfinite(leaf))


@every_kind
def test_before_anything_finite_was_seen(name):
    tx = KINDS[name]
    grads = jnp.full((5, 4), 0.3).at[0, 0].set(np.nan)
    updates, _, last = feed(tx, grads)
    assert np.all(np.isnan(updates[0]))
    np.testing.assert_allclose(updates[1:], grads[1:], rtol=1e-6)
    assert clipjax.clip_stats(last).fraction == 0


@every_kind
@pytest.mark.parametrize(
    ("dtype", "size"),
    [(jnp.float16, 300.0), (jnp.float32, 1e30), (jnp.float32, 3e38)],
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
        "zscore": None,
        "adaptive_norm": None,
        "probability": 1.0,
    }[name] or float(states.clip.level[3])
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


def test_a_zero_gradient_in_the_warm_up_does_not_freeze_a_tensor():
    tx = clipjax.clip_by_adaptive_norm(2.0, warmup_steps=2)
    updates, states, _ = feed(tx, sizes(0, 0.5, 0, 0.5, 3.0))
    np.testing.assert_allclose(updates[:, 0], [0, 0.5, 0, 0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(states.average[:4, 0], [np.inf, 0.5, 0.5, 0.5], rtol=1e-6)


def test_statistics_are_found_within_an_optimizer_and_trained_by_vmap():
    """Replicas with their own quantile: each is the run by itself."""
    params, grads = tree(), gradients(6)
    quantiles = jnp.array([0.2, 0.8])

    def train(quantile):
        tx = optax.chain(clipjax.clip_by_quantile(quantile, 4), optax.sgd(0.1))
        state, xs, _ = run(tx, params, grads)
        return clipjax.clip_stats(state), xs

    together, xs = jax.vmap(train)(quantiles)
    for i, quantile in enumerate(quantiles):
        alone, x = train(quantile)
        np.testing.assert_allclose(together.fraction[i], alone.fraction, rtol=1e-6)
        np.testing.assert_allclose(xs["vector"][i], x["vector"], rtol=1e-5)
    assert not np.allclose(xs["vector"][0], xs["vector"][1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: clipjax.clip_by_quantile(0.0), r"quantile must lie in \(0, 1\), got 0.0"),
        (lambda: clipjax.clip_by_quantile(1.0), r"quantile must lie in \(0, 1\), got 1.0"),
        (lambda: clipjax.clip_by_quantile(90), r"quantile must lie in \(0, 1\), got 90"),
        (lambda: clipjax.clip_by_quantile(0.9, 0), "window must be a whole number >= 1, got 0"),
        (lambda: clipjax.clip_by_quantile(0.9, 2.5), "window must be a whole .* got 2.5"),
        (lambda: clipjax.clip_by_zscore(-1.0), "threshold must be positive, got -1.0"),
        (lambda: clipjax.clip_by_zscore(decay=1.0), r"decay must lie in \[0, 1\), got 1.0"),
        (lambda: clipjax.clip_by_zscore(warmup_steps=0), "warmup_steps must be .* >= 1, got 0"),
        (lambda: clipjax.clip_by_zscore(max_norm=0.0), "max_norm must be positive, got 0.0"),
        (lambda: clipjax.clip_by_zscore(mode="means"), "got 'means'. Did you mean 'mean'?"),
        (lambda: clipjax.clip_by_adaptive_norm(0.0), "relative must be positive, got 0.0"),
        (lambda: clipjax.clip_by_adaptive_norm(1.0, -1.0), "absolute must be positive"),
        (lambda: clipjax.clip_by_adaptive_norm(decay=-0.1), r"decay must lie in \[0, 1\)"),
        (
            lambda: clipjax.clip_with_probability(1.0, 0.0, jax.random.key(0)),
            r"base must lie in \(0, 1\], got 0.0",
        ),
        (
            lambda: clipjax.clip_with_probability(1.0, 0.5, jax.random.key(0), power=0),
            "power must be positive, got 0",
        ),
        (lambda: clipjax.clip_with_probability(1.0, 0.5, 7), r"random key such as .* got 7"),
    ],
)
def test_bad_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@every_kind
def test_integer_parameters_are_refused(name):
    with pytest.raises(ValueError, match=r"\['n'\] has dtype int32"):
        KINDS[name].init({"w": jnp.zeros(2), "n": jnp.zeros(2, jnp.int32)})


def test_a_window_that_is_injected_is_refused_with_the_remedy():
    factory = optax.inject_hyperparams(clipjax.clip_by_quantile)
    with pytest.raises(ValueError, match="Name it in static_args"):
        factory(quantile=0.5, window=4).init(tree())


@pytest.mark.parametrize("name", ["quantile_per_tensor", "adaptive_norm"])
def test_a_gradient_with_another_number_of_tensors_is_refused(name):
    tx = KINDS[name]
    with pytest.raises(ValueError, match="each of 3 tensors, but the gradient has 1"):
        tx.update({"vector": jnp.ones(4)}, tx.init(tree()))
