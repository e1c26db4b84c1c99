"""Logistic regression with asymptotes ("BioGD"), for labels of which some are wrong.

    p_i = c_g + (1 - c_g - c_f) σ(θᵀx_i),      J(θ) = -mean( y_i ln p_i + (1 - y_i) ln(1 - p_i) )

A label is never surer than 1 - c_f or c_g, so a wrong one far from the boundary pulls with bounded
force. The author descends

    biogd   (1 - c_g - c_f) Xᵀ(p - y)/m

which is not the gradient of J: that has the factor σ(1 - σ)/(p(1 - p)) in each term, and wrong
labels pull ever less the farther they are. Of c_g = c_f = 0 both are logistic regression. `biogd`
is the gradient of the convex  (1 - c_g - c_f) mean( c_g u + (1 - c_g - c_f) ln(1 + e^u) - y u ),
u = θᵀx (DERIVED): a linear term that favours large weights.

References:
    Kulikovskikh et al., PLoS ONE 14(7), e0219004, 2019: p, J and the direction VERIFIED in the
    author's notebooks, which minimise by conjugate gradients and choose c_g and c_f from a grid.
    Here steps of 1/L; c_g = c_f as given, and both chosen from the grid of the given values.
"""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments.implicit_bias.sets import Examples

DIRECTIONS = ("biogd", "exact")
"""The author's direction, and the gradient of J."""


def direction(
    theta: jax.Array, x: jax.Array, y: jax.Array, asymptotes: jax.Array, exact: jax.Array
) -> jax.Array:
    """Return what is descended.

    Args:
        theta: θ, (n,).
        x: (m, n).
        y: (m,), 0 or 1.
        asymptotes: c_g and c_f, each in [0, 1/2).
        exact: the gradient of J if true, the author's direction if not.
    """
    lower, upper = asymptotes
    span = 1 - lower - upper
    sigma = jax.nn.sigmoid(x @ theta)
    p = lower + span * sigma
    slope, spread = sigma * (1 - sigma), p * (1 - p)
    # Where one asymptote is 0 it is 0/0 for margins so large that σ is rounded to it; it goes to
    # 1/(1 - the other one) there.
    factor = jnp.where(spread > 0, slope / jnp.where(spread > 0, spread, 1), 1 / span)
    factor = jnp.where(exact & (lower + upper > 0), factor, 1.0)
    return span * x.T @ (factor * (p - y)) / len(y)


def accuracies(
    examples: Examples,
    flips: Sequence[float],
    asymptotes: Sequence[float],
    *,
    repeats: int,
    steps: int,
    seed: int = 0,
) -> np.ndarray:
    """Return the accuracy on held-out examples with right labels.

    In each repeat a fifth of the examples is held out, the columns are standardised by the others
    and a column of ones is added; a share of the others' labels is turned, the same for all. From
    θ = 0, with step size 1/L, L = σ_max(X)²/(4m). Predictions are made without asymptotes.

    A last column has c_g and c_f chosen, for each repeat, share and direction: of all pairs of the
    given values the one that predicts most labels, right or wrong, of a fifth of the training
    examples when it is fitted to the others; of equals the first. It is fitted to all of them then.

    Args:
        examples: m of them.
        flips: shares of training labels that are turned.
        asymptotes: values of c_g and of c_f.
        repeats: independent splits.
        steps: of descent.
        seed: of the splits and flips.

    Returns:
        (directions, asymptotes + 1, flips, repeats), in the order of `DIRECTIONS`: c_g = c_f = each
        value, then both chosen.
    """
    splits = [_split(examples, flips, np.random.default_rng([seed, i])) for i in range(repeats)]
    x, labels, held_out, truth = (np.stack(part) for part in zip(*splits, strict=True))
    pairs = list(itertools.product(asymptotes, asymptotes))
    inner = x.shape[1] // 5
    tuned = _fit(x[:, inner:], labels[..., inner:], pairs, steps)
    kept = _accuracy(tuned, x[:, :inner], np.moveaxis(labels[..., :inner], 1, 0))
    fitted = _accuracy(_fit(x, labels, pairs, steps), held_out, truth)
    best = kept.argmax(axis=1, keepdims=True)
    given = [pairs.index((c, c)) for c in asymptotes]
    return np.concatenate([fitted[:, given], np.take_along_axis(fitted, best, axis=1)], axis=1)


def _fit(
    x: np.ndarray, labels: np.ndarray, pairs: Sequence[tuple[float, float]], steps: int
) -> np.ndarray:
    """Return the weights of every direction, pair, share and repeat.

    Args:
        x: (repeats, m, n).
        labels: (repeats, flips, m), each -1 or +1.
        pairs: c_g and c_f.
        steps: of descent.

    Returns:
        (directions, pairs, flips, repeats, n).
    """
    smoothness = np.linalg.norm(x, 2, axis=(1, 2)) ** 2 / (4 * x.shape[1])

    def fit(x: jax.Array, y: jax.Array, rate: jax.Array, c: jax.Array, exact: jax.Array):
        def step(_: int, theta: jax.Array) -> jax.Array:
            return theta - rate * direction(theta, x, y, c, exact)

        return jax.lax.fori_loop(0, steps, step, jnp.zeros(x.shape[1]))

    over_repeats = jax.vmap(fit, (0, 0, 0, None, None))
    over_flips = jax.vmap(over_repeats, (None, 1, None, None, None))
    over_pairs = jax.vmap(over_flips, (None, None, None, 0, None))
    over_directions = jax.vmap(over_pairs, (None, None, None, None, 0))
    with jax.enable_x64(True):
        return np.asarray(
            jax.jit(over_directions)(
                x, (labels + 1) / 2, 1 / smoothness, jnp.asarray(pairs), jnp.array([False, True])
            )
        )


def _accuracy(theta: np.ndarray, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the share of labels that weights (..., repeats, n) predict.

    Args:
        theta: (directions, pairs, flips, repeats, n).
        x: (repeats, m, n).
        labels: (repeats, m) or (flips, repeats, m).
    """
    margins = np.einsum("dcfrn,rmn->dcfrm", theta, x)
    return np.mean(np.where(margins > 0, 1, -1) == labels, axis=-1)


def _split(
    examples: Examples, flips: Sequence[float], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training rows, their labels (flips, m), held-out rows and their labels."""
    count = len(examples.labels)
    order = rng.permutation(count)
    test, train = order[: count // 5], order[count // 5 :]
    x, mean = examples.x, examples.x[train].mean(axis=0)
    scale = examples.x[train].std(axis=0)
    x = (x - mean) / np.where(scale > 0, scale, 1)
    x = np.hstack([x, np.ones((count, 1))])
    turned = np.argsort(rng.permutation(len(train)))  # the turned ones of more flips include these
    signs = np.stack([np.where(turned < round(f * len(train)), -1, 1) for f in flips])
    return x[train], signs * examples.labels[train], x[test], examples.labels[test]
