"""Your own pictures for segmentation, laid out as PASCAL VOC's.

    JPEGImages/ID.jpg                       pictures (or .png)
    SegmentationClass/ID.png                masks: a palette's indices (or grey); 255 is void
    ImageSets/Segmentation/SPLIT.txt        an ID a line, for each split (train, val, test, ...)
    classes.txt                             a name a line, for classes 0, 1, ...

in a folder, a tar or a zip.
"""

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import tensorflow_datasets as tfds

from clipjax.data.builders.archives import BadExample, Members
from clipjax.data.builders.pictures import size, stored_mask, stored_picture
from clipjax.data.builders.raw import RawBuilder

LISTS = "ImageSets/Segmentation/"

Pair = tuple[str, str, str]
"""The id of an example, and the names of its picture and of its mask."""


def segmentation_features(classes: Sequence[str]) -> tfds.features.FeaturesDict:
    """Return what a record holds: pictures and masks of any size."""
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, 3)),
            "label": tfds.features.LabeledImage(
                labels=list(classes), shape=(None, None, 1), encoding_format="png"
            ),
        }
    )


def read_ids(members: Members, name: str) -> list[str]:
    """Return the ids of a list: the first word of each line."""
    return [line.split()[0] for line in members.text(name).splitlines() if line.strip()]


def pairs(
    members: Members,
    prefix: str,
    ids: Sequence[str],
    listed_in: str,
    masks: str = "SegmentationClass",
) -> list[Pair]:
    """Find the picture and the mask of each id.

    Raises:
        BadExample: If one is not there; the message says in which list it stands.
    """
    known = set(members.names)
    found = []
    for name in ids:
        pictures = [f"{prefix}JPEGImages/{name}{suffix}" for suffix in (".jpg", ".jpeg", ".png")]
        picture = next((path for path in pictures if path in known), None)
        mask = f"{prefix}{masks}/{name}.png"
        for path in (picture or pictures[0], mask):
            if path not in known:
                listed = f"{members.where(listed_in)} lists {name!r}"
                raise BadExample(f"{listed}, but there is no {members.where(path)}")
        assert picture is not None  # or it was missing above
        found.append((name, picture, mask))
    return found


def segmentation_examples(
    builder: RawBuilder, members: Members, split: str, found: Sequence[Pair], num_classes: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the examples of these pairs of files."""

    def make(pair: Pair) -> dict[str, Any]:
        name, picture, mask = pair
        image = stored_picture(members.read(picture), members.where(picture))
        label = stored_mask(members.read(mask), num_classes, members.where(mask))
        if size(image) != size(label):
            raise BadExample(
                f"{members.where(mask)} is {size(label)} pixels high and wide, its picture "
                f"{members.where(picture)} {size(image)}"
            )
        return {"id": name, "image": image, "label": label}

    return builder.examples(split, found, make)


class SegmentationFolder(RawBuilder):
    """Your own pictures and masks."""

    name = "segmentation_folder"
    NEEDS = (
        "JPEGImages/ID.jpg, SegmentationClass/ID.png, ImageSets/Segmentation/{train,val}.txt and "
        "classes.txt with a name a line"
    )

    def _info(self) -> tfds.core.DatasetInfo:
        members = self._members = self.open(self.folder())
        roots = [name for name in members.names if PurePosixPath(name).name == "classes.txt"]
        if not roots:
            raise self.missing("classes.txt")
        listed = min(roots, key=len)
        self._prefix = listed.removesuffix("classes.txt")
        lines = members.text(listed).splitlines()
        self._classes = [line.strip() for line in lines if line.strip()]
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures and masks in PASCAL VOC's layout.",
            features=segmentation_features(self._classes),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing to download
        members, prefix = self._members, self._prefix
        lists = members.under(f"{prefix}{LISTS}", (".txt",))
        if not lists:
            raise self.missing(f"{LISTS}train.txt")
        return {
            PurePosixPath(name).stem: segmentation_examples(
                self,
                members,
                PurePosixPath(name).stem,
                pairs(members, prefix, read_ids(members, name), name),
                len(self._classes),
            )
            for name in lists
        }
