"""Figures of the clippings for docs/api.md, one each, drawn from what the library does.

The left panel is the clipping as a map: what becomes of one gradient, or of its norm. The right
panel is the clipping at work: 120 gradients of two tensors whose norms sink slowly, with spikes.
"""

import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from PIL import Image

import clipjax
from clipjax.optim.clipping.random import clip_at_random
from experiments.report import style

BEFORE, AFTER, LEVEL = "#8A8A8A", "#0072B2", "#D55E00"
SECOND, THIRD = "#009E73", "#CC79A7"
STEPS = 120
SPIKES = {34: (30.0, 30.0), 52: (9.0, 1.0), 53: (7.0, 1.0), 80: (80.0, 1.0), 104: (4.0, 4.0)}
"""Steps at which the two tensors' norms are multiplied by these factors."""
CALM = f"As a map, after {min(SPIKES)} calm steps"


def spiky_gradients() -> dict[str, np.ndarray]:
    """Return gradients of two tensors w and b, (steps, 2) each, with a few long ones."""
    rng = np.random.default_rng(3)
    gradients = {}
    for position, (name, size) in enumerate({"w": 2.4, "b": 0.8}.items()):
        angle = rng.uniform(0, 2 * np.pi, STEPS)
        norm = size * np.linspace(1.3, 0.7, STEPS) * np.exp(0.22 * rng.normal(size=STEPS))
        for step, factors in SPIKES.items():
            norm[step] *= factors[position]
        gradients[name] = norm[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return jax.tree.map(lambda g: g.astype(np.float32), gradients)


def feed(tx: optax.GradientTransformation, gradients: Any) -> tuple[Any, Any]:
    """Return the clipped gradients of all steps, and the states after them."""

    def step(state: Any, g: Any) -> tuple[Any, Any]:
        clipped, state = tx.update(g, state)
        return state, (clipped, state)

    start = tx.init(jax.tree.map(lambda g: g[0], gradients))
    _, (clipped, states) = jax.lax.scan(step, start, gradients)
    return jax.device_get((clipped, states))


def state_after(tx: optax.GradientTransformation, gradients: Any) -> Any:
    """Return the state after all of the gradients."""
    return jax.tree.map(lambda leaf: leaf[-1], feed(tx, gradients)[1])


# Measures of a sequence of gradients: one number a step, and the words for it.
def _whole(g: Any) -> np.ndarray:
    return np.sqrt(sum(np.sum(np.square(leaf), axis=-1) for leaf in g.values()))


def _first_tensor(g: Any) -> np.ndarray:
    return np.linalg.norm(g["w"], axis=-1)


def _coordinate(g: Any) -> np.ndarray:
    return np.max(np.abs(np.concatenate([g["w"], g["b"]], axis=-1)), axis=-1)


WORDS: dict[Any, str] = {
    _whole: "norm ‖g‖",
    _first_tensor: "norm of the tensor w",
    _coordinate: "largest |coordinate|",
}


def norms_over_steps(
    panel: Axes,
    tx: optax.GradientTransformation,
    measure: Callable[[Any], np.ndarray] = _whole,
    level: Callable[[Any], np.ndarray] | None = lambda states: states.clip.level,
) -> None:
    """Draw the norm before and after the clipping, and the level, of every step."""
    gradients = spiky_gradients()
    clipped, states = feed(tx, gradients)
    steps = np.arange(STEPS)
    panel.plot(steps, measure(gradients), color=BEFORE, linewidth=1.2, label="before")
    if level is not None:
        levels = np.asarray(level(states), float)
        known = np.where(np.isfinite(levels), levels, np.nan)
        panel.plot(steps, known, color=LEVEL, linewidth=1.1, linestyle=(0, (4, 1.5)), label="level")
    panel.plot(steps, measure(clipped), color=AFTER, linewidth=1.7, label="after")
    panel.set(yscale="log", xlabel="step", title=f"At work: {WORDS[measure]}", xlim=(0, STEPS - 1))
    panel.yaxis.set_major_locator(LogLocator(numticks=9))
    panel.yaxis.set_major_formatter(FuncFormatter(style.decimal))
    panel.yaxis.set_minor_formatter(NullFormatter())
    panel.legend(loc="upper left", ncols=3, borderaxespad=0.2)
    low, high = panel.get_ylim()
    panel.set_ylim(low, high * 2.5)  # room for the legend


def one_gradient(panel: Axes, tx: optax.GradientTransformation, ball: str) -> None:
    """Draw the two tensors of one gradient before and after as arrows; the ball is `ball`."""
    gradient = {"w": jnp.array([2.6, 1.5]), "b": jnp.array([-0.55, -0.5])}
    clipped: Any = tx.update(gradient, tx.init(gradient))[0]
    outline: dict[str, Any] = {"fill": False, "edgecolor": LEVEL, "linestyle": (0, (4, 1.5))}
    if ball == "square":
        panel.add_patch(Rectangle((-1, -1), 2, 2, **outline))
    else:
        panel.add_patch(Circle((0, 0), 1, **outline))
    for tree, color, width in ((gradient, BEFORE, 0.006), (clipped, AFTER, 0.011)):
        for end in tree.values():
            panel.quiver(
                0, 0, *np.asarray(end), color=color, width=width,
                angles="xy", scale_units="xy", scale=1, zorder=3,
            )  # fmt: skip
    for name, (x, y) in gradient.items():
        offset = (6, 0) if x > 0 else (6, -6)
        panel.annotate(name, (float(x), float(y)), offset, textcoords="offset points", color=BEFORE)
    panel.set(xlim=(-1.5, 3.1), ylim=(-1.25, 2.05), aspect="equal", title="As a map: one gradient")
    panel.set(xticks=[-1, 0, 1, 2, 3], yticks=[-1, 0, 1, 2])


def transfer(
    panel: Axes,
    curves: Mapping[str, tuple[optax.GradientTransformation, str]],
    *,
    measure: str,
    title: str,
    largest: float = 8.0,
) -> None:
    """Draw the norm after the clipping against the norm before, at the state after calm steps.

    Args:
        panel: where to draw.
        curves: by label a transformation, and the tensor that is made longer and measured; the
            other is zero.
        measure: what is measured, in words.
        title: title of the panel.
        largest: largest norm before.
    """
    calm = {name: g[: min(SPIKES)] for name, g in spiky_gradients().items()}
    before = jnp.linspace(0, largest, 161)
    panel.plot(before, before, color=BEFORE, linewidth=1.0, label="unclipped")
    for (label, (tx, tensor)), color in zip(curves.items(), (AFTER, SECOND, THIRD), strict=False):
        state = state_after(tx, calm)
        unit = {"w": jnp.zeros(2), "b": jnp.zeros(2)}
        unit[tensor] = jnp.array([0.6, 0.8])

        def length(norm: jax.Array, tx=tx, state=state, unit=unit, tensor=tensor) -> jax.Array:
            clipped: Any = tx.update(jax.tree.map(lambda u: norm * u, unit), state)[0]
            return jnp.linalg.norm(clipped[tensor])

        panel.plot(before, jax.vmap(length)(before), color=color, label=label)
    panel.set(xlabel=f"{measure} before", ylabel="after", title=title, xlim=(0, largest))
    panel.set_ylim(0, largest * 0.75)
    panel.legend(loc="upper left", handlelength=1.6, borderaxespad=0.2)


def probabilities(panel: Axes, level: float, base: float) -> None:
    """Draw the share of evenly spread draws that clip, against the norm."""
    draws = (jnp.arange(1000) + 0.5) / 1000
    norms = jnp.linspace(0.01, 8, 200)
    for power, color, word in ((1, AFTER, "linear"), (2, SECOND, "quadratic")):

        def share(norm: jax.Array, power: int = power) -> jax.Array:
            def clipped(uniform: jax.Array) -> jax.Array:
                chance = jnp.asarray(level), jnp.asarray(base)
                return clip_at_random(norm[None], uniform, *chance, power)[2]

            return jnp.mean(jax.vmap(clipped)(draws))

        label = f"power={power} ({word})"
        panel.plot(norms, jax.vmap(share)(norms), color=color, label=label)
    panel.axvline(level, color=LEVEL, linewidth=1.1, linestyle=(0, (4, 1.5)))
    panel.set(xlabel="norm before", ylabel="probability of clipping", title="As a map: how often")
    panel.set(xlim=(0, 8), ylim=(0, 1.02))
    panel.legend(loc="lower right", handlelength=1.6)


def _constant(
    tx: optax.GradientTransformation,
    measure: Callable[[Any], np.ndarray],
    ball: str,
    work: optax.GradientTransformation,
    left: Axes,
    right: Axes,
) -> None:
    one_gradient(left, tx, ball)
    levels = None if work is tx else (lambda states: states.level)  # a normalised one has none
    norms_over_steps(right, work, measure, levels)


def _quantile(left: Axes, right: Axes) -> None:
    curves = {f"quantile {q:g}": (clipjax.clip_by_quantile(q), "w") for q in (0.5, 0.9)}
    transfer(left, curves, measure="norm", title=CALM)
    norms_over_steps(right, clipjax.clip_by_quantile(0.9, 50))


def _zscore(left: Axes, right: Axes) -> None:
    curves = {f'"{mode}"': (clipjax.clip_by_zscore(mode=mode), "w") for mode in
              ("adaptive", "mean", "percentile")}  # fmt: skip
    transfer(left, curves, measure="norm", title=CALM)
    norms_over_steps(right, clipjax.clip_by_zscore())


def _adaptive_norm(left: Axes, right: Axes) -> None:
    tx = clipjax.clip_by_adaptive_norm(1.05, 4.0, decay=0.9, warmup_steps=10)
    curves = {f"tensor {name}": (tx, name) for name in "wb"}
    transfer(left, curves, measure="norm of one tensor", title=CALM)

    def level(states: Any) -> np.ndarray:
        """Return 1.05 γ of w before each step; none in the warm-up, where the whole is clipped."""
        used = 1.05 * np.concatenate([[np.inf], states.average[:-1, 1]])
        return np.where(np.arange(STEPS) < 10, np.inf, used)

    norms_over_steps(right, tx, _first_tensor, level)


def _random(left: Axes, right: Axes) -> None:
    probabilities(left, 3.0, 0.4)
    norms_over_steps(right, clipjax.clip_with_probability(3.0, 0.4, jax.random.key(0)))


NORMALIZE = clipjax.normalize_by_global_norm()

FIGURES: dict[str, Callable[[Axes, Axes], None]] = {
    "clip_by_global_norm": partial(
        _constant,
        clipjax.clip_by_global_norm(1.0),
        _whole,
        "circle",
        clipjax.clip_by_global_norm(3.0),
    ),
    "clip_by_tensor_norm": partial(
        _constant,
        clipjax.clip_by_tensor_norm(1.0),
        _first_tensor,
        "circle",
        clipjax.clip_by_tensor_norm(3.0),
    ),
    "clip_by_value": partial(
        _constant,
        clipjax.clip_by_value(1.0),
        _coordinate,
        "square",
        clipjax.clip_by_value(3.0),
    ),
    "normalize_by_global_norm": partial(
        _constant,
        NORMALIZE,
        _whole,
        "circle",
        NORMALIZE,
    ),
    "clip_by_quantile": _quantile,
    "clip_by_zscore": _zscore,
    "clip_by_adaptive_norm": _adaptive_norm,
    "clip_with_probability": _random,
}
"""What draws the two panels of each clipping, by public name."""


def figure(name: str) -> bytes:
    """Return the figure of a clipping as the bytes of a PNG file of 64 colours."""
    with style.style():
        shown = Figure(figsize=(9.0, 3.0))
        left, right = shown.subplots(1, 2, width_ratios=(3.4, 5.6))
        FIGURES[name](left, right)
        full = style.drawing(shown).png
    small = io.BytesIO()
    with Image.open(io.BytesIO(full)) as image:
        image.convert("RGB").quantize(64).save(small, format="png", optimize=True)
    return small.getvalue()
