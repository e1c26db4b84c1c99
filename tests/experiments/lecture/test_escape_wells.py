"""The two wells: the claims, Kramers's rate, and the error of discrete steps."""

import numpy as np
import pytest
from scipy import integrate

from experiments.lecture import escape_wells as experiment
from experiments.lecture.escape_wells import QUICK, Config
from experiments.lecture.one_coordinate import landmarks


def test_every_claim_holds(found, refuted):
    assert len(experiment.judge(QUICK, found)) == 4
    assert refuted(found) == []


def test_claims_fail_where_the_phenomenon_is_absent(found, refuted):
    """The flow mixes, the noise does not: all stay in the right well."""
    changed = {
        "flow_last": -found["flow_last"],
        "sde_last": found["flow_last"],
        "long_last": np.abs(found["long_last"]),
        "left": found["left"] // 2,
    }
    assert refuted(found | changed) == [0, 1, 2, 3]


def test_kramers_rate_is_the_limit_of_the_exact_mean_time():
    """τ = (2/σ²) ∫_c^a e^{2f(y)/σ²} ∫_y^∞ e^{−2f(z)/σ²} dz dy to reach c: 1/τ → the rate."""
    marks = landmarks()
    x = np.linspace(marks.left_well, 3.0, 40_001)
    f = (x**2 - 1) ** 2 + 0.15 * x
    ratios = []
    for noise in (0.6, 0.3):
        beta = 2 / noise**2
        tail = integrate.cumulative_simpson(np.exp(-beta * f)[::-1], x=-x[::-1], initial=0)[::-1]
        upto = x <= marks.right_well
        time = beta * integrate.simpson(np.exp(beta * f[upto]) * tail[upto], x=x[upto])
        ratios.append(1 / time / experiment.kramers(noise)[1])
    assert abs(ratios[1] - 1) < 0.03 < abs(ratios[0] - 1) < experiment.ROUGH


def test_the_error_of_the_discrete_steps_shrinks_with_them(monkeypatch):
    """Of first order: half the step, half the error."""
    coarse = experiment.step_error(0.9)
    monkeypatch.setattr(experiment, "FLOW_STEP", experiment.FLOW_STEP / 2)
    assert experiment.step_error(0.9) == pytest.approx(coarse / 2, rel=0.2)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"Config.noise is 0.0"):
        Config(noise=0.0)
