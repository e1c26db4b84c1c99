"""What the tests of all experiments share. Each file imports its module as `experiment`."""

import pytest


@pytest.fixture(scope="module")
def found(request):
    """Return the quick result of the file's experiment."""
    one = request.module.experiment.EXPERIMENT
    return one.compute(one.quick, None)


@pytest.fixture(scope="module")
def refuted(request):
    """Return a function: result -> the places of the claims that do not hold."""
    one = request.module.experiment.EXPERIMENT

    def places(found):
        return [i for i, claim in enumerate(one.judge(one.quick, found)) if not claim.confirmed]

    return places
