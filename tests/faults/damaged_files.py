"""Files changed by something else: those of runs and experiments, prepared data, raw data."""

import random

from tests.faults.cases import Case, Damage
from tests.faults.command_lines import LINES, without

JSON = (
    b"[]",
    b"null",
    b"3",
    b'"text"',
    b"{}",
    b"NaN",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b"\0" * 9,
)
"""Contents that are no file of a run's."""

WRONG_JSON = (None, 3, -1, "x", [], {}, True, 1e308, float("nan"), 10**30, [[1]], "\ud800")
"""Values that take the place of another."""

GONE = ("empty", "folder", "loop")
"""How a file is no file any more."""


def _damage(draw: random.Random, file: str, hows: tuple[str, ...]) -> Damage:
    how = draw.choice(hows)
    content = draw.choice(JSON) if how == "write" else b""
    value = draw.choice(WRONG_JSON) if how == "retype" else None
    return Damage(file, how, content, value, draw.random(), draw.random())


# -- Runs -----------------------------------------------------------------------------------------

ANY = ("write", "cut", "empty", "flip", "folder", "missing", "loop", "drop", "retype")
READERS = {"evaluate": True, "noise": True, "landscape": True, "train": None}
"""Commands that read a run's folder, and whether they must refuse a config.json that is gone.

Training looks at summary.json first: a finished run is left as it is.
"""


def run_json(draw: random.Random) -> Case:
    """Return a command on a run whose config.json, summary.json or metrics.jsonl is damaged."""
    command = draw.choice(list(READERS))
    arguments, needs = LINES[command]
    if command == "train":
        arguments, needs = ("--config", "tiny.py", "--workdir", "run"), ("configs", "run")
        if draw.random() < 0.5:
            arguments += ("--duration.steps", "3")
    name = draw.choice(["config.json"] * 3 + ["summary.json", "metrics.jsonl"])
    if command in ("evaluate", "noise", "landscape"):
        name = "config.json"  # they need no other
    damage = _damage(draw, f"run/{name}", ANY)
    gone = damage.how in ("write", "missing", *GONE)
    refused = READERS[command] if gone else None
    names = name if refused else ""
    return Case(f"run: {name} {damage.how}", command, arguments, needs, (damage,), refused, names)


def checkpoint(draw: random.Random) -> Case:
    """Return a command on a run one of whose checkpoint files is damaged; both may be."""
    command = draw.choice(["evaluate", "train"])
    arguments, needs = LINES[command]
    if command == "train":
        arguments, needs = ("--config", "tiny.py", "--workdir", "run"), ("configs", "run")
        arguments += ("--duration.steps", "3")
    hows = ("cut", "empty", "flip", "missing", "folder", "write")
    damages = tuple(_damage(draw, "run/checkpoints/**/*", hows) for _ in range(draw.choice([1, 4])))
    return Case("run: a checkpoint", command, arguments, needs, damages)


def grid(draw: random.Random) -> Case:
    """Return a report on a grid of which one file is damaged."""
    name = draw.choice(["summary.json", "metrics.jsonl", "config.json", "figures/samples.npz"])
    hows = ANY if name.endswith("json") else ("cut", "empty", "flip", "folder", "missing", "loop")
    damage = _damage(draw, f"grid/*/*/seed0/{name}", hows)
    arguments, needs = LINES["report"]
    return Case(f"grid: {name} {damage.how}", "report", arguments, needs, (damage,))


def search(draw: random.Random) -> Case:
    """Return a search that goes on from, or a report on, one of whose files is damaged."""
    command = draw.choice(["tune", "report"])
    trial = "trials/*/*/seed*/"
    names = ("chosen.json", "chosen.py", f"{trial}summary.json", f"{trial}config.json")
    name = draw.choice(names)
    hows = ANY if name.endswith("json") else ("cut", "empty", "flip", "missing")
    damage = _damage(draw, f"search/{name}", hows)
    arguments, needs = LINES["tune"]
    line = (*without(arguments, "--workdir"), "--workdir", "search")
    if command == "report":
        line, needs = ("--workdir", "search"), ()
    name = name.rpartition("/")[2]
    return Case(f"search: {name} {damage.how}", command, line, (*needs, "search"), (damage,))


# -- The laboratory -------------------------------------------------------------------------------


def tail(draw: random.Random) -> Case:
    """Return an experiment that goes on from, or a report on, damaged files."""
    arguments, _ = LINES["high_probability"]
    if draw.random() < 0.5:
        name = draw.choice(["plan.json", "noise*"])
        hows = ANY if name == "plan.json" else ("cut", "empty", "flip", "folder", "missing", "loop")
        damage = _damage(draw, f"chunks_of/chunks/{name}", hows)
        line = (*without(arguments, "--workdir"), "--workdir", "chunks_of")
        return Case(
            f"chunks: {name} {damage.how}", "high_probability", line, ("chunks",), (damage,)
        )
    name = draw.choice(["summary.json", "curves.npz"])
    damage = _damage(draw, f"tail/{name}", ANY if name == "summary.json" else ANY[1:7])
    command = draw.choice(["report", "high_probability"])
    flags = without(arguments, "--workdir") if command == "high_probability" else ()
    line = (*flags, "--workdir", "tail")
    # The experiment may be done anew; a report cannot be made of nothing.
    gone = damage.how in ("empty", "folder", "loop") and command == "report"
    return Case(f"tail: {name} {damage.how}", command, line, ("tail",), (damage,), gone or None)


# -- Data -----------------------------------------------------------------------------------------


def prepared(draw: random.Random) -> Case:
    """Return a command on prepared data of which one file is damaged."""
    command = draw.choice(["train", "evaluate", "prepare"])
    arguments, needs = LINES[command]
    names = ("dataset_info.json", "features.json", "contents.json", "*array_record*")
    name = draw.choice(names)
    hows = ("cut", "empty", "flip", "missing", "folder", "loop")
    hows += ("write", "drop", "retype") if name.endswith("json") else ()
    damage = _damage(draw, f"data/digits/*/{name}", hows)
    line = (*without(arguments, "--data-dir"), "--data-dir", "data")
    cut = name.startswith("*") and damage.how in ("cut", "empty", "folder") and command == "train"
    return Case(
        f"data: {name} {damage.how}", command, line, (*needs, "data"), (damage,), cut or None
    )


FOLDERS = {"pictures": "image_folder", "masks": "segmentation_folder"}
FOLDERS |= {"large": "super_resolution_folder"}
ODD_FILES = {
    # name: (what is written, whether it must be refused without --skip-damaged)
    "raw/pictures/train/cat/text.png": (b"no picture", True),
    "raw/pictures/train/caf\udce9/a.png": (b"", True),
    "raw/pictures/train/two\nlines/a.png": (b"", None),
    "raw/pictures/trian/cat/a.png": (b"", True),
    "raw/pictures/validate/cat/a.png": (b"", None),
    "raw/pictures/train/[red]/a.jpg": (b"\xff\xd8\xff\xe0", True),
    "raw/masks/classes.txt": (b"background\nbackground\n", True),
    "raw/masks/classes.txt ": (b"", None),
    "raw/masks/ImageSets/Segmentation/train.txt": (b"train\ntrain\n", True),
    "raw/masks/ImageSets/Segmentation/val.txt": (b"absent\n", True),
    "raw/masks/ImageSets/Segmentation/tset.txt": (b"train\n", None),
    "raw/masks/SegmentationClass/train.png": (b"\x89PNG\r\n\x1a\n", True),
    "raw/large/train/LR/train.png": (b"", None),
    "raw/large/train/a.png": (b"GIF89a", True),
}
MANY = b"".join(b"class %d\n" % i for i in range(300))


def raw(draw: random.Random) -> Case:
    """Return the preparation of a folder of raw data in which something is wrong."""
    skips = draw.random() < 0.25
    if draw.random() < 0.5:
        name, (content, refused) = draw.choice(list(ODD_FILES.items()))
        if name.endswith("classes.txt") and draw.random() < 0.3:
            content = draw.choice([MANY, b"", b"\xff\xfe\n", b"\0\n"])
        damage, folder = Damage(name, "write", content), name.split("/")[1]
    else:
        folder = draw.choice(list(FOLDERS))
        zipped = draw.random() < 0.3 and folder in ("pictures", "masks")
        file = f"raw/zipped_{folder}.zip" if zipped else f"raw/{folder}/**/*"
        damage = _damage(draw, file, ("cut", "empty", "flip", "folder", "loop", "missing"))
        refused = None if damage.how in ("missing", "flip") else True if zipped else None
        folder = f"zipped_{folder}.zip" if zipped else folder
    dataset = FOLDERS[folder.removeprefix("zipped_").removesuffix(".zip")]
    line = ("--dataset", f"{dataset}/mine", "--raw-dir", f"raw/{folder}", "--data-dir", "new")
    line += ("--skip-damaged",) if skips else ()
    refused = None if skips else refused
    return Case(f"raw: {folder} {damage.how}", "prepare", line, ("raw",), (damage,), refused)


GOOD = b"+1 1:0.5 2:1\n-1 2:-0.5\n"
ROWS = {
    "text": b"one 1:1\n",
    "an index of 0": b"1 0:1\n",
    "a negative index": b"1 -1:1\n",
    "a huge index": b"1 100000000:1\n",
    "an index beyond int64": b"1 99999999999999999999:1\n",
    "no value": b"1 1:\n",
    "no index": b"1 :1\n",
    "words": b"1 one:two\n",
    "falling indices": b"1 2:1 1:1\n",
    "an index twice": b"1 1:1 1:2\n",
    "NaN": b"1 1:nan\n",
    "infinity": b"nan 1:1\n",
    "bytes": b"\xff\xfe\x00\x01\n",
    "NUL": b"1 1:1\0\n",
    "a third label": b"3 1:1\n",
    "no end": b"1 1:1 2",
    "digits": b"1 1:" + b"9" * 5000 + b"\n",
}


def rows(draw: random.Random) -> Case:
    """Return an experiment on a LIBSVM file with a wrong row, or on what is no such file."""
    how = draw.choice([*ROWS, "empty", "missing", "a folder", "odd name"])
    damages, path = (), "rows.txt"
    if how in ROWS:
        damages = (Damage(path, "write", GOOD + ROWS[how] + GOOD),)
    elif how == "empty":
        damages = (Damage(path, "write", b""),)
    elif how == "a folder":
        damages = (Damage(path, "folder"),)
    elif how == "odd name":
        path = draw.choice(['"', "\\", "'", "\n", "[/x]", "x" * 300, ""])
    arguments = without(LINES["high_probability"][0], "--problem")
    line = (*arguments, "--problem", f'logistic_regression("{path}")')
    return Case(f"rows: {how}", "high_probability", line, (), damages, how != "no end" or None)


NAMES = (
    "no_such",
    "a/b/c",
    "digits/..",
    "",
    "../x",
    "sp ace",
    "digits@",
    "digits/x",
    "image_folder",
)
NAMES += (
    "image_folder/",
    "image_folder/a.b",
    "image_folder/" + "x" * 300,
    "mnist",
    "cifar10",
    "\udcff",
)


def dataset(draw: random.Random) -> Case:
    """Return the preparation of a data set of an odd name, or of one whose raw files are junk."""
    name = draw.choice(NAMES)
    files = draw.sample(["train.txt", "train/a/1.png", "test/a/1.jpg", "x.zip", "val.txt"], 2)
    damages = tuple(Damage(f"raw/{file}", "write", draw.randbytes(40)) for file in files)
    line = (f"--dataset={name}", "--raw-dir", "raw", "--data-dir", "new")
    return Case("raw: a name", "prepare", line, (), damages, True)
