"""MNIST and Fashion-MNIST from their four IDX files: 60,000 and 10,000 grey pictures, 28 x 28.

LeCun et al. 1998, "Gradient-based learning applied to document recognition"; Xiao et al. 2017,
"Fashion-MNIST: a novel image dataset for benchmarking machine learning algorithms".
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from clipjax.data.builders.archives import LARGEST_FILE
from clipjax.data.builders.pictures import png_of
from clipjax.data.builders.raw import RawBuilder

FILES = {"train": "train", "test": "t10k"}


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of bytes, gzipped or not.

    Two zeros, 8 (for uint8), the number of axes; the length of each as big-endian int32; the data.

    Raises:
        ValueError: If it is cut, damaged or of another kind; the message names it.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "a").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 2, 5, 7]))
        ...     read_idx(Path(folder, "a"))
        array([5, 7], dtype=uint8)
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        # MNIST has 47 MB; what is larger than the limit is none of it, and could fill the memory.
        with gzip.open(path) if packed else path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is cut or damaged: {error}") from error
    if len(content) > LARGEST_FILE:
        raise ValueError(f"{path} has more than {LARGEST_FILE:,} bytes, unpacked")
    if content[:3] != b"\0\0\x08" or len(content) < 4 + 4 * content[3]:
        raise ValueError(f"{path} is no IDX file of bytes: it begins with {content[:4]!r}")
    axes = content[3]
    shape = tuple(int(n) for n in np.frombuffer(content, ">i4", count=axes, offset=4))
    if len(content) != 4 + 4 * axes + math.prod(shape):
        raise ValueError(f"{path} is cut: {len(content)} bytes for an array of shape {shape}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


class Mnist(RawBuilder):
    """Handwritten digits."""

    name = "mnist"
    SOURCE = "https://storage.googleapis.com/cvdf-datasets/mnist/"
    PUBLIC = True
    NEEDS = "{train,t10k}-images-idx3-ubyte.gz and {train,t10k}-labels-idx1-ubyte.gz"
    CLASSES: tuple[str, ...] = tuple("0123456789")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(28, 28, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(self.CLASSES)),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {split: self._split(dl_manager, split) for split in FILES}

    def _split(self, dl_manager: tfds.download.DownloadManager, split: str) -> Any:
        names = f"{FILES[split]}-images-idx3-ubyte", f"{FILES[split]}-labels-idx1-ubyte"
        paths = [self.find(name) or self.archive(dl_manager, f"{name}.gz") for name in names]
        images, labels = map(read_idx, paths)
        if images.shape != (len(labels), 28, 28) or labels.max(initial=0) >= len(self.CLASSES):
            raise ValueError(
                f"{paths[0]} and {paths[1]} do not belong together: {images.shape} images, "
                f"{labels.shape} labels up to {labels.max(initial=0)}"
            )

        def make(index: int) -> dict[str, Any]:
            return {
                "id": f"{split} {index}",
                "image": png_of(images[index]),
                "label": int(labels[index]),
            }

        return self.examples(split, range(len(labels)), make)


class FashionMnist(Mnist):
    """Articles of clothing."""

    name = "fashion_mnist"
    SOURCE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    CLASSES = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )
