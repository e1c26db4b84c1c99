"""The page about a run's gradient noise: histograms, tails, quantiles and Hill's curves."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

import numpy as np
import scipy.stats

from clipjax import analysis
from experiments.high_probability import readable
from experiments.report import page, results, style
from experiments.report.files import write_page
from experiments.report.landscape import Calibration, how_many
from experiments.report.page import Bullets, Cell, Drawing, Picture, Section, Table, Text
from experiments.setup import reading
from experiments.setup.reading import DamagedFile, Number

ARRAYS = {"single examples": "example_noise", "minibatches": "minibatch_noise"}
OF = ("sample", "control")
SAMPLE, CONTROL = "#0072B2", "#D55E00"

ROWS = {
    "mean": "mean",
    "std": "standard deviation",
    "maximum": "maximum",
    "skewness": "skewness",
    "excess_kurtosis": "excess kurtosis",
    "rho_mild": "ρ_mR, mild outliers",
    "rho_extreme": "ρ_eR, extreme outliers",
    "block_tail_index": "tail index, blocks (Mohammadi)",
    "median_block_tail_index": "tail index, blocks, median",
    "hill_tail_index": "tail index, Hill",
}

CAUTIONS = (
    "The block estimators assume a stable law. For Student's t(3) they say 1.8, for Pareto(2.5) "
    "1.6, for a centred Weibull(0.2) 1.2, though all of these have finite variance.",
    "Hill's estimator assumes a power law beyond its threshold and finds an index everywhere, "
    "about 10 for Gaussian noise and 1.2 for Weibull(0.2); only a level stretch of its curve says "
    "that there is one.",
    "ρ_eR counts one outlier in 100,000 values as 8.5; below a million values it says little.",
    "Norms of Gaussian vectors in few dimensions are themselves skewed (ρ_mR 4.6 in 1, 1.8 in 10, "
    "1.26 in 100 dimensions); the control is Gaussian in the norm.",
)


class Sample(TypedDict):
    """The numbers that tell how heavy a sample's tail is."""

    mean: Number
    std: Number
    maximum: Number
    skewness: Number
    excess_kurtosis: Number
    rho_mild: Number
    rho_extreme: Number
    block_tail_index: Number
    median_block_tail_index: Number
    hill_tail_index: Number


class Noise(TypedDict):
    """Those of the noise norms, and of the Gaussian control."""

    values: int
    sample: Sample
    control: Sample


class NoiseSummary(TypedDict):
    """noise.json."""

    name: str
    step: int
    examples: int
    examples_asked: int
    calibration: Calibration
    mean_gradient_norm: Number
    noise: dict[str, Noise]
    seed: int


def array_of(title: str) -> str:
    """Return the name of the array that a part of noise.json is about.

    Examples:
        >>> array_of("minibatches of 32")
        'minibatch_noise'
    """
    return ARRAYS.get(title.split(" of ")[0], title)


def write_noise(workdir: Path) -> Path:
    """Write noise.md, noise.html and figures/noise_*.png from noise.json and noise.npz.

    Returns:
        The path of noise.html.

    Raises:
        FileNotFoundError, ValueError: if a file is missing or damaged; both name it.
    """
    again = f"run python -m experiments.noise --workdir {workdir} again"
    path = workdir / "noise.json"
    summary = reading.read_json(path, NoiseSummary, missing=f"; {again}", cure=again)
    if unknown := sorted({array_of(title) for title in summary["noise"]} - set(ARRAYS.values())):
        raise DamagedFile(f"{path} is damaged: noise has no part {unknown[0]!r}; {again}")
    needed = [array_of(title) for title in summary["noise"]]
    arrays = results.read_arrays(workdir / "noise.npz", needed, cure=again)
    with style.style():
        made = make_page(summary, arrays)
    return write_page(made, workdir, "noise")


def make_page(summary: NoiseSummary, arrays: Mapping[str, np.ndarray]) -> page.Page:
    """Return the page, its figures drawn."""
    sections = []
    for title, found in summary["noise"].items():
        name = array_of(title)
        sample = arrays[name]
        pictures = (
            Picture(
                f"noise_{name.removesuffix('_noise')}",
                pictures_of(sample, summary["seed"]),
                f"Noise norms of {title} (blue) beside a Gaussian sample of the same mean and "
                "standard deviation (orange): density, share of values that reach s, quantiles "
                "against normal ones, Hill's estimate against the number of values it uses.",
            ),
        )
        rows = tuple(
            (Cell(label), *(Cell(readable(results.number(found[of][k]))) for of in OF))
            for k, label in ROWS.items()
        )
        table = Table(
            title, ("", "noise norms", "Gaussian control"), rows, f"{found['values']:,} values."
        )
        sections.append(Section(title.capitalize(), (*pictures, table)))
    said = "Compare with the control."
    if calibration := summary["calibration"]["batches"]:
        said += (
            " BatchNorm's statistics are frozen at those of the query point, measured from "
            f"{calibration:,} training batches of {summary['calibration']['batch_size']:,}."
        )
    cautions = Section("How to read it", (Text(said), Bullets(CAUTIONS)))
    norm = readable(results.number(summary["mean_gradient_norm"]))
    lead = (
        f"Norms of the gradient noise at step {summary['step']:,}, over {how_many(summary)}; "
        f"the mean gradient's norm is {norm}."
    )
    return page.Page(f"Gradient noise of {summary['name']}", lead, (*sections, cautions))


def pictures_of(sample: np.ndarray, seed: int) -> Drawing:
    """Draw density, survival, normal quantiles and Hill's curve of a sample and its control."""
    control = analysis.gaussian_control(sample, seed)
    figure, ((first, second), (third, fourth)) = style.panels(2, 2, height=2.8)
    edges = np.histogram_bin_edges(sample, bins=min(60, max(10, len(sample) // 15)))
    first.hist(sample, edges, density=True, color=SAMPLE, alpha=0.7)
    grid = np.linspace(edges[0], edges[-1], 300)
    density = scipy.stats.norm.pdf(grid, sample.mean(), sample.std())
    first.plot(grid, density, color=CONTROL)
    lowest = 0.5 / (len(sample) * (edges[1] - edges[0]))  # half the density of one value in a bin
    first.set(yscale="log", title="density", xlabel="noise norm", ylim=(lowest, None))
    for values, color in ((control, CONTROL), (sample, SAMPLE)):
        curve = analysis.survival(values)
        kept = curve.x > 0
        second.step(curve.x[kept], curve.y[kept], color=color)
        curve = analysis.normal_quantiles(values)
        third.plot(curve.x, curve.y, ".", color=color, ms=3)
        if np.count_nonzero(values) > 20:
            hill = analysis.hill_curve(values)
            fourth.plot(hill.k, hill.index, color=color)
            fourth.fill_between(hill.k, hill.low, hill.high, color=color, alpha=0.15, linewidth=0)
    second.set(xscale="log", yscale="log", title="share of values of at least s", xlabel="s")
    third.axline((0, 0), slope=1, color="#555555", linewidth=0.8, linestyle=":")
    third.set(title="quantiles, in standard deviations", xlabel="of a normal law")
    fourth.set(xscale="log", yscale="log", title="Hill's tail index", xlabel="largest values used")
    return style.drawing(figure)
