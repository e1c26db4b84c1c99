"""What training and evaluation see of a data set's pictures, by task and data set."""

from collections.abc import Callable

from clipjax import data
from experiments.setup import config

AUGMENTATIONS: dict[str, Callable[[], data.Augment]] = {
    "digits": lambda: data.pad_crop(1),
    # Mirrored or turned digits are no digits; scenes are augmented by being composed.
    "photos_x4": data.dihedral,
    "cifar10": lambda: data.compose(data.flip(), data.pad_crop(4)),
    "cifar100": lambda: data.compose(data.flip(), data.pad_crop(4)),
    "tiny_imagenet": lambda: data.compose(data.flip(), data.pad_crop(4)),
    "fashion_mnist": data.flip,
}
"""What is usual for a data set whose pictures have one size; none for those not listed."""

CROPS = {"classification": 224, "segmentation": 320, "super_resolution": 24}
"""Side of the training crops of pictures that differ in size; of the small image for the last."""

BUCKETS = {"segmentation": 128, "super_resolution": 64}
"""Whole pictures are evaluated padded to multiples of this: VOC's then have at most 16 sizes.

The networks are told how much of each is padding and keep it out: scores do not depend on this."""


def views(run: config.Run, *sources: data.Source) -> data.Views | None:
    """Return what is cut out of pictures that differ in size; None where all have one size.

    Classification: a random part of random shape, resized; evaluated in the middle, the shorter
    side 8/7 of the crop (256 for 224). Segmentation: a random crop at a random scale of 1/2 to 2;
    super-resolution: a random crop; both evaluated on whole pictures.
    """
    if not any(None in source.image_shape for source in sources):
        return None
    size = run.crop or CROPS[run.task]
    if run.task == "classification":
        middle = data.resize_center_crop(round(size * 8 / 7), size)
        return data.Views(data.random_resized_crop(size) if run.augment else middle, middle, middle)
    if run.task == "segmentation":
        middle = data.center_crop(size, pad=True)
        moving = data.random_scale_crop(size)
    else:
        middle, moving = data.center_crop(size), data.random_crop(size)
    return data.Views(moving if run.augment else middle, middle, BUCKETS[run.task])


def augment(run: config.Run, source: data.Source) -> data.Augment | None:
    """Return what is done to training batches: the data set's usual, or the task's.

    Where pictures differ in size they are mirrored, and for super-resolution turned too.
    """
    if not run.augment:
        return None
    if None in source.image_shape:
        return data.dihedral() if run.task == "super_resolution" else data.flip()
    make = AUGMENTATIONS.get(run.dataset)
    return make() if make else None


def held_out(splits: dict[str, int], dataset: str) -> str:
    """Return the split to evaluate on: the first there is of test, validation, val.

    Examples:
        >>> held_out({"train": 3, "trainval": 5, "val": 2}, "voc2012_segmentation")
        'val'
    """
    found = next((name for name in ("test", "validation", "val") if name in splits), None)
    if found is None:
        raise ValueError(
            f"data set {dataset!r} has the splits {sorted(splits)}: say which one to evaluate on "
            "(--evaluation-split)"
        )
    return found
