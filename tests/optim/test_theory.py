"""The theorems' constants against the formulas written out, scaling laws, and runs with them."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import clipjax
from clipjax import theory
from clipjax.problems import AdditiveNoise, Quadratic, StudentT

PROBLEM = {"smoothness": 3.0, "distance": 2.0, "noise_scale": 0.7, "failure_probability": 0.02}
HOLDER = {
    "holder_constant": 3.0,
    "holder_exponent": 0.4,
    "distance": 2.0,
    "noise_scale": 0.7,
    "failure_probability": 0.02,
}
# Every theorem about a single run, and numbers for it.
SINGLE = {
    "sgd": (theory.clipped_sgd_constants, PROBLEM),
    "sgd, batch 4": (partial(theory.clipped_sgd_constants, batch_size=4), PROBLEM),
    "sstm": (theory.clipped_sstm_constants, PROBLEM),
    "sstm, batch 1": (partial(theory.clipped_sstm_constants, batch_size=1), PROBLEM),
    "hölder sgd": (theory.holder_clipped_sgd_constants, HOLDER),
    "hölder sstm": (theory.holder_clipped_sstm_constants, HOLDER),
    "hölder sstm, batch 2": (partial(theory.holder_clipped_sstm_constants, batch_size=2), HOLDER),
    "infinite variance sgd": (
        theory.infinite_variance_clipped_sgd_constants,
        PROBLEM | {"moment": 1.6},
    ),
    "infinite variance sstm": (
        partial(theory.infinite_variance_clipped_sstm_constants, batch_size=3),
        PROBLEM | {"moment": 1.6},
    ),
}
every_theorem = pytest.mark.parametrize(("theorem", "numbers"), SINGLE.values(), ids=SINGLE)


def check_run(constants, **expected):
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(constants, name), value, rtol=1e-13, err_msg=name)


def weights(constants):
    """α_1, ..., α_N of `clipjax.sstm_step_size`, in float64."""
    with jax.enable_x64(True):
        numbers = {k: v for k, v in constants.arguments.items() if k != "clip_level"}
        step_size = clipjax.sstm_step_size(numbers.pop("learning_rate"), **numbers)
        return np.asarray(step_size(jnp.arange(constants.iterations)))


def sizes(constants):
    with jax.enable_x64(True):
        return np.asarray(jax.vmap(constants.batch_sizes)(jnp.arange(constants.iterations)))


# The formulas


def test_clipped_sgd():
    """N = 100, ℓ = ln(4·100/0.02) = ln 20 000, C² = 2."""
    log = math.log(20_000)
    constants = theory.clipped_sgd_constants(**PROBLEM, iterations=100)
    check_run(
        constants,
        iterations=100,
        learning_rate=1 / (80 * 3 * log),
        clip_level=2 * 3 * math.sqrt(2) * 2,
        bound=80 * 2 * 3 * 4 * log / 100,
    )
    # 27 · 100 · 0.49/(2 · 2 · 4 · 9 · ℓ) = 9.19/9.90 < 1, and with σ = 7: 91.9/... = 92.8
    assert sizes(constants).tolist() == [1] * 100
    noisy = theory.clipped_sgd_constants(**PROBLEM | {"noise_scale": 7.0}, iterations=100)
    assert set(sizes(noisy)) == {math.ceil(27 * 100 * 49 / (2 * 2 * 4 * 9 * log))} == {93}
    assert noisy.oracle_calls == 9300


def test_clipped_sstm():
    """N = 100, ℓ = ln 20 000, C² = 5; m_k with σ², the last entry of a with its square."""
    log = math.log(20_000)
    a = 36 * (2 * log + math.sqrt(4 * log**2 + 2 * log)) ** 2
    constants = theory.clipped_sstm_constants(**PROBLEM | {"noise_scale": 700.0}, iterations=100)
    check_run(
        constants,
        learning_rate=1 / a,
        smoothness=3,
        clip_level=math.sqrt(5) * 2 / (16 * log),
        bound=4 * a * 5 * 3 * 4 / (100 * 103),
        holder_exponent=1,
        step_offset=2,
    )
    alpha = (np.arange(100) + 2) / (2 * a * 3)
    expected = np.ceil(np.maximum(1, 6000 * 700**2 * alpha**2 * 100 * log / (5 * 4)))
    assert len(set(expected)) > 50
    np.testing.assert_array_equal(sizes(constants), expected)
    assert constants.oracle_calls == expected.sum()


@pytest.mark.parametrize(("nu", "eps"), [(0.0, 30.0), (0.3, 60.0), (1.0, 120.0)])
def test_holder_clipped_sstm(nu, eps):
    """The α of the paper, with (ε/2) and 2^{2ν/(1+ν)}, is that of clipped_sstm with L_ε."""
    M, R, sigma, beta = 0.05, 2.0, 700.0, 0.02
    changed = {"holder_constant": M, "holder_exponent": nu, "noise_scale": sigma}
    constants = theory.holder_clipped_sstm_constants(**HOLDER | changed, accuracy=eps)
    n = constants.iterations
    assert 100 < n < 1000
    log = math.log(4 * n / beta)
    a, power = 16384 * log**2, 2 * nu / (1 + nu)
    k = np.arange(n)
    alpha = (eps / 2) ** ((1 - nu) / (1 + nu)) * (k + 1) ** power
    alpha /= 2**power * a * M ** (2 / (1 + nu))
    np.testing.assert_allclose(weights(constants), alpha, rtol=1e-12)
    check_run(constants, learning_rate=1 / a, clip_level=math.sqrt(7) * R / (16 * log))
    m = np.maximum(1, 20736 * n * sigma**2 * alpha**2 * log / (7 * R**2))
    assert m.max() > 2
    np.testing.assert_array_equal(sizes(constants), np.ceil(m))
    # The bound is C²R²/A_N, exact at ν = 0 and 1, never less, and within 0.2 % in between.
    exact = 7 * R**2 / alpha.sum()
    assert exact * (1 - 1e-12) <= constants.bound <= eps
    rtol = 1e-12 if nu in (0, 1) else 2e-3
    np.testing.assert_allclose(constants.bound, exact, rtol=rtol)
    if nu == 1:  # the smooth form of 2021: α = (k + 1)/(2aL), 4aC²LR²/(N(N + 1))
        check_run(constants, smoothness=M, bound=4 * a * 7 * M * R**2 / (n * (n + 1)))
    if nu == 0:  # N = 2aC²M²R²/ε²
        check_run(constants, bound=2 * a * 7 * M**2 * R**2 / (n * eps))


@pytest.mark.parametrize("nu", [0.0, 0.3, 1.0])
def test_holder_clipped_sgd(nu):
    """The second and the third entry of γ are the smallest for some accuracy.

    The first never is: the bound C²R²/(γN) ≤ ε asks for N ≥ 8C²D² by the first entry and for
    N ≥ 2C⁴D² by the second, D = R(M/ε)^{1/(1+ν)}, and 8 < 2C² = 14.
    """
    M, R, sigma, beta = 3.0, 2.0, 0.7, 0.02
    smallest = set()
    for eps in (1e-3, 1.0, 1e2, 1e4, 1e6):
        constants = theory.holder_clipped_sgd_constants(
            **HOLDER | {"holder_exponent": nu}, accuracy=eps
        )
        n = constants.iterations
        log = math.log(4 * n / beta)
        level = 2 * math.sqrt(7) ** nu * M * R**nu
        entries = (
            eps ** ((1 - nu) / (1 + nu)) / (8 * M ** (2 / (1 + nu))),
            R / (math.sqrt(2 * n) * eps ** (nu / (1 + nu)) * M ** (1 / (1 + nu))),
            R / (2 * level * log),
        )
        smallest.add(int(np.argmin(entries)))
        check_run(
            constants,
            learning_rate=min(entries),
            clip_level=level,
            bound=7 * R**2 / (min(entries) * n),
        )
        m = math.ceil(max(1, 81 * n * sigma**2 / (level**2 * log)))
        assert constants.oracle_calls == n * m
    assert smallest == {1, 2}
    if nu == 1:  # the level of 2020 with its own C: λ = 2LCR
        assert level == pytest.approx(2 * M * math.sqrt(7) * R)


@pytest.mark.parametrize("sigma", [1e-6, 0.7])
def test_infinite_variance(sigma):
    """Noise that does not matter, and noise that does; N = 1000, so K = 999 for clipped-SGD."""
    numbers = PROBLEM | {"noise_scale": sigma, "moment": 1.6, "iterations": 1000}
    log = math.log(4 * 1000 / 0.02)
    a = max(
        48600 * log**2,
        1800 * sigma * 1001 * 1000 ** (1 / 1.6) * log ** (0.6 / 1.6) / (5 ** (0.6 / 1.6) * 3 * 2),
    )
    check_run(
        theory.infinite_variance_clipped_sstm_constants(**numbers, batch_size=5),
        learning_rate=1 / a,
        clip_level=2 / (30 * log),
        bound=6 * a * 3 * 4 / (1000 * 1003),
    )
    rate = min(
        1 / (160 * 3 * log),
        2 / (720 * 3 ** (1 / 1.6) * sigma * 999 ** (1 / 1.6) * log ** (0.6 / 1.6)),
    )
    check_run(
        theory.infinite_variance_clipped_sgd_constants(**numbers),
        learning_rate=rate,
        clip_level=2 / (40 * rate * log),
        bound=2 * 4 / (rate * 1000),
    )


# Consequences


@pytest.mark.parametrize("batch_size", [None, 1])
def test_the_weights_of_sstm_add_up_to_the_bound(batch_size):
    """A_N = Σ (k + 2)/(2aL) = N(N + 3)/(4aL), and the bound is C²R²/A_N."""
    constants = theory.clipped_sstm_constants(**PROBLEM, iterations=200, batch_size=batch_size)
    total = weights(constants).sum()
    np.testing.assert_allclose(total, 200 * 203 * constants.learning_rate / 12, rtol=1e-13)
    np.testing.assert_allclose(constants.bound, 5 * 2**2 / total, rtol=1e-13)


@pytest.mark.parametrize("beta", [1e-6, 0.1, 0.6, 0.95])
@pytest.mark.parametrize("name", [n for n in SINGLE if "hölder" not in n])
def test_the_iterations_are_the_fewest(name, beta):
    theorem, numbers = SINGLE[name]
    numbers = numbers | {"failure_probability": beta}
    first = 2 if "infinite" in name and "sgd" in name else 1
    if "infinite" not in name:
        first = math.ceil(beta * math.e**2 / 4)  # ln(4N/β) ≥ 2
    bounds = [theorem(**numbers, iterations=n).bound for n in range(first, first + 60)]
    for accuracy in (bounds[0] * 1.01, *bounds[:4], bounds[5] * 1.0001, bounds[30], bounds[-1]):
        fewest = first + next(i for i, bound in enumerate(bounds) if bound <= accuracy)
        constants = theorem(**numbers, accuracy=accuracy)
        assert constants.iterations == fewest
        assert constants == theorem(**numbers, iterations=fewest)
    large = theorem(**numbers, accuracy=bounds[0] * 1e-3)
    assert large.bound <= bounds[0] * 1e-3
    assert theorem(**numbers, iterations=large.iterations - 1).bound > bounds[0] * 1e-3


def test_the_fewest_iterations_of_the_holder_forms():
    """One step fewer, and 7R²/(γN) or 7R²·2aL_ε/ΣK^p would exceed ε."""
    sgd = theory.holder_clipped_sgd_constants(**HOLDER, accuracy=1.0)
    n, log = sgd.iterations - 1, math.log(4 * (sgd.iterations - 1) / 0.02)
    rate = min(
        1 / (8 * 3 ** (2 / 1.4)),
        2 / (math.sqrt(2 * n) * 3 ** (1 / 1.4)),
        2 / (2 * sgd.clip_level * log),
    )
    assert sgd.bound <= 1 < 7 * 4 / (rate * n)
    sstm = theory.holder_clipped_sstm_constants(**HOLDER, accuracy=1.0)
    n, power = sstm.iterations - 1, 0.8 / 1.4
    total = ((n + 0.5) ** (power + 1) - 0.5 ** (power + 1)) / (power + 1)
    log = math.log(4 * n / 0.02)
    assert sstm.bound <= 1 < 7 * 4 * 2 * 16384 * log**2 * 3 ** (2 / 1.4) / total


@every_theorem
def test_units(theorem, numbers):
    """f -> cf and x -> x·r change units only: N, 1/(aL), m_k and ε/f must follow."""
    c, r = 5.0, 0.25
    nu = numbers.get("holder_exponent", 1.0)
    slope = c * r ** -(1 + nu)
    changed = {
        "smoothness": slope,
        "holder_constant": slope,
        "distance": r,
        "noise_scale": c / r,
    }
    other_numbers = {name: value * changed.get(name, 1.0) for name, value in numbers.items()}
    # Far from where one iteration more or less is a matter of rounding.
    accuracy = theorem(**numbers, accuracy=1.0).bound * (1 + 1e-9)
    one = theorem(**numbers, accuracy=accuracy)
    other = theorem(**other_numbers, accuracy=c * accuracy)
    sgd = isinstance(one, theory.ClippedSGDConstants)
    check_run(other, iterations=one.iterations, bound=c * one.bound)
    if sgd:
        check_run(other, clip_level=c / r * one.clip_level)
        check_run(other, learning_rate=r**2 / c * one.learning_rate)
    else:  # B is a distance, a is a number, L a curvature
        check_run(other, clip_level=r * one.clip_level, learning_rate=one.learning_rate)
        check_run(other, smoothness=c / r**2 * one.smoothness)
    for k in (0, one.iterations // 2, one.iterations - 1):
        np.testing.assert_allclose(other.batch_sizes(k), one.batch_sizes(k), rtol=1e-5, atol=1)


@every_theorem
def test_without_noise_one_gradient_a_step_suffices(theorem, numbers):
    quiet = theorem(**numbers | {"noise_scale": 0.0}, accuracy=10.0)
    fixed = getattr(theorem, "keywords", {}).get("batch_size", 1)
    for k in (0, quiet.iterations - 1):
        assert int(quiet.batch_sizes(k)) == fixed
    assert quiet.oracle_calls == fixed * quiet.iterations
    noisy = theorem(**numbers | {"noise_scale": 100.0}, accuracy=10.0)
    assert noisy.oracle_calls > quiet.oracle_calls


@pytest.mark.parametrize("batch_size", [1, 16])
@pytest.mark.parametrize(
    ("theorem", "factor", "C2"),
    [
        (theory.clipped_sstm_constants, 6000, 5),
        (theory.holder_clipped_sstm_constants, 20736, 7),
    ],
)
def test_steps_short_enough_for_a_fixed_batch(theorem, factor, C2, batch_size):
    """With the a returned, the m_k of the theorem is at most b, and b in the last step."""
    numbers = HOLDER if "holder" in theorem.__name__ else PROBLEM
    numbers = numbers | {"noise_scale": 1e5}
    constants = theorem(**numbers, accuracy=1e5, batch_size=batch_size)
    n, log = constants.iterations, math.log(4 * constants.iterations / 0.02)
    # The grown batches of the same run would be larger: the fixed batch costs iterations.
    grown = theorem(**numbers, accuracy=1e5)
    assert int(grown.batch_sizes(grown.iterations - 1)) > batch_size
    assert grown.iterations < n
    alpha = (n - 1 + constants.step_offset) ** (
        2 * constants.holder_exponent / (1 + constants.holder_exponent)
    )
    alpha *= constants.learning_rate / (2 * constants.smoothness)
    m = factor * 1e5**2 * alpha**2 * n * log / (C2 * 2**2)
    np.testing.assert_allclose(m, batch_size, rtol=1e-12)
    assert int(constants.batch_sizes(n - 1)) == batch_size
    assert constants.oracle_calls == batch_size * n
    if C2 == 5:  # a = Θ(σ N^{3/2} √ln / (L R_0)): here √(1500/5) (N + 1)/N
        order = 1e5 * n**1.5 * math.sqrt(log / batch_size) / (3 * 2)
        np.testing.assert_allclose(
            1 / constants.learning_rate, math.sqrt(300) * order * (n + 1) / n, rtol=1e-12
        )


def test_a_fixed_batch_of_clipped_sgd_is_the_theorem_for_a_larger_smoothness():
    numbers = PROBLEM | {"noise_scale": 50.0}
    constants = theory.clipped_sgd_constants(**numbers, accuracy=10.0, batch_size=2)
    larger = 1 / (80 * constants.learning_rate * math.log(4 * constants.iterations / 0.02))
    assert larger > 3
    same = theory.clipped_sgd_constants(
        **numbers | {"smoothness": larger}, iterations=constants.iterations
    )
    check_run(same, bound=constants.bound, clip_level=constants.clip_level)
    np.testing.assert_allclose(same.batch_sizes.scale, 2, rtol=1e-12)
    assert constants.oracle_calls == 2 * constants.iterations


def test_infinite_variance_forms_scale_as_the_finite_ones_at_moment_2():
    """a/a_2020 = 1800 C/√1500, in σ, N, β, L, R and b, where the noise decides."""
    ratios = []
    for scale, n, beta, L, R, b in [(1e6, 100, 0.1, 1.0, 1.0, 1), (1e7, 3000, 1e-4, 0.2, 5.0, 8)]:
        numbers = {
            "smoothness": L,
            "distance": R,
            "noise_scale": scale,
            "failure_probability": beta,
            "iterations": n,
            "batch_size": b,
        }
        heavy = theory.infinite_variance_clipped_sstm_constants(**numbers, moment=2.0)
        finite = theory.clipped_sstm_constants(**numbers)
        ratios.append(finite.learning_rate / heavy.learning_rate)
    np.testing.assert_allclose(ratios, 1800 * math.sqrt(5 / 1500), rtol=1e-12)


@pytest.mark.parametrize("theorem", ["sstm", "sgd"])
def test_heavier_tails_take_longer(theorem):
    """N ~ (σR/ε)^{α/(α−1)}: halving ε at α = 1.5 takes 8 times as long, at 1.25 32 times."""
    theorem = getattr(theory, f"infinite_variance_clipped_{theorem}_constants")
    for moment, factor in ((1.5, 8), (1.25, 32)):
        numbers = PROBLEM | {"noise_scale": 1.0, "moment": moment}
        n, m = (theorem(**numbers, accuracy=a).iterations for a in (100.0, 50.0))
        logs = math.log(4 * m / 0.02) / math.log(4 * n / 0.02)
        np.testing.assert_allclose(m / n, factor * logs, rtol=1e-3)


# Restarts

STRONG = {"strong_convexity": 0.5, **PROBLEM}
RESTARTED = {
    "sgd": (theory.restarted_clipped_sgd_constants, STRONG),
    "sstm": (theory.restarted_clipped_sstm_constants, STRONG),
    "sstm, batch 1": (partial(theory.restarted_clipped_sstm_constants, batch_size=1), STRONG),
    "infinite variance sstm": (
        theory.restarted_infinite_variance_clipped_sstm_constants,
        STRONG | {"moment": 1.9, "noise_scale": 0.01},
    ),
}


@pytest.mark.parametrize(("theorem", "numbers"), RESTARTED.values(), ids=RESTARTED)
def test_every_run_halves_the_squared_distance(theorem, numbers):
    """τ = ⌈log2(0.5 · 4/(2 · 0.15))⌉ = ⌈log2 6.7⌉ = 3 runs; f − f* ≥ μ/2 |x − x*|²."""
    constants = theorem(**numbers, accuracy=0.15)
    assert len(constants.runs) == 3
    radius2 = [4.0, 2.0, 1.0, 0.5]
    for t, run in enumerate(constants.runs):
        assert 2 / 0.5 * run.bound <= radius2[t + 1] * (1 + 1e-12)
        # ... but not with one step fewer.
        assert run.bound > 0.5 * radius2[t] / 4 * (1 - 3 / run.iterations)
    assert constants.bound <= 0.15
    steps = [run.iterations for run in constants.runs]
    assert constants.restart_steps == tuple(np.cumsum(steps))
    assert constants.iterations == sum(steps)
    assert constants.oracle_calls == sum(run.oracle_calls for run in constants.runs)
    batch_size = jax.jit(constants.batch_sizes)
    for start, run in zip((0, *constants.restart_steps), constants.runs, strict=False):
        for k in (0, 1, run.iterations - 1):
            m = batch_size(start + k)
            assert (m.dtype, m) == (jnp.int32, run.batch_sizes(k))


def test_restarted_runs_are_single_runs_with_their_share_of_the_probability():
    constants = theory.restarted_clipped_sstm_constants(**STRONG, accuracy=0.15)
    for t, run in enumerate(constants.runs):
        numbers = {"distance": 2 / 2 ** (t / 2), "failure_probability": 0.02 / 3}
        single = theory.clipped_sstm_constants(
            **PROBLEM | numbers, iterations=constants.runs[0].iterations
        )
        assert run == single


def test_the_length_of_a_run_in_closed_form():
    """N_0 ≥ 4C√(aL/μ) is enough, with slack N_0 + 3; and N_0 ≥ 320C²(L/μ) ln(4N_0τ/β)."""
    sstm = theory.restarted_clipped_sstm_constants(**STRONG, accuracy=0.15)
    (n,) = {run.iterations for run in sstm.runs}
    closed = 4 * math.sqrt(5 * 3 / (0.5 * sstm.runs[0].learning_rate))
    assert closed - 3 < n <= math.ceil(closed)
    sgd = theory.restarted_clipped_sgd_constants(**STRONG, accuracy=0.15)
    (n,) = {run.iterations for run in sgd.runs}
    closed = 320 * 2 * 3 / 0.5 * math.log(4 * n * 3 / 0.02)
    assert closed <= n < closed + 1


def test_restarts_of_one_run_only():
    """Where μR²/2 ≤ ε already, one run is left."""
    constants = theory.restarted_clipped_sstm_constants(**STRONG, accuracy=10.0)
    (run,) = constants.runs
    assert constants.restart_steps == (run.iterations,)
    assert constants.arguments(0) == run.arguments
    assert int(constants.batch_sizes(5)) == int(run.batch_sizes(5))


@pytest.mark.parametrize("name", ["sgd", "sstm"])
def test_restarted_runs_without_noise_halve_the_squared_distance(name):
    """From the worst direction, 2 runs; each starts at the answer of the one before.

    `with_restarts` takes the same way, levels and all: its restarts are at the answers.
    """
    problem = Quadratic((1.0, 0.8))
    theorem = getattr(theory, f"restarted_clipped_{name}_constants")
    constants = theorem(
        smoothness=1.0,
        strong_convexity=0.8,
        distance=1.0,
        noise_scale=0.0,
        failure_probability=0.5,
        accuracy=0.1,
    )
    assert len(constants.runs) == 2
    with jax.enable_x64(True):
        start = x = jnp.array([0.0, 1.0])
        for t, run in enumerate(constants.runs):
            x = train(method(run), run.iterations, jax.grad(problem.value), x)
            assert jnp.sum(x**2) <= 2.0 ** -(t + 1)
        assert problem.value(x) <= constants.bound <= 0.1
        tx = clipjax.with_restarts(
            lambda t: method(constants.runs[0], constants.arguments(t)), constants.restart_steps
        )
        same = train(tx, constants.iterations, jax.grad(problem.value), start)
        np.testing.assert_allclose(same, x, rtol=1e-10)


def test_restarts_with_levels_that_bind_and_growing_batches():
    """The whole method from its constants: 2 + 3 steps, of 1, 1 and 2, 3, 4 gradients each.

    With f = ⟨c, x⟩, |c| = 10, every gradient is clipped: z moves by B_t in a step of run t. So y^2
    is B_0 (1, 2) from its start, weighed by α = 2, 3; y^3 of the next run is B_1 (1, 2, 3) from
    there, weighed by 2, 3, 4.
    """
    runs = (
        theory.ClippedSSTMConstants(2, 1.0, 1.0, 0.5, theory.BatchSizes(0.0), 1.0),
        theory.ClippedSSTMConstants(3, 1.0, 1.0, 0.1, theory.BatchSizes(1.0, 1.0, 2), 0.1),
    )
    constants = theory.RestartedConstants(runs)
    assert constants.oracle_calls == 2 + 2 + 3 + 4
    tx = clipjax.with_restarts(
        lambda t: clipjax.clipped_sstm(**constants.arguments(t)), constants.restart_steps
    )
    tx = clipjax.accumulate_gradients(tx, every=constants.batch_sizes)
    slope, x, moved = jnp.array([6.0, 8.0]), jnp.zeros(2), []
    state, update = tx.init(x), jax.jit(tx.update)
    for _ in range(constants.oracle_calls):
        updates, state = update(slope, state, x)
        moved.append(bool(jnp.any(updates != 0)))
        x = optax.apply_updates(x, updates)
    assert moved == [bool(int(digit)) for digit in "11" + "01" + "001" + "0001"]
    distance = 0.5 * (2 * 1 + 3 * 2) / 5 + 0.1 * (2 * 1 + 3 * 2 + 4 * 3) / 9
    np.testing.assert_allclose(x, -distance * slope / 10, rtol=1e-6)


def method(constants, arguments=None):
    arguments = constants.arguments if arguments is None else arguments
    if isinstance(constants, theory.ClippedSGDConstants):
        return clipjax.average_iterates(clipjax.clipped_sgd(**arguments))
    return clipjax.clipped_sstm(**arguments)


def train(tx, steps, gradient, x, key=None):
    """Return the evaluation point; `gradient` may take a key and the number of the step."""

    def step(carry, k):
        x, state = carry
        g = gradient(x) if key is None else gradient(x, jax.random.fold_in(key, k), k)
        updates, state = tx.update(g, state, x)
        return (optax.apply_updates(x, updates), state), None

    (x, state), _ = jax.lax.scan(step, (x, tx.init(x)), jnp.arange(steps))
    return clipjax.eval_params(state, x)


@pytest.mark.parametrize(
    ("theorem", "looseness"),
    [
        (theory.clipped_sstm_constants, 160),
        (partial(theory.clipped_sgd_constants, batch_size=1), 32),
    ],
    ids=["sstm, growing batches", "sgd, batch 1"],
)
def test_runs_stay_under_the_bound(theorem, looseness):
    """Of 100 runs 95 % end under the bound of β = 0.05, with noise of tail index 2.1.

    The bound is half the gap at the start, and loose: the runs end 160 (SSTM) and 32 (SGD) times
    lower. With a step size ten times shorter or longer they end ten times higher or lower.
    """
    with jax.enable_x64(True):
        problem = Quadratic((1.0, 0.1))
        oracle = AdditiveNoise(problem, StudentT(df=2.1, scale=0.003))
        constants = theorem(
            smoothness=problem.smoothness,
            distance=1.0,
            noise_scale=math.sqrt(2 * oracle.noise.variance),
            failure_probability=0.05,
            accuracy=0.25,
        )
        largest = int(constants.batch_sizes(constants.iterations - 1))
        start = jnp.array([1.0, 0.0])

        def gradient(x, key, k):
            draws = oracle.noise.sample(key, (largest, 2), x.dtype)
            size = constants.batch_sizes(k)
            used = jnp.arange(largest)[:, None] < size
            return jax.grad(problem.value)(x) + jnp.where(used, draws, 0).sum(axis=0) / size

        def replica(key):
            x = train(method(constants), constants.iterations, gradient, start, key)
            return problem.value(x)

        gaps = jax.jit(jax.vmap(replica))(jax.random.split(jax.random.key(0), 100))
        high = np.quantile(gaps, 0.95)
        assert high <= constants.bound < problem.value(start)
    assert 0.7 < constants.bound / high / looseness < 1.4


# Batch sizes


def test_batch_sizes_are_the_same_on_the_host_and_in_a_trace():
    """In float32; a product within 1e-7 of a whole number may be rounded past it."""
    schedule = theory.BatchSizes(scale=0.0123456789, exponent=2.0, offset=2)
    counts = jnp.arange(20_000)
    traced = jax.jit(jax.vmap(schedule))(counts)
    assert traced.dtype == jnp.int32
    host = np.array([int(schedule(k)) for k in range(0, 20_000, 500)])
    np.testing.assert_array_equal(host, traced[::500])
    exact = np.maximum(1, np.ceil(0.0123456789 * (np.arange(20_000) + 2.0) ** 2)).astype(int)
    np.testing.assert_array_equal(traced[:500], exact[:500])
    assert np.abs(traced - exact).max() <= 1
    assert schedule.total(20_000) == exact.sum()
    assert schedule.total(0) == 0


def test_totals_are_added_up_piece_by_piece():
    schedule = theory.BatchSizes(scale=1e-7, exponent=4 / 3, offset=1)
    n = 2**21 + 5  # three pieces
    k = np.arange(n) + 1.0
    assert schedule.total(n) == np.maximum(1, np.ceil(1e-7 * k ** (4 / 3))).sum()


def test_huge_batches_stay_within_int32():
    schedule = theory.BatchSizes(scale=1e30, exponent=2.0)
    assert int(schedule(2**31 - 1)) == 2**31 - 128
    assert theory.BatchSizes(scale=1e30).total(3) == 3 * (2**31 - 128)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scale": math.nan}, "scale must lie in"),
        ({"scale": math.inf}, "scale must lie in"),
        ({"scale": -1.0}, "scale must lie in"),
        ({"exponent": math.nan}, "exponent must lie in"),
        ({"offset": -1}, "offset must be a whole number"),
        ({"offset": math.nan}, "offset must be a whole number"),
        ({"minimum": 0}, "minimum must be a whole number >= 1"),
        ({"minimum": math.nan}, "minimum must be a whole number >= 1"),
    ],
)
def test_batch_sizes_that_are_no_numbers_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        theory.BatchSizes(**({"scale": 1.0} | change))


def test_a_whole_exponent_may_be_an_integer():
    assert int(theory.BatchSizes(0.5, 2, 1)(1)) == 2  # 0.5 · 2²


# Estimators


def logistic(rows=40, columns=5):
    """Logistic regression without intercept: L = σ_max(A)²/(4m), the Hessian at 0."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, columns))
    labels = np.sign(rng.normal(size=rows))

    def fn(x):
        return jnp.mean(jnp.logaddexp(0, -labels * (jnp.asarray(features) @ x)))

    return fn, np.linalg.norm(features, 2) ** 2 / (4 * rows), features


def test_smoothness_by_power_iteration():
    with jax.enable_x64(True):
        fn, smoothness, features = logistic()
        at = jax.jit(lambda x: theory.estimate_smoothness(fn, x, jax.random.key(1), steps=3000))
        np.testing.assert_allclose(at(jnp.zeros(5)), smoothness, rtol=1e-10)
        x = jnp.linspace(-1, 2, 5)
        p = 1 / (1 + np.exp(-features @ np.asarray(x)))
        hessian = features.T * (p * (1 - p)) @ features / len(features)
        np.testing.assert_allclose(at(x), np.linalg.eigvalsh(hessian)[-1], rtol=1e-10)
        assert at(x) == at(x) < smoothness
        together = jax.vmap(at)(jnp.stack([jnp.zeros(5), x]))
        np.testing.assert_allclose(together, [at(jnp.zeros(5)), at(x)], rtol=1e-10)


def test_smoothness_rises_to_the_largest_eigenvalue_and_never_above():
    problem = Quadratic((1.0, 3.0, 2.9))
    with jax.enable_x64(True):
        estimates = [
            float(
                theory.estimate_smoothness(problem.value, jnp.zeros(3), jax.random.key(2), steps=s)
            )
            for s in (1, 5, 300)
        ]
    assert estimates == sorted(estimates)
    assert estimates[0] < 2.99
    assert 3 - 1e-6 < estimates[-1] <= 3 + 1e-12


def test_smoothness_is_the_largest_absolute_eigenvalue():
    """λ = ±3 as well, where the Rayleigh quotient is anywhere between; trees; no curvature."""

    def saddle(p):
        return 1.5 * p["a"] ** 2 - 1.5 * p["b"][0] ** 2 + 0.5 * p["b"][1] ** 2

    params = {"a": jnp.array(2.0), "b": jnp.array([1.0, 5.0])}
    estimate = theory.estimate_smoothness(saddle, params, jax.random.key(0))
    np.testing.assert_allclose(estimate, 3, rtol=1e-6)
    assert theory.estimate_smoothness(jnp.sum, jnp.zeros(3), jax.random.key(0)) == 0


def test_smoothness_from_gradients_along_a_trajectory():
    """Steps along e_1 and e_2 of the spectrum (2, 7, 100) show 7; the 100 is never met."""
    problem = Quadratic((2.0, 7.0, 100.0))
    points = jnp.array([[1.0, 1, 0], [0.5, 1, 0], [0.5, 1, 0], [0.5, 0.2, 0], [0.1, 0.1, 0]])
    gradients = jax.vmap(jax.grad(problem.value))(points)
    estimate = jax.jit(theory.estimate_smoothness_from_gradients)
    np.testing.assert_allclose(estimate(points, gradients), 7, rtol=1e-6)
    split = [{"a": x[:, 0], "b": x[:, 1:]} for x in (points, gradients)]
    np.testing.assert_allclose(estimate(*split), 7, rtol=1e-6)
    assert estimate(jnp.ones((3, 2)), jnp.ones((3, 2))) == 0
    fn, smoothness, _ = logistic()
    trajectory = jnp.asarray(np.random.default_rng(1).normal(size=(50, 5)))
    found = jax.jit(lambda x: estimate(x, jax.vmap(jax.grad(fn))(x)))(trajectory)
    assert 0.2 * smoothness < found < smoothness


def test_the_squared_noise_scale_is_unbiased():
    """The mean of 4000 estimates from 5 gradients each: σ² = 3 · 0.04, to 5 standard errors."""
    with jax.enable_x64(True):
        noise = 0.2 * jax.random.normal(jax.random.key(0), (4000, 5, 3))
        estimate = jax.jit(jax.vmap(theory.estimate_noise_scale))
        squares = np.asarray(estimate(jnp.array([1.0, -2.0, 5.0]) + noise)) ** 2
        error = squares.std() / math.sqrt(4000)
        assert abs(squares.mean() - 0.12) < 5 * error < 0.005
        # Of two gradients: |g_1 − g_2|²/2. With the exact mean: that of the squares.
        g = noise[0, :2]
        np.testing.assert_allclose(
            theory.estimate_noise_scale(g) ** 2, jnp.sum((g[0] - g[1]) ** 2) / 2
        )
        np.testing.assert_allclose(
            theory.estimate_noise_scale(1 + g, mean=jnp.ones(3)) ** 2, jnp.sum(g**2) / 2
        )


def test_the_noise_scale_of_a_lower_moment():
    """E|T|^α = ν^{α/2} Γ((α+1)/2) Γ((ν−α)/2)/(√π Γ(ν/2)) for Student's t of ν = 2.5, α = 1.2."""
    nu, alpha = 2.5, 1.2
    moment = nu ** (alpha / 2) * math.gamma((alpha + 1) / 2) * math.gamma((nu - alpha) / 2)
    moment /= math.sqrt(math.pi) * math.gamma(nu / 2)
    with jax.enable_x64(True):
        noise = StudentT(df=nu).sample(jax.random.key(0), (100_000, 1), jnp.float64)
        known = theory.estimate_noise_scale(noise, moment=alpha, mean=jnp.zeros(1))
        np.testing.assert_allclose(known**alpha, moment, rtol=0.02)
        np.testing.assert_allclose(theory.estimate_noise_scale(noise, moment=alpha), known, 1e-2)


def test_noise_scale_of_trees_in_low_precision_and_without_overflow():
    g = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float16)
    tree = {"a": jnp.asarray(g[:, :1]), "b": {"c": jnp.asarray(g[:, 1:])}}
    expected = math.sqrt(np.var(g.astype(np.float64), axis=0, ddof=1).sum())
    estimate = jax.jit(theory.estimate_noise_scale)
    assert estimate(tree).dtype == jnp.float32
    np.testing.assert_allclose(estimate(tree), expected, rtol=1e-5)
    huge = np.asarray(g, np.float32) * 1e30
    np.testing.assert_allclose(estimate(huge), expected * 1e30, rtol=1e-5)
    assert estimate(jnp.ones((6, 4))) == 0


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"smoothness": 0.0}, "smoothness must be positive, got 0.0"),
        ({"smoothness": math.nan}, "smoothness must be positive, got nan"),
        ({"distance": -1.0}, "distance must be positive, got -1.0"),
        ({"noise_scale": -0.1}, r"noise_scale must lie in \[0, 1e\+60\], got -0.1"),
        ({"failure_probability": 1.0}, r"failure_probability must lie in \(0, 1\), got 1.0"),
        ({"failure_probability": 0.0}, r"failure_probability must lie in \(0, 1\), got 0.0"),
        ({"accuracy": 0.0}, "accuracy must be positive, got 0.0"),
        ({"accuracy": None}, "either accuracy or iterations, got accuracy=None and iterations=No"),
        ({"iterations": 5}, "either accuracy or iterations, got accuracy=1.0 and iterations=5"),
        ({"accuracy": None, "iterations": 0}, "iterations must be a whole number >= 1, got 0"),
        ({"accuracy": None, "iterations": 2.5}, "iterations must be a whole number >= 1, got 2.5"),
        (
            {"accuracy": None, "iterations": 1, "failure_probability": 0.9},
            "iterations must be at least 2 for failure_probability 0.9",
        ),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1, got 0"),
        ({"accuracy": 1e-40}, r"accuracy 1e-40 takes more than 2\^53 iterations"),
    ],
)
@pytest.mark.parametrize("name", ["sgd", "sstm"])
def test_bad_numbers_are_refused(name, change, message):
    theorem = getattr(theory, f"clipped_{name}_constants")
    with pytest.raises(ValueError, match=message):
        theorem(**PROBLEM | {"accuracy": 1.0} | change)


@pytest.mark.parametrize(
    ("theorem", "numbers", "message"),
    [
        (
            theory.holder_clipped_sstm_constants,
            HOLDER | {"holder_exponent": 1.5},
            r"holder_exponent must lie in \[0, 1\], got 1.5",
        ),
        (
            theory.holder_clipped_sgd_constants,
            HOLDER | {"holder_constant": 0.0},
            "holder_constant must be positive, got 0.0",
        ),
        (
            theory.infinite_variance_clipped_sstm_constants,
            PROBLEM | {"moment": 1.0},
            r"moment must lie in \(1, 2\], got 1.0",
        ),
        (
            theory.infinite_variance_clipped_sgd_constants,
            PROBLEM | {"moment": 2.5},
            r"moment must lie in \(1, 2\], got 2.5",
        ),
        (
            theory.restarted_clipped_sstm_constants,
            STRONG | {"strong_convexity": 0.0},
            r"strong_convexity must lie in \(0, 3.0\], got 0.0",
        ),
        (
            theory.restarted_clipped_sgd_constants,
            STRONG | {"strong_convexity": 4.0},
            r"strong_convexity must lie in \(0, 3.0\], got 4.0",
        ),
    ],
)
def test_bad_assumptions_are_refused(theorem, numbers, message):
    with pytest.raises(ValueError, match=message):
        theorem(**numbers, accuracy=1.0)


def test_one_iteration_is_no_run_of_the_infinite_variance_clipped_sgd():
    with pytest.raises(ValueError, match="iterations must be at least 2"):
        theory.infinite_variance_clipped_sgd_constants(**PROBLEM, moment=1.5, iterations=1)


def test_bad_estimator_input_is_refused():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="steps must be a whole number >= 1, got 0"):
        theory.estimate_smoothness(jnp.sum, jnp.zeros(2), key, steps=0)
    with pytest.raises(ValueError, match="real floating-point"):
        theory.estimate_smoothness(jnp.sum, jnp.arange(2), key)
    with pytest.raises(ValueError, match=r"points must be .* at least 2 .* axes \[1\]"):
        theory.estimate_smoothness_from_gradients(jnp.ones((1, 2)), jnp.ones((1, 2)))
    with pytest.raises(ValueError, match=r"gradients must be .* at least 2"):
        theory.estimate_noise_scale(jnp.ones((1, 2)))
    with pytest.raises(ValueError, match=r"axes \[2, 3\]"):
        theory.estimate_noise_scale({"a": jnp.ones(2), "b": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"moment must lie in \(1, 2\], got 0.5"):
        theory.estimate_noise_scale(jnp.ones((3, 2)), moment=0.5)


def test_the_constants_are_values():
    """Equal numbers give equal constants, which can be keys of a dictionary."""
    one, other = (theory.clipped_sstm_constants(**PROBLEM, iterations=10) for _ in range(2))
    assert one == other
    assert len({one, other}) == 1
    with pytest.raises(AttributeError):
        one.iterations = 3  # type: ignore[misc]
