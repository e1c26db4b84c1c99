"""Random access to TFRecord files without TensorFlow, so that data prepared by its users is read.

A TFRecord is  uint64 length | uint32 checksum of the length | data | uint32 checksum of the data,
little-endian, one after the other. Opening a file reads the lengths alone, which gives the place of
every record; their checksums (CRC-32C, masked) show at once where a file is cut or is none. The
data's own checksums are not looked at: pure Python would need longer for them than for decoding.
"""

import bisect
import itertools
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_HEADER = struct.Struct("<QI")
_FOOTER_BYTES = 4


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc32c_table()


def masked_crc32c(data: bytes) -> int:
    """Return TFRecord's checksum: rotate_right(CRC-32C, 15) + 0xa282ead8, modulo 2^32.

    For the few bytes of a length; slow for much more.

    Examples:
        >>> hex(masked_crc32c(b"123456789") - 0xA282EAD8 & 0xFFFFFFFF)  # the CRC is 0xe3069283
        '0x2507c60d'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record_places(path: str | os.PathLike) -> list[tuple[int, int]]:
    """Return the offset and the length of the data of each record.

    Args:
        path: a TFRecord file, not compressed.

    Raises:
        ValueError: If the file is cut, damaged or no TFRecord; the message names it.
    """
    places = []
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        position = 0
        while position < size:
            header = file.read(_HEADER.size)
            whole = len(header) == _HEADER.size
            length, checksum = _HEADER.unpack(header) if whole else (0, 0)
            end = position + _HEADER.size + length + _FOOTER_BYTES
            if not whole or masked_crc32c(header[:8]) != checksum or end > size:
                raise ValueError(
                    f"{path} is cut, damaged or no TFRecord file: record {len(places)} at byte "
                    f"{position} of {size} cannot be read; prepare or copy the data set again"
                )
            places.append((position + _HEADER.size, length))
            position = end
            file.seek(position)
    return places


class TfRecords(Sequence[Any]):
    """The records of several TFRecord files, in order, by number.

    Args:
        parts: (file, first record, how many records) of each part of a split.
        parse: what makes an example of a record's bytes.
    """

    def __init__(
        self, parts: Sequence[tuple[str, int, int]], parse: Callable[[bytes], Any]
    ) -> None:
        self._parse = parse
        self._files = [Path(path) for path, _, _ in parts]
        self._places = []
        for path, skip, take in parts:
            places = record_places(path)[skip : skip + take]
            if len(places) < take:
                raise ValueError(
                    f"{path} holds fewer records than its dataset_info.json says; prepare or copy "
                    "the data set again"
                )
            self._places.append(places)
        self._ends = list(itertools.accumulate(map(len, self._places)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        part = bisect.bisect_right(self._ends, index)
        first = self._ends[part - 1] if part else 0
        offset, length = self._places[part][index - first]
        with self._files[part].open("rb") as file:
            file.seek(offset)
            return self._parse(file.read(length))
