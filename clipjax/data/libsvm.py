"""Read LIBSVM text files: `label column:value column:value ...`, columns numbered from 1."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LARGEST_DENSE = 2**30
"""Bytes that dense features may take; larger ones are read as a sparse array."""


class Examples(NamedTuple):
    """Features (m, n), dense float64 or a SciPy CSR array, and labels (m,), each -1 or +1."""

    features: Any
    labels: np.ndarray


def read_libsvm(path: Path, *, num_features: int | None = None, sparse: bool = False) -> Examples:
    r"""Return the examples of a LIBSVM file with two classes.

    Parsing is scikit-learn's; this function says which line is malformed and makes the two labels,
    whatever numbers they are, -1 (the smaller) and +1.

    Args:
        path: the file.
        num_features: n; None takes the largest column that occurs.
        sparse: return the features as a CSR array instead of a dense one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a malformed line (its number and text), a value that is not finite, a column
            beyond `num_features`, an empty file, other than two labels, or dense features beyond
            `LARGEST_DENSE`; nothing of that size is allocated first.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "tiny")
        >>> _ = file.write_text("2 1:0.5 3:-1\n1 2:4  # a comment\n")
        >>> read_libsvm(file).features.tolist(), read_libsvm(file).labels.tolist()
        ([[0.5, 0.0, -1.0], [0.0, 4.0, 0.0]], [1, -1])
    """
    if not isinstance(path, str | Path) or "\0" in str(path):
        raise ValueError(f"path is {path!r}; expected that of a LIBSVM file")
    path = Path(path)
    if num_features is not None and (type(num_features) is not int or num_features < 1):
        raise ValueError(f"num_features is {num_features!r}; expected an integer of at least 1")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected a LIBSVM file")
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"no LIBSVM file {path}") from None
    lines = text.splitlines()
    try:
        features, labels = _parse(text)
    except (ValueError, OverflowError) as error:
        raise _malformed(path, lines, error) from error
    if not len(labels):
        raise ValueError(f"{path} holds no examples")
    # The lines that hold an example, so that a row can be named by its line.
    numbers = [i for i, line in enumerate(lines, 1) if line.split(b"#")[0].strip()]
    bad = np.flatnonzero(~np.isfinite(features.data))
    rows = np.searchsorted(features.indptr, bad, side="right") - 1
    rows = np.union1d(rows, np.flatnonzero(~np.isfinite(labels)))
    if len(rows):
        raise _error(path, lines, numbers[int(rows[0])], "a number is not finite")
    widest = features.shape[1]
    if num_features is not None and widest > num_features:
        row = int(np.searchsorted(features.indptr, features.indices.argmax(), side="right") - 1)
        said = f"column {widest} is beyond num_features = {num_features}"
        raise _error(path, lines, numbers[row], said)
    found = np.unique(labels)
    if len(found) != 2:
        raise ValueError(f"{path} has {len(found)} different labels; expected 2 (two classes)")
    shape = (len(labels), num_features or widest)
    if not sparse and shape[0] * shape[1] * 8 > LARGEST_DENSE:
        raise ValueError(
            f"{path}: {shape[0]:,} examples of {shape[1]:,} columns take "
            f"{shape[0] * shape[1] * 8 / 2**30:,.1f} GiB as a dense array, at most "
            f"{LARGEST_DENSE / 2**30:.0f} GiB are made; read them with sparse=True "
            f"({features.nnz:,} numbers are not zero)"
        )
    return Examples(
        _shaped(features, shape, sparse),
        np.where(labels == found[1], 1, -1),
    )


def _parse(text: bytes) -> tuple[Any, np.ndarray]:
    """Return the features as SciPy's CSR matrix and the labels as they are written."""
    from sklearn.datasets import load_svmlight_file

    options: dict[str, Any] = {"zero_based": False}
    features, labels = load_svmlight_file(io.BytesIO(text), **options)[:2]
    return features, np.asarray(labels)


def _shaped(features: Any, shape: tuple[int, int], sparse: bool) -> Any:
    import scipy.sparse

    wide = scipy.sparse.csr_array((features.data, features.indices, features.indptr), shape=shape)
    return wide if sparse else wide.toarray()


def _malformed(path: Path, lines: list[bytes], error: Exception) -> ValueError:
    """Return an error that names the first line which does not parse by itself."""
    for number, line in enumerate(lines, 1):
        try:
            _parse(line + b"\n")
        except (ValueError, OverflowError) as cause:
            return _error(path, lines, number, str(cause))
    return ValueError(f"{path} is malformed: {error}")


def _error(path: Path, lines: list[bytes], number: int, said: str) -> ValueError:
    shown = lines[number - 1][:60].decode("utf-8", "replace")
    return ValueError(
        f"{path}, line {number}: {said}; expected 'label column:value ...' with columns rising "
        f"from 1, got {shown!r}"
    )
