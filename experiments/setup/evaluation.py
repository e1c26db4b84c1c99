"""Where a method is evaluated, of ours, Optax's or yours: at its own point if it keeps one."""

from typing import Any

from clipjax.optim.evaluation_point import eval_params, has_evaluation_point


def evaluation_point(opt_state: Any, params: Any) -> Any:
    """Return where a method is to be evaluated: its own point, else its parameters.

    Examples:
        >>> import clipjax, jax.numpy as jnp, optax
        >>> tx = clipjax.average_iterates(optax.sgd(1.0))
        >>> state = tx.init(jnp.array(3.0))
        >>> _, state = tx.update(jnp.array(1.0), state, jnp.array(3.0))
        >>> print(evaluation_point(state, jnp.array(2.0)))
        3.0
        >>> params = {"w": jnp.ones(2)}
        >>> evaluation_point(optax.sgd(0.1).init(params), params) is params
        True
    """
    return eval_params(opt_state, params) if has_evaluation_point(opt_state) else params
