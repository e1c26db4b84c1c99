"""Where numbers come from: versions of packages, commit of the checkout."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide the numbers."""
    names = ("clipjax", "jax", "jaxlib", "optax", "flax", "orbax-checkpoint", "grain", "numpy")
    return {"python": platform.python_version()} | {n: importlib.metadata.version(n) for n in names}


def git_commit() -> str | None:
    """Return the checkout's commit, with '+' if files differ from it; None outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
