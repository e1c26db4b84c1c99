import dataclasses
import gc
import inspect
import itertools
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipjax.data import records
from clipjax.data.augment import Augment, compose, dihedral, flip, pad_crop
from clipjax.data.pipeline import Pipeline, permutation, stream
from clipjax.data.sources import load
from clipjax.typing import Data


@pytest.fixture(scope="module")
def data(data_dir):
    return Pipeline(
        training=load("digits", "train[:100]", data_dir),
        held_out=load("digits", "test[:50]", data_dir),
        batch_size=24,  # does not divide 100: batches straddle epochs
        evaluation_batch_size=20,
        augment=compose(flip(), pad_crop(2)),
        seed=7,
    )


def first(iterator, count):
    with_end = list(itertools.islice(iterator, count))
    iterator.close()
    return with_end


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        np.testing.assert_equal(batch, other)


def interleave(shares):
    """Put the global batch together again: row j of it is row j // n of process j % n."""
    return [
        {
            key: np.stack([share[key] for share in batch], axis=1).reshape(
                -1, *batch[0][key].shape[1:]
            )
            for key in batch[0]
        }
        for batch in zip(*shares, strict=True)
    ]


@given(n=st.integers(1, 40), size=st.integers(1, 40), seed=st.integers(0, 2**32))
def test_every_record_once_an_epoch(n, size, seed):
    size = min(size, n)
    epochs = 3
    steps = -(-epochs * n // size)
    positions = np.concatenate([stream(seed, k * size, size, n) for k in range(steps)])
    for epoch in range(epochs):
        assert sorted(positions[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_the_stream_is_the_one_that_is_promised():
    expected = [permutation(3, p // 10, 10)[p % 10] for p in range(95, 103)]
    np.testing.assert_array_equal(stream(3, 95, 8, 10), expected)


def test_orders_differ_between_epochs_and_seeds():
    orders = {permutation(seed, epoch, 50).tobytes() for seed in (0, 1) for epoch in (0, 1)}
    assert len(orders) == 4


def test_training_batches_are_the_records_of_the_stream(data):
    plain = dataclasses.replace(data, augment=None)
    for step, batch in enumerate(first(plain.train(0), 6)):
        records = stream(7, step * 24, 24, 100)
        images = data.training.in_memory()["image"][records]
        labels = data.training.in_memory()["label"][records]
        np.testing.assert_array_equal(batch["image"], images)
        np.testing.assert_array_equal(batch["label"], labels)
        np.testing.assert_array_equal(batch["mask"], np.ones(24))
        assert [batch[k].dtype for k in ("image", "label", "mask")] == [
            np.uint8,
            np.int32,
            np.float32,
        ]


def test_augmentation_draws_are_the_steps_own(data):
    # Records 0..99 are fixed by the seed, so equal records at steps of two epochs show that
    # the draws differ; and each batch equals the augmentation by hand with (seed, step)'s draws.
    plain = first(dataclasses.replace(data, augment=None).train(0), 3)
    augmented = first(data.train(0), 3)
    draws = []
    for step, (batch, result) in enumerate(zip(plain, augmented, strict=True)):
        generator = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(1, step)))
        draws.append(generator.random((24, 3)))
        np.testing.assert_equal(result, data.augment(batch, draws[-1]))
    assert not np.isin(draws[0], draws[1]).any()


@pytest.mark.parametrize("start", [1, 5, 10**9])
def test_the_step_is_the_position(data, start):
    # As a run that is killed and resumed: what comes at step k does not depend on the start.
    assert_same(first(data.train(start), 3), [first(data.train(start + i), 1)[0] for i in range(3)])


def test_another_seed_is_another_run(data):
    ours = first(data.train(0), 1)[0]
    other = first(dataclasses.replace(data, seed=8).train(0), 1)[0]
    assert (ours["label"] != other["label"]).any()


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_each_global_batch(data, count):
    def shares(method, *args):
        take = [first(method(*args, process_index=i, process_count=count), 4) for i in range(count)]
        return interleave(take)

    assert_same(shares(data.train, 3), first(data.train(3), 4))
    assert_same(shares(data.evaluation), first(data.evaluation(), 4))
    assert_same(shares(data.calibration, 4), first(data.calibration(4), 4))


def test_evaluation_gives_each_example_once_and_masks_the_rest(data):
    batches = list(data.evaluation())
    assert [batch["mask"].sum() for batch in batches] == [20, 20, 10]  # 50 examples
    assert all(batch["image"].shape == (20, 8, 8, 1) for batch in batches)
    real = np.concatenate([b["image"][b["mask"] == 1] for b in batches])
    np.testing.assert_array_equal(real, data.held_out.in_memory()["image"])
    np.testing.assert_array_equal(batches[-1]["mask"], np.repeat([1.0, 0.0], 10))
    assert batches[-1]["mask"].dtype == np.float32


def test_an_evaluation_batch_larger_than_the_split(data):
    (batch,) = dataclasses.replace(data, evaluation_batch_size=64).evaluation()
    assert batch["image"].shape[0] == 64
    assert batch["mask"].sum() == 50


def test_calibration_repeats_no_example_and_is_not_augmented(data):
    batches = list(data.calibration(20))
    assert len(batches) == 4  # 100 // 24 full batches
    images = np.concatenate([batch["image"] for batch in batches])
    remaining = [image.tobytes() for image in data.training.in_memory()["image"]]
    for image in images:
        remaining.remove(image.tobytes())  # fails when an example comes once more than it should
    assert len(remaining) == 4
    assert_same(batches[:2], list(data.calibration(2)))
    assert_same(batches, list(dataclasses.replace(data, augment=None).calibration(20)))


def test_the_order_of_calibration_is_not_that_of_training(data):
    plain = dataclasses.replace(data, augment=None)
    assert (
        first(plain.train(0), 1)[0]["label"] != first(plain.calibration(1), 1)[0]["label"]
    ).any()


@pytest.mark.parametrize("name", ["digit_scenes", "photos_x4"])
def test_reading_from_disk_gives_what_memory_gives(data_dir, name, monkeypatch):
    def batches():
        source = load(name, "test", data_dir)
        pipeline = Pipeline(source, source, 8, 16, dihedral(), seed=0)
        return source, [*first(pipeline.train(5), 2), *first(pipeline.evaluation(), 2)]

    source, kept = batches()
    assert source.fits_in_memory
    monkeypatch.setattr(records, "IN_MEMORY_BYTES", 0)
    source, read = batches()
    assert not source.fits_in_memory
    assert_same(kept, read)


def test_batches_of_the_three_tasks(data_dir):
    shapes = {
        "digits": {"image": (4, 8, 8, 1), "label": (4,)},
        "digit_scenes": {"image": (4, 128, 128, 3), "label": (4, 128, 128)},
        "photos_x4": {"image": (4, 24, 24, 3), "target": (4, 96, 96, 3)},
    }
    dtypes = {"image": np.uint8, "label": np.int32, "target": np.uint8, "mask": np.float32}
    dtypes["size"] = np.int32
    for name, expected in shapes.items():
        source = load(name, "test", data_dir)
        pipeline = Pipeline(source, source, 4, 4, None, seed=0)
        for iterator in (pipeline.train(0), pipeline.evaluation(), pipeline.calibration(1)):
            batch = first(iterator, 1)[0]
            size = batch.get("size")  # of what is evaluated, where there are targets
            evaluated = {"size": (4, 2)} if size is not None else {}
            assert {k: v.shape for k, v in batch.items()} == {**expected, "mask": (4,), **evaluated}
            assert size is None or size.tolist() == [[24, 24]] * 4
            assert {k: v.dtype for k, v in batch.items()} == {k: dtypes[k] for k in batch}


def grain_threads():
    return [t for t in threading.enumerate() if t.name.startswith("grain")]


@pytest.mark.parametrize("end", ["closed", "exhausted"])
def test_threads_end_with_the_iterator(data, end):
    iterator = data.evaluation()
    next(iterator)
    threads = grain_threads()
    assert threads
    # Held here as a traceback would hold it, so that forgetting it is not what ends the threads.
    inner = iterator.gi_frame.f_locals["iterator"]
    if end == "closed":
        iterator.close()
    else:
        assert len(list(iterator)) == 2
    with pytest.raises(ValueError, match="closed"):
        next(inner)
    for thread in threads:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in threads)


def test_threads_end_when_the_iterator_is_forgotten(data):
    iterator = data.train(0)
    next(iterator)
    threads = grain_threads()
    assert threads
    del iterator
    gc.collect()
    for thread in threads:
        thread.join(timeout=10)
    assert not any(thread.is_alive() for thread in threads)


def test_a_program_ends_quietly_with_an_iterator_open(data_dir):
    program = (
        "from clipjax.data import Pipeline, load\n"
        "source = load('digits', 'test')\n"
        "batches = Pipeline(source, source, 8, 8, None, 0).train(0)\n"
        "print(next(batches)['image'].shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "CLIPJAX_DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "(8, 8, 8, 1)\n", "")


def test_the_protocol_is_kept():
    for name in ("train", "evaluation", "calibration"):
        ours = inspect.signature(getattr(Pipeline, name)).parameters
        theirs = inspect.signature(getattr(Data, name)).parameters
        assert [(p.name, p.kind, p.default) for p in ours.values()] == [
            (p.name, p.kind, p.default) for p in theirs.values()
        ]


def test_sizes(data):
    assert (data.num_train, data.num_evaluation, data.batch_size) == (100, 50, 24)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"evaluation_batch_size": -1}, "evaluation_batch_size must be at least 1, got -1"),
        ({"batch_size": 101}, "batch_size 101 is larger than the 100 training examples"),
        ({"seed": -3}, "seed must not be negative, got -3"),
        # 64 bytes a picture: 10^12 of them take 59,604.6 GiB.
        (
            {"evaluation_batch_size": 10**12},
            r"1,000,000,000,000: .* take 59,604.6 GiB .*\(--evaluation-batch-size\)",
        ),
    ],
)
def test_bad_fields_are_refused(data, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(data, **change)


def test_bad_arguments_are_refused_before_anything_is_read(data):
    with pytest.raises(ValueError, match="start must not be negative, got -1"):
        data.train(-1)
    with pytest.raises(ValueError, match="got 2 of 2"):
        data.train(0, process_index=2, process_count=2)
    with pytest.raises(ValueError, match="batch_size 24 is not divisible by 5 processes"):
        data.train(0, process_index=0, process_count=5)
    with pytest.raises(ValueError, match="evaluation_batch_size 20 is not divisible by 3"):
        data.evaluation(process_index=0, process_count=3)
    with pytest.raises(ValueError, match="num_batches must be at least 1, got 0"):
        data.calibration(0)


def test_short_memory_names_the_number_that_is_too_large(data):
    def no_room(batch, uniforms):
        raise MemoryError("Unable to allocate 7 TiB")

    greedy = dataclasses.replace(data, augment=Augment(0, no_room))
    message = r"a batch of 24 examples .*7 TiB\); choose a smaller batch_size \(--batch-size\)"
    with pytest.raises(MemoryError, match=message):
        next(greedy.train(0))
