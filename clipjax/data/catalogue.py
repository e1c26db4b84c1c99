"""Which data sets there are, who builds them, and in which folder they lie.

`clipjax.data.preparing` builds them, `clipjax.data.sources` opens them.
"""

import difflib
import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BUILDERS: Mapping[str, str] = {
    "digits": "clipjax.data.builders.digits:Digits",
    "digit_scenes": "clipjax.data.builders.digit_scenes:DigitScenes",
    "photos_x4": "clipjax.data.builders.photos_x4:PhotosX4",
    "imagenet100": "clipjax.data.builders.imagenet100:Imagenet100",
    "voc2012_segmentation": "clipjax.data.builders.voc2012_segmentation:Voc2012Segmentation",
    "div2k_x4": "clipjax.data.builders.div2k_x4:Div2kX4",
    "cifar10": "clipjax.data.builders.cifar:Cifar10",
    "cifar100": "clipjax.data.builders.cifar:Cifar100",
    "mnist": "clipjax.data.builders.mnist:Mnist",
    "fashion_mnist": "clipjax.data.builders.mnist:FashionMnist",
    "tiny_imagenet": "clipjax.data.builders.tiny_imagenet:TinyImagenet",
    "image_folder": "clipjax.data.builders.image_folder:ImageFolder",
    "segmentation_folder": "clipjax.data.builders.segmentation_folder:SegmentationFolder",
    "super_resolution_folder": (
        "clipjax.data.builders.super_resolution_folder:SuperResolutionFolder"
    ),
}
"""Where the builder of each data set is: `module:class`."""

NAMED = ("image_folder", "segmentation_folder", "super_resolution_folder")
"""Data of the user's: of each there may be several, as `image_folder/flowers`."""

LONGEST_NAME = 60
"""Letters of a name of the user's: file systems take 255 bytes, and files are called after it."""


def default_data_dir() -> Path:
    """Return the folder of the prepared data sets.

    `$CLIPJAX_DATA_DIR` where it is set, else `clipjax/data` in the user's cache (`$XDG_CACHE_HOME`,
    by default `~/.cache`).

    Examples:
        >>> default_data_dir().is_absolute()
        True
    """
    if chosen := os.environ.get("CLIPJAX_DATA_DIR"):
        return Path(chosen).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "clipjax" / "data"


def is_ours(name: object) -> bool:
    """Return whether a name is that of a data set of ours, or of one of that kind."""
    return isinstance(name, str) and name.partition("/")[0] in BUILDERS


def builder_class(name: str) -> Any:
    """Return the class that builds a data set.

    Raises:
        ValueError: there is no such data set; the nearest name is given.
    """
    if not isinstance(name, str):
        raise ValueError(f"the name of a data set is {name!r}; expected text such as 'digits'")
    base, _, own = name.partition("/")
    own_is_fine = base in NAMED and own.replace("_", "a").isalnum() and len(own) <= LONGEST_NAME
    if base not in BUILDERS or ("/" in name and not own_is_fine):
        raise ValueError(
            f"there is no data set {name!r}{nearest(name, BUILDERS)}; known are {sorted(BUILDERS)}"
            f", and {', '.join(f'{kind}/NAME' for kind in NAMED)} (NAME of letters, digits and _, "
            f"at most {LONGEST_NAME})"
        )
    module, _, attribute = BUILDERS[base].partition(":")
    return getattr(importlib.import_module(module), attribute)


def nearest(name: object, known: Sequence[str] | Mapping[str, Any]) -> str:
    """Return what a message adds about an unknown name; "" where none is near."""
    match = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    return f" (did you mean {match[0]!r}?)" if match else ""


def root_folder(data_dir: str | Path | None) -> Path:
    """Return the folder of the prepared data sets; `default_data_dir()` for None.

    Raises:
        TypeError, ValueError: it is no path, or one that ArrayRecord cannot open.
    """
    root = default_data_dir() if data_dir is None else check_folder("data_dir", data_dir)
    if str(root).encode("utf-8", "ignore").decode() != str(root):
        raise ValueError(
            f"data_dir is {str(root)!r}, which is not UTF-8: ArrayRecord opens no such path; "
            "choose another folder, or rename that part of it"
        )
    return root


def check_folder(argument: str, value: str | Path) -> Path:
    """Return a folder's absolute path.

    Raises:
        TypeError, ValueError: it is none; the message names the argument.
    """
    if not isinstance(value, str | Path):
        raise TypeError(f"{argument} is {value!r}; expected the path of a folder")
    if not str(value).strip() or "\0" in str(value):
        raise ValueError(f"{argument} is {str(value)!r}; expected the path of a folder")
    return Path(value).expanduser().absolute()
