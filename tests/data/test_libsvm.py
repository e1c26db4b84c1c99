import numpy as np
import pytest
import scipy.sparse

from clipjax.data import read_libsvm

GOOD = "+1 1:0.5 4:2\n-1 2:-3e-2\n\n+1 3:1 4:1 # last\n"
DENSE = [[0.5, 0, 0, 2], [0, -0.03, 0, 0], [0, 0, 1, 1]]


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "file"
        path.write_text(text)
        return path

    return write


def test_dense_and_sparse_hold_the_same(write):
    dense = read_libsvm(write(GOOD))
    np.testing.assert_array_equal(dense.features, DENSE)
    np.testing.assert_array_equal(dense.labels, [1, -1, 1])
    sparse = read_libsvm(write(GOOD), sparse=True)
    assert scipy.sparse.issparse(sparse.features)
    assert sparse.features.nnz == 5
    np.testing.assert_array_equal(sparse.features.toarray(), DENSE)


@pytest.mark.parametrize("sparse", [False, True])
def test_columns_that_never_occur_can_be_kept(write, sparse):
    assert read_libsvm(write(GOOD), num_features=6, sparse=sparse).features.shape == (3, 6)


def test_any_two_labels_are_minus_and_plus_one(write):
    assert read_libsvm(write("2 1:1\n1 1:2\n2 1:3\n")).labels.tolist() == [1, -1, 1]
    assert read_libsvm(write("0 1:1\n1 1:2\n")).labels.tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("+1 1:0.5 four:2", "line 3"),
        ("+1 831 4:2", "line 3.*831"),
        ("+1 2:1 1:1", "line 3"),
        ("+1 0:1 1:1", "line 3"),
        ("one 1:1", "line 3.*one"),
        ("+1 1:x", "line 3"),
        ("+1 1:nan", "line 3: a number is not finite"),
        ("inf 1:1", "line 3: a number is not finite"),
        ("+1 9:1", "line 3: column 9 is beyond num_features = 6"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(write, line, words):
    path = write(f"+1 1:1\n-1 2:1\n{line}\n-1 3:1\n")
    with pytest.raises(ValueError, match=words):
        read_libsvm(path, num_features=6)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "no examples"), ("1 1:1\n1 1:2\n", "1 different labels"), ("1 1:1\n2 1:2\n3 1:1", "3 ")],
)
def test_files_that_are_no_two_classes_are_refused(write, text, words):
    with pytest.raises(ValueError, match=words):
        read_libsvm(write(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no LIBSVM file .*nothing"):
        read_libsvm(tmp_path / "nothing")


def test_dense_features_that_are_too_large_are_refused_with_their_size(write):
    # 2 rows of 10^8 columns, 8 bytes each: 1.6e9 bytes are 1.49 GiB.
    path = write("1 100000000:1\n-1 1:1\n")
    message = r"2 examples of 100,000,000 columns take 1\.5 GiB .*sparse=True \(2 numbers are not"
    with pytest.raises(ValueError, match=message):
        read_libsvm(path)
    assert read_libsvm(path, sparse=True).features.shape == (2, 10**8)
    with pytest.raises(ValueError, match=r"2 examples of 1,000,000,000,000 columns take 14,901"):
        read_libsvm(path, num_features=10**12)


@pytest.mark.parametrize("column", [2**31, 2**63 - 1, 10**30])
def test_columns_beyond_any_array_are_named_by_their_line(write, column):
    with pytest.raises(ValueError, match="line 2: "):
        read_libsvm(write(f"1 1:1\n-1 {column}:1\n"))


@pytest.mark.parametrize("count", [0, -1, 2.5, True, "3"])
def test_numbers_of_features_that_are_none(write, count):
    with pytest.raises(ValueError, match=r"num_features is .*expected an integer of at least 1"):
        read_libsvm(write(GOOD), num_features=count)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"{tmp_path} is a folder; expected a LIBSVM file"):
        read_libsvm(tmp_path)
    for path in (None, 3, "a\0b"):
        with pytest.raises(ValueError, match=r"path is .*; expected that of a LIBSVM file"):
            read_libsvm(path)
