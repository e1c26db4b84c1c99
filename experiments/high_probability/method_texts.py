"""What the texts of the methods stand for: presets by name, or calls of any factory."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import optax

import clipjax
from experiments.high_probability.simulate import Method
from experiments.setup.evaluation import evaluation_point
from experiments.setup.expressions import evaluate

if TYPE_CHECKING:  # whose texts are checked here where it is made
    from experiments.high_probability.config import Config


def presets(config: "Config") -> dict[str, Method]:
    """Return the methods that have names, with the configuration's parameters."""
    rate = config.learning_rate
    normalized_rate = config.normalized_factor * rate
    a, longest = 1 / config.sstm_learning_rate, config.sstm_clip_level

    def method(
        label: str, description: str, make: Callable[[jax.Array], Any], averages: bool = False
    ) -> Method:
        point = clipjax.eval_params if averages else evaluation_point
        return Method(label, make, description, point)

    return {
        "sgd": method("SGD", f"step size {rate:g}", lambda _: optax.sgd(rate)),
        "normalized_sgd": method(
            "normalised SGD",
            f"every step is {normalized_rate:g} long",
            lambda _: optax.chain(clipjax.normalize_by_global_norm(), optax.sgd(normalized_rate)),
        ),
        "clipped_sgd": method(
            "clipped-SGD",
            f"step size {rate:g}, level {config.clip_level:g}; no step is longer than "
            f"{rate * config.clip_level:g}",
            lambda _: clipjax.clipped_sgd(rate, config.clip_level),
        ),
        "clipped_sstm": method(
            "clipped-SSTM",
            f"a = {a:g}, L = 1, B = {longest:g}, which no step is longer than",
            lambda _: clipjax.clipped_sstm(
                config.sstm_learning_rate, smoothness=1.0, clip_level=longest
            ),
            averages=True,
        ),
        "autoclip": method(
            "AutoClip-10",
            f"step size {rate:g}, clipped to the 10 % quantile of the norms so far",
            lambda _: optax.chain(
                clipjax.clip_by_quantile(0.1, window=config.steps), optax.sgd(rate)
            ),
        ),
        "zclip": method(
            "ZClip",
            f"step size {rate:g}, norms beyond 2.5 standard deviations pulled in",
            lambda _: optax.chain(clipjax.clip_by_zscore(), optax.sgd(rate)),
        ),
    }


def methods(config: "Config", known: Mapping[str, float] | None = None) -> dict[str, Method]:
    """Return the methods compared, by name.

    A text `LABEL = CALL` is a method of that name; in the call, `key` is the replica's own key, and
    L, N and R0 are `constants`. A growing batch is a transformation that accumulates
    (`clipjax.accumulate_gradients(inner, every)`): every stochastic gradient then counts as one
    oracle call, and updates come where they are due.

    Args:
        config: the experiment.
        known: `constants`; by default all are 1, which serves to check the texts.

    Raises:
        ValueError: for an unknown name, with the nearest one, a name given twice, or a call that
            does not return a transformation.
    """
    named = presets(config)
    values = {"L": 1.0, "N": 1, "R0": 1.0} | dict(known or {})
    found: dict[str, Method] = {}
    for text in config.methods:
        label, equals, call = (part.strip() for part in text.partition("="))
        if not equals or "(" in label:  # the sign belongs to a keyword argument
            label = call = text.strip()
        if not label or not label.isprintable():
            raise ValueError(f"method {text!r}: the label {label!r} cannot be shown; give another")
        if call in named:
            name = call if label == call else label
            method = dataclasses.replace(named[call], label=label) if name != call else named[call]
        elif "(" in call:
            name, method = label, _called(label, call, values, config.allow_import)
        else:
            evaluate(call, named, "method", config.allow_import)  # says which name is nearest
            raise ValueError(f"method {text!r}; expected a name or LABEL = CALL")
        if name in found:
            raise ValueError(
                f"method {name!r} is given twice; write LABEL = ... to tell them apart"
            )
        found[name] = method
    return found


def _called(label: str, call: str, values: Mapping[str, float], allow: Sequence[str]) -> Method:
    def make(key: jax.Array) -> Any:
        return evaluate(call, {**values, "key": key}, "method", allow)

    made = make(jax.random.key(0))
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise ValueError(f"method {call!r} is {made!r}; expected an Optax transformation")
    return Method(label, make, call)
