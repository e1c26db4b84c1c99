"""ImageNet-100: the first 100 WordNet ids of ILSVRC 2012, in alphabetical order.

Russakovsky et al. 2015, "ImageNet large scale visual recognition challenge". Some 129,000 pictures
to train on, 5,000 to validate. From the original archives or from what is in them:

    ILSVRC2012_img_train.tar        a tar for each class; or a folder train, WNID.tar or WNID/*.JPEG
    ILSVRC2012_img_val.tar          or a folder val with *.JPEG, or WNID/*.JPEG
    ILSVRC2012_devkit_t12.tar.gz    what the pictures of val show; where it is not there, the list
                                    that TFDS carries is used

Pictures of the other 900 classes are never read: the tars are walked by their heads.
"""

import importlib.resources
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import tensorflow_datasets as tfds

from clipjax.data.builders.archives import Members
from clipjax.data.builders.raw import UPRIGHT, RawBuilder

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
SUFFIXES = (".jpeg", ".jpg", ".png")

Item = tuple[Members, str, int]
"""Where a picture is, its name there, and its class."""


def class_ids() -> list[str]:
    """Return the first 100 WordNet ids of ILSVRC 2012.

    Examples:
        >>> len(class_ids()), class_ids()[0], class_ids()[-1]
        (100, 'n01440764', 'n01855672')
    """
    listed = importlib.resources.files("clipjax.data.builders") / "imagenet100_wnids.txt"
    return listed.read_text("utf-8").split()


class Imagenet100(RawBuilder):
    """The first 100 classes of ILSVRC 2012."""

    name = "imagenet100"
    VERSION = UPRIGHT
    SOURCE = "http://www.image-net.org/"
    PUBLIC = False  # after registration at image-net.org
    NEEDS = (
        f"{TRAIN} (or a folder train with WNID.tar or WNID/*.JPEG), {VAL} (or a folder val) and "
        f"{DEVKIT}; image-net.org gives them to those who register"
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            homepage="https://image-net.org/",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=class_ids()),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        numbers = {wnid: number for number, wnid in enumerate(class_ids())}
        train = self._train(dl_manager, numbers)
        return {
            "train": self.examples("train", train, self._make),
            "validation": self.examples("validation", self._val(dl_manager, numbers), self._make),
        }

    def _make(self, item: Item) -> dict[str, Any]:
        members, name, number = item
        image = self.picture(members, name)
        return {"id": PurePosixPath(name).name, "image": image, "label": number}

    def _train(self, dl_manager: Any, numbers: Mapping[str, int]) -> list[Item]:
        folder = self.find("train", "ILSVRC2012_img_train", "ILSVRC/Data/CLS-LOC/train")
        outer = None if folder else self.open(self.archive(dl_manager, TRAIN))
        by_class: dict[str, list[Item]] = {}
        for wnid, number in numbers.items():
            source = self._class(folder, outer, wnid)
            names = source.under("", SUFFIXES) if source else []
            by_class[wnid] = [(source, name, number) for name in names if source]
        if empty := [wnid for wnid, items in by_class.items() if not items]:
            raise self.missing(f"picture of {len(empty)} classes ({', '.join(empty[:5])} ...)")
        return [item for items in by_class.values() for item in items]

    def _class(self, folder: Path | None, outer: Members | None, wnid: str) -> Members | None:
        """Return the pictures of a class; None where there are none. Others are not looked at."""
        if folder is not None:
            found = (folder / wnid, folder / f"{wnid}.tar")
            path = next((path for path in found if path.exists()), None)
            return self.open(path) if path else None
        assert outer is not None  # one of the two is given
        name = f"{wnid}.tar"
        return self.open(outer.path / name, outer.open(name)) if name in outer.names else None

    def _val(self, dl_manager: Any, numbers: Mapping[str, int]) -> list[Item]:
        folder = self.find("val", "ILSVRC2012_img_val", "ILSVRC/Data/CLS-LOC/val")
        members = self.open(folder or self.archive(dl_manager, VAL))
        names = members.under("", SUFFIXES)
        sorted_by_class = any(PurePosixPath(name).parent.name in numbers for name in names)
        truth = None if sorted_by_class else self._truth()
        items = []
        for name in names:
            wnid = PurePosixPath(name).parent.name if truth is None else truth(name)
            if wnid in numbers:
                items.append((members, name, numbers[wnid]))
        return items

    def _truth(self) -> Callable[[str], str]:
        """Return the function from a file of val to its WordNet id."""
        found = self.find(DEVKIT, "ILSVRC2012_devkit_t12")
        if found is None:
            listed = importlib.resources.files("tensorflow_datasets") / (
                "datasets/imagenet2012/validation_labels.txt"
            )
            labels, source = listed.read_text("utf-8").split(), str(listed)
        else:
            labels, source = devkit_labels(self.open(found)), str(found)

        def wnid(name: str) -> str:
            match = re.search(r"_val_(\d+)", name)
            number = int(match[1]) if match else 0
            if not 1 <= number <= len(labels):
                raise ValueError(f"{source} has {len(labels)} labels, none for {name}")
            return labels[number - 1]

        return wnid


def devkit_labels(devkit: Members) -> list[str]:
    """Return the WordNet id of each validation picture, as the development kit states them.

    Its ground truth counts classes in an order of its own, which its meta.mat resolves.
    """
    from scipy.io import loadmat

    def content(name: str) -> bytes:
        found = [n for n in devkit.names if n.endswith(f"data/{name}")]
        if not found:
            raise ValueError(f"{devkit.path} has no data/{name}")
        return devkit.read(found[0])

    try:
        synsets = loadmat(io.BytesIO(content("meta.mat")), squeeze_me=True)["synsets"]
        by_number = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
        truth = content("ILSVRC2012_validation_ground_truth.txt").split()
        return [by_number[int(number)] for number in truth]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{devkit.path} has a data/meta.mat of another form: {error}") from error
