"""Checkpoints that survive being killed at any moment. The only module that imports Orbax.

One checkpoint holds all that a run is: parameters, optimizer state, model state and step, with
the seed and global batch that turn the step into a position in the data. Orbax writes into a
temporary folder and renames it, so a killed save leaves no checkpoint.

A checkpoint damaged afterwards is moved away, and the one before is used. What is damage is decided
by a manifest of sizes and digests: it is written into the temporary folder, so a checkpoint never
appears without it, and compared before Orbax reads. Checkpoints made before there were manifests
are judged by the digest of the state alone. Whatever else keeps a checkpoint from being read
(permission, network, memory) ends the run, and nothing is moved.
"""

import itertools
import logging
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Sharding

from clipjax.train import mesh as meshes
from clipjax.train.manifest import ABSENT, find_damage, has_manifest, read_through, write_manifest
from clipjax.train.state import TrainState, digest


class CheckpointMismatch(ValueError):
    """The checkpoints belong to another run."""


class CheckpointUnreadable(OSError):
    """A checkpoint is there but cannot be read, for a reason that is no damage."""


@dataclass(frozen=True)
class Position:
    """What turns a step into a position in the data; it must not change within a run."""

    data_seed: int
    batch_size: int


def check_path(directory: Path) -> None:
    """Refuse a folder that TensorStore, which writes the arrays, would take for another one.

    It reads a backslash as a slash, and paths that are UTF-8 alone.

    Raises:
        ValueError: such a path.

    Examples:
        >>> check_path(Path("runs/a b"))
    """
    path = str(Path(directory).resolve())
    if "\\" in path or path.encode("utf-8", "ignore").decode() != path:
        raise ValueError(
            f"{path!r} cannot hold checkpoints: the library that writes them takes no backslashes "
            "and no names that are not UTF-8; choose another folder, or rename that part of it"
        )


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for pending saves at its end.

    Args:
        directory: the folder, made if absent.
        position: stored with each checkpoint; a different one at restoring is refused.
        keep: how many of the newest to keep, at least 2 so that a damaged one has a predecessor.
        reads_only: leave everything as it is; a damaged checkpoint is only passed over.

    Raises:
        ValueError: `keep` below 2, or a directory that `check_path` refuses.
    """

    def __init__(
        self, directory: Path, position: Position, *, keep: int = 2, reads_only: bool = False
    ):
        import orbax.checkpoint as ocp

        if keep < 2:
            raise ValueError(f"keep is {keep}; expected at least 2, one may be found damaged")
        check_path(directory)
        self._ocp = ocp
        self._position = position
        self._reads_only = reads_only
        self._directory = Path(directory).resolve()
        self._saving: int | None = None
        # Orbax logs each save, and that metadata of one host is missing. Its threads log their
        # errors too, pages of them, which are raised besides where a save is waited for.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                cleanup_tmp_directories=not reads_only,  # it may be a save that is under way
                read_only=reads_only,
                step_prefix="step",
                async_options=ocp.AsyncOptions(
                    post_finalization_callback=self._write_manifest,
                    # Where a folder cannot be made it is said at once. Made in the background,
                    # other threads would wait for it for ten minutes.
                    create_directories_asynchronously=False,
                ),
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler(),
            },
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()

    def save(self, state: TrainState) -> None:
        """Save in the background; returns as soon as the buffers may be overwritten.

        A checkpoint of this very step that is there already is the same by construction and kept.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        run = {
            "data_seed": self._position.data_seed,
            "batch_size": self._position.batch_size,
            "digest": _digest(state),
        }
        self._manager.wait_until_finished()
        self._saving = step
        self._manager.save(
            step,
            args=self._ocp.args.Composite(
                state=self._ocp.args.StandardSave(state._asdict()),
                run=self._ocp.args.JsonSave(run),
            ),
        )

    def _write_manifest(self) -> None:
        """Write the manifest of the step being saved; Orbax calls this before it renames.

        It runs in Orbax's thread on the first host, after all hosts have written.
        """
        pattern = f"step_{self._saving}.orbax-checkpoint-tmp*"
        (folder,) = self._directory.glob(pattern)
        write_manifest(folder, ("run", "state"))

    def wait(self) -> None:
        """Return when everything saved is on disk."""
        self._manager.wait_until_finished()

    def restore(self, abstract: TrainState, sharding: Sharding) -> TrainState | None:
        """Return the newest undamaged state, or None where there is none.

        Damaged checkpoints are named in a warning and moved to `damaged_checkpoints` beside the
        folder.

        Args:
            abstract: shapes and dtypes of the state (`jax.eval_shape`).
            sharding: where to put it; the mesh need not be the one that saved.

        Raises:
            CheckpointMismatch: the checkpoints are of other data (seed or global batch) or of
                another model or optimizer.
            CheckpointUnreadable: the newest cannot be read (permission, network, hardware, or
                another version of Orbax); nothing has been moved.
        """
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            abstract._asdict(),
        )
        for step in sorted(self._manager.all_steps(), reverse=True):
            reason, has_manifest = self._judge(step)
            state = None
            if reason is None:
                state, reason = self._read(step, target, has_manifest)
            if meshes.any_host(reason is not None):
                self._set_aside(step, reason or "another host found it so")
            else:
                return state
        return None

    def _judge(self, step: int) -> tuple[str | None, bool]:
        """Return the damage that the first host finds, and whether there is a manifest.

        Without one, files are only tried: those that cannot be read end the run.
        """
        folder = self._folder(step)
        reason, error, known = None, None, False
        if jax.process_index() == 0:
            try:
                known = has_manifest(folder)
                if known:
                    reason = find_damage(folder)
                else:
                    read_through(folder)
            except OSError as found:
                error = found
        damaged, failed, known = meshes.told_by_first(
            [reason is not None, error is not None, known]
        )
        if failed:
            said = f"{error.strerror}: {error.filename}" if error else "the first host says why"
            raise self._unreadable(step, said) from error
        return (reason or "the first host says why") if damaged else None, known

    def _read(
        self, step: int, target: dict[str, Any], has_manifest: bool
    ) -> tuple[TrainState | None, str | None]:
        """Return the state of a step, or None and what its damage is."""
        try:
            state = self._restore_step(step, target)
        except (CheckpointMismatch, MemoryError):
            raise
        # Orbax raises a bare Exception for an array that it cannot read, and many kinds besides.
        except Exception as error:
            said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            # With a manifest its bytes are those written, so it is not they.
            if has_manifest or is_environment(error):
                raise self._unreadable(step, said) from error
            return None, said
        return (
            state,
            None if state is not None else "its digest differs from the one stored with it",
        )

    def _unreadable(self, step: int, said: str) -> CheckpointUnreadable:
        return CheckpointUnreadable(
            f"the checkpoint of step {step} in {self._directory} cannot be read ({said}). That is "
            "no damage of the checkpoint, so nothing was moved or changed: mend the cause (rights, "
            "disk, network, versions), then the same line goes on"
        )

    def _folder(self, step: int) -> Path:
        return self._directory / f"step_{step}"

    def _restore_step(self, step: int, target: dict[str, Any]) -> TrainState | None:
        """Return the state of a step, None if its bytes are not those saved."""
        ocp = self._ocp
        run = self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))[
            "run"
        ]
        for name in ("data_seed", "batch_size"):
            if run[name] != getattr(self._position, name):
                raise CheckpointMismatch(
                    f"{self._directory} was made with {name} {run[name]}, this run has "
                    f"{getattr(self._position, name)}; the step would mean other examples. "
                    "Use another workdir"
                )
        self._check_structure(step, target)
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=ocp.args.StandardRestore(target))
        )["state"]
        state = TrainState(**restored)
        return state if run["digest"] in (None, _digest(state)) else None

    def _check_structure(self, step: int, target: dict[str, Any]) -> None:
        """Tell another model or optimizer apart from damage: the stored shapes must be ours."""
        stored = self._manager.item_metadata(step)["state"]
        if stored is None:
            raise OSError("its metadata cannot be read")
        shapes = [_shapes(tree) for tree in (stored, target)]
        if shapes[0] != shapes[1]:
            differing = sorted(
                path
                for path in shapes[0].keys() | shapes[1].keys()
                if shapes[0].get(path) != shapes[1].get(path)
            )
            path = differing[0]
            raise CheckpointMismatch(
                f"{self._directory} holds another model or optimizer: {path} is "
                f"{shapes[0].get(path, 'absent')} there and {shapes[1].get(path, 'absent')} here "
                f"({len(differing)} leaves differ). Use another workdir"
            )

    def _set_aside(self, step: int, reason: str) -> None:
        warnings.warn(
            f"checkpoint of step {step} in {self._directory} is damaged ({reason}); "
            "using the one before it",
            stacklevel=3,
        )
        if self._reads_only:
            return
        if jax.process_index() == 0:
            aside = self._directory.parent / "damaged_checkpoints"
            aside.mkdir(exist_ok=True)
            names = (f"step_{step}" + (f".{n}" if n else "") for n in itertools.count())
            shutil.move(
                self._folder(step), next(aside / n for n in names if not (aside / n).exists())
            )
        meshes.any_host(False)  # the others look only after it has been moved
        self._manager.reload()


def is_environment(error: BaseException) -> bool:
    """Return whether an error is about permission, memory or network, not about what a file holds.

    Examples:
        >>> import errno
        >>> is_environment(OSError(errno.EIO, "Input/output error"))
        True
        >>> is_environment(FileNotFoundError(errno.ENOENT, "No such file"))
        False
    """
    if isinstance(error, OSError) and error.errno not in (None, *ABSENT):
        return True
    # Tensorstore's errors carry the name of a status instead of a number.
    words = ("PERMISSION_DENIED", "Permission denied", "RESOURCE_EXHAUSTED", "UNAVAILABLE")
    return any(word in str(error) for word in (*words, "DEADLINE_EXCEEDED", "Input/output error"))


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Return shape by path; NamedTuple fields and dictionary keys read alike in the path."""
    return {
        "/".join(
            str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path
        ): tuple(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _digest(state: TrainState) -> str | None:
    """Return the state's digest, or None where no single host holds all of it."""
    leaves = jax.tree.leaves(state)
    return digest(state) if all(leaf.is_fully_replicated for leaf in leaves) else None
