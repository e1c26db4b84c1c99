"""The rows of the contract: every public transformation, and what is true of it."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import optax

import clipjax


@dataclass(frozen=True, eq=False)
class Row:
    """A public transformation and what is true of it.

    Attributes:
        public: the public name.
        make: called with `numbers` and `options`.
        numbers: the arguments that may be traced.
        options: the other arguments.
        after: transformations after it in a chain that make an optimizer of it.
        buffers: how many copies of the parameters its state holds.
        vectors: shapes of what else is not a scalar in its state, for three parameters.
        iterates: whether updates have the dtype of the parameters, not of the gradients.
        planned: whether a change of a number from outside acts one step later.
        conditional: whether it steps through a `lax.cond`, which without jit is compiled in every
            step: `build` compiles its update, once for all tests.
        non_finite: where one NaN of a gradient makes the update of its step NaN, once warm-ups are
            over: in "everything", in its "tensor" or in its "coordinate". No row skips such a
            gradient by itself; `optax.apply_if_finite` around any of them does.
        cuts_infinity: whether an infinite coordinate is cut to the level instead.
        largest_is_infinite: whether it adds gradients up, so that two of the largest float count
            as not finite.
        slow: a rate small enough for Rosenbrock's valley, whose curvature is about 1,000.
    """

    public: str
    make: Callable[..., Any]
    numbers: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    after: tuple[Any, ...] = ()
    buffers: int = 0
    vectors: tuple[tuple[int, ...], ...] = ()
    iterates: bool = False
    planned: bool = False
    conditional: bool = False
    non_finite: str = "everything"
    cuts_infinity: bool = False
    largest_is_infinite: bool = False
    slow: float = 0.003

    def bare(self, **numbers):
        return self.make(**{**self.numbers, **numbers, **self.options})

    def build(self, **numbers):
        if self.conditional and not numbers:
            return built_once(self, jax.config.jax_enable_x64)
        tx = optax.chain(self.bare(**numbers), *self.after)
        return compiled(tx) if self.conditional else tx


@functools.cache
def built_once(row, wide):
    """`wide`: numbers kept by a transformation have the dtype of where it was built."""
    assert wide == jax.config.jax_enable_x64
    return compiled(optax.chain(row.bare(), *row.after))


def compiled(tx):
    update = jax.jit(tx.update)
    return optax.GradientTransformationExtraArgs(
        tx.init, lambda updates, state, params=None, **_: update(updates, state, params)
    )


def averaged_sgd(learning_rate, clip_level, decay=None):
    return clipjax.average_iterates(
        clipjax.clipped_sgd(learning_rate, clip_level), start=2, decay=decay
    )


def weighted_sgd(learning_rate, clip_level, weights):
    return clipjax.average_iterates(
        clipjax.clipped_sgd(learning_rate, clip_level), start=2, weights=weights
    )


def twice(tx):
    """Two micro-steps with the same gradient in every step."""

    def update(updates, state, params=None, **extra_args):
        _, state = tx.update(updates, state, params, **extra_args)
        return tx.update(updates, state, params, **extra_args)

    return optax.GradientTransformationExtraArgs(tx.init, update)


def accumulated_twice(learning_rate, clip_level, momentum):
    return twice(
        clipjax.accumulate_gradients(
            clipjax.clipped_sgd(learning_rate, clip_level, momentum=momentum), every=2
        )
    )


def measured_twice(learning_rate, clip_level, decay):
    inner = clipjax.accumulate_gradients(clipjax.clipped_sgd(learning_rate, clip_level), every=2)
    return twice(clipjax.measure_gradient_variance(inner, 4, decay=decay))


def graduated_schedule(learning_rate):
    """Three stages with learning rates and momenta of their own."""
    return clipjax.graduated_schedule(
        learning_rate, 2, 3, decay="geometric", momentum=0.8, momentum_share=0.5
    )


def graduated(learning_rate, clip_level):
    """Each batch two micro-batches."""
    inner = functools.partial(clipjax.clipped_sgd, clip_level=clip_level)
    schedule = graduated_schedule(learning_rate)
    return twice(clipjax.implicit_graduated_optimization(schedule, (1, 1, 50), 1, inner=inner))


def staged(learning_rate, clip_level):
    plan = clipjax.plan_stages(graduated_schedule(learning_rate), (1, 1, 50), 1)
    return clipjax.staged(functools.partial(clipjax.clipped_sgd, clip_level=clip_level), plan)


def restarted_sstm(learning_rate, smoothness, clip_level):
    """Every run with half the level of the one before."""
    return clipjax.with_restarts(
        lambda run: clipjax.clipped_sstm(learning_rate, smoothness, clip_level * 0.5**run), (3, 30)
    )


def restarted_sgd(learning_rate, clip_level):
    return clipjax.with_restarts(averaged_sgd(learning_rate, clip_level), 3)


def clip_with_probability(max_norm, base):
    return clipjax.clip_with_probability(max_norm, base, jax.random.PRNGKey(3))


# The last step of the convergence test is number 200: a rate of 0.5/(1 + 0.1 · 200) = 0.024.
DESCENT = (optax.scale_by_learning_rate(lambda k: 0.5 / (1 + 0.1 * k)),)
SGD = {"learning_rate": 0.1, "clip_level": 1.0}
SSTM = {"learning_rate": 0.5, "smoothness": 3.0, "clip_level": 1.0}
ADAM = {"learning_rate": 0.1, "clip_level": 1.0, "b1": 0.8, "b2": 0.9}

ROWS = {
    "clip_by_global_norm": Row(
        "clip_by_global_norm", clipjax.clip_by_global_norm, {"max_norm": 1.0}, after=DESCENT
    ),
    "clip_by_tensor_norm": Row(
        "clip_by_tensor_norm",
        clipjax.clip_by_tensor_norm,
        {"max_norm": 0.5},
        after=DESCENT,
        non_finite="tensor",
    ),
    "clip_by_value": Row(
        "clip_by_value",
        clipjax.clip_by_value,
        {"max_value": 0.5},
        after=DESCENT,
        non_finite="coordinate",
        cuts_infinity=True,
    ),
    "normalize_by_global_norm": Row(
        "normalize_by_global_norm", clipjax.normalize_by_global_norm, after=DESCENT
    ),
    "clip_by_quantile": Row(
        "clip_by_quantile",
        clipjax.clip_by_quantile,
        {"quantile": 0.5},
        {"window": 4, "per_tensor": True},
        after=DESCENT,
        vectors=((3, 4), (3,)),
        non_finite="tensor",
    ),
    "clip_by_zscore": Row(
        "clip_by_zscore",
        clipjax.clip_by_zscore,
        {"max_norm": 1.0, "threshold": 1.5, "decay": 0.9},
        {"warmup_steps": 2},
        after=DESCENT,
    ),
    "clip_by_adaptive_norm": Row(
        "clip_by_adaptive_norm",
        clipjax.clip_by_adaptive_norm,
        {"relative": 1.05, "absolute": 1.0, "decay": 0.9},
        {"warmup_steps": 1},
        after=DESCENT,
        vectors=((3,),),
        non_finite="tensor",
    ),
    "clip_with_probability": Row(
        "clip_with_probability",
        clip_with_probability,
        {"max_norm": 1.0, "base": 0.9},
        after=DESCENT,
        vectors=((2,),),
    ),
    "clipped_sgd": Row("clipped_sgd", clipjax.clipped_sgd, SGD),
    "clipped_sgd_nesterov": Row(
        "clipped_sgd",
        clipjax.clipped_sgd,
        {**SGD, "momentum": 0.8},
        {"clip": "tensor_norm", "nesterov": True},
        buffers=1,
        non_finite="tensor",
    ),
    "clipped_sgd_after_momentum": Row(
        "clipped_sgd",
        clipjax.clipped_sgd,
        {**SGD, "momentum": 0.8},
        {"clip": "value", "clip_after_momentum": True},
        buffers=1,
        non_finite="coordinate",
    ),
    "scale_by_similar_triangles": Row(
        "scale_by_similar_triangles",
        clipjax.scale_by_similar_triangles,
        {"step_size": 0.3},
        buffers=1,
        iterates=True,
        planned=True,
        non_finite="coordinate",
    ),
    "clipped_sstm": Row(
        "clipped_sstm",
        clipjax.clipped_sstm,
        SSTM,
        buffers=1,
        iterates=True,
        slow=6e-6,
        planned=True,
    ),
    "clipped_sstm_hoelder": Row(
        "clipped_sstm",
        clipjax.clipped_sstm,
        SSTM,
        {
            "clip": "value",
            "holder_exponent": 0.5,
            "step_offset": 1,
            "max_averaging_ratio": 0.9,
            "clip_start": 2,
        },
        buffers=1,
        iterates=True,
        slow=6e-6,
        planned=True,
        non_finite="coordinate",
        cuts_infinity=True,
    ),
    "sstm": Row(
        "clipped_sstm",
        clipjax.clipped_sstm,
        {"learning_rate": 0.5, "smoothness": 3.0},
        {"clip_level": None},
        buffers=1,
        iterates=True,
        slow=6e-6,
        planned=True,
        non_finite="coordinate",
    ),
    "average_iterates": Row("average_iterates", averaged_sgd, SGD, buffers=1),
    "average_iterates_decay": Row(
        "average_iterates", averaged_sgd, {**SGD, "decay": 0.9}, buffers=1
    ),
    "accumulate_gradients": Row(
        "accumulate_gradients",
        accumulated_twice,
        {**SGD, "momentum": 0.8},
        buffers=2,
        conditional=True,
        largest_is_infinite=True,
    ),
    "measure_gradient_variance": Row(
        "measure_gradient_variance",
        measured_twice,
        {**SGD, "decay": 0.9},
        buffers=1,
        conditional=True,
        largest_is_infinite=True,
    ),
    "implicit_graduated_optimization": Row(
        "implicit_graduated_optimization",
        graduated,
        SGD,
        buffers=2,
        conditional=True,
        largest_is_infinite=True,
    ),
    "staged": Row("staged", staged, SGD, buffers=1),
    "with_restarts": Row(
        "with_restarts",
        restarted_sstm,
        SSTM,
        buffers=1,
        iterates=True,
        slow=6e-6,
        planned=True,
        conditional=True,
    ),
    "with_restarts_average": Row(
        "with_restarts", restarted_sgd, SGD, buffers=1, iterates=True, conditional=True
    ),
    "clipped_adam": Row("clipped_adam", clipjax.clipped_adam, ADAM, buffers=2),
    "clipped_adam_norm": Row(
        "clipped_adam", clipjax.clipped_adam, ADAM, {"moment": "norm"}, buffers=1
    ),
    "clipped_adam_delayed": Row(
        "clipped_adam",
        clipjax.clipped_adam,
        {**ADAM, "initial_accumulator_value": 1.0},
        {"clip": "value", "delayed": True, "bias_correction": False},
        buffers=2,
        non_finite="coordinate",
        cuts_infinity=True,
    ),
    "clipped_adagrad": Row(
        "clipped_adagrad",
        clipjax.clipped_adagrad,
        {**SGD, "learning_rate": 0.5},
        buffers=1,
        slow=0.1,
    ),
    "clipped_adagrad_delayed": Row(
        "clipped_adagrad",
        clipjax.clipped_adagrad,
        {**SGD, "learning_rate": 1.0, "initial_accumulator_value": 0.5},
        {"clip": "tensor_norm", "moment": "norm", "delayed": True},
        slow=0.1,
        non_finite="tensor",
    ),
    "acclip": Row(
        "acclip",
        clipjax.acclip,
        {"learning_rate": 0.1},
        {"alpha": 1.5},
        buffers=2,
        non_finite="coordinate",
    ),
    "acclip_normalized": Row(
        "acclip",
        clipjax.acclip,
        {"learning_rate": 0.02},
        {"normalize": True},
        buffers=3,
        non_finite="coordinate",
    ),
    "scale_by_shampoo": Row(
        "scale_by_shampoo",
        clipjax.scale_by_shampoo,
        {"decay": 0.9, "eps": 1e-3},
        after=DESCENT,
        buffers=1,
        vectors=((13,),),  # 2 x 2 and 3 x 3
        non_finite="coordinate",
    ),
    "shampoo": Row(
        "shampoo",
        clipjax.shampoo,
        {"learning_rate": 1.0, "eps": 1e-3},
        {"decay": None, "grafting": "none", "initial_accumulator_value": 0.1},
        buffers=1,
        vectors=((13,),),
        slow=0.1,
        non_finite="coordinate",
    ),
    "shampoo_stale": Row(
        "shampoo",
        clipjax.shampoo,
        {"learning_rate": 0.1, "eps": 1e-3, "momentum": 0.5},
        {"block_size": 2, "update_every": 2, "decay": None, "grafting": "sgd"},
        buffers=1,
        vectors=((16,), (16,)),  # two blocks, two sides each, for moments and roots
        conditional=True,
        non_finite="coordinate",
    ),
    "average_iterates_weights": Row(
        "average_iterates", weighted_sgd, {**SGD, "weights": 0.5}, buffers=1
    ),
}
