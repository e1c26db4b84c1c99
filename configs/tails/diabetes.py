r"""Logistic regression on diabetes (Gorbunov, Danilova and Gasnikov 2020).

python -m experiments.high_probability \
    --config configs/tails/diabetes.py --workdir runs/tails/diabetes

CLIPJAX_LIBSVM_DIR names the folder of the LIBSVM file.
"""

from experiments.high_probability.published import libsvm_regression

config = libsvm_regression(
    "diabetes",
    examples=768,
    shift=0.1,
    batch_size=100,
    rate=0.1,
    level=0.01,
    decay=(0.01, 1000, 0.7),
    epochs=10000,
    published_epochs=10000,
    sstm_a=5000.0,
    sstm_factor=0.05,
    replicas=20,
)
