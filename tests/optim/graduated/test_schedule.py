"""Planned stages: their numbers, against the paper and its code, and their boundaries."""

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax import GraduatedSchedule, StagePlan, graduated_schedule, plan_stages
from clipjax.optim.graduated.noise_levels import noise_level, solve_learning_rate
from clipjax.optim.graduated.schedule import DECAYS

GOLDEN = Path(__file__).parents[2] / "golden"
# C² and K of the authors' code, ResNet-18 with heavy ball.
BOUNDED = {"kind": "shb_2024", "gradient_std": 25.318**0.5, "gradient_bound": 1.77}


def relative(schedule, gradient_std=None):
    levels = np.array(schedule.noise_levels(gradient_std))
    return levels / levels[0]


@pytest.mark.parametrize("power", [0.5, 0.9, 1.0])
def test_polynomial_decay_is_the_product_of_the_papers_factors(power):
    M = 7
    level, expected = 1.0, [1.0]
    for m in range(1, M):  # m = M would give the level 0, which is no stage
        level *= (M - m) ** power / (M - (m - 1)) ** power
        expected.append(level)
    schedule = graduated_schedule(0.1, 32, M, power=power)
    np.testing.assert_allclose(schedule.levels, expected, rtol=1e-14)
    np.testing.assert_allclose(schedule.learning_rates, 0.1 * np.array(expected), rtol=1e-14)
    assert schedule.levels[-1] == pytest.approx((1 / M) ** power)


@pytest.mark.parametrize(
    ("decay", "options", "expected"),
    [
        ("geometric", {}, [1, 0.5**0.5, 0.5, 0.125**0.5]),
        ("geometric", {"factor": 0.5}, [1, 0.5, 0.25, 0.125]),
        ("cosine", {}, [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
        ("exponential", {"final_level": 1e-3}, [1, 0.1, 0.01, 0.001]),
        ("exponential", {}, [1, 0.01 ** (1 / 3), 0.01 ** (2 / 3), 0.01]),
        ("constant", {}, [1, 1, 1, 1]),
    ],
)
def test_decays(decay, options, expected):
    schedule = graduated_schedule(0.1, 32, 4, decay=decay, **options)
    np.testing.assert_allclose(schedule.levels, expected, rtol=1e-14)


@pytest.mark.parametrize("decay", DECAYS)
def test_one_stage_is_the_start(decay):
    schedule = graduated_schedule(0.1, 32, 1, decay=decay, batch_share=0.5)
    assert (schedule.levels, schedule.batch_sizes) == ((1.0,), (32,))
    assert schedule.learning_rates == pytest.approx((0.1,), rel=1e-15)


SPLITS = {
    "lr": {},
    "batch": {"batch_share": 1.0},
    "hybrid": {"batch_share": math.log2(1.5)},
    "thirds": {"batch_share": 1 / 3, "momentum_share": 1 / 3},
    "momentum": {"momentum_share": 1.0},
    "capped": {"batch_share": 1.0, "max_batch_size": 300},
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("decay", [d for d in DECAYS if d != "constant"])
@pytest.mark.parametrize("formula", [{}, {"kind": "shb_effective"}, BOUNDED])
def test_every_split_follows_the_same_noise(split, decay, formula):
    """With odd first batch sizes, so that rounding has to be made good."""
    plan = graduated_schedule(0.1, 37, 5, decay=decay, momentum=0.99999, **formula)
    schedule = graduated_schedule(
        0.1, 37, 5, decay=decay, momentum=0.99999, **SPLITS[split], **formula
    )
    # relative() takes the noise from the rates, batches and momenta, not from the levels.
    std = formula.get("gradient_std", 3.0)
    np.testing.assert_allclose(relative(schedule, std), plan.levels, rtol=1e-12)
    np.testing.assert_allclose(relative(schedule.in_multiples_of(8), std), plan.levels, rtol=1e-12)
    assert all(isinstance(b, int) for b in schedule.batch_sizes)
    assert all(0 <= beta < 1 for beta in schedule.momenta)
    if split == "momentum":
        assert set(schedule.batch_sizes) == {37}
        np.testing.assert_allclose(schedule.learning_rates, 0.1, rtol=1e-9)
        assert all(np.diff(schedule.momenta) < 0)
    if split == "capped":
        assert max(schedule.batch_sizes) <= 300
        assert max(schedule.in_multiples_of(8).batch_sizes) <= 300


def test_the_papers_three_schedules():
    """Noise · 1/√2 a stage: η · 0.70711; b · 2, √(1/2); η · 0.86603 and b · 1.5, 0.86603/√1.5."""
    common = {"num_stages": 5, "decay": "geometric", "momentum": 0.0}
    lr, batch, hybrid = (
        graduated_schedule(0.1, 128, **common, **SPLITS[name]) for name in ("lr", "batch", "hybrid")
    )
    np.testing.assert_allclose(
        np.divide(lr.learning_rates[1:], lr.learning_rates[:-1]), 0.70711, 1e-5
    )
    assert set(lr.batch_sizes) == {128}
    assert batch.batch_sizes == (128, 256, 512, 1024, 2048)
    np.testing.assert_allclose(batch.learning_rates, 0.1, rtol=1e-12)
    assert hybrid.batch_sizes == (128, 192, 288, 432, 648)  # 128 · 1.5^m, exact
    ratio = np.divide(hybrid.learning_rates[1:], hybrid.learning_rates[:-1])
    np.testing.assert_allclose(ratio, 0.86603, rtol=1e-5)
    for schedule in (lr, batch, hybrid):
        levels = relative(schedule, gradient_std=10.0)
        np.testing.assert_allclose(levels[1:] / levels[:-1], 0.70711, rtol=1e-3)


def test_momentum_share_solves_the_published_cubic():
    """All on momentum with the noise halved: 0.9 -> 0.8158."""
    schedule = graduated_schedule(
        0.1, 128, 2, decay="geometric", factor=0.5, momentum=0.9, momentum_share=1.0, **BOUNDED
    )
    assert schedule.momenta == (0.9, pytest.approx(0.8158, abs=5e-5))


def golden(name):
    with np.load(GOLDEN / f"igo_sched_{name}_lr-batch-poly.npz", allow_pickle=False) as file:
        return dict(file), json.loads(str(file["hyperparams"]))


@pytest.mark.parametrize(
    ("name", "formula"),
    [("shb", BOUNDED), ("nshb", {"kind": "nshb_aaai25"})],
)
def test_the_authors_schedule(name, formula):
    """Row r of the recording is stage r + 1 of 201.

    Where the authors' code is off: it counts epochs from 0 and so begins the decay of M = 200 one
    step early, which makes it that of M = 201; and it trains with int(batch), whose rounding it
    does not make good (below).
    """
    data, hyper = golden(name)
    schedule = graduated_schedule(
        hyper["lr"],
        hyper["batchsize"],
        hyper["M"] + 1,
        power=hyper["power"],
        momentum=hyper["beta1"],
        batch_share=0.5,
        **formula,
    )
    wanted = data["batch"]
    np.testing.assert_allclose(wanted, 128 / np.array(schedule.levels), rtol=1e-12)
    np.testing.assert_array_equal(schedule.batch_sizes, np.rint(wanted))
    np.testing.assert_array_equal(schedule.momenta, data["beta"])
    options = {
        "momentum": 0.9,
        "gradient_bound": formula.get("gradient_bound"),
        "kind": formula["kind"],
    }
    std = float(data["C"]) ** 0.5  # their "C" is C²
    first = noise_level(0.1, 128, std, **options)
    # The recorded rates are the solution at the recorded, not rounded, batches ...
    rates = solve_learning_rate(first * np.array(schedule.levels), wanted, std, **options)
    np.testing.assert_allclose(rates, data["lr"], rtol=1e-11)
    # ... and ours at the rounded ones, where the noise is as planned; theirs is off.
    planned = np.array(schedule.levels)
    ours = noise_level(
        np.array(schedule.learning_rates), np.array(schedule.batch_sizes), std, **options
    )
    theirs = noise_level(data["lr"], np.floor(wanted), std, **options)
    np.testing.assert_allclose(ours / first, planned, rtol=1e-11)
    error = np.max(np.abs(theirs / first / planned - 1))
    # A whole example of 128 lost is 0.4 % of δ for δ ∝ 1/√b; 0.01 % where K² dominates.
    assert error > (1e-3 if name == "nshb" else 1e-4)


def test_a_traced_learning_rate_gives_traced_rates():
    @jax.jit
    def rates(eta):
        schedule = graduated_schedule(eta, 32, 3, decay="geometric", batch_share=0.5)
        return plan_stages(schedule, 2, 16).learning_rate(jnp.arange(6))

    expected = plan_stages(
        graduated_schedule(0.1, 32, 3, decay="geometric", batch_share=0.5), 2, 16
    )
    np.testing.assert_allclose(
        rates(0.1), np.repeat(expected.schedule.learning_rates, 2), rtol=1e-6
    )


PLAN = plan_stages(
    graduated_schedule(
        0.1, 6, 4, decay="geometric", batch_share=0.5, momentum=0.9, momentum_share=0.3
    ),
    (3, 1, 2, 4),
    2,
)


def test_boundaries_by_counting():
    assert PLAN.schedule.batch_sizes == (6, 8, 12, 16)  # of 6, 8, 12, 17
    walk = []  # (stage, outer step, micro-step) of each micro-batch
    step = 0
    for stage, (steps, parts) in enumerate(zip(PLAN.steps, PLAN.accumulations, strict=True)):
        for _ in range(steps):
            walk += [(stage, step)] * parts
            step += 1
    assert PLAN.total_steps == step == 10
    assert PLAN.total_micro_steps == len(walk)
    assert PLAN.total_examples == 2 * len(walk)
    for micro, (stage, step) in enumerate(walk):
        assert PLAN.stage_at_micro_step(micro) == stage
        assert PLAN.stage_at_step(step) == stage
        assert PLAN.stage_at_example(2 * micro) == PLAN.stage_at_example(2 * micro + 1) == stage
        assert PLAN.examples_at_step(step) == 2 * [s for _, s in walk].index(step)
    for examples in range(PLAN.total_examples + 40):
        step = PLAN.step_at_examples(examples)
        assert PLAN.examples_at_step(step) >= examples
        assert step == 0 or PLAN.examples_at_step(step - 1) < examples
    # The last stage holds on.
    assert PLAN.stage_at_step(1000) == PLAN.stage_at_micro_step(1000) == 3
    assert PLAN.examples_at_step(12) == PLAN.total_examples + 2 * 16


def test_schedules_of_the_outer_step_are_the_stages_numbers():
    stages = [PLAN.stage_at_step(k) for k in range(13)]
    for name, numbers in (
        ("learning_rate", PLAN.schedule.learning_rates),
        ("momentum", PLAN.schedule.momenta),
        ("accumulation", PLAN.accumulations),
    ):
        values = jax.jit(jax.vmap(getattr(PLAN, name)))(jnp.arange(13))
        np.testing.assert_allclose(values, [numbers[m] for m in stages], rtol=1e-6, err_msg=name)
    # As a number in the source would be: bfloat16 gradients stay so.
    assert (jnp.ones(1, jnp.bfloat16) * PLAN.momentum(3)).dtype == jnp.bfloat16
    assert PLAN.accumulation(0).dtype == jnp.int32


@pytest.mark.parametrize("budget", [100, 997, (100, 1000, 300, 2000)])
def test_stages_by_examples_end_within_half_a_batch_of_their_budget(budget):
    schedule = graduated_schedule(0.1, 10, 4, decay="geometric", factor=0.5, batch_share=0.5)
    plan = plan_stages(schedule, None, 5, examples_per_stage=budget)
    ends = np.cumsum(np.broadcast_to(budget, 4))
    assert plan.schedule.batch_sizes == (10, 20, 40, 80)
    assert np.all(np.abs(plan.example_ends - ends) <= np.array(plan.schedule.batch_sizes) / 2)
    assert plan.example_ends == tuple(np.cumsum(np.multiply(plan.steps, (10, 20, 40, 80))))


def schedule(**options):
    return graduated_schedule(0.1, 32, 5, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedule(decay="polinomial"), "Did you mean 'polynomial'"),
        (lambda: schedule(kind="shb_statonary"), "Did you mean 'shb_stationary'"),
        (lambda: schedule(power=1.5), r"power must lie in \(0, 1\], got 1.5"),
        (lambda: schedule(power=0.0), r"power must lie in \(0, 1\], got 0.0"),
        (
            lambda: schedule(batch_share=0.7, momentum_share=0.7, momentum=0.9),
            r"got 0.7 \+ 0.7 = 1.4",
        ),
        (lambda: schedule(batch_share=-0.1), r"batch_share must lie in \[0, 1\]"),
        (lambda: schedule(batch_share=1.1), r"batch_share must lie in \[0, 1\]"),
        (lambda: schedule(momentum=1.0), r"momentum must lie in \[0, 1\), got 1.0"),
        (lambda: schedule(momentum_share=0.5), "needs a momentum to take from"),
        (
            lambda: schedule(momentum_share=0.5, momentum=0.5, kind="nshb_stationary"),
            "kind whose noise depends on momentum",
        ),
        (lambda: schedule(momentum=0.9, kind="sgd"), "kind='sgd' has no momentum"),
        (lambda: schedule(max_batch_size=31), "smaller than the first batch, batch_size=32"),
        # 32 · 5² = 800 > 512 > 32 · (5/2)² = 200: the last stage.
        (
            lambda: schedule(batch_share=1.0, power=1.0, dataset_size=512),
            "Stage 5 asks for batches of 800 examples.*Set max_batch_size to 512",
        ),
        (lambda: schedule(factor=0.5), "factor belongs to decay='geometric'"),
        (lambda: schedule(final_level=0.5, decay="cosine"), "belongs to decay='exponential'"),
        (lambda: schedule(factor=1.5, decay="geometric"), r"factor must lie in \(0, 1\]"),
        (lambda: schedule(kind="shb_2024", gradient_bound=1.0), "needs gradient_std"),
        (lambda: schedule(kind="shb_2024", gradient_std=1.0), "needs gradient_bound"),
        (lambda: graduated_schedule(0.0, 32, 5), "learning_rate must be positive"),
        (lambda: graduated_schedule(0.1, 32.5, 5), "batch_size must be a whole number"),
        (lambda: graduated_schedule(0.1, 32, 0), "num_stages must be a whole number >= 1"),
        (lambda: schedule().noise_levels(), "needs gradient_std"),
        (lambda: GraduatedSchedule((1.0,), (0.1, 0.2), (1,), (0.0,)), "one number per stage"),
        (lambda: GraduatedSchedule((1.0,), (0.1,), (1,), (1.0,)), r"momenta must lie in \[0, 1\)"),
        (lambda: plan_stages(schedule(), 10, 33), "micro_batch_size=33 is larger than a batch"),
        (lambda: plan_stages(schedule(), None, 32), "either steps_per_stage or examples_per_stage"),
        (
            lambda: plan_stages(schedule(), 1, 32, examples_per_stage=64),
            "either steps_per_stage or examples_per_stage",
        ),
        (lambda: plan_stages(schedule(), 0, 32), "steps_per_stage must be a whole number >= 1"),
        (lambda: plan_stages(schedule(), (1, 2, 0, 1, 1), 32), "whole number >= 1, got 0"),
        (lambda: plan_stages(schedule(), (1, 2), 32), "each of the 5 stages, got 2"),
        (
            lambda: plan_stages(schedule(), None, 32, examples_per_stage=(64, 64)),
            "each of the 5 stages, got 2",
        ),
        (
            lambda: plan_stages(
                schedule(batch_share=1.0, power=1.0), None, 32, examples_per_stage=500
            ),
            "Stage 5 has 500 examples, less than one outer step of 800",
        ),
        (
            lambda: plan_stages(schedule(batch_share=1.0, power=1.0), 3, 32, dataset_size=700),
            "Stage 5 asks for batches of 800",
        ),
        (lambda: StagePlan(schedule(), (1,) * 5, 3), "multiple of micro_batch_size=3"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_largest_momentum_share_that_is_named_is_accepted():
    """From β = 0.9 to 0 the noise falls by √10 in the default form, the last level asks for 5."""
    with pytest.raises(ValueError, match="would take the momentum below 0") as refusal:
        schedule(momentum_share=1.0, momentum=0.9, power=1.0)
    most = float(str(refusal.value).split("Set momentum_share to ")[1].split(" ")[0])
    assert most == pytest.approx(math.log(10**0.5) / math.log(5), abs=1e-4)
    last = schedule(momentum_share=most, momentum=0.9, power=1.0).momenta[-1]
    assert 0 <= last < 1e-2
    with pytest.raises(ValueError, match="below 0"):
        schedule(momentum_share=most + 2e-4, momentum=0.9, power=1.0)
