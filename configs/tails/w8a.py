r"""Logistic regression on w8a (Gorbunov, Danilova and Gasnikov 2020).

python -m experiments.high_probability \
    --config configs/tails/w8a.py --workdir runs/tails/w8a

CLIPJAX_LIBSVM_DIR names the folder of the LIBSVM file.
"""

from experiments.high_probability.published import libsvm_regression

config = libsvm_regression(
    "w8a",
    examples=49749,
    shift=2.0,
    batch_size=1000,
    rate=1.0,
    level=0.02,
    decay=(1.0, 50, 0.9),
    epochs=500,
    published_epochs=500,
    sstm_a=1.0,
    sstm_factor=0.1,
    replicas=2,
    records=50,
)
