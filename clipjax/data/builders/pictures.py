"""Pictures and masks as they are stored: checked, and converted where they are unusual."""

import io
from typing import IO, Any

import numpy as np

from clipjax.data.builders.archives import BadExample

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VOID = 255
"""The label of pixels that belong to no class."""

_PNG_BIT_DEPTH = 24
"""The byte of a PNG that says how many bits a channel has."""


def stored_picture(encoded: bytes, where: str) -> bytes:
    """Check that a picture can be decoded to its end, and return what is stored of it.

    JPEGs and PNGs of 8 bits, in colour or grey, are stored as they are (grey ones become colour
    when they are decoded). Everything else is stored as RGB PNG: CMYK by Pillow's conversion, of
    16 bits the upper 8, palettes as their colours, transparency dropped, other formats decoded.

    Args:
        encoded: the bytes of the file.
        where: how messages name it.

    Raises:
        BadExample: If the picture is cut, damaged or none.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            kind, mode, size = image.format, image.mode, image.size
            bits = encoded[_PNG_BIT_DEPTH] if kind == "PNG" else 8
            if kind in ("JPEG", "PNG") and mode in ("RGB", "L") and bits == 8:
                _check_decodes(encoded, min(size))
                return encoded
            if mode.startswith("I"):
                pixels = np.array(image)
                if pixels.max(initial=0) >= 2**16 or pixels.min(initial=0) < 0:
                    raise ValueError("more than 16 bits a pixel")
                converted = Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")
            else:
                converted = image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises on damaged files
        raise BadExample(f"{where} is not a readable picture: {error}") from error
    assert converted.size == size
    return png(converted)


def stored_mask(encoded: bytes, num_classes: int, where: str) -> bytes:
    """Check a mask and return it as a grey PNG whose values are classes.

    Args:
        encoded: a PNG with a palette (its indices are classes) or in grey.
        num_classes: classes are 0 ... num_classes - 1, and 255 is void.
        where: how messages name it.

    Raises:
        BadExample: If it cannot be read, is in colour, or has a class that there is not.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            mode, classes = image.mode, np.array(image)
    except (OSError, SyntaxError) as error:
        raise BadExample(f"{where} is not a readable mask: {error}") from error
    if classes.ndim != 2:
        raise BadExample(
            f"{where} is a picture of Pillow's mode {mode!r}; a mask has one number a pixel: a PNG "
            "with a palette, or grey"
        )
    wrong = (classes.astype(np.int64) >= num_classes) & (classes != VOID)
    if wrong.any():
        values, counts = np.unique(classes[wrong], return_counts=True)
        raise BadExample(
            f"{where} has class {values[0]} ({counts[0]} pixels; {len(values)} such classes), "
            f"expected 0 ... {num_classes - 1}, or {VOID} for void"
        )
    return png(Image.fromarray(classes.astype(np.uint8)))


def size(encoded: bytes | IO[bytes]) -> tuple[int, int]:
    """Return height and width, from the head of a file or of its bytes."""
    from PIL import Image

    with Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded) as image:
        return image.height, image.width


def png(image: Any) -> bytes:
    """Encode a Pillow image."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def png_of(pixels: np.ndarray) -> bytes:
    """Encode uint8 (height, width), (height, width, 1) or (height, width, 3)."""
    from PIL import Image

    return png(Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels))


def _check_decodes(encoded: bytes, side: int) -> None:
    """Decode at an eighth of the size: every byte is read, little is computed."""
    import cv2

    flags = cv2.IMREAD_REDUCED_COLOR_8 if side >= 8 else cv2.IMREAD_COLOR
    pixels = np.frombuffer(encoded, np.uint8)
    try:
        decoded = cv2.imdecode(pixels, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ValueError(str(error)) from error
    if decoded is None:
        raise ValueError("the file is cut or damaged")
