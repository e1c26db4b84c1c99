"""The narrow hollow and the wide one: the claims, costs of a shift, and the laws of the noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from experiments.lecture import escape_hollows as experiment
from experiments.lecture.escape_hollows import QUICK, Config
from experiments.lecture.one_coordinate import curve, hollows, landmarks, slopes


def test_every_claim_holds(found, refuted):
    assert len(experiment.judge(QUICK, found)) == 10
    assert refuted(found) == []


def changed_descent(found):
    """The large step does no more than the small one; above 2/f'' all converge, none circles."""
    return {"large": found["small"], "sweep_end": found["sweep_end"] * 0}


def changed_tails(found):
    """Tails do nothing: every law leaves as often as the normal one."""
    left = found["left"].copy()
    left[:, 1:] = left[:, :1]
    return {"left": left}


def changed_clipping(found):
    """Clipping at the long level keeps, at the short one does not, wherever it is."""
    return {"left": found["left"][:, :, [0, 2, 1]]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (changed_descent, [0, 1, 2]),
        (changed_tails, [4, 5, 6, 8, 9]),
        (changed_clipping, [7, 8, 9]),
    ],
)
def test_claims_fail_where_the_phenomenon_is_absent(found, refuted, change, expected):
    assert refuted(found | change(found)) == expected


def test_a_shift_costs_as_the_integral_of_the_slope_says():
    """The fourth claim has no array: f is known. f(x* − 1) − f(x*) = −∫ f' over [x* − 1, x*]."""
    costs = []
    for minimum in (landmarks().narrow, landmarks().wide):
        x = np.linspace(minimum - 1, minimum, 1001)
        costs.append(-integrate.simpson(slopes(hollows, x), x=x))
        there, here = curve(hollows, np.array([minimum - 1, minimum]))
        assert there - here == pytest.approx(costs[-1], rel=1e-9)
    assert costs[0] > 20 * costs[1]


def test_the_ways_out_are_those_of_the_function():
    np.testing.assert_allclose(experiment.WAYS, landmarks().ways, atol=0.005)


def test_all_laws_have_the_same_median_size():
    laws, scales = experiment._laws(Config())
    for law, scale in zip(laws, scales, strict=True):
        draws = scale * np.asarray(law.sample(jax.random.key(1), (200_000,), jnp.float32))
        # The median's deviation is 1/(2 p √n), p the density of the size there: about 3 to normal.
        share = (np.abs(draws) < 0.15 * stats.norm.ppf(0.75)).mean()
        assert share == pytest.approx(0.5, abs=4 * 0.5 / 200_000**0.5)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"short_clip, long_clip are 3.0, 4.0; expected the first"):
        Config(short_clip=3.0)
    with pytest.raises(ValueError, match=r"between that and 10.36"):
        Config(long_clip=11.0)
    with pytest.raises(ValueError, match=r"Config.tail is 2.0; expected a number above 1, below 2"):
        Config(tail=2.0)
