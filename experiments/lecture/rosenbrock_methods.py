"""The zoo of Rosenbrock's valley: Optax's methods that need the gradient alone, and clipjax's."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from optax import contrib

import clipjax


class NAGGSState(NamedTuple):
    """State of `nag_gs`: v, a tree like the parameters."""

    leader: optax.Params


def nag_gs(learning_rate: Any, strength: float = 150.0) -> optax.GradientTransformation:
    """Return NAG-GS with γ = μ, the setting of the lecture, where γ keeps its value.

        v' = (v + α x − α ∇f(x)/μ) / (1 + α),   x' = (x + α v') / (1 + α)

    The semi-implicit (Gauss-Seidel) discretisation of Nesterov's accelerated flow.

    Args:
        learning_rate: α.
        strength: μ.

    References:
        Leplat, Merkulov, Katrutsa, Bershatsky, Tsymboi, Oseledets, NAG-GS, 2022,
        https://arxiv.org/abs/2209.14937; the order of the two lines is that of its authors' code.
    """

    def init(params: optax.Params) -> NAGGSState:
        return NAGGSState(params)

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        def lead(v: jax.Array, x: jax.Array, g: jax.Array) -> jax.Array:
            return (v + learning_rate * (x - g / strength)) / (1 + learning_rate)

        leader = jax.tree.map(lead, state.leader, params, updates)
        share = learning_rate / (1 + learning_rate)
        return jax.tree.map(lambda v, x: share * (v - x), leader, params), NAGGSState(leader)

    return optax.GradientTransformation(init, update)


class Method(NamedTuple):
    """What runs in the valley."""

    label: str
    make: Callable[[Any, float], Any]
    """(learning rate, clip level) -> the Optax transformation."""
    column: bool = False
    """Whether w is a matrix of one column."""


def _plain(label: str, make: Callable[..., Any], **options: Any) -> Method:
    return Method(label, lambda rate, _: make(rate, **options))


def _behind(label: str, clip: Callable[[float], Any]) -> Method:
    """SGD behind a clipping."""
    return Method(label, lambda rate, level: optax.chain(clip(level), optax.sgd(rate)))


FAMILIES: dict[str, dict[str, Method]] = {
    "gradients, signs and lengths": {
        "sgd": _plain("SGD", optax.sgd),
        "momentum": _plain("momentum", optax.sgd, momentum=0.9),
        "nesterov": _plain("Nesterov", optax.sgd, momentum=0.9, nesterov=True),
        "nag_gs": _plain("NAG-GS", nag_gs),
        "optimistic_gd": _plain("optimistic GD", optax.optimistic_gradient_descent),
        "noisy_sgd": _plain("noisy SGD", optax.noisy_sgd, key=0),
        "schedule_free_sgd": _plain("schedule-free SGD", contrib.schedule_free_sgd),
        "averaged_sgd": Method("averaged SGD", lambda r, _: clipjax.average_iterates(optax.sgd(r))),
        "sign_sgd": _plain("sign descent", optax.sign_sgd),
        "signum": _plain("Signum", optax.signum),
        "lion": _plain("Lion", optax.lion),
        "rprop": _plain("Rprop", optax.rprop),
        "fromage": _plain("Fromage", optax.fromage),
        "lars": _plain("LARS", optax.lars),
        "lamb": _plain("LAMB", optax.lamb),
        "novograd": _plain("NovoGrad", optax.novograd),
        "dog": _plain("DoG", contrib.dog),
        "dowg": _plain("DoWG", contrib.dowg),
    },
    "moments": {
        "adagrad": _plain("AdaGrad", optax.adagrad),
        "adadelta": _plain("AdaDelta", optax.adadelta),
        "rmsprop": _plain("RMSProp", optax.rmsprop),
        "sm3": _plain("SM3", optax.sm3),
        "adafactor": _plain("Adafactor", optax.adafactor),
        "adam": _plain("Adam", optax.adam),
        "adamw": _plain("AdamW", optax.adamw),
        "adamax": _plain("AdaMax", optax.adamax),
        "nadam": _plain("Nadam", optax.nadam),
        "radam": _plain("RAdam", optax.radam),
        "amsgrad": _plain("AMSGrad", optax.amsgrad),
        "adabelief": _plain("AdaBelief", optax.adabelief),
        "yogi": _plain("Yogi", optax.yogi),
        "adan": _plain("Adan", optax.adan),
        "optimistic_adam": _plain("optimistic Adam", optax.optimistic_adam_v2),
        "ademamix": _plain("AdEMAMix", contrib.ademamix),
        "adopt": _plain("ADOPT", contrib.adopt),
        "acprop": _plain("ACProp", contrib.acprop),
        "madgrad": _plain("MADGRAD", contrib.madgrad),
        "schedule_free_adamw": _plain("schedule-free AdamW", contrib.schedule_free_adamw),
        "prodigy": _plain("Prodigy", contrib.prodigy),
        "dadapt_adamw": _plain("D-Adapt AdamW", contrib.dadapt_adamw),
        "cocob": _plain("COCOB", contrib.cocob),
        "shampoo": _plain("Shampoo", clipjax.shampoo)._replace(column=True),
    },
    "clipped, normalised, orthogonal": {
        "clipped_sgd": Method("clipped-SGD", clipjax.clipped_sgd),
        "clipped_momentum": Method(
            "clipped momentum", lambda r, level: clipjax.clipped_sgd(r, level, momentum=0.9)
        ),
        "clipped_sstm": Method(
            "clipped-SSTM", lambda r, level: clipjax.clipped_sstm(r, 10.0, level)
        ),
        "clipped_adam": Method("clipped Adam", clipjax.clipped_adam),
        "clipped_adagrad": Method("clipped AdaGrad", clipjax.clipped_adagrad),
        "acclip": _plain("ACClip", clipjax.acclip),
        "normalized_sgd": _behind("normalised SGD", lambda _: clipjax.normalize_by_global_norm()),
        "clip_by_value": _behind("clip by value", clipjax.clip_by_value),
        "clip_by_zscore": _behind("clip by z-score", lambda _: clipjax.clip_by_zscore()),
        "clip_by_quantile": _behind("clip by quantile", lambda _: clipjax.clip_by_quantile(0.9)),
        "clip_by_adaptive_norm": _behind(
            "clip by own norm", lambda level: clipjax.clip_by_adaptive_norm(absolute=level)
        ),
        "muon": _plain("Muon", contrib.muon)._replace(column=True),
    },
}
METHODS = {name: method for family in FAMILIES.values() for name, method in family.items()}
