"""VGG-16 weights of ImageNet, from files of others, as parameters of `FCN32s`.

Read are npz, safetensors and HDF5, which hold arrays and nothing else; pickles, which can run any
code, are not. Names and layouts are recognised as those of

    Keras     block1_conv1 ... block5_conv3 (HWIO), fc1, fc2, predictions
    torch     features.0 ... features.28 (OIHW), classifier.0, .3, .6 of torchvision

and every array of a file is accounted for: used, dropped and said so (the classifier of the 1000
classes), or an error. Weights belong to the images they were trained on. Keras's are Caffe's and
expect BGR on [0, 255] less a mean; torch's expect RGB on [0, 1], normalised. Either way `mean` and
`std` are what RGB images on [0, 1] are to be normalised by (the first kernel is turned round for
BGR), so that a task needs nothing else.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from clipjax.models._checks import check_choice

Origin: TypeAlias = Literal["caffe", "torch"]
Require: TypeAlias = Literal["trunk", "all"]

BLOCK_SIZES = (2, 2, 3, 3, 3)
TRUNK = tuple(
    f"block{block}_conv{conv}"
    for block, convs in enumerate(BLOCK_SIZES, start=1)
    for conv in range(1, convs + 1)
)
HEAD = ("fc6", "fc7")
"""The fully connected layers that become convolutions."""

FC_WIDTH = 4096

PREPROCESSING: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # 123.68, 116.779, 103.939: Simonyan & Zisserman's mean of red, green, blue on [0, 255].
    "caffe": ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255,) * 3),
    "torch": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Mean and standard deviation of RGB on [0, 1] that weights of each origin expect."""

_KERAS_DENSE = {"fc1": "fc6", "fc6": "fc6", "fc2": "fc7", "fc7": "fc7", "predictions": "fc8"}
_TORCH_CONVS: dict[int, str] = dict(
    zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), TRUNK, strict=True)
)
_TORCH_DENSE = {0: "fc6", 3: "fc7", 6: "fc8"}
_PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")

Layers = dict[str, dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True, eq=False)
class Pretrained:
    """VGG-16's layers as those of `FCN32s`, and how images are to be normalised for them."""

    path: Path
    origin: Origin
    layers: Layers
    """Layer -> `kernel` (HWIO) and `bias`, float32, for RGB."""
    dropped: tuple[str, ...]
    """Arrays of the file that have no place in `FCN32s`: the classifier."""

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the channels, RGB on [0, 1], to normalise images by."""
        return PREPROCESSING[self.origin][0]

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the channels, RGB on [0, 1], to normalise images by."""
        return PREPROCESSING[self.origin][1]

    def describe(self) -> str:
        """Return one line: what was loaded, what is missing, what was dropped."""
        missing = [name for name in HEAD if name not in self.layers]
        parts = [f"VGG-16 of {self.path} ({self.origin}): {len(self.layers)} layers"]
        if missing:
            parts.append(f"{', '.join(missing)} are not in the file and start at random")
        if self.dropped:
            parts.append(f"dropped {', '.join(self.dropped)}")
        return "; ".join(parts)


def load_vgg16(
    path: str | Path, *, require: Require = "trunk", origin: Origin | None = None
) -> Pretrained:
    """Load VGG-16 weights.

    Args:
        path: an .npz, .safetensors, .h5 or .hdf5 file.
        require: "trunk" is content with the convolutions; "all" needs fc6 and fc7 too.
        origin: what images the weights were trained on; None takes it from the names: Keras's
            mean "caffe", torch's "torch".

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is a pickle, or an array is missing, surplus, of another shape, or not
            finite; the message names it.
        ImportError: If the package that reads the format is not installed.
    """
    check_choice("require", require, ("trunk", "all"))
    check_choice("origin", origin, (None, *PREPROCESSING))
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}. Keras's vgg16_weights_tf_dim_ordering_tf_kernels.h5 serves, or "
            "torchvision's weights, saved by safetensors.torch.save_file(vgg16(...).state_dict())"
        )
    arrays = _read(path)
    torch = any(re.match(r"(features|classifier)\.\d", name) for name in arrays)
    layers: Layers = {}
    dropped, surplus = [], []
    for name, array in arrays.items():
        layer, kind = _torch_name(name) if torch else _keras_name(name, array)
        if layer == "fc8":
            dropped.append(name)
        elif layer is None:
            surplus.append(f"{name} {array.shape}")
        elif kind in layers.setdefault(layer, {}):
            raise ValueError(f"{path} has two arrays for {layer}'s {kind}; one of them is {name}")
        else:
            layers[layer][kind] = _checked(path, name, _layout(layer, kind, array, torch))
    if surplus:
        raise ValueError(
            f"{path} has arrays that VGG-16 (without batch normalisation) has not: "
            f"{', '.join(sorted(surplus)[:5])}" + (" ..." if len(surplus) > 5 else "")
        )
    found_origin: Origin = origin or ("torch" if torch else "caffe")
    _check_complete(path, layers, require)
    if found_origin == "caffe":
        first = layers[TRUNK[0]]
        first["kernel"] = np.ascontiguousarray(first["kernel"][:, :, ::-1])
    return Pretrained(path, found_origin, layers, tuple(sorted(dropped)))


def fit(pretrained: Pretrained, params: Mapping[str, Any], require: Require) -> dict[str, Any]:
    """Return the part of `FCN32s`'s parameters that weights stand for.

    Args:
        pretrained: the weights.
        params: the model's parameters, or their shapes; with `pool_stages` below 5 the first
            blocks are taken, and weights of the others are left.
        require: "trunk" leaves fc6 and fc7 as they are where the weights have none or the model's
            are of another size; "all" does not.

    Returns:
        A tree with some of the branches of `params`, float32.

    Raises:
        ValueError: If a layer of the model has no weights, or other shapes.
    """
    check_choice("require", require, ("trunk", "all"))
    if "vgg16" not in params:
        raise ValueError(f"VGG-16 weights need a model on VGG-16; this one has {sorted(params)}")
    fitted: dict[str, Any] = {"vgg16": {}}
    for name, layer in params["vgg16"].items():
        if name not in pretrained.layers:
            raise ValueError(f"{pretrained.path} has no {name}, which the model's trunk has")
        _check_shapes(pretrained, name, layer)
        fitted["vgg16"][name] = pretrained.layers[name]
    for name in HEAD:
        fits = name in pretrained.layers and all(
            pretrained.layers[name][kind].shape == leaf.shape for kind, leaf in params[name].items()
        )
        if fits:
            fitted[name] = pretrained.layers[name]
        elif require == "all":
            if name not in pretrained.layers:
                raise ValueError(f"{pretrained.path} has no {name}, and require is 'all'")
            _check_shapes(pretrained, name, params[name])
    return fitted


def _check_shapes(pretrained: Pretrained, name: str, layer: Mapping[str, Any]) -> None:
    for kind in ("kernel", "bias"):
        shape = pretrained.layers[name][kind].shape
        if shape != layer[kind].shape:
            raise ValueError(
                f"{name}'s {kind} is {shape} in {pretrained.path}, and {layer[kind].shape} in the "
                "model; take the published width"
            )


def _shape(layer: str, kind: str) -> tuple[int, ...]:
    """Return the published shape of an array, kernels as HWIO."""
    if layer in HEAD:
        size, inputs, outputs = (7, 512, FC_WIDTH) if layer == "fc6" else (1, FC_WIDTH, FC_WIDTH)
    else:
        block, conv = int(layer[5]), int(layer[-1])
        size, outputs = 3, 64 * 2 ** min(block - 1, 3)
        before = 64 * 2 ** min(block - 2, 3) if block > 1 else 3
        inputs = before if conv == 1 else outputs
    return (size, size, inputs, outputs) if kind == "kernel" else (outputs,)


def _keras_name(name: str, array: np.ndarray) -> tuple[str | None, str]:
    """Return our layer and the kind of array of a name such as 'block1_conv1/kernel:0'."""
    known = [part for part in re.split(r"[/.:]", name) if part in TRUNK or part in _KERAS_DENSE]
    if not known:
        return None, ""
    return _KERAS_DENSE.get(known[-1], known[-1]), "bias" if array.ndim == 1 else "kernel"


def _torch_name(name: str) -> tuple[str | None, str]:
    """Return our layer and the kind of array of a name such as 'features.0.weight'."""
    match = re.fullmatch(r"(features|classifier)\.(\d+)\.(weight|bias)", name)
    if match is None:
        return None, ""
    table = _TORCH_CONVS if match[1] == "features" else _TORCH_DENSE
    return table.get(int(match[2])), "kernel" if match[3] == "weight" else "bias"


def _layout(layer: str, kind: str, array: np.ndarray, torch: bool) -> np.ndarray:
    """Return an array as ours: HWIO; fully connected layers as the convolutions they equal.

    A row of fc6 runs over (7, 7, 512) in Keras and over (512, 7, 7) in torch.
    """
    if kind == "bias":
        return array
    if array.ndim == 2 and layer in HEAD:
        size, _, inputs, outputs = _shape(layer, kind)
        if array.size == math.prod(_shape(layer, kind)):
            if not torch:
                return array.reshape(size, size, inputs, outputs)
            array = array.reshape(outputs, inputs, size, size)
    return array.transpose(2, 3, 1, 0) if torch and array.ndim == 4 else array


def _checked(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{path}: {name} is of dtype {array.dtype}, expected floats")
    array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{path}: {name} has values that are not finite")
    return array


def _check_complete(path: Path, layers: Layers, require: Require) -> None:
    for layer in (*TRUNK, *HEAD):
        wanted = layer in TRUNK or require == "all" or layer in layers
        for kind in ("kernel", "bias") if wanted else ():
            array = layers.get(layer, {}).get(kind)
            if array is None:
                raise ValueError(
                    f"{path} has no {kind} of {layer}, which {'require=' + repr(require)} needs; "
                    f"it has {', '.join(sorted(layers)) or 'nothing of VGG-16'}"
                )
            if array.shape != _shape(layer, kind):
                raise ValueError(
                    f"{path}: {layer}'s {kind} is {array.shape}, expected {_shape(layer, kind)}"
                )


def _read(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name."""
    suffix = path.suffix.lower()
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    readers |= dict.fromkeys((".h5", ".hdf5"), _read_hdf5)
    if suffix in _PICKLES:
        raise ValueError(
            f"{path} is a pickle, which can run any code when it is loaded, so it is not. "
            "Where you trust it: safetensors.torch.save_file(torch.load(path), 'vgg16.safetensors')"
        )
    if suffix not in readers:
        raise ValueError(f"{path}: weights are read from {', '.join(readers)}, not {suffix!r}")
    return readers[suffix](path)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    package = _require("safetensors.numpy", "safetensors")
    try:
        return package.load_file(path)
    except Exception as error:  # its own kinds, and KeyError for dtypes that NumPy has not
        raise ValueError(f"{path} cannot be read: {error}") from error


def _read_hdf5(path: Path) -> dict[str, np.ndarray]:
    h5py = _require("h5py", "h5py")
    found: dict[str, np.ndarray] = {}

    def visit(name: str, item: Any) -> None:
        # Keras keeps the optimizer's moments beside the weights, in a group of their own.
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            found[name] = np.asarray(item)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    return found


def _require(module: str, package: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"reading this format needs {package}: pip install 'clipjax[pretrained]'"
        ) from error
