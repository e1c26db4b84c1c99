r"""DIV2K x4, SRResNet, Adam, with the thesis's numbers (configs/thesis.py).

python -m experiments.train --config configs/div2k_adam.py \
    --workdir runs/div2k_adam

The thesis reports PSNR 18.046 (validation). Not run at full size here.
--small: the same method for 100 steps on embedded data.
"""

from configs.thesis import full, reduced

config = full("div2k", "adam")
small = reduced("div2k", "adam")
