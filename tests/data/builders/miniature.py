"""Miniature raw data in the formats of the originals, from generated or real pictures."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clipjax.data import load, prepare, splits

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def shared(name):
    """Return a folder of recorded real data, or skip the test."""
    folder = SHARED / name
    if not folder.exists():
        pytest.skip(f"needs the real data in {folder}")
    return folder


def pixels(seed, height=12, width=16, channels=3):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(array, kind="PNG", mode=None, **options):
    """Return the bytes of a picture; `mode` converts it first."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    file = io.BytesIO()
    (image if mode is None else image.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def palette(classes):
    """Return a mask as VOC's: a PNG whose palette's indices are classes."""
    image = Image.fromarray(classes.astype(np.uint8), mode=None).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    return encode(image)


def decode(encoded, mode="RGB"):
    with Image.open(io.BytesIO(encoded)) as image:
        return np.asarray(image.convert(mode))


def write_tar(path, files, mode="w"):
    """Write {name: bytes} as a tar; return its bytes where `path` is None."""
    buffer = io.BytesIO()
    with tarfile.open(path, mode, fileobj=None if path else buffer) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def write_folder(path, files):
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)


def prepared(name, tmp_path, raw_dir, **options):
    """Prepare raw data; return {split: {id: record}} and the lengths of the splits."""
    data_dir = tmp_path / "prepared"
    prepare(name, data_dir, raw_dir=raw_dir, **({"verify": False} | options))
    found = {}
    for split in splits(name, data_dir):
        source = load(name, split, data_dir)
        ids = [record["id"].decode() for record in source.records]
        found[split] = {key: source[i] for i, key in enumerate(ids)}
        assert len(found[split]) == len(source)  # no id twice
    return found
