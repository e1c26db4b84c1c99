r"""DIV2K x4, SRResNet, clipped-SSTM, with the thesis's numbers (configs/thesis.py).

python -m experiments.train --config configs/div2k_clipped_sstm.py \
    --workdir runs/div2k_clipped_sstm

The thesis reports PSNR 17.869 (validation). Not run at full size here.
--small: the same method for 100 steps on embedded data.
"""

from configs.thesis import full, reduced

config = full("div2k", "clipped_sstm")
small = reduced("div2k", "clipped_sstm")
