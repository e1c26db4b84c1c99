"""The manifest: every damage of every file is found; what is no damage is passed on."""

import errno
import os
from pathlib import Path

import pytest

from clipjax.train.manifest import NAME, find_damage, has_manifest, read_through, write_manifest


def make(folder):
    """Return a folder with two items, files in folders of theirs, one of them empty."""
    for name, content in {
        "state/d/a": bytes(range(200)),
        "state/b": b"",
        "run/metadata": b'{"digest": "0"}',
        "outside": b"of no item",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder, ("run", "state"))
    return folder


def test_an_untouched_folder_has_no_damage(tmp_path):
    folder = make(tmp_path)
    assert has_manifest(folder)
    assert find_damage(folder) is None


def test_files_outside_the_items_do_not_matter(tmp_path):
    folder = make(tmp_path)
    (folder / "outside").unlink()
    (folder / "state" / "new").write_text("added")
    assert find_damage(folder) is None


def remove(path):
    path.unlink()


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def grow(path):
    path.write_bytes(path.read_bytes() + b"\0")


def replace_by_folder(path):
    path.unlink()
    path.mkdir()


CASES = [
    (name, damage)
    for name in ("state/d/a", "state/b", "run/metadata")
    for damage in (remove, cut, flip, grow, replace_by_folder)
    if name != "state/b" or damage not in (cut, flip)  # it is empty: no byte to lose or change
]


@pytest.mark.parametrize(("name", "damage"), CASES)
def test_each_damage_of_each_file_is_named(tmp_path, name, damage):
    folder = make(tmp_path)
    damage(folder / name)
    assert name in find_damage(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": [1]}', '{"files": {"a": {}}}', "\0"])
def test_a_manifest_that_is_none_is_damage(tmp_path, text):
    folder = make(tmp_path)
    (folder / NAME).write_text(text)
    assert find_damage(folder) == "manifest.json is no manifest"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
@pytest.mark.parametrize("name", ["state/d/a", "manifest.json"])
def test_a_file_that_cannot_be_read_is_no_damage(tmp_path, monkeypatch, number, name):
    """`Path.open` is replaced: the tests may run as root, whom no permission stops."""
    folder, really = make(tmp_path), Path.open

    def refuse(path, *args, **kwargs):
        if path == folder / name:
            raise OSError(number, os.strerror(number), str(path))
        return really(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    for read in (find_damage, read_through):
        with pytest.raises(OSError, match=f"Errno {number}"):
            read(folder)


def test_reading_through_a_folder_leaves_missing_files_to_others(tmp_path):
    folder = make(tmp_path)
    (folder / "state" / "link").symlink_to(folder / "nowhere")
    assert read_through(folder) is None
