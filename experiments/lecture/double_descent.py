"""Double descent: the test error rises up to the width that fits every example, then falls again.

Polynomials, as in the lecture: y = sin 4.5x + noise of 0.25 at 50 points of [−1, 1], Chebyshev
polynomials of degree D, the least-squares solution of smallest norm. The lecture's points come from
NumPy's seed 8; other seeds show how much is chance.

Random features, as in Belkin, Hsu, Ma and Mandal (2019): f(x) = aᵀrelu(Wx) with random W, and a by
least squares (again of smallest norm) on pictures of digits with one-hot labels, of which a share
is replaced by random ones. Gradient descent on the same features from a = 0 reaches that solution
in the end; stopped earlier, where pictures of their own say so, it has no peak.

All solutions come from one singular value decomposition per matrix, in float64. After t steps of
size η gradient descent has turned each 1/s of the pseudo-inverse into (1 − (1 − ηs²)^t)/s.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.polynomial.chebyshev import chebvander

from clipjax import data as datasets
from experiments.lecture.experiment import Arrays, Claim, Experiment
from experiments.lecture.intervals import above, below, interval
from experiments.report.lecture import double_descent as report
from experiments.setup.checks import COUNT, ONE_OR_MORE, POSITIVE, SEED, OneOf, Range, check_fields

Width = Annotated[int, Range(1, 100_000)]


@dataclass(frozen=True)
class Config:
    """The experiment."""

    points: Annotated[int, Range(5, 1000)] = 50
    """Training points of the polynomials."""
    noise: Annotated[float, POSITIVE] = 0.25
    """Standard deviation of their noise."""
    largest_degree: Annotated[int, Range(5, 10_000)] = 100
    """Degrees from 0 to this."""
    data_seed: Annotated[int, SEED] = 8
    """Of the lecture's noise."""
    noise_draws: Annotated[int, Range(10, 100_000)] = 500
    """Other draws of the noise."""
    dataset: Annotated[str, OneOf(("digits", "mnist", "fashion_mnist"))] = "mnist"
    """Pictures for the random features."""
    examples: Annotated[int, Range(20, 20_000)] = 500
    """Training pictures; as many again say when to stop."""
    widths: Annotated[tuple[Width, ...], ONE_OR_MORE] = (
        10, 20, 50, 100, 200, 300, 400, 450, 480, 500, 520, 550, 600, 700, 1000, 2000, 4000, 8000,
    )  # fmt: skip
    """Numbers of random features."""
    label_noise: Annotated[float, Range(0, 1, open_low=True)] = 0.2
    """Share of training labels that are replaced, beside none."""
    steps: Annotated[tuple[Annotated[int, COUNT], ...], ONE_OR_MORE] = tuple(
        int(10 ** (i / 4)) for i in range(29)
    )
    """Steps of gradient descent among which the best is chosen."""
    runs: Annotated[int, Range(2, 1000)] = 5
    """Draws of pictures, labels and features."""
    seed: Annotated[int, SEED] = 0
    """Of everything but the lecture's noise."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.largest_degree < 2 * self.points - 1:
            raise ValueError(
                f"Config.largest_degree is {self.largest_degree}; the second descent of "
                f"{self.points} points needs {2 * self.points - 1} at least"
            )
        if not min(self.widths) < self.examples < max(self.widths):
            raise ValueError(
                f"Config.widths are from {min(self.widths)} to {max(self.widths)}; expected "
                f"widths below and above the {self.examples} examples"
            )


QUICK = Config(
    points=20,
    largest_degree=60,
    noise_draws=100,
    dataset="digits",
    examples=60,
    widths=(10, 30, 50, 60, 70, 100, 300, 1000),
    runs=8,
)
TEST_POINTS = 100
LEVELS = ("clean", "noisy")
"""Training labels: all true, and a share of them replaced."""


def polynomials(config: Config) -> dict[str, np.ndarray]:
    """Return what polynomials of each degree come to.

    Returns:
        Over the degrees: `condition`, of the matrix of the polynomials at the points (largest by
        least singular value above rounding); `lecture_error` and `lecture_norm`, the mean squared
        test error with the lecture's noise and the norm of the coefficients; `errors` and `norms`
        (draws, degrees) with other noise. `x`, `y`, `test_x`, and `fits` (degrees, test points).
    """
    x = np.linspace(-1, 1, config.points)
    test_x = np.linspace(-1, 1, TEST_POINTS)
    truth, test_truth = np.sin(4.5 * x), np.sin(4.5 * test_x)
    # The lecture's np.random.seed(8) is this generator.
    noise = np.random.RandomState(config.data_seed).normal(0, config.noise, config.points)
    rng = np.random.default_rng([config.seed, 0])
    others = rng.normal(0, config.noise, (config.noise_draws, config.points))
    heights = truth + np.concatenate([noise[None], others])
    condition, errors, norms, fits = [], [], [], []
    for degree in range(config.largest_degree + 1):
        matrix, test_matrix = chebvander(x, degree), chebvander(test_x, degree)
        coefficients = np.linalg.pinv(matrix) @ heights.T
        found = test_matrix @ coefficients
        errors.append(((found - test_truth[:, None]) ** 2).mean(0))
        norms.append(np.linalg.norm(coefficients, axis=0))
        fits.append(found[:, 0])
        singular = np.linalg.svd(matrix, compute_uv=False)
        kept = singular[singular > 1e-15 * singular[0]]
        condition.append(kept[0] / kept[-1])
    errors, norms = np.array(errors).T, np.array(norms).T
    return {
        "x": x,
        "y": heights[0],
        "test_x": test_x,
        "fits": np.array(fits),
        "condition": np.array(condition),
        "lecture_error": errors[0],
        "lecture_norm": norms[0],
        "errors": errors[1:],
        "norms": norms[1:],
    }


def random_features(config: Config, data_dir: Path | None) -> dict[str, np.ndarray]:
    """Return what least squares on random features comes to.

    Returns:
        (levels, runs, widths) arrays: `feature_loss` and `feature_error`, the squared error (sum
        over classes) and the share of wrong pictures on the test set; `feature_norm`, of the
        solution; `stopped_loss` and `stopped_error`, of gradient descent that was stopped.

    Raises:
        DatasetNotPrepared: with the line that prepares it.
    """
    train = datasets.load(config.dataset, "train", data_dir)
    test = datasets.load(config.dataset, "test", data_dir).in_memory()
    pool = train.in_memory()
    if 2 * config.examples > len(pool["label"]):
        raise ValueError(
            f"Config.examples is {config.examples}; {config.dataset} has {len(pool['label'])} "
            "training pictures, of which twice as many are needed"
        )
    classes = train.num_classes
    names = ("feature_loss", "feature_error", "feature_norm", "stopped_loss", "stopped_error")
    found = {name: np.empty((2, config.runs, len(config.widths))) for name in names}
    for run in range(config.runs):
        rng = np.random.default_rng([config.seed, 1, run])
        chosen = rng.permutation(len(pool["label"]))[: 2 * config.examples]
        images = np.concatenate([_rows(pool["image"][chosen]), _rows(test["image"])])
        labels = np.concatenate([pool["label"][chosen], test["label"]])
        n = config.examples
        noisy = labels.copy()
        wrong = rng.random(n) < config.label_noise
        noisy[:n][wrong] = rng.integers(0, classes, int(wrong.sum()))
        for j, width in enumerate(config.widths):
            weights = rng.normal(size=(images.shape[1], width)) / images.shape[1] ** 0.5
            features = np.maximum(images @ weights, 0)
            parts = np.split(features, [n, 2 * n])
            for level, said in enumerate((labels, noisy)):
                answers = [np.eye(classes)[said[:n]], np.eye(classes)[labels[n : 2 * n]]]
                values = _least_squares(parts, answers, labels[2 * n :], config.steps)
                for name, value in zip(names, values, strict=True):
                    found[name][level, run, j] = value
    return found


def _rows(images: np.ndarray) -> np.ndarray:
    """Return pictures as rows of length 1."""
    rows = images.reshape(len(images), -1).astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _least_squares(
    features: list[np.ndarray],
    answers: list[np.ndarray],
    test_labels: np.ndarray,
    steps: tuple[int, ...],
) -> tuple[float, ...]:
    """Return loss, error and norm of the smallest solution; loss and error stopped early.

    Args:
        features: of the training, validation and test pictures.
        answers: one-hot, of the training and validation pictures.
        test_labels: the true ones.
        steps: among which the least validation loss is looked for.
    """
    left, singular, right = np.linalg.svd(features[0], full_matrices=False)
    kept = singular > 1e-12 * singular[0]
    left, singular, right = left[:, kept], singular[kept], right[kept]
    target = left.T @ answers[0]
    validation, test = features[1] @ right.T, features[2] @ right.T
    truth = np.eye(answers[0].shape[1])[test_labels]

    def scores(shrunk: np.ndarray) -> tuple[float, float]:
        said = test @ (shrunk[:, None] * target)
        wrong = float((said.argmax(1) != test_labels).mean())
        return float(((said - truth) ** 2).sum(1).mean()), wrong

    full = 1 / singular
    # 1 - (1 - x)^t without cancellation, where steps of 1/s_max² keep x = ηs² in (0, 1].
    with np.errstate(divide="ignore"):
        log = np.log1p(-((singular / singular[0]) ** 2))
    stopped = [-np.expm1(t * log) / singular for t in steps]
    losses = [
        ((validation @ (one[:, None] * target) - answers[1]) ** 2).sum(1).mean() for one in stopped
    ]
    best = stopped[int(np.argmin(losses))]
    return (*scores(full), float(np.linalg.norm(full[:, None] * target)), *scores(best))


def compute(config: Config, data_dir: Path | None = None) -> dict[str, np.ndarray]:
    """Return the results of `polynomials` and `random_features`."""
    return polynomials(config) | random_features(config, data_dir)


PRINTED = {0: 0.482, 3: 0.0745, 5: 0.0033, 10: 0.018, 20: 0.057, 80: 0.13, 100: 0.125}
"""Test errors of the lecture's settings by degree. Between, up to 60, they depend on rounding."""


def judge(config: Config, found: Arrays) -> list[Claim]:
    """Return what is claimed of double descent, and whether it holds."""
    errors, n = found["errors"], config.points
    claims = []
    if (config.points, config.data_seed, config.noise) == (50, 8, 0.25):
        said = {degree: float(found["lecture_error"][degree]) for degree in PRINTED}
        claims.append(
            Claim(
                "The lecture's test errors come out, from degree 0 to 20 and from 80 on.",
                ", ".join(f"D = {degree}: {value:.4g}" for degree, value in said.items()),
                all(abs(said[d] / value - 1) < 0.02 for d, value in PRINTED.items()),
            )
        )
    first, peak, last = _quantiles(errors[:, 1 : n // 2].min(1)), errors[:, n - 1], errors[:, -1]
    claims += [
        Claim(
            f"Where the polynomial first passes through all {n} points, the error is largest.",
            f"at D = {n - 1} {_quantiles(peak)}, least of D < {n // 2}: {first}, at "
            f"D = {errors.shape[1] - 1}: {_quantiles(last)} (median, 5 to 95 % of the draws)",
            _share(peak > 100 * np.maximum(last, errors[:, : n // 2].min(1))) >= 0.95,
        ),
        Claim(
            "Beyond it the error falls again, here not below the least of small degrees.",
            f"below 1 % of the peak in {_share(last < peak / 100):.0%} of the draws; below the "
            f"least of small degrees in {_share(last < errors[:, 1 : n // 2].min(1)):.0%}",
            _share(last < peak / 100) >= 0.95,
        ),
        Claim(
            "The norm of the solution does the same, and so does the condition number.",
            f"norm at D = {n - 1}: {_quantiles(found['norms'][:, n - 1])}, at the last degree "
            f"{_quantiles(found['norms'][:, -1])}; condition {found['condition'][n - 1]:.3g} and "
            f"{found['condition'][-1]:.3g}",
            bool(
                _share(found["norms"][:, n - 1] > 10 * found["norms"][:, -1]) >= 0.95
                and found["condition"][n - 1] > 10 * found["condition"][-1]
            ),
        ),
    ]
    return claims + _judge_features(config, found)


def _judge_features(config: Config, found: Arrays) -> list[Claim]:
    widths = np.array(config.widths)
    loss = found["feature_loss"]
    threshold = int(np.argmin(np.abs(widths - config.examples)))
    mean = loss.mean(1)
    tops = widths[mean.argmax(1)]
    noisy, clean = loss[1], loss[0]
    narrow = widths < config.examples
    best_below = found["feature_error"][0][:, narrow].min(1)
    largest = found["feature_error"][0][:, -1]
    gain = best_below - largest
    grown = np.log(noisy[:, threshold] / clean[:, threshold])
    stopped = found["stopped_loss"][1]
    flat = stopped[:, threshold] / noisy[:, threshold]
    return [
        Claim(
            "With random features the test loss is largest where there are as many as examples.",
            f"largest mean loss at {tops[0]} (true labels) and {tops[1]} (noisy) features, "
            f"{config.examples} examples",
            bool(np.all(np.abs(np.log(tops / config.examples)) <= np.log(1.2))),
        ),
        Claim(
            "The widest network makes fewer errors than the best that cannot fit all examples.",
            f"{widths[-1]} features: {_percent(largest)} wrong; best below {config.examples}: "
            f"{_percent(best_below)}; gain {interval(100 * gain)} points",
            above(gain, 0),
        ),
        Claim(
            "Label noise makes the peak higher.",
            f"loss at {widths[threshold]} features with {config.label_noise:.0%} of the labels "
            f"replaced over that without, its logarithm: {interval(grown)}",
            above(grown, 0),
        ),
        Claim(
            "Gradient descent that is stopped early has no peak.",
            f"noisy labels, {widths[threshold]} features: loss {interval(flat)} of that of the "
            f"exact solution; its largest mean loss over all widths is at "
            f"{widths[stopped.mean(0).argmax()]} features",
            bool(below(flat, 0.5) and widths[stopped.mean(0).argmax()] < 0.8 * config.examples),
        ),
    ]


def _share(holds: np.ndarray) -> float:
    return float(np.mean(holds))


def _quantiles(values: np.ndarray) -> str:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _percent(values: np.ndarray) -> str:
    return f"{100 * np.mean(values):.1f} %"


EXPERIMENT = Experiment(
    name="double_descent",
    title="Double descent",
    line="Test errors over the degree of polynomials and over the number of random features.",
    seconds=100,
    config=Config(),
    quick=QUICK,
    compute=compute,
    judge=judge,
    draw=lambda config, found: report.parts(config.points, config.widths, config.examples, found),
)
