"""ResNet-18: its size, its geometry against a written-out network, dtypes, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax.models import ResNet18
from tests.models.reference import batch_norm, convolve, num_params, pool, randomized, shapes


def test_number_of_parameters_imagenet():
    # conv1              7*7*3*64                                              =      9,408
    # bn1                2*64                                                  =        128
    # layer1: 2 blocks   2*(2*9*64*64 + 2*2*64)                                =    147,968
    # layer2: 9*64*128 + 3*9*128*128 + 64*128 (downsample) + 5*2*128           =    525,568
    # layer3: 9*128*256 + 3*9*256*256 + 128*256 + 5*2*256                      =  2,099,712
    # layer4: 9*256*512 + 3*9*512*512 + 256*512 + 5*2*512                      =  8,393,728
    # fc                 512*1000 + 1000                                       =    513,000
    #                                                                       sum 11,689,512
    assert num_params(ResNet18(1000), (1, 224, 224, 3)) == 11_689_512


def test_number_of_parameters_small_stem():
    # conv1 is 3*3*3*64 = 1,728 in place of 9,408, and fc 512*10 + 10 = 5,130 in place of 513,000.
    expected = 11_689_512 - 9_408 + 1_728 - 513_000 + 5_130
    assert num_params(ResNet18(10, stem="small"), (1, 32, 32, 3)) == expected


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_equals_the_written_out_network(stem):
    """Padding and strides are torchvision's (symmetric), the pooled border is -inf, BN in place."""
    model = ResNet18(num_classes=3, width=2, stem=stem, stage_sizes=[1, 1])
    x = np.random.default_rng(1).normal(size=(1, 11, 14, 3))
    variables = randomized(shapes(model, x.shape)[1])
    params, stats = variables["params"], variables["batch_stats"]

    def norm(y, scope, name):
        p, s = (params[scope], stats[scope]) if scope else (params, stats)
        return batch_norm(y, p[name], s[name])

    large = stem == "imagenet"
    y = convolve(x[0], params["conv1"]["kernel"], 2 if large else 1, 3 if large else 1)
    y = np.maximum(norm(y, None, "bn1"), 0)
    if large:
        y = pool(y, 3, 2, 1)
    for scope, stride in (("layer1_0", 1), ("layer2_0", 2)):
        block = params[scope]
        z = norm(convolve(y, block["conv1"]["kernel"], stride, 1), scope, "bn1")
        z = norm(convolve(np.maximum(z, 0), block["conv2"]["kernel"], 1, 1), scope, "bn2")
        if stride == 2:
            y = convolve(y, block["downsample_conv"]["kernel"], 2, 0)
            y = norm(y, scope, "downsample_bn")
        y = np.maximum(z + y, 0)
    # imagenet: 11x14 -> conv 6x7 -> pool 3x4 -> 2x2; small: 11x14 -> 6x7.
    assert y.shape == ((2, 2, 4) if large else (6, 7, 4))
    fc = {k: np.asarray(v, np.float64) for k, v in params["fc"].items()}
    expected = y.mean(axis=(0, 1)) @ fc["kernel"] + fc["bias"]

    outputs = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, jnp.float32(x))
    np.testing.assert_allclose(outputs[0], expected, rtol=1e-4, atol=1e-5)


def test_starts_as_torchvision_does():
    """Kernels N(0, 2 / fan_out), scales 1, fc uniform within 1 / sqrt(fan_in)."""
    model = ResNet18(num_classes=100, width=32, stem="small", stage_sizes=(1,))
    params = jax.jit(lambda k: model.init(k, jnp.zeros((1, 8, 8, 3)), train=False))(
        jax.random.key(0)
    )["params"]
    block = params["layer1_0"]
    # fan_out = 9 * 32 = 288; 9,216 draws, so the spread's relative error is 0.7 %.
    std = float(jnp.std(block["conv1"]["kernel"]))
    assert std == pytest.approx(np.sqrt(2 / 288), rel=0.04)
    assert np.all(np.asarray(block["bn2"]["scale"]) == 1)
    bound = 1 / np.sqrt(32)
    assert 0.95 * bound < float(jnp.max(jnp.abs(params["fc"]["kernel"]))) <= bound


def test_zero_init_last_bn_starts_blocks_as_their_shortcut():
    """With the last scales at 0, the convolutions of a block do not matter."""
    model = ResNet18(num_classes=3, width=4, stem="small", stage_sizes=(1,), zero_init_last_bn=True)
    image = jax.random.normal(jax.random.key(1), (2, 5, 5, 3))
    variables = model.init(jax.random.key(0), image, train=False)
    apply = jax.jit(lambda v: model.apply(v, image, train=False))
    other = jax.tree_util.tree_map_with_path(
        lambda path, p: 2 * p if "layer1_0" in str(path) and "conv" in str(path) else p, variables
    )
    assert not np.array_equal(
        variables["params"]["layer1_0"]["conv1"]["kernel"],
        other["params"]["layer1_0"]["conv1"]["kernel"],
    )
    np.testing.assert_array_equal(apply(variables), apply(other))


def test_running_statistics_move_by_the_momentum():
    """new = momentum * old + (1 - momentum) * batch, from old mean 0 and variance 1."""
    model = ResNet18(num_classes=2, width=2, stem="small", stage_sizes=(), bn_momentum=0.75)
    image = np.random.default_rng(0).normal(size=(4, 3, 3, 1)).astype(np.float32)
    variables = model.init(jax.random.key(0), image, train=False)
    _, updated = model.apply(variables, image, train=True, mutable=["batch_stats"])
    kernel = variables["params"]["conv1"]["kernel"]
    y = np.stack([convolve(x, kernel, 1, 1) for x in image])
    stats = updated["batch_stats"]["bn1"]
    np.testing.assert_allclose(stats["mean"], 0.25 * y.mean((0, 1, 2)), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(stats["var"], 0.75 + 0.25 * y.var((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize("train", [False, True])
def test_bfloat16_keeps_parameters_statistics_and_logits_float32(train):
    model = ResNet18(num_classes=10, dtype=jnp.bfloat16)
    outputs, variables = shapes(model, (2, 64, 64, 3), train=train)
    assert outputs.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    # ... while the convolutions are done in bfloat16.
    jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=False))(
        variables, jnp.zeros((2, 64, 64, 3))
    )
    convs = [e for e in _equations(jaxpr.jaxpr) if e.primitive.name == "conv_general_dilated"]
    assert len(convs) == 20  # conv1, 8 blocks of two, 3 downsamplings
    assert {e.outvars[0].aval.dtype for e in convs} == {jnp.dtype("bfloat16")}


def _equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            if hasattr(value, "jaxpr"):
                yield from _equations(value.jaxpr)


def test_unknown_stem_names_the_nearest():
    with pytest.raises(ValueError, match=r"got 'imagnet'; did you mean 'imagenet'\?"):
        ResNet18(10, stem="imagnet")


def test_hashable_with_stage_sizes_from_a_list():
    """Modules are static arguments of jit."""
    assert hash(ResNet18(10, stage_sizes=[1, 1])) == hash(ResNet18(10, stage_sizes=(1, 1)))
