"""Tiny ImageNet: 200 classes of ImageNet, 64 x 64; Stanford's CS231N.

From tiny-imagenet-200.zip, from what is in it, or from a folder, a tar or a zip with
train/WNID/*.JPEG and val/WNID/*.JPEG (which may hold fewer classes). There is no published SHA-256,
so it is not downloaded: http://cs231n.stanford.edu/tiny-imagenet-200.zip
"""

from pathlib import PurePosixPath
from typing import Any

import tensorflow_datasets as tfds

from clipjax.data.builders.archives import Members
from clipjax.data.builders.image_folder import Found, folder_examples
from clipjax.data.builders.pictures import SUFFIXES
from clipjax.data.builders.raw import UPRIGHT, RawBuilder

ROOT = "tiny-imagenet-200"
ANNOTATIONS = "val_annotations.txt"


class TinyImagenet(RawBuilder):
    """200 classes of ImageNet, 64 x 64."""

    name = "tiny_imagenet"
    VERSION = UPRIGHT
    NEEDS = (
        "tiny-imagenet-200.zip of http://cs231n.stanford.edu/tiny-imagenet-200.zip, what is in it, "
        "or train/WNID/*.JPEG and val/WNID/*.JPEG"
    )

    def _info(self) -> tfds.core.DatasetInfo:
        path = self.find(f"{ROOT}.zip", ROOT)
        if path is None:
            folder = self.folder()
            archives = [*folder.glob("*.zip"), *folder.glob("*.tar*")] if folder.is_dir() else []
            path = archives[0] if len(archives) == 1 and not (folder / "train").is_dir() else folder
        self._members = self.open(path)
        self._found = self._find(self._members)
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            homepage="http://cs231n.stanford.edu/",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(64, 64, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(names=self._found["train"][0]),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # no published checksum to download by
        return {
            split: folder_examples(self, self._members, split, *found)
            for split, found in self._found.items()
        }

    def _find(self, members: Members) -> dict[str, Found]:
        prefix = f"{ROOT}/" if any(name.startswith(f"{ROOT}/") for name in members.names) else ""
        labels: dict[str, dict[str, str]] = {"train": {}, "validation": {}}
        for name in members.under(f"{prefix}train/", SUFFIXES):
            labels["train"][name] = name.removeprefix(f"{prefix}train/").partition("/")[0]
        annotated = f"{prefix}val/{ANNOTATIONS}"
        by_file = {}
        if annotated in members.names:
            lines = members.text(annotated).splitlines()
            by_file = {line.split("\t")[0]: line.split("\t")[1] for line in lines if line.strip()}
        for name in members.under(f"{prefix}val/", SUFFIXES):
            inside = PurePosixPath(name.removeprefix(f"{prefix}val/"))
            label = by_file.get(inside.name) if annotated in members.names else inside.parts[0]
            if label is None:
                raise ValueError(f"{members.where(annotated)} does not say what {name} is")
            labels["validation"][name] = label
        classes = sorted(set(labels["train"].values()))
        if not classes or not labels["validation"]:
            raise self.missing("train/WNID/*.JPEG and val")
        if unknown := set(labels["validation"].values()) - set(classes):
            raise ValueError(
                f"{members.path}: val has classes that train has not: {sorted(unknown)[:5]}"
            )
        return {
            split: (classes, [(name, classes.index(label)) for name, label in found.items()])
            for split, found in labels.items()
        }
