r"""The toy expectations of Gorbunov, Danilova and Gasnikov (2020): four noises of variance 1.

python -m experiments.high_probability \
    --config configs/tails/toy.py --workdir runs/tails/toy

f(x) = 1/2 |x|² in 100 dimensions from x_i = 0.01 i, step size 1e-3, clipped at 100. The notebook
takes 100,000 steps; 20,000 reach the plateau γσ²n / (2(2 - γ)) = 0.025.
"""

from experiments.high_probability.config import Config

config = Config(
    dimension=100,
    start=0.0,
    start_slope=0.01,
    noises=(
        "normal",
        "standardised(exponential())",
        "standardised(weibull(0.2))",
        "standardised(burr(1.0, 2.3))",
    ),
    steps=20_000,
    replicas=200,
    records=1000,
    spacing="linear",
    methods=("sgd", "clipped_sgd"),
    learning_rate=1e-3,
    clip_level=100.0,
    reference="toy",
)
