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
from clipjax.data.builders.pictures import VOID, size
from clipjax.data.builders.raw import UPRIGHT, RawBuilder, checked_names

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
    """Return the ids of a list: the first word of each line.

    Raises:
        ValueError: If an id stands there twice; the message names the lines.
    """
    lines: dict[str, int] = {}
    for number, line in enumerate(members.text(name).splitlines(), 1):
        if not line.strip():
            continue
        found = line.split()[0]
        if found in lines:
            raise ValueError(
                f"{members.where(name)}: {found!r} is listed twice, in line {lines[found]} and in "
                f"line {number}; delete one"
            )
        lines[found] = number
    return list(lines)


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
        image = builder.picture(members, picture)
        label = builder.mask(members, mask, num_classes)
        if size(image) != size(label):
            raise BadExample(
                f"{members.where(mask)} is {size(label)} pixels high and wide, its picture "
                f"{members.where(picture)} {size(image)}, both upright as their EXIF data asks"
            )
        return {"id": name, "image": image, "label": label}

    return builder.examples(split, found, make)


class SegmentationFolder(RawBuilder):
    """Your own pictures and masks."""

    name = "segmentation_folder"
    VERSION = UPRIGHT
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
        named = [line.strip() for line in lines if line.strip()]
        self._classes = checked_names(named, members.where(listed))
        if len(named) > VOID:
            raise ValueError(
                f"{members.where(listed)}: it names {len(named)} classes; a mask has at most {VOID}"
                f" (0 ... {VOID - 1}), as {VOID} is void"
            )
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures and masks in PASCAL VOC's layout.",
            features=segmentation_features(self._classes),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing to download
        members, prefix = self._members, self._prefix
        lists = members.under(f"{prefix}{LISTS}", (".txt",))
        splits = [PurePosixPath(name).stem for name in lists]
        if "train" not in splits:
            there = f" (there is {', '.join(f'{split}.txt' for split in splits)})" if splits else ""
            raise self.missing(f"{prefix}{LISTS}train.txt{there}")
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
