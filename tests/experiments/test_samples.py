"""Which examples are kept for pictures, and how pictures of different sizes share a file."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from clipjax.tasks import Segmentation, SuperResolution
from clipjax.train import mesh as meshes
from experiments.setup import samples


def program(task, calls):
    """A model whose output is its input; every call is noted."""

    def predict(params, model_state, batch):
        del params, model_state
        calls.append(batch["image"].shape)
        if isinstance(task, SuperResolution):
            return task.bicubic(batch)
        return jax.nn.one_hot(batch["image"][..., 0], task.num_classes)

    return SimpleNamespace(predict=predict, task=task, mesh=meshes.make_mesh(jax.devices()[:1]))


class Data:
    """Evaluation batches of whole pictures: two of 8 x 8, one of 12 x 8, padding at their ends."""

    sizes = ((8, 6), (5, 8), (11, 8))

    def __init__(self, scale=None):
        rng = np.random.default_rng(0)
        self.batches = []
        for shape, sizes, mask in (
            ((8, 8), self.sizes[:2], [1, 1]),
            ((12, 8), (self.sizes[2], self.sizes[2]), [1, 0]),
        ):
            batch = {
                "image": rng.integers(0, 3, (2, *shape, 3), np.uint8),
                "size": np.array(sizes, np.int32),
                "mask": np.array(mask, np.float32),
            }
            if scale is None:
                batch["label"] = np.full((2, *shape), 255, np.int32)
                for i, (rows, columns) in enumerate(sizes):
                    batch["label"][i, :rows, :columns] = batch["image"][i, :rows, :columns, 1]
            else:
                high = (scale * n for n in shape)
                batch["target"] = rng.integers(0, 256, (2, *high, 3), np.uint8)
            self.batches.append(batch)

    def evaluation(self, *, process_index=0, process_count=1):
        yield from self.batches


TASK = Segmentation(3, mean=(0.5,) * 3, std=(0.25,) * 3)


def keep(tmp_path, task, data, count):
    path = tmp_path / "figures" / "samples.npz"
    calls = []
    samples.write(program(task, calls), (None, None), data, count, path)
    with np.load(path) as arrays:
        return samples.unpadded(arrays), calls


def test_as_many_batches_are_taken_as_it_needs(tmp_path):
    data = Data()
    for count, batches in ((1, 1), (2, 1), (3, 2), (9, 2)):
        found, calls = keep(tmp_path, TASK, data, count)
        assert len(found["image"]) == min(count, 3)
        assert len(calls) == batches


def test_pictures_are_kept_without_their_padding(tmp_path):
    data = Data()
    found, _ = keep(tmp_path, TASK, data, 3)
    assert set(found) == {"image", "label", "prediction"}
    for i, (rows, columns) in enumerate(Data.sizes):
        batch, place = data.batches[i // 2], i % 2
        image = batch["image"][place, :rows, :columns]
        np.testing.assert_array_equal(found["image"][i], image)
        np.testing.assert_array_equal(found["label"][i], image[..., 1])
        np.testing.assert_array_equal(found["prediction"][i], image[..., 0])
        assert not (found["label"][i] == 255).any()


def test_targets_are_cut_as_many_times_as_large(tmp_path):
    data, task = Data(scale=2), SuperResolution(scale=2)
    found, _ = keep(tmp_path, task, data, 3)
    assert set(found) == {"lr", "bicubic", "prediction", "target"}
    for i, (rows, columns) in enumerate(Data.sizes):
        assert found["lr"][i].shape == (rows, columns, 3)
        target = data.batches[i // 2]["target"][i % 2, : 2 * rows, : 2 * columns]
        np.testing.assert_array_equal(found["target"][i], target)
        assert found["bicubic"][i].shape == found["prediction"][i].shape == target.shape


def test_of_large_pictures_the_middle_is_kept():
    image = np.arange(20 * 30).reshape(20, 30)
    target = image.repeat(2, 0).repeat(2, 1)
    cut = samples.middle({"lr": image, "target": target, "size": np.array([16, 30])}, side=16)
    assert set(cut) == {"lr", "target"}
    # 16 pixels of the target are 8 of the image: rows 4 ... 11 of 16, columns 11 ... 18 of 30.
    np.testing.assert_array_equal(cut["lr"], image[4:12, 11:19])
    np.testing.assert_array_equal(cut["target"], target[8:24, 22:38])
    assert samples.middle({"image": image, "label": np.int32(3)}, side=64)["label"] == 3


def test_pictures_of_one_size_are_stored_without_sizes():
    examples = [{"image": np.full((2, 3, 1), k), "label": np.int32(k)} for k in range(3)]
    stacked = samples.stack(examples)
    assert set(stacked) == {"image", "label"}
    assert stacked["label"].tolist() == [0, 1, 2]
    assert [image.shape for image in samples.unpadded(stacked)["image"]] == [(2, 3, 1)] * 3


@pytest.mark.parametrize("count", [0, -1])
def test_none_are_kept_where_none_are_wanted(tmp_path, count):
    samples.write(program(TASK, []), (None, None), Data(), count, tmp_path / "figures" / "x.npz")
    assert not list(tmp_path.rglob("*"))


def test_they_are_written_whole_and_never_through_a_link(tmp_path):
    """Whoever may write into the folder could foresee a fixed name, and lay a link there."""
    (tmp_path / "mine").write_text("mine")
    path = tmp_path / "figures" / "samples.npz"
    path.parent.mkdir()
    for name in ("samples.npz", "samples.tmp.npz"):
        path.with_name(name).symlink_to(tmp_path / "mine")
    task = Segmentation(3, (0.5,), (0.5,))
    samples.write(program(task, []), (None, None), Data(), 2, path)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not path.is_symlink()
    with np.load(path) as arrays:
        assert len(arrays["prediction"]) == 2
    assert sorted(p.name for p in path.parent.iterdir()) == ["samples.npz", "samples.tmp.npz"]
