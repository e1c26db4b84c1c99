"""What the cases damage: a tiny run, a grid, an experiment of the laboratory, data; made once."""

import contextlib
import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from clipjax import data
from experiments import compare, train
from experiments.high_probability.config import Config
from experiments.high_probability.run import run as follow
from experiments.setup import config as configs
from experiments.tune import __main__ as tune

TINY = """from experiments.config import MLP, SGD, Duration, Grid, Run

run = Run(
    task="classification",
    dataset="digits",
    model=MLP(hidden=(4,)),
    optimizer=SGD(0.1),
    duration=Duration(steps=2),
    batch_size=64,
    log_every=1,
    evaluate_every=Duration(steps=2),
    checkpoint_every=Duration(steps=1),
    calibration_batches=1,
    samples=2,
)
"""

_TAIL = """
    --problem quadratic --dimension 2 --noises normal --steps 4 --replicas 16 --chunk 8
    --records 2 --methods sgd --levels 0.5 --seed 0
"""
TAIL = tuple(_TAIL.split())
"""Flags of a high_probability experiment of a second."""

SEARCH = """from experiments.config import LogUniform, Search

space = {"*": {"optimizer.learning_rate": LogUniform(0.1, 1.0)}}
config = Search({"digits/sgd": run}, space, trials=2)
"""

TIMES = """submission,workload,study,trial,time_to_target_s
a,wmt,0,0,2
a,wmt_glu,0,0,nan
b,wmt,0,0,3
b,wmt_glu,0,0,5
"""


def tiny_run() -> configs.Run:
    """Return the run that `TINY` yields."""
    names: dict = {}
    exec(TINY, names)
    return names["run"]


def make(folder: Path) -> None:
    """Make everything, each in a folder of its own.

    configs: tiny.py, tiny_grid.py, tiny_search.py; run: a finished run; grid: one of two methods;
    search: a finished search of two trials; tail: a finished experiment; chunks: one that was
    stopped half-way; data: digits, prepared; raw: `write_raw`; times: times.csv, of two
    submissions.
    """
    (folder / "configs").mkdir(parents=True)
    tiny, grid = folder / "configs" / "tiny.py", folder / "configs" / "tiny_grid.py"
    tiny.write_text(f"{TINY}\nconfig = run\n")
    both = "{'digits/sgd': run, 'digits/sgd_m': replace(run, optimizer=SGD(0.1, momentum=0.9))}"
    text = f"{TINY}\nfrom dataclasses import replace\nconfig = Grid({both}, seeds=(0,))\n"
    grid.write_text(text)
    search = folder / "configs" / "tiny_search.py"
    search.write_text(f"{TINY}\n{SEARCH}")
    with contextlib.redirect_stdout(io.StringIO()):
        for main, path, name in (
            (train.main, tiny, "run"),
            (compare.main, grid, "grid"),
            (tune.main, search, "search"),
        ):
            workdir = str(folder / name / name)
            line = ["--config", str(path), "--workdir", workdir, "--distributed", "off"]
            assert main(line) == 0
    tail = Config(dimension=2, noises=("normal",), steps=4, replicas=16, chunk=8, records=2)
    tail = Config(**{**vars(tail), "methods": ("sgd",), "levels": (0.5,)})
    follow(tail, folder / "tail" / "tail")
    asked = iter((False, True))
    follow(tail, folder / "chunks" / "chunks_of", should_stop=lambda: next(asked))
    data.prepare("digits", folder / "data" / "data")
    write_raw(folder / "raw" / "raw")
    (folder / "times").mkdir()
    (folder / "times" / "times.csv").write_text(TIMES)


def write_raw(folder: Path) -> None:
    """Write raw data: pictures/, masks/, large/, in the three formats; two zipped."""
    classes = ("cat", "dog")
    for split in ("train", "val"):
        for number, name in enumerate(classes):
            for i in range(2):
                path = folder / "pictures" / split / name / f"{split}_{name}_{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(picture(10 * number + i, 8, 8))
        path = folder / "large" / split / f"{split}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(5, 16, 16))
    masks = folder / "masks"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (masks / part).mkdir(parents=True)
    (masks / "classes.txt").write_text("background\nthing\n")
    for i, split in enumerate(("train", "val")):
        (masks / "JPEGImages" / f"{split}.png").write_bytes(picture(i, 8, 8))
        (masks / "SegmentationClass" / f"{split}.png").write_bytes(picture(i, 8, 8, mask=True))
        (masks / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(f"{split}\n")
    for name in ("pictures", "masks"):
        shutil.make_archive(str(folder / f"zipped_{name}"), "zip", folder / name)


def picture(seed: int, height: int, width: int, *, mask: bool = False) -> bytes:
    """Return a PNG of noise, or a mask of two classes."""
    draw = np.random.default_rng(seed)
    shape = (height, width) if mask else (height, width, 3)
    file = io.BytesIO()
    Image.fromarray(draw.integers(0, 2 if mask else 256, shape, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()
