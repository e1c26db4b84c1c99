"""Settings of published experiments, from the numbers in their tables."""

import os
from pathlib import Path

from experiments.high_probability.config import Config
from experiments.high_probability.references import REFERENCES

FAILURE_PROBABILITY = 1e-3
"""β in the levels of the 2020 experiments."""


def libsvm_file(name: str) -> str:
    """Return the path of a LIBSVM file in $CLIPJAX_LIBSVM_DIR (default: ./libsvm).

    Raises:
        FileNotFoundError: if it is not there, with where to get it.
    """
    path = Path(os.environ.get("CLIPJAX_LIBSVM_DIR", "libsvm"), name)
    if not path.is_file():
        raise FileNotFoundError(
            f"no {path}; get {name} from https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/ "
            "(binary; heart, diabetes and australian in their unscaled form) and set "
            "CLIPJAX_LIBSVM_DIR to its folder"
        )
    return str(path)


def libsvm_regression(
    name: str,
    *,
    examples: int,
    shift: float,
    batch_size: int,
    rate: float,
    level: float,
    decay: tuple[float, int, float],
    decay_rate: float | None = None,
    epochs: int,
    published_epochs: int,
    sstm_a: float,
    sstm_factor: float,
    replicas: int,
    records: int = 200,
) -> Config:
    """Return a logistic regression of Gorbunov, Danilova and Gasnikov (2020), as its notebook.

    From x* + shift in every coordinate; sampling with replacement, no intercept, no ridge. With
    L and R0 = |x_0 - x*| computed from the data, λ_0 = 2√2 L R0 and B_0 = R0 / ln(4N/β), N the
    published number of steps:

    Args:
        name: of the LIBSVM file; where there are published numbers of it, the report shows them.
        examples: m, to turn epochs into steps.
        shift: of the first point.
        batch_size: examples per gradient.
        rate: step size of SGD and clipped-SGD times L.
        level: clipped-SGD's level divided by λ_0.
        decay: d-clipped-SGD's first level divided by λ_0, the epochs after which it falls, and the
            factor by which.
        decay_rate: step size of d-clipped-SGD times L; `rate` by default.
        epochs: data passes here.
        published_epochs: data passes in the notebook.
        sstm_a: a of SSTM and clipped-SSTM.
        sstm_factor: clipped-SSTM's B divided by B_0.
        replicas: independent runs.
        records: how often the gap is measured.
    """
    published_steps = published_epochs * examples // batch_size
    top = f"2 * 2 ** 0.5 * L * R0 * {level!r}"
    first, every, factor = decay
    falling = (
        f"optax.exponential_decay(2 * 2 ** 0.5 * L * R0 * {first!r}, "
        f"{every * examples / batch_size!r}, {factor!r}, staircase=True)"
    )
    longest = f"{sstm_factor!r} * R0 / math.log({4 * published_steps / FAILURE_PROBABILITY!r})"
    slow = rate if decay_rate is None else decay_rate
    return Config(
        problem=f"logistic_regression({libsvm_file(name)!r})",
        start=shift,
        start_from="minimiser",
        noises=(f"minibatch({batch_size})",),
        steps=epochs * examples // batch_size,
        replicas=replicas,
        records=records,
        spacing="linear",
        precision="float64",
        methods=(
            f"sgd = optax.sgd({rate!r} / L)",
            f"clipped_sgd = clipjax.clipped_sgd({rate!r} / L, {top})",
            f"d_clipped_sgd = clipjax.clipped_sgd({slow!r} / L, {falling})",
            f"sstm = clipjax.clipped_sstm({1 / sstm_a!r}, L, None)",
            f"clipped_sstm = clipjax.clipped_sstm({1 / sstm_a!r}, L, {longest})",
        ),
        levels=(0.5, 0.9),
        reference=name if name in REFERENCES else "",
    )
