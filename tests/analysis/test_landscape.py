import jax
import jax.numpy as jnp
import numpy as np
import pytest

from clipjax.analysis.landscape import line, path_length, plane, plane_through, random_direction

PARAMS = {
    "conv": jnp.arange(24.0).reshape(2, 3, 4) - 5,
    "dense": jnp.array([[1.0, 0.0], [2.0, 0.0]]),
    "bias": jnp.array([1.0, -2.0]),
}


def loss(params):
    return jnp.sum(params["conv"] ** 2) + jnp.sum(jnp.sin(params["dense"])) + params["bias"][0]


def test_filters_of_a_random_direction_are_as_long_as_the_points():
    direction = random_direction(PARAMS, jax.random.key(0))
    for name in ("conv", "dense"):
        axes = tuple(range(PARAMS[name].ndim - 1))
        found, wanted = (jnp.sqrt(jnp.sum(x[name] ** 2, axis=axes)) for x in (direction, PARAMS))
        np.testing.assert_allclose(found, wanted, rtol=1e-5)  # a filter of zeros stays where it is
    assert not direction["bias"].any()
    other = random_direction(PARAMS, jax.random.key(1))
    assert not np.allclose(direction["conv"], other["conv"])


def test_directions_may_be_normalised_by_tensor_or_not_at_all():
    tensor = random_direction(PARAMS, jax.random.key(0), normalise="tensor")
    for name, leaf in PARAMS.items():
        np.testing.assert_allclose(jnp.linalg.norm(tensor[name]), jnp.linalg.norm(leaf), rtol=1e-5)
    free = random_direction({"w": jnp.zeros((100, 100))}, jax.random.key(0), normalise="none")
    assert float(free["w"].std()) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_a_plane_is_the_loss_at_its_points_whatever_the_chunk(chunk):
    first, second = (random_direction(PARAMS, jax.random.key(i)) for i in (0, 1))
    alphas, betas = [-1.0, 0.0, 0.5], [0.0, 2.0]
    found = plane(loss, PARAMS, first, second, alphas, betas, chunk=chunk)
    assert found.values.shape == (3, 2)
    for i, a in enumerate(alphas):
        for j, b in enumerate(betas):
            moved = jax.tree.map(lambda x, u, v, a=a, b=b: x + a * u + b * v, PARAMS, first, second)
            assert found.values[i, j] == pytest.approx(float(loss(moved)), rel=1e-5)


def test_a_stacked_loss_is_called_with_full_chunks_outside_of_jit():
    first, second = (random_direction(PARAMS, jax.random.key(i)) for i in (0, 1))
    alphas, betas = [-1.0, 0.0, 0.5], [0.0, 2.0]
    sizes = []

    def many(points):
        sizes.append(len(np.asarray(jax.tree.leaves(points)[0])))  # concrete: no tracer
        return jax.vmap(loss)(points)

    found = plane(many, PARAMS, first, second, alphas, betas, chunk=4, stacked=True)
    assert sizes == [4, 4]  # six points
    whole = plane(loss, PARAMS, first, second, alphas, betas)
    np.testing.assert_allclose(found.values, whole.values, rtol=1e-6)


def test_a_line_is_the_middle_of_its_plane():
    direction = random_direction(PARAMS, jax.random.key(0))
    alphas = np.linspace(-1, 1, 7)
    found = line(loss, PARAMS, direction, alphas, chunk=3)
    whole = plane(loss, PARAMS, direction, PARAMS, alphas, [0.0]).values[:, 0]
    np.testing.assert_allclose(found, whole, rtol=1e-6)


def test_the_plane_through_three_points_holds_them():
    keys = jax.random.split(jax.random.key(0), 3)
    points = [random_direction(PARAMS, key, normalise="tensor") for key in keys]
    found = plane_through(points)
    np.testing.assert_allclose(found.residuals, 0, atol=1e-4)
    flat = [
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(p)])
        for p in (found.first, found.second)
    ]
    np.testing.assert_allclose(np.array(flat) @ np.array(flat).T, np.eye(2), atol=1e-5)
    for point, (a, b) in zip(points, found.coordinates, strict=True):
        rebuilt = jax.tree.map(lambda x, u, v, a=a, b=b: x + a * u + b * v, *found[:3])
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), rebuilt, point)


def test_of_more_points_the_best_plane_is_taken_and_distances_are_told():
    # Four offsets in a plane and one 0.5 above it: principal directions stay within the plane.
    points = [
        jnp.array(p) for p in ([9.0, 0, 0], [0, 4.0, 0], [-9.0, 0, 0], [0, 0, 0.5], [0, 0, 0])
    ]
    found = plane_through(points)
    np.testing.assert_allclose(found.residuals, [0, 0, 0, 0.5, 0], atol=1e-5)


def test_path_length_adds_up():
    assert (
        path_length([{"a": jnp.zeros(2)}, {"a": jnp.array([3.0, 4.0])}, {"a": jnp.zeros(2)}]) == 10
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: random_direction(PARAMS, jax.random.key(0), normalise="filters"), "'filters'"),
        (lambda: plane(loss, PARAMS, PARAMS, PARAMS, [], [0.0]), "shapes"),
        (lambda: plane(loss, PARAMS, PARAMS, PARAMS, [0.0], [0.0], chunk=0), "chunk is 0"),
        (
            lambda: plane(lambda _: 0.0, PARAMS, PARAMS, PARAMS, [0.0], [0.0], stacked=True),
            "shape \\(\\) for 1 points",
        ),
        (
            lambda: line(loss, PARAMS, {"conv": PARAMS["conv"]}, [0.0]),
            "expected those of the point",
        ),
        (lambda: plane_through([PARAMS, PARAMS]), "2 points"),
        (lambda: plane_through([jnp.zeros(3), jnp.ones(3), 2 * jnp.ones(3)]), "on a line"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call()
