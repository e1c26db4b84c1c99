"""The command that prepares data: what it prints, refuses and leaves."""

import os
import subprocess
import sys

import pytest

from clipjax.data import load
from experiments.prepare import main
from tests.data.builders.miniature import encode, pixels, write_folder
from tests.data.builders.test_orientation import exif
from tests.experiments.cli import ROOT


@pytest.fixture
def raw(tmp_path):
    files = {f"train/a/{i}.jpg": encode(pixels(i), "JPEG", exif=exif(i)) for i in range(1, 9)}
    write_folder(tmp_path / "raw", files)
    return tmp_path / "raw"


@pytest.mark.parametrize("flag", ["--data-dir", "--raw-dir"])
@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_folder_is_refused(tmp_path, monkeypatch, capsys, flag, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as raised:
        main(["--dataset", "digits", flag, value])
    assert raised.value.code == 2
    assert "for the current folder say '.'" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_the_current_folder_can_be_meant(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", "digits", "--data-dir", "."]) == 0
    assert "test 360, train 1437" in capfd.readouterr().out
    assert (tmp_path / "digits").is_dir()


def test_it_says_when_a_set_was_there_already_and_what_was_not_looked_at(tmp_path, raw, capfd):
    line = ["--dataset", "image_folder", "--data-dir", str(tmp_path / "d")]
    assert main([*line, "--raw-dir", str(raw)]) == 0
    assert "already" not in capfd.readouterr().out
    folder = load("image_folder", "train", tmp_path / "d").directory

    assert main(line) == 0
    assert "was there already. Delete that folder to have it prepared" in capfd.readouterr().out
    (tmp_path / "other").mkdir()
    assert main([*line, "--raw-dir", str(tmp_path / "other")]) == 0
    out = capfd.readouterr().out
    assert out.splitlines()[0] == str(folder)
    assert f"was there already; {tmp_path / 'other'} was not looked at" in out

    with pytest.raises(FileNotFoundError, match=f"there is no {tmp_path}/nowhere; expected there"):
        main([*line, "--raw-dir", str(tmp_path / "nowhere")])
    with pytest.raises(ValueError, match="'digits' ships in a package: leave raw_dir out"):
        main(["--dataset", "digits", *line[2:], "--raw-dir", str(raw)])


def test_pictures_that_were_turned_are_counted(tmp_path, raw, capfd):
    line = ["--dataset", "image_folder", "--data-dir", str(tmp_path / "d"), "--raw-dir", str(raw)]
    for _ in range(2):  # told again where it was there already
        assert main(line) == 0
        out = capfd.readouterr().out
        assert "7 pictures and masks turned upright, as their EXIF data asks" in out
        assert f"train: {raw}/train/a/6.jpg: EXIF orientation 6" in out
    listed = load("image_folder", "train", tmp_path / "d").directory / "turned.txt"
    assert len(listed.read_text().splitlines()) == 7


def test_a_damaged_set_is_prepared_again(tmp_path, raw, capfd):
    line = ["--dataset", "image_folder", "--data-dir", str(tmp_path / "d"), "--raw-dir", str(raw)]
    assert main(line) == 0
    folder = load("image_folder", "train", tmp_path / "d").directory
    (folder / "features.json").write_text("{")
    capfd.readouterr()
    assert main(line) == 0
    out = capfd.readouterr().out
    assert "train 8" in out
    assert "already" not in out


HELD_UP = """
import os, sys, time
from clipjax.data.builders.digits import Digits
from experiments.prepare import main
def held_up(self, manager):
    os.write(1, b"begun")
    time.sleep(1000)
Digits._split_generators = held_up
main(sys.argv[1:])
"""


def test_a_second_one_is_told_who_prepares_and_follows_a_killed_one_at_once(tmp_path, capfd):
    folder = tmp_path / "d"
    line = ["--dataset", "digits", "--data-dir", str(folder)]
    begin = [sys.executable, "-c", HELD_UP, *line]
    with subprocess.Popen(begin, cwd=ROOT, stdout=subprocess.PIPE) as first:
        assert first.stdout.read(5) == b"begun"
        with pytest.raises(ValueError, match="Wait for it to end") as refused:
            main(line)
        first.kill()
    who = f"process {first.pid} on {os.uname().nodename} since 2"
    assert f"'digits' is being prepared in {folder} by {who}" in str(refused.value)
    assert len(list(folder.glob(".digits*"))) == 2  # its lock and what it had built
    assert main(line) == 0
    assert "already" not in capfd.readouterr().out
    assert [path.name for path in folder.iterdir()] == ["digits"]
