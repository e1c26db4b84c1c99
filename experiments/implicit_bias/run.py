"""The whole experiment: what is run, and the numbers that the page shows."""

import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from clipjax.analysis import HardMargin, direction_error, hard_margin_separator
from clipjax.data import DatasetNotPrepared
from clipjax.train import mesh as meshes
from clipjax.train.log import write_json
from experiments.growth_networks.networks import following_rate
from experiments.implicit_bias import robust, sets
from experiments.implicit_bias.methods import METHODS, STOCHASTIC, Method, loss_of
from experiments.implicit_bias.sets import Examples
from experiments.implicit_bias.trajectories import (
    as_learning_rates,
    follow,
    growth,
    log_spaced,
    measure,
)
from experiments.report import implicit_bias as report
from experiments.report.files import publish
from experiments.setup import config_files
from experiments.setup.checked_files import write_npz
from experiments.setup.checks import COUNT, ONE_OR_MORE, SEED, OneOf, Range, check_fields
from experiments.setup.provenance import git_commit, versions

PAIRS = tuple(f"{i}-{j}" for i in range(10) for j in range(i + 1, 10))

Name: TypeAlias = Annotated[str, OneOf(tuple(sets.PLANE))]
MethodName: TypeAlias = Annotated[str, OneOf(tuple(METHODS))]
Pair: TypeAlias = Annotated[str, OneOf(PAIRS)]
File: TypeAlias = Annotated[str, OneOf(sets.LIBSVM)]
Flips: TypeAlias = Annotated[float, Range(0, 0.5, open_high=True)]


@dataclass(frozen=True)
class Config:
    """The experiment."""

    plane: Annotated[tuple[Name, ...], ONE_OR_MORE] = tuple(sets.PLANE)
    """Sets in the plane: points, blobs, stretched."""
    methods: Annotated[tuple[MethodName, ...], ONE_OR_MORE] = tuple(METHODS)
    """Names of methods such as gd, normalized_exponential, clipped_sstm."""
    steps: Annotated[int, Range(10, 10_000_000)] = 100_000
    """Steps of each method on these sets."""
    records: Annotated[int, Range(1, 100)] = 8
    """Records per factor of ten."""
    runs: Annotated[int, Range(1, 10_000)] = 5
    """Runs of methods that draw batches; their medians are shown."""
    batch_size: Annotated[int, COUNT] = 4
    """Examples in a batch, drawn with replacement."""
    turned: Annotated[float, Range(0, 0.5)] = 0.05
    """Share of the 32 points' labels that is turned to make them almost separable."""
    digits: tuple[Pair, ...] = ("0-1", "3-8", "4-9")
    """Pairs of MNIST's digits such as 3-8; only where MNIST is prepared."""
    digit_examples: Annotated[int, Range(2, 70_000)] = 1000
    """Training examples of a pair, the first ones."""
    digit_steps: Annotated[int, Range(10, 10_000_000)] = 10_000
    """Steps of each method on a pair."""
    files: tuple[File, ...] = sets.LIBSVM
    """LIBSVM files for wrong labels; only those in $CLIPJAX_LIBSVM_DIR."""
    flips: Annotated[tuple[Flips, ...], ONE_OR_MORE] = (0.0, 0.1, 0.2, 0.3)
    """Shares of training labels that are turned."""
    asymptotes: Annotated[tuple[Flips, ...], ONE_OR_MORE] = (0.0, 0.05, 0.1, 0.15)
    """Values of c_g = c_f; 0 is logistic regression."""
    repeats: Annotated[int, Range(2, 10_000)] = 50
    """Splits into training and held-out examples."""
    robust_steps: Annotated[int, COUNT] = 1000
    """Steps of descent with asymptotes."""
    seed: Annotated[int, SEED] = 0
    """Of batches, splits and turned labels."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def chosen(self) -> list[Method]:
        """Return the methods, each once."""
        return [METHODS[name] for name in dict.fromkeys(self.methods)]


def quick(config: Config) -> Config:
    """Return the configuration cut to what takes seconds."""
    most = {
        "steps": 1000,
        "runs": 2,
        "digit_examples": 100,
        "digit_steps": 100,
        "repeats": 3,
        "robust_steps": 50,
    }
    cut = {name: min(getattr(config, name), number) for name, number in most.items()}
    return dataclasses.replace(config, plane=config.plane[:1], digits=config.digits[:1], **cut)


def on_set(
    label: str, examples: Examples, methods: Sequence[Method], steps: np.ndarray, config: Config
) -> dict[str, Any]:
    """Return what is known of a separable set and of the methods on it.

    Returns:
        `label`; `margin`, `weights` and `support` of the separator; `reach`, the length of the
        longest example; `steps`; `rows`, for each method its `label`, `rule`, `loss`, `predicted`,
        and `error`, `gap`, `norm`, `growth` at `steps`. `theta`, per method the first run's weights
        (records, n), and the `examples`, are for figures.
    """
    separator = hard_margin_separator(*examples)
    theta = follow(
        methods,
        examples,
        steps,
        seeds=config.runs,
        batch_size=config.batch_size,
        seed=config.seed,
    )
    rows = [
        _row(m, found, examples, separator, steps) for m, found in zip(methods, theta, strict=True)
    ]
    return {
        "label": label,
        "margin": separator.margin,
        "reach": float(np.linalg.norm(examples.x, axis=1).max()),
        "support": separator.support.tolist(),
        "weights": separator.weights.tolist(),
        "steps": steps.tolist(),
        "rows": rows,
        "examples": examples,
        "theta": [found[0] for found in theta],
    }


def units_of_r(examples: Examples, steps: np.ndarray, config: Config) -> list[dict[str, Any]]:
    """Return direction errors for several r with one step size, and with one divided by r².

    L_r(θ) = L_1(rθ), so with step size η/r² the directions are those of r = 1.
    """
    losses = [m for m in (METHODS["gd"], METHODS["gompertz"]) if m in config.chosen]
    fixed = [dataclasses.replace(method, r=r) for method in losses for r in (0.5, 1.0, 2.0)]
    scaled = [dataclasses.replace(method, rate=method.r**-2) for method in fixed]
    theta = follow([*fixed, *scaled], examples, steps, seed=config.seed)
    separator = hard_margin_separator(*examples)
    errors = [float(measure(found, examples, separator)["error"][-1]) for found in theta]
    return [
        {"label": method.label, "fixed": errors[i], "scaled": errors[i + len(fixed)]}
        for i, method in enumerate(fixed)
    ]


def schedule(examples: Examples, steps: int, config: Config) -> dict[str, Any] | None:
    """Return what the schedule of r does, and the same run as a schedule of learning rates.

    Its φ_t = r_{t+1} θ_t has a learning rate ηr_t² ~ η(ln t)²/t and a factor on the weights of
    1 - (1/2 - 1/ln t)/t (see `as_learning_rates`). Where both are slow, φ_t is where they balance:
    next to the minimiser of L_1(φ) + λ_t |φ|²/2, λ_t = (1/2 - 1/ln t)/(η (ln t)²). So |φ_t| grows
    like 2 ln ln t / γ̂ only, and its direction errs by O(1/ln ln t) (DERIVED).

    Returns:
        `follow`, c of r_t; the direction errors by r_t and by learning rates, `error` and
        `rescaled`, that of the same loss with r = 1, `constant`; `apart`, |θ - θ'|/|θ| of the first
        two; `norm`, |φ_t|. None if the schedule was not asked for.
    """
    method = METHODS["gompertz_schedule"]
    if method not in config.chosen:
        return None
    plain = dataclasses.replace(method, follow=0.0)
    theta, constant = (one[0, 0] for one in follow([method, plain], examples, np.array([steps])))
    rescaled = as_learning_rates(method, examples, steps)
    weights = hard_margin_separator(*examples).weights
    errors = direction_error(np.stack([theta, rescaled, constant]), weights).tolist()
    r = method.r * float(following_rate(np.array([steps + 1]), method.follow)[0])
    return {
        "follow": method.follow,
        **dict(zip(("error", "rescaled", "constant"), errors, strict=True)),
        "apart": float(np.linalg.norm(theta - rescaled) / np.linalg.norm(theta)),
        "norm": float(r * np.linalg.norm(theta)),
    }


ALMOST = ("gd", "normalized", "clipped_sgd")
"""Rules that are followed where some labels are wrong."""


def almost_separable(config: Config, steps: np.ndarray) -> dict[str, Any]:
    """Return losses, norms and turns of the direction where some labels are wrong.

    Returns:
        `turned`, how many labels; `rows`: per method the `loss` at the last step, the `norm` there
        and a tenth of the way before, and `turn`, how far the direction went in between.
    """
    clean = sets.points()
    examples = sets.flipped(clean, config.turned, config.seed)
    methods = [m for m in config.chosen if m.r == 1 and m.rule in ALMOST and not m.follow]
    early = int(np.argmin(np.abs(steps - steps[-1] / 10)))
    rows = []
    for method, found in zip(
        methods,
        follow(methods, examples, steps, batch_size=config.batch_size, seed=config.seed),
        strict=True,
    ):
        theta = found[0]
        norms = np.linalg.norm(theta, axis=-1)
        margins = examples.labels * (examples.x @ theta[-1])
        with jax.enable_x64(True):
            loss = loss_of(method.loss, jnp.asarray(margins), method.r, method.c, method.q).mean()
        turn = np.linalg.norm(theta[-1] / norms[-1] - theta[early] / norms[early])
        rows.append(
            {
                "label": method.label,
                "loss": float(loss),
                "norm": float(norms[-1]),
                "early_norm": float(norms[early]),
                "turn": float(turn),
                "wrong": int((margins <= 0).sum()),
            }
        )
    count = int((clean.labels != examples.labels).sum())
    return {"turned": count, "examples": len(clean.labels), "rows": rows}


def scaled_to(method: Method, examples: Examples) -> Method:
    """Return the method with its step size in units of the data, for sets far from unit size.

    1/L of the mean logistic loss, a quarter of it for the exponential one, whose curvature at 0 is
    four times as large; for drawn batches L of the longest example instead; 1/R² for a normalised
    gradient, which is at most as long as the longest example, R; Adam's, clipped-SSTM's level and
    clipped-SGD's in units of R.
    """
    longest = float(np.linalg.norm(examples.x, axis=1).max())
    mean = float(np.linalg.norm(examples.x, 2) ** 2 / len(examples.x))
    if method.rule == "normalized":
        return dataclasses.replace(method, rate=longest**-2)
    if method.rule == "adam":
        return dataclasses.replace(method, rate=method.rate / longest)
    if method.rule == "clipped_sstm":
        return dataclasses.replace(method, level=1 / longest)
    curvature = longest**2 if method.rule in STOCHASTIC else mean
    rate = (1 if method.loss == "exponential" else 4) / curvature
    return dataclasses.replace(method, rate=rate, level=longest / 10)


def on_digits(config: Config, data_dir: Path | None) -> dict[str, Any]:
    """Return what is known of pairs of MNIST's digits, or why nothing is.

    Returns:
        `missing`, why there are none ("" if there are); `pairs`, as `on_set`, or with `inseparable`
        in place of the rows.
    """
    methods = [m for m in config.chosen if m.r == 1 and m.loss != "generalized"]
    steps = log_spaced(config.digit_steps, config.records)
    pairs = []
    for pair in config.digits:
        one, other = map(int, pair.split("-"))
        try:
            examples = sets.digit_pair(one, other, config.digit_examples, data_dir)
        except DatasetNotPrepared as error:
            return {"missing": str(error), "pairs": []}
        label = f"digits {one} and {other}, the first {len(examples.labels):,}"
        chosen = [scaled_to(method, examples) for method in methods]
        try:
            found = on_set(label, examples, chosen, steps, config)
        except ValueError as error:
            if "no plane through 0" not in str(error):
                raise
            found = {"label": label, "inseparable": str(error), "rows": []}
        pairs.append({k: v for k, v in found.items() if k not in ("examples", "theta", "weights")})
    return {"missing": "", "pairs": pairs}


def with_wrong_labels(config: Config) -> dict[str, Any]:
    """Return accuracies with wrong labels, per LIBSVM file that is there.

    Returns:
        `missing`, why files are left out, by name; `files`: per name `mean` and `std` over repeats,
        lists of directions, asymptotes and flips.
    """
    missing, files = {}, {}
    for name in config.files:
        try:
            examples = sets.libsvm(name)
        except FileNotFoundError as error:
            missing[name] = str(error)
            continue
        found = robust.accuracies(
            examples,
            config.flips,
            config.asymptotes,
            repeats=config.repeats,
            steps=config.robust_steps,
            seed=config.seed,
        )
        files[name] = {
            "examples": len(examples.labels),
            "mean": found.mean(axis=-1).tolist(),
            "std": found.std(axis=-1, ddof=1).tolist(),
        }
    return {"missing": missing, "files": files}


def run(config: Config, workdir: Path, data_dir: Path | None = None) -> dict[str, Any]:
    """Run the experiment; write summary.json, weights.npz, the page, its tables and figures.

    Args:
        config: the experiment.
        workdir: where to write; made if missing.
        data_dir: prepared data sets; the user's cache if None.

    Returns:
        What summary.json holds.
    """
    began = time.monotonic()
    steps = log_spaced(config.steps, config.records)
    found = {
        name: on_set(sets.PLANE[name][0], sets.PLANE[name][1](), config.chosen, steps, config)
        for name in dict.fromkeys(config.plane)
    }
    summary: dict[str, Any] = {
        "status": "finished",
        "name": "implicit_bias",
        "units": units_of_r(sets.points(), steps, config),
        "schedule": schedule(sets.points(), config.steps, config),
        "almost": almost_separable(config, steps),
        "digits": on_digits(config, data_dir),
        "robust": with_wrong_labels(config),
        "config": config_files.to_json(config),
        "device": meshes.describe(),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    theta = {name: np.stack(one["theta"]) for name, one in found.items()}
    kept = {
        name: {key: value for key, value in one.items() if key not in ("theta", "examples")}
        for name, one in found.items()
    }
    summary |= {"sets": kept, "wall_time": time.monotonic() - began}
    write_npz(workdir / "weights.npz", theta)
    write_json(workdir / "summary.json", summary)
    publish(lambda: report.make_page(found, summary), workdir)
    print(f"{summary['wall_time']:.0f} s")
    return summary


def _row(
    method: Method, theta: np.ndarray, examples: Examples, separator: HardMargin, steps: np.ndarray
) -> dict[str, Any]:
    measured = {name: value.tolist() for name, value in measure(theta, examples, separator).items()}
    said = {name: getattr(method, name) for name in ("label", "rule", "loss", "predicted")}
    return said | measured | {"growth": growth(method, steps).tolist()}
