"""Batch normalisation's statistics at parameters other than those of training.

Averaged methods evaluate at a point y that training never visits: the running moments belong to
the query points x, and to those of the last steps rather than to the last one.
`recompute_batch_stats` measures them anew at the given parameters, or at many points at once.
"""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import traverse_util

from clipjax.typing import Batch, HostBatch, Params, Task


def recompute_batch_stats(
    model: nn.Module,
    params: Params,
    model_state: Any,
    batches: Iterable[Batch] | Iterable[HostBatch],
    task: Task,
    *,
    seed: int = 0,
    stacked: bool = False,
) -> Any:
    """Return the model state with batch normalisation's moments measured at `params`.

    Each batch passes through the model in training mode; with batches b = 1 ... n of one size,
    each layer gets

        mean = mean_b(mean_b),    var = mean_b(var_b) + var_b(mean_b),

    the law of total variance: the exact moments of the layer's input over all examples, provided
    that the input itself does not depend on the batch (as for a first batch normalisation; deeper
    ones see inputs normalised batch by batch, as in training). The arguments are left as they
    are. One compilation serves all calls with an equal model, task and shapes.

    Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3 (PreciseBN); Izmailov et al.
    2018, "Averaging weights leads to wider optima", section 3.2.

    Args:
        model: a Flax module whose attribute `bn_momentum` is its batch normalisations' momentum.
        params: the parameters at which to measure.
        model_state: the other collections, {"batch_stats": ...}; returned as it is, no batch
            read, when there is no "batch_stats".
        batches: full batches of one size (no padding), on the host or as global arrays.
        task: its `inputs` makes the model's input of a batch.
        seed: of the dropout, where the model has any.
        stacked: whether `params` holds many points, (points, ...) each leaf. All of them are
            measured at once by `vmap`, which takes memory for a batch's activations at each.

    Returns:
        The model state with new "batch_stats", float32; (points, ...) where `stacked`, while the
        other collections stay as they are.

    Raises:
        ValueError: when the model has no `bn_momentum`, there is no batch, the batches
            differ in size, or a statistic is neither a mean nor a variance.

    Examples:
        >>> import jax.numpy as jnp
        >>> from flax import linen as nn
        >>> class Normalize(nn.Module):
        ...     bn_momentum: float = 0.9
        ...     @nn.compact
        ...     def __call__(self, x, *, train):
        ...         return nn.BatchNorm(not train, momentum=self.bn_momentum)(x)
        >>> class Identity:
        ...     def inputs(self, batch):
        ...         return batch["image"]
        >>> model, task = Normalize(), Identity()
        >>> batches = [{"image": jnp.array([[0.0], [2.0]])}, {"image": jnp.array([[4.0], [6.0]])}]
        >>> variables = model.init(jax.random.key(0), batches[0]["image"], train=False)
        >>> state, params = {"batch_stats": variables["batch_stats"]}, variables["params"]
        >>> state = recompute_batch_stats(model, params, state, batches, task)
        >>> stats = state["batch_stats"]["BatchNorm_0"]
        >>> stats["mean"].tolist(), stats["var"].tolist()  # of 0, 2, 4, 6
        ([3.0], [5.0])
    """
    if not jax.tree.leaves(model_state.get("batch_stats", {})):
        return model_state
    if not hasattr(model, "bn_momentum"):
        raise ValueError(
            f"{type(model).__name__} has batch statistics but no attribute bn_momentum; give the "
            "module one and pass it to its BatchNorm layers"
        )
    unknown = {path[-1] for path in traverse_util.flatten_dict(model_state["batch_stats"])}
    if unknown := unknown - {"mean", "var"}:
        raise ValueError(
            f"batch statistics must be leaves named 'mean' and 'var', got {sorted(unknown)}"
        )
    measuring = model.clone(bn_momentum=0.0)  # after one batch the running moments are its own
    others = {name: value for name, value in model_state.items() if name != "batch_stats"}
    shardings = jax.tree.map(lambda old: old.sharding, model_state["batch_stats"])
    moments = jax.tree.map(
        lambda old: jnp.zeros_like(old, device=old.sharding), model_state["batch_stats"]
    )
    if stacked:
        points = jax.tree.leaves(params)[0].shape[0]
        moments = jax.tree.map(lambda zero: jnp.stack([zero] * points), moments)
    count, first_size = 0, None
    for batch in batches:
        size = jax.tree.leaves(batch)[0].shape[0]
        first_size = first_size or size
        if size != first_size:
            raise ValueError(
                "batch statistics are averaged over batches of one size; got one of "
                f"{size} examples after {count} of {first_size}: leave the partial batch out"
            )
        moments = _add_batch(
            measuring, task, params, others, moments, batch, count, seed, stacked=stacked
        )
        count += 1
    if count == 0:
        raise ValueError(
            "recomputing batch statistics needs at least one full batch, got none; is the batch "
            "larger than the training set?"
        )
    if not stacked:
        moments = jax.device_put(moments, shardings)
    return {**model_state, "batch_stats": moments}


def combine_moments(moments: Any, new: Any, count: jax.typing.ArrayLike) -> Any:
    """Return the moments of `count` batches and one more of the same size.

    With d = mean_new - mean:  mean' = mean + d / (count + 1),
    var' = var + (var_new - var) / (count + 1) + d^2 count / (count + 1)^2.

    Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", eq. 2.1.

    Args:
        moments: nested dicts with leaves `mean` and `var`; anything finite at count 0.
        new: those of the new batch, the same tree.
        count: how many batches `moments` covers.

    Examples:
        >>> zero_to_two, four_to_six = {"mean": 1.0, "var": 1.0}, {"mean": 5.0, "var": 1.0}
        >>> combine_moments(zero_to_two, four_to_six, 1)  # of 0, 2, 4, 6
        {'mean': 3.0, 'var': 5.0}
    """
    old_flat: dict[Any, Any] = traverse_util.flatten_dict(moments)
    new_flat: dict[Any, Any] = traverse_util.flatten_dict(new)
    share = 1.0 / (count + 1.0)
    combined = {}
    for path, old in old_flat.items():
        combined[path] = old + (new_flat[path] - old) * share
        if path[-1] == "var":
            mean_path = (*path[:-1], "mean")
            difference = new_flat[mean_path] - old_flat[mean_path]
            combined[path] += difference**2 * (share * (1.0 - share))
    return traverse_util.unflatten_dict(combined)


@functools.partial(jax.jit, static_argnames=("model", "task", "stacked"))
def _add_batch(
    model: nn.Module,
    task: Task,
    params: Params,
    others: Any,
    moments: Any,
    batch: Batch,
    count: jax.typing.ArrayLike,
    seed: jax.typing.ArrayLike,
    *,
    stacked: bool,
) -> Any:
    key = jax.random.fold_in(jax.random.key(seed), count)

    def add(params: Params, moments: Any) -> Any:
        _, measured = model.apply(
            # The old moments, NaN after a diverged run, never enter (0 * NaN is NaN).
            {"params": params, **others, "batch_stats": moments},
            task.inputs(batch),
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        return combine_moments(moments, measured["batch_stats"], count)

    return jax.vmap(add)(params, moments) if stacked else add(params, moments)
