"""What all builders share."""

import pathlib
import sys

from clipjax.data.builders.base import DatasetBuilder


def test_a_builder_knows_its_file_without_importlib_resources(monkeypatch):
    """TFDS looks for it with that package, and fails with words about it where there is none."""
    monkeypatch.setitem(sys.modules, "importlib_resources", None)

    class Mine(DatasetBuilder):
        EMBEDDED = True

    assert pathlib.Path(Mine.code_path) == pathlib.Path(__file__)
