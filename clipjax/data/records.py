"""Records of a prepared data set, decoded: by number, or all at once where they fit in memory.

A record is a dict of NumPy arrays with the keys

    image   uint8 (height, width, channels)
    label   int32 (), or the class of every pixel, uint8 (height, width)
    target  uint8 (height, width, channels), the picture that super-resolution should give
"""

import dataclasses
import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

IN_MEMORY_BYTES = 2**30
"""A split that is no larger than this once decoded is decoded once and kept."""

BATCH_KEYS = ("image", "label", "target")


class DamagedDataset(ValueError):
    """A prepared data set is not what was written; the message names the file and the cure."""


class UnreadableRecord(DamagedDataset):
    """A record of a prepared data set cannot be read; the message names it."""


def decode_image(encoded: bytes, channels: int) -> np.ndarray:
    """Decode a PNG or JPEG.

    Colour pictures by OpenCV, the fastest decoder (results/decoders.txt): grey ones get three equal
    channels, transparency is dropped, of 16 bits the upper 8 are kept. One channel by Pillow, as a
    mask must keep its class numbers (OpenCV turns palettes into colours). EXIF's orientation is not
    followed: `prepare` stores pictures upright.

    Args:
        encoded: the bytes of the file.
        channels: 1 (grey, or a mask) or 3 (RGB).

    Returns:
        uint8 (height, width, channels).

    Raises:
        ValueError: If the bytes are no picture, are cut, or where one channel is expected and
            the picture has others.

    Examples:
        >>> from io import BytesIO
        >>> from PIL import Image
        >>> file = BytesIO()
        >>> Image.new("L", (3, 2), color=7).save(file, "PNG")
        >>> decode_image(file.getvalue(), channels=1)[..., 0]
        array([[7, 7, 7],
               [7, 7, 7]], dtype=uint8)
        >>> decode_image(file.getvalue(), channels=3)[0, 0].tolist()
        [7, 7, 7]
    """
    return _decode_one_channel(encoded) if channels == 1 else _decode_colour(encoded)


def _decode_colour(encoded: bytes) -> np.ndarray:
    import cv2

    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    reason = "cut, or no picture"
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags) if encoded else None
    except cv2.error as error:  # such as a size beyond its limits
        pixels, reason = None, str(error)
    if pixels is None:
        raise ValueError(f"not a readable picture ({len(encoded)} bytes; {reason})")
    return pixels


def _decode_one_channel(encoded: bytes) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            mode, pixels = image.mode, np.array(image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises anything on a damaged file
        raise ValueError(f"not a readable picture: {error}") from error
    if mode != "L":
        raise ValueError(f"a picture of Pillow's mode {mode!r}, where 'L' was expected")
    return pixels[..., None]


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """One split of a prepared data set, read by record number.

    Examples:
        >>> from clipjax.data import load
        >>> digits = load("digits", "test")
        >>> len(digits), digits.num_classes, digits.image_shape
        (360, 10, (8, 8, 1))
        >>> {key: value.shape for key, value in digits[0].items()}
        {'image': (8, 8, 1), 'label': ()}
    """

    name: str
    split: str
    num_classes: int
    """Classes of an example or of a pixel; 0 where there are none (super-resolution)."""
    image_shape: tuple[int | None, int | None, int]
    """Height, width, channels; None where pictures differ in size."""
    directory: Path
    records: Sequence[Mapping[str, Any]] = dataclasses.field(repr=False)
    """The records with their pictures still encoded, as TFDS reads them."""
    picture_shapes: Mapping[str, tuple[int | None, int | None, int]] = dataclasses.field(repr=False)
    """The shape of each key that is an encoded picture."""
    class_names: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    """Names of the classes, where the data set has them."""
    keys: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    """What our keys are called in the records, where they are called otherwise."""

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self}: record {index} of {len(self)}")
        return self._read([index])[0]

    @property
    def fits_in_memory(self) -> bool:
        """Whether the decoded split is at most `IN_MEMORY_BYTES`."""
        pixels = 0
        for height, width, channels in self.picture_shapes.values():
            if height is None or width is None:
                return False
            pixels += height * width * channels
        return len(self) * pixels <= IN_MEMORY_BYTES

    def in_memory(self) -> dict[str, np.ndarray]:
        """Return all records, decoded on the first call, stacked by key; not to be written to.

        Returns:
            Arrays whose leading axis is the record.

        Raises:
            UnreadableRecord: If a record is damaged.
        """
        return self._decoded

    def describe(self, index: int) -> str:
        """Return how messages name a record: data set, split, number and, where known, its id."""
        record = self._raw(index)
        name = next((_text(record[key]) for key in ("id", "file_name") if key in record), "")
        named = f" ({name!r})" if name else ""
        return f"data set {self.name!r}, split {self.split!r}, record {index}{named}"

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """Height and width of each record's `image`, int (records, 2), from the heads of the files.

        Raises:
            UnreadableRecord: If a record is damaged.
        """
        from PIL import Image

        key = self.keys.get("image", "image")
        found = []
        for index in range(len(self)):
            encoded = self._raw(index)[key]
            try:
                with Image.open(io.BytesIO(encoded)) as image:
                    found.append((image.height, image.width))
            except Exception as error:  # Pillow raises anything on a damaged file
                raise self._unreadable(index, "", error) from error
        return np.array(found, int).reshape(-1, 2)

    def take(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Return the records of these numbers, stacked by key.

        Args:
            indices: int (batch,), each in [0, len(self)).

        Returns:
            New arrays whose leading axis is `indices`.
        """
        if self.fits_in_memory:
            return {key: value[indices] for key, value in self._decoded.items()}
        return self._stack(self._read([int(i) for i in indices]))

    @functools.cached_property
    def _decoded(self) -> dict[str, np.ndarray]:
        arrays = self._stack(self._read(range(len(self))))
        for array in arrays.values():
            array.flags.writeable = False
        return arrays

    def _stack(self, records: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {key: np.stack([record[key] for record in records]) for key in records[0]}

    def _read(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        return [self._decode(index, self._raw(index)) for index in indices]

    def _raw(self, index: int) -> Mapping[str, Any]:
        try:
            return self.records[index]
        except (MemoryError, OSError):  # no damage: there is no memory, no permission, no disk
            raise
        except Exception as error:  # ArrayRecord, protobuf and TFDS raise anything on damage
            raise self._unreadable(index, "", error) from error

    def _decode(self, index: int, record: Mapping[str, Any]) -> dict[str, np.ndarray]:
        decoded = {}
        for key in BATCH_KEYS:
            stored = self.keys.get(key, key)
            if stored not in record:
                continue
            try:
                if key not in self.picture_shapes:
                    decoded[key] = np.int32(record[stored])
                    continue
                shape = self.picture_shapes[key]
                picture = decode_image(record[stored], shape[-1])
                if any(
                    want not in (None, got) for want, got in zip(shape, picture.shape, strict=True)
                ):
                    raise ValueError(f"a picture of shape {picture.shape}, expected {shape}")
            except (ValueError, TypeError, OverflowError) as error:
                name = _text(record.get("id", b""))
                raise self._unreadable(index, f" ({key!r} of {name!r})", error) from error
            decoded[key] = picture[..., 0] if key == "label" else picture
        return decoded

    def _unreadable(self, index: int, where: str, error: Exception) -> UnreadableRecord:
        return UnreadableRecord(
            f"data set {self.name!r}, split {self.split!r}, record {index} of {len(self)}{where}: "
            f"{error}. {remedy(self.name, self.directory)}"
        )


def how_to_prepare(name: str) -> str:
    """Return the line that prepares a data set."""
    return f"python -m experiments.prepare --dataset {name}"


def remedy(name: str, directory: Path) -> str:
    """Return what to do about a damaged data set, for messages."""
    return (
        f"The files are damaged: delete {directory} and prepare it again ({how_to_prepare(name)})"
    )


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
