"""Clipping drawn at random against a recorded peer, its probabilities and its keys; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clipjax
from clipjax.optim.clipping.random import clip_at_random
from tests.optim.problems import feed, gradients, scan, sizes
from tests.optim.test_golden import load, split

KEY = 5


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

    @jax.jit
    def draws(key):
        return feed(clipjax.clip_with_probability(1.0, 0.25, key), grads)[0]

    keys = jax.random.split(jax.random.key(KEY), 3)
    together = jax.vmap(draws)(keys)
    for key, row in zip(keys, together, strict=True):
        np.testing.assert_array_equal(row, draws(key))
        np.testing.assert_array_equal(row, draws(jax.random.key_data(key)))
    assert len({row.tobytes() for row in np.asarray(together)}) == 3


def test_one_draw_a_step_decides_for_all_tensors():
    tx = clipjax.clip_with_probability(1.0, 0.5, jax.random.key(KEY))
    grads = gradients(40)
    updates, states, _ = feed(tx, grads)
    clipped = np.diff(states.clip.clipped, prepend=0) == 1
    long = np.asarray(states.clip.norm) > 1
    assert 0 < clipped.sum() < long.sum()
    factor = np.where(clipped, 1 / np.asarray(states.clip.norm), 1)
    for name, leaf in updates.items():
        given = np.stack([g[name] for g in grads])
        wanted = given * factor.reshape(-1, *[1] * (given.ndim - 1))
        np.testing.assert_allclose(leaf, wanted, rtol=1e-5)


def test_the_key_of_the_state_decides_not_that_of_the_factory():
    """A restored state goes on with its own draws; the draw of a step depends on its number."""
    grads = sizes(*[2.0] * 30)
    first, other = (
        clipjax.clip_with_probability(1.0, 0.25, jax.random.key(key)) for key in (KEY, KEY + 1)
    )
    whole, _, _ = feed(first, grads)
    _, _, state = feed(first, grads[:10])
    _, (rest, _) = scan(other, state, np.stack(grads[10:]))
    np.testing.assert_array_equal(rest, whole[10:])
    assert not np.array_equal(feed(other, grads)[0], whole)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: clipjax.clip_with_probability(1.0, 0.0, jax.random.key(0)),
            r"base must lie in \(0, 1\], got 0.0",
        ),
        (
            lambda: clipjax.clip_with_probability(1.0, 0.5, jax.random.key(0), power=0),
            "power must be positive, got 0",
        ),
        (lambda: clipjax.clip_with_probability(1.0, 0.5, 7), r"random key such as .* got 7"),
        (
            lambda: clipjax.clip_with_probability(-1.0, 0.5, jax.random.key(0)),
            "max_norm must be positive, got -1.0",
        ),
        (
            lambda: clipjax.clip_with_probability(1.0, 1.5, jax.random.key(0)),
            r"base must lie in \(0, 1\], got 1.5",
        ),
        (
            lambda: clipjax.clip_with_probability(1.0, None, jax.random.key(0)),
            r"base must lie in \(0, 1\], got None",
        ),
        (
            lambda: clipjax.clip_with_probability(1.0, 0.5, jax.random.split(jax.random.key(0))),
            "key must be one random key",
        ),
    ],
)
def test_bad_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("uniform", [0.0, 0.999])
def test_a_level_that_is_nan_is_seen_whether_drawn_or_not(uniform):
    """A schedule that ends in NaN would leave one gradient in ten as it is."""
    updates, _, clipped = clip_at_random(jnp.array([3.0, 4.0]), uniform, jnp.nan, 0.9)
    assert np.all(np.isnan(updates))
    assert not clipped
