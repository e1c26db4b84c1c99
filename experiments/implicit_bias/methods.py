"""What descends: losses of the margin, and rules.

The objective is the mean of ℓ(r y_i θᵀx_i) over the examples. A normalised rule descends its
logarithm, whose gradient is ∇L/L, and so never underflows with the exponential loss.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

import clipjax
from clipjax.losses import generalized_logistic_loss
from experiments.setup.checks import POSITIVE, Range, check_fields

Loss: TypeAlias = Literal["logistic", "exponential", "generalized"]
Rule: TypeAlias = Literal["gd", "normalized", "sgd", "clipped_sgd", "clipped_sstm", "adam"]

Number: TypeAlias = float | jax.Array

STOCHASTIC = ("sgd", "clipped_sgd", "clipped_sstm")
"""Rules that draw batches; the others see all examples."""

AIM = ", aimed at"
"""Said of a growth that a method is made for, and does not reach."""

RULES = {
    "gd": "GD",
    "normalized": "normalised GD",
    "sgd": "SGD",
    "clipped_sgd": "clipped-SGD",
    "clipped_sstm": "clipped-SSTM",
    "adam": "Adam",
}


@dataclass(frozen=True)
class Method:
    """A rule on a loss.

    Attributes:
        rule: gd, sgd, clipped_sgd, adam with step size `rate`; normalized with `rate`/√t;
            clipped_sstm with 1/a = `rate`.
        loss: logistic ln(1 + e^{-rm}), exponential e^{-rm}, or generalized
            (`clipjax.losses.generalized_logistic_loss` from 1 to 0).
        rate: η > 0.
        r: of the loss.
        c: of the generalised loss: its value at 0 is 1 - e^c.
        q: of the generalised loss; 0 is Gompertz's.
        level: λ of clipped_sgd, B of clipped_sstm.
        follow: c > 0 of a schedule: the step to θ_t is on the loss with r r_t in place of r, where
            g_t(c, r_t) = √t (`experiments.growth_networks.networks.following_rate`); 0 for none.
            It is not the loss's own c, with which g_t has no value before t = e|c|: the paper's
            rates have positive constants, its losses negative ones.
    """

    rule: Rule = "gd"
    loss: Loss = "logistic"
    rate: Annotated[float, POSITIVE] = 1.0
    r: Annotated[float, Range(0.01, 100)] = 1.0
    c: Annotated[float, Range(-20, 0, open_high=True)] = -1.0
    q: Annotated[float, Range(0, 10)] = 0.0
    level: Annotated[float, POSITIVE] = 1.0
    follow: Annotated[float, Range(0, 100)] = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def label(self) -> str:
        """Return its name in tables and figures."""
        parts = [f"{RULES[self.rule]}, {self.loss.replace('generalized', 'generalised')}"]
        if self.loss == "generalized":
            parts.append(f"c = {self.c:.3g}".replace("-", "−"))
            parts += [f"q = {self.q:g}"] if self.q else []
        parts += [f"r = {self.r:g}"] if self.r != 1 else []
        parts += ["r_t follows √t"] if self.follow else []
        return ", ".join(parts)

    @property
    def predicted(self) -> str:
        """Return the growth g with which its direction error is O(1/g), "" where none is known.

        Of a schedule it is what the paper aims at; it is not what comes (`run.schedule`).
        """
        if self.rule == "adam":
            return ""
        if self.follow:
            return "√t" + AIM
        if self.rule == "normalized":
            return "√t"
        if self.rule == "clipped_sstm":
            return "2 ln t"
        return "g_t(c, r)" if self.loss == "generalized" and not self.q else "ln t / r"


METHODS = {
    "gd": Method(),
    "gd_half_r": Method(r=0.5),
    "gd_twice_r": Method(r=2.0),
    "exponential": Method(loss="exponential"),
    "gompertz": Method(loss="generalized"),
    "gompertz_half_r": Method(loss="generalized", r=0.5),
    "gompertz_twice_r": Method(loss="generalized", r=2.0),
    "gompertz_high": Method(loss="generalized", c=-2.0),
    "gompertz_low": Method(loss="generalized", c=-0.3),
    "sigmoid": Method(loss="generalized", c=-math.log(2), q=1.0),
    "gompertz_schedule": Method(loss="generalized", follow=3.0),
    "normalized_exponential": Method("normalized", "exponential"),
    "normalized": Method("normalized", "logistic"),
    "sgd": Method("sgd"),
    "clipped_sgd": Method("clipped_sgd", level=0.1),
    "clipped_sstm": Method("clipped_sstm", rate=0.1),
    "adam": Method("adam", rate=0.01),
}
"""What can be compared; the loss is the logistic one where the name says no other."""


def loss_of(name: Loss, margins: jax.Array, r: Number, c: Number, q: Number) -> jax.Array:
    """Return ℓ of each margin; r, c and q may be traced."""
    if name == "generalized":
        return generalized_logistic_loss(margins, rate=r, shape=q, start=jnp.exp(c))
    return jax.nn.softplus(-r * margins) if name == "logistic" else jnp.exp(-r * margins)


def objective(
    method: Method,
) -> Callable[[jax.Array, jax.Array, Number, Number, Number], jax.Array]:
    """Return what the rule descends, a function of θ (n,), y_i x_i (m, n), r, c and q."""

    def mean(theta: jax.Array, signed: jax.Array, r: Number, c: Number, q: Number) -> jax.Array:
        margins = signed @ theta
        if method.rule == "normalized" and method.loss == "exponential":
            return jax.nn.logsumexp(-r * margins)
        value = jnp.mean(loss_of(method.loss, margins, r, c, q))
        return jnp.log(value) if method.rule == "normalized" else value

    return mean


def transformation(
    rule: Rule, rate: jax.Array, level: jax.Array, smoothness: float
) -> optax.GradientTransformation:
    """Return the rule as an Optax transformation; rate and level may be traced.

    Args:
        rule: one of `RULES`.
        rate: as of `Method`.
        level: as of `Method`.
        smoothness: of the mean logistic loss, which clipped-SSTM's steps are scaled by.
    """
    if rule == "normalized":
        return optax.sgd(lambda count: rate / jnp.sqrt(count + 1.0))
    if rule == "clipped_sgd":
        return clipjax.clipped_sgd(rate, level)
    if rule == "clipped_sstm":
        return clipjax.clipped_sstm(rate, smoothness, level)
    return optax.adam(rate) if rule == "adam" else optax.sgd(rate)
