"""Exponential learning rates: the lecture's claims on a network, and the network itself."""

import jax
import numpy as np
import pytest

from experiments.lecture import exponential_rates as experiment
from experiments.lecture.exponential_rates import QUICK, Config


def test_every_claim_holds(found, refuted):
    assert len(experiment.judge(QUICK, found)) == 7
    assert refuted(found) == []


def test_claims_fail_where_the_phenomenon_is_absent(found):
    changed = {name: np.full_like(values, 1e-9) for name, values in found.items()}
    failed = [i for i, c in enumerate(experiment.judge(QUICK, changed)) if not c.confirmed]
    assert failed == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("epsilon", "last", "invariant"), [(0.0, True, True), (0.0, False, False), (1e-3, True, False)]
)
def test_which_networks_are_scale_invariant(epsilon, last, invariant):
    with jax.enable_x64(True):
        images = jax.random.uniform(jax.random.key(0), (20, 64))
        weights = experiment.start(QUICK, jax.random.key(1))
        longer = jax.tree.map(lambda w: 3 * w, weights)
        one, other = (
            np.asarray(experiment.network(w, images, epsilon=epsilon, last=last))
            for w in (weights, longer)
        )
    assert bool(np.abs(one - other).max() < 1e-12) == invariant


def test_what_oscillates_is_refused():
    with pytest.raises(ValueError, match="the weights would oscillate"):
        Config(learning_rate=1.0, weight_decay=0.1)
