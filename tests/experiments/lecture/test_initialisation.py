"""Initialisation: mean squares by theory, a run written out, symmetry, and the claims."""

import jax
import numpy as np
import pytest

from experiments.lecture import initialisation as experiment
from experiments.lecture.initialisation import LN10, METHODS, QUICK, Config


def test_every_claim_holds(found, refuted):
    assert len(experiment.judge(QUICK, found)) == 7
    assert refuted(found) == []


def test_claims_fail_where_the_phenomenon_is_absent(found):
    """Signals that neither start keeps, runs that do not depend on it, neurons that part."""
    changed = dict(found)
    for way in ("forward", "backward"):
        for name in ("he", "xavier"):
            changed[f"{way}_{name}"] = found[f"{way}_{name}"] * 0.8 ** np.arange(QUICK.deep)
    for pair in (f"{method}_{depth}" for method in METHODS for depth in ("shallow", "deep")):
        # The seed's noise without the start's effect.
        loss = found[f"loss_{pair}"][0]
        changed[f"loss_{pair}"] = np.stack([loss, loss[::-1]])
        changed[f"unequal_{pair}"] = np.full_like(found[f"unequal_{pair}"], 0.5)
    assert [c.says for c in experiment.judge(QUICK, changed) if c.confirmed] == []


def test_a_network_that_does_not_train_at_all_is_told(found):
    """Both starts at ln 10: Xavier's stalls, and nothing is said of He's."""
    changed = dict(found)
    for name in (f"loss_{method}_{depth}" for method in METHODS for depth in ("shallow", "deep")):
        changed[name] = np.full_like(found[name], LN10)
    confirmed = [c.says for c in experiment.judge(QUICK, changed) if c.confirmed]
    assert len(confirmed) == 2
    assert all("mean square" in says for says in confirmed)


def test_mean_squares_of_one_layer():
    """One layer, no ReLU before it: |Wx|²/n has mean n σ²; the gradient passes half of the rows."""
    forward, backward = experiment.squares(2.0, 1, 32, 2000, 3)
    for values, theory in ((forward, 2.0), (backward, 1.0)):
        error = values.std() / len(values) ** 0.5
        assert abs(values.mean() - theory) < 4 * error < 0.1


def test_the_same_draws_scaled():
    """relu(cz) = c relu(z): Xavier's network is He's, smaller by 2^(-1/2) a layer."""
    he, xavier = (experiment.squares(gain, 12, 16, 20, 7) for gain in (2.0, 1.0))
    powers = 0.5 ** np.arange(1, 13)
    np.testing.assert_allclose(xavier[0], he[0] * powers, rtol=1e-4)
    np.testing.assert_allclose(xavier[1], he[1] * powers[::-1], rtol=1e-4)


def test_mean_squares_are_those_of_the_networks_own_gradient():
    """Forward and backward written out against jax.vjp of the same layers."""
    rng = np.random.default_rng(11)
    weights = np.float32((2 / 8) ** 0.5) * rng.standard_normal((3, 8, 8), np.float32)
    value, gradient = (rng.standard_normal(8, np.float32) for _ in range(2))
    value, gradient = (one / np.sqrt(np.mean(one**2)) for one in (value, gradient))

    def through(x, matrices):
        for matrix in matrices:
            x = jax.nn.relu(matrix @ x)
        return x

    forward, backward = experiment.squares(2.0, 3, 8, 1, 11)
    for i in range(3):
        before = weights[i] @ through(value, weights[:i])
        np.testing.assert_allclose(forward[0, i], np.mean(before**2), rtol=1e-4)
        _, back = jax.vjp(lambda x, i=i: through(x, weights[i:]), through(value, weights[:i]))
        np.testing.assert_allclose(backward[0, i], np.mean(back(gradient)[0] ** 2), rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_training_is_the_method_written_out(method):
    """Backpropagation and the steps in NumPy, with the same batches."""
    sizes, rate, batch, steps = (5, 6, 3, 4), 0.02, 7, 6
    key = jax.random.key(2)
    first = experiment.start("he", sizes, key)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 5)).astype(np.float32)
    labels = rng.integers(0, 3, 20)
    trained, losses = experiment.train(
        jax.tree.map(lambda leaf: leaf[None], first),
        key[None],
        rows,
        labels,
        method=method,
        rate=rate,
        batch_size=batch,
        steps=steps,
    )
    matrices = [np.asarray(first["first"], float), *np.asarray(first["middle"], float)]
    matrices.append(np.asarray(first["last"], float))
    mean = [np.zeros_like(m) for m in matrices]
    square = [np.zeros_like(m) for m in matrices]
    for k in range(steps):
        index = np.asarray(jax.random.randint(jax.random.fold_in(key, k), (batch,), 0, 20))
        values = [rows[index].astype(float)]
        for matrix in matrices[:-1]:
            values.append(np.maximum(values[-1] @ matrix, 0))
        logits = values[-1] @ matrices[-1]
        odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        np.testing.assert_allclose(
            losses[0, k], -np.log(odds[np.arange(batch), labels[index]]).mean(), rtol=1e-4
        )
        back = (odds - np.eye(3)[labels[index]]) / batch
        for i in reversed(range(len(matrices))):
            gradient = values[i].T @ back
            back = (back @ matrices[i].T) * (values[i] > 0)
            if method == "momentum":
                mean[i] = 0.9 * mean[i] + gradient
                step = mean[i]
            else:
                mean[i] = 0.9 * mean[i] + 0.1 * gradient
                square[i] = 0.999 * square[i] + 0.001 * gradient**2
                root = np.sqrt(square[i] / (1 - 0.999 ** (k + 1)))
                step = mean[i] / (1 - 0.9 ** (k + 1)) / (root + 1e-8)
            matrices[i] = matrices[i] - rate * step
    np.testing.assert_allclose(trained["last"][0], matrices[-1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(trained["first"][0], matrices[0], rtol=1e-3, atol=1e-4)


def test_equal_weights_have_equal_gradients():
    """Columns of the first layer, all entries of the middle ones, rows of the last."""
    weights = experiment.start("equal", (5, 6, 3, 4), jax.random.key(0))
    rows = jax.random.normal(jax.random.key(1), (9, 5))
    gradient = jax.grad(lambda w: (experiment.network(w, rows)[0][:, 0] ** 2).sum())(weights)
    assert float(np.abs(gradient["first"]).max()) > 0
    for name, axes in (("first", 1), ("middle", (1, 2)), ("last", 0)):
        values = np.asarray(gradient[name])
        alike = np.broadcast_to(values.mean(axes, keepdims=True), values.shape)
        np.testing.assert_allclose(values, alike, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shallow": 30}, "shallow is 30, Config.deep is 30; expected a smaller number of layers"),
        ({"deep": 1000}, "deep is 1000; expected a whole number from 3, up to 200"),
        ({"dataset": "mnits"}, "dataset is 'mnits'; .* did you mean 'mnist'"),
        ({"sgd_rate": 0.0}, "sgd_rate is 0.0; expected a number that is positive"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Config(**change)


def test_too_few_pictures_are_told():
    config = Config(dataset="digits", examples=1438, draws=20, wide=8)
    with pytest.raises(ValueError, match="examples is 1438; digits has 1437 training pictures"):
        experiment.compute(config)
