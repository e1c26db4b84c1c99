"""Recorded trajectories of other implementations (tests/golden/README.md), gradients open-loop."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import clipjax
from tests.optim.problems import run

GOLDEN = Path(__file__).parents[1] / "golden"
KINDS = {"norm": "global_norm", "layer_wise": "tensor_norm", "coordinate_wise": "value"}
# The peer's default levels of clipped-SSTM, and how well its coordinate form can agree: it scales
# by level / (|g| + 1e-8), so it is off by up to 1e-8 · α per step.
LEVELS = {"norm": 1.0, "layer_wise": 0.3, "coordinate_wise": 0.1}
TOLERANCE = {"norm": 1e-10, "layer_wise": 1e-10, "coordinate_wise": 1e-7}


def load(name):
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    return arrays, json.loads(str(arrays["hyperparams"]))


def split(x):
    return {"W": jnp.asarray(x[:6]).reshape(3, 2), "b": jnp.asarray(x[6:])}


def join(tree):
    return np.concatenate([np.reshape(tree["W"], (-1, 6)), tree["b"]], axis=1)


def trajectory(tx, x0, grads, evaluate=False):
    _, xs, points = run(tx, split(x0), [split(g) for g in grads], evaluate=evaluate)
    return join(xs), join(points)


@pytest.mark.parametrize("name", ["acc_sstm", "acc_clipped_sstm"])
def test_the_papers_algorithm(name):
    with jax.enable_x64(True):
        data, hyper = load(name)
        tx = clipjax.clipped_sstm(1 / hyper["a"], hyper["L"], hyper.get("B"))
        xs, ys = trajectory(tx, data["x0"], data["grads"], evaluate=True)
    np.testing.assert_allclose(ys, data["y"][1:], rtol=0, atol=1e-10)
    np.testing.assert_allclose(xs[:-1], data["x_query"][1:], rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "name", ["norm_def", "layer_wise_def", "coordinate_wise_def", "norm_nu0.5"]
)
def test_pytorch_clipped_sstm(name):
    """The peer drops its first gradient and does not move in its first step."""
    with jax.enable_x64(True):
        data, hyper = load(f"css_sstm_{name}")
        kind = hyper["clipping_type"]
        tx = clipjax.clipped_sstm(
            hyper["lr"],
            hyper["L"],
            LEVELS[kind],
            clip=KINDS[kind],
            holder_exponent=hyper.get("nu", 1),
            step_offset=1,
        )
        xs, ys = trajectory(tx, data["x0"], data["grads"][1:], evaluate=True)
    np.testing.assert_allclose(data["x"][1], data["x0"], rtol=1e-15)
    np.testing.assert_allclose(xs, data["x"][2:], rtol=0, atol=TOLERANCE[kind])
    np.testing.assert_allclose(ys, data["y"][1:], rtol=0, atol=TOLERANCE[kind])


@pytest.mark.parametrize(
    "name", ["norm_5.0_m0", "layer_wise_3.0_m0", "coordinate_wise_1.0_m0", "layer_wise_3.0_m0.9"]
)
def test_pytorch_clipped_sgd(name):
    with jax.enable_x64(True):
        data, hyper = load(f"css_sgd_{name}")
        kind = hyper["clipping_type"]
        tx = clipjax.clipped_sgd(
            hyper["lr"],
            hyper["clipping_level"],
            clip=KINDS[kind],
            momentum=hyper["momentum"] or None,
            clip_after_momentum=bool(hyper["momentum"]),
        )
        xs, _ = trajectory(tx, data["x0"], data["grads"])
    np.testing.assert_allclose(xs, data["x"][1:], rtol=0, atol=TOLERANCE[kind])
