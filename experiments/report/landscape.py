"""The page about the loss around a checkpoint: contours, a line, a plane through runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np
from matplotlib.axes import Axes

from experiments.high_probability import readable
from experiments.report import page, results, style
from experiments.report.files import write_page
from experiments.report.page import Cell, Drawing, Picture, Section, Table, Text
from experiments.setup import reading
from experiments.setup.labels import in_figure
from experiments.setup.reading import DamagedFile, Number


class Calibration(TypedDict):
    """The training batches from which BatchNorm's statistics were measured; none without any."""

    batches: int
    batch_size: int


class LandscapeSummary(TypedDict):
    """landscape.json."""

    name: str
    step: int
    examples: int
    examples_asked: int
    calibration: Calibration
    loss: Number
    reach: float
    distance: NotRequired[float]
    """From the query point to the evaluation point, of methods that average."""
    points: NotRequired[list[str]]
    """Names of the runs that the second plane goes through."""
    losses: NotRequired[list[Number]]
    """At these runs' own evaluation points."""


def write_landscape(workdir: Path) -> Path:
    """Write landscape.md, landscape.html and figures from landscape.json and landscape.npz.

    Returns:
        The path of landscape.html.

    Raises:
        FileNotFoundError, ValueError: if a file is missing or damaged; both name it.
    """
    again = f"run python -m experiments.landscape --workdir {workdir} again"
    path = workdir / "landscape.json"
    summary = reading.read_json(path, LandscapeSummary, missing=f"; {again}", cure=again)
    needed = [f"random/{part}" for part in ("alphas", "betas", "values")]
    needed += ["line/alphas", "line/values"] if "distance" in summary else []
    if len(summary.get("points", ())) != len(summary.get("losses", ())):
        raise DamagedFile(f"{path} is damaged: it does not have a loss for each point; {again}")
    if "points" in summary:
        parts = ("alphas", "betas", "values", "coordinates", "residuals")
        needed += [f"through/{part}" for part in parts]
    arrays = results.read_arrays(workdir / "landscape.npz", needed, cure=again)
    with style.style():
        made = make_page(summary, arrays)
    return write_page(made, workdir, "landscape")


def make_page(summary: LandscapeSummary, arrays: Mapping[str, np.ndarray]) -> page.Page:
    """Return the page, its figures drawn."""
    said = (
        "The plane through the evaluation point along two random directions, each filter's part as "
        f"long as the filter; it reaches {summary['reach']:g} such lengths."
    )
    random = Picture(
        "landscape_random", contours(arrays, "random"), f"{said} Contours of the loss."
    )
    sections = [Section("A random plane", (random,))]
    if "distance" in summary:
        caption = (
            "The loss along the line from the query point (0), where gradients are taken, to the "
            f"evaluation point (1), {readable(summary['distance'])} apart."
        )
        picture = Picture("landscape_line", _line(arrays), caption)
        sections.append(Section("From the query to the evaluation point", (picture,)))
    if "points" in summary and "losses" in summary:
        off_plane = arrays["through/residuals"]
        off = readable(float(off_plane.max()))
        picture = Picture(
            "landscape_through",
            contours(arrays, "through", summary["points"]),
            f"The plane through the evaluation points of {', '.join(summary['points'])}; the "
            f"farthest of them is {off} off the plane. Both axes are Euclidean lengths.",
        )
        sections.append(
            Section(
                "Through several runs",
                (picture, _losses(summary["points"], summary["losses"], off_plane)),
            )
        )
    scale = "Colours are on a scale of logarithms; the largest 2 % of the values share one."
    ends = (Text(scale), *map(Text, _statistics(summary["calibration"])))
    sections.append(Section("How to read it", ends))
    lead = (
        f"The loss of {how_many(summary)} around step {summary['step']:,}; "
        f"at the evaluation point it is {readable(results.number(summary['loss']))}."
    )
    return page.Page(f"The loss around {summary['name']}", lead, tuple(sections))


def how_many(summary: Mapping[str, Any]) -> str:
    """Say how many training examples there were, also where they are fewer than asked for.

    Examples:
        >>> how_many({"examples": 256, "examples_asked": 256})
        '256 training examples'
        >>> how_many({"examples": 9, "examples_asked": 32})
        '9 training examples (all there are; 32 were asked for)'
    """
    said = f"{summary['examples']:,} training examples"
    if summary["examples"] < summary["examples_asked"]:
        said += f" (all there are; {summary['examples_asked']:,} were asked for)"
    return said


def _statistics(calibration: Calibration) -> list[str]:
    """Say where BatchNorm's statistics come from; nothing where the network has none."""
    if not calibration["batches"]:
        return []
    return [
        "BatchNorm's statistics are measured anew at each point, from the first "
        f"{calibration['batches']:,} of the training batches of {calibration['batch_size']:,} that "
        "evaluation takes."
    ]


def _losses(names: Sequence[str], losses: Sequence[Number], off_plane: np.ndarray) -> Table:
    """Return the loss at each run's own evaluation point, and how far it is off the plane."""
    rows = zip(names, losses, off_plane, strict=True)
    return Table(
        "The runs' evaluation points",
        ("run", "loss", "distance from the plane"),
        tuple(
            (Cell(name), Cell(readable(results.number(loss))), Cell(readable(off)))
            for name, loss, off in rows
        ),
    )


def contours(
    arrays: Mapping[str, np.ndarray], name: str, points: Sequence[str] | None = None
) -> Drawing:
    """Draw the contours of a plane, on a scale of logarithms, and the points in it."""
    alphas, betas, values = (arrays[f"{name}/{part}"] for part in ("alphas", "betas", "values"))
    figure, ((axes,),) = style.panels(1, 1, height=5.0)
    smallest = float(np.nanmin(values))
    offset = max(0.0, -smallest) + 1e-3 * (np.nanmedian(values) - smallest) + 1e-12
    shown = np.log10(np.where(np.isfinite(values), values, np.nan) + offset)
    levels = np.linspace(np.nanmin(shown), np.nanquantile(shown, 0.98) + 1e-9, 25)
    filled = axes.contourf(alphas, betas, shown.T, levels, extend="max", cmap="viridis")
    axes.contour(alphas, betas, shown.T, levels[::3], colors="white", linewidths=0.4)
    bar = figure.colorbar(filled, ax=axes, label="loss")
    bar.ax.yaxis.set_major_formatter(lambda x, _: readable(10**x - offset))
    _points(axes, arrays, name, points)
    axes.set(aspect="equal", xlabel="first direction", ylabel="second direction")
    return style.drawing(figure)


def _points(
    axes: Axes, arrays: Mapping[str, np.ndarray], name: str, points: Sequence[str] | None
) -> None:
    if points is None:
        axes.plot([0], [0], "o", color="white", mec="black")
        return
    for label, (x, y) in zip(points, arrays[f"{name}/coordinates"], strict=True):
        axes.plot([x], [y], "o", color="white", mec="black")
        box = {"boxstyle": "round", "fc": "white", "alpha": 0.8, "ec": "none"}
        axes.annotate(in_figure(label), (x, y), (6, 6), textcoords="offset points", bbox=box)


def _line(arrays: Mapping[str, np.ndarray]) -> Drawing:
    figure, ((axes,),) = style.panels(1, 1, height=3.0)
    axes.plot(arrays["line/alphas"], arrays["line/values"], color="#0072B2")
    for where in (0, 1):
        axes.axvline(where, color="#555555", linewidth=0.8, linestyle=":")
    axes.set(yscale="log", xlabel="0 = query point, 1 = evaluation point", ylabel="loss")
    return style.drawing(figure)
