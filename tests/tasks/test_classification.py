"""Classification: inputs, loss and its gradient, metrics over padded batches, samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from clipjax.tasks import Classification
from tests.tasks.batches import assert_implements_task, assert_integer_counts, measure, padded

CLASSES, TOTAL = 7, 21
TASK = Classification(CLASSES, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    arrays = {
        "image": rng.integers(0, 256, size=(TOTAL, 2, 3, 3), dtype=np.uint8),
        "label": rng.choice(CLASSES, p=[0.4, 0.2, 0.2, 0.1, 0.1, 0, 0], size=TOTAL).astype("int32"),
    }
    return 2 * rng.normal(size=(TOTAL, CLASSES)), arrays


def log_softmax(outputs):
    shifted = outputs - outputs.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def test_implements_the_protocol():
    assert_implements_task(TASK)
    assert hash(TASK) == hash(Classification(CLASSES, TASK.mean, TASK.std))  # static under jit


def test_inputs_are_normalised(data):
    images = data[1]["image"]
    inputs = TASK.inputs({"image": jnp.asarray(images)})
    assert inputs.dtype == jnp.float32
    expected = (images / 255.0 - np.array(TASK.mean)) / np.array(TASK.std)
    np.testing.assert_allclose(inputs, expected, rtol=1e-5, atol=1e-6)


def test_metrics_over_padded_batches_are_those_of_the_whole_set(data):
    outputs, arrays = data
    labels = arrays["label"]
    measured = measure(TASK, outputs, arrays)

    def top(k):
        return sklearn.metrics.top_k_accuracy_score(labels, outputs, k=k, labels=range(CLASSES))

    assert set(measured) == {"loss", "top1", "top5", "majority_top1"}
    assert measured["loss"] == pytest.approx(
        sklearn.metrics.log_loss(labels, np.exp(log_softmax(outputs)), labels=range(CLASSES)),
        rel=1e-6,
    )
    assert measured["top1"] == top(1)
    assert measured["top5"] == top(5)
    assert measured["majority_top1"] == np.bincount(labels).max() / TOTAL


def test_loss_and_gradient_are_those_of_the_real_examples(data):
    outputs, arrays = data
    *_, (part, batch) = padded(outputs, arrays, 8)  # 5 real ones of 8
    assert batch["mask"].sum() == 5
    real, labels = outputs[16:], arrays["label"][16:]
    loss = jax.jit(TASK.loss)(part, batch)
    assert float(loss) == pytest.approx(-log_softmax(real)[np.arange(5), labels].mean(), rel=1e-6)
    part[5:] = 3.0  # a network gives padding finite outputs
    gradient = jax.jit(jax.grad(TASK.loss))(part, batch)
    expected = (np.exp(log_softmax(real)) - np.eye(CLASSES)[labels]) / 5
    np.testing.assert_allclose(gradient[:5], expected, rtol=1e-4, atol=1e-7)
    assert not np.any(gradient[5:])


def test_counts_are_integers_and_exact_beyond_float32(data):
    outputs, arrays = data
    part = next(padded(outputs, arrays, 8))
    names = ("examples", "top1", "top5", "class_counts")
    assert_integer_counts(jax.eval_shape(TASK.statistics, *part), names)
    n = 2**24 + 1
    statistics = {"examples": n + 2, "loss": 1.0, "top1": n, "top5": n + 1, "class_counts": [n, 2]}
    measured = TASK.metrics(statistics)
    assert measured["top1"] == measured["majority_top1"] == n / (n + 2)
    assert measured["top5"] == (n + 1) / (n + 2)


def test_samples_hold_the_real_examples(data):
    outputs, arrays = data
    *_, (part, batch) = padded(outputs, arrays, 8)
    samples = TASK.samples(jnp.asarray(part), batch)
    assert set(samples) == {"image", "label", "prediction", "probability"}
    assert all(isinstance(values, np.ndarray) for values in samples.values())
    np.testing.assert_array_equal(samples["image"], arrays["image"][16:])
    np.testing.assert_array_equal(samples["label"], arrays["label"][16:])
    np.testing.assert_array_equal(samples["prediction"], outputs[16:].argmax(1))
    expected = np.exp(log_softmax(outputs[16:]).max(1))
    np.testing.assert_allclose(samples["probability"], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_classes": 1}, "num_classes must be a whole number from 2 to 2147483647, got 1"),
        ({"std": (0.5, 0.5)}, "one entry per channel, got 3 and 2"),
        ({"std": (0.5, 0.0, 0.5)}, "std must be positive"),
        (
            {"num_classes": float("nan")},
            "num_classes must be a whole number from 2 to 2147483647, got nan",
        ),
        ({"num_classes": 2**31}, "num_classes must be a whole number from 2"),
        (
            {"num_classes": "three"},
            "num_classes must be a whole number from 2 to 2147483647, got 'three'",
        ),
        ({"mean": "rgb"}, "mean must be a tuple of finite numbers, got 'rgb'"),
        ({"mean": 0.5}, "mean must be a tuple"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean must be a tuple of finite numbers"),
        ({"std": (True, 0.5, 0.5)}, "std must be a tuple of finite numbers"),
    ],
)
def test_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        Classification(**{"num_classes": 3, "mean": (0.5,) * 3, "std": (0.5,) * 3} | fields)


def test_refuses_images_of_other_channels():
    """A single channel would be broadcast to three without a word."""
    with pytest.raises(ValueError, match="images have 1 channels, but mean and std have 3"):
        TASK.inputs({"image": jnp.zeros((2, 4, 4, 1), jnp.uint8)})


def test_no_examples_have_no_metrics(data):
    outputs, arrays = data
    part, batch = next(padded(outputs, arrays, 8))
    nothing = jax.jit(TASK.statistics)(part, batch | {"mask": np.zeros(8, np.float32)})
    with pytest.raises(ValueError, match="the statistics hold no examples"):
        TASK.metrics(nothing)
