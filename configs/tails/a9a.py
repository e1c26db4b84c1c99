r"""Logistic regression on a9a (Gorbunov, Danilova and Gasnikov 2020).

python -m experiments.high_probability \
    --config configs/tails/a9a.py --workdir runs/tails/a9a

CLIPJAX_LIBSVM_DIR names the folder of the LIBSVM file.
"""

from experiments.high_probability.published import libsvm_regression

config = libsvm_regression(
    "a9a",
    examples=32561,
    shift=1.0,
    batch_size=100,
    rate=0.5,
    level=0.0005,
    decay=(0.1, 5, 0.5),
    decay_rate=1.0,
    epochs=100,
    published_epochs=100,
    sstm_a=1.0,
    sstm_factor=0.05,
    replicas=4,
    records=50,
)
