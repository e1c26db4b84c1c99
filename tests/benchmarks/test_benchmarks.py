"""The benchmarks run, on sizes that say nothing, and count memory right."""

import re
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from benchmarks import (
    dispatch,
    growing_batches,
    growth_networks,
    input,
    optimizer_step,
    torch_input,
    train_step,
)
from clipjax import data


def test_optimizer_step_counts_the_state(capsys):
    optimizer_step.main(size=("tiny",), rounds=1, seconds=1e-3)
    printed = capsys.readouterr().out
    # Bytes of state a parameter, from the last but one column: 4 for each buffer of float32.
    state = {}
    for line in printed.splitlines():
        cells = [cell.strip() for cell in line.split("│")]
        if len(cells) > 2:
            state[cells[1]] = float(cells[-3])
    assert set(state) == {optimizer_step.COPY, *optimizer_step.optimizers()}
    for name in ("clipped_sstm", "clipped_sgd, momentum", "optax sgd momentum"):
        assert state[name] == 4, "one buffer"
    assert state["optax adam"] == 8, "two"
    assert state[optimizer_step.COPY] == 0
    assert re.search(r"optax clip, adam / clipped_sstm: \d+\.\d+", printed)


def test_dispatch_measures_every_optimizer(capsys, monkeypatch):
    listed = dispatch.optimizers()
    x = jax.ShapeDtypeStruct((10,), np.float32)
    for tx in listed.values():  # compiling each twice is what the benchmark costs
        updates, _ = jax.eval_shape(lambda x, tx=tx: tx.update(x, tx.init(x), x), x)
        assert updates == x
    measured = {name: listed[name] for name in (dispatch.YARDSTICK, "clipped_sstm")}
    monkeypatch.setattr(dispatch, "optimizers", lambda: measured)
    dispatch.main(scanned=10, looped=3, rounds=1)
    printed = capsys.readouterr().out
    for name in measured:
        assert re.search(rf"{name} +│ +\d+ │ +[\d,]+ │ +[\d.]+ │ +[\d,]+ │", printed), name


def test_growing_batches_measures_both_forms(capsys):
    growing_batches.main(("MLP 784-128-10",), micro_batch=8, parts=(2,), repeats=1)
    printed = capsys.readouterr().out
    assert re.search(r"2 x 8 +│ +[\d,]+/s +│ +[\d,]+/s +│ +\d+\.\d\d", printed)


def test_growth_networks_measures_all_sides(capsys, monkeypatch):
    monkeypatch.setattr(growth_networks, "CASES", {"two a fold": (2, 3)})
    options = growth_networks.Options(
        250, steps=9, single_steps=9, repeats=1, whole_epoch=True, whole_run=True
    )
    growth_networks.main(options)
    printed = capsys.readouterr().out
    # 250 examples are 200 for training, 8 batches: 9 steps are more than an epoch.
    assert re.search(r"two a fold +│( +[\d,.]+ │){5} +3 in \d+ s", printed)
    assert re.search(r"one epoch of 10 networks with its evaluation: \d+ s", printed)
    assert re.search(r"\n3 epochs of 10 networks with their evaluations: \d+ s", printed)


def test_the_loop_of_the_growth_networks_does_what_the_program_does():
    """Same weights after 12 steps of 8 an epoch (the order begins again)."""
    options = growth_networks.Options(250)
    data = growth_networks.made_up(options)
    side = growth_networks.Side(data, growth_networks.make_groups(data, (0,), 5), 2)
    kept = []
    loop = growth_networks.python_loop(side, kept.append)
    loop(12)
    side.make(12)
    ours = jax.tree.map(lambda leaf: leaf[0, 0], side.params)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(kept[0]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_train_step_has_the_networks_as_published():
    # Conv k x k of c to d: k k c d + d, BatchNorm 2 d, PReLU 1.
    # ResNet-18: torchvision's 11,689,512.
    # FCN-32s: VGG-16's convolutions 14,714,688; fc6 49 * 512 * 4096 + 4096; fc7 4096^2 + 4096;
    # the score 4096 * 21 + 21; the upsampling 64^2 * 21^2.
    # SRResNet: 81 * 3 * 64 + 64 + 1; 16 blocks of 2 * (9 * 64^2 + 128) + 1; 9 * 64^2 + 128;
    # 2 of 9 * 64 * 256 + 256 + 1; 81 * 64 * 3 + 3.
    fcn = 14_714_688 + 102_764_544 + 16_781_312 + 86_037 + 1_806_336
    blocks = 16 * (2 * (9 * 64**2 + 128) + 1) + 9 * 64**2 + 128
    srresnet = 15_617 + blocks + 2 * 147_713 + 15_555
    counted = []
    for case in train_step.full_cases(jax.numpy.bfloat16):
        assert case.model.dtype == jax.numpy.bfloat16
        image = np.zeros((1, 64, 64, 3), np.float32)
        shapes = jax.eval_shape(
            lambda key, model=case.model, image=image: model.init(key, image, train=False),
            jax.random.key(0),
        )
        leaves = jax.tree.leaves(shapes["params"])
        assert all(leaf.dtype == np.float32 for leaf in leaves)
        counted.append(sum(leaf.size for leaf in leaves))
    assert counted == [11_689_512, fcn, srresnet]


def test_train_step_takes_larger_batches_on_a_gpu():
    full, on_gpu = (train_step.cases(True, gpu=gpu)[3:] for gpu in (False, True))
    assert [len(case.batch["image"]) for case in full] == [8, 2, 4]
    assert [len(case.batch["image"]) for case in on_gpu] == list(train_step.GPU_BATCHES)
    assert [case.torch["image"][0] for case in on_gpu] == list(train_step.GPU_BATCHES)


def test_train_step_compares_like_with_like():
    (case,) = train_step.demo_cases()[:1]
    answer = {"device": "cuda", "answers": [[5, 0.1]]}
    train_step.check_same("gpu", [case], [5], answer)
    with pytest.raises(ValueError, match="PyTorch ran on gpu, JAX on cpu"):
        train_step.check_same("cpu", [case], [5], answer)
    with pytest.raises(RuntimeError, match="digits 8x8: 6 parameters here, 5 in PyTorch"):
        train_step.check_same("gpu", [case], [6], answer)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def write_raw(task: str, root: Path) -> None:
    """Write 32 pictures as users lay out their own; the same for training and evaluation."""
    rng = np.random.default_rng(0)
    ids = [f"p{number}" for number in range(32)]
    for split in ("train", "val"):
        for number, name in enumerate(ids):
            pixels = rng.integers(0, 256, (100 + number, 120, 3), dtype=np.uint8)
            if task == "classification":
                write_picture(root / split / f"class{number % 3}" / f"{name}.jpg", pixels)
            elif task == "super_resolution":
                write_picture(root / split / f"{name}.png", pixels)
            else:
                write_picture(root / "JPEGImages" / f"{name}.jpg", pixels)
                write_picture(root / "SegmentationClass" / f"{name}.png", pixels[..., 0] % 3)
        if task == "segmentation":
            listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"
            listed.parent.mkdir(parents=True, exist_ok=True)
            listed.write_text("\n".join(ids))
            (root / "classes.txt").write_text("a\nb\nc\n")


FOLDERS = {
    "classification": "image_folder/mini",
    "segmentation": "segmentation_folder/mini",
    "super_resolution": "super_resolution_folder/mini",
    "small": "digits",
}


@pytest.mark.parametrize("task", FOLDERS)
def test_input_gives_both_sides_the_same_work(task, tmp_path):
    if task != "small":
        write_raw(task, tmp_path / "raw")
        data.prepare(FOLDERS[task], tmp_path / "data", raw_dir=tmp_path / "raw")
    data_dir = None if task == "small" else tmp_path / "data"
    case = input.make_case(task, FOLDERS[task], data_dir, records=1000)
    ours = input.measure(case.pipeline(1, 0), seconds=0.0)
    assert case.pipeline(2, 3).workers == 3
    request = input.export(case, tmp_path / "exported")
    size = request["batch_size"]
    crop, larger = {
        "classification": (224, None),
        "segmentation": (320, None),
        "super_resolution": (24, 96),
        "small": (8, None),
    }[task]
    wanted = {"image": [size, crop, crop, 1 if task == "small" else 3], "mask": [size]}
    if task in ("classification", "small"):
        wanted["label"] = [size]
    elif task == "segmentation":
        wanted["label"] = [size, crop, crop]
    else:
        wanted["target"] = [size, larger, larger, 3]
    assert ours["shapes"] == wanted
    for library in ("pillow", "opencv"):
        pictures = torch_input.Pictures({**request, "library": library})
        assert len(pictures) == len(case.source)
        items = [pictures[index] for index in range(size)]
        theirs = {key: list(np.stack([i[key] for i in items]).shape) for key in items[0]}
        input.check_shapes(case, ours, {"shapes": theirs})
        pixels = np.stack([item["image"] for item in items])
        assert pixels.dtype == np.uint8
        assert len(np.unique(pixels)) > 10, "pictures, not padding"
        if task == "segmentation":
            assert set(np.unique([item["label"] for item in items])) == {0, 1, 2, 255}
        if task == "super_resolution":
            # The target's blocks average to the small picture, wherever both were cut and however
            # they were turned: by 4 x 4, up to the filter's ringing.
            blocks = np.stack([i["target"] for i in items]).reshape(size, 24, 4, 24, 4, 3)
            means = blocks.mean(axis=(2, 4)).ravel()
            assert np.corrcoef(means, pixels.ravel())[0, 1] > 0.8
    with pytest.raises(RuntimeError, match=f"{task}: batches"):
        input.check_shapes(case, ours, {"shapes": {**theirs, "image": [size, 1, 1, 3]}})


def test_input_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="did you mean 'digits'"):
        input.make_case("small", "digitz", None, 100)
    with pytest.raises(ValueError, match="have one size"):
        input.make_case("classification", "digits", None, 100)
    with pytest.raises(ValueError, match="100 training pictures, fewer than a batch of 128"):
        input.make_case("small", "digits", None, 100)
