"""Which decoder: JPEGs to random crops of 224, Pillow beside OpenCV, one thread each.

python -m benchmarks.decoders --pictures FOLDER

FOLDER holds JPEGs in their original sizes. Both decode to the same pixels (checked first); Pillow
resizes with its antialiased bilinear filter, OpenCV by averaging areas. Rounds alternate, the time
is that of the thread (others may use the machine), and the fastest round of each counts.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from clipjax.data.records import decode_image
from clipjax.data.views import resize

SIZE = 224
ROUNDS = 9


def by_pillow(encoded: bytes) -> np.ndarray:
    """Decode by Pillow."""
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert("RGB"))


def by_opencv(encoded: bytes) -> np.ndarray:
    """Decode by OpenCV, as clipjax does."""
    return decode_image(encoded, 3)


def window(height: int, width: int) -> tuple[int, int, int, int]:
    """Return top, left, height, width of a part like those of training: half of the area."""
    return height // 7, width // 7, height * 5 // 7, width * 5 // 7


def crop_by_pillow(encoded: bytes) -> np.ndarray:
    """Decode and resize a part by Pillow."""
    with Image.open(io.BytesIO(encoded)) as image:
        top, left, height, width = window(image.height, image.width)
        box = (left, top, left + width, top + height)
        resized = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR, box)
        return np.asarray(resized)


def crop_by_opencv(encoded: bytes) -> np.ndarray:
    """Decode and resize a part by OpenCV, as clipjax does."""
    image = by_opencv(encoded)
    top, left, height, width = window(*image.shape[:2])
    return resize(image[top : top + height, left : left + width], SIZE, SIZE)


def main() -> None:
    """Print images per second of each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pictures", type=Path, required=True, help="a folder of JPEGs")
    folder = parser.parse_args().pictures
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".jpg", ".jpeg")]
    pictures = [path.read_bytes() for path in files]
    if not pictures:
        raise SystemExit(f"no JPEGs in {folder}")
    cv2.setNumThreads(1)
    same = sum(np.array_equal(by_pillow(p), by_opencv(p)) for p in pictures)
    print(f"{len(pictures)} pictures; Pillow and OpenCV decode {same} of them to the same pixels")
    functions: dict[str, Callable[[bytes], np.ndarray]] = {
        "Pillow, decode": by_pillow,
        "OpenCV, decode": by_opencv,
        "Pillow, decode and crop": crop_by_pillow,
        "OpenCV, decode and crop": crop_by_opencv,
    }
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(ROUNDS):
        for name, function in functions.items():
            began = time.thread_time()
            for picture in pictures:
                function(picture)
            best[name] = min(best[name], time.thread_time() - began)
    for name, seconds in best.items():
        print(f"{name:24s} {len(pictures) / seconds:7.0f} images/s")
    for what in ("decode", "decode and crop"):
        print(f"{what}: OpenCV {best[f'Pillow, {what}'] / best[f'OpenCV, {what}']:.2f} x as fast")


if __name__ == "__main__":
    main()
