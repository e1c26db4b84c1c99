"""SSTM in one buffer against its three sequences, closed forms, and long runs in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax.optim.methods.similar_triangles import (
    Ratio,
    averaging_weight,
    next_ratio,
    start_ratio,
)
from tests.optim import reference
from tests.optim.problems import assert_rows_close, gradients, run, tree

STEPS = 40


def alpha(rate, smoothness, nu=1.0, offset=2):
    rate = rate if callable(rate) else lambda k, rate=rate: rate
    return lambda k: rate(k) * (k + offset) ** (2 * nu / (1 + nu)) / (2 * smoothness)


def compare(tx, rows, params, grads, rtol=1e-12):
    """Query points, answers and z of a run in float64 equal those of the three sequences."""
    state, xs, ys = run(tx, params, grads, evaluate=True)
    assert_rows_close(xs, [row["x"] for row in rows], rtol=rtol, atol=rtol)
    assert_rows_close(ys, [row["y"] for row in rows], rtol=rtol, atol=rtol)
    z = getattr(state, "similar_triangles", state).z
    assert_rows_close({n: z[n][None] for n in z}, [rows[-1]["z"]], rtol=rtol, atol=rtol)


@pytest.mark.parametrize(
    ("nu", "offset", "cap", "kind"),
    [
        (1.0, 2, 1.0, "global_norm"),
        (1.0, 1, 0.8, "tensor_norm"),
        (0.5, 2, 0.8, "value"),
        (0.5, 1, 1.0, "global_norm"),
        (0.0, 2, 1.0, "tensor_norm"),
        (0.0, 1, 0.8, "value"),
    ],
)
def test_equals_the_three_sequences(nu, offset, cap, kind):
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(STEPS, jnp.float64)
        tx = clipjax.clipped_sstm(
            0.3,
            2.0,
            0.7,
            clip=kind,
            holder_exponent=nu,
            step_offset=offset,
            max_averaging_ratio=cap,
        )
        a = alpha(0.3, 2.0, nu, offset)
        rows = reference.sstm(params, grads, a, lambda k: 0.7 / a(k), kind, cap)
        compare(tx, rows, params, grads)


def test_without_a_level_it_is_sstm():
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(STEPS, jnp.float64)
        rows = reference.sstm(params, grads, alpha(0.3, 2.0), None)
        compare(clipjax.clipped_sstm(0.3, 2.0, None), rows, params, grads)
        compare(clipjax.clipped_sstm(0.3, 2.0, jnp.inf), rows, params, grads)


def test_scheduled_rate_and_level():
    """A rate that falls 30-fold, then grows, and a level that falls."""
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(STEPS, jnp.float64)
        rates = np.repeat([0.3, 0.03, 0.01, 0.2], STEPS // 4 + 1)
        levels = np.linspace(2.0, 0.5, STEPS)
        a = alpha(lambda k: rates[k], 2.0)
        rows = reference.sstm(params, grads, a, lambda k: levels[k] / a(k))
        tables = jnp.asarray(rates), jnp.asarray(levels)
        tx = clipjax.clipped_sstm(lambda k: tables[0][k], 2.0, lambda k: tables[1][k])
        compare(tx, rows, params, grads)


def test_composes_from_public_parts():
    """A clipping by hand before scale_by_similar_triangles is the same method."""
    params, grads = tree(), gradients(STEPS)
    step_size = clipjax.sstm_step_size(0.3, 2.0)
    parts = optax.chain(
        clipjax.clip_by_global_norm(lambda k: 0.7 / step_size(k)),
        clipjax.scale_by_similar_triangles(step_size),
    )
    _, xs, _ = run(clipjax.clipped_sstm(0.3, 2.0, 0.7), params, grads)
    _, same, _ = run(parts, params, grads)
    for name in xs:
        np.testing.assert_allclose(xs[name], same[name], rtol=1e-6, atol=1e-6)


def test_weights_of_constant_parameters():
    """A_N = Σ_{k<N} (k + 2)/(2aL) = N(N + 3)/(4aL), and so θ_{k+1} = 2(k + 2)/((k + 1)(k + 4))."""
    a, L = 3.0, 5.0
    with jax.enable_x64(True):
        tx = clipjax.clipped_sstm(1 / a, L, 1.0)
        params = jnp.zeros(1, jnp.float64)
        state = tx.init(params)
        for k in range(30):
            inner = state.similar_triangles
            n = k + 1
            ratio = inner.ratio
            np.testing.assert_allclose(
                ratio.unit * (ratio.value + ratio.rest), n * (n + 3) / (4 * a * L), rtol=1e-14
            )
            np.testing.assert_allclose(inner.step_size, (k + 2) / (2 * a * L), rtol=1e-14)
            theta = 2 * (k + 2) / ((k + 1) * (k + 4))
            np.testing.assert_allclose(averaging_weight(inner), theta, rtol=1e-14)
            _, state = tx.update(params, state, params)
            np.testing.assert_allclose(clipjax.clip_stats(state).level, 2 * a * L / (k + 2))


def scan_weights(step_sizes, max_ratio=jnp.inf):
    def step(ratio, step_size):
        ratio = next_ratio(ratio, step_size, max_ratio)
        return ratio, ratio.value

    first = start_ratio(step_sizes[0])
    _, values = jax.jit(lambda r, s: jax.lax.scan(step, r, s))(first, step_sizes[1:])
    return 1 / np.concatenate([[first.value], values]).astype(np.float64)


def test_theta_is_exact_after_a_million_float32_steps():
    """To two ulps, relative; the sum A in float32 and the plain recursion are off by 1e-4, 1e-3."""
    k = np.arange(1_000_000, dtype=np.float64)
    theta = scan_weights(jnp.asarray((k + 2) * 0.05, jnp.float32))
    np.testing.assert_allclose(theta, 2 * (k + 2) / ((k + 1) * (k + 4)), rtol=2e-7)


def test_theta_is_exact_under_a_decaying_rate():
    """Warm-up from 1e-6 of the rate, then cosine decay over five orders of magnitude."""
    k = np.arange(100_000, dtype=np.float64)
    shape = 1e-5 + 0.5 * (1 + np.cos(np.pi * k / len(k)))
    step_sizes = np.asarray(np.minimum(1.0, 1e-6 + k / 1000) * shape * (k + 2), np.float32)
    exact = step_sizes.astype(np.float64)
    np.testing.assert_allclose(
        scan_weights(jnp.asarray(step_sizes)), exact / np.cumsum(exact), rtol=3e-7
    )


def test_jumps_of_the_step_size():
    """Jumps by up to 1e30 both ways keep A; the weights are those of exact sums."""
    step_sizes = np.array([1, 1e-6, 1e-6, 3, 1e5, 2, 1e-30, 1e-30, 1, 5], np.float32)
    exact = step_sizes.astype(np.float64)
    np.testing.assert_allclose(
        scan_weights(jnp.asarray(step_sizes)), exact / np.cumsum(exact), rtol=3e-7
    )


@pytest.mark.parametrize("cap", [0.5, 0.9, 0.99])
def test_the_cap_holds_exactly(cap):
    """A_k/A_{k+1} = 1 − θ grows to the cap and stays there, to the last bit of float32."""
    tx = clipjax.scale_by_similar_triangles(lambda k: k + 2.0, max_averaging_ratio=cap)
    params = jnp.zeros(1)
    state, thetas = tx.init(params), []
    for _ in range(400):
        thetas.append(float(averaging_weight(state)))
        _, state = jax.jit(tx.update)(params, state, params)
    # 1/(1 − cap) is a whole number here, but the float cap is not: compare with its own inverse.
    np.testing.assert_allclose(thetas[-1], 1 - cap, rtol=1.2e-7)
    k = np.arange(400)
    np.testing.assert_allclose(
        thetas, np.maximum(2 * (k + 2) / ((k + 1) * (k + 4)), 1 - cap), rtol=2e-7
    )


def test_a_traced_cap_holds_to_rounding():
    """1 − cap is formed in float32: of 0.1, 1 part in 1e6 is lost at most."""

    @jax.jit
    def last_theta(cap):
        tx = clipjax.scale_by_similar_triangles(lambda k: k + 2.0, max_averaging_ratio=cap)
        state = tx.init(jnp.zeros(1))

        def step(_, state):
            return tx.update(jnp.zeros(1), state, jnp.zeros(1))[1]

        return averaging_weight(jax.lax.fori_loop(0, 40, step, state))

    np.testing.assert_allclose(last_theta(0.9), 0.1, rtol=1e-6)


def test_a_zero_step_size_freezes_without_nan():
    """z and y rest while α = 0, at the start, in the middle and for several steps."""
    sizes = np.array([0, 0, 0.5, 1.0, 0, 0, 0.7, 0])
    with jax.enable_x64(True):
        table = jnp.asarray(sizes)
        params, grads = tree(dtype=jnp.float64), gradients(7, jnp.float64)
        rows = reference.sstm(params, grads, lambda k: sizes[k], None)
        compare(clipjax.scale_by_similar_triangles(lambda k: table[k]), rows, params, grads)
        assert rows[1]["theta"] == 0
        np.testing.assert_array_equal(rows[1]["z"]["vector"], params["vector"])
        clipped = clipjax.clipped_sstm(lambda k: table[k], 1.0, 1.0)
        _, xs, ys = run(clipped, params, grads, evaluate=True)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((xs, ys)))


def test_a_rate_changed_from_outside_acts_one_step_later():
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(20, jnp.float64)
        tx = optax.inject_hyperparams(clipjax.clipped_sstm)(0.3, 2.0, 0.7)
        state, xs, levels = tx.init(params), [], []
        x = params
        for k, g in enumerate(grads):
            if k == 8:
                state.hyperparams["learning_rate"] = jnp.asarray(0.03)
            updates, state = tx.update(g, state, x)
            x = optax.apply_updates(x, updates)
            xs.append(x)
            levels.append(float(clipjax.clip_stats(state).level))
        # The step with gradient 8 uses α_9, planned with the old rate; from α_10 on it is the new.
        a = alpha(lambda k: 0.3 if k < 9 else 0.03, 2.0)
        rows = reference.sstm(params, grads, a, lambda k: 0.7 / a(k))
        for x, row in zip(xs, rows, strict=True):
            for name in x:
                np.testing.assert_allclose(x[name], row["x"][name], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(levels, [0.7 / a(k) for k in range(20)], rtol=1e-12)


def test_clip_start():
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(20, jnp.float64)
        a = alpha(0.3, 2.0)
        rows = reference.sstm(params, grads, a, lambda k: np.inf if k < 5 else 0.1 / a(k))
        tx = clipjax.clipped_sstm(0.3, 2.0, 0.1, clip_start=5)
        compare(tx, rows, params, grads)
        state, _, _ = run(tx, params, grads)
        assert clipjax.clip_stats(state).fraction == 15 / 20


def test_no_gradient_moves_z_by_more_than_the_level():
    params, grads = jnp.zeros(3), [jnp.array([1e30, -1e20, 3.0]), jnp.array([1.0, 5e9, 0.0])]
    tx = clipjax.clipped_sstm(1.0, 1.0, 0.25)
    state = tx.init(params)
    for g in grads:
        z = state.similar_triangles.z
        updates, state = tx.update(g, state, params)
        moved = float(jnp.linalg.norm(state.similar_triangles.z - z))
        np.testing.assert_allclose(moved, 0.25, rtol=1e-6)
        params = optax.apply_updates(params, updates)


def noisy_run(dtype, two_buffers, steps, rate=0.05):
    """SSTM on f = |x|²/2 with noise that is the same in each precision; returns y."""
    n = 4
    noise = jax.random.normal(jax.random.key(0), (n,), jnp.float32)
    tx = clipjax.scale_by_similar_triangles(clipjax.sstm_step_size(rate, 50.0))

    def gradient(x, k):
        angle = (k % 997).astype(dtype) * 0.1
        return x + noise.astype(dtype) * jnp.sin(angle + jnp.arange(n))

    def one_buffer_step(carry, k):
        x, state = carry
        updates, state = tx.update(gradient(x, k), state, x)
        return (optax.apply_updates(x, updates), state), None

    def two_buffer_step(carry, k):
        y, z = carry
        kf = k.astype(dtype)
        a = jnp.asarray(rate, dtype) * (kf + 2) / 100
        theta = 2 * (kf + 2) / ((kf + 1) * (kf + 4))
        g = gradient((1 - theta) * y + theta * z, k)
        z = z - a * g
        return ((1 - theta) * y + theta * z, z), None

    start = jnp.ones(n, dtype)
    ks = jnp.arange(steps)
    if two_buffers:
        (y, _), _ = jax.jit(lambda c: jax.lax.scan(two_buffer_step, c, ks))((start, start))
        return np.asarray(y, np.float64)
    carry = (start, tx.init(start))
    (x, state), _ = jax.jit(lambda c: jax.lax.scan(one_buffer_step, c, ks))(carry)
    return np.asarray(clipjax.eval_params(state, x), np.float64)


def test_a_million_float32_steps():
    """The error of y against float64 is at most 3 times that of the form that stores y."""
    steps = 1_000_000
    with jax.enable_x64(True):
        exact = noisy_run(jnp.float64, True, steps)
        np.testing.assert_allclose(noisy_run(jnp.float64, False, steps), exact, rtol=1e-7)
    ours = np.linalg.norm(noisy_run(jnp.float32, False, steps) - exact)
    plain = np.linalg.norm(noisy_run(jnp.float32, True, steps) - exact)
    assert ours <= 3 * plain, (ours, plain)


@pytest.mark.parametrize(
    ("param_dtype", "grad_dtype", "x64"),
    [
        (jnp.float32, jnp.bfloat16, False),
        (jnp.float32, jnp.float16, False),
        (jnp.bfloat16, jnp.bfloat16, False),
        (jnp.float16, jnp.float16, False),
        (jnp.float64, jnp.float32, True),
    ],
)
def test_iterates_keep_the_dtype_of_the_parameters(param_dtype, grad_dtype, x64):
    with jax.enable_x64(x64):
        params = tree(dtype=param_dtype)
        grads = tree(1, grad_dtype)
        tx = clipjax.clipped_sstm(0.3, 2.0, 0.7)
        updates, state = tx.update(grads, tx.init(params), params)
        trees = (updates, state.similar_triangles.z, clipjax.eval_params(state, params))
        assert {leaf.dtype for leaf in jax.tree.leaves(trees)} == {jnp.dtype(param_dtype)}


def test_z_is_a_copy():
    """Parameters and state can both be donated to a step."""
    tx = clipjax.scale_by_similar_triangles(0.1)
    params = jnp.ones(3)
    state = tx.init(params)
    assert state.z.unsafe_buffer_pointer() != params.unsafe_buffer_pointer()


def test_a_constant_step_size_averages_uniformly():
    """α_k = α gives θ_{k+1} = 1/(k + 1): y^N is the mean of z^1, ..., z^N."""
    with jax.enable_x64(True):
        params, grads = tree(dtype=jnp.float64), gradients(10, jnp.float64)
        _, _, ys = run(clipjax.scale_by_similar_triangles(0.1), params, grads, evaluate=True)
        z, zs = reference.double(params), []
        for g in grads:
            z = {n: z[n] - 0.1 * np.asarray(g[n]) for n in z}
            zs.append(z)
        means = [{n: np.mean([z[n] for z in zs[: k + 1]], axis=0) for n in z} for k in range(10)]
        assert_rows_close(ys, means, rtol=1e-12)


def test_the_step_size_of_step_a_million_does_not_overflow():
    step_size = clipjax.sstm_step_size(1.0, 0.5, holder_exponent=1.0, step_offset=2)
    assert step_size(jnp.int32(2**31 - 1)) == 2.0**31
    np.testing.assert_allclose(clipjax.sstm_step_size(1.0, 0.5, holder_exponent=0)(99), 1.0)
    # ν = 1/2: (k + s)^{2/3}
    half = clipjax.sstm_step_size(1.0, 0.5, holder_exponent=0.5, step_offset=1)
    np.testing.assert_allclose(half(26), 9.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"learning_rate": np.inf}, "learning_rate must be finite, got inf"),
        ({"smoothness": -1.0}, "smoothness must be positive, got -1.0"),
        ({"clip_level": -1.0}, "clip_level must be positive, got -1.0"),
        ({"clip": "globalnorm"}, "got 'globalnorm'. Did you mean 'global_norm'"),
        ({"clip": None}, "clip must be one of 'global_norm', 'tensor_norm', 'value', got None"),
        ({"holder_exponent": 1.5}, r"holder_exponent must lie in \[0, 1\], got 1.5"),
        ({"step_offset": 0}, "step_offset must be positive, got 0"),
        ({"max_averaging_ratio": 0.0}, r"max_averaging_ratio must lie in \(0, 1\], got 0.0"),
        ({"clip_start": -1}, "clip_start must be a whole number >= 0, got -1"),
        ({"clip_start": 0.5}, "clip_start must be a whole number >= 0, got 0.5"),
    ],
)
def test_bad_numbers_are_refused(change, message):
    numbers = {"learning_rate": 0.1, "smoothness": 1.0, "clip_level": 1.0} | change
    with pytest.raises(ValueError, match=message):
        clipjax.clipped_sstm(**numbers)


def test_missing_and_integer_parameters_are_refused():
    tx = clipjax.clipped_sstm(0.1, 1.0, 1.0)
    with pytest.raises(ValueError, match="reads the current parameters"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))
    with pytest.raises(ValueError, match=r"\['n'\] has dtype int32"):
        tx.init({"w": jnp.ones(2), "n": jnp.array(3)})


def test_ratio_starts_empty():
    """A first step size of 0 leaves A = 0; the next positive one is then the whole sum."""
    ratio = start_ratio(jnp.float32(0))
    assert ratio == Ratio(0, 0, 0)
    assert next_ratio(ratio, jnp.float32(3)) == Ratio(3, 1, 0)


@pytest.mark.parametrize("clip_level", [None, 1.0])
def test_a_donated_step_needs_no_second_copy(clip_level):
    """New values are written over the old ones; nothing like z or the clipped g is kept besides.

    Where Σg² overflows the norm is found in another way, which may want room for a tensor.
    """
    size = 100_000
    tx = clipjax.clipped_sstm(1e-3, 1.0, clip_level)
    params = {f"w{i}": jax.ShapeDtypeStruct((size,), jnp.float32) for i in range(16)}

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(
        params, jax.eval_shape(tx.init, params), params
    )
    scratch = lowered.compile().memory_analysis().temp_size_in_bytes
    assert scratch < (size / 10 if clip_level is None else 2 * size * 4)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"learning_rate": -1.0},
        {"smoothness": float("nan")},
        {"smoothness": 0.0},
        {"holder_exponent": float("nan")},
        {"holder_exponent": 2.0},
        {"step_offset": float("nan")},
        {"step_offset": 0},
    ],
)
def test_step_sizes_of_numbers_out_of_range_are_refused(change):
    (name,) = change
    with pytest.raises(ValueError, match=f"^{name} must"):
        clipjax.sstm_step_size(**({"learning_rate": 0.1, "smoothness": 1.0} | change))
