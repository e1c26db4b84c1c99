"""From a `Rule` to the Optax transformation that its text describes.

The transformation is built inside compiled functions, from values that are traced: that is why runs
which differ in values alone share a program. A factory that must know a number at that time (how
many steps, say) refuses a traced one; `check` finds out which value that is, and says so.
"""

import difflib
import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.setup import allowed_names, expressions
from experiments.setup.evaluation import evaluation_point
from experiments.setup.rules import KNOWN, Rule, names_in

SEARCHED = ("clipjax", "optax", "optax.contrib")
"""Where bare names are looked up, in this order."""

Values = Mapping[str, Any]


@dataclass(frozen=True)
class Setting:
    """What a run gives to a rule beside the rule's own values.

    Attributes:
        steps: of the optimizer in the whole run.
        micro_batches: of a step.
        shape: the factor of `lr` as a function of the step; None where it is 1 throughout.
        allow: packages that the text may name, beside those that the rule allows.
    """

    steps: int
    micro_batches: int = 1
    shape: optax.Schedule | None = None
    allow: tuple[str, ...] = ()


def kernels(params: Any) -> Any:
    """Return which parameters have two axes or more, a tree of booleans.

    Weight decay is usual for these alone: biases and the scales of norms have one axis, a PReLU's
    slope at most one.

    Examples:
        >>> kernels({"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)})
        {'bias': False, 'kernel': True}
    """
    return jax.tree.map(lambda leaf: len(leaf.shape) >= 2, params)


def make_rule(
    rule: Rule, setting: Setting
) -> Callable[[Values], optax.GradientTransformationExtraArgs]:
    """Return values -> transformation, for use inside compiled functions.

    Beside the rule's own the values may hold `seed`, of which `key` is a function.

    Examples:
        >>> tx = make_rule(Rule("sgd(lr)", lr=0.5), Setting(steps=10))({"lr": 0.5})
        >>> tx.update(jnp.ones(2), tx.init(jnp.ones(2)))[0].tolist()
        [-0.5, -0.5]
    """
    names = names_in(rule.text)
    found = {
        name: thing
        for name in (names.used | names.called) - rule.rates.keys() - KNOWN.keys()
        if (thing := look_up(name)) is not None
    }

    def build(values: Values) -> optax.GradientTransformationExtraArgs:
        known = {
            "kernels": kernels,
            "steps": setting.steps,
            "micro_batches": setting.micro_batches,
        }
        if rule.uses("key"):
            known["key"] = jax.random.key(values.get("seed", 0))
        given = {name: value for name, value in values.items() if name != "seed"}
        if setting.shape is not None and "lr" in given:
            given["lr"] = _moving(given["lr"], setting.shape)
        made = _evaluate(rule, {**found, **known, **given}, setting.allow)
        return optax.with_extra_args_support(made)

    return build


def _moving(rate: Any, shape: optax.Schedule) -> expressions.Moving:
    return expressions.Moving(lambda count: rate * shape(count))


def look_up(name: str) -> Any:
    """Return what a bare name stands for in the packages searched; None where there is none.

    Examples:
        >>> look_up("clip_by_global_norm").__module__, look_up("muon").__module__
        ('clipjax.optim.clipping.norms', 'optax.contrib._muon')
    """
    for package in SEARCHED:
        try:
            return allowed_names.resolve(f"{package}.{name}")
        except ValueError:  # it is not there, or no function
            continue
    return None


def _evaluate(rule: Rule, names: Values, allow: tuple[str, ...]) -> Any:
    def unknown(name: str) -> str:
        return _unknown(name, rule)

    try:
        allowed = (*rule.allow, *allow)
        made = expressions.evaluate(rule.text, names, "optimizer", allowed, unknown)
    except ValueError as error:
        said = str(error)
        place = "" if rule.text.strip() in said else f" (in {rule.text!r})"
        raise ValueError(said + place) from error
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise ValueError(
            f"optimizer {rule.text!r} builds {made!r}; expected an Optax transformation, which has "
            "init and update"
        )
    return made


def _unknown(name: str, rule: Rule) -> str:
    """Return what to say of a name that stands for nothing."""
    said = []
    if name in names_in(rule.text).used:
        said.append(f"it has no value: give it one with --rates.{name} (in a config {name}=...)")
        candidates = set(KNOWN) | set(rule.rates)
    else:
        candidates = _public()
    close = difflib.get_close_matches(name, sorted(candidates), n=1, cutoff=0.6)
    said += [f"did you mean {close[0]!r}?"] if close else []
    said.append(f"Searched: {', '.join(SEARCHED)}, and the names {', '.join(sorted(KNOWN))}")
    return ". ".join(said).replace("?.", "?")


def _public() -> set[str]:
    """Return all bare names that stand for something."""
    public = {n for package in SEARCHED for n in dir(importlib.import_module(package))}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are to be removed
        return {n for n in public if not n.startswith("_") and look_up(n) is not None}


# -- Does it work? --------------------------------------------------------------------------------


def check(rule: Rule, setting: Setting, params: Any = None) -> None:
    """Raise ValueError unless a rule can be built and can train; nothing is computed or compiled.

    Args:
        rule: the rule.
        setting: the run's.
        params: the shapes of a network's parameters, on which it then does a step; None only
            builds it.

    Examples:
        >>> check(Rule("adamv(lr)", lr=0.1), Setting(10))
        Traceback (most recent call last):
            ...
        ValueError: there is no optimizer 'adamv'; did you mean 'adam'? Searched: clipjax, optax,
        optax.contrib, and the names kernels, key, micro_batches, steps (in 'adamv(lr)')
    """
    fault = _fault(rule, setting, params, traced=rule.rates.keys())
    if fault is None:
        return
    plain = _fault(rule, setting, params, traced=())
    if plain is None:
        static = [n for n in rule.rates if _fault(rule, setting, params, traced=(n,)) is not None]
        listed = ", ".join(f"{name} ({rule.rates[name]})" for name in static or rule.rates)
        place = "" if fault.place is None else f", by {fault.place}"
        raise ValueError(
            f"optimizer {rule.text!r}: the value of {listed} must be known when the program is "
            f"compiled{place}. Write it into the text as a number, in place of the name"
        )
    if setting.shape is not None:
        constant = Setting(setting.steps, setting.micro_batches, None, setting.allow)
        if _fault(rule, constant, params, traced=()) is None:
            raise ValueError(
                f"optimizer {rule.text!r} takes a number for lr and no function of the step, which "
                f"lr is in a run with a schedule: {plain.words}. Leave the schedule out, or give "
                "lr to what takes schedules"
            )
    raise ValueError(plain.words)


@dataclass(frozen=True)
class _Fault:
    words: str
    place: str | None
    """The call that failed."""


def _fault(rule: Rule, setting: Setting, params: Any, traced: Any) -> _Fault | None:
    """Return what goes wrong with some values traced and the others known."""
    doing = ""

    def trial(values: Values, params: Any) -> Any:
        nonlocal doing
        made = make_rule(rule, setting)({**rule.rates, **values})
        if params is None:
            return None
        doing = "cannot start on this network"
        state = made.init(params)
        if any(jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in jax.tree.leaves(state)):
            raise ValueError("its state holds a random key, which checkpoints do not keep")
        doing = "cannot do a step on this network"
        updates, state = made.update(params, state, params, weight=jnp.ones(()))
        moved = optax.apply_updates(params, updates)
        if jax.tree.map(jnp.shape, moved) != jax.tree.map(jnp.shape, params):
            raise ValueError("its updates have other shapes than the parameters")
        doing = "cannot be evaluated"
        return evaluation_point(state, params)

    values = {name: jax.ShapeDtypeStruct((), jnp.float32) for name in traced}
    try:
        jax.eval_shape(trial, values, params)
    except Exception as error:  # factories, init and update are anybody's
        if doing:
            said = str(error) or type(error).__name__
            return _Fault(f"optimizer {rule.text!r} {doing}: {said}", None)
        return _Fault(str(error), str(error).removeprefix("optimizer ").split(":")[0])
    return None
