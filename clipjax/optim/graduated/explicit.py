r"""Explicit graduated optimisation: descend the smoothed function while its noise level falls.

Stage m runs T_m steps of a minimiser on :math:`\hat f_{\delta_m}` (`smoothed_value_and_grad`) and
hands its last point to stage m+1, whose level is smaller. What a stage plan says:

- `smoothing_levels`: the polynomial plan (p = 1 with 0.01 at the end is the one of Sato and
  Iiduka's code) and the geometric one, with a number of steps of your choice.
- `hazan_schedule`: levels, accuracies and steps of Hazan, Levy and Shalev-Shwartz.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clipjax.optim._checks import (
    check_callable,
    check_choice,
    check_count,
    check_floating,
    check_key,
    check_positive,
    check_transformation,
    is_concrete,
    naming,
)
from clipjax.optim._trees import wide_dtype
from clipjax.optim.graduated.schedule import polynomial_levels
from clipjax.optim.graduated.smoothing import smoothed_value_and_grad

MAX_STEPS = 2**31 - 1


class ExplicitGraduatedResult(NamedTuple):
    """What `explicit_graduated_optimization` returns.

    Attributes:
        x: the last point; a tree like `x0`.
        values: f, not smoothed, after each stage; shape (stages,). Not finite if it diverged.
        smoothed_values: each stage's last estimate of f̂_δ, at the point before its last step;
            shape (stages,); NaN for a stage of no steps.
        levels: δ_m; shape (stages,).
        steps: T_m; int32, shape (stages,).
    """

    x: Any
    values: jax.Array
    smoothed_values: jax.Array
    levels: jax.Array
    steps: jax.Array


class HazanSchedule(NamedTuple):
    """Levels δ_m, accuracies ε_m (float64) and steps T_m (int64), each of shape (stages,)."""

    levels: np.ndarray
    accuracies: np.ndarray
    steps: np.ndarray


def explicit_graduated_optimization(
    fn: Callable[[Any], jax.Array],
    x0: Any,
    key: jax.Array,
    *,
    levels: Sequence[float] | np.ndarray | jax.Array,
    learning_rate: jax.typing.ArrayLike | Callable[[jax.Array, jax.Array], jax.Array],
    steps_per_stage: int | Sequence[int] | np.ndarray | jax.Array = 20,
    num_samples: int = 100,
    distribution: str = "gaussian",
    df: jax.typing.ArrayLike = 3.0,
    antithetic: bool = True,
    estimator: str = "first_order",
    batch_size: int | None = None,
    direction: optax.GradientTransformation | None = None,
) -> ExplicitGraduatedResult:
    r"""Minimise a function through its smoothed forms, from the smoothest to the sharpest.

    .. math::

       x \leftarrow x - \eta_m\, D\bigl(\nabla \hat f_{\delta_m}(x)\bigr) \quad T_m \text{ times},
       \qquad \eta_m = \eta\, \delta_m, \qquad m = 1, \dots, M

    with the gradient estimated from `num_samples` points and D the identity (gradient descent) or
    `direction`. A pure function of its arguments: it may be jitted, and vmapped over starts and
    keys. The draws of step t of stage m come from fold_in(fold_in(key, m), t).

    It finds a global minimum where the minimisers of the smoothed functions lead there (σ-nice
    functions; `clipjax.analysis` has the checks) and not otherwise: with levels up to 1, Schwefel's
    function on [-500, 500]^n is as hard as before.

    Args:
        fn: x -> a scalar.
        x0: the start; a tree of finite floating-point arrays.
        key: a JAX random key.
        levels: δ_m > 0, one per stage, from `smoothing_levels`, `hazan_schedule` or your own.
        learning_rate: a number η, for steps of size ηδ_m; or a function (δ_m, t) -> step size, t
            the step within the stage from 0 (`lambda delta, t: 1 / (sigma * (t + 1))` is the rule
            of Hazan et al.).
        steps_per_stage: T_m, one number or one per stage.
        num_samples: points per gradient, even if antithetic. Static.
        distribution: see `smoothed_value_and_grad`, as for the next four arguments.
        df: see there.
        antithetic: see there.
        estimator: see there.
        batch_size: see there.
        direction: an Optax transformation of gradients without learning rate and sign, such as
            `optax.trace(0.9)` or `optax.scale_by_adam()`; its state goes on through the stages.

    Returns:
        `ExplicitGraduatedResult`: the last point, f after every stage, the plan.

    Non-finite gradients: x becomes non-finite and stays so through all later stages, and `values`
    shows it. A `direction` in `optax.apply_if_finite` skips such steps.

    Raises:
        ValueError: for levels that are empty or not positive and finite, steps that are negative,
            not whole or not one per stage, a start that is not finite, and whatever
            `smoothed_value_and_grad` refuses.

    Examples:
        >>> def rastrigin(x):
        ...     return jnp.sum(x**2 + 10 - 10 * jnp.cos(2 * jnp.pi * x))
        >>> result = explicit_graduated_optimization(
        ...     rastrigin, jnp.array([3.3, -2.7]), jax.random.key(0),
        ...     levels=smoothing_levels(20, delta_final=0.01), learning_rate=0.01,
        ... )
        >>> print(bool(result.values[-1] < 0.01))  # plain descent stays near x0, at f > 15
        True

    References:
        Hazan, Levy, Shalev-Shwartz, 2016 (https://arxiv.org/abs/1503.03712), Algorithm 1;
        Sato, Iiduka, Explicit and implicit graduated optimization in deep neural networks, 2025
        (https://arxiv.org/abs/2412.11501), Algorithm 1.
    """
    check_callable("fn", fn)
    check_key("key", key)
    if direction is not None:
        check_transformation("direction", direction)
    deltas, steps = _stages(levels, steps_per_stage)
    if not callable(learning_rate):
        check_positive("learning_rate", learning_rate, finite=True)
    check_floating(x0, "x0")
    _check_finite("x0", x0)
    dtype = wide_dtype(x0)
    deltas = deltas.astype(dtype)
    inner = optax.identity() if direction is None else direction

    def objective(x: Any) -> jax.Array:
        with naming("fn", "x0"):
            return fn(x)

    def step_size(delta: jax.Array, t: jax.Array) -> jax.Array:
        if callable(learning_rate):
            with naming("learning_rate", "level", "step"):
                return jnp.asarray(learning_rate(delta, t), dtype)
        return jnp.asarray(learning_rate, dtype) * delta

    def stage(carry: tuple[Any, Any], plan: tuple[jax.Array, jax.Array, jax.Array]):
        m, delta, count = plan
        stage_key = jax.random.fold_in(key, m)

        def step(t: jax.Array, carry: tuple[Any, Any, jax.Array]):
            x, state, _ = carry
            value, gradient = smoothed_value_and_grad(
                objective,
                delta,
                num_samples,
                jax.random.fold_in(stage_key, t),
                distribution=distribution,
                df=df,
                antithetic=antithetic,
                estimator=estimator,
                batch_size=batch_size,
            )(x)
            updates, state = inner.update(gradient, state, x)
            rate = step_size(delta, t)
            x = jax.tree.map(lambda x, d: (x - rate * d).astype(x.dtype), x, updates)
            return x, state, value

        missing = jnp.full((), jnp.nan, dtype)
        x, state, smoothed = jax.lax.fori_loop(0, count, step, (*carry, missing))
        return (x, state), (objective(x), smoothed)

    start = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), x0)
    plan = jnp.arange(len(deltas)), deltas, steps
    (x, _), (values, smoothed) = jax.lax.scan(stage, (start, inner.init(start)), plan)
    return ExplicitGraduatedResult(x, values, smoothed, deltas, steps)


def _check_finite(name: str, point: Any) -> None:
    """Raise ValueError, naming the leaf, if a point is known now and not finite."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(point):
        if is_concrete(leaf) and not jnp.all(jnp.isfinite(leaf)):
            where = jax.tree_util.keystr(path) or "the only leaf"
            raise ValueError(f"{name} must be finite, but {where} holds NaN or infinity.")


def smoothing_levels(
    num_stages: int,
    *,
    delta_init: float = 1.0,
    delta_final: float | None = None,
    decay: str = "polynomial",
    power: float = 1.0,
) -> np.ndarray:
    r"""Return falling noise levels δ_1, ..., δ_M.

    .. math::

       \delta_m = \delta_1 \Bigl(\frac{M - m + 1}{M}\Bigr)^p \quad \text{(polynomial)}, \qquad
       \delta_m = \delta_1 (\delta_M / \delta_1)^{(m-1)/(M-1)} \quad \text{(geometric)}

    The polynomial plan has the ratios γ_m = ((M-m)/(M-m+1))^p of the σ-nice papers. Stage M+1
    would have level 0 and is left out. Sato and Iiduka's code replaces the last level by 0.01:
    `smoothing_levels(51, delta_final=0.01)`.

    Args:
        num_stages: M ≥ 1.
        delta_init: δ_1 > 0.
        delta_final: δ_M, positive and not above the level before it. None leaves the polynomial
            plan's own, δ_1/M^p; the geometric plan needs it.
        decay: "polynomial" or "geometric".
        power: p > 0 of the polynomial plan; the theory has p in (0, 1].

    Returns:
        float64, shape (M,).

    Raises:
        ValueError: for numbers out of range or an unknown `decay` (with the nearest name).

    Examples:
        >>> smoothing_levels(4).tolist()
        [1.0, 0.75, 0.5, 0.25]
        >>> smoothing_levels(3, delta_final=0.01, decay="geometric").round(6).tolist()
        [1.0, 0.1, 0.01]
    """
    check_count("num_stages", num_stages, minimum=1)
    check_positive("delta_init", delta_init, finite=True)
    check_positive("power", power, finite=True)
    check_choice("decay", decay, ("polynomial", "geometric"))
    if delta_final is not None:
        check_positive("delta_final", delta_final, finite=True)
    if decay == "geometric":
        if delta_final is None:
            raise ValueError("delta_final is None; the geometric plan needs the last level.")
        levels = np.geomspace(delta_init, delta_final, num_stages)
    else:
        levels = delta_init * np.array(polynomial_levels(num_stages, power))
        levels[-1] = levels[-1] if delta_final is None else delta_final
    if not levels.all():
        raise ValueError(f"power={power} makes the last levels 0 in float64; take a smaller one.")
    before = levels[-2] if num_stages > 1 else delta_init
    if levels[-1] > before or (delta_final is not None and levels[-1] != delta_final):
        raise ValueError(
            f"delta_final must be at most the level before it, {before:g}, got {delta_final}."
        )
    return levels


def hazan_schedule(
    strong_convexity: float,
    num_stages: int,
    *,
    delta_init: float = 1.0,
    step_constant: float = 12480.0,
) -> HazanSchedule:
    r"""Return the stages of GradOpt: the level halves, the accuracy falls with its square.

    .. math::

       \delta_{m+1} = \delta_m / 2, \qquad \varepsilon_m = \sigma \delta_m^2 / 32, \qquad
       T_m = \lceil K / (\sigma \varepsilon_m) \rceil

    Slides on the method print T_m = σδ_m²/32. That number is the accuracy ε_m: as a number of
    steps it would be below one and shrink from stage to stage. With T_m as above the steps grow
    fourfold with every halving, and their sum is of order 1/δ_M², the O(1/ε²) of the theorem.

    The constant K = 12480 is given as recalled from the paper, unconfirmed, and it is large: a
    first stage of 399,360 steps for σ = δ_1 = 1. A smaller `step_constant` keeps the proportions.

    Args:
        strong_convexity: σ > 0 of the smoothed functions around their minimisers.
        num_stages: M ≥ 1.
        delta_init: δ_1 > 0.
        step_constant: K > 0.

    Raises:
        ValueError: for numbers out of range, or a stage of more than 2^31 - 1 steps.

    Examples:
        >>> plan = hazan_schedule(1.0, 3, step_constant=1.0)
        >>> plan.levels.tolist(), plan.steps.tolist()
        ([1.0, 0.5, 0.25], [32, 128, 512])

    References:
        Hazan, Levy, Shalev-Shwartz, 2016 (https://arxiv.org/abs/1503.03712), Algorithm 1.
    """
    check_positive("strong_convexity", strong_convexity, finite=True)
    check_count("num_stages", num_stages, minimum=1)
    check_positive("delta_init", delta_init, finite=True)
    check_positive("step_constant", step_constant, finite=True)
    levels = delta_init * 0.5 ** np.arange(num_stages)
    accuracies = strong_convexity * levels**2 / 32
    steps = np.ceil(step_constant / (strong_convexity * accuracies))
    if steps[-1] > MAX_STEPS:
        raise ValueError(
            f"stage {num_stages} would take {steps[-1]:.3g} steps, more than {MAX_STEPS}; use "
            "fewer stages or a smaller step_constant."
        )
    return HazanSchedule(levels, accuracies, steps.astype(np.int64))


def _stages(levels: Any, steps: Any) -> tuple[jax.Array, jax.Array]:
    """Return levels (stages,) and steps (stages,) int32, having checked what is concrete."""
    check_positive("levels", levels, finite=True, arrays=True)
    deltas = jnp.asarray(levels, float)
    if deltas.ndim != 1 or not deltas.size:
        raise ValueError(f"levels must be one number per stage, got shape {deltas.shape}.")
    check_count("steps_per_stage", steps, maximum=MAX_STEPS, arrays=True)
    counts = jnp.asarray(steps, jnp.int32)
    if counts.shape not in ((), deltas.shape):
        raise ValueError(
            f"steps_per_stage must be one number or one per stage ({len(deltas)}), got shape "
            f"{counts.shape}."
        )
    return deltas, jnp.broadcast_to(counts, deltas.shape)
