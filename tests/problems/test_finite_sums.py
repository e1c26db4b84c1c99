from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse

from clipjax.data import read_libsvm
from clipjax.problems import Function, LogisticRegression, Minibatch, PowerRegression
from clipjax.problems.finite_sums import newton

LIBSVM = Path(__file__).parents[2].parent / "shared" / "data" / "libsvm"


def data(rows=40, columns=5, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(rows, columns)) * (rng.random((rows, columns)) < 0.6)
    return features, rng.choice([-1, 1], rows), rng.normal(size=rows)


FEATURES, LABELS, TARGETS = data()
PROBLEMS = {
    "logistic": lambda features: LogisticRegression(features, LABELS),
    "ridge": lambda features: LogisticRegression(features, LABELS, ridge=0.1),
    "power": lambda features: PowerRegression(features, TARGETS, exponent=0.6),
    "least squares": lambda features: PowerRegression(features, TARGETS, exponent=1.0),
}


def written_out(name, x):
    margin = FEATURES @ x
    if name in ("logistic", "ridge"):
        ridge = 0.1 if name == "ridge" else 0.0
        return np.mean(np.log1p(np.exp(-LABELS * margin))) + ridge / 2 * x @ x
    return np.mean(np.abs(margin - TARGETS) ** (1.6 if name == "power" else 2.0))


@pytest.mark.parametrize("name", PROBLEMS)
def test_dense_and_sparse_are_the_function_written_out(name):
    x = np.random.default_rng(1).normal(size=5)
    with jax.enable_x64(True):
        dense = PROBLEMS[name](FEATURES)
        sparse = PROBLEMS[name](scipy.sparse.csr_array(FEATURES))
        for problem in (dense, sparse):
            np.testing.assert_allclose(
                problem.value(jnp.array(x)), written_out(name, x), rtol=1e-12
            )
        gradients = [jax.grad(problem.value)(jnp.array(x)) for problem in (dense, sparse)]
    np.testing.assert_allclose(*gradients, rtol=1e-10)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_point_that_is_not_finite_has_no_finite_value(name, sparse):
    """A run that went to NaN would be counted as one below the minimum: its loss would be 0."""
    problem = PROBLEMS[name](scipy.sparse.csr_array(FEATURES) if sparse else FEATURES)
    for bad in (np.nan, np.inf, -np.inf):
        x = jnp.zeros(5).at[2].set(bad)
        for value in (problem.value, lambda x: problem.value_on(x, jnp.arange(40))):
            found, gradient = jax.value_and_grad(value)(x)
            assert not np.isfinite(found)
            assert np.isnan(gradient[2]) or not np.isnan(bad)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", PROBLEMS)
def test_constants_are_computed_from_the_data(name, sparse):
    problem = PROBLEMS[name](scipy.sparse.csr_array(FEATURES) if sparse else FEATURES)
    found = scipy.optimize.minimize(lambda x: written_out(name, x), np.zeros(5), tol=1e-12)
    assert problem.minimum == pytest.approx(found.fun, abs=1e-9)
    assert problem.minimum <= found.fun + 1e-12
    np.testing.assert_allclose(problem.minimiser, found.x, atol=2e-4)
    with jax.enable_x64(True):
        gradient = jax.grad(problem.value)(jnp.array(problem.minimiser))
        assert float(jnp.linalg.norm(gradient)) < 1e-6
        # Over many points no Hessian is steeper than L or flatter than μ.
        points = jax.random.normal(jax.random.key(0), (200, 5)) * 3
        hessians = jax.jit(jax.vmap(jax.hessian(problem.value)))(points)
    curvatures = np.linalg.eigvalsh(np.asarray(hessians))
    assert curvatures.max() <= problem.smoothness * (1 + 1e-9)
    assert curvatures.min() >= problem.strong_convexity - 1e-9
    if name == "least squares":
        assert problem.smoothness == pytest.approx(float(curvatures.max()))
        assert problem.strong_convexity == pytest.approx(float(curvatures.min()))
    if name == "logistic":  # the largest curvature is at the origin
        steepest = np.linalg.norm(FEATURES, 2) ** 2 / (4 * len(FEATURES))
        assert problem.smoothness == pytest.approx(steepest)


def test_the_holder_constant_bounds_every_pair_of_gradients():
    problem = PROBLEMS["power"](FEATURES)
    with jax.enable_x64(True):
        x, y = jax.random.normal(jax.random.key(1), (2, 500, 5)) * 2
        near = x + 1e-3 * y
        gradient = jax.vmap(jax.grad(problem.value))
        for other in (y, near, jnp.broadcast_to(jnp.array(problem.minimiser), x.shape)):
            change = jnp.linalg.norm(gradient(x) - gradient(other), axis=1)
            bound = problem.holder_constant * jnp.linalg.norm(x - other, axis=1) ** 0.6
            assert bool(jnp.all(change <= bound * (1 + 1e-9)))
    # One example, two residuals ±r: φ' jumps by 2 (1+ν) r^ν over a distance 2r, which attains it.
    one = PowerRegression(np.ones((1, 1)), np.zeros(1), exponent=0.5)
    slope = abs(float(jax.grad(one.value)(jnp.array([1.0]))[0]))
    assert 2 * slope == pytest.approx(one.holder_constant * 2**0.5)


def test_a_minibatch_is_the_mean_over_its_examples():
    for make in PROBLEMS.values():
        problem = make(FEATURES)
        oracle = Minibatch(problem, 4)
        x = jnp.arange(5.0)
        draw = jnp.array([3, 3, 17, 0])
        single = [jax.grad(problem.value_on)(x, jnp.array([i])) for i in (3, 3, 17, 0)]
        np.testing.assert_allclose(oracle.gradient(x, draw), sum(single) / 4, rtol=1e-4, atol=1e-6)


def test_minibatches_sample_every_example_alike():
    oracle = Minibatch(PROBLEMS["logistic"](FEATURES), 10_000)
    counts = np.bincount(oracle.sample(jax.random.key(0), jnp.float32), minlength=40)
    assert counts.shape == (40,)
    # 250 expected each; 5 standard deviations of a binomial count are 78.
    assert np.abs(counts - 250).max() < 78


def test_minibatch_gradients_are_unbiased():
    problem = PROBLEMS["power"](FEATURES)
    x = jnp.ones(5)
    every = jnp.arange(40)[:, None]
    single = jax.vmap(Minibatch(problem, 1).gradient, (None, 0))(x, every)
    np.testing.assert_allclose(single.mean(0), jax.grad(problem.value)(x), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "shift", "smoothness", "minimum", "gap"),
    [
        # Published or recorded for the very files: L of a9a is 1.572 and of w8a 0.6612.
        ("heart", 0.1, None, 0.34746, 31.6),
        ("diabetes", 0.1, None, 0.60850, 13.8),
        ("australian", 0.1, None, 0.33330, 23.5),
        ("a9a", 1.0, 1.572, 0.32262, 7.73),
    ],
)
def test_the_libsvm_regressions_have_their_recorded_constants(
    name, shift, smoothness, minimum, gap
):
    if not LIBSVM.is_dir():
        pytest.skip(f"no LIBSVM files in {LIBSVM}")
    problem = LogisticRegression(*read_libsvm(LIBSVM / name, sparse=name == "a9a"))
    if smoothness is not None:
        assert problem.smoothness == pytest.approx(smoothness, abs=5e-4)
    assert problem.minimum == pytest.approx(minimum, abs=5e-6)
    with jax.enable_x64(True):
        start = jnp.array(problem.minimiser) + shift
        assert float(problem.value(start)) - problem.minimum == pytest.approx(gap, abs=0.05)


def test_separable_data_have_their_infimum_to_rounding():
    problem = LogisticRegression(np.array([[1.0], [-1.0]]), np.array([1, -1]))
    assert 0 <= problem.minimum < 1e-14
    assert problem.minimiser[0] > 30  # ln(1 + e^-x) < 1e-14


def test_a_function_without_a_minimiser_is_refused():
    # f(x) = -x falls for ever at a steady pace.
    with pytest.raises(ValueError, match="500 Newton steps"):
        newton(lambda x: (-float(x[0]), np.array([-1.0]), np.array([[1.0]])), np.zeros(1))


def test_a_function_of_the_users_own_is_a_problem():
    problem = Function(lambda x: jnp.sum((x - 1) ** 4), (1.0, 1.0, 1.0))
    assert (problem.dimension, problem.minimum, problem.smoothness) == (3, 0.0, np.inf)
    assert float(jax.jit(lambda x: problem.value(x) - problem.minimum)(jnp.zeros(3))) == 3.0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LogisticRegression(FEATURES, LABELS[:3]), r"\(40, 5\) and \(3,\)"),
        (lambda: LogisticRegression(FEATURES, LABELS + 1), "label 0"),
        (lambda: LogisticRegression(FEATURES, LABELS, ridge=-1.0), "ridge is -1.0"),
        (lambda: LogisticRegression(FEATURES * np.nan, LABELS), "finite"),
        (lambda: LogisticRegression(np.zeros((0, 2)), np.zeros(0)), "empty"),
        (lambda: PowerRegression(FEATURES, TARGETS, exponent=0.0), "exponent is 0.0"),
        (lambda: Minibatch(PROBLEMS["power"](FEATURES), 0), "batch_size is 0"),
        (lambda: Function(jnp.sum, ()), "not empty"),
        (lambda: Function(lambda x: x, (0.0,)), r"shape \(1,\)"),
        (lambda: Function(lambda x: jnp.log(x[0]), (-1.0,)), "nan at its minimiser"),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_more_columns_than_a_hessian_can_have_are_refused_with_its_size():
    # 20,000 x 20,000 float64 are 3.2e9 bytes, 2.98 GiB.
    columns = 20_000
    features = scipy.sparse.csr_array(([1.0, 1.0], ([0, 1], [0, columns - 1])), (2, columns))
    problem = LogisticRegression(features, np.array([1, -1]), ridge=0.1)
    with pytest.raises(ValueError, match=r"20,000 x 20,000 numbers takes 3\.0 GiB.*leave columns"):
        _ = problem.minimum
