"""The hard-margin separator against two other solvers, and what measures the way to it."""

import numpy as np
import pytest
import scipy.optimize

from clipjax.analysis import direction_error, hard_margin_separator, margin_gap, margins

CASES = [(32, 2, 0), (40, 5, 1), (30, 60, 2)]  # in the last more columns than rows: n > m


def separable(m, n, seed):
    """Return x and labels ±1 that the first axis separates with a margin of 0.2 at least."""
    x = np.random.default_rng(seed).normal(size=(m, n))
    labels = np.where(x[:, 0] > 0, 1, -1)
    x[:, 0] += 0.2 * labels
    return x, labels


def by_slsqp(x, labels):
    """Return the primal problem's solution by sequential quadratic programming."""
    signed = labels[:, None] * x
    n = x.shape[1]
    result = scipy.optimize.minimize(
        lambda w: w @ w / 2,
        np.eye(n)[0] / 0.2,  # separates with margin 1
        jac=lambda w: w,
        constraints={"type": "ineq", "fun": lambda w: signed @ w - 1, "jac": lambda w: signed},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    # It may end by finding no better point: at that accuracy, the best that it can do.
    assert (signed @ result.x).min() > 1 - 1e-9
    return result.x


@pytest.mark.parametrize("case", CASES)
def test_separator_is_that_of_a_quadratic_program(case):
    x, labels = separable(*case)
    found = hard_margin_separator(x, labels)
    expected = by_slsqp(x, labels)
    assert np.linalg.norm(found.weights - expected) < 1e-6 * np.linalg.norm(expected)


def test_separator_is_that_of_a_support_vector_machine():
    svm = pytest.importorskip("sklearn.svm")
    x, labels = separable(*CASES[1])
    # The mirrored set has the same separator through 0, and forces the intercept to be 0.
    machine = svm.SVC(kernel="linear", C=1e8, tol=1e-10)
    machine.fit(np.vstack([x, -x]), np.append(labels, -labels))
    found = hard_margin_separator(x, labels)
    np.testing.assert_allclose(machine.intercept_, 0, atol=1e-6)
    np.testing.assert_allclose(found.weights, machine.coef_[0], atol=1e-6 / found.margin)


@pytest.mark.parametrize("case", CASES)
def test_conditions_of_optimality(case):
    x, labels = separable(*case)
    weights, margin, multipliers, support = hard_margin_separator(x, labels)
    margins = labels * (x @ weights)
    assert margins.min() == pytest.approx(1, abs=1e-10)
    assert multipliers.min() >= 0
    assert np.flatnonzero(multipliers).tolist() == support.tolist()
    np.testing.assert_allclose(margins[support], 1, atol=1e-10)
    np.testing.assert_allclose(x.T @ (multipliers * labels), weights, rtol=1e-9, atol=1e-9)
    # Strong duality: Σ α_i = |ŵ|² = 1/γ̂².
    np.testing.assert_allclose(multipliers.sum(), margin**-2, rtol=1e-9)


@pytest.mark.parametrize(
    ("points", "multipliers", "condition"),
    [
        ([1.0, 0.5], [1.0, 0.0], "the least margin is off by 5.0e-01"),
        ([1.0, 1.0], [2.0, -1.0], "a multiplier's sign is off by 5.0e-01"),
        ([1.0, 2.0], [0.0, 0.5], "complementarity is off by 1.0e"),
        ([1.0, 2.0], [2.0, 0.0], "stationarity is off by 1.0e"),
    ],
)
def test_each_condition_of_optimality_is_checked(points, multipliers, condition):
    # y_i x_i on a line, ŵ = 1: all conditions hold but one.
    arguments = np.array(points)[:, None], np.ones(1)
    with pytest.raises(ValueError, match=f"its separator is not optimal, {condition}"):
        margins._check_optimal(*arguments, np.array(multipliers))
    margins._check_optimal(np.array([[1.0], [2.0]]), np.ones(1), np.array([1.0, 0.0]))


def test_a_separator_that_is_not_optimal_is_refused(monkeypatch):
    polished = margins._polished

    def longer(*given):
        weights, multipliers = polished(*given)
        return weights, 1.1 * multipliers

    monkeypatch.setattr(margins, "_polished", longer)
    with pytest.raises(ValueError, match=r"stationarity is off by 1\.0e-01"):
        hard_margin_separator(*separable(*CASES[0]))


def test_a_separator_known_by_hand():
    # The points (0, ±1) mirror each other in the first axis and (3, 0) is farther than 1 from the
    # nearest point (1, 0) of their segment: ŵ = (1, 0), γ̂ = 1, each multiplier 1/2.
    found = hard_margin_separator(
        np.array([[1.0, 1.0], [1.0, -1.0], [-3.0, 0.0]]), np.array([1, 1, -1])
    )
    np.testing.assert_allclose(found.weights, [1, 0], atol=1e-14)
    assert found.margin == pytest.approx(1)
    np.testing.assert_allclose(found.multipliers, [0.5, 0.5, 0], atol=1e-14)
    assert found.support.tolist() == [0, 1]


@pytest.mark.parametrize("scale", [1e-100, 1e-3, 1e7, 1e100])
def test_units_of_x_are_those_of_the_margin(scale):
    x, labels = separable(*CASES[0])
    one, other = hard_margin_separator(x, labels), hard_margin_separator(scale * x, labels)
    np.testing.assert_allclose(other.weights * scale, one.weights, rtol=1e-9)
    np.testing.assert_allclose(other.margin / scale, one.margin, rtol=1e-9)
    np.testing.assert_allclose(other.multipliers * scale * scale, one.multipliers, rtol=1e-9)


def test_nothing_but_the_order_of_the_labels_matters():
    x, labels = separable(*CASES[0])
    expected = hard_margin_separator(x, labels).weights
    for other in (labels > 0, np.where(labels > 0, 7, 3), np.where(labels > 0, 0.5, -2.5)):
        np.testing.assert_array_equal(hard_margin_separator(x, other).weights, expected)
    np.testing.assert_array_equal(hard_margin_separator(x, labels < 0).weights, -expected)


@pytest.mark.parametrize("noise", [0.0, 1e-12, 1e-7])
def test_doubled_examples_do_no_harm(noise):
    x, labels = separable(*CASES[1])
    close = x + noise * np.random.default_rng(3).normal(size=x.shape)
    found = hard_margin_separator(np.vstack([x, close]), np.append(labels, labels))
    expected = hard_margin_separator(x, labels).weights
    np.testing.assert_allclose(found.weights, expected, rtol=1e-9 + 100 * noise, atol=100 * noise)


def test_a_thin_margin_is_found_and_a_thinner_one_refused():
    # Of (1, γ) and (-1, γ) the nearest point to 0 is (0, γ).
    for margin in (1e-2, 1e-5):
        x = np.array([[1.0, margin], [1.0, -margin]])
        found = hard_margin_separator(x, np.array([1, -1]))
        np.testing.assert_allclose(found.weights, [0, 1 / margin], rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="examples 0, 1 cannot be separated"):
        hard_margin_separator(np.array([[1.0, 3e-7], [1.0, -3e-7]]), np.array([1, -1]))


def test_examples_that_cannot_be_separated_are_named_and_are_enough():
    x, labels = separable(*CASES[1])
    labels[7] = -labels[7]
    with pytest.raises(ValueError, match="no plane through 0") as error:
        hard_margin_separator(x, labels)
    named = [
        int(word) for word in str(error.value).split("examples ")[1].split(" cannot")[0].split(",")
    ]
    assert 7 in named
    assert len(named) <= x.shape[1] + 1
    with pytest.raises(ValueError, match="cannot be separated"):
        hard_margin_separator(x[named], labels[named])
    # ... and without any one of them the others can: no combination of fewer is 0.
    for left_out in named:
        rest = [i for i in named if i != left_out]
        hard_margin_separator(x[rest], labels[rest])


def test_a_column_of_ones_is_an_intercept():
    x, labels = np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([0, 0, 1, 1])
    with pytest.raises(ValueError, match="column of ones"):
        hard_margin_separator(x, labels)
    found = hard_margin_separator(np.hstack([x, np.ones((4, 1))]), labels)
    # 3w + b = 1 and 2w + b = -1 for both support vectors to be at margin 1.
    np.testing.assert_allclose(found.weights, [2, -5], rtol=1e-9)


@pytest.mark.parametrize(
    ("x", "labels", "words"),
    [
        (np.eye(2), [1, 1], "labels must be two classes, two different numbers, got 1"),
        (np.eye(3), [1, 2, 3], "two different numbers, got 1, 2, 3"),
        (np.eye(2), [1, np.nan], "labels must be two classes"),
        (np.eye(2), [1, -1, 1], r"labels must have the shape \(2,\)"),
        (np.eye(2), ["a", "b"], "labels"),
        (np.ones(3), [1, -1, 1], r"x must have the shape \(m, n\)"),
        (np.ones((0, 3)), [], "x must have the shape"),
        (np.array([[1.0, 2.0], [np.inf, 0.0]]), [1, -1], "x must be finite, its row 1"),
        (np.array([[1e160, 2.0], [0.0, 1.0]]), [1, -1], "x must not exceed"),
        (np.zeros((2, 2)), [1, -1], "x must have a number of at least"),
        (np.array([[1.0, 2.0], [0.0, 0.0]]), [1, -1], "example 1 is 0"),
        (np.array([[1.0], [-1.0], [-2.0]]), [1, 1, 0], "examples 0, 1, of one class"),
    ],
)
def test_bad_sets_are_refused(x, labels, words):
    with pytest.raises(ValueError, match=words):
        hard_margin_separator(x, np.array(labels))


def test_direction_error_is_a_chord():
    angles = np.array([0.0, 1e-9, 0.3, np.pi / 2, np.pi])
    theta = 7 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    found = direction_error(theta, np.array([1e-3, 0.0]))
    np.testing.assert_allclose(found, 2 * np.sin(angles / 2), atol=1e-15)
    assert direction_error(theta[2], [2.0, 0.0]) == found[2]
    large = direction_error(np.array([[1e308, 1e308], [0.0, 0.0], [np.inf, 1.0]]), [1.0, 1.0])
    np.testing.assert_allclose(large, [0, np.nan, np.nan], atol=1e-15)


def test_margin_gap_is_zero_at_the_separator_only():
    x, labels = separable(*CASES[1])
    found = hard_margin_separator(x, labels)
    others = np.random.default_rng(4).normal(size=(3, 4, x.shape[1]))
    theta = np.concatenate([others, np.broadcast_to(3 * found.weights, (3, 1, x.shape[1]))], axis=1)
    gaps = margin_gap(theta, x, labels, found.weights)
    assert gaps.shape == (3, 5)
    np.testing.assert_allclose(gaps[:, -1], 0, atol=1e-12)
    assert (gaps[:, :-1] > 0.1).all()
    least = (labels * (x @ theta[1, 2])).min() / np.linalg.norm(theta[1, 2])
    np.testing.assert_allclose(gaps[1, 2], found.margin - least)
    assert np.isnan(margin_gap(np.zeros(x.shape[1]), x, labels, found.weights))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: direction_error(np.ones((2, 3)), np.ones(2)), "params must have 2 columns"),
        (lambda: direction_error(1.0, np.ones(1)), r"params must have the shape \(..., n\)"),
        (lambda: direction_error(np.ones(2), np.zeros(2)), "weights must be a finite vector"),
        (
            lambda: margin_gap(np.ones(2), np.eye(3), [1, 2, 2], np.ones(2)),
            "x must have 2 columns, as many as weights, got 3",
        ),
    ],
)
def test_bad_arguments_are_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
