import itertools

import numpy as np
import pytest

from clipjax.data.builders import digit_scenes
from clipjax.data.builders.digit_scenes import (
    BACKGROUND_LIGHT,
    HEIGHTS,
    MAX_OVERLAP,
    OPACITY,
    DigitScenes,
    Layer,
    compose,
    crop_background,
    draw_colour,
    enlarge,
    place,
)
from clipjax.data.builders.digits import load_digits
from clipjax.data.builders.photographs import load_photographs
from clipjax.data.sources import load


@pytest.mark.parametrize(("split", "count"), [("train", 600), ("test", 100)])
def test_scenes(data_dir, split, count):
    arrays = load("digit_scenes", split, data_dir).in_memory()
    assert arrays["image"].shape == (count, 128, 128, 3)
    share = np.bincount(arrays["label"].ravel(), minlength=11) / arrays["label"].size
    assert len(share) == 11
    assert 0.83 < share[0] < 0.87
    assert (share[1:] > 0.009).all()  # no class is rare: a tenth of 0.15 each, within 40 %


@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_are_the_digits_that_were_placed(data_dir, split):
    source = load("digit_scenes", split, data_dir)
    for record, label in zip(source.records, source.in_memory()["label"], strict=True):
        shown = record["id"].decode().partition(": ")[2].partition(" over ")[0].split()
        assert 2 <= len(shown) <= 4
        assert set(np.unique(label)) == {0} | {1 + int(digit) for digit in shown}


@pytest.mark.parametrize("test", [False, True])
def test_digits_and_photographs_are_split_before_composing(monkeypatch, test):
    placed, cropped = [], []

    def spy_place(digits, numbers, rng):
        placed.extend(digits)
        return place(digits, numbers, rng)

    def spy_crop(photograph, rng):
        cropped.append(photograph)
        return crop_background(photograph, rng)

    monkeypatch.setattr(digit_scenes, "place", spy_place)
    monkeypatch.setattr(digit_scenes, "crop_background", spy_crop)
    generate = DigitScenes._generate_examples
    list(itertools.islice(generate(None, test=test), 30))

    images, _, is_test = load_digits()
    allowed = {image.tobytes() for image in images[is_test == test]}
    forbidden = {image.tobytes() for image in images[is_test != test]} - allowed
    assert {digit.tobytes() for digit in placed} <= allowed
    assert not {digit.tobytes() for digit in placed} & forbidden
    photographs = [picture.tobytes() for picture in load_photographs(test=test).values()]
    assert {picture.tobytes() for picture in cropped} == set(photographs)


def test_digits_are_40_to_80_pixels_tall_and_stay_visible():
    images, numbers, _ = load_digits()
    rng = np.random.default_rng(0)
    tallest = shortest = 60
    for _ in range(40):
        chosen = rng.choice(len(images), 4)
        layers = place(images[chosen], numbers[chosen], rng)
        assert [layer.number for layer in layers] == numbers[chosen].tolist()
        for layer, other in itertools.combinations(layers, 2):  # other is in front
            assert (layer.mask & other.mask).sum() <= MAX_OVERLAP * layer.mask.sum()
        heights = [np.ptp(np.flatnonzero(layer.ink.any(axis=1))) + 1 for layer in layers]
        tallest, shortest = max(tallest, *heights), min(shortest, *heights)
    assert tallest <= HEIGHTS[1]
    assert shortest >= 0.9 * HEIGHTS[0]  # a faint top or bottom row falls below the ramp


def test_enlarging_keeps_the_aspect_and_the_strokes():
    # A 4 x 2 block of full ink in an 8 x 8 picture is only the block, at any height.
    block = np.zeros((8, 8), np.uint8)
    block[2:6, 3:5] = 255
    np.testing.assert_array_equal(enlarge(block, 60), np.ones((60, 30)))
    # Half a block dark, half a block light (10 %): the edge is in the middle.
    block[2:6, 4] = 25
    large = enlarge(block, 80)
    assert large.shape == (80, 40)
    assert (large[:, :15] == 1).all()
    assert (large[:, 25:] == 0).all()


def test_compose_paints_ink_shadow_and_nothing_else():
    rng = np.random.default_rng(1)
    background = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    ink = np.zeros((128, 128), np.float32)
    ink[40:80, 50:70] = 1
    ink[80:82, 50:70] = 0.4  # less than half covered: painted over, but labelled background
    scene, labels = compose(background, [Layer(7, ink)], np.random.default_rng(2))

    expected = np.zeros((128, 128), np.uint8)
    expected[40:80, 50:70] = 8  # class 1 + 7
    np.testing.assert_array_equal(labels, expected)

    # Inside: (1 - opacity) times the (darkened) background plus opacity times one colour.
    colour = draw_colour(np.random.default_rng(2))
    inside = scene[40:80, 50:70].astype(float)
    assert (inside >= OPACITY * colour - 0.5).all()
    assert (inside <= OPACITY * colour + (1 - OPACITY) * BACKGROUND_LIGHT * 255 + 0.5).all()

    # Far away, dimmed only; just below and to the right, darker; never lighter than dimmed.
    background = np.rint(BACKGROUND_LIGHT * background.astype(float)).astype(np.uint8)
    changed = (scene != background).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[0] >= 32
    assert rows[-1] <= 92
    assert columns[0] >= 42
    assert columns[-1] <= 80
    outside = ink == 0
    assert (scene[outside] <= background[outside]).all()
    assert (scene[83, 55:70].astype(int) < background[83, 55:70])[background[83, 55:70] > 20].all()


def test_the_digit_in_front_hides_the_one_behind():
    back, front = np.zeros((2, 128, 128), np.float32)
    back[20:60, 20:60] = 1
    front[40:80, 40:80] = 1
    background = np.zeros((128, 128, 3), np.uint8)
    _, labels = compose(background, [Layer(0, back), Layer(9, front)], np.random.default_rng(0))
    assert labels[30, 30] == 1
    assert labels[50, 50] == 10


def test_colours_are_brighter_than_any_background():
    # Value at least 0.92 and saturation at most 0.4: no channel is below 0.92 * 0.6 * 255 = 140,
    # while the lightest photograph is dimmed to 0.45 * 255 = 115.
    rng = np.random.default_rng(3)
    colours = np.array([draw_colour(rng) for _ in range(300)])
    assert colours.min() >= 140 > 115 >= BACKGROUND_LIGHT * 255
    assert np.ptp(colours, axis=0).min() > 70
