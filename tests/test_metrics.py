"""Metrics against scikit-learn, scikit-image and numpy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.metrics
import sklearn.metrics

from clipjax import metrics


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_equals_scikit_learn(k):
    rng = np.random.default_rng(k)
    logits, labels = rng.normal(size=(40, 7)), rng.integers(0, 7, size=40)
    correct = metrics.top_k_correct(jnp.float32(logits), jnp.asarray(labels), k)
    expected = sklearn.metrics.top_k_accuracy_score(
        labels, logits, k=k, labels=np.arange(7), normalize=False
    )
    assert correct.dtype == bool
    assert int(jnp.sum(correct)) == expected


def test_top_k_of_few_classes_and_ties():
    logits = jnp.zeros((3, 3))
    labels = jnp.arange(3)
    assert metrics.top_k_correct(logits, labels, 5).tolist() == [True, True, True]
    assert metrics.top_k_correct(logits, labels, 1).tolist() == [True, False, False]


def test_confusion_matrix_equals_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.choice([0, 1, 2, 3, 255, -1], size=(4, 50))
    guess = rng.integers(0, 4, size=(4, 50))
    weights = np.array([1.0, 0.0, 1.0, 1.0])
    confusion = metrics.confusion_matrix(
        jnp.asarray(truth), jnp.asarray(guess), jnp.asarray(weights), 4
    )
    kept = (weights[:, None] > 0) & (truth >= 0) & (truth < 4)
    expected = sklearn.metrics.confusion_matrix(truth[kept], guess[kept], labels=range(4))
    assert confusion.dtype == jnp.int32
    np.testing.assert_array_equal(confusion, expected)


def test_confusion_matrix_is_exact_beyond_float32():
    """17 images of 2^20 - 1 labelled pixels: an odd sum above 2^24, which float32 cannot hold."""
    pixels = np.zeros((17, 2**20), np.uint8)
    labels = pixels.copy()
    labels[:, 7] = 255
    count = jax.jit(lambda t, g: metrics.confusion_matrix(t, g, jnp.ones(17), 1))(labels, pixels)
    assert int(count[0, 0]) == 17 * (2**20 - 1) > 2**24
    assert int(np.float32(17 * (2**20 - 1))) != 17 * (2**20 - 1)


def test_intersection_over_union_equals_jaccard_score():
    rng = np.random.default_rng(0)
    truth, guess = rng.integers(0, 5, size=(2, 300))
    confusion = sklearn.metrics.confusion_matrix(truth, guess)
    expected = sklearn.metrics.jaccard_score(truth, guess, average=None)
    np.testing.assert_allclose(metrics.intersection_over_union(confusion), expected, rtol=1e-14)
    mean = sklearn.metrics.jaccard_score(truth, guess, average="macro")
    assert metrics.mean_intersection_over_union(confusion) == pytest.approx(mean, rel=1e-14)


def test_absent_classes_are_left_out_of_the_mean():
    # Class 1 is neither true nor predicted: NaN. Class 2 is predicted, never true: 0.
    confusion = np.array([[2, 0, 2], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(metrics.intersection_over_union(confusion), [0.5, np.nan, 0.0])
    assert metrics.mean_intersection_over_union(confusion) == 0.25
    assert np.isnan(metrics.mean_intersection_over_union(np.zeros((3, 3), int)))


def test_intersection_over_union_is_exact_beyond_float32():
    n = 2**24 + 1
    confusion = np.array([[n, 2], [0, n]], np.int64)
    expected = n / (n + 2)  # rounds to 1 if n is first rounded to float32
    assert metrics.mean_intersection_over_union(confusion) == pytest.approx(expected, rel=1e-15)


def test_majority_confusion_is_that_of_the_constant_prediction():
    truth = np.array([0, 1, 1, 1, 2, 2])
    confusion = sklearn.metrics.confusion_matrix(truth, [0, 0, 1, 2, 2, 2])
    expected = sklearn.metrics.confusion_matrix(truth, np.ones(6, int), labels=range(3))
    np.testing.assert_array_equal(metrics.majority_confusion(confusion), expected)


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_psnr_equals_scikit_image(data_range):
    rng = np.random.default_rng(0)
    truth = data_range * rng.uniform(size=(3, 8, 9, 3))
    noise = data_range * np.array([1e-3, 0.03, 0.5])[:, None, None, None]
    guess = truth + noise * rng.normal(size=truth.shape)
    errors = np.mean((guess - truth) ** 2, axis=(1, 2, 3))
    values = metrics.peak_signal_to_noise_ratio(jnp.float32(errors), data_range)
    expected = [
        skimage.metrics.peak_signal_noise_ratio(t, g, data_range=data_range)
        for t, g in zip(truth, guess, strict=True)
    ]
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_psnr_is_capped_and_keeps_nan():
    values = metrics.peak_signal_to_noise_ratio(jnp.array([0.0, jnp.nan]), 255.0)
    assert float(values[0]) == pytest.approx(100.0, rel=1e-6)
    assert np.isnan(values[1])


def test_structural_similarity_equals_scikit_image():
    rng = np.random.default_rng(0)
    a = rng.uniform(size=(2, 15, 21)) + 3.0  # an offset, where differences of squares cancel
    b = a + np.array([0.01, 0.5])[:, None, None] * rng.normal(size=a.shape)
    found = metrics.structural_similarity_map(jnp.float32(a), jnp.float32(b), 1.0)
    assert found.shape == (2, 5, 11)
    for i in range(2):
        _, full = skimage.metrics.structural_similarity(
            a[i],
            b[i],
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        np.testing.assert_allclose(found[i], full[5:-5, 5:-5], atol=2e-3)


def test_luma_is_that_of_matlab():
    # Full red, green and blue: 16 + 65.481, 16 + 128.553, 16 + 24.966.
    values = 255 * metrics.luma(jnp.eye(3))
    np.testing.assert_allclose(values, [81.481, 144.553, 40.966], rtol=1e-6)


def test_inner_mean_is_that_of_the_real_pixels():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(3, 8, 9)).astype(np.float32)
    sizes = np.array([(8, 9), (5, 7), (3, 9)])
    expected = [values[i, 2 : h - 2, 2 : w - 2].mean() for i, (h, w) in enumerate(sizes[:2])]
    values[1, 5:] = np.nan
    found = metrics.inner_mean(jnp.asarray(values), jnp.asarray(sizes), margin=2)
    np.testing.assert_allclose(found[:2], expected, rtol=1e-5)
    assert np.isnan(found[2])
