"""VGG-16 weights: every format gives the same network, and every array is accounted for."""

import pickle
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax.models import FCN32s, VGG16Features
from clipjax.models import pretrained as weights
from tests.models.reference import convolve, pool, shapes

NEEDED = "needs pip install 'clipjax[pretrained]'"
h5py = pytest.importorskip("h5py", reason=NEEDED)
safetensors = pytest.importorskip("safetensors.numpy", reason=NEEDED)

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "vgg16"
# torchvision's vgg16().features: convolution, ReLU, ..., pooling; printed by torchvision.
TORCH = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]


@pytest.fixture(scope="module")
def keras():
    """The trunk of VGG-16 with random numbers, named and laid out as in Keras."""
    rng = np.random.default_rng(0)
    layers = {}
    channels = 3
    for name in weights.TRUNK:
        features = 64 * 2 ** min(int(name[5]) - 1, 3)
        layers[f"{name}/kernel"] = rng.normal(size=(3, 3, channels, features)).astype(np.float32)
        layers[f"{name}/bias"] = rng.normal(size=features).astype(np.float32)
        channels = features
    return layers


@pytest.fixture
def head(monkeypatch):
    """The fully connected layers of a VGG-16 that is 24 wide there, in place of 4096."""
    monkeypatch.setattr(weights, "FC_WIDTH", 24)
    rng = np.random.default_rng(1)
    layers = {}
    for name, rows in (("fc1", 7 * 7 * 512), ("fc2", 24)):
        layers[f"{name}/kernel"] = rng.normal(size=(rows, 24)).astype(np.float32)
        layers[f"{name}/bias"] = rng.normal(size=24).astype(np.float32)
    return layers


def as_torch(layers):
    """The same as a state_dict: OIHW, rows of fc6 over channels first."""
    state = {}
    for name, number in zip(weights.TRUNK, TORCH, strict=True):
        state[f"features.{number}.weight"] = layers[f"{name}/kernel"].transpose(3, 2, 0, 1)
        state[f"features.{number}.bias"] = layers[f"{name}/bias"]
    for name, number in (("fc1", 0), ("fc2", 3)):
        if f"{name}/kernel" in layers:
            kernel = layers[f"{name}/kernel"]
            if name == "fc1":
                kernel = (
                    kernel.reshape(7, 7, 512, -1).transpose(2, 0, 1, 3).reshape(7 * 7 * 512, -1)
                )
            state[f"classifier.{number}.weight"] = kernel.T
            state[f"classifier.{number}.bias"] = layers[f"{name}/bias"]
    return {name: np.ascontiguousarray(array) for name, array in state.items()}


def write_npz(path, layers):
    np.savez(path.with_suffix(".npz"), **layers)
    return path.with_suffix(".npz")


def write_safetensors(path, layers):
    safetensors.save_file(layers, path.with_suffix(".safetensors"))
    return path.with_suffix(".safetensors")


def write_torch(path, layers):
    return write_safetensors(path, as_torch(layers))


def write_h5(path, layers, form):
    """As keras.applications ships them, as save_weights writes them, or inside a whole model."""
    path = path.with_suffix(".h5")
    with h5py.File(path, "w") as file:
        for name, array in layers.items():
            layer, kind = name.split("/")
            letter = {"kernel": "W", "bias": "b"}[kind]
            file[
                {
                    "shipped": f"{layer}/{layer}_{letter}_1:0",
                    "saved": f"{layer}/{layer}/{kind}:0",
                    "model": f"model_weights/{layer}/{layer}/{kind}:0",
                }[form]
            ] = array
        if form == "model":
            file["optimizer_weights/block1_conv1/momentum:0"] = np.zeros((3, 3, 3, 64))
        for empty in ("block1_pool", "input_1"):  # layers without weights
            file.create_group(empty)
    return path


FORMATS = {
    "npz": write_npz,
    "safetensors": write_safetensors,
    "h5 shipped": lambda p, layers: write_h5(p, layers, "shipped"),
    "h5 saved": lambda p, layers: write_h5(p, layers, "saved"),
    "h5 model": lambda p, layers: write_h5(p, layers, "model"),
}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_layers(tmp_path, keras, form):
    found = weights.load_vgg16(FORMATS[form](tmp_path / "vgg16", keras))
    assert found.origin == "caffe"
    assert set(found.layers) == set(weights.TRUNK)
    for name in weights.TRUNK:
        kernel = keras[f"{name}/kernel"]
        # The first kernel is turned round: it was for BGR, and ours get RGB.
        expected = kernel[:, :, ::-1] if name == "block1_conv1" else kernel
        np.testing.assert_array_equal(found.layers[name]["kernel"], expected)
        np.testing.assert_array_equal(found.layers[name]["bias"], keras[f"{name}/bias"])
    assert "fc6, fc7 are not in the file and start at random" in found.describe()


def test_torch_names_and_layouts(tmp_path, keras):
    found = weights.load_vgg16(write_torch(tmp_path / "vgg16", keras))
    assert found.origin == "torch"
    for name in weights.TRUNK:
        np.testing.assert_array_equal(found.layers[name]["kernel"], keras[f"{name}/kernel"])
    assert (found.mean, found.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("form", ["keras", "torch"])
def test_fully_connected_layers_become_the_convolutions_they_equal(tmp_path, keras, head, form):
    write = write_torch if form == "torch" else write_safetensors
    classifier = "classifier.6.weight" if form == "torch" else "predictions/kernel"
    layers = {**keras, **head}
    path = write(tmp_path / "vgg16", layers)
    held = safetensors.load_file(path) | {classifier: np.zeros((1000, 4), np.float32)}
    safetensors.save_file(held, path)
    found = weights.load_vgg16(path, require="all")
    assert found.dropped == (classifier,)
    assert "dropped" in found.describe()
    # On a 7 x 7 map the convolution must be the product with the flattened map: (7, 7, 512) is how
    # Keras flattens it.
    feature_map = np.random.default_rng(1).normal(size=(7, 7, 512)).astype(np.float32)
    expected = feature_map.reshape(-1) @ head["fc1/kernel"]
    got = np.tensordot(feature_map, found.layers["fc6"]["kernel"], 3)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)
    np.testing.assert_array_equal(found.layers["fc7"]["kernel"][0, 0], head["fc2/kernel"])
    params = shapes(FCN32s(21, fc_width=24), (1, 64, 64, 3))[1]["params"]
    assert sorted(weights.fit(found, params, "all")) == ["fc6", "fc7", "vgg16"]
    # A narrower head cannot take them: left at random, or refused.
    narrow = shapes(FCN32s(21, fc_width=16), (1, 64, 64, 3))[1]["params"]
    assert sorted(weights.fit(found, narrow, "trunk")) == ["vgg16"]
    with pytest.raises(ValueError, match=r"fc6's kernel is \(7, 7, 512, 24\) in .*512, 16\)"):
        weights.fit(found, narrow, "all")


def written_out_features(path, image, stages):
    """The trunk on BGR less its mean, with the file's own kernels, in float64."""
    layers = np.load(path)
    x = image[..., ::-1].astype(np.float64) - np.array([103.939, 116.779, 123.68])
    for block, convs in enumerate((2, 2, 3, 3, 3)[:stages], start=1):
        for conv in range(1, convs + 1):
            name = f"block{block}_conv{conv}"
            x = convolve(x, layers[f"{name}/kernel"], 1, 1) + layers[f"{name}/bias"]
            x = np.maximum(x, 0)
        x = pool(x, 2, 2, 0)
    return x


@pytest.fixture(scope="module")
def real():
    path = SHARED / "vgg16_imagenet_conv_fp16.npz"
    if not path.exists():
        pytest.skip(f"needs the real weights in {SHARED}")
    return path


def test_features_of_a_known_image(real):
    """Real weights, a real image, our network and preprocessing against a written-out one."""
    from skimage.data import astronaut

    from clipjax.tasks import Segmentation

    image = np.asarray(astronaut()[:128:4, 150:278:4])  # her face, 32 x 32
    found = weights.load_vgg16(real)
    model = VGG16Features()
    params = {name: layer for name, layer in found.layers.items()}
    task = Segmentation(21, found.mean, found.std)
    x = task.inputs({"image": jnp.asarray(image[None])})
    got = jax.jit(lambda p, x: model.apply({"params": p}, x, train=False))(params, x)[0]
    expected = written_out_features(real, image, 5)
    assert got.shape == (1, 1, 512)
    assert (expected > 0).sum() > 20  # the features say something
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=2e-3 * expected.max())


def test_the_origin_decides_what_images_become(real):
    """What the published preprocessing does to a pixel, for each origin."""
    rgb = np.array([200.0, 100.0, 50.0])
    for origin, expected in {
        "caffe": [200 - 123.68, 100 - 116.779, 50 - 103.939],
        "torch": [
            (200 / 255 - 0.485) / 0.229,
            (100 / 255 - 0.456) / 0.224,
            (50 / 255 - 0.406) / 0.225,
        ],
    }.items():
        found = weights.load_vgg16(real, origin=origin)
        np.testing.assert_allclose((rgb / 255 - found.mean) / found.std, expected, rtol=1e-12)
    # Keras's own kernel is for BGR: only if it is told to be torch's, it is not turned round.
    first = np.load(real)["block1_conv1/kernel"].astype(np.float32)
    np.testing.assert_array_equal(found.layers["block1_conv1"]["kernel"], first)


@pytest.mark.parametrize("stages", [3, 5])
def test_fit_gives_the_branches_of_the_model(tmp_path, keras, stages):
    found = weights.load_vgg16(write_npz(tmp_path / "vgg16", keras))
    params = shapes(FCN32s(11, fc_width=8, pool_stages=stages), (1, 32, 32, 3))[1]["params"]
    fitted = weights.fit(found, params, "trunk")
    assert list(fitted) == ["vgg16"]
    assert set(fitted["vgg16"]) == set(params["vgg16"])
    assert jax.tree.map(lambda leaf: leaf.shape, fitted["vgg16"]) == jax.tree.map(
        lambda leaf: leaf.shape, dict(params["vgg16"])
    )
    with pytest.raises(ValueError, match="has no fc6, and require is 'all'"):
        weights.fit(found, params, "all")
    narrow = shapes(FCN32s(11, width=8, fc_width=8), (1, 32, 32, 3))[1]["params"]
    with pytest.raises(
        ValueError, match=r"block1_conv1's kernel is \(3, 3, 3, 64\) in .*3, 3, 8\)"
    ):
        weights.fit(found, narrow, "trunk")
    normed = shapes(FCN32s(11, fc_width=8, batch_norm=True), (1, 32, 32, 3))[1]["params"]
    with pytest.raises(ValueError, match="has no block1_bn1, which the model's trunk has"):
        weights.fit(found, normed, "trunk")
    with pytest.raises(ValueError, match="need a model on VGG-16; this one has"):
        weights.fit(found, {"conv1": {}}, "trunk")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block3_conv2/bias": None}, "has no bias of block3_conv2, which require='trunk' needs"),
        ({"block3_conv2/kernel": None}, "has no kernel of block3_conv2"),
        ({"block6_conv1/kernel": np.zeros(3)}, r"arrays that VGG-16 .* has not: block6_conv1/"),
        ({"step": np.zeros(())}, r"has not: step \(\)"),
        ({"block2_conv1/bias": np.zeros(64)}, r"block2_conv1's bias is \(64,\), expected \(128,\)"),
        ({"block2_conv1/bias": np.full(128, np.nan)}, "block2_conv1/bias has values that are not"),
        ({"block2_conv1/bias": np.zeros(128, int)}, "block2_conv1/bias is of dtype int64, exp"),
        ({"other/block2_conv1/bias": np.zeros(128)}, "has two arrays for block2_conv1's bias"),
    ],
    ids=["bias", "kernel", "surplus", "scalar", "shape", "nan", "integers", "twice"],
)  # fmt: skip
def test_missing_surplus_and_wrong_arrays_are_named(tmp_path, keras, change, message):
    layers = {name: array for name, array in (keras | change).items() if array is not None}
    path = write_npz(tmp_path / "vgg16", layers)
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}.*{message}"):
        weights.load_vgg16(path)


def test_all_means_all(tmp_path, keras):
    path = write_npz(tmp_path / "vgg16", keras)
    with pytest.raises(
        ValueError, match="has no kernel of fc6, which require='all' needs; it has bl"
    ):
        weights.load_vgg16(path, require="all")


def test_half_a_layer_is_an_error_even_if_it_is_not_needed(tmp_path, keras, head):
    del head["fc1/bias"]
    with pytest.raises(ValueError, match="has no bias of fc6"):
        weights.load_vgg16(write_npz(tmp_path / "vgg16", {**keras, **head}))


def test_batch_normalised_weights_are_refused(tmp_path, keras):
    state = as_torch(keras) | {"features.1.running_mean": np.zeros(64, np.float32)}
    path = write_safetensors(tmp_path / "vgg16_bn", state)
    with pytest.raises(
        ValueError, match=r"without batch normalisation\) has not: features\.1\.run"
    ):
        weights.load_vgg16(path)


class Evil:
    def __reduce__(self):
        return print, ("a stranger's code has run",)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".pkl", ".npz"])
def test_pickles_are_never_loaded(tmp_path, suffix, capsys):
    path = tmp_path / f"vgg16{suffix}"
    path.write_bytes(pickle.dumps(Evil()))
    message = "cannot be read" if suffix == ".npz" else "is a pickle, which can run any code"
    with pytest.raises(ValueError, match=message):
        weights.load_vgg16(path)
    np.savez(tmp_path / "objects.npz", a=np.array([Evil()], dtype=object))
    with pytest.raises(ValueError, match=r"objects\.npz cannot be read: Object arrays"):
        weights.load_vgg16(tmp_path / "objects.npz")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("suffix", [".h5", ".safetensors", ".npz"])
def test_damaged_files_are_named(tmp_path, suffix):
    path = tmp_path / f"vgg16{suffix}"
    path.write_bytes(b"not what it says it is")
    with pytest.raises(ValueError, match=rf"vgg16\{suffix} cannot be read"):
        weights.load_vgg16(path)


def test_what_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no nowhere\.npz\. Keras's"):
        weights.load_vgg16("nowhere.npz")
    (tmp_path / "vgg16.onnx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"weights are read from \.npz, .* not '\.onnx'"):
        weights.load_vgg16(tmp_path / "vgg16.onnx")
    with pytest.raises(ValueError, match=r"require must be one of .* did you mean 'trunk'"):
        weights.load_vgg16(tmp_path / "vgg16.onnx", require="trunc")
