r"""How methods behave in the tail: thousands of replicas of a run, and quantiles of their gap.

    python -m experiments.high_probability --workdir runs/high_probability
    python -m experiments.high_probability --workdir runs/mine --noises "stable(1.5)" \
        --methods clipped_sgd "Adam = optax.adam(0.01)" --replicas 10000
    python -m experiments.high_probability --config configs/tails/toy.py --workdir runs/toy

The theory of clipping (Gorbunov, Danilova and Gasnikov, NeurIPS 2020; Sadiev et al., ICML 2023) is
about *high probability*: with heavy-tailed noise most runs of SGD are fine and a few are ruined,
and a mean over five seeds does not show it. Here the quantity itself is measured. Every replica
draws its own noise and the quantiles of f(x) - f* over replicas are followed from the first
gradient to the last, with bootstrap intervals.

One replica is a pure function of its key; `jax.vmap` makes thousands of it, and all methods of a
replica see the same draws (`simulate`). Replicas run in chunks below a memory budget, split over
the devices, each chunk written down before the next starts (`chunks`). The methods are ordinary
Optax transformations, built inside `vmap` so that each replica may have its own key, and are
evaluated where the method says (`clipjax.eval_params` where it averages).
"""

from experiments.high_probability.config import Config, methods
from experiments.high_probability.references import DEFAULT, reference_of
from experiments.high_probability.run import readable, run, tables
from experiments.high_probability.simulate import (
    Method,
    record_times,
    replica_keys,
    simulate,
)
from experiments.setup.evaluation import evaluation_point

REFERENCE = DEFAULT.final

__all__ = [
    "REFERENCE",
    "Config",
    "Method",
    "evaluation_point",
    "methods",
    "readable",
    "record_times",
    "reference_of",
    "replica_keys",
    "run",
    "simulate",
    "tables",
]
