import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax.problems import (
    Ackley,
    Alpine1,
    DropWave,
    Ellipsoid,
    Griewank,
    HappyCat,
    Rastrigin,
    Salomon,
    Schwefel,
    Schwefel221,
    Sphere,
)

KINDS = (
    Ackley,
    Alpine1,
    DropWave,
    Ellipsoid,
    Griewank,
    HappyCat,
    Rastrigin,
    Salomon,
    Schwefel,
    Schwefel221,
    Sphere,
)
BOUNDED = [Rastrigin(3), Rastrigin(2, 3.0), Griewank(3), DropWave(3), DropWave(1, 5.0)]
CONVEX = [Sphere(3), Ellipsoid(3), Schwefel221(3)]


def textbook(x):
    """The functions as their sources print them, float64 NumPy; DropWave's f* = -1 moved to 0."""
    n, r = len(x), np.linalg.norm(x)
    i = np.arange(1, n + 1)
    spread = -0.2 * np.sqrt(np.mean(x**2))
    return {
        Ackley: -20 * np.exp(spread) - np.exp(np.mean(np.cos(2 * np.pi * x))) + 20 + np.e,
        Alpine1: np.sum(np.abs(x * np.sin(x) + 0.1 * x)),
        DropWave: 1 - (1 + np.cos(12 * r)) / (0.5 * r**2 + 2),
        Ellipsoid: np.sum(i * x**2),
        Griewank: np.sum(x**2) / 4000 - np.prod(np.cos(x / np.sqrt(i))) + 1,
        HappyCat: ((r**2 - n) ** 2) ** 0.125 + (0.5 * r**2 + np.sum(x)) / n + 0.5,
        Rastrigin: 10 * n + np.sum(x**2 - 10 * np.cos(2 * np.pi * x)),
        Salomon: 1 - np.cos(2 * np.pi * r) + 0.1 * r,
        Schwefel: 418.9828872724338 * n - np.sum(x * np.sin(np.sqrt(np.abs(x)))),
        Schwefel221: np.max(np.abs(x)),
        Sphere: np.sum(x**2),
    }


def test_values_are_those_of_the_sources():
    with jax.enable_x64(True):
        for dimension in (1, 4):
            for x in 3 * np.random.default_rng(0).normal(size=(5, dimension)):
                for kind, expected in textbook(x).items():
                    found = float(kind(dimension).value(jnp.asarray(x)))
                    np.testing.assert_allclose(found, expected, rtol=1e-11, err_msg=str(kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_point_that_is_not_finite_has_no_finite_value(kind, bad):
    """A run that went to NaN would be counted as one that reached the minimum."""
    value, gradient = jax.value_and_grad(kind(3).value)(jnp.array([0.5, bad, 0.0]))
    assert not np.isfinite(value)
    if np.isnan(bad):
        assert np.isnan(value)
        assert np.isnan(gradient[1])


@pytest.mark.parametrize("kind", KINDS)
def test_the_stated_minimum_is_reached_with_zero_gradient_and_nowhere_undercut(kind):
    with jax.enable_x64(True):
        problem = kind(3)
        minimiser = jnp.array(problem.minimiser)
        value, gradient = jax.value_and_grad(problem.value)(minimiser)
        assert float(value) == pytest.approx(problem.minimum, abs=1e-12)
        np.testing.assert_allclose(gradient, 0, atol=1e-12)
        near = minimiser + jax.random.normal(jax.random.key(0), (500, 3))
        far = jax.random.uniform(jax.random.key(1), (500, 3), minval=-500, maxval=500)
        values = jax.vmap(problem.value)(jnp.concatenate([near, far]))
        assert float(values.min()) >= problem.minimum


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_at_kinks_in_float32(kind):
    for x in (jnp.zeros(3), jnp.ones(3), -jnp.ones(3)):
        assert np.isfinite(jax.grad(kind(3).value)(x)).all()


def eigenvalues(problem, points):
    with jax.enable_x64(True):
        hessians = jax.jit(jax.vmap(jax.hessian(problem.value)))(jnp.asarray(points, float))
        return np.linalg.eigvalsh(hessians)


@pytest.mark.parametrize("problem", [*BOUNDED, *CONVEX[:2]], ids=str)
def test_curvature_stays_within_the_stated_bounds(problem):
    generator = np.random.default_rng(0)
    scales = 10.0 ** generator.uniform(-3, 2, size=(2000, 1))
    found = eigenvalues(problem, scales * generator.normal(size=(2000, problem.dimension)))
    assert np.abs(found).max() <= problem.smoothness * (1 + 1e-9)
    if not np.isnan(problem.strong_convexity):
        assert found.min() >= problem.strong_convexity - 1e-9 * problem.smoothness


@pytest.mark.parametrize(
    ("problem", "flattest", "sharpest"),
    [
        (Rastrigin(2, 3.0), [0.5, 0.0], [0.0, 0.0]),
        (Griewank(3), [np.pi, 0.0, 0.0], [0.0, 0.0, 0.0]),
        (Ellipsoid(3), [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
        # A ring of Salomon's, r = 1/2, where cos 2πr = -1; L is infinite.
        (Salomon(2), [0.3, 0.4], None),
        # The Hessian at 0 itself is not to be had; it is continuous there.
        (DropWave(3), None, [1e-4, 0.0, 0.0]),
    ],
    ids=str,
)
def test_the_stated_bounds_are_reached(problem, flattest, sharpest):
    if flattest is not None:
        found = eigenvalues(problem, [flattest]).min()
        assert found == pytest.approx(problem.strong_convexity, rel=1e-9)
    if sharpest is not None:
        found = eigenvalues(problem, [sharpest]).max()
        assert found == pytest.approx(problem.smoothness, rel=1e-5)


def test_infinite_constants_are_infinite():
    with jax.enable_x64(True):
        # Kinks: the gradient turns over at 0, so |∇f(x) - ∇f(-x)| / 2|x| has no bound.
        for kind in (Ackley, Salomon, Schwefel221, Alpine1):
            x = jnp.array([1e-9, 0.0])
            turn = jax.grad(kind().value)(x) - jax.grad(kind().value)(-x)
            assert float(jnp.linalg.norm(turn)) / 2e-9 > 1e6
            assert kind().smoothness == np.inf
        # Alpine1 at a crest, x = π/2 + 2πk: f'' ≈ -x. Schwefel near 0: -3/(4√x) and +3/(4√x).
        assert eigenvalues(Alpine1(1), [[np.pi / 2 + 2e4 * np.pi]])[0, 0] < -1e4
        for sign in (1, -1):
            curvature = eigenvalues(Schwefel(1), [[sign * 1e-10]])[0, 0]
            assert curvature == pytest.approx(-sign * 0.75e5, rel=1e-3)
        # HappyCat beside its ditch |x|² = n: the wall t^(1/4) bends by -3/16 t^(-7/4) (dt/dx)².
        assert eigenvalues(HappyCat(1), [[1 + 1e-8]])[0, 0] < -1e10


def test_convexity_of_schwefel221_is_exactly_zero():
    a, b = np.random.default_rng(0).normal(size=(2, 100, 3))
    value = jax.vmap(Schwefel221(3).value)
    assert (value((a + b) / 2) <= (value(a) + value(b)) / 2 + 1e-6).all()
    assert Schwefel221(3).strong_convexity == 0  # linear along each axis


def test_schwefels_best_point_beats_the_next_best_by_far_and_the_box_is_needed():
    with jax.enable_x64(True):
        x = jnp.linspace(-500, 500, 100_001)
        values = np.asarray(jax.vmap(lambda x: Schwefel(1).value(x[None]))(x))
        assert x[values.argmin()] == pytest.approx(Schwefel(1).minimiser[0], abs=0.01)
        assert (
            float(Schwefel(1).value(jnp.array([1e4]))) < 0
            or float(Schwefel(1).value(jnp.array([2e3]))) < 0
        )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        *((lambda kind=kind: kind(0), "dimension is 0") for kind in KINDS),
        (lambda: Rastrigin(2, 0.0), "amplitude is 0.0"),
        (lambda: DropWave(2, float("nan")), "frequency is nan"),
        (lambda: HappyCat(2, 0.5), "exponent is 0.5"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()
