"""Double descent: the lecture's numbers, the solutions by other ways, and the claims."""

import numpy as np
import pytest

from experiments.lecture import double_descent as experiment
from experiments.lecture.double_descent import PRINTED, QUICK, Config


def test_every_claim_holds(found, refuted):
    assert len(experiment.judge(QUICK, found)) == 7
    assert refuted(found) == []


def test_claims_fail_where_the_phenomenon_is_absent(found):
    """Errors that only fall with the width: no peak, no second descent, none that noise makes."""
    changed = dict(found)
    for name in ("errors", "norms"):
        changed[name] = np.broadcast_to(1 / (1 + np.arange(61.0)), (100, 61))
    shape = found["feature_loss"].shape
    for name in ("feature_loss", "feature_error", "stopped_loss"):
        changed[name] = np.broadcast_to(np.linspace(1, 0.5, shape[-1]), shape)
    changed["feature_error"] = np.zeros(shape)
    assert [c.says for c in experiment.judge(QUICK, changed) if c.confirmed] == []


def test_the_lectures_numbers():
    """MATH §4 has them to two to four digits; between 30 and 60 they depend on rounding."""
    config = Config(noise_draws=10)
    found = experiment.polynomials(config)
    error = found["lecture_error"]
    for degree, value in PRINTED.items():
        # The coarsest is 0.0033: half a unit of its last digit is 1.5 %.
        assert abs(error[degree] - value) < 0.02 * value, degree
    assert 10 < error[30] < 100
    assert error[49] > 1e10


def test_the_polynomial_is_the_least_squares_one_of_smallest_norm():
    """Below the threshold numpy's own fit; above, any other solution is longer."""
    found = experiment.polynomials(QUICK)
    fit = np.polynomial.Chebyshev.fit(found["x"], found["y"], 5, domain=[-1, 1])
    np.testing.assert_allclose(found["fits"][5], fit(found["test_x"]), rtol=1e-9)
    matrix = np.polynomial.chebyshev.chebvander(found["x"], 40)
    solution = np.linalg.lstsq(matrix, found["y"], rcond=None)[0]
    assert abs(np.linalg.norm(solution) / found["lecture_norm"][40] - 1) < 1e-9


def test_stopped_descent_is_gradient_descent():
    """(1 - (1 - ηs²)^t)/s against t steps written out, η = 1/s_max²; many steps: the solution."""
    rng = np.random.default_rng(0)
    features, answers = rng.normal(size=(6, 4)), np.eye(2)[[0, 1, 0, 1, 1, 0]]
    held = rng.normal(size=(5, 4)), rng.normal(size=(3, 4))
    held_answers, test_labels = np.eye(2)[[0, 1, 1, 0, 1]], np.array([0, 1, 1])
    rate = 1 / np.linalg.norm(features, 2) ** 2
    weights = np.zeros((4, 2))
    for _ in range(7):
        weights -= rate * features.T @ (features @ weights - answers)
    loss, _, norm, stopped, _ = experiment._least_squares(
        [features, *held], [answers, held_answers], test_labels, (7,)
    )
    truth = np.eye(2)[test_labels]
    np.testing.assert_allclose(stopped, ((held[1] @ weights - truth) ** 2).sum(1).mean())
    exact = np.linalg.lstsq(features, answers, rcond=None)[0]
    np.testing.assert_allclose(norm, np.linalg.norm(exact))
    np.testing.assert_allclose(loss, ((held[1] @ exact - truth) ** 2).sum(1).mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"largest_degree": 60}, "largest_degree is 60; the second descent of 50 points needs 99"),
        ({"widths": (10, 20)}, "widths are from 10 to 20; expected widths below and above the 500"),
        ({"label_noise": 0.0}, "label_noise is 0.0; expected a number above 0, up to 1"),
        ({"dataset": "cifar10"}, "dataset is 'cifar10'"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Config(**change)


def test_too_few_pictures_are_told():
    config = Config(dataset="digits", examples=1500)
    with pytest.raises(ValueError, match="digits has 1437 training pictures, of which twice as"):
        experiment.compute(config)
