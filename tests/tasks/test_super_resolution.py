"""Super-resolution: scaling, PSNR of each image over padded batches, bicubic, samples."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import skimage.metrics

from clipjax.tasks import SuperResolution
from tests.tasks.batches import assert_implements_task, assert_integer_counts, measure, padded

TOTAL, SCALE = 5, 2
LOW, HIGH = (6, 5), (12, 10)


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, size=(TOTAL, *LOW, 3), dtype=np.uint8),
        "target": rng.integers(0, 256, size=(TOTAL, *HIGH, 3), dtype=np.uint8),
    }


def make(data_range=1.0):
    return SuperResolution(scale=SCALE, data_range=data_range)


def guesses(arrays, data_range):
    """Return outputs of very different errors, some outside the range, on [0, data_range]."""
    noise = np.array([0.01, 0.05, 0.1, 0.3, 0.6])[:, None, None, None]
    normal = np.random.default_rng(1).normal(size=arrays["target"].shape)
    return data_range * (arrays["target"] / 255.0 + noise * normal)


def bicubic(image):
    """Return Pillow's bicubic upscaling (a = -1/2 too), channel by channel in float32."""
    channels = [
        PIL.Image.fromarray(np.float32(image[..., c] / 255.0)).resize(
            (HIGH[1], HIGH[0]), PIL.Image.Resampling.BICUBIC
        )
        for c in range(3)
    ]
    return np.clip(np.stack([np.asarray(c) for c in channels], -1), 0, 1)


def test_implements_the_protocol():
    assert_implements_task(make())
    assert hash(make()) == hash(make())  # static under jit


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_metrics_over_padded_batches_are_those_of_the_whole_set(arrays, data_range):
    """PSNR of each image, then the mean; outputs clipped for it, not for the loss."""
    outputs = guesses(arrays, data_range)
    truth = arrays["target"] / 255.0
    measured = measure(make(data_range), outputs, arrays, batch_size=3)
    assert set(measured) == {"loss", "psnr", "bicubic_psnr"}
    squares = np.mean((outputs - data_range * truth) ** 2)
    assert measured["loss"] == pytest.approx(squares, rel=1e-5)

    def psnr(images):
        return np.mean(
            [
                skimage.metrics.peak_signal_noise_ratio(t, np.float64(i), data_range=1.0)
                for t, i in zip(truth, images, strict=True)
            ]
        )

    clipped = np.clip(outputs / data_range, 0, 1)
    assert measured["psnr"] == pytest.approx(psnr(clipped), rel=1e-5)
    assert measured["bicubic_psnr"] == pytest.approx(psnr(map(bicubic, arrays["image"])), rel=1e-5)


PAPERS = ("psnr_rgb", "psnr_y", "ssim_y")


def as_in_papers(images, truth):
    """The three metrics by scikit-image, on 8 bits, SCALE pixels of border left out."""
    rounded = np.round(255 * np.clip(images, 0, 1)) / 255
    inner = (slice(SCALE, -SCALE),) * 2
    a, b = truth[inner], rounded[inner]
    weights = np.array([65.481, 128.553, 24.966])
    luma_a, luma_b = ((16 + x @ weights) / 255 for x in (a, b))
    ssim = skimage.metrics.structural_similarity(
        luma_a,
        luma_b,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    psnr = skimage.metrics.peak_signal_noise_ratio
    return psnr(a, b, data_range=1.0), psnr(luma_a, luma_b, data_range=1.0), ssim


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_evaluation_of_padded_images_is_that_of_each_image(data_range):
    """Images of three sizes, padded by rubbish to one; PSNR and SSIM as papers report them."""
    rng = np.random.default_rng(2)
    sizes = np.array([(12, 14), (16, 11), (13, 16)], np.int32)
    image = rng.integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    target = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    noise = np.array([0.02, 0.1, 0.4])[:, None, None, None] * rng.normal(size=target.shape)
    outputs = data_range * (target / 255 + noise)
    whole = []
    for i, (height, width) in enumerate(SCALE * sizes):
        outputs[i, height:], outputs[i, :, width:] = np.nan, 1e6  # where nothing counts
        truth, guess = target[i, :height, :width] / 255, outputs[i, :height, :width] / data_range
        error = np.mean((np.clip(guess, 0, 1) - truth) ** 2)
        squares = data_range**2 * np.mean((guess - truth) ** 2)
        whole.append((squares, -10 * np.log10(error), *as_in_papers(guess, truth)))
    arrays = {"image": image, "target": target, "size": sizes}
    measured = measure(make(data_range), outputs, arrays, batch_size=2)
    names = ("loss", "psnr", *PAPERS)
    assert set(measured) == {*names, "bicubic_psnr", *(f"bicubic_{name}" for name in PAPERS)}
    for name, expected in zip(names, np.mean(whole, axis=0), strict=True):
        assert measured[name] == pytest.approx(expected, rel=2e-5), name


def test_bicubic_beside_is_measured_alike():
    rng = np.random.default_rng(3)
    target = rng.integers(0, 256, (2, 32, 28, 3), dtype=np.uint8)
    arrays = {
        "image": rng.integers(0, 256, (2, 16, 14, 3), dtype=np.uint8),
        "target": target,
        "size": np.array([(16, 14)] * 2, np.int32),
    }
    task = make()
    images = np.asarray(task.bicubic({k: jnp.asarray(v) for k, v in arrays.items()}))
    measured = measure(task, images, arrays, batch_size=2)
    for name in ("psnr", *PAPERS):
        assert measured[f"bicubic_{name}"] == measured[name]
    expected = np.mean([as_in_papers(i, t / 255) for i, t in zip(images, target, strict=True)], 0)
    np.testing.assert_allclose([measured[name] for name in PAPERS], expected, rtol=2e-5)


def test_images_too_small_for_a_window_have_no_similarity():
    batch = {
        "image": np.zeros((1, 7, 7, 3), np.uint8),
        "target": np.zeros((1, 14, 14, 3), np.uint8),
        "size": np.array([(7, 7)], np.int32),
        "mask": np.ones(1, np.float32),
    }
    task = make()
    measured = task.metrics(task.statistics(jnp.zeros((1, 14, 14, 3)), batch))
    assert np.isnan(measured["ssim_y"])  # 14 - 2 * 2 = 10 < 11
    assert measured["psnr_y"] == pytest.approx(100)


def test_samples_say_how_much_of_padded_images_is_real(arrays):
    size = np.array([(5, 4), (6, 3), (6, 5), (2, 2), (2, 2)], np.int32)
    mask = np.array([1, 1, 1, 0, 0], np.float32)
    batch = {k: jnp.asarray(v) for k, v in {**arrays, "size": size, "mask": mask}.items()}
    samples = make().samples(jnp.zeros((TOTAL, *HIGH, 3)), batch)
    assert samples["size"].tolist() == size[:3].tolist()
    np.testing.assert_array_equal(samples["target"], arrays["target"][:3])
    assert samples["bicubic"].shape == samples["prediction"].shape == (3, *HIGH, 3)


def test_inputs_and_targets_are_on_the_data_range(arrays):
    task = make(2.0)
    np.testing.assert_allclose(task.inputs(arrays), arrays["image"] * (2 / 255), rtol=1e-6)
    np.testing.assert_allclose(task.targets(arrays), arrays["target"] * (2 / 255), rtol=1e-6)
    assert task.inputs(arrays).dtype == task.targets(arrays).dtype == jnp.float32


def test_loss_and_gradient_are_those_of_the_real_examples(arrays):
    outputs = guesses(arrays, 1.0)
    *_, (part, batch) = padded(outputs, arrays, 3)  # 2 real ones of 3
    task, difference = make(), outputs[3:] - arrays["target"][3:] / 255.0
    assert float(jax.jit(task.loss)(part, batch)) == pytest.approx((difference**2).mean(), rel=1e-5)
    gradient = jax.jit(jax.grad(task.loss))(np.nan_to_num(part), batch)
    np.testing.assert_allclose(gradient[:2], 2 * difference / difference.size, rtol=1e-4, atol=1e-8)
    assert not np.any(gradient[2:])


def test_counts_are_integers(arrays):
    part = next(padded(guesses(arrays, 1.0), arrays, 3))
    assert_integer_counts(jax.eval_shape(make().statistics, *part), ("examples",))


def test_samples_hold_the_real_examples_in_8_bits(arrays):
    outputs = guesses(arrays, 255.0)
    *_, (part, batch) = padded(outputs, arrays, 3)
    samples = make(255.0).samples(jnp.asarray(part), batch)
    assert set(samples) == {"lr", "bicubic", "prediction", "target"}
    assert {str(values.dtype) for values in samples.values()} == {"uint8"}
    np.testing.assert_array_equal(samples["lr"], arrays["image"][3:])
    np.testing.assert_array_equal(samples["target"], arrays["target"][3:])
    expected = np.round(np.clip(np.float32(outputs[3:]), 0, 255))
    # Halves may fall either way: dividing by 255 and multiplying again costs a rounding.
    np.testing.assert_allclose(samples["prediction"].astype(float), expected, atol=1)
    assert np.mean(samples["prediction"] == expected) > 0.99
    upscaled = np.stack([bicubic(image) for image in arrays["image"][3:]])
    assert np.max(np.abs(samples["bicubic"] - 255.0 * upscaled)) < 0.51


def test_refuses_targets_of_another_size(arrays):
    task = SuperResolution(scale=4)
    with pytest.raises(ValueError, match=r"targets must be 4 times .*\(5, 24, 20, 3\), got"):
        task.loss(jnp.zeros((TOTAL, 24, 20, 3)), arrays | {"mask": np.ones(TOTAL)})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scale": 0}, "scale must be a whole number from 1 to 2147483647, got 0"),
        ({"scale": True}, "scale must be a whole number from 1 to 2147483647, got True"),
        ({"scale": 2.0}, "scale must be a whole number from 1 to 2147483647, got 2.0"),
        ({"data_range": 0.0}, "data_range must be positive"),
        ({"data_range": float("inf")}, "data_range must be positive and finite"),
        ({"data_range": "255"}, "data_range must be positive"),
    ],
)
def test_refuses(fields, message):
    with pytest.raises(ValueError, match=message):
        SuperResolution(**fields)


def test_no_examples_have_no_metrics():
    with pytest.raises(ValueError, match="the statistics hold no examples"):
        make().metrics({"examples": 0, "loss": 0.0, "psnr": 0.0, "bicubic_psnr": 0.0})


def test_bicubic_interpolation_leaves_padding_out(arrays):
    """Beside the network's scores stand those of interpolation: neither may depend on padding."""
    task, (rows, columns) = make(), LOW
    sides = ((0, 0), (0, 3), (0, 2), (0, 0))
    scaled = ((0, 0), (0, 3 * SCALE), (0, 2 * SCALE), (0, 0))
    padded = {
        "image": np.pad(arrays["image"], sides, constant_values=200),
        "target": np.pad(arrays["target"], scaled, constant_values=9),
        "size": np.tile(np.int32(LOW), (TOTAL, 1)),
        "mask": np.ones(TOTAL, np.float32),
    }
    outputs = np.random.default_rng(4).uniform(size=(TOTAL, *HIGH, 3)).astype(np.float32)
    whole = {**arrays, "size": padded["size"], "mask": padded["mask"]}
    alone = jax.tree.map(np.asarray, task.statistics(outputs, whole))
    found = task.statistics(np.pad(outputs, scaled, constant_values=0.5), padded)
    for name, value in alone.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(
        task.bicubic(padded)[:, : SCALE * rows, : SCALE * columns], task.bicubic(arrays), atol=1e-6
    )
