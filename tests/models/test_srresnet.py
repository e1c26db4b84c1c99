"""SRResNet: its size, the pixel shuffle, the written-out network, the bicubic start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax.models import SRResNet
from clipjax.models.srresnet import pixel_shuffle
from tests.models.reference import batch_norm, convolve, num_params, randomized, shapes


def test_number_of_parameters_of_the_published_net():
    # conv_in    9*9*3*64 + 64                        =    15,616
    # prelu_in                                        =         1
    # 16 blocks  2 * 9*64*64 + 2 * 2*64 + 1 (PReLU)   = 1,183,760  (73,985 each)
    # conv_mid   9*64*64, bn_mid 2*64                 =    36,992
    # 2 stages   9*64*256 + 256 + 1 (PReLU)           =   295,426  (147,713 each)
    # conv_out   9*9*64*3 + 3                         =    15,555
    #                                             sum   1,547,350
    assert num_params(SRResNet(), (1, 24, 24, 3)) == 1_547_350


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_output_is_scale_times_the_input(scale):
    outputs, _ = shapes(SRResNet(scale=scale, num_blocks=1, channels=2), (2, 5, 7, 3))
    assert outputs.shape == (2, scale * 5, scale * 7, 3)


@pytest.mark.parametrize("factor", [2, 3])
def test_pixel_shuffle_has_the_order_of_torch(factor):
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5 * factor**2)).astype(np.float32)
    y = np.asarray(pixel_shuffle(jnp.asarray(x), factor))
    assert y.shape == (2, 3 * factor, 4 * factor, 5)
    for h, w, c, i, j in np.ndindex(3, 4, 5, factor, factor):
        np.testing.assert_array_equal(
            y[:, h * factor + i, w * factor + j, c], x[:, h, w, c * factor**2 + i * factor + j]
        )


def test_equals_the_written_out_network():
    model = SRResNet(scale=2, num_blocks=1, channels=2, kernel_size=5)
    x = np.random.default_rng(1).normal(size=(1, 6, 5, 3))
    variables = randomized(shapes(model, x.shape)[1])
    params, stats = variables["params"], variables["batch_stats"]

    def conv(y, layer):
        size = layer["kernel"].shape[0]
        return convolve(y, layer["kernel"], 1, size // 2) + np.asarray(layer.get("bias", 0.0))

    def prelu(y, layer):
        return np.where(y > 0, y, float(layer["negative_slope"]) * y)

    trunk = prelu(conv(x[0], params["conv_in"]), params["prelu_in"])
    block, moments = params["block1"], stats["block1"]
    y = batch_norm(conv(trunk, block["conv1"]), block["bn1"], moments["bn1"])
    y = conv(prelu(y, block["prelu"]), block["conv2"])
    y = trunk + batch_norm(y, block["bn2"], moments["bn2"])
    y = trunk + batch_norm(conv(y, params["conv_mid"]), params["bn_mid"], stats["bn_mid"])
    y = conv(y, params["upsample1_conv"]).reshape(6, 5, 2, 2, 2)  # h, w, channel, row, column
    y = y.transpose(0, 3, 1, 4, 2).reshape(12, 10, 2)
    y = conv(prelu(y, params["upsample1_prelu"]), params["conv_out"])
    outputs = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, jnp.float32(x))
    np.testing.assert_allclose(outputs[0], y, rtol=1e-4, atol=1e-5)


def cubic_upscale(x, scale):
    """Keys 1981 (a = -1/2) along both axes in float64; weights renormalised at the borders."""

    def matrix(size):
        distance = np.abs((np.arange(scale * size)[:, None] + 0.5) / scale - 0.5 - np.arange(size))
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
        return weights / weights.sum(1, keepdims=True)

    return np.einsum("ih,jw,hwc->ijc", matrix(x.shape[0]), matrix(x.shape[1]), x)


@pytest.mark.parametrize("train", [False, True])
def test_bicubic_skip_starts_at_bicubic_interpolation(train):
    model = SRResNet(scale=4, num_blocks=1, channels=2, kernel_size=3, global_skip="bicubic")
    x = np.random.default_rng(0).uniform(size=(1, 6, 5, 3))

    @jax.jit
    def start(key):
        variables = model.init(key, jnp.float32(x), train=False)
        return model.apply(variables, jnp.float32(x), train=train, mutable=["batch_stats"])[0]

    outputs = start(jax.random.key(0))
    np.testing.assert_allclose(outputs[0], cubic_upscale(x[0], 4), atol=1e-6)


def test_without_skip_the_start_is_another():
    model = SRResNet(scale=2, num_blocks=0, channels=2, kernel_size=3)
    x = jax.random.uniform(jax.random.key(1), (1, 4, 4, 3))
    params = jax.jit(model.init, static_argnames="train")(jax.random.key(0), x, train=False)
    assert float(jnp.std(params["params"]["conv_out"]["kernel"])) > 0.1  # N(0, 2 / 18)
    assert float(params["params"]["prelu_in"]["negative_slope"]) == 0.25


@pytest.mark.parametrize("global_skip", [None, "bicubic"])
def test_bfloat16_keeps_parameters_and_output_float32(global_skip):
    model = SRResNet(num_blocks=1, channels=2, global_skip=global_skip, dtype=jnp.bfloat16)
    outputs, variables = shapes(model, (1, 5, 6, 3), train=True)
    assert outputs.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("scale", [0, 1, 3, 6])
def test_refuses_a_scale_that_is_no_power_of_two(scale):
    with pytest.raises(ValueError, match=f"power of two .*got {scale}"):
        SRResNet(scale=scale)


def test_unknown_skip_names_the_nearest():
    with pytest.raises(ValueError, match=r"got 'bicubik'; did you mean 'bicubic'\?"):
        SRResNet(global_skip="bicubik")


def test_refuses_to_add_an_input_of_other_channels():
    """A resize would blend the channels without a word."""
    with pytest.raises(ValueError, match="out_channels=3 channels, got 1"):
        shapes(SRResNet(num_blocks=1, channels=2, global_skip="bicubic"), (1, 4, 4, 1))


@pytest.mark.parametrize("skip", [None, "bicubic"])
def test_padding_changes_no_pixel(skip):
    """Padded with noise to one size: within each picture as without padding."""
    model = SRResNet(scale=4, num_blocks=1, channels=3, kernel_size=5, global_skip=skip)
    sizes = np.array([[4, 6], [7, 3], [7, 8]], np.int32)
    padded = np.random.default_rng(3).uniform(size=(3, 7, 8, 3)).astype(np.float32)
    variables = randomized(shapes(model, padded.shape)[1])
    outputs = jax.jit(lambda v, x, size: model.apply(v, x, train=False, size=size))(
        variables, padded, sizes
    )
    for i, (rows, columns) in enumerate(sizes):
        alone = model.apply(variables, padded[i : i + 1, :rows, :columns], train=False)
        found = outputs[i : i + 1, : 4 * rows, : 4 * columns]
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5 * np.abs(alone).max())
