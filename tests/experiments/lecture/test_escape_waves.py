"""The waves: the claims."""

import pytest

from experiments.lecture import escape_waves as experiment
from experiments.lecture.escape_waves import QUICK, Config


def test_every_claim_holds(found, refuted):
    assert len(experiment.judge(QUICK, found)) == 3
    assert refuted(found) == []


def test_claims_fail_where_the_phenomenon_is_absent(found, refuted):
    """Gradient descent goes on as SGD does, and SGD stays."""
    assert refuted(found | {"gd": found["sgd"], "left": found["left"] // 3}) == [0, 1, 2]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"Config.batches\[1\] is 0; expected a whole number from"):
        Config(batches=(1, 0))
