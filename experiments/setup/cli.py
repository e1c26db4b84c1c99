"""What all commands share: flags, JAX's start, the stop signal, errors without tracebacks."""

import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import tyro

from clipjax.train import mesh as meshes
from clipjax.train.loop import NonFiniteLoss

T = TypeVar("T")

EXIT_STOPPED = 75
"""EX_TEMPFAIL: stopped by SIGTERM after saving; the same line goes on."""


@dataclasses.dataclass(frozen=True)
class Command:
    """Where to work. Shared by all scripts."""

    workdir: Path
    """Where results go."""
    data_dir: Path | None = None
    """Prepared datasets; the user's cache by default."""
    distributed: Literal["auto", "off"] = "auto"
    """'auto' joins the other hosts of a pod or cluster."""


def parse(kind: type[T], arguments: Sequence[str] | None, **defaults: Any) -> T:
    """Return the command line of a script; `defaults` stand in for flags that are not given."""
    return tyro.cli(
        kind,
        default=kind(**({"workdir": tyro.MISSING} | defaults)),
        args=arguments,
        config=(tyro.conf.AvoidSubcommands,),
    )


def start_jax(command: Command) -> None:
    """Join the other hosts, then point JAX to the compile cache; before any other use of JAX."""
    heartbeat = int(os.environ.get("CLIPJAX_HEARTBEAT_SECONDS", "100"))
    meshes.initialize(command.distributed, heartbeat_timeout_seconds=heartbeat)
    enable_compilation_cache()


def enable_compilation_cache() -> None:
    """Keep compiled programs in $CLIPJAX_CACHE_DIR/xla (default ~/.cache/clipjax/xla)."""
    root = os.environ.get("CLIPJAX_CACHE_DIR") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "clipjax"
    )
    jax.config.update("jax_compilation_cache_dir", str(Path(root, "xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def stop_on_sigterm() -> Callable[[], bool]:
    """Return a function that tells whether SIGTERM came. With several hosts JAX listens itself."""
    came = threading.Event()
    if jax.process_count() == 1:
        signal.signal(signal.SIGTERM, lambda *_: came.set())
    return came.is_set


def explain(main: Callable[[], int]) -> int:
    """Run a main function; errors that name their cure are printed without a traceback."""
    try:
        return main()
    except (ValueError, FileNotFoundError, NonFiniteLoss) as error:
        if os.environ.get("CLIPJAX_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        print("(CLIPJAX_TRACEBACK=1 shows where)", file=sys.stderr)
        return 1
