"""Data: TFDS builders of our own, prepared into ArrayRecord, and batches of them; never JAX."""

from clipjax.data.augment import Augment, aligned_crop, compose, dihedral, flip, pad_crop
from clipjax.data.builders.photographs import credits
from clipjax.data.libsvm import read_libsvm
from clipjax.data.pipeline import Pipeline, Views
from clipjax.data.sources import (
    DamagedDataset,
    DatasetNotPrepared,
    Source,
    UnreadableRecord,
    default_data_dir,
    is_prepared,
    load,
    prepare,
    splits,
)
from clipjax.data.views import (
    View,
    center_crop,
    random_crop,
    random_resized_crop,
    random_scale_crop,
    resize_center_crop,
)

__all__ = [
    "Augment",
    "DamagedDataset",
    "DatasetNotPrepared",
    "Pipeline",
    "Source",
    "UnreadableRecord",
    "View",
    "Views",
    "aligned_crop",
    "center_crop",
    "compose",
    "credits",
    "default_data_dir",
    "dihedral",
    "flip",
    "is_prepared",
    "load",
    "pad_crop",
    "prepare",
    "random_crop",
    "random_resized_crop",
    "random_scale_crop",
    "read_libsvm",
    "resize_center_crop",
    "splits",
]
