r"""Logistic regression on australian (Gorbunov, Danilova and Gasnikov 2020).

python -m experiments.high_probability \
    --config configs/tails/australian.py --workdir runs/tails/australian

CLIPJAX_LIBSVM_DIR names the folder of the LIBSVM file.
"""

from experiments.high_probability.published import libsvm_regression

config = libsvm_regression(
    "australian",
    examples=690,
    shift=0.1,
    batch_size=50,
    rate=1.0,
    level=2.5e-06,
    decay=(1e-05, 1500, 0.9),
    epochs=50000,
    published_epochs=50000,
    sstm_a=1000.0,
    sstm_factor=0.01,
    replicas=10,
)
