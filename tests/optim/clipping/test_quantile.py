"""Clipping to a quantile against the rule written out and a recorded peer; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from tests.optim import reference
from tests.optim.problems import check_updates, feed, gradients, sizes, tree
from tests.optim.test_golden import load, split


def quantile_levels(norms, quantile, window):
    """The level of each step; norms that are not finite take no place in the window."""
    levels, history = [], []
    for norm in norms:
        if np.isfinite(norm):
            history = [*history, norm][-window:]
        levels.append(np.quantile(history, quantile) if history else np.inf)
    return np.array(levels)


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


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: clipjax.clip_by_quantile(0.0), r"quantile must lie in \(0, 1\), got 0.0"),
        (lambda: clipjax.clip_by_quantile(1.0), r"quantile must lie in \(0, 1\), got 1.0"),
        (lambda: clipjax.clip_by_quantile(90), r"quantile must lie in \(0, 1\), got 90"),
        (lambda: clipjax.clip_by_quantile(0.9, 0), "window must be a whole number >= 1, got 0"),
        (lambda: clipjax.clip_by_quantile(0.9, 2.5), "window must be a whole .* got 2.5"),
        (lambda: clipjax.clip_by_quantile(np.nan), r"quantile must lie in \(0, 1\), got nan"),
        (lambda: clipjax.clip_by_quantile(None), r"quantile must lie in \(0, 1\), got None"),
        (
            lambda: clipjax.clip_by_quantile("0.9"),
            "quantile must be a number or a schedule, got '0.9'",
        ),
        (lambda: clipjax.clip_by_quantile(0.9, -3), "window must be a whole number >= 1, got -3"),
        (lambda: clipjax.clip_by_quantile(0.9, None), "window must be a whole .* got None"),
        (
            lambda: clipjax.clip_by_quantile(0.9, lambda k: 4),
            "window must be a whole .* got <function",
        ),
    ],
)
def test_bad_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_window_that_is_injected_is_refused_with_the_remedy():
    factory = optax.inject_hyperparams(clipjax.clip_by_quantile)
    with pytest.raises(ValueError, match="Name it in static_args"):
        factory(quantile=0.5, window=4).init(tree())
