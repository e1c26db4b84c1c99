"""Rosenbrock's valley: the claims, methods written out by hand, and what was chosen as own rate."""

import jax
import numpy as np
import pytest

from experiments.lecture import rosenbrock as experiment
from experiments.lecture.rosenbrock import METHODS, QUICK, Config, follow, gradients, heights


def test_every_claim_holds(found, refuted):
    assert len(experiment.judge(QUICK, found)) == 7
    assert refuted(found) == []


def test_claims_fail_where_the_phenomenon_is_absent(found, refuted):
    """A zoo in which every method ends alike at every rate: nothing is lost, nobody is better."""
    half = np.full_like(found["last"], 0.5)
    same = dict(found, last=half, smallest=half)
    assert refuted(same) == [0, 1, 2, 3, 4, 5, 6]


def test_a_last_digit_that_differs_is_told(found, refuted):
    """SGD at 1e-4 must be 0.07801."""
    assert refuted(dict(found, sgd_last=np.asarray(0.07803))) == [0]


def test_adagrad_that_goes_farther_than_its_bound_is_told(found, refuted):
    """All of AdaGrad's way in one step: Σ g² along the path, so the bound, hardly changes."""
    i = QUICK.methods.index("adagrad")
    path = found["path_common"].copy()
    path[i, -1] = [0.1, 2.0]
    assert refuted(dict(found, path_common=path)) == [3]


def test_sgd_that_is_best_above_its_bound_is_told(found, refuted):
    last = found["last"].copy()
    last[QUICK.methods.index("sgd"), QUICK.lower] = 1e-9
    assert 2 in refuted(dict(found, last=last))


def test_claims_of_methods_that_did_not_run_are_left_out():
    config = Config(methods=("muon",), per_decade=1, lower=0, higher=0, steps=3)
    assert experiment.judge(config, experiment.compute(config)) == []


def test_the_own_rate_is_the_best_of_the_grid(found):
    """The common rate is in the grid, so that nobody loses by an own one."""
    rates = found["rates"]
    assert rates[QUICK.lower] == QUICK.rate
    assert (found["own"] == found["last"].argmin(1)).all()
    np.testing.assert_array_equal(heights(found["path_own"])[:, -1], found["last"].min(1))
    np.testing.assert_array_equal(
        heights(found["path_common"])[:, -1], found["last"][:, QUICK.lower]
    )
    assert (found["smallest"] <= found["last"]).all()


def walk(name, rates, steps=6):
    with jax.enable_x64(True):
        return follow(METHODS[name], rates, steps=steps, clip_level=1.0)


def by_hand(rate, steps, step):
    """Return the path of w' = w − step(g, t, memory) in NumPy."""
    w, memory = np.array([0.1, 3.0]), {}
    path = [w]
    for t in range(1, steps + 1):
        w = w - rate * step(gradients(w), t, memory, w)
        path.append(w)
    return np.array(path)


def adam(g, t, memory, w):
    memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
    memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * g**2
    root = np.sqrt(memory["v"] / (1 - 0.999**t))
    return memory["m"] / (1 - 0.9**t) / (root + 1e-8)


def adagrad(g, t, memory, w):
    memory["v"] = memory.get("v", 0.1) + g**2
    return g / np.sqrt(memory["v"] + 1e-7)


def lion(g, t, memory, w):
    m = memory.get("m", np.zeros(2))
    memory["m"] = 0.99 * m + 0.01 * g
    return np.sign(0.9 * m + 0.1 * g) + 1e-3 * w  # Optax's weight decay


def clipped(g, t, memory, w):
    memory["v"] = 0.9 * memory.get("v", 0) + g / max(1, np.linalg.norm(g))
    return memory["v"]


WRITTEN_OUT = {
    "sgd": lambda g, t, memory, w: g,
    "adam": adam,
    "adagrad": adagrad,
    "lion": lion,
    "clipped_momentum": clipped,
}


@pytest.mark.parametrize("name", WRITTEN_OUT)
def test_paths_equal_a_loop_written_out(name):
    paths = walk(name, [0.001, 0.02])
    for path, rate in zip(paths, [0.001, 0.02], strict=True):
        expected = by_hand(rate, 6, WRITTEN_OUT[name])
        known = np.abs(expected).max(1) < 1e6  # SGD with a rate of 0.02 leaves
        np.testing.assert_allclose(path[known], expected[known], rtol=1e-7)


def test_nag_gs_takes_the_steps_of_its_paper():
    """x' = (1 − a) x + a v, v' = (1 − b) v + b x' − (b/μ) ∇f(x'); a = α/(1 + α), b likewise.

    b = αμ/(αμ + γ) with γ = μ. Its first x' is x_0, so that it is one step behind.
    """
    rate, strength = 0.03, 150.0
    x = v = np.array([0.1, 3.0])
    a = b = rate / (1 + rate)
    expected = []
    for _ in range(8):
        x = (1 - a) * x + a * v
        v = (1 - b) * v + b * x - b / strength * gradients(x)
        expected.append(x)
    np.testing.assert_allclose(walk("nag_gs", [rate], steps=7)[0], expected, rtol=1e-12)


def test_muon_on_a_column_is_normalised_momentum():
    """The one singular value of m/|m| is 1; what five Newton-Schulz steps make of it is a number.

    m = 0.95 m + 0.05 g with Nesterov's step ahead, divided by 1 − 0.95^t, is along g at first.
    """
    value = 1.0
    for _ in range(5):
        value = 3.4445 * value - 4.7750 * value**3 + 2.0315 * value**5
    steps = np.diff(walk("muon", [0.01], steps=50)[0], axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 0.01 * value, rtol=1e-6)
    g = gradients(np.array(experiment.START))
    np.testing.assert_allclose(steps[0], -0.01 * value * g / np.linalg.norm(g), rtol=1e-6)


def test_every_method_moves_and_has_a_name_of_its_own():
    """One step of each: the start is left at a rate of 1e-3, with no number that is not finite."""
    labels = [method.label for method in METHODS.values()]
    assert len(set(labels)) == len(labels)
    for name in ("nag_gs", "noisy_sgd", "shampoo", "muon", "clip_by_quantile", "prodigy"):
        path = walk(name, [1e-3], steps=3)[0]
        assert np.isfinite(path).all()
        assert (path[-1] != path[0]).any()


def test_where_rounding_decides_a_reference_need_not_be_met_to_the_digit(found, refuted):
    """RMSProp's last f differs in the third digit between starts that are 1e-9 apart."""
    i = QUICK.methods.index("rmsprop")
    assert np.ptp(found["nearby"][i]) > 3e-5
    last = found["last"].copy()
    last[i, QUICK.lower] = 0.0172
    assert refuted(dict(found, last=last)) == []
    calm = found["nearby"].copy()
    calm[i] = 0.0172
    assert refuted(dict(found, last=last, nearby=calm)) == [0]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"methods\[1\] is 'adams'.*did you mean 'adam'"):
        Config(methods=("sgd", "adams"))
    with pytest.raises(ValueError, match=r"Config.steps is 0; expected a whole number from 1"):
        Config(steps=0)
    with pytest.raises(ValueError, match=r"Config.rate is -0.1; expected a number that is pos"):
        Config(rate=-0.1)
