r"""DIV2K x4, SRResNet, clipped-SGD, with the thesis's numbers (configs/thesis.py).

python -m experiments.train --config configs/div2k_clipped_sgd.py \
    --workdir runs/div2k_clipped_sgd

The thesis reports PSNR 17.855 (validation). Not run at full size here.
--small: the same method for 100 steps on embedded data.
"""

from configs.thesis import full, reduced

config = full("div2k", "clipped_sgd")
small = reduced("div2k", "clipped_sgd")
