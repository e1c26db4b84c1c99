"""The public face of the package."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import clipjax
import clipjax.optim

ROOT = Path(__file__).parents[2]


def test_version_is_that_of_the_distribution():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert clipjax.__version__ == project["version"]


def test_public_names_are_the_rooms_names():
    assert set(clipjax.__all__) == {"__version__", *clipjax.optim.__all__}
    for name in clipjax.__all__:
        assert getattr(clipjax, name).__doc__, name


def test_import_loads_jax_and_optax_only():
    """What importing clipjax loads beyond what importing optax loads is clipjax and difflib."""
    code = (
        "import json, sys, optax; before = set(sys.modules); import clipjax; "
        "print(json.dumps([name.split('.')[0] for name in set(sys.modules) - before]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert set(json.loads(output)) <= {"clipjax", "difflib"}
