"""Your own pictures for classification: SPLIT/CLASS/picture, in a folder, a tar or a zip."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from clipjax.data.builders.archives import Members
from clipjax.data.builders.pictures import SUFFIXES
from clipjax.data.builders.raw import UPRIGHT, MissingRawData, RawBuilder, checked_names

SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
"""What folders of splits may be called, and what the splits are called."""

Found = tuple[list[str], list[tuple[str, int]]]
"""Names of the classes; (name of a file, its class)."""


def check_split_folders(members: Members, names: Iterable[str]) -> None:
    """Refuse a folder whose name is a split's but for a slip: it would be left out silently.

    Raises:
        ValueError: If there is one; the message says which name is near.
    """
    for folder in sorted({name.partition("/")[0] for name in names if "/" in name}):
        near = difflib.get_close_matches(folder.lower(), SPLIT_NAMES, n=1, cutoff=0.75)
        if folder not in SPLIT_NAMES and near:
            raise ValueError(
                f"{members.path} has a folder {folder!r}, which is no split (did you mean "
                f"{near[0]!r}?); expected {', '.join(SPLIT_NAMES)}. Rename it, or move it elsewhere"
            )


def folder_splits(members: Members, missing: MissingRawData) -> dict[str, Found]:
    """Find SPLIT/CLASS/**/picture, for every split that is there; classes sorted by name.

    Raises:
        MissingRawData: `missing`, if there is no training picture.
        ValueError: If another split has a class that training has not, or a folder is called
            almost as a split is.
    """
    check_split_folders(members, members.under("", SUFFIXES))
    found: dict[str, list[tuple[str, str]]] = {}
    for name in members.under("", SUFFIXES):
        folder, _, rest = name.partition("/")
        if folder in SPLIT_NAMES and "/" in rest:
            found.setdefault(SPLIT_NAMES[folder], []).append((name, rest.partition("/")[0]))
    if "train" not in found:
        raise missing
    classes = sorted({label for _, label in found["train"]})
    checked_names(classes, members.where("train"))
    numbers = {label: number for number, label in enumerate(classes)}
    for split, pictures in found.items():
        for name, label in pictures:
            if label not in numbers:
                raise ValueError(
                    f"{members.where(name)}: split {split!r} has a class {label!r} that train has "
                    "not; the classes are the folders in train"
                )
    return {
        split: (classes, [(name, numbers[label]) for name, label in pictures])
        for split, pictures in found.items()
    }


def folder_examples(
    builder: RawBuilder,
    members: Members,
    split: str,
    classes: Sequence[str],
    pictures: Sequence[tuple[str, int]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the examples of a split that `folder_splits` found."""
    del classes

    def make(item: tuple[str, int]) -> dict[str, Any]:
        name, label = item
        return {"id": name, "image": builder.picture(members, name), "label": label}

    return builder.examples(split, pictures, make)


class ImageFolder(RawBuilder):
    """Your own pictures, a folder for each class."""

    name = "image_folder"
    VERSION = UPRIGHT
    NEEDS = "train/CLASS/* and validation/CLASS/* or test/CLASS/* (jpg, png, bmp, webp, tif)"

    def _info(self) -> tfds.core.DatasetInfo:
        members = self.open(self.folder())
        self._splits = folder_splits(members, self.missing("train/CLASS/picture"))
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures from folders, one for each class.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=self._splits["train"][0]),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing to download
        members = self._opened[0]
        return {
            split: folder_examples(self, members, split, *found)
            for split, found in self._splits.items()
        }
