"""Recomputed batch statistics: exact moments, arguments untouched, one compilation, sharding."""

from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax.train import batch_stats, mesh
from clipjax.train.batch_stats import recompute_batch_stats


class Net(nn.Module):
    """BatchNorm on the data, then a layer with dropout and a second BatchNorm."""

    bn_momentum: float = 0.9
    dropout: float = 0.0
    label: str = ""
    """Tells the nets of the tests apart: each has its own compilation."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(not train, momentum=self.bn_momentum, name="first")(x)
        x = nn.relu(nn.Dense(4, name="dense")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.BatchNorm(not train, momentum=self.bn_momentum, name="second")(x)


@dataclass(frozen=True)
class Halved:
    """A task whose inputs are not the raw images."""

    def inputs(self, batch):
        return batch["image"] / 2


TASK = Halved()


def images(seed=0, total=80):
    """Return data of which the batches differ: their means drift."""
    rng = np.random.default_rng(seed)
    drift = np.linspace(-2, 2, total)[:, None]
    return rng.normal(size=(total, 3)).astype(np.float32) * [1, 2, 3] + drift + [0, 1, -1]


def batches(data, size=16):
    for start in range(0, len(data), size):
        yield {"image": jnp.asarray(data[start : start + size], jnp.float32)}


def init(model):
    variables = model.init(jax.random.key(0), jnp.zeros((1, 3)), train=False)
    return variables["params"], {"batch_stats": variables["batch_stats"]}


def normalize(x, params):
    """Return (x - mean) / sqrt(var + eps) * scale + bias of one batch, float64."""
    return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * params["scale"] + params["bias"]


def test_equals_the_exact_moments_of_the_data():
    """Where the batches cover the data, and whatever the model's momentum."""
    data, model = images(), Net(bn_momentum=0.5)
    params, state = init(model)
    stats = recompute_batch_stats(model, params, state, batches(data), TASK)["batch_stats"]
    exact = data.astype(np.float64) / 2
    np.testing.assert_allclose(stats["first"]["mean"], exact.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(stats["first"]["var"], exact.var(0), rtol=1e-5)
    # The mean of the batches' own variances alone would miss the drift.
    within = np.mean([part.var(0) for part in np.split(exact, 5)], axis=0)
    assert np.all(exact.var(0) > 1.05 * within)


def test_deeper_layers_see_inputs_normalised_batch_by_batch():
    """At the parameters given: the dense layer written out."""
    data = images()
    params, state = init(Net())
    params = jax.tree.map(lambda p: p + 0.3, params)
    stats = recompute_batch_stats(Net(), params, state, batches(data), TASK)["batch_stats"]
    host = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    hidden = [
        np.maximum(
            normalize(part / 2, host["first"]) @ host["dense"]["kernel"] + host["dense"]["bias"], 0
        )
        for part in np.split(data.astype(np.float64), 5)
    ]
    exact = np.concatenate(hidden)
    np.testing.assert_allclose(stats["second"]["mean"], exact.mean(0), rtol=1e-4)
    np.testing.assert_allclose(stats["second"]["var"], exact.var(0), rtol=1e-4)


def test_many_points_at_once_are_each_as_by_itself():
    """With dropout, whose masks are the same; the other collections are passed on."""
    model = Net(dropout=0.5, label="stacked")
    params, state = init(model)
    state |= {"constants": {"a": jnp.ones(2)}}
    points = [jax.tree.map(lambda p, n=n: p + 0.3 * n, params) for n in range(3)]
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *points)
    found = recompute_batch_stats(model, together, state, batches(images()), TASK, stacked=True)
    assert found["constants"] is state["constants"]
    for i, point in enumerate(points):
        alone = recompute_batch_stats(model, point, state, batches(images()), TASK)
        jax.tree.map(
            lambda many, one, i=i: np.testing.assert_allclose(many[i], one, rtol=1e-5, atol=1e-6),
            found["batch_stats"],
            alone["batch_stats"],
        )


def test_the_old_moments_neither_matter_nor_change():
    """Be they NaN, as after a run that diverged; other collections are passed on."""
    params, state = init(Net())
    params_before = jax.tree.map(np.array, params)
    fresh = recompute_batch_stats(Net(), params, state, batches(images()), TASK)
    spoiled = {
        "batch_stats": jax.tree.map(lambda s: jnp.full_like(s, jnp.nan), state["batch_stats"]),
        "constants": {"a": jnp.ones(2)},
    }
    again = recompute_batch_stats(Net(), params, spoiled, batches(images()), TASK)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(again))
    jax.tree.map(np.testing.assert_array_equal, again["batch_stats"], fresh["batch_stats"])
    assert again["constants"] is spoiled["constants"]
    assert np.all(np.isnan(spoiled["batch_stats"]["first"]["mean"]))
    np.testing.assert_array_equal(state["batch_stats"]["first"]["mean"], np.zeros(3))
    np.testing.assert_array_equal(state["batch_stats"]["first"]["var"], np.ones(3))
    jax.tree.map(np.testing.assert_array_equal, params, params_before)
    assert jax.tree.map(lambda s: (s.shape, s.dtype), fresh) == jax.tree.map(
        lambda s: (s.shape, s.dtype), state
    )


@pytest.mark.parametrize("devices", [1, 8])
def test_compiles_once_over_batches_and_calls(devices):
    """With other parameters, states, numbers of batches, seeds, and equal models made anew."""
    before = batch_stats._add_batch._cache_size()
    place = mesh.make_mesh(jax.devices()[:devices])
    for number in (2, 5, 3):
        model = Net(label=f"compiled on {devices}")
        params, state = jax.device_put(init(model), mesh.replicated(place))
        params = jax.tree.map(lambda p, n=number: p + n, params)
        parts = [
            mesh.place({"image": part}, place)
            for part in np.split(images(number, 16 * number), number)
        ]
        state = recompute_batch_stats(model, params, state, parts, Halved(), seed=number)
        # Its own result, with the shardings of the state, is no new case either.
        recompute_batch_stats(model, params, state, parts, Halved())
    assert batch_stats._add_batch._cache_size() == before + 1


def test_batches_sharded_over_eight_devices_give_the_moments_of_one():
    data, model = np.float32(images()), Net(label="sharded")
    results = {}
    for devices in (1, 8):
        place = mesh.make_mesh(jax.devices()[:devices])
        params, state = jax.device_put(init(model), mesh.replicated(place))
        parts = [mesh.place({"image": part}, place) for part in np.split(data, 5)]
        assert len(parts[0]["image"].sharding.device_set) == devices
        new = recompute_batch_stats(model, params, state, parts, TASK)
        jax.tree.map(lambda new, old: _same_placement(new, old), new, state)
        results[devices] = jax.device_get(new)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), results[1], results[8]
    )
    exact = data.astype(np.float64) / 2
    stats = results[8]["batch_stats"]["first"]
    np.testing.assert_allclose(stats["var"], exact.var(0), rtol=1e-5)


def _same_placement(new, old):
    assert new.sharding.is_equivalent_to(old.sharding, new.ndim)


def test_dropout_depends_on_the_seed_only():
    model = Net(dropout=0.5)
    params, state = init(model)

    def second_mean(seed):
        new = recompute_batch_stats(model, params, state, batches(images()), TASK, seed=seed)
        return np.asarray(new["batch_stats"]["second"]["mean"])

    np.testing.assert_array_equal(second_mean(1), second_mean(1))
    assert not np.array_equal(second_mean(1), second_mean(2))


def test_without_statistics_nothing_is_read():
    def unread():
        raise AssertionError("a batch was read")
        yield

    for state in ({}, {"batch_stats": {}}, {"constants": {"a": jnp.ones(1)}}):
        assert recompute_batch_stats(Net(), {}, state, unread(), TASK) is state


def test_refuses_no_batch_and_batches_of_two_sizes():
    params, state = init(Net())
    with pytest.raises(ValueError, match="needs at least one full batch, got none"):
        recompute_batch_stats(Net(), params, state, [], TASK)
    with pytest.raises(ValueError, match="one of 8 examples after 1 of 16: leave the partial"):
        recompute_batch_stats(Net(), params, state, batches(images(total=24)), TASK)


def test_refuses_a_model_without_momentum_and_unknown_statistics():
    params, state = init(Net())
    with pytest.raises(ValueError, match="Dense has batch statistics but no attribute bn_momentum"):
        recompute_batch_stats(nn.Dense(3), params, state, batches(images()), TASK)
    odd = {"batch_stats": {"norm": {"mean": jnp.ones(1), "sigma": jnp.ones(1)}}}
    with pytest.raises(ValueError, match=r"named 'mean' and 'var', got \['sigma'\]"):
        recompute_batch_stats(Net(), params, odd, batches(images()), TASK)
