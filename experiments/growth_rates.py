"""Where the rates 1/g_t(c, r) of the generalised logistic loss meet 1/√t, 1/t and 1/ln t.

    python -m experiments.growth_rates --workdir runs/growth_rates

Table 1 and Figure 1 of Kulikovskikh, Computer Optics 44(2), 2020, with every root: the curves are
scanned, where a solver started at one point finds one root. Each number that the paper prints is
set beside the roots. One of the ten, 4.714, is none (4.714e-05 is). The paper takes c > 0; the
curve itself has c < 0 (`growth_constant`), and its rates get a table and a row of the figure, too.
In a few seconds, without random numbers:

- report.html, report.md: the tables (also CSV and LaTeX), the figure and what follows from them;
- figures/growth_rates.png and .pdf;
- summary.json: the same as numbers.
"""

import functools
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import jax
import numpy as np
import scipy.optimize
import tyro

from clipjax.losses import growth_exponent, growth_rate
from clipjax.train.log import write_json
from experiments.report import growth_rates as report
from experiments.report.files import publish
from experiments.setup import config_files, pace
from experiments.setup.checks import ONE_OR_MORE, Range, Such, check_fields
from experiments.setup.cli import Command, explain, parse, start_jax, working_in
from experiments.setup.provenance import git_commit, versions

TARGETS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "√t": np.sqrt,
    "t": lambda t: t,
    "ln t": np.log,
}
"""What 1/g_t is compared with is one over these."""

PRINTED: dict[tuple[float, float, str], float | None] = {
    (1, 1, "√t"): None,
    (1, 1, "t"): None,
    (3, 1, "√t"): 2.074,
    (3, 1, "t"): 1.094,
    (10, 1, "√t"): 7.054,
    (10, 1, "t"): 2.025,
    (1, 0.5, "√t"): 0.841,
    (1, 0.5, "t"): 2.298,
    (3, 0.5, "√t"): 0.087,
    (3, 0.5, "t"): 3.551,
    (10, 0.5, "√t"): 4.714,
    (10, 0.5, "t"): 4.903,
    **{(c, r, "ln t"): None for c in (1, 3, 10) for r in (1, 0.5)},
}
"""The paper's Table 1 by (c, r, target); None for a dash. Of ln t the text says: no crossing."""

CLOSE = 1e-3
"""How far a printed number may be from the root that it stands for: a unit of its last digit."""

Constant: TypeAlias = Annotated[
    float, Such("from 0.01 to 100, or as much below 0", lambda c: 0.01 <= abs(c) <= 100)
]
Rate: TypeAlias = Annotated[float, Range(0.01, 100)]
FEW = Such("(at most 12)", lambda entries: len(entries) <= 12)


@dataclass(frozen=True)
class Config:
    """The experiment."""

    constants: Annotated[tuple[Constant, ...], ONE_OR_MORE, FEW] = (1, 3, 10, -1, -3, -10)
    """Constants c, of either sign: the paper's are positive, the curve's negative."""
    rates: Annotated[tuple[Rate, ...], ONE_OR_MORE, FEW] = (1, 0.5)
    """Rates r."""
    scan: Annotated[int, Range(100, 2**24)] = 20_001
    """Points, evenly spaced in ln t, between which a change of sign is a root."""
    resolution: Annotated[int, Range(2, 2**20)] = 1001
    """Points per drawn curve."""

    def __post_init__(self) -> None:
        check_fields(self)


def domain(c: float, r: float, target: str) -> tuple[float, float]:
    """Return the least and the largest t at which g_t(c, r) can equal the target.

    - From below: e|c| for c < 0, where g_t begins. For c > 0, g_t < 0 below e^{-c}. ln t counts
      from t = 1 on, where it is positive.
    - From above: g_t <= (ln t + max(c, 0)/t)/r, since W_0(x) <= x. √t and t grow faster than
      ln t/r once t^p > 1/(pr). For ln t the equation is (r - 1) ln t = c t^{-r}, whose left side is
      0 for r = 1 (no root) and in the end the larger one in size for r ≠ 1; beyond t = 2^20, for r
      next to 1, nothing is looked for.
    """
    low = math.e * -c if c < 0 else math.exp(-c)
    high = 2.0 * max(1.0, low)
    if target == "ln t":
        low = max(low, 1.0)
        while abs(r - 1) * math.log(high) <= abs(c) * high**-r and high < 1e6:
            high *= 2
        return low, high
    power = 0.5 if target == "√t" else 1.0
    while high**power * r <= max(1 / power, math.log(high) + max(c, 0.0) / high):
        high *= 2
    return low, high


def roots(c: float, r: float, target: str, scan: int) -> list[float]:
    """Return every t with g_t(c, r) = target(t) between which the scan sees a change of sign.

    Args:
        c: the constant.
        r: the rate.
        target: a key of `TARGETS`.
        scan: how many points it has.
    """
    fn = TARGETS[target]

    def gap(t: Any) -> Any:
        return np.asarray(_rate()(t, c, r)) - fn(np.asarray(t))

    with jax.enable_x64(True):
        t = np.geomspace(*domain(c, r, target), scan)
        signs = np.sign(gap(t))
        changes = np.flatnonzero(signs[1:] * signs[:-1] < 0)
        return [_root(lambda x: float(gap(x)), t[i], t[i + 1]) for i in changes]


def compare(c: float, r: float, target: str, scan: int) -> dict[str, Any]:
    """Return the roots of one curve and target, and what the paper prints.

    Returns:
        c, r, target, `roots`; `residual`, the largest |f(target(t); c, r) - ln t| at them; whether
        the paper has this entry (`published`), its number (`printed`, None for a dash), the root
        nearest to it if within 0.001 (`matched`), and g_t - target(t) at the number (`gap`).
    """
    found = roots(c, r, target, scan)
    printed = PRINTED.get((c, r, target))
    matched, gap = None, None
    with jax.enable_x64(True):
        values = TARGETS[target](np.array(found))
        left = np.asarray(growth_exponent(values, c, r)) - np.log(found) if found else np.zeros(1)
        if printed is not None:
            gap = float(growth_rate(printed, c, r) - TARGETS[target](np.array(printed)))
            near = [root for root in found if abs(root - printed) < CLOSE]
            matched = near[0] if near else None
    return {
        "c": c,
        "r": r,
        "target": target,
        "roots": found,
        "residual": float(np.abs(left).max()),
        "published": (c, r, target) in PRINTED,
        "printed": printed,
        "matched": matched,
        "gap": gap,
    }


def curves(config: Config) -> Iterator[tuple[float, float, np.ndarray, np.ndarray]]:
    """Yield c, r, t and 1/g_t, NaN where g_t is not positive or has no value."""
    t = np.geomspace(report.FIRST, report.LAST, config.resolution)
    with jax.enable_x64(True):
        for c in config.constants:
            for r in config.rates:
                g = np.asarray(_rate()(t, c, r))
                yield c, r, t, 1 / np.where(g > 0, g, np.nan)


def run(config: Config, workdir: Path) -> dict[str, Any]:
    """Run the experiment; write summary.json, the page, its tables and the figure; print the page.

    Args:
        config: the experiment.
        workdir: where to write; made if missing.

    Returns:
        What summary.json holds.
    """
    rows = [
        compare(c, r, target, config.scan)
        for c in config.constants
        for r in config.rates
        for target in TARGETS
    ]
    numbers = [row for row in rows if row["printed"] is not None]
    summary = {
        "status": "finished",
        "name": "growth_rates",
        "rows": rows,
        "printed": len(numbers),
        "printed_roots": sum(row["matched"] is not None for row in numbers),
        "config": config_files.to_json(config),
        "versions": versions(),
        "git_commit": git_commit(),
    }
    write_json(workdir / "summary.json", summary)
    publish(lambda: report.make_page(rows, list(curves(config))), workdir)
    return summary


def _root(fn: Callable[[float], float], low: float, high: float) -> float:
    root: Any = scipy.optimize.brentq(fn, low, high, xtol=1e-18)  # some are 5e-5: to their digits
    return float(root)


@functools.cache
def _rate() -> Callable[..., jax.Array]:
    return jax.jit(growth_rate)  # without its check: the scan begins where the domain does


@dataclass(frozen=True)
class GrowthRatesCommand(Command):
    """Find where the rates of the generalised logistic loss meet 1/√t, 1/t and 1/ln t."""

    config: Annotated[Config, tyro.conf.arg(name="")] = Config()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment from the command line."""
    command = parse(GrowthRatesCommand, arguments)
    start_jax(command)
    with working_in(command.workdir), pace.aloud("growth rates"):
        run(command.config, command.workdir)
    return 0


if __name__ == "__main__":
    sys.exit(explain(main))
