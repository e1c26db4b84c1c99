r"""Constants of the theorems: step sizes, levels, batches, iterations and the bound they buy.

Each function takes what a theorem assumes of the problem and returns what it prescribes, ready for
`clipjax.clipped_sgd` or `clipjax.clipped_sstm`:

```python
constants = clipjax.theory.clipped_sstm_constants(
    smoothness=1.0, distance=2.0, noise_scale=0.5, failure_probability=0.05, accuracy=0.1
)
tx = clipjax.accumulate_gradients(
    clipjax.clipped_sstm(**constants.arguments), every=constants.batch_sizes
)
# After constants.oracle_calls gradients f(eval_params) − f* ≤ 0.1, in at least 95 % of all runs.
```

**Worst-case constants.** They hold for every problem with the given L and σ, and are far too
cautious for any one. On a quadratic with noise of tail index 2.1 the runs in our tests end 32
(clipped-SGD) and 160 (clipped-SSTM) times below the bound, and steps 10 times as long still end
lower. Use the constants to see how things scale, then tune.

**Status.** The papers themselves were not read for this. Each docstring says of its formulas
whether they are VERIFIED (read in a source that quotes them: a thesis, a later paper, the authors'
code), DERIVED (follow from others by algebra given here, and tested) or RECALLED (from memory of
the paper; consistent with what is verified, but their *numbers* are unconfirmed defaults).

The arguments mean the same everywhere:

| argument              | symbol | meaning                                                        |
|-----------------------|--------|----------------------------------------------------------------|
| `smoothness`          | L      | Lipschitz constant of ∇f                                       |
| `distance`            | R_0    | at least ‖x^0 − x*‖                                            |
| `noise_scale`         | σ      | E‖∇f(x, ξ) − ∇f(x)‖² ≤ σ² (the moment α where one is given)    |
| `failure_probability` | β      | the bound fails in a run with at most this probability         |
| `accuracy`            | ε      | wanted f − f*; gives the smallest N whose bound is ε           |
| `iterations`          | N      | instead of the accuracy: the number of steps                   |
| `batch_size`          | b      | fixed batch; None for the theorem's own m_k                    |

L and σ can be estimated from gradients: `estimate_smoothness`,
`estimate_smoothness_from_gradients`, `estimate_noise_scale`.
"""

from clipjax.optim.theory.constants import (
    BatchSizes,
    ClippedSGDConstants,
    ClippedSSTMConstants,
    RestartedConstants,
)
from clipjax.optim.theory.estimators import (
    estimate_noise_scale,
    estimate_smoothness,
    estimate_smoothness_from_gradients,
)
from clipjax.optim.theory.finite_variance import (
    clipped_sgd_constants,
    clipped_sstm_constants,
    restarted_clipped_sgd_constants,
    restarted_clipped_sstm_constants,
)
from clipjax.optim.theory.holder import holder_clipped_sgd_constants, holder_clipped_sstm_constants
from clipjax.optim.theory.infinite_variance import (
    infinite_variance_clipped_sgd_constants,
    infinite_variance_clipped_sstm_constants,
    restarted_infinite_variance_clipped_sstm_constants,
)
from clipjax.optim.theory.schedules import (
    exponential_schedule,
    sgd_convex_schedule,
    sgd_decreasing_schedule,
    sgd_pl_schedule,
)

__all__ = [
    "BatchSizes",
    "ClippedSGDConstants",
    "ClippedSSTMConstants",
    "RestartedConstants",
    "clipped_sgd_constants",
    "clipped_sstm_constants",
    "estimate_noise_scale",
    "estimate_smoothness",
    "estimate_smoothness_from_gradients",
    "exponential_schedule",
    "holder_clipped_sgd_constants",
    "holder_clipped_sstm_constants",
    "infinite_variance_clipped_sgd_constants",
    "infinite_variance_clipped_sstm_constants",
    "restarted_clipped_sgd_constants",
    "restarted_clipped_sstm_constants",
    "restarted_infinite_variance_clipped_sstm_constants",
    "sgd_convex_schedule",
    "sgd_decreasing_schedule",
    "sgd_pl_schedule",
]
