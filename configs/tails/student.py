r"""The quantile table under Student's t(1.5) with two adaptive clippings more.

python -m experiments.high_probability \
    --config configs/tails/student.py --workdir runs/tails/student
"""

from experiments.high_probability.config import Config

config = Config(
    methods=("sgd", "normalized_sgd", "clipped_sgd", "clipped_sstm", "autoclip", "zclip"),
)
