import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax.analysis import gradient_noise, mean_gradient, minibatch_noise


def setting(count=11):
    rng = np.random.default_rng(0)
    examples = {"a": rng.normal(size=(count, 3)).astype(np.float32), "b": rng.normal(size=count)}
    examples["b"] = examples["b"].astype(np.float32)
    params = {"w": jnp.array([0.5, -1.0, 2.0]), "c": jnp.array(0.25)}

    def loss(params, example):
        return jnp.tanh(params["w"] @ example["a"] + params["c"] - example["b"]) ** 2

    def gradients():
        a, b = examples["a"].astype(float), examples["b"].astype(float)
        r = np.tanh(a @ np.array([0.5, -1.0, 2.0]) + 0.25 - b)
        slope = 2 * r * (1 - r**2)
        return np.concatenate([slope[:, None] * a, slope[:, None]], axis=1)

    return loss, params, examples, gradients()


@pytest.mark.parametrize("chunk", [1, 4, 11, 64])
def test_norms_are_those_of_the_gradients_written_out_whatever_the_chunk(chunk):
    loss, params, examples, gradients = setting()
    found = gradient_noise(loss, params, examples, chunk=chunk)
    mean = gradients.mean(axis=0)
    # The smallest norm is 0.012, of sums of numbers around 1, each rounded to 6e-8: 5e-6 and more.
    np.testing.assert_allclose(found.norms, np.linalg.norm(gradients - mean, axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.gradient_norms, np.linalg.norm(gradients, axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.mean["w"], mean[:3], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.mean["c"], mean[3], rtol=1e-4, atol=1e-7)
    assert found.mean_norm == pytest.approx(np.linalg.norm(mean), rel=1e-4)


def test_the_mean_is_over_m_and_agrees_with_the_gradient_of_the_mean():
    loss, params, examples, _ = setting()
    whole = jax.grad(lambda p: jnp.mean(jax.vmap(loss, (None, 0))(p, examples)))(params)
    found = mean_gradient(loss, params, examples, chunk=4)
    for name in whole:
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-4, atol=1e-7)
        assert found[name].dtype == np.float64


def test_minibatch_noise_shrinks_as_its_batch_grows():
    # E |noise of b|² = E |noise of 1|² / b for draws with replacement.
    loss, params, examples, gradients = setting(60)
    found = gradient_noise(loss, params, examples)
    for b in (1, 4):
        norms = minibatch_noise(
            loss, params, examples, found.mean, batch_size=b, num_batches=600, seed=1
        )
        squared = np.mean(np.linalg.norm(gradients - gradients.mean(0), axis=1) ** 2)
        spread = norms**2
        error = 5 * spread.std() / np.sqrt(600)
        assert abs(spread.mean() - squared / b) < error


def test_bad_input_is_named():
    loss, params, examples, _ = setting()
    with pytest.raises(ValueError, match="chunk is 0"):
        gradient_noise(loss, params, examples, chunk=0)
    with pytest.raises(ValueError, match=r"one common length, .* got lengths \[3, 11\]"):
        gradient_noise(loss, params, {**examples, "b": np.ones(3)})
    with pytest.raises(ValueError, match="batch_size 0"):
        minibatch_noise(loss, params, examples, params, batch_size=0, num_batches=2)


@pytest.mark.parametrize("chunk", [5, 10**8])
def test_a_chunk_larger_than_the_set_takes_no_more_memory(chunk):
    """It would be filled up with copies: of 10^8 entries the indices alone take 1.6 GB."""

    def loss(x, a):
        return 0.5 * jnp.sum((x - a) ** 2)

    data = np.arange(10.0, dtype=np.float32).reshape(5, 2)
    tracemalloc.start()
    found = gradient_noise(loss, jnp.zeros(2), data, chunk=chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    expected = np.linalg.norm(data - data.mean(axis=0), axis=1)
    np.testing.assert_allclose(found.norms, expected, rtol=1e-6)
    assert peak < 2**27
