"""Synthetic data of published experiments."""

import numpy as np

from clipjax import problems


def holder_regression(
    seed: int = 0, examples: int = 5000, dimension: int = 200, exponent: float = 0.75
) -> problems.PowerRegression:
    """Return the regression with heavy-tailed data of Gorbunov et al. (2021), its training half.

    Rows are normal vectors, each times a centred Lévy number below 10,000, in columns of unit
    spread; targets are those of a unit vector, with Lévy noise a thousandth as large added. The
    loss is mean |a·x - b|^(1 + ν).

    Args:
        seed: of the data.
        examples: rows m.
        dimension: columns n.
        exponent: ν.

    Examples:
        >>> problem = holder_regression(examples=500, dimension=3)
        >>> problem.features.shape, bool(problem.minimum < problem.value(np.zeros(3, np.float32)))
        ((500, 3), True)

    References:
        Gorbunov, Danilova, Shibaev, Dvurechensky, Gasnikov, 2021
        (https://arxiv.org/abs/2106.05958), the synthetic experiment of its code.
    """
    rng = np.random.default_rng(seed)
    largest, total = 10_000.0, 2 * examples  # the other half of the rows was for testing
    # A Lévy number of scale c is c over the square of a normal one.
    levy = 0.5 / rng.normal(size=20 * total) ** 2
    levy = levy[levy < largest]
    levy = levy - levy.mean()
    rows = rng.normal(size=(total, dimension)) * levy[:total, None]
    rows = rows / rows.std(axis=0)
    truth = rng.normal(size=dimension)
    truth = truth / np.linalg.norm(truth)
    targets = rows @ truth + levy[total : 2 * total] / largest * 10
    chosen = rng.permutation(total)[:examples]
    return problems.PowerRegression(rows[chosen], targets[chosen], exponent)
