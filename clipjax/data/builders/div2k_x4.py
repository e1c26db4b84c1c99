"""DIV2K with bicubic quarter sizes: 800 photographs of two megapixels to train on, 100 to validate.

Agustsson & Timofte 2017, "NTIRE 2017 challenge on single image super-resolution: dataset and
study". From the four zips, or the folders that are in them. The training split holds tiles of 480
pixels (see super_resolution_folder.py); validation holds whole pictures.
"""

import re
from pathlib import PurePosixPath
from typing import Any

import tensorflow_datasets as tfds

from clipjax.data.builders.archives import BadExample, Members
from clipjax.data.builders.raw import UPRIGHT, RawBuilder
from clipjax.data.builders.super_resolution_folder import FEATURES, super_resolution_examples

PARTS = {"train": "train", "validation": "valid"}


class Div2kX4(RawBuilder):
    """DIV2K, bicubic x4."""

    name = "div2k_x4"
    VERSION = UPRIGHT
    SOURCE = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
    PUBLIC = True
    NEEDS = "DIV2K_{train,valid}_HR.zip and DIV2K_{train,valid}_LR_bicubic_X4.zip, or their folders"

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            homepage="https://data.vision.ee.ethz.ch/cvl/DIV2K/",
            features=tfds.features.FeaturesDict(FEATURES),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        made = {}
        for split, part in PARTS.items():
            targets = self._members(dl_manager, f"DIV2K_{part}_HR", f"DIV2K_{part}_HR.zip")
            images = self._members(
                dl_manager, f"DIV2K_{part}_LR_bicubic", f"DIV2K_{part}_LR_bicubic_X4.zip"
            )
            named = self._pairs(targets, images)
            made[split] = super_resolution_examples(
                self, split, targets, images, named, tiled=split == "train"
            )
        return made

    def _members(self, dl_manager: Any, folder: str, archive: str) -> Members:
        unpacked = self.find(folder, archive.removesuffix(".zip"))
        return self.open(unpacked or self.archive(dl_manager, archive))

    def _pairs(self, targets: Members, images: Members) -> list[tuple[str, str, str | None]]:
        low = {
            match[1]: name
            for name in images.under("", (".png",))
            if (match := re.fullmatch(r"(.+)x4", PurePosixPath(name).stem))
        }
        high = {PurePosixPath(name).stem: name for name in targets.under("", (".png",))}
        if not high:
            raise self.missing(f"*.png in {targets.path}")
        for name, members, others in ((high, targets, low), (low, images, high)):
            if lonely := sorted(set(name) - set(others)):
                raise BadExample(
                    f"{members.where(name[lonely[0]])} has no partner in "
                    f"{images.path if members is targets else targets.path} "
                    f"({len(lonely)} such pictures)"
                )
        return [(stem, high[stem], low[stem]) for stem in sorted(high)]
