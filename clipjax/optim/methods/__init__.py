"""Whole methods with clipping inside, in place of `optax.sgd` or `optax.adam`."""

from clipjax.optim.methods.clipped_adaptive import (
    ACClipState,
    MomentsState,
    acclip,
    clipped_adagrad,
    clipped_adam,
)
from clipjax.optim.methods.clipped_sgd import (
    clipped_sgd,
)
from clipjax.optim.methods.shampoo import ShampooState, scale_by_shampoo, shampoo
from clipjax.optim.methods.similar_triangles import (
    ClippedSSTMState,
    SimilarTrianglesState,
    clipped_sstm,
    scale_by_similar_triangles,
    sstm_step_size,
)

__all__ = [
    "ACClipState",
    "ClippedSSTMState",
    "MomentsState",
    "ShampooState",
    "SimilarTrianglesState",
    "acclip",
    "clipped_adagrad",
    "clipped_adam",
    "clipped_sgd",
    "clipped_sstm",
    "scale_by_shampoo",
    "scale_by_similar_triangles",
    "shampoo",
    "sstm_step_size",
]
