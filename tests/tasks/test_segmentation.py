"""Segmentation: the void label, one confusion matrix over padded batches, samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

from clipjax.tasks import Segmentation
from tests.tasks.batches import assert_implements_task, assert_integer_counts, measure, padded

CLASSES, TOTAL, SIZE = 5, 7, (6, 4)
TASK = Segmentation(CLASSES, mean=(0.5,), std=(0.25,))


@pytest.fixture(scope="module")
def data():
    """Return logits and arrays; class 4 is absent from truth and prediction; 255 is void."""
    rng = np.random.default_rng(0)
    arrays = {
        "image": rng.integers(0, 256, size=(TOTAL, *SIZE, 1), dtype=np.uint8),
        "label": rng.choice([0, 1, 2, 3, 255], p=[0.5, 0.2, 0.1, 0.1, 0.1], size=(TOTAL, *SIZE)),
    }
    outputs = rng.normal(size=(TOTAL, *SIZE, CLASSES))
    outputs[..., 4] -= 50
    return outputs, arrays


def cross_entropy(outputs, labels):
    """Return -log softmax at the label, float64, of the pixels that are not void."""
    kept = labels != 255
    outputs, labels = outputs[kept], labels[kept]
    shifted = outputs - outputs.max(-1, keepdims=True)
    return np.log(np.exp(shifted).sum(-1)) - shifted[np.arange(len(labels)), labels]


def test_implements_the_protocol():
    assert_implements_task(TASK)
    assert hash(TASK) == hash(Segmentation(CLASSES, TASK.mean, TASK.std))  # static under jit


@pytest.mark.parametrize("batch_size", [3, 8])
def test_metrics_over_padded_batches_are_those_of_the_whole_set(data, batch_size):
    outputs, arrays = data
    kept = arrays["label"] != 255
    truth, guess = arrays["label"][kept], outputs.argmax(-1)[kept]
    measured = measure(TASK, outputs, arrays, batch_size)
    assert set(measured) == {
        "loss",
        "mean_iou",
        "pixel_accuracy",
        "majority_mean_iou",
        "majority_pixel_accuracy",
        # Class 4 is neither in the truth nor predicted.
        *(f"{name}_{k}" for name in ("iou", "share") for k in range(4)),
    }
    assert measured["loss"] == pytest.approx(cross_entropy(outputs, arrays["label"]).mean(), 1e-6)
    # scikit-learn averages over the classes 0 ... 3 that occur; class 4 is in neither.
    iou = sklearn.metrics.jaccard_score(truth, guess, average="macro")
    assert measured["mean_iou"] == pytest.approx(iou, rel=1e-14)
    assert measured["pixel_accuracy"] == pytest.approx((truth == guess).mean(), rel=1e-14)
    each = sklearn.metrics.jaccard_score(truth, guess, average=None, labels=range(4))
    assert [measured[f"iou_{k}"] for k in range(4)] == pytest.approx(each, rel=1e-14)
    shares = [(truth == k).mean() for k in range(4)]
    assert [measured[f"share_{k}"] for k in range(4)] == pytest.approx(shares, rel=1e-14)
    # Everywhere background: its own IoU is its share, that of classes 1, 2, 3 is 0.
    share = (truth == 0).mean()
    assert measured["majority_pixel_accuracy"] == pytest.approx(share, rel=1e-14)
    assert measured["majority_mean_iou"] == pytest.approx(share / 4, rel=1e-14)


def test_the_mean_is_that_of_one_matrix_not_of_batches():
    """Class 1 is right in one image, missed in the other: IoU 1/2 over both, 1 and 0 apart."""
    labels = np.array([[[1, 0, 0, 0]], [[1, 0, 0, 0]]])
    guess = np.array([[[1, 0, 0, 0]], [[0, 0, 0, 0]]])
    task = Segmentation(2, mean=(0.5,), std=(0.25,))
    measured = measure(task, np.eye(2)[guess], {"label": labels}, batch_size=1)
    assert measured["mean_iou"] == pytest.approx((6 / 7 + 1 / 2) / 2, rel=1e-14)


def test_a_class_that_is_predicted_but_not_in_the_truth_scores_0():
    """Truth 0 0, prediction 0 2: IoU of class 0 is 1/2, of 2 it is 0, and 1 has none."""
    task = Segmentation(3, mean=(0.5,), std=(0.25,))
    labels, guess = np.array([[[0, 0]]]), np.array([[[0, 2]]])
    measured = measure(task, np.eye(3)[guess], {"label": labels}, batch_size=1)
    found = {name: value for name, value in measured.items() if name[-2:] in ("_0", "_1", "_2")}
    assert found == {"iou_0": 0.5, "share_0": 1.0, "iou_2": 0.0, "share_2": 0.0}
    assert measured["mean_iou"] == 0.25


def test_void_pixels_count_neither_in_loss_nor_in_metrics(data):
    """Whatever is predicted there; and no gradient comes from there."""
    outputs, arrays = data
    *_, (part, batch) = padded(outputs, arrays, 3)  # 1 real image of 3
    void = batch["label"] == 255
    spoiled = np.where(void[..., None], np.nan, part)
    loss, statistics = jax.jit(TASK.loss), jax.jit(TASK.statistics)
    expected = cross_entropy(outputs[6:], arrays["label"][6:])
    assert float(loss(part, batch)) == pytest.approx(expected.mean(), rel=1e-6)
    assert float(loss(spoiled, batch)) == float(loss(part, batch))
    jax.tree.map(np.testing.assert_array_equal, statistics(part, batch), statistics(spoiled, batch))
    gradient = np.asarray(jax.jit(jax.grad(TASK.loss))(np.nan_to_num(part), batch))
    counted = ~void & (batch["mask"][:, None, None] > 0)
    assert not gradient[~counted].any()
    assert np.all(np.abs(gradient[counted]).sum(-1) > 0)


def test_another_void_label(data):
    """With -1 for void, every pixel of class 0 ... counts, and 0 is no longer special."""
    outputs, arrays = data
    labels = np.where(arrays["label"] == 255, -1, arrays["label"])
    task = Segmentation(CLASSES, TASK.mean, TASK.std, void_label=-1)
    assert measure(task, outputs, arrays | {"label": labels}) == measure(TASK, outputs, arrays)


def test_a_label_out_of_range_is_not_passed_over(data):
    """254 is neither a class nor void: the loss is NaN, not silently that of another class."""
    outputs, arrays = data
    part, batch = next(padded(outputs, arrays, 7))
    batch = batch | {"label": np.where(batch["label"] == 3, 254, batch["label"])}
    assert np.isnan(jax.jit(TASK.loss)(part, batch))


def test_counts_are_integers_and_exact_beyond_float32(data):
    part = next(padded(*data, 7))
    statistics = jax.eval_shape(TASK.statistics, *part)
    assert_integer_counts(statistics, ("examples", "pixels", "confusion"))
    n = 2**24 + 1
    confusion = np.array([[n, 2], [0, n]], np.int64)
    sums = {"examples": 1, "pixels": 2 * n + 2, "loss": 1.0, "confusion": confusion}
    measured = TASK.metrics(sums)
    assert measured["mean_iou"] == pytest.approx(n / (n + 2), rel=1e-15)
    assert measured["pixel_accuracy"] == 2 * n / (2 * n + 2)


def test_samples_hold_the_real_examples(data):
    outputs, arrays = data
    *_, (part, batch) = padded(outputs, arrays, 3)
    samples = TASK.samples(jnp.asarray(part), {k: jnp.asarray(v) for k, v in batch.items()})
    assert {name: (v.shape, str(v.dtype)) for name, v in samples.items()} == {
        "image": ((1, *SIZE, 1), "uint8"),
        "label": ((1, *SIZE), "int32"),
        "prediction": ((1, *SIZE), "int32"),
    }
    np.testing.assert_array_equal(samples["image"], arrays["image"][6:])
    np.testing.assert_array_equal(samples["label"], arrays["label"][6:])
    np.testing.assert_array_equal(samples["prediction"], outputs[6:].argmax(-1))


def test_samples_say_how_much_of_padded_pictures_is_real(data):
    outputs, arrays = data
    sizes = np.arange(2 * TOTAL, dtype=np.int32).reshape(TOTAL, 2)
    *_, (part, batch) = padded(outputs, arrays | {"size": sizes}, 3)
    samples = TASK.samples(jnp.asarray(part), {k: jnp.asarray(v) for k, v in batch.items()})
    assert samples["size"].tolist() == [[12, 13]]


def test_refuses_a_void_label_among_the_classes():
    with pytest.raises(ValueError, match="void_label must lie outside the 5 classes, got 0"):
        Segmentation(CLASSES, TASK.mean, TASK.std, void_label=0)
    for label in (float("nan"), 2**31, "void", True):
        with pytest.raises(ValueError, match="void_label must be a whole number from -"):
            Segmentation(CLASSES, TASK.mean, TASK.std, void_label=label)
    with pytest.raises(ValueError, match="num_classes must be a whole number from 2"):
        Segmentation(1, TASK.mean, TASK.std)


def test_all_void_has_loss_zero_and_no_metrics(data):
    outputs, arrays = data
    part, batch = next(padded(outputs, arrays, 7))
    batch = batch | {"label": np.full_like(batch["label"], 255)}
    assert float(jax.jit(TASK.loss)(part, batch)) == 0.0
    with pytest.raises(ValueError, match="the statistics hold no labelled pixels"):
        TASK.metrics(jax.jit(TASK.statistics)(part, batch))
