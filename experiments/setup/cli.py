"""What all commands share: flags, JAX's start, stop signals, errors without tracebacks."""

import contextlib
import dataclasses
import functools
import os
import re
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import jax
import tyro

from clipjax.train import files, hosts
from clipjax.train import mesh as meshes
from clipjax.train.loop import NonFiniteLoss
from experiments.setup import failures, locks, signals
from experiments.setup.labels import plain
from experiments.setup.rules import Rule
from experiments.setup.signals import EXIT_STOPPED as EXIT_STOPPED

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Command:
    """Where to work. Shared by all scripts."""

    workdir: Path
    """Where results go."""
    data_dir: Path | None = None
    """Prepared datasets; the user's cache by default."""
    distributed: Literal["auto", "off"] = "auto"
    """'auto' joins the other hosts of a pod or cluster."""


REGISTRY = tyro.constructors.ConstructorRegistry()
"""How flags are read, beyond tyro's own rules."""


@REGISTRY.primitive_rule
def _paths(info: tyro.constructors.PrimitiveTypeInfo):
    return _flag("PATH", Path, path) if info.type is Path else None


@REGISTRY.primitive_rule
def _integers(info: tyro.constructors.PrimitiveTypeInfo):
    return _flag("INT", int, integer) if info.type is int else None


@REGISTRY.struct_rule
def _rules(info: tyro.constructors.StructTypeInfo):
    """A `Rule` has flags of its own: see `experiments.setup.rule_flags`."""
    if info.type is not Rule:
        return None
    return tyro.constructors.StructConstructorSpec(instantiate=lambda: info.default, fields=())


def _flag(metavar: str, kind: type, read: Callable[[str], Any]):
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda texts: read(texts[0]),
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


def path(text: str) -> Path:
    """Return the path that a flag names.

    Raises:
        ValueError: the text is empty, which `Path` would take for the current folder.

    Examples:
        >>> path("."), path("runs/smoke")
        (PosixPath('.'), PosixPath('runs/smoke'))
    """
    if not text.strip():
        raise ValueError(f"{text!r} names no file or folder; for the current folder say '.'")
    return Path(text)


def integer(text: str) -> int:
    """Return the integer that a flag gives.

    Raises:
        ValueError: it is none, or has more than 64 bits.

    Examples:
        >>> integer("-3")
        -3
    """
    if not re.fullmatch(r"[+-]?[0-9](_?[0-9])*", text.strip()):
        raise ValueError(f"{text!r} is no integer")
    # Text of thousands of digits is too long for `int`.
    value = int(text) if len(text) <= 100 else None
    if value is None or not -(2**63) <= value < 2**63:
        raise ValueError(f"{text[:40]} does not fit into 64 bits (up to {2**63 - 1})")
    return value


def program() -> str:
    """Return how the program at work is called, as its help says it.

    A script of `python -m` would be named after its file otherwise, which cannot be run.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).name
    return f"python -m {name}" if spec else name


def parse(kind: type[T], arguments: Sequence[str] | None, **defaults: Any) -> T:
    """Return the command line of a script; `defaults` stand in for flags that are not given."""
    with REGISTRY:
        return tyro.cli(
            kind,
            prog=program(),
            default=kind(**({"workdir": tyro.MISSING} | defaults)),
            args=arguments,
            config=(tyro.conf.AvoidSubcommands,),
        )


def start_jax(command: Command) -> None:
    """Join the other hosts, then point JAX to the compile cache; before any other use of JAX.

    Raises:
        ValueError: an environment variable that JAX would end with a traceback or abort by.
    """
    check_xla_flags(os.environ.get("XLA_FLAGS", ""))
    meshes.initialize(command.distributed, heartbeat_timeout_seconds=heartbeat())
    hosts.watch(heartbeat())
    try:
        jax.devices()
    except RuntimeError as error:
        said = str(error).splitlines()[0]
        set_to = os.environ.get("JAX_PLATFORMS")
        raise ValueError(f"JAX finds no device (JAX_PLATFORMS is {set_to!r}): {said}") from error
    enable_compilation_cache()


def heartbeat() -> int:
    """Return $CLIPJAX_HEARTBEAT_SECONDS, 100 if it is not set.

    Raises:
        ValueError: it is no positive integer.
    """
    text = os.environ.get("CLIPJAX_HEARTBEAT_SECONDS", "100")
    if not re.fullmatch("[1-9][0-9]{0,8}", text):
        raise ValueError(
            f"CLIPJAX_HEARTBEAT_SECONDS is {text!r}; expected seconds, a whole number from 1 on"
        )
    return int(text)


_TRY_FLAGS = "from jaxlib import xla_client; xla_client.make_cpu_client()"


@functools.cache
def check_xla_flags(flags: str) -> None:
    """Refuse XLA_FLAGS that XLA aborts by, without a word from Python: try them in a process.

    Names and values are checked. What a GPU's or TPU's compiler makes of a valid value is not.

    Raises:
        ValueError: with what XLA says.
    """
    if not flags:
        return
    tried = subprocess.run(
        [sys.executable, "-c", _TRY_FLAGS],
        env=os.environ | {"XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        errors="replace",
    )
    if tried.returncode:
        said = re.findall(r"^[EF]\d{4} [^\]]*\] (.+)$", tried.stderr, re.MULTILINE)
        raise ValueError(
            f"XLA_FLAGS is {flags!r}, which XLA refuses: {said[0] if said else 'it aborts'}. "
            "Mend the variable or unset it"
        )


def enable_compilation_cache() -> None:
    """Keep compiled programs in $CLIPJAX_CACHE_DIR/xla (default ~/.cache/clipjax/xla)."""
    root = os.environ.get("CLIPJAX_CACHE_DIR") or Path(
        os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "clipjax"
    )
    jax.config.update("jax_compilation_cache_dir", str(Path(root, "xla")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def stop_on_signal() -> Callable[[], bool]:
    """Return a function that tells whether to save and stop: Ctrl-C, SIGTERM or SIGHUP came.

    With several hosts JAX listens to SIGTERM, which the others become, and tells all of them.
    """
    listener = signals.current()
    listener.save_first(several_hosts=jax.process_count() > 1)
    return listener.interrupted if jax.process_count() == 1 else lambda: False


def stopped(workdir: Path) -> int:
    """Say that a run was stopped and saved; return the exit code."""
    signals.current().wait_for_answer()
    print(f"stopped and saved; the same line goes on ({plain(workdir)})", file=sys.stderr)
    return signals.current().exit_code()


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Hold a folder's lock while the block runs; errors of the disk name the folder.

    Raises:
        locks.Held: another run is at work there.
    """
    with failures.naming(folder), locks.hold(folder):
        if jax.process_index() == 0:
            for place in (folder, folder / "figures", folder / "tables"):
                files.remove_leftovers(place)  # of a run that was killed while it wrote
        yield


KEPT = "what was written before is kept; the same line begins again"


def explain(main: Callable[[], int], *, kept: str = KEPT) -> int:
    """Run a main function to the end of its process; failures are told in one line.

    Args:
        main: returns the exit code.
        kept: what a signal that stops it leaves, in words. A run that saves tells it itself.

    Returns:
        What `main` returned, or 1 for an error, 130 for Ctrl-C, 75 for SIGTERM and SIGHUP.
    """
    with signals.listening() as listener, _threads_held_back() as silence:
        try:
            code = main()
            sys.stdout.flush()
            return code
        except KeyboardInterrupt:
            if not listener.interrupted():  # no signal came: a config file raised it, say
                return _failed(f"interrupted; {kept}", signals.EXIT_INTERRUPTED, silence)
            return _failed(_stopped_by(listener, kept), listener.exit_code(), silence)
        except Exception as error:  # all are told here, and raised again where they are bugs
            if listener.interrupted() and not listener.saves:
                # What a library made of the KeyboardInterrupt that came while it was at work.
                return _failed(_stopped_by(listener, kept), listener.exit_code(), silence)
            line = told(error)
            if line is None or os.environ.get("CLIPJAX_TRACEBACK"):
                if hosts.several():
                    traceback.print_exc()
                    hosts.fail_together(plain(f"{type(error).__name__}: {error}"))
                raise
            line = f"error: {line}\n(CLIPJAX_TRACEBACK=1 shows where)"
            return _failed(line, 1, silence)


def told(error: Exception) -> str | None:
    """Return what is said of an error in one line; None for a bug, which is shown with its frames.

    Examples:
        >>> told(ValueError("keep is 1; expected at least 2"))
        'keep is 1; expected at least 2'
        >>> told(ZeroDivisionError("division by zero")) is None
        True
    """
    ours = isinstance(error, ValueError | NonFiniteLoss | OSError)
    return failures.in_one_line(error) or (str(error) if ours else None)


def _stopped_by(listener: signals.Listener, kept: str) -> str:
    name = "Ctrl-C" if listener.exit_code() == signals.EXIT_INTERRUPTED else listener.came[-1].name
    return f"stopped by {name}; {kept}"


def _failed(line: str, code: int, silence: Callable[[], None]) -> int:
    """Say the last line of a program that did not come to its end; return its exit code."""
    silence()
    line = "\n".join(plain(part) for part in line.splitlines())
    hosts.fail_together(line.removeprefix("error: ").splitlines()[0], code)
    signals.say(line)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        sys.stdout.flush()
    except OSError:  # a closed pipe or a full disk; Python would say so again at its end
        os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
    return code


@contextlib.contextmanager
def _threads_held_back() -> Iterator[Callable[[], None]]:
    """Hold back what dying threads print until it is known whether the main one tells of it.

    Where saving fails, threads of Orbax and asyncio print hundreds of lines around the one that
    matters. They are dropped when `silence`, which this yields, is called.
    """
    if os.environ.get("CLIPJAX_TRACEBACK"):
        yield lambda: None
        return
    held: list[str] = []
    silent = threading.Event()

    def of_thread(args: Any) -> None:
        name = args.thread.name if args.thread else "a thread"
        shown = traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
        held.append(f"Exception in thread {name}:\n{''.join(shown)}")

    def unraisable(args: Any) -> None:
        shown = traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback)
        held.append(f"{args.err_msg or 'Exception ignored in'}: {args.object!r}\n{''.join(shown)}")

    before = threading.excepthook, sys.unraisablehook
    threading.excepthook, sys.unraisablehook = of_thread, unraisable
    try:
        yield silent.set
    finally:
        if silent.is_set():
            held.clear()
        else:
            threading.excepthook, sys.unraisablehook = before
            if held:
                signals.say("".join(held).rstrip())
