"""What TFDS's own builders prepared is read as it is, from ArrayRecord and from TFRecord."""

import json
import shutil
import struct

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from clipjax.data import DatasetNotPrepared, load, splits
from clipjax.data.builders.base import DatasetBuilder
from clipjax.data.builders.photos_x4 import reduce_bicubic
from clipjax.data.tfrecords import TfRecords, masked_crc32c, record_places
from tests.data.builders.miniature import encode, pixels

LENGTHS = [3, 0, 200, 1]


def tfrecord(records):
    return b"".join(
        (head := struct.pack("<Q", len(data)))
        + struct.pack("<I", masked_crc32c(head))
        + data
        + struct.pack("<I", masked_crc32c(data))
        for data in records
    )


@pytest.fixture
def records():
    return [np.random.default_rng(n).bytes(n) for n in LENGTHS]


def test_the_checksum_is_that_of_the_format():
    # CRC-32C of 32 zero bytes is 0x8a9136aa (RFC 3720, B.4); rotated right by 15, plus the mask.
    crc = 0x8A9136AA
    expected = (((crc >> 15) | (crc << 17)) + 0xA282EAD8) % 2**32
    assert masked_crc32c(bytes(32)) == expected


def test_records_by_number_over_several_files(tmp_path, records):
    paths = [str(tmp_path / name) for name in "ab"]
    for path in paths:
        with open(path, "wb") as file:
            file.write(tfrecord(records))
    found = TfRecords([(paths[0], 1, 2), (paths[1], 0, 3)], bytes)
    expected = records[1:3] + records[:3]
    assert len(found) == 5
    assert [found[i] for i in range(5)] == expected
    assert list(reversed([found[i] for i in (4, 3, 2, 1, 0)])) == expected
    with pytest.raises(IndexError):
        found[5]


@pytest.mark.parametrize("damage", ["cut", "cut head", "flipped", "another file"])
def test_damaged_files_are_named(tmp_path, records, damage):
    content = bytearray(tfrecord(records))
    if damage == "flipped":
        content[0] ^= 1
    content = {
        "cut": content[:-3],
        "cut head": content + b"\1\0\0",
        "flipped": content,
        "another file": bytearray(b"PK\3\4 is a zip, not a TFRecord"),
    }[damage]
    path = tmp_path / "a.tfrecord"
    path.write_bytes(content)
    # A wrong length is seen by its own checksum, at its own record, not by what follows it.
    record = {"cut": 3, "cut head": 4}.get(damage, 0)
    message = f"{path} is cut, damaged or no TFRecord file: record {record} "
    with pytest.raises(ValueError, match=message):
        record_places(path)


def test_fewer_records_than_promised(tmp_path, records):
    (tmp_path / "a").write_bytes(tfrecord(records))
    with pytest.raises(ValueError, match="holds fewer records than its dataset_info"):
        TfRecords([(str(tmp_path / "a"), 2, 3)], bytes)


class Div2k(DatasetBuilder):
    """As TFDS's own, from pictures made here."""

    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="bicubic_x4", version=tfds.core.Version("2.0.0"))
    ]

    def _info(self):
        features = {"lr": tfds.features.Image(), "hr": tfds.features.Image()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 5), "validation": self._generate_examples(5, 7)}

    def _generate_examples(self, first, last):
        for i in range(first, last):
            high = pixels(i, 16, 20 + 4 * i)
            yield i, {"lr": encode(reduce_bicubic(high)), "hr": encode(high)}


class Imagenet2012(Div2k):
    """With grey JPEGs among the pictures, as ImageNet's."""

    BUILDER_CONFIGS = []  # noqa: RUF012
    VERSION = tfds.core.Version("5.1.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(encoding_format="jpeg"),
            "label": tfds.features.ClassLabel(names=[f"n{i:08d}" for i in range(8)]),
            "file_name": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _generate_examples(self, first, last):
        for i in range(first, last):
            image = pixels(i, 12, 10 + i, channels=1 if i % 2 else 3)
            picture = encode(image, "JPEG")
            yield i, {"image": picture, "label": i, "file_name": f"{i}.JPEG"}


def prepare_as_tfds(builder_class, data_dir, file_format):
    """Prepare into ArrayRecord; for TFRecord, which only TensorFlow writes, rewrite the files."""
    builder = builder_class(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    if file_format == "array_record":
        return
    folder = builder.data_path
    for path in folder.glob("*.array_record-*"):
        reader = ArrayRecordReader(str(path))
        read = [reader.read() for _ in range(reader.num_records())]
        reader.close()
        path.with_name(path.name.replace("array_record", "tfrecord")).write_bytes(tfrecord(read))
        path.unlink()
    info = json.loads((folder / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    for split in info["splits"]:
        split["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    (folder / "dataset_info.json").write_text(json.dumps(info))


@pytest.fixture(params=["array_record", "tfrecord"])
def stock(request, tmp_path):
    for builder in (Div2k, Imagenet2012):
        prepare_as_tfds(builder, tmp_path, request.param)
    return tmp_path


def test_div2k_of_tfds(stock):
    assert splits("div2k/bicubic_x4", stock) == {"train": 5, "validation": 2}
    source = load("div2k/bicubic_x4", "train", stock)
    assert source.num_classes == 0
    targets = {pixels(i, 16, 20 + 4 * i).tobytes(): i for i in range(5)}
    found = set()
    for i in range(5):
        record = source[i]
        found.add(targets[record["target"].tobytes()])
        np.testing.assert_array_equal(record["image"], reduce_bicubic(record["target"]))
    assert found == set(range(5))
    assert len(load("div2k/bicubic_x4", "train[:60%]", stock)) == 3


def test_imagenet_of_tfds(stock):
    source = load("imagenet2012", "validation", stock)
    assert (source.num_classes, source.class_names[3]) == (8, "n00000003")
    assert sorted(int(source[i]["label"]) for i in range(2)) == [5, 6]
    for i in range(2):
        assert source[i]["image"].shape == (12, 10 + source[i]["label"], 3)
    with pytest.raises(ValueError, match=r"no split 'test'.*it has \['train', 'validation'\]"):
        load("imagenet2012", "test", stock)


def test_the_newest_version_is_read_and_ours_before_it(tmp_path):
    prepare_as_tfds(Imagenet2012, tmp_path, "array_record")
    (tmp_path / "imagenet2012/5.1.0").rename(tmp_path / "imagenet2012/5.0.10")
    shutil.copytree(tmp_path / "imagenet2012/5.0.10", tmp_path / "imagenet2012/5.0.9")
    assert load("imagenet2012", "train", tmp_path).directory.name == "5.0.10"
    (tmp_path / "imagenet2012").rename(tmp_path / "cifar100")  # a name that is ours too
    assert load("cifar100", "train", tmp_path).directory.name == "5.0.10"
    with pytest.raises(ValueError, match=r"there is no data set 'imagenet2012'.*'imagenet100'"):
        load("imagenet2012", "train", tmp_path)
    (tmp_path / "cifar100/1.0.0").mkdir()  # ours, but not all of it
    with pytest.raises(DatasetNotPrepared, match=r"1\.0\.0/dataset_info\.json is missing"):
        load("cifar100", "train", tmp_path)
