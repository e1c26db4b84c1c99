r"""Logistic regression on heart (Gorbunov, Danilova and Gasnikov 2020).

python -m experiments.high_probability \
    --config configs/tails/heart.py --workdir runs/tails/heart

CLIPJAX_LIBSVM_DIR names the folder of the LIBSVM file.
"""

from experiments.high_probability.published import libsvm_regression

config = libsvm_regression(
    "heart",
    examples=270,
    shift=0.1,
    batch_size=20,
    rate=0.05,
    level=0.0005,
    decay=(0.001, 1000, 0.9),
    epochs=20000,
    published_epochs=20000,
    sstm_a=10000.0,
    sstm_factor=0.01,
    replicas=20,
)
