"""The photographs that `digit_scenes` and `photos_x4` are made of, and to whom they are owed.

They ship inside scikit-image and scikit-learn. Only photographs whose packages state what their
licence is are used (so not the stereo pair of a motorcycle). A file is checked against the hash
that it had when its licence was read. Training and test data come from different photographs.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from clipjax.data.builders.packages import require


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A photograph in an installed package.

    `reduction` is the factor by which it is made smaller before use: large ones are blurred at
    their full size.
    """

    # Where it is
    name: str
    module: str
    package: str
    file: str
    sha256: str
    # What it is owed
    title: str
    author: str
    licence: str
    source: str
    # How it is used
    test: bool = False
    reduction: int = 1


_SKIMAGE: dict[str, Any] = {"module": "skimage", "package": "scikit-image"}
_SKLEARN: dict[str, Any] = {"module": "sklearn.datasets", "package": "scikit-learn"}
_CC_BY = "CC BY 2.0, https://creativecommons.org/licenses/by/2.0/"

PHOTOGRAPHS = (
    Photograph(
        **_SKIMAGE,
        name="astronaut",
        file="data/astronaut.png",
        sha256="88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
        title="Eileen Collins",
        author="NASA",
        licence="public domain",
        source="https://flic.kr/p/r9qvLn",
    ),
    Photograph(
        **_SKIMAGE,
        name="camera",
        file="data/camera.png",
        sha256="b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
        title="Cameraman",
        author="Lav Varshney",
        licence="CC0",
        source="scikit-image, skimage.data.camera",
    ),
    Photograph(
        **_SKIMAGE,
        name="hubble_deep_field",
        file="data/hubble_deep_field.jpg",
        sha256="3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
        title="Hubble eXtreme Deep Field",
        author="NASA",
        licence="public domain",
        source="http://hubblesite.org/newscenter/archive/releases/2012/37/image/a/",
    ),
    Photograph(
        **_SKIMAGE,
        name="ihc",
        file="data/ihc.png",
        sha256="f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
        title="Colonic glands, immunohistochemical staining",
        author="Center for Microscopy and Molecular Imaging (CMMI)",
        licence="no known copyright restrictions",
        source="scikit-image, skimage.data.immunohistochemistry",
    ),
    Photograph(
        **_SKIMAGE,
        name="retina",
        file="data/retina.jpg",
        sha256="38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
        title="Fundus photograph of normal left eye",
        author="Mikael Häggström",
        licence="CC0",
        source="https://commons.wikimedia.org/wiki/File:Fundus_photograph_of_normal_left_eye.jpg",
        reduction=3,
    ),
    Photograph(
        **_SKIMAGE,
        name="rocket",
        file="data/rocket.jpg",
        sha256="c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
        title="Launch of DSCOVR on Falcon 9",
        author="SpaceX",
        licence="public domain",
        source="https://www.flickr.com/photos/spacexphotos/16511594820/",
    ),
    Photograph(
        **_SKLEARN,
        name="china",
        file="images/china.jpg",
        sha256="8378025ad2519d649d02e32bd98990db4ab572357d9f09841c2fbfbb4fefad29",
        title="Temple in China",
        author="danielbuechele",
        licence=_CC_BY,
        source="https://www.flickr.com/photos/danielbuechele/6061409035/",
    ),
    Photograph(
        **_SKIMAGE,
        name="coffee",
        file="data/coffee.png",
        sha256="cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
        title="Coffee cup, courtesy of Pikolo Espresso Bar",
        author="Rachel Michetti",
        licence="CC0",
        source="scikit-image, skimage.data.coffee",
        test=True,
    ),
    Photograph(
        **_SKIMAGE,
        name="chelsea",
        file="data/chelsea.png",
        sha256="596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
        title="Chelsea the cat",
        author="Stefan van der Walt",
        licence="CC0",
        source="scikit-image, skimage.data.chelsea",
        test=True,
    ),
    Photograph(
        **_SKLEARN,
        name="flower",
        file="images/flower.jpg",
        sha256="a77f6ec41e353afdf8bdff2ea981b2955535d8d83294f8cfa49cf4e423dd5638",
        title="Dahlia",
        author="vultilion (scikit-learn's README also names danielbuechele)",
        licence=_CC_BY,
        source="https://www.flickr.com/photos/vultilion/6056698931/",
        test=True,
    ),
)


def load_photographs(*, test: bool) -> dict[str, np.ndarray]:
    """Read the photographs of one side of the split.

    Args:
        test: whether those of the test split are wanted, or those of the training split.

    Returns:
        uint8 (height, width, 3) by name; grey ones have three equal channels.

    Raises:
        ImportError: If scikit-image or scikit-learn is not installed.
        ValueError: If a file is not there or not the one whose licence was read.
    """
    from PIL import Image

    pictures = {}
    for photograph in PHOTOGRAPHS:
        if photograph.test is test:
            with Image.open(_checked_file(photograph)) as image:
                reduced = image.convert("RGB").reduce(photograph.reduction)
            pictures[photograph.name] = np.asarray(reduced)
    return pictures


def credits() -> str:
    """Return one line for each photograph: title, author, licence, source.

    Examples:
        >>> print(credits().splitlines()[0])
        "Eileen Collins", NASA: public domain; https://flic.kr/p/r9qvLn (from scikit-image)
    """
    return "\n".join(
        f'"{p.title}", {p.author}: {p.licence}; {p.source} (from {p.package})' for p in PHOTOGRAPHS
    )


def _checked_file(photograph: Photograph) -> Path:
    folder = Path(str(require(photograph.module, photograph.package).__file__)).parent
    file = folder / photograph.file
    if not file.is_file():
        raise ValueError(
            f"{photograph.package} has no {photograph.file} (looked for {file}): this version no "
            "longer ships the photograph; install an older one"
        )
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != photograph.sha256:
        raise ValueError(
            f"{file} is not the photograph whose licence was checked: its SHA-256 is {found}, "
            f"expected {photograph.sha256}; install another version of {photograph.package}"
        )
    return file
