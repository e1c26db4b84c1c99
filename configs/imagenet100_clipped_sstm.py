r"""ImageNet-100, ResNet-18, clipped-SSTM, with the thesis's numbers (configs/thesis.py).

python -m experiments.train --config configs/imagenet100_clipped_sstm.py \
    --workdir runs/imagenet100_clipped_sstm

The thesis reports top-1 47.2 %. Not run at full size here.
--small: the same method for 100 steps on embedded data.
"""

from configs.thesis import full, reduced

config = full("imagenet100", "clipped_sstm")
small = reduced("imagenet100", "clipped_sstm")
