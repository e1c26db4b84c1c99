"""FCN-32s and its trunk: sizes, geometry, the upsampling against written-out versions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax.models import FCN32s, VGG16Features
from clipjax.models.fcn import conv_transpose
from clipjax.models.initializers import bilinear
from tests.models.reference import convolve, num_params, pool, randomized, shapes

SMALL = {"num_classes": 3, "width": 2, "fc_width": 4, "fc_kernel": 3}


def test_number_of_parameters_of_the_trunk():
    # 3x3 kernels and biases, channels in -> out:
    # block 1:   3->64, 64->64                    1,792 +    36,928            =     38,720
    # block 2:  64->128, 128->128                73,856 +   147,584            =    221,440
    # block 3: 128->256, 2 x 256->256           295,168 + 2 * 590,080          =  1,475,328
    # block 4: 256->512, 2 x 512->512         1,180,160 + 2 * 2,359,808        =  5,899,776
    # block 5: 3 x 512->512                                3 * 2,359,808       =  7,079,424
    #                                                                       sum 14,714,688
    assert num_params(VGG16Features(), (1, 224, 224, 3)) == 14_714_688
    # Scale and bias of every channel: 2 * (2*64 + 2*128 + 3*256 + 6*512) = 8,448.
    assert num_params(VGG16Features(batch_norm=True), (1, 64, 64, 3)) == 14_714_688 + 8_448


def test_number_of_parameters_of_the_published_net():
    # trunk                               14,714,688
    # fc6      7*7*512*4096 + 4096     = 102,764,544
    # fc7      4096*4096 + 4096        =  16,781,312
    # score    4096*21 + 21            =      86,037
    # upscore  64*64*21*21             =   1,806,336
    #                              sum   136,152,917
    assert num_params(FCN32s(21), (1, 224, 224, 3)) == 136_152_917


@pytest.mark.parametrize(("pool_stages", "height", "width"), [(5, 65, 47), (3, 50, 37), (1, 1, 3)])
def test_output_has_the_size_of_the_image(pool_stages, height, width):
    outputs, _ = shapes(FCN32s(**SMALL, pool_stages=pool_stages), (2, height, width, 3))
    assert outputs.shape == (2, height, width, 3)
    features, _ = shapes(VGG16Features(width=2, pool_stages=pool_stages), (2, height, width, 3))
    channels = 2 * 2 ** min(pool_stages - 1, 3)
    stride = 2**pool_stages
    assert features.shape == (2, -(-height // stride), -(-width // stride), channels)


def test_equals_the_written_out_network():
    """Same-padded convolutions, pooling that rounds up, the deconvolution, the crop."""
    model = FCN32s(**SMALL, pool_stages=2, block_sizes=[1, 2])
    x = np.random.default_rng(1).normal(size=(1, 7, 10, 3))
    params = randomized(shapes(model, x.shape)[1])["params"]

    def conv(y, layer):
        kernel, bias = layer["kernel"], np.asarray(layer["bias"], np.float64)
        return convolve(y, kernel, 1, kernel.shape[0] // 2) + bias

    y = x[0]
    for block, convs in (("block1", 1), ("block2", 2)):
        for number in range(1, convs + 1):
            y = np.maximum(conv(y, params["vgg16"][f"{block}_conv{number}"]), 0)
        odd = ((0, y.shape[0] % 2), (0, y.shape[1] % 2), (0, 0))
        y = pool(np.pad(y, odd, constant_values=-np.inf), 2, 2, 0)
    assert y.shape == (2, 3, 4)  # 7 -> 4 -> 2, 10 -> 5 -> 3
    for name in ("fc6", "fc7"):
        y = np.maximum(conv(y, params[name]), 0)
    y = written_out_transpose(conv(y, params["score"]), params["upscore"]["kernel"])
    outputs = jax.jit(lambda p, x: model.apply({"params": p}, x, train=False))(
        params, jnp.float32(x)
    )
    np.testing.assert_allclose(outputs[0], y[:7, :10], rtol=1e-4, atol=1e-5)


def written_out_transpose(x, kernel):
    """Each input pixel m adds x[m] kernel to rows s m ... s m + 2 s - 1; s / 2 are cropped."""
    stride = kernel.shape[0] // 2
    kernel = np.asarray(kernel, np.float64)
    height, width = x.shape[:2]
    out = np.zeros((stride * (height + 1), stride * (width + 1), kernel.shape[3]))
    for m in range(height):
        for n in range(width):
            rows = slice(stride * m, stride * (m + 2))
            columns = slice(stride * n, stride * (n + 2))
            out[rows, columns] += np.einsum("c,ijcf->ijf", x[m, n], kernel)
    margin = stride // 2
    return out[margin : margin + stride * height, margin : margin + stride * width]


@pytest.mark.parametrize("stride", [2, 4])
def test_conv_transpose_equals_the_sum_over_inputs(stride):
    rng = np.random.default_rng(stride)
    x = rng.normal(size=(3, 5, 2))
    kernel = rng.normal(size=(2 * stride, 2 * stride, 2, 3))
    outputs = conv_transpose(jnp.float32(x[None]), jnp.float32(kernel))
    np.testing.assert_allclose(outputs[0], written_out_transpose(x, kernel), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [2, 8, 32])
def test_bilinear_start_interpolates_linear_ramps_exactly(stride):
    """Pixel i of the output lies at (i + 1/2) / stride - 1/2 of the input; channels stay apart."""
    height, width = 4, 5
    rows, columns = np.mgrid[:height, :width].astype(float)
    ramps = [1 + 2 * rows - columns, 3 - rows + 0.5 * columns]
    kernel = bilinear(jax.random.key(0), (2 * stride, 2 * stride, 2, 2))
    outputs = conv_transpose(jnp.float32(np.stack(ramps, -1)[None]), kernel)[0]
    u = (np.arange(stride * height)[:, None] + 0.5) / stride - 0.5
    v = (np.arange(stride * width)[None] + 0.5) / stride - 0.5
    expected = np.stack([1 + 2 * u - v, 3 - u + 0.5 * v], -1)
    inner = slice(stride // 2, -(stride // 2))  # beyond, the neighbours are zeros
    np.testing.assert_allclose(outputs[inner, inner], expected[inner, inner], atol=1e-5)


def test_the_upsampling_starts_bilinear_and_the_score_at_zero():
    """Uniform predictions at the start, whatever the image."""
    model = FCN32s(**SMALL, pool_stages=1)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)), train=False)
    upscore = variables["params"]["upscore"]["kernel"]
    np.testing.assert_array_equal(upscore, bilinear(jax.random.key(0), (4, 4, 3, 3)))
    image = jax.random.normal(jax.random.key(1), (1, 4, 4, 3))
    assert not np.any(model.apply(variables, image, train=False))


def test_dropout_in_training_only():
    model = FCN32s(**SMALL, pool_stages=1, block_sizes=(1,), dropout=0.5)
    image = jax.random.normal(jax.random.key(1), (1, 4, 4, 3))
    variables = randomized(shapes(model, image.shape)[1])

    @jax.jit
    def train(key):
        return model.apply(variables, image, train=True, rngs={"dropout": key})

    assert not np.array_equal(train(jax.random.key(0)), train(jax.random.key(1)))
    still = model.apply(variables, image, train=False)  # needs no key
    assert np.all(np.isfinite(still))


def test_batch_stats_only_with_batch_norm():
    assert set(shapes(FCN32s(**SMALL), (1, 32, 32, 3))[1]) == {"params"}
    variables = shapes(FCN32s(**SMALL, batch_norm=True), (1, 32, 32, 3))[1]
    assert set(variables) == {"params", "batch_stats"}
    assert {"fc6_bn", "fc7_bn"} <= set(variables["batch_stats"])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_bfloat16_keeps_parameters_and_logits_float32(batch_norm):
    model = FCN32s(**SMALL, batch_norm=batch_norm, dtype=jnp.bfloat16)
    outputs, variables = shapes(model, (1, 33, 32, 3), train=True)
    assert outputs.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    trunk, _ = shapes(VGG16Features(width=2, dtype=jnp.bfloat16), (1, 33, 32, 3))
    assert trunk.dtype == jnp.bfloat16


@pytest.mark.parametrize("pool_stages", [0, 6])
@pytest.mark.parametrize("make", [lambda s: FCN32s(3, pool_stages=s), VGG16Features])
def test_refuses_stages_that_the_trunk_has_not(make, pool_stages):
    make = make if make is not VGG16Features else lambda s: VGG16Features(pool_stages=s)
    with pytest.raises(ValueError, match=rf"pool_stages must be 1 \.\.\. 5 .*got {pool_stages}"):
        make(pool_stages)


def test_hashable_with_block_sizes_from_a_list():
    """Modules are static arguments of jit."""
    lists, tuples = (FCN32s(3, pool_stages=2, block_sizes=b) for b in ([1, 2], (1, 2)))
    assert hash(lists) == hash(tuples)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_padding_changes_no_score(batch_norm):
    """Sizes that no stride divides, padded with noise to one size: as each by itself."""
    model = FCN32s(**SMALL, pool_stages=2, block_sizes=(1, 2), batch_norm=batch_norm)
    sizes = np.array([[7, 10], [12, 5], [12, 16]], np.int32)
    padded = np.random.default_rng(3).normal(size=(3, 12, 16, 3)).astype(np.float32)
    variables = randomized(shapes(model, padded.shape)[1])
    outputs = jax.jit(lambda v, x, size: model.apply(v, x, train=False, size=size))(
        variables, padded, sizes
    )
    for i, (rows, columns) in enumerate(sizes):
        alone = model.apply(variables, padded[i : i + 1, :rows, :columns], train=False)
        found = outputs[i : i + 1, :rows, :columns]
        np.testing.assert_allclose(found, alone, rtol=1e-4, atol=1e-5 * np.abs(alone).max())
