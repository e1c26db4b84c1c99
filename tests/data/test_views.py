import itertools

import numpy as np
import pytest
from PIL import Image

from clipjax.data.views import (
    VOID,
    center_crop,
    pad_to,
    random_crop,
    random_resized_crop,
    random_scale_crop,
    resize,
    resize_center_crop,
)
from tests.data.builders.miniature import pixels

LARGEST = np.nextafter(1.0, 0.0)
NONE = np.empty(0)


def place_picture(height, width):
    """A picture that tells where each pixel was: row, column, 0."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([rows, columns, np.zeros_like(rows)], -1)


def written_out_window(height, width, uniforms):
    """torchvision's RandomResizedCrop.get_params, line by line, with given numbers."""
    for share, shape in uniforms[:20].reshape(2, 10).T:
        area = height * width * (0.08 + (1 - 0.08) * share)
        low, high = np.log(3 / 4), np.log(4 / 3)
        aspect = np.exp(low + (high - low) * shape)
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(uniforms[20] * (height - h + 1)), int(uniforms[21] * (width - w + 1)), h, w
    if width / height < 3 / 4:
        h, w = round(width / (3 / 4)), width
    elif width / height > 4 / 3:
        h, w = height, round(height * (4 / 3))
    else:
        h, w = height, width
    return (height - h) // 2, (width - w) // 2, h, w


@pytest.mark.parametrize("shape", [(40, 50), (50, 40), (200, 20), (20, 200), (3, 2), (1, 1)])
def test_random_resized_crop_takes_the_window_of_torchvision(shape):
    rng = np.random.default_rng(0)
    image = pixels(0, *shape)
    view = random_resized_crop(6)
    for draws in [*rng.random((60, 22)), np.zeros(22), np.full(22, LARGEST)]:
        top, left, height, width = written_out_window(*shape, draws)
        part = image[top : top + height, left : left + width]
        assert part.shape[:2] == (height, width)
        found = view({"image": image, "label": np.int32(4)}, draws)
        np.testing.assert_array_equal(found["image"], resize(part, 6, 6))
        assert found["label"] == 4


def test_shares_of_the_area_are_uniform():
    # Of a square all shares up to 3/4 fit in any shape; in [0.08, 0.6] no draw is rejected, so the
    # mean share is 0.34 and its standard error 0.15 / sqrt(2000) = 0.0034. Windows are rounded.
    from clipjax.data.views import _window

    rng = np.random.default_rng(1)
    windows = [_window(500, 500, (0.08, 0.6), (3 / 4, 4 / 3), rng.random(22)) for _ in range(2000)]
    shares = np.array([h * w for *_, h, w in windows]) / 500**2
    assert abs(shares.mean() - 0.34) < 4 * 0.0034
    ratios = np.log([w / h for *_, h, w in windows])
    assert abs(ratios.mean()) < 4 * (2 * np.log(4 / 3) / 12**0.5) / 2000**0.5


def test_shrinking_averages_areas():
    image = pixels(0, 12, 18)
    expected = image.reshape(4, 3, 6, 3, 3).mean((1, 3))
    assert np.abs(resize(image, 4, 6) - expected).max() <= 0.5 + 1e-6
    assert resize(image[..., :1], 4, 6).shape == (4, 6, 1)


def test_enlarging_is_bilinear():
    # Pillow's bilinear filter is the same when it enlarges; both round.
    image = pixels(0, 7, 9)
    expected = np.asarray(Image.fromarray(image).resize((20, 15), Image.Resampling.BILINEAR))
    assert np.abs(resize(image, 15, 20).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("shape", [(40, 31), (31, 40), (16, 16), (10, 200), (9, 9)])
def test_resize_center_crop(shape):
    image = place_picture(*shape)
    found = resize_center_crop(16, 14)({"image": image}, NONE)["image"]
    assert found.shape == (14, 14, 3)
    # The middle of the crop is the middle of the picture.
    scale = min(shape) / 16
    middle = found[6:8, 6:8, :2].reshape(-1, 2).mean(0)
    np.testing.assert_allclose(middle, (np.array(shape) - 1) / 2, atol=scale / 2 + 0.6)


@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.5, 2.0), (0.1, 0.2)])
def test_masks_stay_aligned_under_scaling_and_cropping(scales):
    """Classes are blocks of 8 pixels with their own grey: wherever a mask has a class, the picture
    has its grey, but for borders of blocks; void pixels are just those outside of the picture."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 20, (5, 7)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    image = np.repeat(12 * classes[..., None], 3, -1)
    view = random_scale_crop(24, scales)
    for draws in [*rng.random((40, 3)), np.zeros(3), np.full(3, LARGEST)]:
        found = view({"image": image, "label": classes}, draws)
        assert found["image"].shape == (24, 24, 3)
        label = found["label"]
        factor = scales[0] + (scales[1] - scales[0]) * draws[0]
        inside = [min(24, max(1, round(factor * n))) for n in classes.shape]
        assert (label != VOID).sum() == inside[0] * inside[1]
        real = label != VOID
        assert set(np.unique(label[real])) <= set(np.unique(classes))
        equal = np.abs(found["image"][..., 0].astype(int) - 12 * label)[real] <= 6
        # Blocks are 8 * factor pixels wide, and at most two of these are blended.
        assert equal.mean() > (0.99 if factor == 1 else 1 - min(1, 4 / (8 * factor)))


def test_small_pictures_lie_anywhere_in_the_crop():
    image, label = pixels(0, 3, 3), np.ones((3, 3), np.uint8)
    view = random_scale_crop(5, (1.0, 1.0))
    corners = set()
    for rows, columns in itertools.product((0.0, 0.4, LARGEST), repeat=2):
        found = view({"image": image, "label": label}, np.array([0.0, rows, columns]))
        where = np.argwhere(found["label"] == 1)
        top, left = where[0]
        assert len(where) == 9
        np.testing.assert_array_equal(found["image"][top : top + 3, left : left + 3], image)
        corners.add((int(top), int(left)))
    assert corners == set(itertools.product((0, 1, 2), repeat=2))


def test_random_crop_is_aligned_and_reaches_every_place():
    image = place_picture(5, 6)
    record = {"image": image, "target": image.repeat(4, 0).repeat(4, 1)}
    places = set()
    for draws in np.random.default_rng(0).random((200, 2)):
        found = random_crop(3)(record, draws)
        np.testing.assert_array_equal(found["target"], found["image"].repeat(4, 0).repeat(4, 1))
        places.add(tuple(found["image"][0, 0, :2].tolist()))
    assert places == set(itertools.product(range(3), range(4)))


def test_center_crop_and_padding():
    record = {"image": place_picture(5, 9), "label": np.ones((5, 9), np.uint8)}
    found = center_crop(3)(record, NONE)
    np.testing.assert_array_equal(found["image"], place_picture(5, 9)[1:4, 3:6])
    found = center_crop(7, pad=True)(record, NONE)
    assert found["image"].shape == (7, 7, 3)
    assert (found["label"] == VOID).sum() == 2 * 7
    assert "size" not in found
    with pytest.raises(ValueError, match="a crop of 7 pixels does not fit into 5 x 9"):
        center_crop(7)(record, NONE)


def test_padding_leaves_what_is_real_in_its_corner():
    image = pixels(0, 3, 4)
    record = {"image": image, "target": image.repeat(2, 0).repeat(2, 1)}
    found = pad_to(record, 8, 6)
    assert found["size"].tolist() == [3, 4]
    np.testing.assert_array_equal(found["image"][:3, :4], image)
    np.testing.assert_array_equal(found["image"][3:6, :4], image[::-1])
    np.testing.assert_array_equal(found["target"], found["image"].repeat(2, 0).repeat(2, 1))
    assert found["target"].shape == (16, 12, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: random_resized_crop(0), "at least 1 pixel, got 0"),
        (lambda: random_resized_crop(8, area=(0.5, 1.5)), r"area is \(0.5, 1.5\)"),
        (lambda: random_resized_crop(8, ratio=(2, 1)), r"ratio is \(2, 1\)"),
        (lambda: resize_center_crop(200, 224), "resize is 200, smaller than the crop of 224"),
        (lambda: random_scale_crop(8, (0, 1)), r"scales are \(0, 1\)"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_records_that_do_not_suit_are_refused():
    image = pixels(0, 8, 8)
    masked = {"image": image, "label": image[..., 0]}
    with pytest.raises(ValueError, match=r"changes `image` only.*use random_scale_crop for masks"):
        resize_center_crop(8, 8)(masked, NONE)
    with pytest.raises(ValueError, match=r"'label' is \(7, 8\), image \(8, 8\) pixels"):
        random_scale_crop(4)({**masked, "label": image[1:, :, 0]}, np.zeros(3))
    with pytest.raises(ValueError, match=r"'target' is \(30, 32\) pixels, no multiple of image's"):
        random_crop(4)({"image": image, "target": pixels(0, 30, 32)}, np.zeros(2))
    with pytest.raises(ValueError, match=r"uniforms of shape \(3,\), expected \(2,\)"):
        random_crop(4)(masked, np.zeros(3))
