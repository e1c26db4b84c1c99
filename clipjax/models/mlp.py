"""A multilayer perceptron: the smallest model with the interface of the others."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from clipjax.models._checks import check_count, check_counts, check_dtype
from clipjax.models.initializers import he_normal_fan_in, uniform_fan_in


class MLP(nn.Module):
    """Linear layers with ReLU between them, on flattened images.

    It has no batch normalisation, hence no "batch_stats" collection: for tests, and for
    objectives that must not depend on the rest of the batch.

    Attributes:
        num_outputs: features of the last layer.
        hidden: features of the hidden layers, in order.
        dtype: dtype of the computation; parameters and outputs are float32.

    Examples:
        >>> import jax, jax.numpy as jnp
        >>> model = MLP(num_outputs=10, hidden=(32,))
        >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), train=False)
        >>> model.apply(variables, jnp.zeros((5, 8, 8, 1)), train=True).shape
        (5, 10)
    """

    num_outputs: int
    hidden: Sequence[int] = (64,)
    dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        """Refuse sizes and dtypes that no network has."""
        check_count("num_outputs", self.num_outputs)
        check_counts("hidden", self.hidden)
        check_dtype("dtype", self.dtype)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map (batch, ...) to (batch, num_outputs), float32; `train` changes nothing."""
        x = x.reshape(x.shape[0], -1)
        for features in self.hidden:
            x = nn.relu(nn.Dense(features, kernel_init=he_normal_fan_in, dtype=self.dtype)(x))
        x = nn.Dense(self.num_outputs, kernel_init=uniform_fan_in, dtype=self.dtype)(x)
        return x.astype(jnp.float32)
