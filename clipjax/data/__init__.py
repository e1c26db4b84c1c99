"""Data: TFDS builders of our own, prepared into ArrayRecord, and batches of them; never JAX."""

from clipjax.data.augment import Augment, aligned_crop, compose, dihedral, flip, pad_crop
from clipjax.data.builders.photographs import credits
from clipjax.data.pipeline import Pipeline
from clipjax.data.sources import (
    DatasetNotPrepared,
    Source,
    UnreadableRecord,
    default_data_dir,
    load,
    prepare,
    splits,
)

__all__ = [
    "Augment",
    "DatasetNotPrepared",
    "Pipeline",
    "Source",
    "UnreadableRecord",
    "aligned_crop",
    "compose",
    "credits",
    "default_data_dir",
    "dihedral",
    "flip",
    "load",
    "pad_crop",
    "prepare",
    "splits",
]
