import numpy as np
import pytest


@pytest.fixture
def data():
    """Images and labels in the shape of MNIST: 12 to train on, 5 to test on."""
    rng = np.random.default_rng(0)
    return {
        prefix: (
            rng.integers(0, 256, (count, 28, 28), dtype=np.uint8),
            rng.integers(0, 10, count, dtype=np.uint8),
        )
        for prefix, count in (("train", 12), ("t10k", 5))
    }
