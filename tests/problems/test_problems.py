import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from clipjax.problems import AdditiveNoise, Normal, Quadratic, Rosenbrock, StudentT

PROBLEMS = [Quadratic((0.5, 1.0, 4.0)), Quadratic((0.0, 2.0)), Rosenbrock(), Rosenbrock(5, 10.0)]


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_the_stated_minimum_is_reached_with_zero_gradient_and_nowhere_undercut(problem):
    minimiser = jnp.array(problem.minimiser)
    assert minimiser.shape == (problem.dimension,)
    assert float(problem.value(minimiser)) == problem.minimum
    np.testing.assert_array_equal(jax.grad(problem.value)(minimiser), 0)
    points = minimiser + jax.random.normal(jax.random.key(0), (1000, problem.dimension))
    assert float(jax.vmap(problem.value)(points).min()) >= problem.minimum


def test_quadratic_states_its_smallest_and_largest_curvature():
    problem = Quadratic((4.0, 0.5, 1.0))
    eigenvalues = np.linalg.eigvalsh(jax.hessian(problem.value)(jnp.ones(3)))
    assert (problem.strong_convexity, problem.smoothness) == (eigenvalues[0], eigenvalues[-1])


def test_rosenbrock_is_scipys_and_has_no_curvature_bounds():
    for dimension in (2, 5):
        x = np.random.default_rng(0).normal(size=dimension)
        with jax.enable_x64(True):
            value = Rosenbrock(dimension).value(jnp.array(x))
        np.testing.assert_allclose(value, scipy.optimize.rosen(x), rtol=1e-12)
    # The Hessian at (0, s) is diag(2 - 400 s, 200); at (s, 0) its corner is 1200 s² + 2.
    hessian = jax.hessian(Rosenbrock().value)
    assert float(hessian(jnp.array([0.0, 1e6]))[0, 0]) < -1e8
    assert float(hessian(jnp.array([1e4, 0.0]))[0, 0]) > 1e11
    assert (Rosenbrock().strong_convexity, Rosenbrock().smoothness) == (-np.inf, np.inf)


@pytest.mark.parametrize(
    ("noise", "law"),
    [
        (Normal(2.0), scipy.stats.norm(scale=2.0)),
        (StudentT(1.5), scipy.stats.t(1.5)),
        (StudentT(4.0, scale=3.0), scipy.stats.t(4.0, scale=3.0)),
    ],
    ids=["normal", "t1.5", "t4"],
)
def test_noise_follows_its_law(noise, law):
    sample = np.asarray(noise.sample(jax.random.key(1), (100_000,), jnp.float32))
    # Kolmogorov-Smirnov distance of 100,000 draws exceeds 1.95 / √100,000 = 0.0062 with p = 0.1 %.
    assert scipy.stats.kstest(sample, law.cdf).statistic < 0.0062
    assert noise.variance == pytest.approx(law.var())


def test_students_t_is_right_far_in_its_tail():
    # Numbers beyond ±s expected from the law itself; 5 standard deviations of a Poisson count.
    noise, law = StudentT(1.5), scipy.stats.t(1.5)
    sizes = np.abs(noise.sample(jax.random.key(2), (4_000_000,), jnp.float32))
    for s in (100.0, 1e3, 1e4):
        expected = 2 * law.sf(s) * sizes.size
        assert expected > 3
        assert abs(np.count_nonzero(sizes > s) - expected) < 5 * np.sqrt(expected)


@pytest.mark.parametrize("bits", [0, 2**32 - 1])
def test_students_t_is_finite_whatever_the_random_bits(monkeypatch, bits):
    # U = 2^-33 and U = 1: the largest draw is √(1.5 (2^44 - 1)), the smallest 0.
    monkeypatch.setattr(jax.random, "bits", lambda _, shape, dtype: jnp.full(shape, bits, dtype))
    sample = float(StudentT(1.5).sample(jax.random.key(0), (), jnp.float32))
    assert sample == pytest.approx(5136952.3 if bits == 0 else 0.0, rel=1e-5)


def test_tail_index_bounds_the_finite_moments():
    # E|t|^p is finite exactly for p < df; scipy integrates the one below and not the one above.
    assert StudentT(1.5).tail_index == 1.5
    assert Normal().tail_index == np.inf
    assert StudentT(2.0).variance == np.inf
    assert StudentT(3.0, scale=2.0).variance == 12.0  # 4 * 3 / (3 - 2)


@pytest.mark.parametrize("noise", [Normal(), StudentT(1.5)], ids=str)
def test_a_replica_draws_the_same_bits_alone_or_among_others(noise):
    oracle = AdditiveNoise(Quadratic((1.0,) * 20), noise)
    keys = jax.random.split(jax.random.key(3), 4)
    together = jax.vmap(lambda key: oracle.sample(key, jnp.float32))(keys)
    alone = jnp.stack([oracle.sample(key, jnp.float32) for key in keys])
    np.testing.assert_allclose(together, alone, rtol=1e-6)  # bits equal; XLA may fuse differently


def test_one_draw_serves_many_queries():
    oracle = AdditiveNoise(Quadratic((1.0, 10.0)), Normal())
    draw = oracle.sample(jax.random.key(4), jnp.float32)
    x, y = jnp.array([1.0, 2.0]), jnp.array([-3.0, 0.5])
    np.testing.assert_allclose(
        oracle.gradient(x, draw) - oracle.gradient(y, draw),
        jnp.array([4.0, 15.0]),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Quadratic(()), "empty"),
        (lambda: Quadratic((1.0, -2.0)), r"spectrum\[1\] is -2.0"),
        (lambda: Quadratic((float("nan"),)), "nan"),
        (lambda: Rosenbrock(1), "dimension is 1"),
        (lambda: Rosenbrock(2, 0.0), "curvature is 0.0"),
        (lambda: Normal(-1.0), "scale is -1.0"),
        (lambda: StudentT(0.0), "df is 0.0"),
        (lambda: StudentT(1.5, scale=float("inf")), "scale is inf"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
