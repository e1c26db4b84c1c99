"""Rare classes: the problem, a run written out, the noise, and the claims."""

import numpy as np
import pytest

from clipjax.analysis import hill_tail_index
from experiments.lecture import rare_classes as experiment
from experiments.lecture.rare_classes import BY_GRADIENT, METHODS, QUICK, Config


def test_every_claim_holds(found, refuted):
    assert len(experiment.judge(QUICK, found)) == 8
    assert refuted(found) == []


def test_claims_fail_where_the_phenomenon_is_absent(found):
    """All methods do what SGD does, then what Adam does; noise of infinite variance."""
    heavy = np.random.default_rng(0).pareto(1.0, found["noise_norms"].shape) + 1
    same = {"noise_norms": heavy, "noise_block": found["noise_block"] - 1}
    for kind in ("seeds", "tuned"):
        same |= {f"{kind}_{name}": found[f"{kind}_sgd"] for name in METHODS}
    confirmed = [c.says for c in experiment.judge(QUICK, {**found, **same}) if c.confirmed]
    # Left are those that say of SGD itself, or of clipping, what is still true.
    assert len(confirmed) == 3
    for says, part in zip(confirmed, ("Clipping by", "Nor does", "gains is time"), strict=True):
        assert part in says
    for kind in ("seeds", "tuned"):
        same |= {f"{kind}_{name}": found[f"{kind}_adam"] for name in METHODS}
        same[f"{kind}_clipped_sgd"] = found[f"{kind}_adam"] / 2
    stuck = np.ones_like(found["tuned_sgd"])
    same |= {"tuned_sgd": 3 * stuck, "tuned_clipped_sgd": stuck, "tuned_adam": 4 * stuck}
    confirmed = [c.says for c in experiment.judge(QUICK, {**found, **same}) if c.confirmed]
    assert confirmed == ["Sign descent does what Adam without momentum does."]


def test_equal_sizes_have_no_tail(found):
    sizes = np.full_like(found["class_sizes"], 4)
    sizes[:20] = 5
    claim = experiment.judge(QUICK, {**found, "class_sizes": sizes})[-1]
    assert claim.says.startswith("Labels have heavy tails")
    assert not claim.confirmed


def test_the_problem_is_that_of_the_source():
    """m = 7: 896 x 1024 with 127 classes; every group is as many examples; ln c at W = 0."""
    features, labels = experiment.make_features(7, 0), experiment.make_labels(7)
    assert features.shape == (896, 1024)
    sizes = np.bincount(labels)
    np.testing.assert_array_equal(sizes, experiment.class_sizes(7))
    np.testing.assert_array_equal(np.unique(sizes, return_counts=True)[1], 2 ** np.arange(7)[::-1])
    assert len(sizes) == 127
    np.testing.assert_array_equal(np.add.reduceat(sizes, 2 ** np.arange(7) - 1), 128)
    # Few large classes hold half of the examples: the index of a power law near 1.
    assert hill_tail_index(sizes.astype(float), 63) < 1.5


@pytest.mark.parametrize("name", ["sgd", "sign", "clipped_sgd", "adam_0", "momentum"])
def test_a_run_is_the_method_written_out(name):
    """Gradient and steps in NumPy; the last of a few steps, group by group."""
    groups, steps, rate, level = 3, 8, 0.05, 0.3
    features = experiment.make_features(groups, 5)
    losses, last = experiment.follow(
        features, np.array([rate], np.float32), name=name, groups=groups, steps=steps, level=level
    )
    rows, hot = features.astype(float), np.eye(7)[experiment.make_labels(groups)]
    weights, trace, square = np.zeros((rows.shape[1], 7)), 0.0, 0.0
    for k in range(1, steps + 1):
        odds = np.exp(rows @ weights)
        gradient = rows.T @ (odds / odds.sum(1, keepdims=True) - hot) / len(rows)
        trace, square = 0.9 * trace + gradient, 0.999 * square + 0.001 * gradient**2
        weights -= (
            rate
            * {
                "sgd": gradient,
                "sign": np.sign(gradient),
                "clipped_sgd": gradient * min(1, level / np.linalg.norm(gradient)),
                "adam_0": gradient / (np.sqrt(square / (1 - 0.999**k)) + 1e-8),
                "momentum": trace,
            }[name]
        )
    logits = rows @ weights
    each = np.log(np.exp(logits).sum(1)) - (logits * hot).sum(1)
    np.testing.assert_allclose(last[0], weights, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(losses[0, -1], each.reshape(groups, -1).mean(1), rtol=1e-4)
    np.testing.assert_allclose(losses[0, 0], np.log(7), rtol=1e-5)


def test_the_noise_of_batches_has_mean_zero_and_the_variance_of_single_gradients():
    """E|g_B − ∇f|² = (1/b) mean |∇f_i − ∇f|², gradients of examples formed one by one."""
    groups, b, count = 3, 4, 4000
    features = experiment.make_features(groups, 1)
    weights = np.random.default_rng(0).normal(size=(features.shape[1], 7)) / 10
    noise = experiment.batch_noise(features, weights, groups, b, count, 2)
    labels = experiment.make_labels(groups)
    each = []
    for row, label in zip(features.astype(float), labels, strict=True):
        odds = np.exp(row @ weights)
        each.append(np.outer(row, odds / odds.sum() - np.eye(7)[label]).ravel())
    each -= np.mean(each, axis=0)
    expected = (each**2).sum(1).mean() / b
    squares = (noise**2).sum(1)
    assert abs(squares.mean() - expected) < 4 * squares.std() / count**0.5
    # Of a mean of independent vectors: |mean|² is about variance / count.
    assert (noise.mean(0) ** 2).sum() < 3 * expected / count


def test_the_crossing_is_the_last_one_and_lies_between_steps():
    frequent, rare = [1.0, 0.2, 0.5, 0.1], [1.0, 0.9, 0.8, 0.4]
    path = np.array([[frequent, rare], [[1, 1, 1, 1], rare]], float).transpose(0, 2, 1)
    at = experiment.rare_at_third(path)
    np.testing.assert_allclose(at[0], 0.8 - 0.4 * (0.5 - 1 / 3) / 0.4)
    assert np.isnan(at[1])


def test_gradient_methods_go_one_way_at_different_speeds():
    """Momentum 0.9 is SGD with ten times the rate, where the rate is small."""
    features = experiment.make_features(4, 0)
    ends = [
        experiment.follow(
            features, np.array([rate], np.float32), name=name, groups=4, steps=400, level=0.3
        )[0][0, -1]
        for name, rate in (("sgd", 0.01), ("momentum", 0.001))
    ]
    np.testing.assert_allclose(ends[0], ends[1], rtol=0.03)
    assert set(BY_GRADIENT) < set(METHODS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"groups": 2}, "groups is 2; expected a whole number from 3, up to 9"),
        ({"rates": ()}, r"rates is \(\); expected a tuple"),
        ({"rates": (0.1, -1.0)}, r"rates\[1\] is -1.0; expected a number that is positive"),
        ({"seeds": 1}, "seeds is 1; expected a whole number from 2"),
        ({"batches": 10}, "batches is 10; expected a whole number from 50"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Config(**change)
