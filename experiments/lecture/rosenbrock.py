"""A zoo of methods in Rosenbrock's valley: at one learning rate for all, and at each one's own.

f(w) = (1 − w_1)² + 100 (w_2 − w_1²)², from (0.1, 3), 2,000 steps with exact gradients. The lecture
shows Fromage, AdamW, NAG-GS and Lion with the learning rate 0.003. Here are all of Optax's methods
that need nothing but the gradient, with their default constants, beside those of clipjax. Methods
that need more are left out: the value of f (Polyak's step, MoMo, line searches), the Hessian
(Sophia), a second gradient (SAM).

Each method then gets the rate of a common grid at which its last f is smallest; the grid holds the
common rate, so that nobody loses by it. All rates of a method are one program.

Shampoo and Muon are about matrices, and a vector is none: they get w as a matrix of one column.
Muon's step there is the momentum divided by its length, up to what five Newton-Schulz steps leave;
Shampoo's left moment is full. All is in float64, which gives the reference values to all digits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from clipjax.problems import Rosenbrock
from experiments.lecture.experiment import Arrays, Claim, Experiment
from experiments.lecture.rosenbrock_methods import FAMILIES, METHODS, Method
from experiments.report.lecture import rosenbrock as report
from experiments.setup.checks import COUNT, ONE_OR_MORE, POSITIVE, OneOf, Range, check_fields
from experiments.setup.evaluation import evaluation_point

START = (0.1, 3.0)
NEARBY, CLOSE = 16, 1e-9
"""Runs from other starts, and how far these are from the first: does rounding decide the end?"""
FAR = 1.0
"""A method whose last f is above this, or no number, is called lost."""


Name: TypeAlias = Annotated[str, OneOf(tuple(METHODS))]


@dataclass(frozen=True)
class Config:
    """The experiment."""

    methods: Annotated[tuple[Name, ...], ONE_OR_MORE] = tuple(METHODS)
    """What runs."""
    rate: Annotated[float, POSITIVE] = 0.003
    """The learning rate that all have in common."""
    sgd_rate: Annotated[float, POSITIVE] = 1e-4
    """Another one for SGD, which has a reference value as well."""
    per_decade: Annotated[int, Range(1, 1000)] = 4
    """Rates of the grid in a factor of ten."""
    lower: Annotated[int, Range(0, 10_000)] = 10
    """Rates of the grid below the common one."""
    higher: Annotated[int, Range(0, 10_000)] = 14
    """Likewise, above it."""
    steps: Annotated[int, COUNT] = 2000
    """Of every method."""
    clip_level: Annotated[float, POSITIVE] = 1.0
    """Of the clippings that have a level."""

    def __post_init__(self) -> None:
        check_fields(self)


QUICK = Config(
    methods=(
        "sgd",
        "momentum",
        "lion",
        "fromage",
        "adagrad",
        "adadelta",
        "rmsprop",
        "adam",
        "adamw",
        "clipped_momentum",
        "clipped_sstm",
        "muon",
    ),
    per_decade=2,
    lower=3,
    higher=6,
)

REFERENCES = {
    "fromage": "0.01453",
    "adamw": "0.21864",
    "adam": "0.21911",
    "lion": "0.00421",
    "rmsprop": "0.0173",
    "adagrad": "660.39",
    "adadelta": "847.74",
    "sgd": "0.3039",
}
"""Last f at the rate 0.003 after 2,000 steps, of two computations made apart from this one."""
SGD_REFERENCE = (1e-4, "0.07801")
"""A rate of SGD, and its last f."""


def learning_rates(config: Config) -> np.ndarray:
    """Return the grid, rising; the common rate is at `config.lower`.

    Examples:
        >>> learning_rates(Config(rate=0.003, per_decade=1, lower=1, higher=2)).round(6).tolist()
        [0.0003, 0.003, 0.03, 0.3]
    """
    powers = np.arange(-config.lower, config.higher + 1) / config.per_decade
    return config.rate * 10.0**powers


def follow(
    method: Method,
    rates: Sequence[float] | np.ndarray,
    starts: np.ndarray | None = None,
    *,
    steps: int,
    clip_level: float,
) -> np.ndarray:
    """Return the points where a method would be evaluated, in the dtype of JAX's floats.

    Args:
        method: of the zoo.
        rates: learning rates; all are one program.
        starts: where each of these runs starts, (rates, 2); all at `START` if None.
        steps: of each run.
        clip_level: of the clippings.

    Returns:
        (rates, steps + 1, 2), the start first.
    """
    value = Rosenbrock().value
    gradient = jax.grad(lambda w: value(w.reshape(-1)))
    if starts is None:
        starts = np.tile(START, (len(rates), 1))

    def one(rate: jax.Array, start: jax.Array) -> jax.Array:
        transformation = method.make(rate, clip_level)

        def step(carry: Any, _: None) -> Any:
            w, state = carry
            updates, state = transformation.update(gradient(w), state, w)
            w = optax.apply_updates(w, updates)
            return (w, state), evaluation_point(state, w)

        start = start[:, None] if method.column else start
        path = jax.lax.scan(step, (start, transformation.init(start)), None, length=steps)[1]
        return jnp.concatenate([start[None], path]).reshape(-1, 2)

    return np.asarray(jax.jit(jax.vmap(one))(jnp.asarray(rates), jnp.asarray(starts)))


def heights(paths: np.ndarray) -> np.ndarray:
    """Return f along paths (..., 2), inf where it is no finite number.

    Examples:
        >>> heights(np.array([[1.0, 1.0], [0.0, 1.0], [np.nan, 0.0]])).tolist()
        [0.0, 101.0, inf]
    """
    with np.errstate(all="ignore"):  # runs that diverge
        x, y = paths[..., 0], paths[..., 1]
        f = (1 - x) ** 2 + 100 * (y - x**2) ** 2
    return np.where(np.isfinite(f), f, np.inf)


def gradients(points: np.ndarray) -> np.ndarray:
    """Return ∇f at points (..., 2).

    Examples:
        >>> gradients(np.array([[1.0, 1.0], [0.0, 1.0]])).tolist()
        [[-0.0, 0.0], [-2.0, 200.0]]
    """
    x, y = points[..., 0], points[..., 1]
    wall = 200 * (y - x**2)
    return np.stack([-2 * (1 - x) - 2 * x * wall, wall], axis=-1)


def compute(config: Config, _: Path | None = None) -> dict[str, np.ndarray]:
    """Return the last and the smallest f of every method and rate, and two paths of each method.

    Returns:
        `rates` (rates,); `last`, `smallest` (methods, rates), f after the last step and along the
        path; `path_common`, `path_own` (methods, steps + 1, 2), at the common rate and at the
        method's own; `own` (methods,), the place of the latter among the rates; `nearby` (methods,
        `NEARBY`), the last f at the common rate from starts that are `CLOSE` away; `sgd_last`,
        SGD's last f at `config.sgd_rate`; `hessian` (2, 2) at the minimiser.
    """
    rates = learning_rates(config)
    moves = np.random.default_rng(0).normal(size=(NEARBY, 2))
    moves *= CLOSE / np.linalg.norm(moves, axis=1, keepdims=True)
    starts = START + np.concatenate([np.zeros((len(rates), 2)), moves])
    all_rates = np.concatenate([rates, np.full(NEARBY, config.rate)])
    run: dict[str, Any] = {"steps": config.steps, "clip_level": config.clip_level}
    found: dict[str, list[Any]] = {
        name: [] for name in ("last", "smallest", "path_common", "path_own", "own", "nearby")
    }
    with jax.enable_x64(True):
        for name in config.methods:
            paths = follow(METHODS[name], all_rates, starts, **run)
            f = heights(paths)
            found["nearby"].append(f[len(rates) :, -1])
            f = f[: len(rates)]
            best = int(f[:, -1].argmin())
            found["last"].append(f[:, -1])
            found["smallest"].append(f.min(1))
            found["path_common"].append(paths[config.lower])
            found["path_own"].append(paths[best])
            found["own"].append(best)
        slow = heights(follow(METHODS["sgd"], [config.sgd_rate], **run))[0, -1]
        problem = Rosenbrock()
        hessian = jax.hessian(problem.value)(jnp.asarray(problem.minimiser))
        arrays = {name: np.array(values) for name, values in found.items()}
        return arrays | {
            "rates": rates,
            "sgd_last": np.asarray(slow),
            "hessian": np.asarray(hessian),
        }


def judge(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of the zoo, and whether it holds; of methods that ran only."""
    place = {name: i for i, name in enumerate(config.methods)}
    claims = []
    if config.rate == 0.003 and config.steps == 2000 and place.keys() & REFERENCES.keys():
        claims.append(_references(config, place, found))
    if "lion" in place:
        claims.append(_lion(config, place["lion"], found))
    if "sgd" in place:
        claims.append(_stability(place["sgd"], found))
    if "adagrad" in place:
        claims.append(_adagrad(config, place["adagrad"], found))
    if {"momentum", "clipped_momentum"} <= place.keys():
        claims.append(_clipped(config, place, found))
    if len(place) > 1:
        claims += [_lost(config, found), _ranks(config, found)]
    return claims


def _references(config: Config, place: dict[str, int], found: Arrays) -> Claim:
    """Compare with the references, as exactly as starts that differ by `CLOSE` end alike.

    Twice the range of `NEARBY` such runs is left to chance, beside half a unit of the last digit.
    """
    common = found["last"][:, config.lower]
    triples = [
        (METHODS[name].label, common[place[name]], found["nearby"][place[name]], printed)
        for name, printed in REFERENCES.items()
        if name in place
    ]
    if config.sgd_rate == SGD_REFERENCE[0]:
        slow = found["sgd_last"]
        triples.append((f"SGD at {config.sgd_rate:g}", slow, slow, SGD_REFERENCE[1]))
    said, holds = [], []
    for label, value, nearby, printed in triples:
        digits = len(printed.partition(".")[2])
        half = 0.5 * 10.0**-digits
        spread = float(np.ptp(nearby)) if np.isfinite(nearby).all() else 0.0
        off = float(np.abs(value - float(printed)))
        holds.append(off <= half + 2 * spread)
        rough = f" ({nearby.min():.3g} to {nearby.max():.3g} from starts {CLOSE:g} away)"
        wrong = "" if holds[-1] else f", expected {printed}"
        said.append(f"{label} {value:.{digits}f}{rough if spread > half else ''}{wrong}")
    return Claim(
        "The last values are the reference values to all printed digits, where rounding does not "
        "decide these.",
        ", ".join(said) + " (no randomness)",
        all(holds),
    )


def _lion(config: Config, i: int, found: Arrays) -> Claim:
    last, smallest = (float(found[name][i, config.lower]) for name in ("last", "smallest"))
    return Claim(
        "Lion's steps have the same length everywhere: it comes close to the minimum and does not "
        "stay there.",
        f"f went down to {smallest:.3g} and is {last:.3g} after the last step",
        last > 10 * smallest,
    )


def _stability(i: int, found: Arrays) -> Claim:
    largest = float(np.linalg.eigvalsh(found["hessian"])[-1])
    rates, last = found["rates"], found["last"][i]
    below = rates < 2 / largest
    best, above = last[below], last[~below]
    return Claim(
        "SGD converges only with steps below 2/λ, λ the largest curvature at the minimum: the best "
        "rate of the grid is the largest below.",
        f"2/λ = {2 / largest:.4g}; best rate {rates[last.argmin()]:.4g}; the smallest last f is "
        f"{best.min(initial=np.inf):.3g} below 2/λ and {above.min(initial=np.inf):.3g} above",
        bool(below.any() and last.argmin() == below.sum() - 1),
    )


def _adagrad(config: Config, i: int, found: Arrays) -> Claim:
    """AdaGrad's whole way, Σ η|g_t|/√S_t with S_t = S_0 + Σ_{s≤t} g_s², for any gradients.

    It is at most η √(k Σ g_t²/S_t) by Cauchy and Schwarz, and g_t²/S_t ≤ ln(S_t/S_{t−1}).
    """
    path = found["path_common"][i]
    squares = 0.1 + (gradients(path[:-1]) ** 2).sum(0)  # Optax's S_0 is 0.1
    reach = config.rate * np.sqrt(config.steps * np.log(squares / 0.1))
    moved = np.abs(path - np.array(START)).max(0)
    needed = np.abs(np.array(Rosenbrock().minimiser) - START)
    last = found["last"][i, config.lower]
    return Claim(
        f"AdaGrad at {config.rate:g} is lost because its steps shrink: in k steps no coordinate "
        "moves by more than η√(k ln(S_k/S_0)), S the sum of its squared gradients.",
        f"w_2 moved by {moved[1]:.3g}, bound {reach[1]:.3g}, and the minimum is {needed[1]:g} "
        f"away; last f {last:.4g}",
        bool((moved <= reach).all() and reach[1] < needed[1] and last > FAR),
    )


def _clipped(config: Config, place: dict[str, int], found: Arrays) -> Claim:
    bare, clipped = (
        float(found["last"][place[name], config.lower]) for name in ("momentum", "clipped_momentum")
    )
    return Claim(
        f"SGD with momentum 0.9 diverges at {config.rate:g}; behind a clipping of level "
        f"{config.clip_level:g} it does not.",
        f"last f {bare:.3g} without, {clipped:.3g} with clipping",
        bool(not np.isfinite(bare) and clipped <= FAR),
    )


def _lost(config: Config, found: Arrays) -> Claim:
    common = found["last"][:, config.lower]
    own = found["last"].min(1)
    lost = [METHODS[n].label for n, f in zip(config.methods, common, strict=True) if f > FAR]
    still = [METHODS[n].label for n, f in zip(config.methods, own, strict=True) if f > FAR]
    used = found["rates"][found["own"]]
    return Claim(
        f"No rate suits all methods: at {config.rate:g} some are lost (f above {FAR:g}, or "
        "diverged), at a rate of its own none.",
        f"of {len(common)} methods {len(lost)} are lost at {config.rate:g} "
        f"({', '.join(lost) or 'none'}), {len(still)} at their own "
        f"({', '.join(still) or 'none'}); own rates go from {used.min():.2g} to {used.max():.2g}",
        bool(lost and not still),
    )


def _ranks(config: Config, found: Arrays) -> Claim:
    common, own = found["last"][:, config.lower], found["last"].min(1)
    first, second = np.triu_indices(len(own), 1)
    ranks, then = stats.rankdata(common), stats.rankdata(own)
    swapped = (ranks[first] - ranks[second]) * (then[first] - then[second]) < 0
    best = METHODS[config.methods[int(own.argmin())]].label
    ahead = METHODS[config.methods[int(common.argmin())]].label
    # Methods are what was chosen here: the interval is that over such choices.
    draws = np.random.default_rng(0).integers(0, len(own), (2000, len(own)))
    order = np.zeros((len(own), len(own)))
    order[first, second] = order[second, first] = swapped
    different = draws[:, :, None] != draws[:, None, :]
    shares = (order[draws[:, :, None], draws[:, None, :]] * different).sum((1, 2))
    low, high = np.quantile(shares / different.sum((1, 2)), [0.025, 0.975])
    return Claim(
        "A picture at one learning rate does not tell which method is best: pairs of methods "
        "change places when each has its own rate.",
        f"{swapped.mean():.0%} of the pairs do ({low:.0%} to {high:.0%}, 95 % by bootstrap of the "
        f"methods); ahead at {config.rate:g} is {ahead}, at own rates {best}, which was number "
        f"{ranks[own.argmin()]:.0f} of {len(own)}",
        bool(low > 0.05),
    )


def _draw(config: Config, found: Arrays) -> Any:
    families = {
        title: [name for name in family if name in config.methods]
        for title, family in FAMILIES.items()
    }
    labels = {name: METHODS[name].label for name in config.methods}
    return report.parts(families, labels, config.rate, config.lower, found)


EXPERIMENT = Experiment(
    name="rosenbrock_zoo",
    title="Rosenbrock's valley",
    line="First-order methods at the rate 0.003 and at their own: paths, last values, the lost.",
    seconds=30,
    config=Config(),
    quick=QUICK,
    compute=compute,
    judge=judge,
    draw=_draw,
)
