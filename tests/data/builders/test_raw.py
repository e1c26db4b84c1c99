"""Raw files that are missing, not the published ones, or damaged; killed builders."""

import gzip
import hashlib
import os
import re
import signal
import subprocess
import sys

import pytest

from clipjax.data import DatasetNotPrepared, load, prepare, splits
from clipjax.data.builders import raw as raws
from clipjax.data.builders.archives import Members
from clipjax.data.builders.mnist import Mnist
from experiments.prepare import main
from tests.data.builders.miniature import encode, pixels, prepared, write_folder, write_tar
from tests.data.builders.test_mnist import write


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("imagenet100", "ILSVRC2012_img_train.tar.*147897477120 bytes, SHA-256 b08200a27a8e3"),
        ("voc2012_segmentation", r"VOCtrainval_11-May-2012\.tar: https://.*1999639040 bytes"),
        ("div2k_x4", r"DIV2K_train_HR\.zip: https://data\.vision.*3530603713 bytes"),
        ("cifar10", r"cifar-10-python\.tar\.gz: https://.*170498071 bytes"),
        ("cifar100", r"cifar-100-python\.tar\.gz: https://.*169001437 bytes"),
        ("mnist", r"train-images-idx3-ubyte\.gz: https://storage.*9912422 bytes"),
        ("fashion_mnist", r"train-images-idx3-ubyte\.gz: http://fashion.*26421880 bytes"),
        ("tiny_imagenet", r"tiny-imagenet-200\.zip of http"),
        ("image_folder/mine", r"train/CLASS/\*"),
        ("super_resolution_folder/mine", r"SPLIT/HR/\*\.png"),
    ],
)
def test_an_empty_folder_says_which_file_to_put_there(tmp_path, name, needed):
    (tmp_path / "raw").mkdir()
    with pytest.raises(FileNotFoundError, match=needed) as raised:
        prepare(name, tmp_path / "data", raw_dir=tmp_path / "raw")
    assert str(tmp_path / "raw") in str(raised.value)
    assert not (tmp_path / "data").exists()  # nothing is left, not even the folder


@pytest.mark.parametrize("name", ["imagenet100", "tiny_imagenet", "image_folder"])
def test_without_a_folder_what_is_not_public_asks_for_one(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="--raw-dir"):
        prepare(name, tmp_path)
    with pytest.raises(FileNotFoundError, match=f"there is no {tmp_path}/nowhere; expected there"):
        prepare(name, tmp_path, raw_dir=tmp_path / "nowhere")


def test_offline_it_says_which_file_to_put_where(tmp_path, monkeypatch):
    def offline(self, url):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr("tensorflow_datasets.download.DownloadManager.download", offline)
    message = (
        r"https://storage.*train-images-idx3-ubyte\.gz could not be downloaded: Name or service "
        r"not known\. Put into a folder .*ubyte\.gz.* 9912422 bytes, SHA-256 440fcabf73.*--raw-dir"
    )
    with pytest.raises(FileNotFoundError, match=message):
        prepare("mnist", tmp_path)


def test_public_files_are_downloaded_with_tfds_and_checked(tmp_path, monkeypatch, data):
    """A server on this machine stands in for the source; the checksums are those of its files."""
    import http.server
    import threading

    from tensorflow_datasets.core.download.checksums import UrlInfo

    write(tmp_path / "served", data)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=str(tmp_path / "served"))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/"
        infos = {}
        for path in (tmp_path / "served").iterdir():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            infos[base + path.name] = UrlInfo(path.stat().st_size, digest, path.name)
        monkeypatch.setattr(Mnist, "SOURCE", base)
        monkeypatch.setattr(Mnist, "url_infos", infos)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "127.0.0.1")
        prepare("mnist", tmp_path / "data")
        assert splits("mnist", tmp_path / "data") == {"test": 5, "train": 12}
        for path in (tmp_path / "served").glob("train-labels*"):
            path.write_bytes(gzip.compress(b"something else"))
        with pytest.raises(
            FileNotFoundError, match=r"train-labels-idx1-ubyte\.gz could not be down"
        ):
            prepare("mnist", tmp_path / "other")
        server.shutdown()


@pytest.mark.parametrize("same_size", [True, False])
def test_wrong_checksum(tmp_path, monkeypatch, data, same_size):
    from tensorflow_datasets.core.download.checksums import UrlInfo

    write(tmp_path / "raw", data)
    path = tmp_path / "raw/train-images-idx3-ubyte.gz"
    size = path.stat().st_size + (not same_size)
    url = f"{Mnist.SOURCE}{path.name}"
    monkeypatch.setattr(Mnist, "url_infos", {url: UrlInfo(size, "0" * 64, path.name)})
    found = hashlib.sha256(path.read_bytes()).hexdigest() if same_size else f"{size - 1} bytes"
    with pytest.raises(
        raws.WrongChecksum, match=rf"{path} is not the published file: .*{found}.*--no"
    ):
        prepare("mnist", tmp_path / "data", raw_dir=tmp_path / "raw")
    prepare("mnist", tmp_path / "data", raw_dir=tmp_path / "raw", verify=False)


def folder_of_ten(tmp_path):
    files = {f"train/a/{i}.png": encode(pixels(i)) for i in range(10)}
    files |= {"test/a/x.png": encode(pixels(99))}
    for name in ("train/a/3.png", "train/a/7.png"):
        files[name] = files[name][:-60]
    write_folder(tmp_path / "raw", files)
    return tmp_path / "raw"


def test_from_the_command_line(tmp_path, capfd):
    """Damaged pictures are named; asked to, it leaves them out, names and counts them."""
    raw = folder_of_ten(tmp_path)
    line = [
        "--dataset",
        "image_folder/mine",
        "--raw-dir",
        str(raw),
        "--data-dir",
        str(tmp_path / "d"),
    ]
    with pytest.raises(ValueError, match=r"3\.png is not a readable picture.*--skip-damaged"):
        main(line)
    assert main([*line, "--skip-damaged"]) == 0
    out, err = capfd.readouterr()
    assert "test 1, train 8" in out
    assert "2 examples left out" in out
    assert re.search(r"train: .*a/3\.png is not a readable picture", out)
    assert "image_folder, train" in err  # the progress bar
    assert len(load("image_folder/mine", "train", tmp_path / "d")) == 8
    assert main(line) == 0  # what is prepared is left as it is, and the count is told again
    assert "2 examples left out" in capfd.readouterr().out


def test_nothing_usable_is_an_error_even_if_damage_may_be_skipped(tmp_path):
    write_folder(tmp_path / "raw", {"train/a/0.png": b"no picture"})
    with pytest.raises(ValueError, match="split 'train' has no usable example"):
        prepared("image_folder", tmp_path, tmp_path / "raw", skip_damaged=True)


def test_killed_half_way_nothing_looks_complete(tmp_path):
    raw = tmp_path / "raw"
    write_folder(raw, {f"train/a/{i}.png": encode(pixels(i)) for i in range(30)})
    program = (
        "import os, signal, sys\n"
        "from clipjax.data import prepare\n"
        "def killed(items, what):\n"
        "    for i, item in enumerate(items):\n"
        "        if i == 15: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield item\n"
        "prepare('image_folder/mine', sys.argv[1], raw_dir=sys.argv[2], progress=killed)\n"
    )
    data_dir = tmp_path / "data"
    done = subprocess.run(
        [sys.executable, "-c", program, str(data_dir), str(raw)],
        env=dict(os.environ),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(data_dir.glob(".image_folder-mine-*.preparing"))
    assert not (data_dir / "image_folder").exists()
    with pytest.raises(DatasetNotPrepared, match="--dataset image_folder/mine"):
        load("image_folder/mine", "train", data_dir)
    prepare("image_folder/mine", data_dir, raw_dir=raw)
    assert splits("image_folder/mine", data_dir) == {"train": 30}
    assert not list(data_dir.glob(".*.preparing"))


def test_embedded_data_takes_no_folder(tmp_path):
    with pytest.raises(ValueError, match="'digits' ships in a package: leave raw_dir out"):
        prepare("digits", tmp_path / "data", raw_dir=tmp_path)


@pytest.mark.parametrize("name", ["image_folder/", "image_folder/../x", "cifar10/x", "imagenet10"])
def test_names_that_there_are_not(tmp_path, name):
    with pytest.raises(ValueError, match=f"there is no data set {name!r}"):
        prepare(name, tmp_path, raw_dir=tmp_path)


def test_archives_are_closed_and_members_named(tmp_path):
    write_tar(tmp_path / "a.tar", {"./b/c.txt": b"hello", "d.txt": b"you"})
    with Members(tmp_path / "a.tar") as members:
        assert members.names == ["b/c.txt", "d.txt"]
        assert members.read("b/c.txt") == b"hello"
        assert members.where("d.txt") == f"{tmp_path}/a.tar: d.txt"
        with pytest.raises(ValueError, match=r"a\.tar has no e\.txt"):
            members.read("e.txt")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:700])
    with pytest.raises(ValueError, match=r"cut\.tar is no readable archive, or cut"):
        Members(tmp_path / "cut.tar")
