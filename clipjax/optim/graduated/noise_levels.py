r"""How strongly a stochastic method smooths the objective: the noise level δ, and its inverses.

One step of SGD on f is, in expectation, one step of gradient descent on f smoothed by noise of size

.. math::

   \delta = \frac{\eta C}{\sqrt b},

with the learning rate η, the batch size b and C² the variance of a single example's gradient
(Sato, Iiduka, 2024). Graduated optimisation lets δ fall: by a smaller η, a larger b, or less
momentum. For the momentum methods

    SHB (heavy ball, `optax.sgd` with momentum):  m ← βm + g,          x ← x − ηm
    NSHB (normalised, m an average):              m ← βm + (1 − β)g,   x ← x − ηm

the published formulas contradict one another, so each is offered by its name. All have the form
δ² = η² (a C²/b + k K²), with K a bound of ‖g‖ and factors a, k that depend on β alone:

| kind            | a          | k   | where it is from                                     |
|-----------------|------------|-----|------------------------------------------------------|
| sgd             | 1          | 0   | the paper's formula for SGD (verified)               |
| shb_2024        | 1 + β̂      | β̂   | the authors' code of 2024 and of AAAI-25 (verified)  |
| nshb_2024       | 1 + 4β²    | 4β² | the authors' code of 2024 (verified)                 |
| nshb_aaai25     | 1/(1 − β)  | 0   | momentum schedule of the AAAI-25 code (verified)     |
| shb_stationary  | 1/(1 − β)  | 0   | stationary variance over that of SGD at η (derived)  |
| nshb_stationary | 1          | 0   | the same for NSHB (derived)                          |
| shb_effective   | 1/(1 − β)² | 0   | SGD of rate η/(1 − β), which SHB follows (derived)   |

with β̂ = β(β² − β + 1)/(1 − β)². At β = 0 all of them are the formula for SGD.

**Which holds when.** NSHB at η *is* SHB at η(1 − β), step by step, so a true formula gives both the
same δ. The published ones do not: at β = 0.9 they multiply η²C²/b by 4.24 (nshb_2024), by 10
(nshb_aaai25) and, through SHB, by 0.829. The 2024 forms are upper bounds that come out of a proof;
use them to reproduce those experiments. What momentum does can be computed on a quadratic of
curvature h: the stationary variance of x is ηC²/(2hb) for SGD, ηC²/(2hb(1 − β)) for SHB and that of
SGD for NSHB, all for ηh ≪ 1. The "stationary" forms put the ratio of these variances, at equal η,
into δ²; but the variance grows like η and δ² like η², so they, too, tell NSHB from SHB at η(1 − β).
"shb_effective" (with "nshb_stationary" for NSHB) instead asks which SGD has the same variance, and
is the only form here that both ways of writing the method agree on. At a *constant* β the forms
with k = 0 differ by a constant factor only, and none of this matters for a schedule of relative
levels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from clipjax.optim._checks import check_choice, check_interval, check_positive, is_concrete


def _beta_hat(momentum: Any) -> Any:
    return momentum * (momentum**2 - momentum + 1) / (1 - momentum) ** 2


FACTORS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "sgd": lambda beta: (1.0, 0.0),
    "shb_2024": lambda beta: (1 + _beta_hat(beta), _beta_hat(beta)),
    "nshb_2024": lambda beta: (1 + 4 * beta**2, 4 * beta**2),
    "nshb_aaai25": lambda beta: (1 / (1 - beta), 0.0),
    "shb_stationary": lambda beta: (1 / (1 - beta), 0.0),
    "nshb_stationary": lambda beta: (1.0, 0.0),
    "shb_effective": lambda beta: (1 / (1 - beta) ** 2, 0.0),
}
"""The factors a and k of δ² = η² (a C²/b + k K²), by kind, as functions of the momentum β."""

BOUNDED = ("shb_2024", "nshb_2024")
"""The kinds whose formula contains the bound K of the gradient."""

WITHOUT_MOMENTUM = ("sgd", "nshb_stationary")
"""The kinds whose formula does not contain the momentum β."""


def check_noise_arguments(
    kind: str, momentum: Any, gradient_bound: Any, *, momentum_given: bool = True
) -> None:
    """Refuse an unknown kind, a momentum outside [0, 1), and a bound that is missing or unused."""
    check_choice("kind", kind, FACTORS)
    check_interval("momentum", momentum, 0, 1, closed_high=False, arrays=True)
    if momentum_given and kind == "sgd" and is_concrete(momentum) and np.any(momentum != 0):
        raise ValueError(
            f"kind='sgd' has no momentum, got momentum={momentum}. Choose the form for it by name: "
            f"{', '.join(repr(name) for name in FACTORS if name != 'sgd')}."
        )
    if kind in BOUNDED:
        if gradient_bound is None:
            raise ValueError(
                f"kind={kind!r} needs gradient_bound, the bound K of the gradients' norm."
            )
        check_positive("gradient_bound", gradient_bound, finite=True, arrays=True)
    elif gradient_bound is not None:
        raise ValueError(
            f"gradient_bound={gradient_bound} has no place in the formula of kind={kind!r}; it is "
            f"for {' and '.join(map(repr, BOUNDED))}."
        )


def variance_factor(
    kind: str, momentum: Any, batch_size: Any, gradient_std: Any, gradient_bound: Any
) -> Any:
    """Return δ²/η² = a C²/b + k K².

    Examples:
        >>> variance_factor("nshb_2024", 0.5, 4, 2.0, 3.0)  # a = 2, k = 1: 2 · 4/4 + 9
        11.0
    """
    a, k = FACTORS[kind](momentum)
    bound = 0.0 if gradient_bound is None else gradient_bound
    return a * gradient_std**2 / batch_size + k * bound**2


def noise_level(
    learning_rate: Any,
    batch_size: Any,
    gradient_std: Any,
    *,
    momentum: Any = 0.0,
    gradient_bound: Any = None,
    kind: str = "sgd",
) -> Any:
    r"""Return the noise level δ by which a stochastic method smooths its objective.

    .. math::

       \delta = \eta \sqrt{a(\beta) \frac{C^2}{b} + k(\beta) K^2}
       \qquad\text{(for SGD: } \delta = \eta C / \sqrt b \text{)}

    with a and k by kind: the table of this module, `clipjax.optim.graduated.noise_levels`, which
    also says which form holds when. The kinds contradict one another: compare levels of one kind
    only.

    Args:
        learning_rate: η > 0. Each argument is a number or an array, concrete or traced; arrays
            broadcast.
        batch_size: b > 0, examples in the batch of one step.
        gradient_std: C > 0, with C² = E‖∇f_i − ∇f‖² the variance of one example's gradient
            (measured by `measure_gradient_variance` or `per_example_variance`). The authors' code
            calls C² "C".
        momentum: β in [0, 1).
        gradient_bound: K > 0, a bound of ‖g‖; for "shb_2024" and "nshb_2024" only.
        kind: "sgd"; "shb_2024", "nshb_2024", "nshb_aaai25" (published); "shb_stationary",
            "nshb_stationary", "shb_effective" (derived).

    Returns:
        δ, in the units of the parameters.

    Raises:
        ValueError: for a misspelt kind (with the nearest name), concrete numbers out of range,
            momentum with "sgd", or a bound that is missing or has no place in the formula.

    Examples:
        >>> noise_level(0.1, 100, 20.0)
        0.2
        >>> round(noise_level(0.1, 100, 20.0, momentum=0.9, kind="shb_stationary"), 3)  # √10 times
        0.632

    References:
        Sato, Iiduka, 2024 (https://arxiv.org/abs/2311.08745), δ = η√(C²/b); the momentum forms:
        their code (github.com/naoki-sato3/sigma-nice-momentum, iiduka-researches/igo-aaai25) and
        this module's docstring.
    """
    check_positive("learning_rate", learning_rate, finite=True, arrays=True)
    check_positive("batch_size", batch_size, finite=True, arrays=True)
    check_positive("gradient_std", gradient_std, finite=True, arrays=True)
    check_interval("gradient_std", gradient_std, 0, 1e100, arrays=True)
    check_noise_arguments(kind, momentum, gradient_bound)
    squared = variance_factor(kind, momentum, batch_size, gradient_std, gradient_bound)
    return learning_rate * squared**0.5


def solve_learning_rate(
    noise: Any,
    batch_size: Any,
    gradient_std: Any,
    *,
    momentum: Any = 0.0,
    gradient_bound: Any = None,
    kind: str = "sgd",
) -> Any:
    """Return the learning rate at which `noise_level` is `noise`.

    Args:
        noise: δ > 0, the wanted level.
        batch_size: b > 0.
        gradient_std: C > 0.
        momentum: β in [0, 1).
        gradient_bound: K > 0, as for `noise_level`.
        kind: as for `noise_level`.

    Returns:
        η = δ / √(a C²/b + k K²).

    Raises:
        ValueError: as `noise_level`.

    Examples:
        >>> solve_learning_rate(0.2, 100, 20.0)
        0.1
    """
    check_positive("noise", noise, finite=True, arrays=True)
    check_positive("batch_size", batch_size, finite=True, arrays=True)
    check_positive("gradient_std", gradient_std, finite=True, arrays=True)
    check_interval("gradient_std", gradient_std, 0, 1e100, arrays=True)
    check_noise_arguments(kind, momentum, gradient_bound)
    return noise / variance_factor(kind, momentum, batch_size, gradient_std, gradient_bound) ** 0.5


def solve_batch_size(
    noise: Any,
    learning_rate: Any,
    gradient_std: Any,
    *,
    momentum: Any = 0.0,
    gradient_bound: Any = None,
    kind: str = "sgd",
) -> Any:
    """Return the batch size, not rounded, at which `noise_level` is `noise`.

    Args:
        noise: δ > 0, the wanted level.
        learning_rate: η > 0.
        gradient_std: C > 0.
        momentum: β in [0, 1).
        gradient_bound: K > 0, as for `noise_level`.
        kind: as for `noise_level`.

    Returns:
        b = a C² / (δ²/η² − k K²).

    Raises:
        ValueError: as `noise_level`; and if no batch is large enough, because the bound's part
            η√k K, on which the batch has no influence, already exceeds a concrete `noise`.

    Examples:
        >>> round(solve_batch_size(0.2, 0.1, 20.0))
        100
        >>> solve_batch_size(
        ...     0.1, 0.1, 20.0, momentum=0.5, gradient_bound=2.0, kind="nshb_2024"
        ... )
        Traceback (most recent call last):
            ...
        ValueError: No batch size gives the noise 0.1: with learning_rate=0.1 and momentum=0.5 \
kind='nshb_2024' stays above 0.2. Lower the learning rate or the momentum.
    """
    check_positive("noise", noise, finite=True, arrays=True)
    check_positive("learning_rate", learning_rate, finite=True, arrays=True)
    check_positive("gradient_std", gradient_std, finite=True, arrays=True)
    check_interval("gradient_std", gradient_std, 0, 1e100, arrays=True)
    check_noise_arguments(kind, momentum, gradient_bound)
    a, _ = FACTORS[kind](momentum)
    floor = variance_factor(kind, momentum, 1, 0.0, gradient_bound)  # k K²
    left = (noise / learning_rate) ** 2 - floor
    if is_concrete(left) and np.any(np.asarray(left) <= 0):
        raise ValueError(
            f"No batch size gives the noise {noise}: with learning_rate={learning_rate} and "
            f"momentum={momentum} kind={kind!r} stays above {learning_rate * floor**0.5:.6g}. "
            "Lower the learning rate or the momentum."
        )
    return a * gradient_std**2 / left


def solve_momentum(
    noise: float,
    learning_rate: float,
    batch_size: float,
    gradient_std: float,
    *,
    gradient_bound: float | None = None,
    kind: str,
) -> float:
    r"""Return the one momentum β in [0, 1) at which `noise_level` is `noise`.

    For "shb_2024" it is the root in [0, 1) of

    .. math::

       \beta^3 - (1 + u)\beta^2 + (1 + 2u)\beta - u = 0, \qquad
       u = \frac{\delta^2/\eta^2 - C^2/b}{C^2/b + K^2},

    unique because β̂ rises from 0 at β = 0 to infinity at β = 1; the other kinds have closed forms.

    Args:
        noise: δ > 0, the wanted level; all arguments are concrete numbers.
        learning_rate: η > 0.
        batch_size: b > 0.
        gradient_std: C > 0.
        gradient_bound: K > 0, as for `noise_level`.
        kind: as for `noise_level`; one in which the momentum appears.

    Returns:
        β.

    Raises:
        ValueError: as `noise_level`; if `noise` is below what momentum 0 gives; if it is above all
            that momentum below 1 gives ("nshb_2024"); or if the kind does not contain momentum.

    Examples:
        >>> size = {"batch_size": 128, "gradient_std": 25.318**0.5, "gradient_bound": 1.77}
        >>> delta = noise_level(0.1, **size, momentum=0.9, kind="shb_2024")
        >>> round(solve_momentum(0.5 * delta, 0.1, **size, kind="shb_2024"), 4)
        0.8158
    """
    check_choice("kind", kind, FACTORS)
    if kind in WITHOUT_MOMENTUM:
        choices = ", ".join(repr(name) for name in FACTORS if name not in WITHOUT_MOMENTUM)
        raise ValueError(f"kind={kind!r} does not contain momentum; choose one of {choices}.")
    numbers = {
        "noise": noise,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "gradient_std": gradient_std,
    }
    for name, number in numbers.items():
        check_positive(name, number, finite=True)
    check_interval("gradient_std", gradient_std, 0, 1e100)
    check_noise_arguments(kind, 0.0, gradient_bound)
    variance = gradient_std**2 / batch_size
    ratio = (noise / learning_rate) ** 2 / variance  # δ² over that of momentum 0
    if ratio < 1 - 1e-12:
        raise ValueError(
            f"No momentum gives the noise {noise}: momentum 0 already gives "
            f"{learning_rate * variance**0.5:.6g}, with learning_rate={learning_rate}, "
            f"gradient_std={gradient_std} and batch_size={batch_size}. Lower the learning rate or "
            "enlarge the batch."
        )
    excess = max(ratio - 1, 0.0)
    if kind in ("nshb_aaai25", "shb_stationary"):
        return excess / (1 + excess)  # 1 − 1/ratio
    if kind == "shb_effective":
        return 1 - (1 + excess) ** -0.5
    bound = 0.0 if gradient_bound is None else gradient_bound
    u = excess * variance / (variance + bound**2)
    if kind == "shb_2024":
        return heavy_ball_root(u)
    if u >= 4:
        most = learning_rate * (5 * variance + 4 * bound**2) ** 0.5
        raise ValueError(
            f"No momentum below 1 gives the noise {noise}: kind='nshb_2024' stays below "
            f"{most:.6g}. Raise the learning rate."
        )
    return u**0.5 / 2


def heavy_ball_root(u: float) -> float:
    """Return β in [0, 1) with β(β² − β + 1)/(1 − β)² = u, for u >= 0.

    With r = 1 − β the equation is h(r) = r³ + (u − 2)r² + 2r − 1 = 0. h(0) = −1, h(1) = u, and the
    root between is the only one: bisection halves the bracket until no float lies inside. It works
    on β for β < 1/2 and on r above, so that each is found to full relative precision.

    Examples:
        >>> round(heavy_ball_root(81.9), 12)
        0.9
        >>> heavy_ball_root(0.0)
        0.0
    """
    if u == 0:
        return 0.0
    if _beta_hat(0.5) > u:
        return _bisect(lambda beta: _beta_hat(beta) < u, 0.0, 0.5)
    rest = _bisect(lambda r: r**3 + (u - 2) * r**2 + 2 * r - 1 < 0, 0.0, 0.5)
    return min(1 - rest, float(np.nextafter(1.0, 0.0)))


def _bisect(below: Callable[[float], bool], low: float, high: float) -> float:
    """Return where `below` turns from true to false between `low` and `high`."""
    while True:
        middle = (low + high) / 2
        if not low < middle < high:
            return middle
        low, high = (middle, high) if below(middle) else (low, middle)
