"""Clipping by the tensors' average norms against the rule written out; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clipjax
from tests.optim import reference
from tests.optim.problems import check_updates, feed, gradients, sizes


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


def test_a_zero_gradient_in_the_warm_up_does_not_freeze_a_tensor():
    tx = clipjax.clip_by_adaptive_norm(2.0, warmup_steps=2)
    updates, states, _ = feed(tx, sizes(0, 0.5, 0, 0.5, 3.0))
    np.testing.assert_allclose(updates[:, 0], [0, 0.5, 0, 0.5, 1.0], rtol=1e-6)
    np.testing.assert_allclose(states.average[:4, 0], [np.inf, 0.5, 0.5, 0.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: clipjax.clip_by_adaptive_norm(0.0), "relative must be positive, got 0.0"),
        (lambda: clipjax.clip_by_adaptive_norm(1.0, -1.0), "absolute must be positive"),
        (lambda: clipjax.clip_by_adaptive_norm(decay=-0.1), r"decay must lie in \[0, 1\)"),
        (lambda: clipjax.clip_by_adaptive_norm(np.inf), "relative must be finite, got inf"),
        (lambda: clipjax.clip_by_adaptive_norm(1.0, None), "absolute must be positive, got None"),
        (lambda: clipjax.clip_by_adaptive_norm(decay=1.0), r"decay must lie in \[0, 1\), got 1.0"),
        (lambda: clipjax.clip_by_adaptive_norm(decay=None), r"decay must .* got None"),
        (lambda: clipjax.clip_by_adaptive_norm(warmup_steps=0), "warmup_steps must .* got 0"),
        (lambda: clipjax.clip_by_adaptive_norm(warmup_steps=1.5), "warmup_steps must .* got 1.5"),
    ],
)
def test_bad_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
