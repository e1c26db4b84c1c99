"""Explicit graduated optimisation: noise levels, stages, and the algorithm written out."""

import json
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from clipjax.optim.graduated.explicit import (
    explicit_graduated_optimization,
    hazan_schedule,
    smoothing_levels,
)
from clipjax.optim.graduated.smoothing import smoothed_value_and_grad

GOLDEN = Path(__file__).parents[2] / "golden" / "igo_ego_nice_deltas.npz"
KEY = jax.random.key(0)
LEVELS = (1.0, 0.5, 0.1)


def bowl(x):
    return jnp.sum(x**4) + jnp.sum(x)


def test_polynomial_levels_are_those_of_the_authors_code():
    with np.load(GOLDEN, allow_pickle=False) as file:
        settings, deltas = json.loads(str(file["hyperparams"])), file["deltas"]
    found = smoothing_levels(
        settings["M"] + 1, delta_init=settings["delta_init"], delta_final=settings["delta_end"]
    )
    np.testing.assert_allclose(found, deltas, rtol=1e-14)


@pytest.mark.parametrize("power", [0.5, 0.9, 1.0])
def test_polynomial_levels_have_the_papers_ratios(power):
    stages = 10
    levels = smoothing_levels(stages, delta_init=3.0, power=power)
    m = np.arange(1, stages)
    ratios = (stages - m) ** power / (stages - (m - 1)) ** power
    np.testing.assert_allclose(levels[1:] / levels[:-1], ratios, rtol=1e-13)
    assert levels[0] == 3.0


def test_geometric_levels_fall_by_one_ratio_and_end_where_asked():
    levels = smoothing_levels(7, delta_init=2.0, delta_final=0.03, decay="geometric")
    assert (levels[0], levels[-1]) == (2.0, 0.03)
    assert np.ptp(levels[1:] / levels[:-1]) < 1e-12


def test_hazans_stages_take_fourfold_steps_at_a_quarter_of_the_accuracy():
    plan = hazan_schedule(0.5, 7, delta_init=2.0)
    np.testing.assert_allclose(plan.levels, 2.0 / 2.0 ** np.arange(7))
    np.testing.assert_allclose(plan.accuracies, 0.5 * plan.levels**2 / 32)  # σδ²/32
    np.testing.assert_allclose(plan.steps, 12480 / (0.5 * plan.accuracies), rtol=1e-5)
    # O(1/ε²): a total of ~ (4/3) T_M, proportional to 1/δ_M². The slide's T_m = σδ_m²/32 < 1.
    total = plan.steps.sum() * plan.levels[-1] ** 2
    assert total == pytest.approx(4 / 3 * 12480 * 32 / 0.5**2, rel=1e-3)
    assert (plan.accuracies < 1).all()


def test_the_stages_are_the_algorithm_written_out():
    """x <- x - ηδ_m ∇f̂_{δ_m}(x), draws from fold_in(fold_in(key, m), t), in float64 NumPy."""
    with jax.enable_x64(True):
        steps = (3, 0, 2)
        x0 = jnp.array([0.8, -0.3], jnp.float64)
        result = explicit_graduated_optimization(
            bowl, x0, KEY, levels=LEVELS, learning_rate=0.05, steps_per_stage=steps, num_samples=4
        )
        x, values, smoothed = np.asarray(x0), [], []
        for m, (delta, count) in enumerate(zip(LEVELS, steps, strict=True)):
            value = np.nan
            for t in range(count):
                key = jax.random.fold_in(jax.random.fold_in(KEY, m), t)
                points = noise_points(key, x, delta, 4)
                value = np.mean([np.sum(p**4) + np.sum(p) for p in points])
                gradient = np.mean([4 * p**3 + 1 for p in points], axis=0)
                x = x - 0.05 * delta * gradient
            values.append(np.sum(x**4) + np.sum(x))
            smoothed.append(value)
        np.testing.assert_allclose(result.x, x, rtol=1e-12)
        np.testing.assert_allclose(result.values, values, rtol=1e-12)
        np.testing.assert_allclose(result.smoothed_values, smoothed, rtol=1e-12)
        np.testing.assert_array_equal(result.steps, steps)
        np.testing.assert_array_equal(result.levels, LEVELS)


def noise_points(key, x, delta, num_samples):
    """The points x ± δu that the estimator evaluates, found by asking it: f = one coordinate."""
    pairs = []

    def record(p):
        jax.debug.callback(lambda p: pairs.append(np.asarray(p)), p)
        return jnp.sum(p)

    estimate = smoothed_value_and_grad(
        record, delta, num_samples, key, distribution="gaussian", estimator="zeroth_order"
    )
    estimate(jnp.asarray(x))
    jax.effects_barrier()
    assert len(pairs) == num_samples
    return pairs


def test_rastrigin_is_solved_with_smoothing_and_not_without():
    def rastrigin(x):
        return jnp.sum(x**2 + 10 - 10 * jnp.cos(2 * jnp.pi * x))

    x0 = jnp.linspace(-4.7, 4.8, 10)

    def run(levels):
        return explicit_graduated_optimization(
            rastrigin, x0, KEY, levels=levels, learning_rate=0.01, num_samples=50
        ).values[-1]

    assert float(run(smoothing_levels(51, delta_final=0.01))) < 0.01
    assert float(run(np.full(51, 0.01))) > 50  # next to no smoothing all the time


def test_a_rate_may_depend_on_level_and_step_and_a_direction_keeps_its_state():
    # On Σ x the gradient is 1 whatever the noise: x falls by the sum of the rates.
    def run(**options):
        result = explicit_graduated_optimization(
            jnp.sum, jnp.zeros(2), KEY, levels=LEVELS, steps_per_stage=2, num_samples=2, **options
        )
        return -np.asarray(result.x)

    np.testing.assert_allclose(run(learning_rate=0.5), 2 * 0.5 * sum(LEVELS), rtol=1e-6)
    found = run(learning_rate=lambda delta, t: delta / (t + 1))
    np.testing.assert_allclose(found, sum(LEVELS) * 1.5, rtol=1e-6)
    # Heavy ball, β = 1/2: velocities 1, 1.5, | 1.75, 1.875, | 1.9375, 1.96875, across the stages.
    velocity = 2 - 0.5 ** np.arange(6)
    expected = np.sum(np.repeat(LEVELS, 2) * velocity)
    np.testing.assert_allclose(run(learning_rate=1.0, direction=optax.trace(0.5)), expected, 1e-6)


def test_jit_vmap_and_trees_and_traced_plans():
    x0 = {"a": jnp.array([0.5, 0.2]), "b": jnp.array(-0.4)}

    def fn(x):
        return bowl(x["a"]) + bowl(x["b"])

    def run(key, x0, levels):
        return explicit_graduated_optimization(
            fn, x0, key, levels=levels, learning_rate=0.05, num_samples=2, steps_per_stage=3
        )

    levels = jnp.array(LEVELS)
    alone = run(KEY, x0, levels)
    chex.assert_trees_all_close(jax.jit(run)(KEY, x0, levels), alone, rtol=1e-5)
    keys = jnp.stack([KEY, jax.random.key(1)])
    both = jax.vmap(run, (0, None, None))(keys, x0, levels)
    chex.assert_trees_all_close(jax.tree.map(lambda a: a[0], both), alone, rtol=1e-5)
    assert not np.allclose(both.x["a"][0], both.x["a"][1])
    chex.assert_trees_all_equal_shapes_and_dtypes(alone.x, x0)
    # A Python number is a point too, and a diverged run says so instead of raising.
    found = explicit_graduated_optimization(
        lambda x: -(x**4), 3.0, KEY, levels=LEVELS, learning_rate=9.0, num_samples=2
    )
    assert not np.isfinite(found.values[-1])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"levels": ()}, r"levels must be positive, got \(\)"),
        ({"levels": (1.0, 0.0)}, "levels must be positive"),
        ({"levels": (np.inf, 1.0)}, "levels must be finite"),
        ({"levels": 1.0}, r"levels must be one number per stage, got shape \(\)"),
        ({"steps_per_stage": (1, 2)}, r"one per stage \(3\), got shape \(2,\)"),
        ({"steps_per_stage": -1}, "steps_per_stage must be a whole number >= 0, got -1"),
        ({"steps_per_stage": 1.5}, "steps_per_stage must be a whole number"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"num_samples": 3}, "num_samples must be even"),
        ({"distribution": "bal"}, "Did you mean 'ball'"),
        ({"x0": jnp.arange(3)}, "real floating-point"),
        ({"x0": jnp.array([1.0, jnp.nan])}, "x0 must be finite, but the only leaf holds NaN"),
        ({"x0": {"a": 1.0, "b": -np.inf}}, r"x0 must be finite, but \['b'\] holds"),
    ],
)
def test_bad_input_is_named(change, words):
    arguments = {"fn": bowl, "x0": jnp.ones(2), "key": KEY, "levels": LEVELS, "learning_rate": 0.1}
    with pytest.raises(ValueError, match=words):
        explicit_graduated_optimization(**(arguments | change))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: smoothing_levels(0), "num_stages must be a whole number >= 1, got 0"),
        (lambda: smoothing_levels(3, delta_init=-1.0), "delta_init must be positive"),
        (lambda: smoothing_levels(3, delta_final=0.9), "at most the level before it, 0.666667"),
        (lambda: smoothing_levels(1, delta_final=2.0), "at most the level before it, 1,"),
        (lambda: smoothing_levels(3, decay="geometric"), "needs the last level"),
        (lambda: smoothing_levels(3, delta_final=2.0, decay="geometric"), "at most the level"),
        (lambda: smoothing_levels(1, delta_final=0.5, decay="geometric"), "at most the level"),
        (lambda: smoothing_levels(3, decay="polinomial"), "Did you mean 'polynomial'"),
        (lambda: smoothing_levels(3, power=0.0), "power must be positive"),
        (lambda: hazan_schedule(0.0, 2), "strong_convexity must be positive"),
        (lambda: hazan_schedule(1.0, 20), "more than 2147483647; use fewer stages"),
    ],
)
def test_bad_plans_are_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
