import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipjax.data.augment import aligned_crop, compose, dihedral, flip, pad_crop
from clipjax.data.builders.photos_x4 import reduce_bicubic

LARGEST = np.nextafter(1.0, 0.0)  # the largest float64 that Generator.random can give


def make_batch(rng, size=6, count=5, scale=4):
    """A batch in which every pixel of `image` and its block in `target` tell where they were."""
    image = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    return {
        "image": image,
        "label": image[..., 0].astype(np.int32),
        "target": image.repeat(scale, axis=1).repeat(scale, axis=2),
        "mask": np.ones(count, np.float32),
    }


def assert_aligned(batch, scale=4):
    np.testing.assert_array_equal(batch["label"], batch["image"][..., 0])
    blocks = batch["image"].repeat(scale, axis=1).repeat(scale, axis=2)
    np.testing.assert_array_equal(batch["target"], blocks)


def one_by_one(batch, uniforms, key, transform):
    """The same augmentation written out: example for example, in plain indexing."""
    return np.stack([transform(x, u) for x, u in zip(batch[key], uniforms, strict=True)])


def test_flip_equals_the_written_out_one():
    rng = np.random.default_rng(0)
    batch = make_batch(rng, count=40)
    uniforms = rng.random((40, 1))
    result = flip()(batch, uniforms)
    for key in ("image", "label", "target"):
        expected = one_by_one(batch, uniforms, key, lambda x, u: x[:, ::-1] if u[0] < 0.5 else x)
        np.testing.assert_array_equal(result[key], expected)
    assert_aligned(result)
    assert 0 < (uniforms < 0.5).sum() < 40  # both cases occurred


@pytest.mark.parametrize("dtype", ["uint8", "int32", "bool", "float64"])
@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (6, 5, 4, 1), (6, 5, 4), (6, 1, 4, 2), (6, 3, 1)])
def test_flip_moves_whole_pixels_of_any_kind(shape, dtype):
    # Not contiguous, and read-only: as arrays that are kept in memory may be.
    image = np.arange(2 * np.prod(shape)).reshape(*shape, 2)[..., 0].astype(dtype)[:, :, ::-1]
    image.flags.writeable = False
    uniforms = np.array([[0.1], [0.9], [0.2], [0.3], [0.8], [0.5]])
    result = flip()({"image": image}, uniforms)["image"]
    expected = one_by_one(
        {"image": image}, uniforms, "image", lambda x, u: x[:, ::-1] if u[0] < 0.5 else x
    )
    assert result.dtype == image.dtype
    np.testing.assert_array_equal(result, expected)


def test_dihedral_gives_the_eight_symmetries():
    # u = (1/4 or 3/4, (2 k + 1) / 8) asks for flip or none and k quarter turns.
    rng = np.random.default_rng(1)
    one = make_batch(rng, count=1)
    batch = {key: value.repeat(8, axis=0) for key, value in one.items()}
    uniforms = np.array([[f, (2 * k + 1) / 8] for f in (0.25, 0.75) for k in range(4)])
    result = dihedral()(batch, uniforms)
    expected = [
        np.rot90(image, k)
        for image in (one["image"][0, :, ::-1], one["image"][0])
        for k in range(4)
    ]
    np.testing.assert_array_equal(result["image"], np.stack(expected))
    assert len({image.tobytes() for image in result["image"]}) == 8
    assert_aligned(result)


def test_dihedral_commutes_with_bicubic_reduction():
    # The filter is symmetric, so the small version of a turned picture is the turned small
    # version; Pillow works in fixed point, first along rows, which may differ by one level.
    rng = np.random.default_rng(2)
    target = rng.integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    image = np.stack([reduce_bicubic(picture) for picture in target])
    uniforms = rng.random((8, 2))
    result = dihedral()({"image": image, "target": target}, uniforms)
    again = np.stack([reduce_bicubic(picture) for picture in result["target"]])
    assert np.abs(again.astype(int) - result["image"]).max() <= 1


@pytest.mark.parametrize("padding", [1, 4])
def test_pad_crop_equals_the_written_out_one(padding):
    rng = np.random.default_rng(3)
    batch = {"image": rng.integers(0, 256, (200, 8, 6, 1), dtype=np.uint8)}
    uniforms = rng.random((200, 2))
    uniforms[0], uniforms[1] = 0.0, LARGEST

    def written_out(image, u):
        padded = np.zeros((8 + 2 * padding, 6 + 2 * padding, 1), np.uint8)
        padded[padding:-padding, padding:-padding] = image
        top, left = int(u[0] * (2 * padding + 1)), int(u[1] * (2 * padding + 1))
        return padded[top : top + 8, left : left + 6]

    result = pad_crop(padding)(batch, uniforms)["image"]
    np.testing.assert_array_equal(result, one_by_one(batch, uniforms, "image", written_out))


def test_pad_crop_reaches_every_offset_equally_often():
    # A single bright pixel in the middle of 5 x 5 shows the offset; of the 9 offsets each has
    # expectation 9000 / 9 = 1000, standard deviation sqrt(1000 * 8 / 9) = 30: 5 of them is 150.
    image = np.zeros((9000, 5, 5, 1), np.uint8)
    image[:, 2, 2] = 255
    moved = pad_crop(1)({"image": image}, np.random.default_rng(4).random((9000, 2)))["image"]
    counts = (moved == 255).sum(axis=0)[1:4, 1:4, 0]
    assert counts.sum() == 9000
    assert np.abs(counts - 1000).max() < 150


def test_aligned_crop_cuts_the_same_part_of_all():
    rng = np.random.default_rng(5)
    batch = make_batch(rng, size=7, count=50)
    uniforms = rng.random((50, 2))
    result = aligned_crop(3)(batch, uniforms)
    assert result["image"].shape == (50, 3, 3, 3)
    assert result["target"].shape == (50, 12, 12, 3)
    assert_aligned(result)
    expected = one_by_one(
        batch, uniforms, "image", lambda x, u: x[int(5 * u[0]) :, int(5 * u[1]) :][:3, :3]
    )
    np.testing.assert_array_equal(result["image"], expected)


@given(choices=st.integers(1, 2**20))
def test_the_largest_number_stays_inside(choices):
    # aligned_crop(1) on 1 x choices pixels: the offset must be choices - 1 at most.
    batch = {"image": np.zeros((1, 1, choices, 1), np.uint8)}
    batch["image"][0, 0, -1] = 9
    assert aligned_crop(1)(batch, np.array([[LARGEST, LARGEST]]))["image"].item() == 9


def test_compose_gives_each_its_own_numbers():
    rng = np.random.default_rng(6)
    batch = make_batch(rng)
    uniforms = rng.random((5, 5))
    augment = compose(flip(), dihedral(), aligned_crop(2))
    assert augment.num_draws == 5
    result = augment(batch, uniforms)
    expected = flip()(batch, uniforms[:, :1])
    expected = dihedral()(expected, uniforms[:, 1:3])
    expected = aligned_crop(2)(expected, uniforms[:, 3:])
    np.testing.assert_equal(result, expected)
    assert_aligned(result)


@pytest.mark.parametrize(
    "augment", [flip(), dihedral(), aligned_crop(3)], ids=["flip", "d4", "crop"]
)
def test_the_batch_given_is_left_alone(augment):
    rng = np.random.default_rng(7)
    batch = make_batch(rng)
    before = {key: value.copy() for key, value in batch.items()}
    for value in batch.values():
        value.flags.writeable = False
    result = augment(batch, rng.random((5, augment.num_draws)))
    np.testing.assert_equal(batch, before)
    assert {key: value.dtype for key, value in result.items()} == {
        key: value.dtype for key, value in before.items()
    }
    np.testing.assert_array_equal(result["mask"], before["mask"])


def test_class_labels_are_no_pictures():
    batch = {"image": np.zeros((3, 4, 4, 1), np.uint8), "label": np.array([1, 2, 3], np.int32)}
    result = compose(flip(), pad_crop(1))(batch, np.full((3, 3), 0.1))
    np.testing.assert_array_equal(result["label"], [1, 2, 3])


def test_what_cannot_be_augmented_is_refused():
    rng = np.random.default_rng(8)
    batch = make_batch(rng)
    with pytest.raises(ValueError, match="padding must be at least 1 pixel, got 0"):
        pad_crop(0)
    with pytest.raises(ValueError, match=r"at least 1 pixel, got -2"):
        aligned_crop(-2)
    with pytest.raises(ValueError, match="a crop of 7 pixels does not fit into pictures 6 x 6"):
        aligned_crop(7)(batch, rng.random((5, 2)))
    with pytest.raises(ValueError, match="use aligned_crop"):
        pad_crop(1)(batch, rng.random((5, 2)))
    with pytest.raises(ValueError, match=r"uniforms of shape \(5, 2\), expected \(5, 1\)"):
        flip()(batch, rng.random((5, 2)))
    with pytest.raises(ValueError, match="quarter turns need square pictures"):
        dihedral()({"image": batch["image"][:, :3]}, rng.random((5, 2)))
    with pytest.raises(ValueError, match="no multiple of image's 6 x 6"):
        aligned_crop(2)({**batch, "target": batch["target"][:, :-1]}, rng.random((5, 2)))
