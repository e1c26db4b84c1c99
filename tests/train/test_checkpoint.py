"""Checkpoints: round trip, damage, mismatch, another topology."""

import errno
import gc
import json
import os
import shutil
import warnings
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from clipjax.train import checkpoint, manifest
from clipjax.train import mesh as meshes
from clipjax.train.checkpoint import (
    CheckpointMismatch,
    Checkpoints,
    CheckpointUnreadable,
    Position,
)
from clipjax.train.state import TrainState, digest

POSITION = Position(data_seed=3, batch_size=64)


def make_state(step, width=400, optimizer=None):
    """Return a state whose every leaf depends on the step."""
    params = {"dense": {"kernel": jax.random.normal(jax.random.key(step), (32, width))}}
    optimizer = optimizer or optax.chain(optax.clip(1.0), optax.adam(1e-3))
    stats = {"batch_stats": {"bn": {"mean": jnp.full(width, step, jnp.float32)}}}
    return TrainState(jnp.int32(step), params, optimizer.init(params), stats)


@pytest.fixture(scope="module")
def mesh():
    return meshes.make_mesh(jax.devices()[:2])


def on(mesh, state):
    return jax.device_put(state, meshes.replicated(mesh))


def restore(folder, mesh, position=POSITION, **kind):
    with Checkpoints(folder, position) as checkpoints:
        abstract = jax.eval_shape(lambda: make_state(0, **kind))
        return checkpoints.restore(abstract, meshes.replicated(mesh))


def save(folder, mesh, steps):
    with Checkpoints(folder, POSITION) as checkpoints:
        for step in steps:
            checkpoints.save(on(mesh, make_state(step)))


@pytest.mark.parametrize("name", ["a\\b", os.fsdecode(b"caf\xe9")])
def test_paths_that_the_writer_takes_for_others_are_refused(name, tmp_path):
    """TensorStore would write a\\b's arrays into a/b, where no run finds them again."""
    with pytest.raises(ValueError, match="cannot hold checkpoints"):
        Checkpoints(tmp_path / name, POSITION)
    assert list(tmp_path.iterdir()) == []


def test_no_checkpoint_gives_none(tmp_path, mesh):
    assert restore(tmp_path, mesh) is None


def test_round_trip_is_bit_equal_and_keeps_types_and_shardings(tmp_path, mesh):
    save(tmp_path, mesh, (1, 2, 3))
    restored, expected = restore(tmp_path, mesh), on(mesh, make_state(3))
    chex.assert_trees_all_equal_structs(restored, expected)
    chex.assert_trees_all_equal_dtypes(restored, expected)
    assert digest(restored) == digest(expected)
    for leaf in jax.tree.leaves(restored):
        assert leaf.sharding == meshes.replicated(mesh)


def test_restores_on_another_number_of_devices(tmp_path, mesh):
    save(tmp_path, mesh, (1,))
    eight = meshes.make_mesh(jax.devices())
    restored = restore(tmp_path, eight)
    assert digest(restored) == digest(make_state(1))
    assert restored.step.sharding == meshes.replicated(eight)


def test_only_the_newest_are_kept(tmp_path, mesh):
    save(tmp_path, mesh, (1, 2, 3))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_2", "step_3"]


def files(folder):
    return [p for p in folder.rglob("*") if p.is_file()]


def data_files(folder):
    """Return the files that hold arrays; Orbax keeps some bytes twice, so all are damaged."""
    return [p for p in files(folder / "state") if p.parent.name == "d"]


def truncate(folder):
    for path in data_files(folder):
        os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(folder):
    for path in data_files(folder):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def delete_state(folder):
    for path in files(folder / "state"):
        path.unlink()


def garble_json(folder):
    for path in (folder / "run").iterdir():
        path.write_text("{")


def forge_digest(folder):
    path = folder / "run" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"digest": "0" * 64}))


def largest(folder):
    """Return the file that holds the parameters; Orbax fails with a bare Exception without it."""
    return max(files(folder / "state" / "ocdbt.process_0" / "d"), key=lambda p: p.stat().st_size)


def remove_largest(folder):
    largest(folder).unlink()


def cut_largest(folder):
    os.truncate(largest(folder), largest(folder).stat().st_size // 2)


def garble_the_manifest(folder):
    (folder / manifest.NAME).write_text("[]")


def age(folder):
    """Make a checkpoint what it was before there were manifests."""
    (folder / manifest.NAME).unlink()


DAMAGES = (
    *(truncate, flip_a_bit, delete_state, garble_json, forge_digest),
    *(remove_largest, cut_largest, garble_the_manifest),
)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory, mesh):
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("two_steps")
    save(folder, mesh, (1, 2))
    return folder


# Of many failing reads Orbax raises the first; the others die unheard inside asyncio.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("damage", "aged"),
    [
        pytest.param(damage, aged, id=f"{damage.__name__}, {'no ' * aged}manifest")
        for damage in DAMAGES
        for aged in (False, True)
        if not (aged and damage is garble_the_manifest)
    ],
)
def test_a_damaged_newest_is_skipped_with_a_warning(tmp_path, mesh, two_steps, damage, aged):
    folder = tmp_path / "checkpoints"
    shutil.copytree(two_steps, folder)
    if aged:
        age(folder / "step_1")
        age(folder / "step_2")
    damage(folder / "step_2")
    with pytest.warns(UserWarning, match="checkpoint of step 2 .* is damaged"):
        restored = restore(folder, mesh)
    assert digest(restored) == digest(make_state(1))
    # It is out of the way: the same step can be saved again and is then the newest.
    save(folder, mesh, (2,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert digest(restore(folder, mesh)) == digest(make_state(2))
    gc.collect()  # what died unheard is told here, where it is expected


def test_the_same_step_may_be_damaged_three_times(tmp_path, mesh):
    folder = tmp_path / "checkpoints"
    save(folder, mesh, (1,))
    for _ in range(3):
        save(folder, mesh, (2,))
        remove_largest(folder / "step_2")
        with pytest.warns(UserWarning, match="is damaged"):
            assert int(restore(folder, mesh).step) == 1
    aside = sorted(p.name for p in (tmp_path / "damaged_checkpoints").iterdir())
    assert aside == ["step_2", "step_2.1", "step_2.2"]
    assert all((tmp_path / "damaged_checkpoints" / name / "run").is_dir() for name in aside)


def test_a_checkpoint_never_appears_without_its_manifest(tmp_path, mesh, monkeypatch):
    """The manifest is written before the folder gets its name: no kill can come between."""
    seen = []

    def watch(folder, items):
        seen.append((folder.name.startswith("step_1.orbax-checkpoint-tmp"), sorted(items)))
        assert not (tmp_path / "step_1").exists()
        manifest.write_manifest(folder, items)

    monkeypatch.setattr(checkpoint, "write_manifest", watch)
    save(tmp_path, mesh, (1,))
    assert seen == [(True, ["run", "state"])]
    listed = json.loads((tmp_path / "step_1" / manifest.NAME).read_text())["files"]
    found = {str(p.relative_to(tmp_path / "step_1")) for p in files(tmp_path / "step_1")}
    # Orbax can do without these two; older versions write only the first.
    spare = {"_CHECKPOINT_METADATA", "commit_success.txt"}
    assert {manifest.NAME} <= found - set(listed) <= {manifest.NAME} | spare


def test_a_manifest_that_cannot_be_written_leaves_no_checkpoint(tmp_path, mesh, monkeypatch):
    def full(folder, items):
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    save(tmp_path, mesh, (1,))
    monkeypatch.setattr(checkpoint, "write_manifest", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, mesh, (2,))
    monkeypatch.undo()
    assert int(restore(tmp_path, mesh).step) == 1


def tree(folder):
    """Return the bytes of every file, by path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in files(folder)}


@pytest.mark.parametrize("aged", [False, True], ids=["manifest", "no manifest"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_cannot_be_read_ends_the_run_and_is_left_alone(
    tmp_path, mesh, monkeypatch, number, aged
):
    """`Path.open` is replaced: the tests may run as root, whom no permission stops."""
    folder = tmp_path / "checkpoints"
    save(folder, mesh, (1, 2))
    if aged:
        age(folder / "step_2")
    before, refused, really = tree(tmp_path), largest(folder / "step_2"), Path.open

    def refuse(path, *args, **kwargs):
        if path == refused:
            raise OSError(number, os.strerror(number), str(path))
        return really(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", refuse)
        with pytest.raises(CheckpointUnreadable, match=f"step 2 .*{os.strerror(number)}: .*/d/"):
            restore(folder, mesh)
    assert tree(tmp_path) == before
    assert int(restore(folder, mesh).step) == 2


@pytest.mark.parametrize("aged", [False, True], ids=["manifest", "no manifest"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (MemoryError(), MemoryError),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"), CheckpointUnreadable),
        (ValueError("PERMISSION_DENIED: opening d/0"), CheckpointUnreadable),
    ],
)
def test_memory_errors_end_the_run_and_move_nothing(
    tmp_path, mesh, monkeypatch, error, raised, aged
):
    folder = tmp_path / "checkpoints"
    save(folder, mesh, (1, 2))
    if aged:
        age(folder / "step_2")
    before = tree(tmp_path)

    def fail(*_):
        raise error

    monkeypatch.setattr(Checkpoints, "_restore_step", fail)
    with pytest.raises(raised):
        restore(folder, mesh)
    assert tree(tmp_path) == before


def test_an_undamaged_checkpoint_that_orbax_cannot_read_is_left_alone(tmp_path, mesh, monkeypatch):
    """Such as one of another version: by its manifest its bytes are those that were written."""
    folder = tmp_path / "checkpoints"
    save(folder, mesh, (1, 2))
    before = tree(tmp_path)

    def fail(*_):
        raise KeyError("an entry of another version")

    monkeypatch.setattr(Checkpoints, "_restore_step", fail)
    with pytest.raises(CheckpointUnreadable, match=r"KeyError: 'an entry of another version'"):
        restore(folder, mesh)
    assert tree(tmp_path) == before


def test_a_half_written_save_is_not_seen(tmp_path, mesh):
    save(tmp_path, mesh, (1, 2))
    # What a killed save leaves: a folder under Orbax's temporary name.
    (tmp_path / "step_2").rename(tmp_path / "step_2.orbax-checkpoint-tmp")
    assert digest(restore(tmp_path, mesh)) == digest(make_state(1))


@pytest.mark.parametrize(
    "position", [Position(data_seed=4, batch_size=64), Position(data_seed=3, batch_size=32)]
)
def test_other_data_are_refused(tmp_path, mesh, position):
    save(tmp_path, mesh, (1,))
    with pytest.raises(CheckpointMismatch, match=r"was made with (data_seed 3|batch_size 64)"):
        restore(tmp_path, mesh, position)


@pytest.mark.parametrize("kind", [{"width": 5}, {"optimizer": optax.sgd(0.1, momentum=0.9)}])
def test_another_model_or_optimizer_is_refused_not_taken_for_damage(tmp_path, mesh, kind):
    save(tmp_path, mesh, (1,))
    with pytest.raises(CheckpointMismatch, match="another model or optimizer"):
        restore(tmp_path, mesh, **kind)


def test_keep_must_leave_a_predecessor(tmp_path):
    with pytest.raises(ValueError, match="keep is 1"):
        Checkpoints(tmp_path, POSITION, keep=1)


def test_a_reader_leaves_everything_as_it_is(tmp_path, mesh):
    folder = tmp_path / "checkpoints"
    save(folder, mesh, (1, 2))
    under_way = folder / "step_3.orbax-checkpoint-tmp"
    under_way.mkdir()
    truncate(folder / "step_2")
    before = sorted(tmp_path.rglob("*"))
    abstract = jax.eval_shape(lambda: make_state(0))
    with Checkpoints(folder, POSITION, reads_only=True) as checkpoints:
        told = pytest.warns(UserWarning, match="checkpoint of step 2 .* is damaged")
        with told:
            found = checkpoints.restore(abstract, meshes.replicated(mesh))
    assert digest(found) == digest(make_state(1))
    assert sorted(tmp_path.rglob("*")) == before
