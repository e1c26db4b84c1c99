"""The full-size configs: the thesis's numbers, small forms, pictures of any size, weights."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from clipjax.data import load, prepare
from clipjax.data.views import View
from clipjax.models.pretrained import TRUNK
from clipjax.train import mesh as meshes
from configs import thesis
from experiments.evaluate import evaluate_run
from experiments.setup import build, config_files, inputs, samples
from experiments.setup import config as configs
from experiments.setup.runs import run_one
from experiments.setup.workbench import Workbench
from experiments.train import parse_train
from tests.data.builders.miniature import encode, palette, pixels, shared, write_folder
from tests.experiments.test_config import make_run

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted(
    path
    for task in ("imagenet100", "voc2012", "div2k")
    for path in (ROOT / "configs").glob(f"{task}_*.py")
)


def test_there_is_a_file_for_each_task_and_method():
    names = {path.stem for path in FILES}
    assert names >= {f"{task}_{method}" for task in thesis.TASKS for method in thesis.METHODS}
    assert names >= {f"imagenet100_successor_{method}" for method in thesis.METHODS}


def test_the_numbers_are_those_of_the_thesis():
    """Learning rate, momentum, clipping and batch as its text states them (section 4)."""
    for task, clipped_rate in (("imagenet100", 1e-3), ("voc2012", 1e-4), ("div2k", 1e-4)):
        runs = {method: thesis.full(task, method) for method in thesis.METHODS}
        assert runs["sgd"].optimizer == configs.SGD(1e-4, momentum=0.99)
        clipped = runs["clipped_sgd"].optimizer
        assert dataclasses.astuple(clipped)[:4] == (clipped_rate, 0.1, "value", 0.99)
        sstm = runs["clipped_sstm"].optimizer
        assert (sstm.learning_rate, sstm.smoothness, sstm.holder_exponent) == (1e-5, 10.0, 1.0)
        assert runs["adam"].optimizer == configs.Adam(1e-4)
        if task == "imagenet100":
            sizes = [runs[method].batch_size for method in thesis.METHODS]
            assert sizes == [32, 32, 2 * 32, 4 * 32]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_has_a_small_form_with_the_same_method(path):
    full, small = config_files.load(path), config_files.load(path, small=True)
    assert small.optimizer == full.optimizer
    assert small.task == full.task
    assert small.dataset in ("digits", "digit_scenes", "photos_x4")  # nothing to download
    assert small.pretrained is None
    assert small.duration.steps <= 100


def test_small_is_a_flag(tmp_path):
    config = str(ROOT / "configs/imagenet100_sgd.py")
    line = ["--config", config, "--workdir", str(tmp_path), "--small", "--duration.steps", "3"]
    command = parse_train(line)
    assert (command.run.dataset, command.run.duration.steps) == ("digits", 3)
    with pytest.raises(ValueError, match=r"smoke\.py has no small form: leave --small out"):
        config_files.load(ROOT / "configs/smoke.py", small=True)


def test_a_full_size_run_without_its_data_says_how_to_prepare_it(tmp_path):
    run = config_files.load(ROOT / "configs/voc2012_adam.py")
    with pytest.raises(FileNotFoundError, match=r"prepare --dataset voc2012_segmentation"):
        run_one(run, tmp_path / "work", Workbench(tmp_path / "data"))
    assert not (tmp_path / "work").exists()


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Pictures of several sizes for the three tasks: 48 x 40 to 68 x 60 pixels."""
    base = tmp_path_factory.mktemp("full_size")
    sizes = [(48 + 4 * i, 40 + 4 * i) for i in range(6)]
    pictures = [encode(pixels(i, *size)) for i, size in enumerate(sizes)]
    for split in ("train", "test"):
        write_folder(base / "c", {f"{split}/{i % 2}/{i}.png": p for i, p in enumerate(pictures)})
        write_folder(base / "r", {f"{split}/{i}.png": p for i, p in enumerate(pictures)})
    masks = [np.random.default_rng(i).integers(0, 3, size) for i, size in enumerate(sizes)]
    write_folder(base / "s", {f"JPEGImages/{i}.png": p for i, p in enumerate(pictures)})
    write_folder(
        base / "s", {f"SegmentationClass/{i}.png": palette(m) for i, m in enumerate(masks)}
    )
    ids = "".join(f"{i}\n" for i in range(6)).encode()
    write_folder(base / "s", {f"ImageSets/Segmentation/{s}.txt": ids for s in ("train", "val")})
    write_folder(base / "s", {"classes.txt": b"a\nb\nc\n"})
    for kind, name in (("c", "image"), ("s", "segmentation"), ("r", "super_resolution")):
        prepare(f"{name}_folder", base / "data", raw_dir=base / kind)
    return base / "data"


RUNS = {
    "classification": {
        "dataset": "image_folder",
        "model": configs.ResNet18(width=2, stage_sizes=(1,)),
        "crop": 16,
    },
    "segmentation": {
        "dataset": "segmentation_folder",
        "model": configs.FCN32s(width=2, fc_width=4, fc_kernel=3, pool_stages=2, dtype="bfloat16"),
        "crop": 32,
    },
    "super_resolution": {
        "dataset": "super_resolution_folder",
        "model": configs.SRResNet(num_blocks=1, channels=4, kernel_size=3),
        "crop": 8,
    },
}


@pytest.mark.parametrize("task", RUNS)
def test_pictures_of_any_size_are_trained_on_and_evaluated(tmp_path, data_dir, task):
    run = make_run(
        task=task,
        batch_size=4,
        evaluation_batch_size=4,
        duration=configs.Duration(steps=2),
        evaluate_every=configs.Duration(steps=2),
        calibration_batches=1,
        samples=2,
        optimizer=configs.SGD(1e-3),
        **RUNS[task],
    )
    bench = Workbench(data_dir)
    bench.mesh = meshes.make_mesh(jax.devices()[:1])
    summary = run_one(run, tmp_path, bench)
    expected = {
        "classification": {"top1", "top5"},
        "segmentation": {"mean_iou", "pixel_accuracy"},
        "super_resolution": {"psnr", "psnr_y", "psnr_rgb", "ssim_y", "bicubic_ssim_y"},
    }[task]
    assert expected <= set(summary["metrics"])
    assert all(np.isfinite(value) for value in summary["metrics"].values())
    source = bench.sources(run)[0]
    assert summary["class_names"] == list(source.class_names)
    assert len(summary["class_names"]) == source.num_classes
    with np.load(tmp_path / "figures/samples.npz") as arrays:
        kept = samples.unpadded(arrays)
    if task != "classification":  # whole pictures, without the padding to a multiple of 128 or 64
        _, held_out = bench.sources(run)
        sizes = {tuple(size) for size in held_out.sizes}
        images = kept["image" if task == "segmentation" else "lr"]
        assert len(images) == 2
        assert {image.shape[:2] for image in images} <= sizes
    if task == "segmentation":
        assert {label.shape for label in kept["prediction"]} <= sizes


@pytest.mark.parametrize("task", RUNS)
def test_without_augmentation_nothing_is_random(data_dir, task):
    run = make_run(task=task, batch_size=6, augment=False, **RUNS[task])
    source = load(RUNS[task]["dataset"], "train", data_dir)
    views = inputs.views(run, source)
    assert views.train is views.calibrate
    assert inputs.augment(run, source) is None
    moving = inputs.views(dataclasses.replace(run, augment=True), source)
    assert moving.train.num_draws > 0
    whole = isinstance(moving.evaluate, int)
    assert whole == (task != "classification")
    assert whole or isinstance(moving.evaluate, View)


def test_pictures_of_one_size_need_no_views():
    assert inputs.views(make_run(), load("digits", "train")) is None


def test_the_held_out_split(tmp_path, data_dir):
    assert inputs.held_out({"train": 1, "validation": 1, "test": 1}, "x") == "test"
    with pytest.raises(
        ValueError, match=r"has the splits \['train'\]: say which one to evaluate on"
    ):
        inputs.held_out({"train": 1}, "x")
    run = make_run(task="segmentation", evaluation_split="train[:2]", **RUNS["segmentation"])
    _, held = build.load_sources(run, data_dir)
    assert len(held) == 2


def test_a_run_may_be_evaluated_on_another_data_set(tmp_path, data_dir):
    """While it trains, and afterwards: the same numbers, of that data set's own examples."""
    run = make_run(
        task="super_resolution",
        batch_size=4,
        duration=configs.Duration(steps=2),
        evaluation_dataset="photos_x4",
        evaluation_split="test[:3]",
        calibration_batches=1,
        samples=0,
        optimizer=configs.SGD(1e-3),
        **RUNS["super_resolution"],
    )
    bench = Workbench(data_dir)
    bench.mesh = meshes.make_mesh(jax.devices()[:1])
    there = run_one(run, tmp_path / "there", bench)["metrics"]
    own = run_one(dataclasses.replace(run, evaluation_dataset=None), tmp_path / "own", bench)[
        "metrics"
    ]
    assert there["bicubic_psnr"] != own["bicubic_psnr"]
    # The baseline knows of no training: it is that of photos_x4's test pictures, but for what
    # bicubic interpolation sees beyond their borders (here mirrored, there nothing).
    direct = run_one(
        dataclasses.replace(run, dataset="photos_x4", evaluation_dataset=None),
        tmp_path / "direct",
        bench,
    )["metrics"]
    assert there["bicubic_psnr"] == pytest.approx(direct["bicubic_psnr"], rel=1e-3)
    after = evaluate_run(tmp_path / "own", bench, "photos_x4", "test[:3]")
    assert {name: after[name] for name in there} == pytest.approx(there)
    part = evaluate_run(tmp_path / "own", bench, split="test[2:]")
    assert part["bicubic_psnr"] != own["bicubic_psnr"]


@pytest.mark.parametrize(
    ("trained", "other", "message"),
    [
        ("segmentation", "photos_x4", r"the one has \['label'\], the other \['target'\]"),
        ("classification", "digits", r"their classes differ: \('0', '1'\) and "),
        ("super_resolution", "image_folder", r"has \['target'\], the other \['label'\]"),
    ],
)
def test_examples_that_do_not_suit_the_network_are_refused(data_dir, trained, other, message):
    run = make_run(task=trained, evaluation_dataset=other, **RUNS[trained])
    with pytest.raises(ValueError, match=f"cannot be evaluated on '{other}': .*{message}"):
        build.load_sources(run, data_dir)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 8, 3), "their pictures have 1 and 3 channels"),
        ((9, 8, 1), r"their pictures are \(8, 8, 1\) and \(9, 8, 1\)"),
        ((None, None, 1), r"their pictures are \(8, 8, 1\) and \(None, None, 1\)"),
    ],
)
def test_pictures_of_another_shape_are_refused(monkeypatch, shape, message):
    """A network of 8 x 8 pictures has seen nothing like larger ones."""
    found = {"digits": load("digits", "train"), "mnist": load("digits", "test")}
    found["mnist"] = dataclasses.replace(found["mnist"], name="mnist", image_shape=shape)
    monkeypatch.setattr(build.datasets, "load", lambda name, split, data_dir: found[name])
    run = make_run(evaluation_dataset="mnist", evaluation_split="test")
    with pytest.raises(ValueError, match=f"cannot be evaluated on 'mnist': {message}"):
        build.load_sources(run, None)


def fake_weights(path):
    """The trunk's published shapes with small random numbers."""
    rng = np.random.default_rng(0)
    arrays, channels = {}, 3
    for name in TRUNK:
        features = 64 * 2 ** min(int(name[5]) - 1, 3)
        arrays[f"{name}/kernel"] = rng.normal(size=(3, 3, channels, features)).astype(np.float16)
        arrays[f"{name}/bias"] = rng.normal(size=features).astype(np.float32)
        channels = features
    np.savez(path, **arrays)
    return arrays


def test_a_run_starts_at_pretrained_weights(tmp_path, data_dir, capsys):
    arrays = fake_weights(tmp_path / "vgg16.npz")
    model = configs.FCN32s(fc_width=4, fc_kernel=3, pool_stages=2)
    run = make_run(
        task="segmentation",
        dataset="segmentation_folder",
        model=model,
        batch_size=2,
        crop=16,
        pretrained=str(tmp_path / "vgg16.npz"),
    )
    sources = build.load_sources(run, data_dir)
    mesh = meshes.make_mesh(jax.devices()[:1])
    program = build.make_program(run, sources, mesh)
    assert "fc6, fc7 are not in the file and start at random" in capsys.readouterr().err
    # Caffe's mean of green, on [0, 1].
    assert program.task.mean[1] == pytest.approx(116.779 / 255)
    batch = meshes.place(next(build.make_data(run, sources, mesh).calibration(1)), mesh)
    params = program.init(build.make_controls(run), batch).params
    assert set(params["vgg16"]) == {f"block{i}_conv{j}" for i in (1, 2) for j in (1, 2)}
    for name, layer in params["vgg16"].items():
        expected = arrays[f"{name}/kernel"].astype(np.float32)
        expected = expected[:, :, ::-1] if name == "block1_conv1" else expected
        np.testing.assert_array_equal(layer["kernel"], expected)
        assert layer["kernel"].dtype == np.float32
    plain = build.make_program(dataclasses.replace(run, pretrained=None), sources, mesh)
    random = plain.init(build.make_controls(run), batch).params
    np.testing.assert_array_equal(params["fc6"]["kernel"], random["fc6"]["kernel"])
    assert plain.task.mean[1] == 0.456
    with pytest.raises(ValueError, match="has no kernel of fc6, which require='all' needs"):
        build.make_program(dataclasses.replace(run, pretrained_require="all"), sources, mesh)
    with pytest.raises(
        ValueError, match="pretrained weights are VGG-16's, for FCN32s; the model is"
    ):
        make_run(pretrained="x.npz")


@pytest.mark.parametrize(
    ("name", "file"), [("mnist", None), ("fashion_mnist", None), ("cifar100", "x")]
)
def test_moments_are_those_of_the_training_images(name, file):
    """MNIST's to four digits; CIFAR-100's from a sixth of its images, to two."""
    from clipjax.data.builders.mnist import read_idx

    folder = shared(name)
    if file is None:
        images = read_idx(folder / "train-images-idx3-ubyte.gz")[..., None] / 255
        tolerance = 1e-4
    else:
        with np.load(folder / "cifar100_subset.npz") as arrays:
            images = arrays["train_images"] / 255
        tolerance = 5e-3
    mean, std = build.MOMENTS[name]
    np.testing.assert_allclose(images.mean((0, 1, 2)), mean, atol=tolerance)
    np.testing.assert_allclose(images.std((0, 1, 2)), std, atol=tolerance)
