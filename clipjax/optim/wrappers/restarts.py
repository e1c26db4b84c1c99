r"""Restarts: begin anew from the answer so far, as the methods for strongly convex functions do.

R-clipped-SSTM and R-clipped-SGD run their method for N_0 steps, take the evaluation point (y, or
the mean of the iterates) as the start of a fresh run, and so on; each run halves the squared
distance to the solution. With L = 10, μ = 1:

```python
tx = clipjax.with_restarts(clipjax.clipped_sstm(1 / a, 10.0, B), restart_steps=N0)
tx = clipjax.with_restarts(clipjax.average_iterates(clipjax.clipped_sgd(gamma, level)), N0)
```

The theorems also shrink the levels from run to run. For that, `inner` may be a function of the
number of the run, t = 0, 1, ...; t is a traced integer:

```python
tx = clipjax.with_restarts(lambda t: clipjax.clipped_sstm(1 / a, 10.0, B * 2.0 ** (-t / 2)), N0)
```

Schedules inside count the steps of their run. Growing batches go around it all:
`clipjax.accumulate_gradients(clipjax.with_restarts(...), every)`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clipjax.optim._checks import (
    as_numbers,
    check_count,
    check_floating,
    check_transformation,
    is_concrete,
    require_params,
)
from clipjax.optim._trees import increment, transformation
from clipjax.optim.evaluation_point import eval_params


class RestartState(NamedTuple):
    """State of `with_restarts`.

    Attributes:
        count: number of steps of this run so far; int32 scalar.
        restarts: number of restarts so far, which is the number t of this run; int32 scalar.
        inner_state: the state of the wrapped transformation.
    """

    count: jax.Array
    restarts: jax.Array
    inner_state: optax.OptState


def run_lengths(restart_steps: int | Sequence[int]) -> np.ndarray:
    """Return the lengths of the runs before the last restart, or of all runs if they are equal.

    Args:
        restart_steps: n, for a restart after every n steps, or the numbers of steps after which to
            restart, increasing.

    Raises:
        ValueError: if a number is not whole and positive, or the numbers do not increase.

    Examples:
        >>> run_lengths([10, 30, 70]).tolist()
        [10, 20, 40]
        >>> run_lengths(10).tolist()
        10
    """
    remedy = "give n, or increasing numbers of steps after which to restart"
    if restart_steps is None or not is_concrete(restart_steps):
        raise ValueError(
            f"restart_steps must be known at construction, got {restart_steps!r}; {remedy}. Under "
            "optax.inject_hyperparams name it in static_args."
        )
    steps = as_numbers("restart_steps", restart_steps)
    if steps.ndim > 1 or not steps.size:
        raise ValueError(
            f"restart_steps must be a flat list of whole numbers, at least one, got "
            f"{restart_steps}; {remedy}."
        )
    check_count("restart_steps", steps, minimum=1, arrays=True)
    lengths = np.diff(steps, prepend=0) if steps.ndim else steps
    if np.any(lengths < 1):
        raise ValueError(f"restart_steps must increase, got {restart_steps}; {remedy}.")
    return lengths


def with_restarts(
    inner: optax.GradientTransformation | Callable[[jax.Array], optax.GradientTransformation],
    restart_steps: int | Sequence[int],
) -> optax.GradientTransformationExtraArgs:
    r"""Restart a method from its evaluation point, with a fresh state, after given steps.

    .. math:: \hat x^{t+1} = \text{the evaluation point of } N_t \text{ steps of the method from }
       \hat x^t

    In the last step of a run the update leads to the point that `clipjax.eval_params` gives after
    this step, and `inner` is initialised there. The next gradient is taken at that point.

    Args:
        inner: a method with an evaluation point: `clipped_sstm`, `scale_by_similar_triangles`,
            `average_iterates(...)`, alone or within a chain. Or a function that returns it for the
            number t of the run, a traced int32 scalar from 0; the types of its state must not
            depend on t.
        restart_steps: n, to restart after every n steps, or an increasing sequence of numbers of
            steps after which to restart. Static under `optax.inject_hyperparams`, and so is an
            `inner` that is a function: name them in `static_args`.

    Returns:
        An Optax transformation with state `RestartState`. Updates have the dtype of the parameters.

    Non-finite gradients: the update is that of `inner`, and non-finite parameters are restarted
    from as they are. The one exception is the rule's own: an average leaves out the last point,
    hence the last gradient of a run. `optax.apply_if_finite` around it skips the step and leaves
    the state as it was. The step is not counted towards its run.

    Raises:
        ValueError: for restart steps that are not positive, whole and increasing; in `init`, if
            `inner` keeps no evaluation point or a parameter is not a real floating-point array; in
            `update`, without parameters.

    Examples:
        >>> import clipjax
        >>> tx = with_restarts(clipjax.average_iterates(optax.sgd(1.0)), restart_steps=2)
        >>> x = jnp.array(0.0)
        >>> state = tx.init(x)
        >>> for _ in range(4):  # x = 0, 1, then their mean 0.5; 0.5, 1.5, then 1
        ...     updates, state = tx.update(jnp.array(-1.0), state, x)
        ...     x = optax.apply_updates(x, updates)
        ...     print(x, end=" ")
        1.0 0.5 1.5 1.0

    References:
        Gorbunov, Danilova, Gasnikov, 2020 (https://arxiv.org/abs/2005.10785), Algorithms 2 and 4:
        R-clipped-SSTM and R-clipped-SGD.
    """
    if not callable(inner):
        check_transformation("inner", inner)
    lengths = run_lengths(restart_steps)

    def method(run: jax.Array) -> optax.GradientTransformationExtraArgs:
        built = inner if isinstance(inner, optax.GradientTransformation) else inner(run)
        check_transformation("what inner returns" if built is not inner else "inner", built)
        return optax.with_extra_args_support(built)

    def due(count: jax.Array, run: jax.Array) -> jax.Array:
        if not lengths.ndim:
            return count == int(lengths)
        last = len(lengths) - 1
        length = jnp.asarray(lengths, jnp.int32)[jnp.minimum(run, last)]
        return (count == length) & (run <= last)

    def init(params: optax.Params) -> RestartState:
        check_floating(params)
        count, run = jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32)
        state = method(run).init(params)
        eval_params(state, params)  # raises now, not after restart_steps
        return RestartState(count, run, state)

    def update(updates, state: RestartState, params=None, **extra_args):
        params = require_params("with_restarts", params)
        new_updates, inner_state = method(state.restarts).update(
            updates, state.inner_state, params, **extra_args
        )
        count, run = increment(state.count), state.restarts

        def restart(new_updates, inner_state, params):
            there = eval_params(inner_state, optax.apply_updates(params, new_updates))
            move = jax.tree.map(jnp.subtract, there, params)
            # Not `there` itself: where the caller's own addition will lead, to the last bit.
            start = optax.apply_updates(params, move)
            next_run = increment(run)
            return move, RestartState(jnp.zeros_like(count), next_run, method(next_run).init(start))

        def go_on(new_updates, inner_state, params):
            cast = jax.tree.map(lambda u, x: u.astype(jnp.result_type(x)), new_updates, params)
            return cast, RestartState(count, run, inner_state)

        return jax.lax.cond(due(count, run), restart, go_on, new_updates, inner_state, params)

    return transformation(init, update)
