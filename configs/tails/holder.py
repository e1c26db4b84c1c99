r"""The Hölder regression of Gorbunov et al. (2021) with 1,000 seeds.

python -m experiments.high_probability \
    --config configs/tails/holder.py --workdir runs/tails/holder

mean |a·x - b|^1.75 on heavy-tailed data, 10 epochs of 5,000 examples, from a point of norm 10; the
published step sizes, levels and batch sizes. An oracle call is a draw of 5 examples; larger batches
accumulate it. Differences: examples are drawn with replacement, the notebook shuffles each epoch;
its nine runs were three data sets with three seeds, here it is one data set with 1,000 seeds.
"""

from experiments.high_probability.config import Config

config = Config(
    problem="holder_regression()",
    start=10.0,
    start_from="sphere",
    noises=("minibatch(5)",),
    steps=10_000,
    replicas=1000,
    records=20,
    spacing="linear",
    methods=(
        "clipped_sstm = clipjax.clipped_sstm(1e-3, 1.0, 0.01, step_offset=1)",
        "clipped_sgd = clipjax.clipped_sgd(1e-2, 0.01, clip='value', momentum=0.8)",
        "adam = clipjax.accumulate_gradients(optax.adam(1e-3, b1=0.9, b2=0.9), 2)",
        "sgd = clipjax.accumulate_gradients(optax.sgd(1e-4, momentum=0.99), 40)",
    ),
    levels=(0.5, 0.9, 0.99),
)
