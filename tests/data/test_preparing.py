"""Where data is prepared: folders that cannot be written, leftovers, links, and what is left."""

import errno
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from clipjax import _locks
from clipjax.data import is_prepared, load, prepare, preparing
from clipjax.data.builders.digits import Digits
from tests.data.builders.miniature import encode, pixels, write_folder, write_tar, write_zip


def leftover(root, stem="digits"):
    folder = root / f".{stem}-abcd_123.preparing"
    write_folder(folder, {"digits/incomplete.X/shard": b"half"})
    return folder


@pytest.mark.parametrize("where", ["a file", "below a file", "a long name"])
def test_a_folder_that_cannot_be_is_named(tmp_path, where):
    (tmp_path / "file").write_text("mine")
    folder = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file/data",
        "a long name": tmp_path / ("x" * 300),
    }[where]
    with pytest.raises(OSError, match=re.escape(str(folder))) as raised:
        prepare("digits", folder)
    if where != "a long name":
        assert "choose another folder with --data-dir" in str(raised.value)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("write() failed: No space left on device; writing x.array_record"),
    ],
)
def test_a_full_disk_names_the_folder_and_leaves_nothing(tmp_path, monkeypatch, error):
    """Python says it by an OSError, ArrayRecord's writer by a RuntimeError."""

    def full(self, *arguments, **options):
        raise error

    monkeypatch.setattr(Digits, "download_and_prepare", full)
    message = rf"\[Errno 28\] No space .* written into {tmp_path}; make room, or choose another"
    with pytest.raises(OSError, match=message):
        prepare("digits", tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults
def test_a_limit_on_the_size_of_files(tmp_path):
    """The shard of 458,752 bytes is larger than the system allows a file to be."""
    program = (
        "import resource, signal, sys\n"
        "from clipjax.data import prepare\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "prepare('digits', sys.argv[1])\n"
    )
    line = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert "prepared data cannot be written into" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_what_killed_builders_left_is_removed_by_the_next_of_any_set(tmp_path):
    left = [leftover(tmp_path), leftover(tmp_path, "image_folder-mine")]
    write_folder(tmp_path, {".mine/x": b"", ".other.preparing/x": b"", "digits.txt": b""})
    prepare("digits", tmp_path)
    assert not any(path.exists() for path in left)
    kept = {".mine", ".other.preparing", "digits.txt"}
    assert {path.name for path in tmp_path.iterdir()} == {"digits"} | kept
    again = leftover(tmp_path)
    prepare("digits", tmp_path)  # nothing to prepare, but something to remove
    assert not again.exists()


def test_the_folder_of_a_builder_at_work_is_left_alone(tmp_path):
    # Of image_folder/mine, whose name begins as that of image_folder does.
    at_work = leftover(tmp_path, "image_folder-mine")
    write_folder(tmp_path / "raw", {"train/a/0.png": encode(pixels(0))})
    with _locks.hold(tmp_path / ".image_folder-mine.lock", "", ""):
        prepare("image_folder", tmp_path, raw_dir=tmp_path / "raw")
        assert at_work.exists()
    prepare("image_folder", tmp_path)
    assert not at_work.exists()


def test_nothing_is_written_through_a_link(tmp_path):
    (tmp_path / "precious").write_text("keep")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/.digits.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match=r"\.digits\.lock is a link, .*delete it"):
        prepare("digits", tmp_path / "data")
    assert (tmp_path / "precious").read_text() == "keep"
    # Nor is what a link of a leftover's name points to removed.
    (tmp_path / "data/.digits.lock").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data/.digits-abcd_123.preparing").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/mine").touch()
    # A link in the place of the prepared folder is replaced, not followed.
    for name in ("elsewhere", "nowhere"):
        shutil.rmtree(tmp_path / "data/digits", ignore_errors=True)
        (tmp_path / "data/digits").mkdir()
        (tmp_path / "data/digits/1.0.0").symlink_to(tmp_path / name)
        assert not prepare("digits", tmp_path / "data").is_symlink()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["mine"]


def test_temporary_names_cannot_be_foretold(tmp_path, monkeypatch):
    seen = []
    inner = preparing._build

    def watched(builder_class, staging, *arguments):
        seen.append((staging.name, staging.stat().st_mode & 0o777))
        return inner(builder_class, staging, *arguments)

    monkeypatch.setattr(preparing, "_build", watched)
    for name in ("a", "b"):
        prepare("digits", tmp_path / name)
    assert seen[0][0] != seen[1][0]
    assert all(preparing._LEFTOVER.fullmatch(name) for name, _ in seen)  # they are found again
    assert {mode for _, mode in seen} == {0o700}  # nobody else can put links into it


@pytest.mark.parametrize("pack", [write_zip, write_tar])
def test_archives_are_never_unpacked(tmp_path, pack):
    """Whatever the names in an archive are, nothing appears outside of the prepared folder."""
    picture = encode(pixels(0))
    evil = ["../evil.png", "/tmp/clipjax-evil.png", "train/a/../../../../evil.png"]
    files = {name: picture for name in ("train/a/0.png", *evil)}
    (tmp_path / "in").mkdir()
    pack(tmp_path / "in/raw", files)
    folder = prepare("image_folder", tmp_path / "in/data", raw_dir=tmp_path / "in/raw")
    found = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    inside = str(folder.relative_to(tmp_path))
    assert {name for name in found if not name.startswith(inside)} == {"in/raw"}
    assert not os.path.lexists("/tmp/clipjax-evil.png")
    assert len(load("image_folder", "train", tmp_path / "in/data")) == 2


def test_a_builder_that_is_ended_leaves_a_folder_that_the_next_removes(tmp_path):
    """SIGTERM, which nothing catches here: the folder is left, and looks like what it is."""
    program = (
        "import os, signal, sys\n"
        "from clipjax.data import prepare\n"
        "from clipjax.data.builders.digits import Digits\n"
        "def ended(self, manager): os.kill(os.getpid(), signal.SIGTERM); signal.pause()\n"
        "Digits._split_generators = ended\n"
        "prepare('digits', sys.argv[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], timeout=60)
    assert done.returncode == -signal.SIGTERM
    assert len(list(tmp_path.glob(".digits-*.preparing"))) == 1
    assert not is_prepared("digits", tmp_path)
    prepare("digits", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits"]


def test_a_folder_that_array_record_cannot_open_is_refused(tmp_path):
    with pytest.raises(ValueError, match="which is not UTF-8: ArrayRecord"):
        prepare("digits", tmp_path / os.fsdecode(b"caf\xe9"))
    assert list(tmp_path.iterdir()) == []
