"""What every builder of ours is."""

import inspect
from collections.abc import Iterable
from typing import Any

import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.proto import tf_example_pb2

_EXAMPLE: Any = vars(tf_example_pb2)["Example"]  # made at import, which type checkers cannot see


def canonical(record: bytes) -> bytes:
    """Serialise a `tf.train.Example` with its features in alphabetical order.

    Protobuf writes them in the order of Python's string hashes, which differs from process to
    process.

    Examples:
        >>> pair = _EXAMPLE()
        >>> for key in ("b", "a"):
        ...     pair.features.feature[key].int64_list.value.append(1)
        >>> canonical(pair.SerializeToString()).index(b"a") < canonical(
        ...     pair.SerializeToString()).index(b"b")
        True
    """
    return _EXAMPLE.FromString(record).SerializeToString(deterministic=True)


class _CanonicalWriter(tfds.core.ExampleWriter):
    """TFDS's writer of shards, for files that are the same bytes whoever prepares them."""

    def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
        return super().write(path, ((key, canonical(record)) for key, record in examples))


class DatasetBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder that is known to clipjax only, not to TFDS's global register of names."""

    EMBEDDED: bool
    """Whether the raw data ships inside installed packages, so that anyone can prepare it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(skip_registration=True, **kwargs)
        # TFDS's own way to find this needs importlib_resources, which it does not depend on.
        cls.code_path = epath.Path(inspect.getfile(cls))

    def _example_writer(self) -> tfds.core.ExampleWriter:
        return _CanonicalWriter(super()._example_writer().file_format)
