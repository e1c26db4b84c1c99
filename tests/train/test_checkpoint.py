"""Checkpoints: round trip, damage, mismatch, another topology."""

import errno
import json
import os
import warnings

import chex
import jax
import jax.numpy as jnp
import optax
import pytest

from clipjax.train import manifest
from clipjax.train import mesh as meshes
from clipjax.train.checkpoint import CheckpointMismatch, Checkpoints, Position
from clipjax.train.state import TrainState, digest

POSITION = Position(data_seed=3, batch_size=64)


def make_state(step, width=400, optimizer=None):
    """Return a state whose every leaf depends on the step."""
    params = {"dense": {"kernel": jax.random.normal(jax.random.key(step), (32, width))}}
    optimizer = optimizer or optax.chain(optax.clip(1.0), optax.adam(1e-3))
    stats = {"batch_stats": {"bn": {"mean": jnp.full(width, step, jnp.float32)}}}
    return TrainState(jnp.int32(step), params, optimizer.init(params), stats)


@pytest.fixture
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
    return max(files(folder / "state"), key=lambda path: path.stat().st_size)


def delete_the_largest(folder):
    largest(folder).unlink()


def cut_the_largest(folder):
    os.truncate(largest(folder), 0)


def garble_the_manifest(folder):
    (folder / "manifest.json").write_text("[]")


DAMAGES = [truncate, flip_a_bit, delete_state, garble_json, forge_digest, delete_the_largest]
DAMAGES += [cut_the_largest, garble_the_manifest]


# Of many failing reads Orbax raises the first; the others die unheard inside asyncio.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("sealed", [True, False], ids=["manifest", "no_manifest"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_is_skipped_with_a_warning(tmp_path, mesh, damage, sealed):
    folder = tmp_path / "checkpoints"
    save(folder, mesh, (1, 2))
    if not sealed:  # as of a run that was killed before it wrote the manifest
        if damage is garble_the_manifest:
            pytest.skip("there is none")
        (folder / "step_2" / "manifest.json").unlink()
    damage(folder / "step_2")
    with pytest.warns(UserWarning, match="checkpoint of step 2 .* is damaged"):
        restored = restore(folder, mesh)
    assert digest(restored) == digest(make_state(1))
    # It is out of the way: the same step can be saved again and is then the newest.
    save(folder, mesh, (2,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert digest(restore(folder, mesh)) == digest(make_state(2))


def test_a_checkpoint_without_a_manifest_is_used(tmp_path, mesh):
    save(tmp_path, mesh, (1,))
    (tmp_path / "step_1" / "manifest.json").unlink()
    assert digest(restore(tmp_path, mesh)) == digest(make_state(1))


@pytest.mark.parametrize("sealed", [True, False], ids=["manifest", "no_manifest"])
@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Permission denied"),
        OSError(errno.EIO, "Input/output error"),
        MemoryError(),
        ValueError("PERMISSION_DENIED: opening d/0"),
    ],
)
def test_what_cannot_be_read_is_no_damage_and_stays(tmp_path, mesh, monkeypatch, error, sealed):
    """Root may read everything, so the error is raised where the files would be opened."""
    folder = tmp_path / "checkpoints"
    save(folder, mesh, (1, 2))
    if not sealed:
        (folder / "step_2" / "manifest.json").unlink()
    before = {path: path.read_bytes() for path in files(tmp_path)}

    def fails(*_, **__):
        raise error

    monkeypatch.setattr(Checkpoints, "_restore_step", fails)
    if sealed and isinstance(error, OSError):
        monkeypatch.setattr(manifest, "_sha256", fails)
    with pytest.raises(type(error)):
        restore(folder, mesh)
    assert {path: path.read_bytes() for path in files(tmp_path)} == before


def test_a_sound_checkpoint_that_orbax_cannot_read_is_no_damage(tmp_path, mesh, monkeypatch):
    save(tmp_path, mesh, (1, 2))
    monkeypatch.setattr(Checkpoints, "_restore_step", lambda *_: {}["a fault of the program"])
    with pytest.raises(KeyError, match="a fault of the program"):
        restore(tmp_path, mesh)
    assert (tmp_path / "step_2").exists()


def test_a_save_that_failed_gets_no_manifest(tmp_path, mesh, monkeypatch):
    with Checkpoints(tmp_path, POSITION) as checkpoints:
        checkpoints.save(on(mesh, make_state(1)))
        wait = checkpoints._manager.wait_until_finished

        def fails():
            wait()
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(checkpoints._manager, "wait_until_finished", fails)
        with pytest.raises(OSError, match="No space"):
            checkpoints.wait()
        monkeypatch.undo()
    assert not (tmp_path / "step_1" / "manifest.json").exists()


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
