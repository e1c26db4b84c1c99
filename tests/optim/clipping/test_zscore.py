"""Clipping by z-scores against the paper's rule and the authors' code, both written out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax.optim.clipping.zscore import MODES
from tests.optim import reference
from tests.optim.problems import check_updates, feed, gradients, sizes
from tests.optim.test_golden import load, split


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


def authors_code(norms, *, mode, option, factor=1.0, skip=False, max_norm=None, warmup=25, eps=0.0):
    """What the authors' class does with these norms, in its order and with its ε.

    Returns one row a step: the norm of the gradient that goes on to the optimizer, mean and
    variance (NaN in the warm-up).
    """
    alpha, z_thresh = 0.97, 2.5
    buffer, mean, variance = [], np.nan, np.nan
    rows = []
    for norm in norms:
        clipped = None
        if np.isnan(mean):
            buffer.append(norm)
            if len(buffer) >= warmup:
                mean = sum(buffer) / warmup
                variance = sum((x - mean) ** 2 for x in buffer) / warmup
        else:
            deviation = variance**0.5
            z = (norm - mean) / (deviation + eps)
            if mode == "percentile" and norm > mean + z_thresh * deviation:
                clipped = mean + z_thresh * deviation
            elif mode == "zscore" and z > z_thresh and option == "adaptive_scaling":
                clipped = factor * (mean + z_thresh * deviation / (z / z_thresh))
            elif mode == "zscore" and z > z_thresh:
                clipped = mean
            fed = norm if clipped is None else clipped
            if clipped is None or not skip:
                mean = alpha * mean + (1 - alpha) * fed
                variance = alpha * variance + (1 - alpha) * (fed - mean) ** 2
        effective = norm if clipped is None else clipped
        if max_norm is not None:
            effective = min(effective, max_norm)
        out = norm * effective / (norm + eps) if norm > effective else norm
        rows.append((out, mean, variance))
    return np.array(rows).T


@pytest.mark.parametrize("max_norm", [None, 6.0])
@pytest.mark.parametrize("mode", MODES)
def test_written_out(mode, max_norm):
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


def test_recorded_zclip():
    """Its averages and its steps; it met no spike, so its 1e-6 in the z-score is not seen here.

    The authors' code as written out above gives the recorded numbers too, which is why it may stand
    for them below, where there are spikes.
    """
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

    out, mean, variance = authors_code(
        data["grad_norm"],
        mode="zscore",
        option="adaptive_scaling",
        warmup=hyper["warmup_steps"],
        eps=1e-6,
    )
    np.testing.assert_allclose(out, data["clipped_norm"], rtol=1e-12)
    np.testing.assert_allclose(mean, data["ema_mean"], rtol=1e-12)
    np.testing.assert_allclose(variance, data["ema_var"], rtol=1e-11)


def spiky(count=120):
    """Norms about 1, growing slowly, and from step 30 on a spike in every eleventh step."""
    rng = np.random.default_rng(11)
    norms = np.exp(0.2 * rng.normal(size=count)) * np.linspace(1.0, 1.5, count)
    spikes = np.arange(30, count, 11)
    norms[spikes] *= 10.0 ** rng.uniform(0.7, 3, len(spikes))
    return norms, spikes


PEERS = {  # ours: theirs
    "adaptive": {"mode": "zscore", "option": "adaptive_scaling"},
    "mean": {"mode": "zscore", "option": "mean"},
    "percentile": {"mode": "percentile", "option": None},
}


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(
    ("mode", "factor", "max_norm"),
    [
        ("adaptive", 1.0, None),
        ("adaptive", 0.5, None),
        ("adaptive", 0.7, 1.2),
        ("mean", 1.0, None),
        ("percentile", 1.0, None),
        ("percentile", 1.0, 1.2),
    ],
)
def test_authors_code_with_spikes(mode, factor, max_norm, skip):
    """Without its ε it is ours to rounding; ε = 1e-6 changes z, norms and steps by about that."""
    norms, spikes = spiky()
    with jax.enable_x64(True):
        tx = clipjax.clip_by_zscore(
            mode=mode, clip_factor=factor, max_norm=max_norm, skip_update_on_spike=skip
        )
        # Four entries of norm / 2.
        updates, states, last = feed(tx, np.repeat(norms[:, None] / 2, 4, axis=1))
    theirs = {**PEERS[mode], "factor": factor, "skip": skip, "max_norm": max_norm}
    out, mean, variance = authors_code(norms, **theirs)
    late = np.isfinite(mean)
    np.testing.assert_allclose(2 * np.asarray(updates[:, 0]), out, rtol=1e-12)
    np.testing.assert_allclose(states.mean[late], mean[late], rtol=1e-12)
    np.testing.assert_allclose(np.asarray(states.deviation)[late] ** 2, variance[late], rtol=1e-11)
    assert last.seen == 25
    assert np.all(out[spikes] < 0.9 * norms[spikes]), "spikes are shortened"
    # Their ε: some 1e-6 / σ in z, and 1e-6 / norm in the scaling.
    with_epsilon = authors_code(norms, **theirs, eps=1e-6)[0]
    difference = np.max(np.abs(with_epsilon / out - 1))
    assert 1e-9 < difference < 5e-5


def test_a_skipped_spike_moves_the_parameters_but_not_the_averages():
    norms, spikes = spiky()
    tx = clipjax.clip_by_zscore(skip_update_on_spike=True)
    updates, states, _ = feed(tx, np.asarray(norms[:, None], np.float32))
    shortened = np.diff(states.clip.clipped, prepend=0) == 1
    assert np.all(shortened[spikes])
    still = np.asarray((np.diff(states.mean) == 0) & (np.diff(states.deviation) == 0))
    np.testing.assert_array_equal(still[25:], shortened[26:])
    assert np.all(np.abs(updates[spikes]) > 0.5)


@pytest.mark.parametrize("skip", [False, True])
def test_norms_that_rise_for_good_stay_spikes_only_if_their_update_is_skipped(skip):
    """From 1 ± 0.1 to 2: ten deviations. Fed, mode "percentile" lets it pass in the end."""
    norms = np.where(np.arange(200) < 50, 1 + 0.1 * (-1.0) ** np.arange(200), 2.0)
    tx = clipjax.clip_by_zscore(mode="percentile", skip_update_on_spike=skip)
    updates, states, _ = feed(tx, np.asarray(norms[:, None], np.float32))
    assert states.clip.clipped[50] == 1
    if skip:
        np.testing.assert_array_equal(np.diff(states.clip.clipped[49:]), 1)
        # Mean 1 and deviation 0.1, but for the waves of the average: level 1.25.
        np.testing.assert_allclose(updates[50:], 1.25, atol=0.02)
    else:
        assert states.clip.clipped[-1] < 50
        assert updates[-1] == 2


@pytest.mark.parametrize("mode", MODES)
def test_the_factor_shortens_spikes_and_nothing_else(mode):
    """Warm-up 1, 3: mean 2, deviation 1, limit 4. 3.9 passes, 7 has z-score 5."""
    grads = sizes(1, 3, 7.0)
    passing = sizes(1, 3, 3.9)
    full = {"adaptive": 2 + 2 * (2 / 5), "mean": 2.0, "percentile": 4.0}[mode]
    for factor in (1.0, 0.5):
        tx = clipjax.clip_by_zscore(2.0, warmup_steps=2, mode=mode, clip_factor=factor)
        updates, states, _ = feed(tx, grads)
        np.testing.assert_allclose(updates[-1], factor * full, rtol=1e-6)
        np.testing.assert_allclose(states.mean[-1], 2 + 0.03 * (factor * full - 2), rtol=1e-6)
        updates, states, _ = feed(tx, passing)
        assert updates[-1] == np.float32(3.9)
        np.testing.assert_allclose(states.clip.level[-1], 4.0, rtol=1e-6)


def test_threshold_and_maximal_norm_may_be_schedules():
    """Warm-up 1, 3: mean 2, deviation 1. Twice 10: limits 2 + 2 and, with the new mean, + 4."""
    tx = clipjax.clip_by_zscore(
        lambda k: jnp.where(k < 3, 2.0, 4.0), warmup_steps=2, mode="percentile", decay=0.5
    )
    _, states, _ = feed(tx, sizes(1, 3, 10, 10))
    # Then mean 3 and deviation √(1/2 + (4 − 3)²/2) = 1.
    np.testing.assert_allclose(states.clip.level[2:], [4.0, 3 + 4 * 1.0], rtol=1e-6)
    tx = clipjax.clip_by_zscore(warmup_steps=1, max_norm=lambda k: 1.0 / (k + 1))
    updates, _, _ = feed(tx, sizes(5, 5, 5))
    np.testing.assert_allclose(updates[:, 0], [1, 1 / 2, 1 / 3], rtol=1e-6)


def test_all_numbers_may_be_injected():
    norms, _ = spiky(60)
    grads = np.asarray(norms[:, None], np.float32)
    options = {"threshold": 2.0, "decay": 0.9, "clip_factor": 0.5, "max_norm": 1.5}
    factory = optax.inject_hyperparams(clipjax.clip_by_zscore, static_args="warmup_steps")
    tx = factory(**options, warmup_steps=5, skip_update_on_spike=True)
    updates, _, last = feed(tx, grads)
    assert set(options) <= set(last.hyperparams)
    plain = clipjax.clip_by_zscore(**options, warmup_steps=5, skip_update_on_spike=True)
    np.testing.assert_allclose(updates, feed(plain, grads)[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": -1.0}, "threshold must be positive, got -1.0"),
        ({"threshold": np.inf}, "threshold must be finite, got inf"),
        ({"threshold": None}, "threshold must be positive, got None"),
        ({"decay": 1.0}, r"decay must lie in \[0, 1\), got 1.0"),
        ({"decay": None}, r"decay must lie in \[0, 1\), got None"),
        ({"warmup_steps": 0}, "warmup_steps must be a whole number >= 1, got 0"),
        ({"warmup_steps": None}, "warmup_steps must be a whole number >= 1, got None"),
        ({"max_norm": 0.0}, "max_norm must be positive, got 0.0"),
        ({"mode": "means"}, "got 'means'. Did you mean 'mean'?"),
        ({"mode": "zscore"}, "mode must be one of 'adaptive', 'mean', 'percentile', got 'zscore'"),
        ({"clip_factor": 0.0}, r"clip_factor must lie in \(0, 1\], got 0.0"),
        ({"clip_factor": 1.5}, r"clip_factor must lie in \(0, 1\], got 1.5"),
    ],
)
def test_bad_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        clipjax.clip_by_zscore(**options)
