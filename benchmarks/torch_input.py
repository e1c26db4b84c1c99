"""PyTorch's side of benchmarks/input.py: a DataLoader over the same encoded files.

Runs under a Python that has torch and Pillow (OpenCV, if there, is measured too) and nothing of
ours; only tests import it without torch. Reads requests from standard input, one JSON object a
line, and answers each by one line. The transformations are torchvision's, written out with what
they call: Pillow's crop, resize and transpose, or the same by OpenCV. Batches are uint8, as ours.
"""

import json
import math
import random
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

try:
    import cv2

    # As is usual with a DataLoader, whose processes share the cores.
    cv2.setNumThreads(0)
except ImportError:
    cv2 = None

VOID = 255


class ByPillow:
    """Pictures are Pillow's."""

    @staticmethod
    def read(path, mode):
        with Image.open(path) as image:
            return image.convert(mode) if image.mode != mode else image.copy()

    @staticmethod
    def made_of(array):
        return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)

    @staticmethod
    def size(image):
        return image.height, image.width

    @staticmethod
    def crop(image, top, left, height, width):
        return image.crop((left, top, left + width, top + height))

    @staticmethod
    def resize(image, height, width, nearest=False):
        method = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
        return image.resize((width, height), method)

    @staticmethod
    def pad(image, top, left, bottom, right, fill):
        return ImageOps.expand(image, (left, top, right, bottom), fill)

    @staticmethod
    def flip(image):
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)

    @staticmethod
    def rotate(image, turns):
        turn = Image.Transpose
        return image.transpose((turn.ROTATE_90, turn.ROTATE_180, turn.ROTATE_270)[turns - 1])

    @staticmethod
    def array(image):
        return np.array(image)


class ByOpenCV:
    """Pictures are arrays."""

    @staticmethod
    def read(path, mode):
        flags = cv2.IMREAD_UNCHANGED if mode == "L" else cv2.IMREAD_COLOR_RGB
        return cv2.imread(str(path), flags)

    @staticmethod
    def made_of(array):
        return array

    @staticmethod
    def size(image):
        return image.shape[:2]

    @staticmethod
    def crop(image, top, left, height, width):
        return image[top : top + height, left : left + width]

    @staticmethod
    def resize(image, height, width, nearest=False):
        shrinks = height <= image.shape[0] and width <= image.shape[1]
        smooth = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        method = cv2.INTER_NEAREST if nearest else smooth
        return cv2.resize(image, (width, height), interpolation=method)

    @staticmethod
    def pad(image, top, left, bottom, right, fill):
        value = (fill,) * 4
        return cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=value)

    @staticmethod
    def flip(image):
        return cv2.flip(image, 1)

    @staticmethod
    def rotate(image, turns):
        return np.ascontiguousarray(np.rot90(image, turns))

    @staticmethod
    def array(image):
        return np.ascontiguousarray(image)


def window(height, width, area=(0.08, 1.0), ratio=(3 / 4, 4 / 3)):
    """Return top, left, height, width, as torchvision's RandomResizedCrop.get_params."""
    for _ in range(10):
        share = height * width * random.uniform(*area)
        shape = math.exp(random.uniform(*map(math.log, ratio)))
        columns, rows = round(math.sqrt(share * shape)), round(math.sqrt(share / shape))
        if 0 < columns <= width and 0 < rows <= height:
            top, left = random.randint(0, height - rows), random.randint(0, width - columns)
            return top, left, rows, columns
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


class Pictures:
    """One of the pipelines, a data set to a DataLoader; `case` is what benchmarks/input.py asks."""

    def __init__(self, case):
        self.by = {"pillow": ByPillow, "opencv": ByOpenCV}[case["library"]]
        self.get = getattr(self, case["task"])
        self.case, self.crop = case, case["crop"]
        self.folder = Path(case["folder"])
        self.labels = json.loads((self.folder / "labels.json").read_text())
        kept = self.folder / "images.npy"  # of small pictures, kept in memory
        self.images = np.load(kept) if kept.exists() else None

    def __len__(self):
        return self.case["records"]

    def __getitem__(self, index):
        return {key: self.by.array(image) for key, image in self.get(index).items()} | (
            {"label": self.labels[index]} if self.labels else {}
        )

    def path(self, index, key):
        return self.folder / f"{index:06d}.{key}"

    def classification(self, index):
        image = self.by.read(self.path(index, "image"), "RGB")
        image = self.by.crop(image, *window(*self.by.size(image)))
        image = self.by.resize(image, self.crop, self.crop)
        return {"image": self.by.flip(image) if random.random() < 0.5 else image}

    def small(self, index):
        padding, flips = self.case["padding"], self.case["flips"]
        image = self.by.made_of(self.images[index])
        size = self.by.size(image)
        image = self.by.pad(image, *(padding,) * 4, 0)
        image = self.by.crop(image, *(random.randint(0, 2 * padding) for _ in range(2)), *size)
        if flips and random.random() < 0.5:
            image = self.by.flip(image)
        return {"image": self.by.array(image).reshape(self.images.shape[1:])}

    def segmentation(self, index):
        image = self.by.read(self.path(index, "image"), "RGB")
        mask = self.by.read(self.path(index, "label"), "L")
        factor = random.uniform(0.5, 2.0)
        height, width = (round(factor * side) for side in self.by.size(image))
        image = self.by.resize(image, height, width)
        mask = self.by.resize(mask, height, width, nearest=True)
        below, right = max(0, self.crop - height), max(0, self.crop - width)
        if below or right:
            image = self.by.pad(image, 0, 0, below, right, 0)
            mask = self.by.pad(mask, 0, 0, below, right, VOID)
        top = random.randint(0, height + below - self.crop)
        left = random.randint(0, width + right - self.crop)
        pair = [self.by.crop(p, top, left, self.crop, self.crop) for p in (image, mask)]
        if random.random() < 0.5:
            pair = [self.by.flip(p) for p in pair]
        return dict(zip(("image", "label"), pair, strict=True))

    def super_resolution(self, index):
        pair = [self.by.read(self.path(index, key), "RGB") for key in ("image", "target")]
        height, width = self.by.size(pair[0])
        scale = self.by.size(pair[1])[0] // height
        top, left = (random.randint(0, side - self.crop) for side in (height, width))
        pair = [
            self.by.crop(p, s * top, s * left, s * self.crop, s * self.crop)
            for p, s in zip(pair, (1, scale), strict=True)
        ]
        if random.random() < 0.5:
            pair = [self.by.flip(p) for p in pair]
        if turns := random.randrange(4):
            pair = [self.by.rotate(p, turns) for p in pair]
        return dict(zip(("image", "target"), pair, strict=True))


def measure(case):
    """Return images and seconds of a stretch of training, and the shapes of a batch."""
    from torch.utils.data import DataLoader, RandomSampler

    dataset, size = Pictures(case), case["batch_size"]
    endless = RandomSampler(dataset, replacement=True, num_samples=2**40)
    batches = iter(DataLoader(dataset, size, sampler=endless, num_workers=case["workers"]))
    shapes = {key: list(value.shape) for key, value in next(batches).items()}
    for _ in range(case["warm"]):
        next(batches)
    count, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < case["seconds"]:
        next(batches)
        count += size
    return {"images": count, "seconds": elapsed, "shapes": shapes}


def main():
    """Answer each line of standard input by one of standard output."""
    import torch

    libraries = {"pillow": Image.__version__} | ({"opencv": cv2.__version__} if cv2 else {})
    print(json.dumps({"torch": torch.__version__, "libraries": libraries}), flush=True)
    for line in sys.stdin:
        print(json.dumps(measure(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
