"""Checkpoints that survive being killed at any moment. The only module that imports Orbax.

One checkpoint holds all that a run is: parameters, optimizer state, model state and step, with
the seed and global batch that turn the step into a position in the data. Orbax writes into a
temporary folder and renames it, so a killed save leaves no checkpoint. Sizes and digests of its
files follow in a manifest; what does not agree with it is damaged, and the one before is used. A
checkpoint without a manifest, of a run that was killed before it was written, is judged by whether
it can be read and by the digest of its state. Files that cannot be read for lack of permission,
memory or network are no damage: that ends the run, and everything stays where it is.
"""

import errno
import logging
import shutil
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Sharding

from clipjax.train import manifest
from clipjax.train import mesh as meshes
from clipjax.train.state import TrainState, digest


class CheckpointMismatch(ValueError):
    """The checkpoints belong to another run."""


@dataclass(frozen=True)
class Position:
    """What turns a step into a position in the data; it must not change within a run."""

    data_seed: int
    batch_size: int


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for pending saves at its end.

    Args:
        directory: the folder, made if absent.
        position: stored with each checkpoint; a different one at restoring is refused.
        keep: how many of the newest to keep, at least 2 so that a damaged one has a predecessor.
    """

    def __init__(self, directory: Path, position: Position, *, keep: int = 2):
        import orbax.checkpoint as ocp

        if keep < 2:
            raise ValueError(f"keep is {keep}; expected at least 2, one may be found damaged")
        self._ocp = ocp
        self._position = position
        self._directory = Path(directory).resolve()
        self._unsealed: int | None = None
        """The step that is being saved, which has no manifest yet."""
        # Orbax logs each save, and that metadata of one host is missing. Its threads log their
        # errors too, pages of them, which are raised besides where a save is waited for.
        for name in ("absl", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                cleanup_tmp_directories=True,
                step_prefix="step",
                # Where a folder cannot be made it is said at once. Made in the background, other
                # threads would wait for it for ten minutes.
                async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            ),
            item_handlers={
                "state": ocp.StandardCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler(),
            },
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.wait()
        finally:
            self._manager.close()

    def save(self, state: TrainState) -> None:
        """Save in the background; returns as soon as the buffers may be overwritten.

        A checkpoint of this very step that is there already is the same by construction and kept.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        self.wait()  # for the one before, so that at most one is without a manifest
        run = {
            "data_seed": self._position.data_seed,
            "batch_size": self._position.batch_size,
            "digest": _digest(state),
        }
        self._manager.save(
            step,
            args=self._ocp.args.Composite(
                state=self._ocp.args.StandardSave(state._asdict()),
                run=self._ocp.args.JsonSave(run),
            ),
        )
        self._unsealed = step

    def wait(self) -> None:
        """Return when everything saved is on disk."""
        step, self._unsealed = self._unsealed, None  # a save that failed never gets a manifest
        self._manager.wait_until_finished()
        if step is not None and jax.process_index() == 0:
            manifest.write(self._folder(step))

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
        """
        target = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            abstract._asdict(),
        )
        for step in sorted(self._manager.all_steps(), reverse=True):
            reason = self._damage(step)
            if reason is None:
                state, reason = self._restore_or_reason(step, target)
                if state is not None:
                    return state
            self._set_aside(step, reason)
        return None

    def _folder(self, step: int) -> Path:
        return self._directory / f"step_{step}"

    def _damage(self, step: int) -> str | None:
        """Return what the manifest finds wrong; the first host looks, for all."""
        found = None
        if jax.process_index() == 0 and (self._folder(step) / manifest.NAME).exists():
            found = manifest.damage(self._folder(step))
        damaged = meshes.told_by_first([found is not None])[0]
        return (found or "the first host says why") if damaged else None

    def _restore_or_reason(
        self, step: int, target: dict[str, Any]
    ) -> tuple[TrainState | None, str]:
        """Return the state of a step; or None, and in what way it is damaged.

        Raises:
            CheckpointMismatch: it is another run's.
            Exception: it cannot be read for another reason than damage.
        """
        try:
            state = self._restore_step(step, target)
        except CheckpointMismatch:
            raise
        except Exception as error:  # Orbax raises a bare Exception for files that are missing
            sound = (self._folder(step) / manifest.NAME).exists()  # and its files agreed
            if sound or is_environment(error):
                raise
            return None, f"{type(error).__name__}: {str(error).splitlines()[0]}"
        return state, "its digest differs from the one stored with it"

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
        if jax.process_index() == 0:
            aside = self._directory.parent / "damaged_checkpoints"
            aside.mkdir(exist_ok=True)
            if self._folder(step).exists():
                place = aside / f"step_{step}"
                if place.exists():
                    place = aside / f"step_{step}_{time.time_ns()}"
                shutil.move(self._folder(step), place)
        self._manager.reload()


def is_environment(error: BaseException) -> bool:
    """Return whether an error is about permission, memory or network, not about what a file holds.

    Examples:
        >>> is_environment(PermissionError(errno.EACCES, "Permission denied"))
        True
        >>> is_environment(FileNotFoundError(errno.ENOENT, "No such file"))
        False
    """
    if isinstance(error, MemoryError):
        return True
    absent = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
    if isinstance(error, OSError) and error.errno not in absent:
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
