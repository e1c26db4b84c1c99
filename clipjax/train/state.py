"""What training carries from step to step, and its fingerprint."""

import hashlib
from typing import Any, NamedTuple

import jax
import numpy as np

from clipjax.typing import Params


class TrainState(NamedTuple):
    """All that a step changes; one checkpoint holds exactly this.

    The random keys and the position in the data are functions of (seed, step), so neither is here.
    """

    step: jax.Array
    """Steps done, int32 ()."""
    params: Params
    """The model's parameters: for averaging methods the query point, not the evaluation point."""
    opt_state: Any
    """The Optax state."""
    model_state: dict[str, Any]
    """Flax's other collections (`batch_stats`); empty for models without any."""


def digest(tree: Any) -> str:
    """Return the SHA-256 over the paths, dtypes, shapes and bytes of a tree's leaves.

    Equal digests mean bit-equal trees, which is how interrupted and uninterrupted runs are
    compared.

    Args:
        tree: arrays, each fully addressable by this process (replicated ones are).

    Returns:
        64 hexadecimal digits.

    Examples:
        >>> digest({"w": np.zeros(2, np.float32)})[:12]
        '836bd17ff8af'
    """
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
