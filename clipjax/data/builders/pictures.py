"""Pictures and masks as they are stored: checked, upright, and converted where they are unusual.

Telephones write photographs as their sensor lies and say in EXIF which side is up. Networks know
nothing of EXIF, and masks are drawn on the upright picture; so what is stored is upright.
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from clipjax.data.builders.archives import BadExample
from clipjax.data.records import decode_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
VOID = 255
"""The label of pixels that belong to no class."""

_PNG_BIT_DEPTH = 24
"""The byte of a PNG that says how many bits a channel has."""

_ORIENTATION = 0x0112
"""EXIF's tag."""

_PNG_MARKS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""One of these is in a PNG that has EXIF or XMP data; looking for them is faster than decoding."""


class Stored(NamedTuple):
    """What is stored of a picture, and the EXIF orientation it had (1: it was upright)."""

    encoded: bytes
    orientation: int = 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror a picture as EXIF's orientation asks, so that it is seen upright.

    Args:
        pixels: (height, width, ...), as stored in the file.
        orientation: 1 ... 8; 1 leaves it, 2 mirrors it, 3 turns it by 180 degrees, 6 by 90 degrees
            to the right, 8 to the left; 4, 5 and 7 are 2 after 3, 6 and 8 (CIPA DC-008, 4.6.4).

    Returns:
        The same pixels, height and width exchanged for 5 to 8.

    Examples:
        >>> upright(np.array([[1, 2, 3]]), 6).tolist()
        [[1], [2], [3]]
        >>> upright(np.array([[1, 2, 3]]), 8).tolist()
        [[3], [2], [1]]
    """
    quarter_turns = {3: 2, 4: 2, 5: -1, 6: -1, 7: 1, 8: 1}.get(orientation, 0)
    turned = np.rot90(pixels, quarter_turns)
    return turned[:, ::-1] if orientation in (2, 4, 5, 7) else turned


def stored_picture(encoded: bytes, where: str) -> Stored:
    """Check that a picture can be decoded to its end, and return what is stored of it.

    Upright JPEGs and PNGs of 8 bits, in colour or grey, are stored as they are (grey ones become
    colour when they are decoded). Those that EXIF (or XMP) says to turn are decoded, turned and
    stored as RGB PNG, which loses nothing but takes more room than a JPEG. Everything else is
    stored as upright RGB PNG: CMYK by Pillow's conversion, of 16 bits the upper 8, palettes as
    their colours, transparency dropped, other formats decoded. A damaged EXIF block says nothing.

    Args:
        encoded: the bytes of the file.
        where: how messages name it.

    Raises:
        BadExample: If the picture is cut, damaged or none, or says that it has more pixels than
            Pillow decodes (179 million: a decompression bomb).
    """
    from PIL import Image

    with _readable(where, "picture"), Image.open(io.BytesIO(encoded)) as image:
        turn = _orientation(image, encoded)
        kind, mode = image.format, image.mode
        bits = encoded[_PNG_BIT_DEPTH] if kind == "PNG" else 8
        if kind in ("JPEG", "PNG") and mode in ("RGB", "L") and bits == 8:
            _check_decodes(encoded, min(image.size))
            if turn == 1:
                return Stored(encoded)
            pixels = decode_image(encoded, channels=3)
        elif mode.startswith("I"):
            deep = np.array(image)
            if deep.max(initial=0) >= 2**16 or deep.min(initial=0) < 0:
                raise ValueError("more than 16 bits a pixel")
            pixels = np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, axis=-1)
        else:
            pixels = np.array(image.convert("RGB"))
    # Pillow turns TIFFs by itself.
    return Stored(png_of(pixels if kind == "TIFF" else upright(pixels, turn)), turn)


def stored_mask(encoded: bytes, num_classes: int, where: str) -> Stored:
    """Check a mask and return it as an upright grey PNG whose values are classes.

    Args:
        encoded: a PNG with a palette (its indices are classes) or in grey.
        num_classes: classes are 0 ... num_classes - 1, and 255 is void.
        where: how messages name it.

    Raises:
        BadExample: If it cannot be read, is in colour, or has a class that there is not.
    """
    from PIL import Image

    with _readable(where, "mask"), Image.open(io.BytesIO(encoded)) as image:
        turn = _orientation(image, encoded)
        mode, classes = image.mode, np.array(image)
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
    return Stored(png_of(upright(classes.astype(np.uint8), turn)), turn)


def size(encoded: bytes) -> tuple[int, int]:
    """Return height and width of a picture once it is upright; nothing is decoded.

    Raises:
        BadExample: If the bytes are no picture.
    """
    from PIL import Image

    with _readable("a file", "picture"), Image.open(io.BytesIO(encoded)) as image:
        # Pillow has exchanged the sides of TIFFs already.
        lies = image.format != "TIFF" and _orientation(image, encoded) >= 5
        return (image.width, image.height) if lies else (image.height, image.width)


def png(image: Any) -> bytes:
    """Encode a Pillow image."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def png_of(pixels: np.ndarray) -> bytes:
    """Encode uint8 (height, width), (height, width, 1) or (height, width, 3)."""
    from PIL import Image

    flat = pixels[..., 0] if pixels.shape[2:] == (1,) else pixels
    return png(Image.fromarray(np.ascontiguousarray(flat)))


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


def _orientation(image: Any, encoded: bytes) -> int:
    """Return EXIF's orientation, 1 ... 8; 1 where there is none, or none that makes sense."""
    if image.format == "PNG" and not any(mark in encoded for mark in _PNG_MARKS):
        return 1
    try:
        found = image.getexif().get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # Pillow raises anything on a damaged EXIF block; viewers do without it
        return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


@contextlib.contextmanager
def _readable(where: str, what: str) -> Iterator[None]:
    """Turn what a damaged file makes Pillow and OpenCV raise into BadExample; warn of nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as of odd but harmless EXIF data
            yield
    except (BadExample, MemoryError):
        raise
    except Exception as error:  # Pillow raises anything on a damaged file
        raise BadExample(f"{where} is not a readable {what}: {error}") from error
