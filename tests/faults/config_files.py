"""Wrong config files."""

import random

from tests.faults import material
from tests.faults.cases import Case, Damage
from tests.faults.command_lines import FILE

BROKEN = {
    "syntax": b"config = Run(\n",
    "indentation": b"if True:\nconfig = 1\n",
    "import": b"import a_module_that_is_not_there\n",
    "exception": b"raise RuntimeError('of their own')\n",
    "key": b"config = {}['absent']\n",
    "division": b"config = 1 / 0\n",
    "assertion": b"assert False\n",
    "recursion": b"def f(): return f()\nconfig = f()\n",
    "NUL": b"config = 1\0\n",
    "no text": b"\xff\xfe\x80\n",
    "encoding": b"# -*- coding: nonsense -*-\nconfig = 1\n",
    "exit": b"raise SystemExit\n",
    "exit 0": b"import sys\nsys.exit(0)\n",
    "nothing": b"",
    "none": b"config = None\n",
    "another type": b"config = [1, 2]\n",
    "a class": b"from experiments.config import Run\nconfig = Run\n",
    "memory": b"raise MemoryError\n",
    "interrupt": b"raise KeyboardInterrupt\n",
    "a missing file": b"open('/no/such/file')\n",
    "an unknown field": b"from experiments.config import SGD\nconfig = SGD(learning_rat=1)\n",
    "a wrong value": b"from experiments.config import SGD\nconfig = SGD(-1)\n",
    "no run": b"from experiments.config import Grid\nconfig = Grid({'a/b': 1})\n",
    "positions": b"from experiments.config import Run\nconfig = Run(1, 2, 3, 4, 5, 6)\n",
    "a folder opened": b"open('/')\n",
    "an odd name": b"from experiments.config import Runn\n",
    "a module": b"import experiments.config\nconfig = experiments.config.Nothing()\n",
    "brackets": b"config = " + b"(" * 500 + b")" * 500 + b"\n",
    "digits": b"config = " + b"9" * 5000 + b"\n",
    "an object whose repr fails": b"class A:\n    def __repr__(self): raise ValueError('no')\n"
    b"config = A()\n",
    "an odd exception": b"class A(Exception):\n    def __str__(self): return 1 / 0\nraise A\n",
}
WRONG_VALUES = ("[]", "{}", "object()", "b'x'", "float('nan')", "10**400", "-1.5", "'\\0'", "...")
RUN_FIELDS = ("task", "dataset", "model", "optimizer", "duration", "batch_size", "schedule", "seed")
OTHER_FIELDS = ("log_every", "evaluate_every", "checkpoint_every", "samples", "noise", "crop")
SPACES = (
    *("{}", "{'*': {}}", "{'*': 1}", "[]", "{'*': {'optimizer.learning_rate': 0.1}}"),
    *("{'*': {'optimizer.learning_rat': LogUniform(0.1, 1)}}", "{'x/y': {}}", "{1: {}}"),
    *("{'*': {'optimizer.learning_rate': LogUniform(1, 0.1)}}",),
    *("{'*': {'optimizer.learning_rate': LogUniform(0, 1)}}",),
    *("{'*': {'optimizer.momentum': Uniform(0.5, 2)}}", "{'*': {'optimizer': Choice(1, 2)}}"),
    *("{'*': {'seed': Choice(1, 2)}}", "{'*': {'optimizer.momentum': Choice(0.5)}}"),
)
BUDGETS = ("trials=0", "trials=-1", "trials='x'", "holdout=0", "holdout=1", "holdout=float('nan')")
BUDGETS += ("seeds=()", "seeds=(0, 0)", "rungs=0", "rungs=9", "reduction=1", "sequence='nonsense'")
KEYS = ("", "a", "/", "../x", "a/../b", "/a/b", "a/b/c", "a//b", "a/\\0", "a/" + "x" * 300, ".../b")


def broken_config(draw: random.Random) -> Case:
    """Return a config file that is no Python, fails, or yields what is no config."""
    command = draw.choice(["train", "compare", "tune", "high_probability"])
    kind = draw.choice(list(BROKEN))
    name = draw.choice(["broken.py"] * 5 + ["bro ken.py", "bröken.py", "broken", "[red].py"])
    line = (f"--config={name}", "--workdir", "new")
    damages = (Damage(name, "write", BROKEN[kind]),)
    names = "" if kind == "interrupt" else name
    return Case(f"config: {kind}", command, line, (), damages, True, names)


def wrong_config(draw: random.Random) -> Case:
    """Return a config with one wrong value; the file is Python and runs."""
    if draw.random() < 0.3:
        key, seeds = draw.choice(KEYS), "(0,)"
        if draw.random() < 0.4:
            key, seeds = "a/b", draw.choice(["()", "(0, 0)", "('x',)", "0", "(-1,)", "(True,)"])
        text = f"{material.TINY}\nconfig = Grid({{'{key}': run}}, seeds={seeds})\n"
        command = "compare"
    else:
        field = draw.choice(RUN_FIELDS + OTHER_FIELDS)
        value = draw.choice(WRONG_VALUES)
        text = f"{material.TINY}\nimport dataclasses\n"
        text += f"config = dataclasses.replace(run, {field}={value})\n"
        command = "train"
    line = ("--config", "wrong.py", "--workdir", "new")
    damages = (Damage("wrong.py", "write", text.encode()),)
    return Case("config: a value", command, line, (), damages, True)


def wrong_search(draw: random.Random) -> Case:
    """Return a search with a wrong space or a wrong budget."""
    space, budget = "{'*': {'optimizer.learning_rate': LogUniform(0.1, 1)}}", "trials=2"
    if draw.random() < 0.5:
        space = draw.choice(SPACES)
    else:
        budget = draw.choice(BUDGETS)
    text = f"{material.TINY}\nfrom experiments.config import Choice, LogUniform, Search, Uniform\n"
    text += f"config = Search({{'digits/sgd': run}}, {space}, {budget})\n"
    damages = (Damage("wrong.py", "write", text.encode()),)
    line = ("--config", "wrong.py", "--workdir", "new")
    return Case("config: a search", "tune", line, (), damages, True)


def wrong_config_path(draw: random.Random) -> Case:
    """Return a config that is no file, or one that is another command's."""
    command = draw.choice(["train", "compare", "tune", "high_probability"])
    other = "tiny_grid.py" if command == "train" else "tiny.py"
    path = draw.choice(["absent.py", "folder.py", other, "x" * 300, "a_file/x.py", "/dev/null", ""])
    damages = (FILE, Damage("folder.py", "folder"))
    line = (f"--config={path}", "--workdir", "new")
    return Case("config: path", command, line, ("configs",), damages, True)
