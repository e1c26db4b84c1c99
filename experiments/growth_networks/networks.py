"""One small network with the generalised logistic activation, and one step of SGD on it.

    x -> l(W_1 x + b_1) -> l(W_2 · + b_2) -> softmax form of l,   l(t) = a + (b - a) σ(rt)

with cross-entropy. Everything is a pure function of one network, its `Setting` and its rate r;
`experiments.growth_networks.simulate` makes hundreds of it by `jax.vmap`.

The rate is a step size. The network with rate r and weights θ is the network with rate 1 and
weights φ = rθ, whatever the depth: each layer computes r(Wx + w) = (rW)x + rw. Hence

    θ' = θ - η ∇_θ L_r(θ)   is   φ' = φ - ηr² ∇L_1(φ),   φ_0 = r θ_0

for a constant r, and with a rate r_j that changes from step to step

    φ_{j+1} = (r_{j+1}/r_j) (φ_j - η r_j² ∇L_1(φ_j)):

a learning rate ηr_j² and a factor on the weights, which for a falling r_j is weight decay. So the
re-optimisation of c and r "at every iteration" that the source asks for is a schedule of those two
and nothing else. `following_rate` is that schedule: for a c, the r_j with g_j(c, r_j) = √j exactly.
"""

import itertools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from clipjax.losses import generalized_logistic, growth_rate

Params: TypeAlias = tuple[tuple[jax.Array, jax.Array], ...]
"""Kernel (inputs, outputs) and bias (outputs,) of each layer."""


class Setting(NamedTuple):
    """What sets a network apart, each number an array of the same shape; () for one network."""

    learning_rate: Any
    """η of SGD."""
    lower: Any
    """a, the activation's lower asymptote."""
    upper: Any
    """b, its upper asymptote."""
    scale: Any
    """A factor on the initial weights."""


def initial_params(key: jax.Array, sizes: tuple[int, ...], scale: jax.Array | float = 1) -> Params:
    """Return weights drawn as Keras's Dense draws them (Glorot's uniform), and biases of 0.

    Args:
        key: of the draw.
        sizes: units of each layer, the inputs first.
        scale: a factor on all of them.

    Examples:
        >>> params = initial_params(jax.random.key(0), (784, 10, 10, 10))
        >>> sum(leaf.size for leaf in jax.tree.leaves(params))  # 7,850 + 110 + 110
        8070
    """
    draw = jax.nn.initializers.glorot_uniform()
    dtype = jnp.asarray(scale, float).dtype
    return tuple(
        (scale * draw(jax.random.fold_in(key, i), (n, m), dtype), jnp.zeros(m, dtype))
        for i, (n, m) in enumerate(itertools.pairwise(sizes))
    )


def log_probabilities(
    params: Params, setting: Setting, rate: jax.Array | float, images: jax.Array
) -> jax.Array:
    """Return ln p of each class, p the normalised softmax form of the curve.

        p_j = [a + (b - a) softmax(r z)_j] / (n a + b - a)      for n classes

    Computed from ln softmax, so that it is finite where a = 0 and softmax underflows. For a > 0
    the loss -ln p is bounded below and above: it lies in [ln(S/b), ln(S/a)], S = na + b - a.

    Args:
        params: of the network.
        setting: its asymptotes.
        rate: r.
        images: (batch, inputs).

    Returns:
        (batch, classes).
    """
    lower, span = setting.lower, setting.upper - setting.lower
    *hidden, (kernel, bias) = params
    x = images
    for w, b in hidden:
        x = generalized_logistic(x @ w + b, lower, setting.upper, rate)
    logs = jax.nn.log_softmax(rate * (x @ kernel + bias))
    total = logs.shape[-1] * lower + span
    return jnp.logaddexp(jnp.log(lower), jnp.log(span) + logs) - jnp.log(total)


def losses(
    params: Params,
    setting: Setting,
    rate: jax.Array | float,
    images: jax.Array,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Return the cross-entropy of each example, and whether its class is the most probable one.

    Args:
        params: of the network.
        setting: its asymptotes.
        rate: r.
        images: (batch, inputs).
        labels: (batch,), whole numbers.

    Returns:
        (batch,) and bool (batch,).
    """
    logs = log_probabilities(params, setting, rate, images)
    own = jnp.take_along_axis(logs, labels[:, None], axis=1)[:, 0]
    return -own, jnp.argmax(logs, axis=1) == labels


def sgd_step(
    params: Params,
    setting: Setting,
    rate: jax.Array | float,
    images: jax.Array,
    labels: jax.Array,
) -> Params:
    """Return the weights after one step, θ - η ∇ mean of the losses; arguments as of `losses`."""

    def mean(params: Params) -> jax.Array:
        return losses(params, setting, rate, images, labels)[0].mean()

    gradient = jax.grad(mean)(params)
    return jax.tree.map(lambda p, g: p - setting.learning_rate * g, params, gradient)


def following_rate(iterations: np.ndarray, constant: float) -> np.ndarray:
    """Return the r_j for which the growth g_j(c, r_j) is √j, at each iteration j.

        r_j = (ln j + W_0(c/j)) / √j

    (DERIVED: g_j(c, r) = (ln j + W_0(c/j))/r.) For every c there is such an r, so "the best c and
    r" are not determined by the aim 1/√j; c is chosen once, as in the source's Figure 1. r_j falls
    like ln j/√j, and with it the learning rate ηr_j² like (ln j)²/j.

    Args:
        iterations: j, whole numbers from 1 on.
        constant: c > 0, as the source takes it.

    Examples:
        >>> following_rate(np.array([1, 10, 1000]), 3.0).round(3)
        array([1.05 , 0.803, 0.219])
    """
    with jax.enable_x64(True):
        j = np.asarray(iterations, float)
        return np.asarray(growth_rate(j, constant, 1.0)) / np.sqrt(j)
