"""What all commands share: flags, JAX's start, stop signals, errors without tracebacks.

Exit codes: 0 done; 1 an error, said in one line; 2 flags that cannot be read; 75 stopped by SIGTERM
or SIGHUP; 130 stopped by Ctrl-C. A run that is stopped saves first, and the same line goes on.
"""

import dataclasses
import errno
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax
import tyro

from clipjax.train import hosts
from clipjax.train import mesh as meshes
from clipjax.train.loop import NonFiniteLoss
from experiments.setup.labels import plain

T = TypeVar("T")

EXIT_STOPPED = 75
"""EX_TEMPFAIL: stopped by SIGTERM or SIGHUP; the same line goes on."""

EXIT_INTERRUPTED = 130
"""Stopped by Ctrl-C, by the shells' convention 128 + SIGINT."""

CURES = {
    errno.ENOSPC: "make room, then start the same line again: what was saved stays",
    errno.EDQUOT: "make room, then start the same line again: what was saved stays",
    errno.EFBIG: "the file system takes no files as large: use another folder",
    errno.EACCES: "use a folder that you may read and write, or change its permissions",
    errno.EPERM: "use a folder that you may read and write, or change its permissions",
    errno.EROFS: "use a folder that can be written to",
    errno.ENAMETOOLONG: "use a shorter name",
    errno.ENOTDIR: "a part of this path is a file: use another folder",
    errno.EEXIST: "that is a file, a folder was expected: use another name",
    errno.EISDIR: "that is a folder, a file was expected: use another name",
    errno.ELOOP: "links lead in a circle there: use another folder",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.EIO: "the disk or the network failed; start the same line again",
}
"""What to do about an error of the operating system."""


class Stopped(BaseException):
    """SIGTERM or SIGHUP came while nothing was there to be saved. No error, so no Exception."""


def folder(text: str) -> Path:
    """Return the path of a folder that a flag names.

    Raises:
        ValueError: If it is empty: that would be the current folder, which "." says.
    """
    if not text.strip() or "\0" in text:
        raise ValueError(f"{text!r} names no folder; for the current one say '.'")
    return Path(text)


_FOLDER = tyro.constructors.PrimitiveConstructorSpec(
    nargs=1,
    metavar="PATH",
    instance_from_str=lambda texts: folder(texts[0]),
    is_instance=lambda value: value is None or isinstance(value, Path),
    str_from_instance=lambda value: [str(value)],
)
Folder = Annotated[Path, _FOLDER]
"""A flag that names a folder."""
OptionalFolder = Annotated[Path | None, _FOLDER]


@dataclasses.dataclass(frozen=True)
class Command:
    """Where to work. Shared by all scripts."""

    workdir: Folder
    """Where results go."""
    data_dir: OptionalFolder = None
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
    """Join the other hosts, then point JAX to the compile cache; before any other use of JAX.

    Raises:
        ValueError: an environment variable that cannot be read, by name.
    """
    text = os.environ.get("CLIPJAX_HEARTBEAT_SECONDS", "100")
    if not (text.isdecimal() and 1 <= int(text) <= 86_400):
        raise ValueError(
            f"CLIPJAX_HEARTBEAT_SECONDS is {text!r}; expected a whole number of seconds, 1 to 86400"
        )
    check_xla_flags(os.environ.get("XLA_FLAGS", ""))
    meshes.initialize(command.distributed, heartbeat_timeout_seconds=int(text))
    hosts.watch(int(text))
    enable_compilation_cache()


def check_xla_flags(text: str) -> None:
    """Refuse XLA_FLAGS of a form that XLA cannot read; it checks their names itself.

    Raises:
        ValueError: a part that is no --xla_NAME=VALUE.

    Examples:
        >>> check_xla_flags("--xla_cpu_enable_fast_math=true --xla_dump_hlo_as_text")
        >>> check_xla_flags("xla_cpu_enable_fast_math=true")
        Traceback (most recent call last):
            ...
        ValueError: XLA_FLAGS has 'xla_cpu_enable_fast_math=true'; expected --xla_NAME=VALUE
    """
    for flag in text.split():
        if not re.fullmatch(r"--xla_\w+(=\S*)?", flag):
            raise ValueError(f"XLA_FLAGS has {flag!r}; expected --xla_NAME=VALUE")
        if flag.startswith("--xla_force_host_platform_device_count"):
            count = flag.partition("=")[2]
            if not (count.isdecimal() and 1 <= int(count) <= 4096):
                raise ValueError(f"XLA_FLAGS has {flag!r}; expected a number of devices, 1 to 4096")


def enable_compilation_cache() -> None:
    """Keep compiled programs in $CLIPJAX_CACHE_DIR/xla (default ~/.cache/clipjax/xla)."""
    root = os.environ.get("CLIPJAX_CACHE_DIR") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "clipjax"
    )
    jax.config.update("jax_compilation_cache_dir", str(Path(root, "xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


class StopSignals:
    """Tells whether a signal asks a run to save and stop; called, it returns that.

    SIGTERM, SIGHUP and the first Ctrl-C ask. A second Ctrl-C ends the process at once. With several
    hosts JAX waits for SIGTERM itself, and tells the other hosts; the other signals become one.
    """

    def __init__(self) -> None:
        self._came: int | None = None
        if jax.process_count() == 1:
            signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGHUP, self._note)
        signal.signal(signal.SIGINT, self._note)

    def _note(self, number: int, _frame: Any) -> None:
        if number == signal.SIGINT:
            print("Ctrl-C: saving; once more ends at once", file=sys.stderr)
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._came = number
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def __call__(self) -> bool:
        """Return whether such a signal came."""
        return self._came is not None

    @property
    def exit_code(self) -> int:
        """Return the exit code of a command that was stopped."""
        return EXIT_INTERRUPTED if self._came == signal.SIGINT else EXIT_STOPPED


def stop_on_signals() -> StopSignals:
    """Return a function that tells whether a signal asks to save and stop."""
    return StopSignals()


def _raise_stopped(number: int, _frame: Any) -> None:
    raise Stopped(signal.Signals(number).name)


def explain(main: Callable[[], int], *, kept: str = "files written before stay") -> int:
    """Run a main function; what ends it is said in one line, to all hosts, not as a traceback.

    Args:
        main: returns the exit code.
        kept: what is left of a command that was stopped before it could save.

    Returns:
        The exit code.
    """
    before = [
        (number, signal.signal(number, handler))
        for number, handler in (
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, _raise_stopped),
            (signal.SIGHUP, _raise_stopped),
        )
    ]
    code = 1
    try:
        return main()
    except KeyboardInterrupt:
        text, code = f"stopped by Ctrl-C; {kept}", EXIT_INTERRUPTED
    except Stopped as stop:
        text, code = f"stopped by {stop}; {kept}", EXIT_STOPPED
    except Exception as error:
        known = described(error)
        if known is None or os.environ.get("CLIPJAX_TRACEBACK"):
            if not hosts.several():
                raise
            traceback.print_exc()
            known = f"{type(error).__name__}: {error}"
        text = known
    finally:
        for number, handler in before:
            signal.signal(number, handler)
    hosts.fail_together(plain(text), code)
    text = "\n".join(plain(line) for line in text.splitlines())
    print(f"error: {text}" if code == 1 else text, file=sys.stderr)
    if code == 1:
        print("(CLIPJAX_TRACEBACK=1 shows where)", file=sys.stderr)
    return code


def described(error: BaseException) -> str | None:
    """Return what a person needs to know of an error; None where only a traceback tells.

    Examples:
        >>> described(OSError(errno.ENAMETOOLONG, "File name too long", "/x"))
        '/x: File name too long; use a shorter name'
        >>> described(ValueError("keep is 1; expected at least 2"))
        'keep is 1; expected at least 2'
        >>> described(AssertionError("a fault of ours"))
    """
    text = str(error)
    if "No space left on device" in text and not isinstance(error, OSError):
        # Orbax's and ArrayRecord's writers wrap the operating system's error in their own.
        found = re.search(r"['\"\s](/[^'\"\s\]]+)", text)
        where = f"{found[1]}: " if found else ""
        return f"{where}No space left on device; {CURES[errno.ENOSPC]}"
    if isinstance(error, OSError) and error.errno is not None:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        cure = CURES.get(error.errno)
        return ": ".join([*names[:1], error.strerror or text]) + (f"; {cure}" if cure else "")
    if isinstance(error, MemoryError) or "Out of memory" in text or "RESOURCE_EXHAUSTED" in text:
        return (
            f"out of memory ({text.splitlines()[0] if text else 'no size is known'}); "
            "use smaller batches, fewer examples at once, or a smaller model"
        )
    if isinstance(error, ValueError | OSError | NonFiniteLoss):
        return text
    return None
